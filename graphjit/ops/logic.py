"""Comparisons, truth values, bits: rows of the table, none with a derivative, and the functions of the same names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphjit.op import Elementwise, Op, register
from graphjit.operators import attach
from graphjit.ops.elementwise import astype
from graphjit.ops.families import any_unary, binary, float_unary, numeric, reflected, unary
from graphjit.ops.rules import same, to_bool
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import BOOL


def _compare(name: str, function: str, eager: Callable[..., Any]) -> Op:
    return register(Op(name, eager, same(name, "fiub", to_bool), None, Elementwise(f"{function}({{0}}, {{1}})"),
                       why="its result is a truth value"))


EQUAL = _compare("equal", "eq", np.equal)
NOT_EQUAL = _compare("not_equal", "ne", np.not_equal)
LESS = _compare("less", "lt", np.less)
LESS_EQUAL = _compare("less_equal", "le", np.less_equal)
GREATER = _compare("greater", "gt", np.greater)
GREATER_EQUAL = _compare("greater_equal", "ge", np.greater_equal)

ISNAN = unary("isnan", np.isnan, None, to=to_bool, cheap=True)
ISINF = unary("isinf", np.isinf, None, to=to_bool, cheap=True)
ISFINITE = unary("isfinite", np.isfinite, None, to=to_bool, cheap=True)
SIGNBIT = unary("signbit", np.signbit, None, to=to_bool, cheap=True)


def _whole(name: str, function: str, eager: Callable[..., Any], kinds: str) -> Op:
    return register(Op(name, eager if "b" in kinds else numeric(eager), same(name, kinds), None,
                       Elementwise(f"{function}({{0}}, {{1}})"), why="its result is not continuous"))


BITWISE_AND = _whole("bitwise_and", "bit_and", np.bitwise_and, "iub")
BITWISE_OR = _whole("bitwise_or", "bit_or", np.bitwise_or, "iub")
BITWISE_XOR = _whole("bitwise_xor", "bit_xor", np.bitwise_xor, "iub")
BITWISE_NOT = unary("bitwise_not", np.invert, None, expr="bit_not({0})", kinds="iub", cheap=True)
SHIFT_LEFT = _whole("bitwise_left_shift", "shl", np.left_shift, "iu")
SHIFT_RIGHT = _whole("bitwise_right_shift", "shr", np.right_shift, "iu")


equal = binary(EQUAL, "x == y.")
not_equal = binary(NOT_EQUAL, "x != y.")
less = binary(LESS, "x < y.")
less_equal = binary(LESS_EQUAL, "x <= y.")
greater = binary(GREATER, "x > y.")
greater_equal = binary(GREATER_EQUAL, "x >= y.")
isnan = float_unary(ISNAN, "Where x is NaN.")
isinf = float_unary(ISINF, "Where x is infinite.")
isfinite = float_unary(ISFINITE, "Where x is neither NaN nor infinite.")
signbit = float_unary(SIGNBIT, "Where x is negative, -0.0 too.")
bitwise_and = binary(BITWISE_AND, "x & y on integers or bools.")
bitwise_or = binary(BITWISE_OR, "x | y on integers or bools.")
bitwise_xor = binary(BITWISE_XOR, "x ^ y on integers or bools.")
bitwise_not = any_unary(BITWISE_NOT, "~x on integers or bools.")
bitwise_left_shift = binary(SHIFT_LEFT, "x << y on integers.")
bitwise_right_shift = binary(SHIFT_RIGHT, "x >> y on integers.")


def logical_not(x: TensorLike) -> Tensor:
    """Where x is false (zero)."""
    return bitwise_not(astype(x, BOOL))


def logical_and(x: TensorLike, y: TensorLike) -> Tensor:
    """Where both are true (not zero)."""
    return bitwise_and(astype(x, BOOL), astype(y, BOOL))


def logical_or(x: TensorLike, y: TensorLike) -> Tensor:
    """Where either is true (not zero)."""
    return bitwise_or(astype(x, BOOL), astype(y, BOOL))


def logical_xor(x: TensorLike, y: TensorLike) -> Tensor:
    """Where exactly one is true (not zero)."""
    return bitwise_xor(astype(x, BOOL), astype(y, BOOL))


attach(
    __and__=bitwise_and, __rand__=reflected(bitwise_and), __or__=bitwise_or, __ror__=reflected(bitwise_or),
    __xor__=bitwise_xor, __rxor__=reflected(bitwise_xor), __lshift__=bitwise_left_shift,
    __rshift__=bitwise_right_shift, __invert__=bitwise_not, __eq__=equal, __ne__=not_equal, __lt__=less,
    __le__=less_equal, __gt__=greater, __ge__=greater_equal, isnan=isnan, isinf=isinf, isfinite=isfinite,
    logical_not=logical_not, logical_and=logical_and, logical_or=logical_or)

__all__ = [
    "bitwise_and", "bitwise_left_shift", "bitwise_not", "bitwise_or", "bitwise_right_shift", "bitwise_xor", "equal",
    "greater", "greater_equal", "isfinite", "isinf", "isnan", "less", "less_equal", "logical_and", "logical_not",
    "logical_or", "logical_xor", "not_equal", "signbit",
]
