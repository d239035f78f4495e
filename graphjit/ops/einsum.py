"""``einsum``: sums of products in Einstein's notation, contracted in pairs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from graphjit.composed import composed
from graphjit.errors import ArgumentError, ShapeError
from graphjit.ops.contract import Label, Labels, Part, arrange, contract, need_numeric
from graphjit.ops.rules import operands_text
from graphjit.ops.shape import joined
from graphjit.promotion import promoted
from graphjit.tensor import Tensor
from graphjit.types import Extent


@composed
def einsum(subscripts: Any, *operands: Any) -> Tensor:
    """Sum of products in Einstein's notation, as NumPy's ``einsum``.

    Args:
        subscripts: as "ij,jk->ik": a letter for each axis of each operand, then those of the result. Without
            ``->`` the result has the letters that occur once, in alphabetic order. ``...`` stands for axes
            that broadcast; a letter twice in one operand takes its diagonal. Or NumPy's other form:
            ``einsum(x, [0, 1], y, [1, 2], [0, 2])``.
        operands: numeric; they are contracted in pairs, the cheapest pair first.

    Raises:
        ArgumentError: malformed subscripts. ShapeError: they do not fit the operands.

    >>> import graphjit as gj
    >>> x = gj.tensor([[1, 2], [3, 4]])
    >>> gj.einsum("ii->", x).item(), gj.einsum("ij->ji", x).tolist()
    (5, [[1, 3], [2, 4]])
    """
    given, terms, wanted = _read_subscripts(subscripts, operands)
    tensors = promoted(*given)
    need_numeric("einsum", tensors[0])
    names = [_name_axes(term, t) for term, t in zip(terms, tensors, strict=True)]
    lengths: dict[Label, int] = {}
    for t, labels in zip(tensors, names, strict=True):
        for label, n in zip(labels, t.shape, strict=True):
            before = lengths.get(label, 1)
            if 1 not in (before, n) and n != before:
                raise ShapeError(f"einsum: {_spell(label)} stands for lengths {int(before)} and {int(n)}",
                                 detail=operands_text(tuple(t._type for t in tensors)))
            lengths[label] = n if before == 1 else before
    out = _name_result(wanted, names)
    parts = [_diagonals(t, labels, lengths) for t, labels in zip(tensors, names, strict=True)]
    while len(parts) > 1:
        i, j = min(combinations(range(len(parts)), 2), key=lambda ij: _cost(parts[ij[0]], parts[ij[1]]))
        right, left = parts.pop(j), parts.pop(i)
        later = {label for _, labels in parts for label in labels}
        keep = tuple(dict.fromkeys((*out, *later)))
        parts.append(contract(*left, *right, keep))
    return arrange(*parts[0], out)


# ---- einsum's notation

def _read_subscripts(subscripts: Any,
                     operands: tuple[Any, ...]) -> tuple[list[Any], list[Labels], Labels | None]:
    """Operands, the labels of each, those of the result (None: implicit). An Ellipsis stays as it is."""
    if isinstance(subscripts, str):
        text = subscripts.replace(" ", "")
        left, arrow, right = text.partition("->")
        terms = [_read_term(t, subscripts) for t in left.split(",")]
        wanted = _read_term(right, subscripts) if arrow else None
        given = list(operands)
    else:
        pieces = (subscripts, *operands)
        given, lists = list(pieces[0:len(pieces) // 2 * 2:2]), list(pieces[1::2])
        terms = [tuple(s) for s in lists]
        wanted = tuple(pieces[-1]) if len(pieces) % 2 else None
    if len(given) != len(terms) or not given:
        raise ArgumentError(f"einsum: subscripts for {len(terms)} operands, {len(given)} given",
                            detail=(f"subscripts: {subscripts!r}",) if isinstance(subscripts, str) else ())
    for labels in (*terms, *((wanted,) if wanted is not None else ())):
        if labels.count(...) > 1:
            raise ArgumentError("einsum: more than one '...' for one operand")
    return given, terms, wanted


def _read_term(term: str, subscripts: str) -> Labels:
    before, dots, after = term.partition("...")
    if not all(c.isascii() and c.isalpha() for c in before + after):
        raise ArgumentError(f"einsum: {term!r} is not made of letters and '...'",
                            detail=(f"in {subscripts!r}",))
    return (*before, ..., *after) if dots else tuple(before)


def _name_axes(term: Labels, t: Tensor) -> Labels:
    """A label for each axis; those under '...' are numbered from the right, so that they broadcast."""
    if ... not in term:
        if len(term) != t.ndim:
            raise ShapeError(f"einsum: {len(term)} subscripts for an operand {t._type}")
        return term
    hidden = t.ndim - len(term) + 1
    if hidden < 0:
        raise ShapeError(f"einsum: {len(term) - 1} subscripts for an operand {t._type}")
    at = term.index(...)
    return (*term[:at], *(("...", k) for k in range(-hidden, 0)), *term[at + 1:])


def _name_result(wanted: Labels | None, names: Sequence[Labels]) -> Labels:
    every = [label for labels in names for label in labels]
    hidden = tuple(sorted({label for label in every if isinstance(label, tuple)}))
    if wanted is None:
        once = (label for label in set(every) if not isinstance(label, tuple) and every.count(label) == 1)
        return (*hidden, *sorted(once))  # type: ignore[type-var]  # all letters or all numbers
    if ... in wanted:
        at = wanted.index(...)
        out = (*wanted[:at], *hidden, *wanted[at + 1:])
    elif hidden:
        raise ArgumentError("einsum: the result's subscripts lack the '...' of the operands")
    else:
        out = wanted
    for label in out:
        if out.count(label) > 1 or label not in every:
            what = "occurs twice in the result" if out.count(label) > 1 else "is in no operand"
            raise ArgumentError(f"einsum: {_spell(label)} {what}")
    return out


def _spell(label: Label) -> str:
    return "an axis under '...'" if isinstance(label, tuple) else f"subscript {label!r}"


def _diagonals(t: Tensor, labels: Labels, lengths: dict[Label, int]) -> Part:
    """Take diagonals of repeated labels and drop axes of length one that broadcast."""
    while len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        i = labels.index(twice)
        j = labels.index(twice, i + 1)
        n = t.shape[i]
        if t.shape[j] != n:
            raise ShapeError(f"einsum: {_spell(twice)} stands for lengths {int(n)} and {int(t.shape[j])}",
                             detail=operands_text((t._type,)))
        rest = tuple(k for k in range(t.ndim) if k not in (i, j))
        t = t.permute_dims((*rest, i, j))
        t = t.reshape((*t.shape[:-2], joined((n, n))))[..., ::int(n) + 1]
        labels = (*(labels[k] for k in rest), twice)
    kept = [k for k in range(t.ndim) if not (t.shape[k] == 1 and lengths[labels[k]] != 1)]
    if len(kept) < t.ndim:
        t = t.reshape(tuple(t.shape[k] for k in kept))
        labels = tuple(labels[k] for k in kept)
    return t, labels


def _cost(a: Part, b: Part) -> int:
    """Multiplications of contracting two parts, the caller's lengths taken as 64: the order of contractions,
    and so the kernels, must not depend on a batch size."""
    lengths = {label: n for t, labels in (a, b) for label, n in zip(labels, t.shape, strict=True)}
    cost = 1
    for n in lengths.values():
        cost *= 64 if isinstance(n, Extent) else n
    return cost


__all__ = ["einsum"]
