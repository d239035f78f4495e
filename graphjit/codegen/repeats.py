"""Equal clusters are written once: the layers of a network, the steps of an unrolled loop.

A cluster is described by all that its kernel depends on, with buffers, offsets and constants replaced by their
numbers in order of appearance. Of a cluster whose description is known only the arguments are filled in.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, replace

from graphjit.codegen.access import Place
from graphjit.codegen.call import Address, KernelCall, Scratch, Slot
from graphjit.codegen.cluster import Cluster
from graphjit.codegen.loops import LoopWriter
from graphjit.codegen.source import is_literal
from graphjit.ir import Apply, Const, Input, Node
from graphjit.op import Indexed, View
from graphjit.passes.layout import base_layout

HELD = 4096  # descriptions; more than a program has


@dataclass(frozen=True, slots=True)
class _Number:
    """In a kept call: the constant of this number, or the address of this number."""

    at: int


@dataclass(frozen=True, slots=True)
class _Kept:
    """A kernel call without its nodes: ``reads``, ``writes`` and ``tangled`` are numbers."""

    call: KernelCall
    slots: tuple[Slot | _Number, ...]
    constants: frozenset[int]  # the slots that are constants
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    tangled: tuple[int, ...]


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
    if kept is None:
        writer = LoopWriter(cluster, stored, inline, target)
        call = writer.write()
        if len(_kept) >= HELD:
            _kept.clear()
        _kept[about.key] = about.without_nodes(call, writer.constants)
        return call
    return about.with_nodes(kept)


class _Description:
    """What the kernel of a cluster depends on (``key``), and what its arguments refer to, in order of appearance."""

    def __init__(self, cluster: Cluster, stored: Collection[Apply], inline: frozenset[Node],
                 target: Mapping[Node, Place]) -> None:
        self.inline = inline
        self.nodes: dict[Node, int] = {n: i for i, n in enumerate(cluster.members)}  # and buffers, and what is inline
        self.addresses: dict[tuple[Node, int], int] = {}  # buffers and offsets in bytes
        self.constants: dict[Node, int] = {}
        members = frozenset(self.nodes)
        self.computed = members
        parts: list[Hashable] = [_exact(tuple(cluster.extents)), cluster.reduced]
        for node, imap in cluster.members.items():
            place: Hashable = None
            if node in stored:
                where = target.get(node)
                place = self.place(node, 0) if where is None else (
                    self.place(where.buffer, where.offset), isinstance(where.buffer, Input), _exact(where.strides))
            parts.append((imap, place, self.computation(node)))
        self.key = tuple(parts)

    def computation(self, node: Apply) -> Hashable:
        return (_alone(node), node.where,
                *[self.memory(x) if isinstance(node.op.lower, Indexed) else self.operand(x) for x in node.args])

    def operand(self, node: Node) -> Hashable:
        if isinstance(node, Const) and not node.type.ndim:
            if is_literal(node):
                return "literal", node.value.item(), node.type.dtype.char
            return "constant", self.constants.setdefault(node, len(self.constants)), node.type.dtype.char
        views: list[Hashable] = []
        below = node
        while isinstance(below, Apply) and isinstance(below.op.lower, View):
            views.append(_alone(below))
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
        return "memory", self.place(buffer, layout.offset), _exact(layout.strides), _type(node)

    def place(self, buffer: Node, offset: int) -> Hashable:
        dtype = buffer.type.dtype
        number = self.nodes.setdefault(buffer, len(self.nodes))
        address = (buffer, offset * dtype.itemsize)
        return number, self.addresses.setdefault(address, len(self.addresses)), buffer.type.nbytes, dtype.char

    # ---- calls

    def without_nodes(self, call: KernelCall, constants: Mapping[int, Const]) -> _Kept:
        slots: list[Slot | _Number] = []
        for i, slot in enumerate(call.slots):
            if i in constants:
                slots.append(_Number(self.constants[constants[i]]))
            elif isinstance(slot, Address) and not isinstance(slot.buffer, Scratch):
                slots.append(_Number(self.addresses[slot.buffer, slot.offset]))
            else:
                slots.append(slot)
        reads, writes, tangled = (tuple([self.nodes[n] for n in some])
                                  for some in (call.reads, call.writes, call.tangled))
        return _Kept(replace(call, slots=(), reads=(), writes=(), tangled=()), tuple(slots), frozenset(constants),
                     reads, writes, tangled)

    def with_nodes(self, kept: _Kept) -> KernelCall:
        addresses, constants, nodes = list(self.addresses), list(self.constants), list(self.nodes)
        slots: list[Slot] = []
        for i, slot in enumerate(kept.slots):
            if isinstance(slot, _Number):
                if i in kept.constants:
                    value = constants[slot.at]
                    assert isinstance(value, Const)
                    slots.append(value.value.item())
                else:
                    slots.append(Address(*addresses[slot.at]))
            elif isinstance(slot, Address) and isinstance(slot.buffer, Scratch):
                slots.append(Address(replace(slot.buffer)))  # every call has its own
            else:
                slots.append(slot)
        reads, writes, tangled = (tuple([nodes[i] for i in some]) for some in (kept.reads, kept.writes, kept.tangled))
        return replace(kept.call, slots=tuple(slots), reads=reads, writes=writes, tangled=tangled)


def _alone(node: Apply) -> Hashable:
    """What a node does, whatever its operands are."""
    found: Hashable = node.facts.get("alone")
    if found is None:
        found = node.facts["alone"] = (node.op, repr(node.params) if node.params else "", _type(node))
    return found


def _type(node: Node) -> Hashable:
    shape, dtype, weak = node.type
    return shape, _lengths(shape), dtype.char, weak


def _exact(numbers: tuple[int, ...]) -> Hashable:
    """Numbers, and which of them are the caller's choice."""
    return numbers, _lengths(numbers)


def _lengths(numbers: tuple[int, ...]) -> tuple[type, ...]:
    return tuple(map(type, numbers))
