"""Shape rules that many ops share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphjit.errors import DTypeError
from graphjit.types import BOOL, TensorType, broadcast_shapes, is_float, is_integer

KINDS = {"f": "floating", "i": "integer", "u": "unsigned integer", "b": "bool"}


def operands_text(types: tuple[TensorType, ...]) -> tuple[str, ...]:
    return tuple(f"operand {i}: {t}" for i, t in enumerate(types))


def same(name: str, kinds: str, to: Callable[[TensorType], Any] | None = None) -> Callable[..., TensorType]:
    """Operands of one dtype of these kinds ('f', 'i', 'u', 'b') broadcast together; result of that dtype.

    ``to`` gives another result dtype from the first operand's type.
    """
    def infer(*types: TensorType, **params: Any) -> TensorType:
        first = types[0]
        if first.dtype.kind not in kinds:
            wanted = " or ".join(KINDS[k] for k in kinds if k != "u" or "i" not in kinds)
            raise DTypeError(f"{name} needs {wanted} operands, not {first.dtype}", detail=operands_text(types),
                             hint="Convert with x.astype(...).")
        if any(t.dtype != first.dtype for t in types):
            raise DTypeError(f"{name} needs operands of one dtype", detail=operands_text(types),
                             hint="Convert with x.astype(...).")
        shape = first.shape if len(types) == 1 else broadcast(name, types)
        weak = any(t.weak for t in types)
        return TensorType(shape, first.dtype if to is None else to(first), weak and to is None)
    return infer


def broadcast(name: str, types: tuple[TensorType, ...]) -> tuple[int, ...]:
    from graphjit.errors import ShapeError
    try:
        return broadcast_shapes(*(t.shape for t in types))
    except ShapeError as error:
        raise ShapeError(f"{name}: {error.problem}", detail=operands_text(types), hint=error.hint) from None


def to_bool(_: TensorType) -> Any:
    return BOOL


def need_float(name: str, t: TensorType) -> None:
    if not is_float(t.dtype):
        raise DTypeError(f"{name} needs a floating operand, not {t}", hint="Convert with x.astype(...).")


def need_integer(name: str, t: TensorType) -> None:
    if not is_integer(t.dtype):
        raise DTypeError(f"{name} needs an integer operand, not {t}", hint="Convert with x.astype(...).")
