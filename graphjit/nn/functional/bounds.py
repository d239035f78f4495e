"""Labels and ids that must lie below a count."""

from __future__ import annotations

from graphjit.apply import apply
from graphjit.errors import DTypeError
from graphjit.ops.gather import CHECK_INDEX
from graphjit.tensor import Tensor
from graphjit.types import is_integer


def below(what: str, ids: Tensor, count: int) -> Tensor:
    """The ids as int64, each of 0 .. count - 1: none counts from the end.

    Raises:
        BoundsError: one is not; when the program runs, in a compiled function. DTypeError: not integers.
    """
    if not is_integer(ids.dtype):
        raise DTypeError(f"{what}s are integers, not {ids._type}", hint="Convert with x.astype(int).")
    return apply(CHECK_INDEX, ids, size=count, what=what)
