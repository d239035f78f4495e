"""How a loop nest reads and writes buffers: strides along the loops, and their order and collapse."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from graphjit.codegen.axes import NONE, IndexMap
from graphjit.ir import Node
from graphjit.passes.layout import base_layout
from graphjit.types import Extent, contiguous_strides, is_one, same_number

LINE = 16  # numbers next to each other that fill a line of the cache


@dataclass(frozen=True, slots=True)
class Access:
    """Elements of a buffer at ``offset + sum(strides[axis] * i[axis])``."""

    buffer: Node
    offset: int
    strides: tuple[int, ...]  # one per loop axis of the cluster
    lengths: tuple[int, ...]  # the node's own length along it, 0 where the node does not vary
    chosen: tuple[bool, ...]  # which of them the caller chose: what is equal at one batch size only is not equal

    def even(self, axis: int, inner: int) -> bool:
        """Whether a step along ``axis`` is as far as the axis ``inner`` reaches, at every batch size."""
        return same_number(self.strides[axis], self.strides[inner] * self.lengths[inner])


@dataclass(frozen=True, slots=True)
class Place:
    """Where a result goes when not into a buffer of its own: state, or a region of an assembled result."""

    buffer: Node
    offset: int
    strides: tuple[int, ...]  # one per axis of the node


@dataclass(frozen=True, slots=True)
class Loop:
    """One or more adjacent axes run as one loop."""

    axes: tuple[int, ...]
    extent: int


def access(node: Node, imap: IndexMap, n_axes: int) -> Access:
    """How ``node`` is read at an index map, through any views of a buffer."""
    buffer, layout = base_layout(node)
    return _access(buffer, layout.offset, layout.strides, node, imap, n_axes)


def place(node: Node, where: Place | None, imap: IndexMap, n_axes: int) -> Access:
    """How ``node`` is stored: row-major in its own buffer, or at its place."""
    if where is None:
        where = Place(node, 0, contiguous_strides(node.type.shape))
    return _access(where.buffer, where.offset, where.strides, node, imap, n_axes)


def _access(buffer: Node, offset: int, by_axis: Sequence[int], node: Node, imap: IndexMap, n_axes: int) -> Access:
    strides, lengths = [0] * n_axes, [0] * n_axes
    for axis, stride, length in zip(imap, by_axis, node.type.shape, strict=True):
        if axis != NONE:
            strides[axis], lengths[axis] = stride, length or length + 1
    chosen = tuple([isinstance(n, Extent) for n in (*strides, *lengths)])
    return Access(buffer, offset, tuple(strides), tuple(lengths), chosen)


def innermost(n_axes: int, stores: Iterable[Access], loads: Iterable[Access], picked: Iterable[Access],
              order: Sequence[int], reduced: Collection[int]) -> int:
    """The axis along which most accesses step by one. Those that run over more axes count first, as they are more
    often made, and before all others those that vary along a reduced axis, as the others are outside of its loop;
    what a gather picks varies along all. Stores weigh double, ties go to the last of ``order``."""
    score = [[0] * (2 * n_axes + 1) for _ in range(n_axes)]
    for weight, group in ((2, stores), (1, loads), (1, picked)):
        for a in group:
            level = 0 if group is picked else sum(not stride for stride in a.strides)
            if level and not any(a.strides[axis] for axis in reduced):
                level += n_axes
            for axis in range(n_axes):
                if is_one(a.strides[axis]):
                    score[axis][level] += weight
    return max(order, key=lambda axis: (score[axis], order.index(axis)))


def collapse(order: Sequence[int], extents: Sequence[int], same_class: Sequence[object],
             accesses: Sequence[Access]) -> list[Loop]:
    """Loops over the axes in this order, adjacent ones joined wherever every access steps evenly across both."""
    loops: list[list[int]] = []
    for axis in order:
        if loops and same_class[loops[-1][-1]] == same_class[axis] and all(
                a.even(loops[-1][-1], axis) for a in accesses):
            loops[-1].append(axis)
        else:
            loops.append([axis])
    return [Loop(tuple(axes), math.prod(extents[a] for a in axes)) for axes in loops]
