"""What families of element-wise ops share: how their rows are written, and the functions of the same names made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphjit.apply import apply
from graphjit.composed import composed
from graphjit.convert import as_tensor
from graphjit.op import Array, Elementwise, Op, register
from graphjit.ops.rules import same
from graphjit.promotion import agreeing, promoted, result_dtype
from graphjit.tape import state
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import BOOL, FLOAT32, FLOAT64, TensorType, is_float

Unary = Callable[[TensorLike], Tensor]
Binary = Callable[[TensorLike, TensorLike], Tensor]
NUMBER = "fiu"
ANY = "fiub"


def numeric(eager: Callable[..., Any]) -> Callable[..., Any]:
    """An eager rule that refuses the bools NumPy would make integers of, as the shape rule does."""
    def rule(x: Array, y: Array | None = None) -> Any:
        if x.dtype.kind == "b":
            raise TypeError("bool operands")
        return eager(x) if y is None else eager(x, y)
    rule.__wrapped__ = eager  # type: ignore[attr-defined]  # as functools.wraps has it
    return rule


def named(infix: str, function: str) -> Callable[[tuple[TensorType, ...], TensorType], str]:
    """Infix for floats; for integers the function that keeps their width."""
    def expr(types: tuple[TensorType, ...], out: TensorType) -> str:
        if is_float(types[0].dtype):
            return "{0} " + infix + " {1}"
        return function + "({0}, {1})"
    return expr


def unary(name: str, eager: Callable[..., Any], vjp: Callable[..., tuple[Any, ...]] | None, *, expr: str = "",
           kinds: str = "f", to: Callable[[TensorType], Any] | None = None, cheap: bool = False) -> Op:
    return register(Op(name, eager, same(name, kinds, to), vjp,
                       Elementwise(expr or f"{name}({{0}})", cheap)))


def floating(x: TensorLike) -> Tensor:
    """As a tensor that floating functions take: bools and integers become floats as in NumPy (int64 to float64)."""
    t = as_tensor(x)
    if state.trace is None and t.dtype.kind == "f":
        return t
    kind = t._type
    if kind.weak:
        return t.astype(FLOAT32)
    if is_float(kind.dtype):
        return t
    return t.astype(FLOAT32 if kind.dtype == BOOL or kind.dtype.itemsize < 4 else FLOAT64)


def binary(op: Op, doc: str) -> Callable[[TensorLike, TensorLike], Tensor]:
    @composed
    def converted(x: TensorLike, y: TensorLike) -> Tensor:
        return apply(op, *promoted(x, y))

    def function(x: TensorLike, y: TensorLike) -> Tensor:
        found = agreeing(x, y)
        return converted(x, y) if found is None else apply(op, found[0], found[1])
    return document(function, op, doc)


def of_tensors(op: Op, doc: str) -> Callable[[TensorLike, TensorLike], Tensor]:
    """As ``_binary``, for functions that are no operators: they make tensors of Python floats."""
    def function(x: TensorLike, y: TensorLike) -> Tensor:
        found = agreeing(x, y)
        a, b = strong(promoted(x, y)) if found is None else found
        return apply(op, a, b)
    return document(function, op, doc)


def strong(tensors: list[Tensor]) -> list[Tensor]:
    """Run-time Python floats as float32, as they are eagerly."""
    weak = state.trace is not None and any(t._type.weak for t in tensors)
    return [t.astype(FLOAT32) for t in tensors] if weak else tensors


def float_binary(op: Op, doc: str) -> Callable[[TensorLike, TensorLike], Tensor]:
    def function(x: TensorLike, y: TensorLike) -> Tensor:
        found = agreeing(x, y)
        if found is not None and found[0].dtype.kind == "f":
            return apply(op, found[0], found[1])
        dtype = result_dtype((x, y))
        if not is_float(dtype):
            dtype = FLOAT32 if dtype == BOOL or dtype.itemsize < 4 else FLOAT64
        return apply(op, *promoted(x, y, dtype=dtype))
    return document(function, op, doc)


def float_unary(op: Op, doc: str) -> Callable[[TensorLike], Tensor]:
    def function(x: TensorLike) -> Tensor:
        return apply(op, floating(x))
    return document(function, op, doc)


def any_unary(op: Op, doc: str) -> Callable[[TensorLike], Tensor]:
    def function(x: TensorLike) -> Tensor:
        return apply(op, as_tensor(x))
    return document(function, op, doc)


def document(function: Callable[..., Any], op: Op, doc: str) -> Callable[..., Any]:
    function.__name__ = function.__qualname__ = op.name
    function.__doc__ = doc
    return function


def reflected(function: Callable[[TensorLike, TensorLike], Tensor]) -> Callable[[Tensor, TensorLike], Tensor]:
    """The operator's method for a tensor on the right."""
    return lambda self, other: function(other, self)
