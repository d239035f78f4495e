"""Equal clusters are written once: the layers of a network, the steps of an unrolled loop, all batch sizes.

A cluster is described by all that its kernel depends on, with buffers and offsets replaced by their numbers in order
of appearance, and without constants. The lengths that the caller chose, and strides computed from them, are replaced
by numbers as well: what is written depends only on which of them are equal, and which strides are even. Of a cluster
whose description is known only the arguments are filled in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import permutations

from graphjit.codegen.access import Place
from graphjit.codegen.arguments import Argument, Room, Scalar, Stride, Use, Written
from graphjit.codegen.axes import operand_axes
from graphjit.codegen.call import Address, Entry, KernelCall, Scratch, Slot
from graphjit.codegen.cluster import Cluster
from graphjit.codegen.kinds import chosen, kind, pattern, type_pattern
from graphjit.codegen.loops import LoopWriter
from graphjit.codegen.nest import Nest, length_class
from graphjit.codegen.source import is_literal
from graphjit.codegen.spans import nest_spans
from graphjit.ir import Apply, Const, Input, Node
from graphjit.kernels.target import target
from graphjit.op import Indexed, View
from graphjit.passes.layout import base_layout
from graphjit.runtime.compiler import LoopKernel
from graphjit.types import Extent, contiguous_strides, same_number

HELD = 4096  # descriptions; more than a program has
NEAR, FAR = 0.005, 0.015  # ns a byte takes from and to the second-level cache, and from farther away

_kept: dict[Hashable, _Kept] = {}


def write_cluster(cluster: Cluster, stored: Collection[Apply], inline: frozenset[Node],
                  target: Mapping[Node, Place]) -> KernelCall:
    """The kernel call that computes a cluster.

    Args:
        stored: the members whose values are needed in memory, by others or later.
        inline: cheap members of other clusters, computed again instead of loaded.
        target: where results go that have no buffer of their own.
    """
    about = _Description(cluster, stored, inline, target)
    kept = _kept.get(about.key)
    of_length = about.key, length_class(cluster)
    if kept is None or kept.by_length:
        kept = _kept.get(of_length)
    if kept is None:
        if len(_kept) >= HELD:
            _kept.clear()
        writer = LoopWriter(cluster, stored, inline, target)
        kept = _kept[about.key] = _kept[of_length] = about.without_nodes(writer.write(), writer.by_length)
    call = about.fill_in(kept)
    call.spans = cache(lambda: nest_spans(Nest(cluster, stored, inline, target)))
    return call


@dataclass(frozen=True, slots=True)
class _Found:
    """What the numbers of a description stand for in one cluster."""

    lengths: Sequence[int]  # of the loops
    sizes: Sequence[int]
    addresses: Sequence[tuple[Node, int]]
    constants: Sequence[Const]


@dataclass(frozen=True, slots=True)
class _Kept:
    """A kernel without its nodes: ``reads``, ``writes`` and ``tangled`` are numbers. ``by_length``: for other lengths,
    which the caller chose, there may be another one."""

    written: Written
    kernel: LoopKernel
    slots: tuple[Callable[[_Found], Slot], ...]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    tangled: tuple[int, ...]
    by_length: bool


class _Description:
    """What the kernel of a cluster depends on (``key``), and what its arguments refer to, in order of appearance."""

    def __init__(self, cluster: Cluster, stored: Collection[Apply], inline: frozenset[Node],
                 target: Mapping[Node, Place]) -> None:
        self.extents = cluster.extents
        self.inline = inline
        self.nodes: dict[Node, int] = {n: i for i, n in enumerate(cluster.members)}  # and buffers, and what is inline
        self.addresses: dict[tuple[Node, int], int] = {}  # buffers and offsets in bytes
        self.constants: dict[Use, Const] = {}
        self.sizes: dict[tuple[int, bool, int], int] = {}  # strides and lengths from those the caller chose
        members = frozenset(self.nodes)
        self.computed = members
        parts: list[Hashable] = [pattern(tuple(cluster.extents)), cluster.reduced]
        for node, imap in cluster.members.items():
            place: Hashable = None
            if node in stored:
                where = target.get(node) or Place(node, 0, contiguous_strides(node.type.shape))
                place = (where.buffer is node, isinstance(where.buffer, Input),
                         self.place(where.buffer, where.offset, where.strides, node))
            parts.append((imap, place, self.computation(node)))
        self.key = tuple(parts)

    def computation(self, node: Apply) -> Hashable:
        if isinstance(node.op.lower, Indexed):
            index = self.place(node, 0, contiguous_strides(node.type.shape), node)
            return kind(node), node.where, index, *[self.memory(x) for x in node.args]
        return (kind(node), node.where, *[self.operand(x, (node, k)) for k, x in enumerate(node.args)])

    def operand(self, node: Node, use: Use) -> Hashable:
        if isinstance(node, Const) and not node.type.ndim:
            if is_literal(node, *use):
                return "literal", node.value.item(), node.type.dtype.char
            self.constants[use] = node
            return "constant", node.type.dtype.char
        views: list[Hashable] = []
        below = node
        while isinstance(below, Apply) and isinstance(below.op.lower, View):
            views.append((kind(below), self.memory(below) if operand_axes(below, 0) is None else None))
            below = below.args[0]
        if below in self.computed:
            found: Hashable = ("member", self.nodes[below])
        elif below in self.inline and isinstance(below, Apply):
            new = below not in self.nodes
            number = self.nodes.setdefault(below, len(self.nodes))
            found = "inline", number, self.computation(below) if new else None
        else:
            return self.memory(node)
        return found if not views else ("view", found, *views, self.memory(node))

    def memory(self, node: Node) -> Hashable:
        """Where the elements of a node lie."""
        buffer, layout = base_layout(node)
        return "memory", self.place(buffer, layout.offset, layout.strides, node), type_pattern(node)

    def place(self, buffer: Node, offset: int, strides: tuple[int, ...], node: Node) -> Hashable:
        """Where in a buffer the elements lie, and along which axes they lie evenly whatever the lengths are."""
        dtype, shape = buffer.type.dtype, node.type.shape
        number = self.nodes.setdefault(buffer, len(self.nodes))
        address = self.addresses.setdefault((buffer, offset * dtype.itemsize), len(self.addresses))
        if chosen(strides):
            lengths = [n or n + 1 for n in shape]
            even = [same_number(strides[i], strides[j] * lengths[j]) for i, j in permutations(range(len(shape)), 2)]
            return (number, address, dtype.char, *even, *[self.size(address, True, n) for n in strides],
                    *[self.size(address, False, n) for n in shape])
        if chosen(shape):
            return number, address, dtype.char, strides, *[self.size(address, False, n) for n in shape]
        return number, address, dtype.char, strides

    def size(self, address: int, stride: bool, n: int) -> Hashable:
        """A stride or a length; equal ones matter at the same address."""
        if not isinstance(n, Extent) or not n:
            return n, type(n)
        return Extent, self.sizes.setdefault((address, stride, n), len(self.sizes))

    # ---- calls

    def without_nodes(self, written: Written, by_length: bool) -> _Kept:
        reads, writes, tangled = (tuple([self.nodes[n] for n in some])
                                  for some in (written.reads, written.writes, written.tangled))
        return _Kept(replace(written, arguments=(), reads=(), writes=(), tangled=()),
                     LoopKernel(written.name, written.source, written.codes),
                     tuple([self.slot(x) for x in written.arguments]), reads, writes, tangled, by_length)

    def slot(self, x: Argument) -> Callable[[_Found], Slot]:
        """How an argument's value is found."""
        match x:
            case Address():
                assert not isinstance(x.buffer, Scratch)
                i = self.addresses[x.buffer, x.offset]
                return lambda found: Address(*found.addresses[i])
            case Scalar(_, use):
                i = list(self.constants).index(use)
                return lambda found: _number(found.constants[i])
            case Room(nbytes, common):  # every call has its own
                return lambda found: Address(Scratch(nbytes(found.lengths), common))
            case Stride(buffer, offset, value):
                i = self.sizes[self.addresses[buffer, offset], True, value]
                return lambda found: int(found.sizes[i])
            case int() | Entry():
                return lambda found: x
            case _:
                return lambda found: x(found.lengths)

    def fill_in(self, kept: _Kept) -> KernelCall:
        w, nodes = kept.written, list(self.nodes)
        lengths = [int(math.prod([self.extents[a] for a in axes])) for axes in w.loops]
        found = _Found(lengths, [n for *_, n in self.sizes], list(self.addresses),
                       list(self.constants.values()))
        reads, writes, tangled = (tuple([nodes[i] for i in some]) for some in (kept.reads, kept.writes, kept.tangled))
        turns = math.prod(lengths)  # of a large buffer a kernel may use a part
        nbytes = sum([min(b.type.nbytes, turns * b.type.dtype.itemsize) for b in dict.fromkeys([*reads, *writes])])
        flops, cost = 0, 0.0
        for (loops, ns), times in w.work:
            count = times * math.prod([lengths[k] for k in loops])
            flops += count
            cost += ns * count
        cost += (NEAR if nbytes <= target().l2 else FAR) * nbytes
        slots = tuple([slot(found) for slot in kept.slots])
        return KernelCall(
            kernel=kept.kernel, codes=w.codes, slots=slots,
            also=tuple([x.kernel for x in slots if isinstance(x, Entry)]), extent=w.extent(lengths), reads=reads,
            writes=writes, title=w.title, where=w.where, flops=flops, nbytes=nbytes, source=w.source,
            tangled=tangled, align=w.align, strict=w.strict, tail=w.tail, cost=cost)


def _number(node: Const) -> int | float:
    value: int | float = node.value.item()
    return value
