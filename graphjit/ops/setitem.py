"""Writing by index: ``t[index] = value`` as a function, which ``Tensor.__setitem__`` then makes t hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphjit.apply import apply
from graphjit.buffers import mark_written, protect_views
from graphjit.composed import composed
from graphjit.convert import as_tensor
from graphjit.errors import ShapeError
from graphjit.op import Array, Host, Op
from graphjit.operators import attach
from graphjit.ops.creation import arange
from graphjit.ops.elementwise import where
from graphjit.ops.gather import SCATTER_SET, constant
from graphjit.ops.index_parts import Index, Span, entries_of, fit_mask, is_mask, take_apart
from graphjit.ops.indexing import Basic, basic, merge, pick, plain_key, to_front, view, view_shape
from graphjit.ops.movement import FLIP, PAD, broadcast_to, permute_dims
from graphjit.ops.shape import joined, operand, reshape_to, text
from graphjit.promotion import agreeing
from graphjit.tape import state
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import Extent, Shape, is_one


def with_item(x: Tensor, index: Any, value: TensorLike) -> Tensor:
    """x after ``x[index] = value``: a new tensor; of elements written twice the last value stays.

    Raises:
        ShapeError: the value does not broadcast to what is written. Otherwise as reading.
    """
    if state.trace is None and (key := plain_key(index)) is not None:
        at = basic(key, x.shape)
        return apply(SET_INDEX, x, _spread(_cast(value, x), at.shape), at=at)
    return _with_item(x, index, value)


def write_item(x: Tensor, index: Any, value: TensorLike) -> bool:
    """``x[index] = value`` in the buffer of a leaf, outside of traces and tapes. False, and nothing done, where it
    takes ``with_item``: the index holds arrays, or the value has a gradient.
    """
    key = plain_key(index)
    if key is None:
        return False
    at = basic(key, x.shape)
    v = _spread(_cast(value, x), at.shape)
    if v.requires_grad:
        return False
    protect_views(x._value)
    x.data[at.index] = v.data
    mark_written(x._value)
    return True


def _cast(value: TensorLike, x: Tensor) -> Tensor:
    """A value to be written into x."""
    pair = agreeing(x, value)
    return pair[1] if pair is not None else operand(
        as_tensor(value, x.dtype if _fits(value, x) else None)).astype(x.dtype)


def _set_index(x: Array, v: Array, at: Basic) -> Array:
    out = x.copy()
    out[at.index] = v
    return out


def _set_index_vjp(g: Tensor, out: Tensor, x: Tensor, v: Tensor, at: Basic) -> tuple[Any, Any]:
    return lambda: with_item(g, at.index, 0), lambda: g[at.index]


# with an index of integers and slices as one step, for eager code; a trace records a choice of each element
SET_INDEX = Op("set_index", _set_index, lambda x, v, at: x, _set_index_vjp, Host())


@composed
def _with_item(x: Tensor, index: Any, value: TensorLike) -> Tensor:
    x = operand(x)
    v = _cast(value, x)
    entries = entries_of(index, x.ndim)
    masks = [i for i, e in enumerate(entries) if is_mask(e)]
    if len(masks) == 1 and entries[masks[0]].ndim:
        masked = _with_mask(x, entries, masks[0], v)
        if masked is not None:
            return masked
    found = take_apart(entries, x.shape)
    if found.arrays:
        v = _scatter(view(x, found.spans), found, v)
        if all(s.whole and not s.flip for s in found.spans):
            return v
    return _set_view(x, found.spans, v)


def _fits(value: TensorLike, x: Tensor) -> bool:
    """Whether a Python number has a meaning in x's dtype without a cast."""
    return isinstance(value, float) <= (x.dtype.kind == "f")


def _spread(v: Tensor, shape: Shape) -> Tensor:
    """v without leading axes of length one that ``shape`` has no place for.

    Raises:
        ShapeError: v does not broadcast to ``shape``.
    """
    if not v.shape:
        return v
    extra = v.ndim - len(shape)
    if extra > 0 and all(n == 1 for n in v.shape[:extra]):
        v = reshape_to(v, v.shape[extra:])
    lead = len(shape) - v.ndim
    if lead < 0 or any(n not in (1, m) for n, m in zip(v.shape, shape[lead:], strict=True)):
        raise ShapeError(f"a value of shape {text(v.shape)} cannot be assigned to elements of shape "
                         f"{text(shape)}")
    return v


def _set_view(x: Tensor, spans: Sequence[Span], v: Tensor) -> Tensor:
    """Write to the elements that the basic part shows: chosen by comparing positions, so that nothing is
    stored."""
    v = _spread(v, view_shape(spans))
    lead = sum(not s.dropped for s in spans) - v.ndim
    given: list[int] = []  # v's lengths along the axes of x
    k = -lead
    for s in spans:
        if not s.new:
            given.append(1 if s.dropped or k < 0 else v.shape[k])
        k += not s.dropped
    v = reshape_to(v, given)
    axes = [s for s in spans if not s.new]
    # where v runs along an axis that is written in part, its elements are moved to their places
    runs = [i for i, n in enumerate(given) if not is_one(n)]
    flipped = tuple(i for i in runs if axes[i].flip)
    if flipped:
        v = apply(FLIP, v, axes=flipped)
    apart = [i for i in runs if not axes[i].whole]
    if apart:
        low, high, interior = ([0] * x.ndim for _ in range(3))
        for i in apart:
            s, n = axes[i], x.shape[i]
            given[i] = s.size
            above = n - s.start - (s.size - 1) * s.step - 1 if s.size else n
            low[i], interior[i] = s.start, s.step - 1
            high[i] = Extent(above) if isinstance(n, Extent) else above
        v = apply(PAD, broadcast_to(v, tuple(given)), low=tuple(low), high=tuple(high),
                  interior=tuple(interior), value=x.dtype.type(0).item())
    inside: Tensor | None = None
    for i, s in enumerate(axes):
        if s.whole:
            continue
        at = _inside(s, x.shape[i])
        at = reshape_to(at, [n if j == i else 1 for j, n in enumerate(x.shape)])
        inside = at if inside is None else inside & at
    return where(True if inside is None else inside, v, x)


def _inside(s: Span, n: int) -> Tensor:
    """bool[n]: whether a position belongs to the span."""
    at = arange(n)
    if s.size == 1 and not isinstance(s.size, Extent):
        return at == s.start
    inside = (at >= s.start) & (at < s.start + s.size * s.step)
    return inside & ((at - s.start) % s.step == 0) if s.step > 1 else inside


def _scatter(y: Tensor, found: Index, v: Tensor) -> Tensor:
    """y (what the basic part shows) after the elements picked by the arrays were written."""
    picked = pick(y.shape, found.arrays)
    at, index = picked.at, picked.index
    shape = (*picked.merged[:at], *index.shape, *picked.merged[at + 1:])
    if found.front and at:
        forward = to_front(at, index.ndim, len(shape))
        v = broadcast_to(_spread(v, (wanted := tuple(shape[k] for k in forward))), wanted)
        v = permute_dims(v, tuple(forward.index(k) for k in range(len(forward))))
    else:
        v = broadcast_to(_spread(v, shape), shape)
    n = joined(index.shape)
    flat = reshape_to(v, (*picked.merged[:at], n, *picked.merged[at + 1:]))
    out = apply(SCATTER_SET, merge(y, picked), reshape_to(index, (n,)), flat, axis=at)
    if picked.merged != picked.moved:
        out = reshape_to(out, picked.moved)
    if picked.order is not None:
        order = picked.order
        out = permute_dims(out, tuple(order.index(k) for k in range(len(order))))
    return out


def _with_mask(x: Tensor, entries: list[Any], place: int, v: Tensor) -> Tensor | None:
    """``x[..., mask, ...] = v`` by a choice of each element; None where v has an element for each place where
    the mask holds, or other arrays take part."""
    given, others = entries[place], entries[:place] + entries[place + 1:]
    if any(not (e is None or isinstance(e, slice) or (isinstance(e, int) and v.ndim == 0)) for e in others):
        return None
    mask = given if isinstance(given, Tensor) else constant(given)
    spans = take_apart([*entries[:place], *[slice(None)] * mask.ndim, *entries[place + 1:]], x.shape).spans
    y = view(x, spans)
    before = sum(not s.dropped for s in spans[:place])
    fit_mask(mask, y.shape[before:before + mask.ndim])
    after = y.ndim - before - mask.ndim
    if v.ndim > after:
        if v.shape[v.ndim - after - 1] != 1:  # the axis that the masked elements form
            return None
        v = _spread(v, (*y.shape[:before], 1, *y.shape[y.ndim - after:]))
        cut = v.ndim - after - 1
        v = reshape_to(v, (*v.shape[:cut], *(1,) * mask.ndim, *v.shape[cut + 1:]))
    _spread(v, y.shape)
    y = where(reshape_to(mask, (*mask.shape, *(1,) * after)), v, y)
    return y if all(s.whole and not s.flip for s in spans) else _set_view(x, spans, y)


attach(_with_item=with_item, _write_item=write_item)

__all__: list[str] = []
