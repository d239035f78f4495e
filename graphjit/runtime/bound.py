"""Kernels bound to memory: where the buffers of a step lie, and the slots that tell kernels so.

All of a step's intermediates lie in one arena. Small arguments are copied into it and small results out of it; large
ones are read and written where they are. State is read and written in its own buffers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphjit.arrays import HUGE, on_huge_pages
from graphjit.codegen.call import Address, Entry, Handed, KernelCall, Scratch, Slot, Status
from graphjit.codegen.lower import Lowered
from graphjit.ir import Apply, Const, Input, Node
from graphjit.kernels.follower import HANDED
from graphjit.op import Array, Layout
from graphjit.passes.layout import base_layout, is_contiguous
from graphjit.runtime.compiler import compile_kernels, pack_args
from graphjit.runtime.driver import ROW, strips_entry
from graphjit.runtime.driver import kernel as driver_kernel
from graphjit.runtime.memory import ALIGN, Lifetime, MemoryPlan, plan_memory
from graphjit.runtime.shares import grains
from graphjit.runtime.strips import HEAD, MOVE, WORDS
from graphjit.runtime.threads import get_num_threads, look_again

STAGED = 1 << 14   # arguments up to this many bytes are copied into the arena
COPIED = 1 << 16   # results up to this many bytes are copied out of it
GUARD = 1 << 12    # bytes around a thread's scratch memory: cores that look ahead stay within a page


class Bound:
    """The kernels of a lowered graph, compiled, with their memory: ``table`` is what the driver runs.

    Args:
        lowered: the steps.
        arguments: the inputs given at each call, in order.
        fixed: the arrays behind every other input (state and captured arrays).
        n_results: how many of the graph's outputs are results.
    """

    def __init__(self, lowered: Lowered, arguments: Sequence[Input], fixed: dict[Input, Array],
                 n_results: int) -> None:
        self.lowered = lowered
        self.steps = lowered.steps
        self.arguments = list(arguments)
        self.results = [self._result(o) for o in lowered.graph.outputs[:n_results]]
        self.status = np.zeros(1, np.int64)
        self._status_address = self.status.ctypes.data
        self.kernels = [s for s in self.steps if isinstance(s, KernelCall)]
        self._grains = grains(self.kernels, get_num_threads(), lowered.in_place)
        self._shares = any(self._grains)
        self.threads = get_num_threads() if self._shares else 1
        if self._shares:
            look_again()
        self.plan = self._plan()
        nbytes = self.plan.size + ALIGN
        self._memory = on_huge_pages(nbytes) if nbytes >= HUGE else np.zeros(nbytes, np.uint8)
        self.arena_address = -(-self._memory.ctypes.data // ALIGN) * ALIGN
        self._start = self.arena_address - self._memory.ctypes.data
        self.constants: dict[Node, Array] = {}
        calls = [call for step in self.kernels for call in step.calls]
        also = dict.fromkeys(k for c in calls for k in c.also)
        addresses = compile_kernels([*(c.kernel for c in calls), *also, driver_kernel()])[:len(calls)]
        self.patches: dict[Node, list[tuple[int, int]]] = {}
        self._bind(dict(zip(map(id, calls), addresses, strict=True)), fixed)

    def _result(self, node: Node) -> tuple[Node, Any]:
        buffer, layout = base_layout(node)
        return self.lowered.in_place.get(buffer, buffer), layout

    # ---- memory

    def _plan(self) -> MemoryPlan:
        first: dict[Node, int] = {}
        last: dict[Node, int] = {}
        lives: list[Lifetime] = []
        rooms: dict[Scratch, Lifetime] = {}
        for i, step in enumerate(self.steps):
            for node in step.writes:
                first.setdefault(node, i)
                last[node] = i
            for node in step.reads:
                last[node] = i
            if isinstance(step, KernelCall):
                for room in (s.buffer for call in step.calls for s in call.slots
                             if isinstance(s, Address) and isinstance(s.buffer, Scratch)):
                    rooms.setdefault(room, Lifetime(room, room.nbytes, i, i)).last = i
        self.fresh: dict[Node, int] = {}  # buffers that are handed out, and which result each is
        for i, (buffer, layout) in enumerate(self.results):
            if isinstance(buffer, Apply) and buffer.type.nbytes > COPIED and _is_whole(buffer, layout):
                self.fresh.setdefault(buffer, i)
        for buffer, _ in self.results:
            last[buffer] = len(self.steps)
        for node in first:
            if isinstance(node, Apply) and node not in self.lowered.in_place and node not in self.fresh:
                lives.append(Lifetime(node, node.type.nbytes, first[node], last[node]))
        for node in self.arguments:
            if node.type.nbytes <= STAGED:
                lives.append(Lifetime(node, node.type.nbytes, -1, last.get(node, 0)))
        if self.threads == 1:
            self._own = 0
            return plan_memory([*lives, *rooms.values()])
        # What a thread has for itself stays where it is all along, in its core's cache; where another thread left
        # something in the meantime, each line would have to be fetched from there before it can be written.
        own = plan_memory([life for room, life in rooms.items() if not room.common])
        rest = plan_memory([*lives, *(life for room, life in rooms.items() if room.common)])
        if not own.size:
            self._own = 0
            return rest
        self._own, begin = own.size + GUARD, rest.size + GUARD
        offsets = {**rest.offsets, **{room: begin + at for room, at in own.offsets.items()}}
        end = begin + self.threads * self._own - GUARD
        return MemoryPlan(offsets, end, rest.total + self.threads * own.total)

    def view(self, node: Node) -> Array:
        """The arena memory of a buffer as an array."""
        at = self._start + self.plan.offsets[node]
        return self._memory[at:at + node.type.nbytes].view(node.type.dtype).reshape(node.type.shape)

    # ---- binding

    def _bind(self, entries: dict[int, int], fixed: dict[Input, Array]) -> None:
        self.fixed = dict(fixed)
        offsets: dict[int, int] = {}
        packed: list[Array] = []
        size = 0
        calls = [call for step in self.kernels for call in step.calls]
        others: list[tuple[int, Slot]] = []  # slots that are no numbers
        for call in calls:
            slots = pack_args([s if isinstance(s, (int, float)) else 0 for s in call.slots], call.codes)
            others += [(size + i, s) for i, s in enumerate(call.slots) if not isinstance(s, (int, float))]
            offsets[id(call)] = size
            packed.append(slots)
            size += len(slots)
        groups = [step for step in self.kernels if step.parts]
        for group in groups:
            offsets[id(group)] = size
            packed.append(self._group(group, entries))
            size += len(packed[-1])
        handed = {}  # where a product finds what it has to know of the kernel that follows it
        for step in self.kernels:
            if step.then is not None:
                handed[size] = step, step.then
                packed.append(np.zeros(HANDED + step.words, np.int64))
                size += len(packed[-1])
        # one copy of all slots per thread: they differ in the addresses of scratch memory
        self.slots = np.tile(np.concatenate(packed) if packed else np.zeros(1, np.int64), (self.threads, 1))
        base = self.slots.ctypes.data
        placed: list[tuple[int, int, int]] = []  # a slot, an address, and how far from it that of the next thread is
        for at, slot in others:
            if isinstance(slot, Address):
                placed.append((at, *self._address(at, slot)))
            elif isinstance(slot, Status):
                placed.append((at, self._status_address, 0))
            elif isinstance(slot, Entry):
                placed.append((at, compile_kernels([slot.kernel])[0], 0))
        if placed:
            at, address, step = np.array(placed, np.int64).T
            self.slots[:, at] = address + np.arange(self.threads)[:, None] * step
        threads = np.arange(self.threads) * 8 * size
        for group in groups:
            first = offsets[id(group)] + HEAD
            for i, part in enumerate(group.parts):
                self.slots[:, first + WORDS * i + 1] = base + 8 * offsets[id(part)] + threads
            for i, move in enumerate(group.moves):
                at, place = first + WORDS * len(group.parts) + MOVE * i, offsets[id(group.parts[move.part])] + move.slot
                self.slots[:, at] = base + 8 * place + threads
                self.slots[:, at + 1] = self.slots[:, place]
        for at, (step, then) in handed.items():
            self.slots[:, offsets[id(step)] + step.slots.index(Handed())] = base + 8 * at + threads
            self.slots[:, at] = entries[id(then)]
            self.slots[:, at + 1] = base + 8 * offsets[id(then)] + threads
            for i, slot in enumerate((step.hole, *step.near)):
                self.slots[:, at + 2 + i] = base + 8 * (offsets[id(then)] + slot) + threads
        rows = [(strips_entry() if s.parts else entries[id(s)], base + 8 * offsets[id(s)], 0, s.extent, grain, 8 * size)
                for s, grain in zip(self.kernels, self._grains, strict=True)]
        self.table = np.array(rows, np.int64).reshape(-1, ROW)

    @staticmethod
    def _group(group: KernelCall, entries: dict[int, int]) -> Array:
        """The slots of a group, but for addresses of its parts' slots and of moving buffers."""
        words = [len(group.parts), len(group.moves), group.extent - group.tail]
        for part, units in zip(group.parts, group.strip, strict=True):
            words += [entries[id(part)], 0, units, part.extent - part.tail, part.tail]
        for move in group.moves:
            words += [0, 0, move.nbytes]
        return np.array(words, np.int64)

    def _address(self, at: int, slot: Address) -> tuple[int, int]:
        """The address for a slot, 0 where each call brings it; how far behind it that of the next thread is."""
        buffer = slot.buffer
        if not isinstance(buffer, Scratch):
            buffer = self.lowered.in_place.get(buffer, buffer)
        if buffer in self.plan.offsets:
            step = self._own if isinstance(buffer, Scratch) and not buffer.common else 0
            return self.arena_address + self.plan.offsets[buffer] + slot.offset, step
        assert not isinstance(buffer, Scratch)
        self.patches.setdefault(buffer, []).append((at, slot.offset))
        if isinstance(buffer, Const):
            array = self.constants.setdefault(buffer, np.ascontiguousarray(buffer.value))
        elif isinstance(buffer, Input) and buffer in self.fixed:
            array = self.fixed[buffer]
        else:
            return 0, 0
        return array.ctypes.data + slot.offset, 0

    def rebind(self, node: Input, array: Array) -> None:
        """Read and write a state or captured array at another address from now on."""
        self.fixed[node] = array
        self._patch(node, array.ctypes.data)

    def _patch(self, node: Node, address: int) -> None:
        for at, offset in self.patches.get(node, ()):
            self.slots[:, at] = address + offset

    def _arena_address(self, node: Node) -> int:
        return self.arena_address + self.plan.offsets[node] if node in self.plan.offsets else 0

    def _addresses(self, node: Node) -> list[tuple[int, int]]:
        """The slots that follow from where a buffer outside of the arena is, each with its offset from there."""
        first, stride, _ = self.slots.ctypes.data, *self.slots.strides
        return [(first + thread * stride + 8 * at, offset) for at, offset in self.patches.get(node, ())
                for thread in range(self.threads)]

    @staticmethod
    def _strided(array: Array, layout: Any) -> Array:
        if layout.shape == array.shape and layout.offset == 0 and array.flags.c_contiguous and all(
                s * array.itemsize == t or n == 1 for s, t, n in
                zip(layout.strides, array.strides, layout.shape, strict=True)):
            return array
        flat = array.reshape(-1)
        return np.lib.stride_tricks.as_strided(flat[layout.offset:], tuple(map(int, layout.shape)),
                                               [s * array.itemsize for s in layout.strides])


def _is_whole(buffer: Node, layout: Layout) -> bool:
    """Whether a layout shows a whole buffer in order."""
    return layout.offset == 0 and math.prod(layout.shape) == buffer.type.size and is_contiguous(layout)
