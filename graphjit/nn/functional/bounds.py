"""Labels and ids that must lie below a count."""

from __future__ import annotations

from graphjit.errors import BoundsError, DTypeError
from graphjit.ops.elementwise import where
from graphjit.ops.gather import CHECK_INDEX
from graphjit.tape import state
from graphjit.tensor import Tensor, apply
from graphjit.types import INT64, is_integer


def below(what: str, ids: Tensor, count: int) -> Tensor:
    """The ids as int64, each of 0 .. count - 1: here none counts from the end.

    Raises:
        BoundsError: one is not; when the program runs, in a compiled function. DTypeError: not integers.
    """
    if not is_integer(ids.dtype):
        raise DTypeError(f"{what}s are integers, not {ids._type}", hint="Convert with x.astype(int).")
    ids = ids.astype(INT64)
    if state.trace is None and ids.size:
        lowest, highest = int(ids.data.min()), int(ids.data.max())
        if lowest < 0 or highest >= count:
            worst = lowest if lowest < 0 else highest
            raise BoundsError(f"{what} {worst} is out of range for {int(count)} of them",
                              hint=f"It takes 0, ..., {int(count) - 1}." if count else "It takes none.")
        return ids
    return apply(CHECK_INDEX, where(ids < 0, count, ids), size=count)
