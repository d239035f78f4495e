"""A program: steps bound to memory, run by the driver.

All of a step's intermediates lie in one arena. Small arguments are copied into it and small results out of
it; large ones are read and written where they are. State is read and written in its own buffers.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphjit.codegen.call import Address, Handed, HostCall, KernelCall, Scratch, Slot, Status
from graphjit.codegen.lower import Lowered
from graphjit.errors import BoundsError, InternalCompilerError
from graphjit.ir import Apply, Const, Input, Node
from graphjit.kernels.follower import HANDED
from graphjit.op import Array, Layout
from graphjit.passes.layout import base_layout, is_contiguous
from graphjit.runtime.calling import Place, Rows, plan_call
from graphjit.runtime.compiler import compile_kernels, pack_args
from graphjit.runtime.driver import ROW, runner, strips_entry
from graphjit.runtime.driver import kernel as driver_kernel
from graphjit.runtime.memory import ALIGN, Lifetime, MemoryPlan, plan_memory
from graphjit.runtime.results import LARGE, Results
from graphjit.runtime.shares import grains
from graphjit.runtime.strips import HEAD, MOVE, WORDS
from graphjit.runtime.threads import desk, get_num_threads, look_again, pool

STAGED = 1 << 14   # arguments up to this many bytes are copied into the arena
COPIED = 1 << 16   # results up to this many bytes are copied out of it
LONG = 8_000.0     # estimated ns from which on the GIL is released
GUARD = 1 << 12    # bytes around a thread's scratch memory: cores that look ahead stay within a page


class Program:
    """A lowered graph, compiled, with its memory.

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
        self.guard(threading.Lock())
        self.status = np.zeros(1, np.int64)
        self._status_address = self.status.ctypes.data
        self.kernels = [s for s in self.steps if isinstance(s, KernelCall)]
        self._grains = grains(self.kernels, get_num_threads(), lowered.in_place)
        self._shares = any(self._grains)
        self.threads = get_num_threads() if self._shares else 1
        if self._shares:
            look_again()
        self.plan = self._plan()
        self._memory = np.zeros(self.plan.size + ALIGN, np.uint8)
        self.arena_address = -(-self._memory.ctypes.data // ALIGN) * ALIGN
        self._start = self.arena_address - self._memory.ctypes.data
        self.constants: dict[Node, Array] = {}
        self._large = Results()
        calls = [call for step in self.kernels for call in step.calls]
        also = dict.fromkeys(k for c in calls for k in c.also)
        addresses = compile_kernels([*(c.kernel for c in calls), *also, driver_kernel()])[:len(calls)]
        self.patches: dict[Node, list[tuple[int, int]]] = {}
        self._bind(dict(zip(map(id, calls), addresses, strict=True)), fixed)
        self._run = runner(sum(s.cost for s in self.kernels) > LONG)
        self._staged = [(i, self.view(node)) for i, node in enumerate(self.arguments) if node in self.plan.offsets]
        self._pointed = [(i, node) for i, node in enumerate(self.arguments) if node not in self.plan.offsets]
        self.held: dict[Node, Array] = {}  # large arguments and results, while it runs
        self._hosts = {s.node: ([self._reader(*base_layout(x)) for x in s.node.args], self._reader(s.node))
                       for s in self.steps if isinstance(s, HostCall)}
        self._output_plan = [self._output_step(i, r) for i, r in enumerate(self.results)]

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
        for call in calls:
            slots = pack_args([self._number(s) for s in call.slots], call.codes)
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
                packed.append(np.zeros(HANDED, np.int64))
                size += HANDED
        # one copy of all slots per thread: they differ in the addresses of scratch memory
        self.slots = np.tile(np.concatenate(packed) if packed else np.zeros(1, np.int64), (self.threads, 1))
        base = self.slots.ctypes.data
        for call in calls:
            for i, slot in enumerate(call.slots):
                if isinstance(slot, Address):
                    self._place_address(offsets[id(call)] + i, slot)
                elif isinstance(slot, Status):
                    self.slots[:, offsets[id(call)] + i] = self.status.ctypes.data
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
            self.slots[:, at + 2] = base + 8 * (offsets[id(then)] + step.hole) + threads
        rows = [(strips_entry() if s.parts else entries[id(s)], base + 8 * offsets[id(s)], 0, s.extent, grain, 8 * size)
                for s, grain in zip(self.kernels, self._grains, strict=True)]
        self.table = np.array(rows, np.int64).reshape(-1, ROW)
        self.segments = self._segments()

    @staticmethod
    def _group(group: KernelCall, entries: dict[int, int]) -> Array:
        """The slots of a group, but for addresses of its parts' slots and of moving buffers."""
        words = [len(group.parts), len(group.moves), group.extent - group.tail]
        for part, units in zip(group.parts, group.strip, strict=True):
            words += [entries[id(part)], 0, units, part.extent - part.tail, part.tail]
        for move in group.moves:
            words += [0, 0, move.nbytes]
        return np.array(words, np.int64)

    @staticmethod
    def _number(slot: Slot) -> int | float:
        return slot if isinstance(slot, (int, float)) else 0

    def _place_address(self, at: int, slot: Address) -> None:
        buffer = slot.buffer
        if not isinstance(buffer, Scratch):
            buffer = self.lowered.in_place.get(buffer, buffer)
        if buffer in self.plan.offsets:
            address = self.arena_address + self.plan.offsets[buffer] + slot.offset
            step = self._own if isinstance(buffer, Scratch) and not buffer.common else 0
            self.slots[:, at] = [address + thread * step for thread in range(self.threads)]
            return
        assert not isinstance(buffer, Scratch)
        self.patches.setdefault(buffer, []).append((at, slot.offset))
        if isinstance(buffer, Const):
            array = self.constants.setdefault(buffer, np.ascontiguousarray(buffer.value))
            self.slots[:, at] = array.ctypes.data + slot.offset
        elif isinstance(buffer, Input) and buffer in self.fixed:
            self.slots[:, at] = self.fixed[buffer].ctypes.data + slot.offset

    def rebind(self, node: Input, array: Array) -> None:
        """Read and write a state or captured array at another address from now on."""
        self.fixed[node] = array
        self._patch(node, array.ctypes.data)

    def _patch(self, node: Node, address: int) -> None:
        for at, offset in self.patches.get(node, ()):
            self.slots[:, at] = address + offset

    def _segments(self) -> list[tuple[int, int] | HostCall]:
        """Runs of kernels (address of the first row, their number), and the host calls between them."""
        out: list[tuple[int, int] | HostCall] = []
        row, first = 0, 0
        for step in [*self.steps, None]:
            if isinstance(step, KernelCall):
                row += 1
                continue
            if row > first:
                out.append((self.table.ctypes.data + 8 * ROW * first, row - first))
            first = row
            if step is not None:
                out.append(step)
        return out

    def _output_step(self, i: int, result: tuple[Node, Any]) -> Callable[[], Array]:
        buffer, layout = result
        if self.fresh.get(buffer) == i:  # another result that reads it is a copy
            return lambda: self.held[buffer].reshape(layout.shape)
        if buffer in self.plan.offsets:
            view = self._strided(self.view(buffer), layout)
            return view.copy if view.nbytes < LARGE else lambda: self._large.copy(view)
        return lambda: self._large.copy(self._strided(self.array(buffer), layout))

    @staticmethod
    def _strided(array: Array, layout: Any) -> Array:
        if layout.shape == array.shape and layout.offset == 0 and array.flags.c_contiguous and all(
                s * array.itemsize == t or n == 1 for s, t, n in
                zip(layout.strides, array.strides, layout.shape, strict=True)):
            return array
        flat = array.reshape(-1)
        return np.lib.stride_tricks.as_strided(flat[layout.offset:], tuple(map(int, layout.shape)),
                                               [s * array.itemsize for s in layout.strides])

    def array(self, node: Node) -> Array:
        """The memory of any buffer of the running program."""
        node = self.lowered.in_place.get(node, node)
        if node in self.plan.offsets:
            return self.view(node)
        if isinstance(node, Const):
            return node.value
        if isinstance(node, Input) and node in self.fixed:
            return self.fixed[node]
        return self.held[node]

    # ---- running

    def guard(self, lock: threading.Lock) -> None:
        """Run under this lock: one for all programs that may write the same state."""
        self.lock = lock
        self._hold = lock.acquire, lock.release

    def run(self, arrays: Sequence[Any]) -> list[Array]:
        """Run once on arrays (and Python floats) of the arguments' types.

        Raises:
            BoundsError: a kernel found an index or a label out of range; no state was changed.
        """
        acquire, release = self._hold
        acquire()
        try:
            for i, staged in self._staged:
                staged[...] = arrays[i]
            self._point(arrays)
            self._run_segments()
            return [take() for take in self._output_plan]
        finally:
            self.held.clear()  # large arguments and results belong to the caller alone
            release()

    def native(self, single: bool, written: list[int] | None, miss: object,
               buffers: Array) -> tuple[Array, list[object]] | None:
        """The plan by which native code makes whole calls (see ``calling``); None for a program with host calls."""
        if any(isinstance(step, HostCall) for step in self.steps):
            return None
        arguments = [Place(node.type.shape, node.type.dtype, self._arena_address(node), self._addresses(node),
                           node.type.weak) for node in self.arguments]
        results = [self._result_place(i, *result) for i, result in enumerate(self.results)]
        rows = Rows(self.table.ctypes.data, len(self.kernels), self._status_address, self.lock,
                    self._run is runner(), self.threads if self._shares else 0, desk.ctypes.data, pool)
        return plan_call(rows, arguments, results, single, written, miss, buffers)

    def _result_place(self, i: int, buffer: Node, layout: Layout) -> Place:
        shape, dtype = tuple(map(int, layout.shape)), buffer.type.dtype
        own = self.fresh.get(buffer) == i
        view = self._strided(self.view(buffer), layout) if buffer in self.plan.offsets else None
        if own or (view is not None and view.flags.c_contiguous):
            large = math.prod(shape) * dtype.itemsize >= LARGE
            return Place(shape, dtype, 0 if view is None else view.ctypes.data, self._addresses(buffer) if own else (),
                         make=functools.partial(self._large.empty, shape, dtype) if large else None)
        sources: dict[Node, int] = {node: i for i, node in self._pointed}
        sources.update({node: len(self.arguments) + i for node, i in self.fresh.items()})
        if buffer not in sources:
            return Place(shape, dtype, copy=self._output_plan[i])
        return Place(shape, dtype, source=sources[buffer],
                     copy=lambda array: self._large.copy(self._strided(array, layout)))

    def _arena_address(self, node: Node) -> int:
        return self.arena_address + self.plan.offsets[node] if node in self.plan.offsets else 0

    def _addresses(self, node: Node) -> list[tuple[int, int]]:
        """The slots that follow from where a buffer outside of the arena is, each with its offset from there."""
        first, stride, _ = self.slots.ctypes.data, *self.slots.strides
        return [(first + thread * stride + 8 * at, offset) for at, offset in self.patches.get(node, ())
                for thread in range(self.threads)]

    def _run_segments(self) -> None:
        helpers = pool() if self._shares else None
        block = helpers.ask(self.threads) if helpers is not None else 0
        try:
            self._run_with(block)
        finally:
            if helpers is not None and block:
                helpers.free.release()

    def _run_with(self, block: int) -> None:
        """Run all steps; ``block`` is the address of the pool of helpers, 0 for none."""
        for segment in self.segments:
            if isinstance(segment, HostCall):
                self._host(segment.node)
            else:
                row = self._run(segment[0], segment[1], self._status_address, block)
                if row >= 0:
                    first = (segment[0] - self.table.ctypes.data) // (8 * ROW)
                    self._stopped(self.kernels[first + row])

    def _point(self, arrays: Sequence[Any]) -> None:
        """Let kernels read large arguments where they are, and write large results into new arrays."""
        for i, node in self._pointed:
            array = np.ascontiguousarray(arrays[i], node.type.dtype)  # of native byte order
            self.held[node] = array
            self._patch(node, array.ctypes.data)
        for buffer in self.fresh:
            array = self._large.empty(buffer.type.shape, buffer.type.dtype)
            self.held[buffer] = array
            self._patch(buffer, array.ctypes.data)

    def _host(self, node: Apply) -> None:
        operands, result = self._hosts[node]
        with np.errstate(all="ignore"):
            np.copyto(result(), node.op.eager(*(read() for read in operands), **node.kwargs))

    def _reader(self, buffer: Node, layout: Layout | None = None) -> Callable[[], Array]:
        """What gives an array of a buffer's memory; of memory that stays, always the same one."""
        def read() -> Array:
            array = self.array(buffer)
            return array if layout is None else self._strided(array, layout)
        if self.lowered.in_place.get(buffer, buffer) not in self.plan.offsets:
            return read
        array = read()
        return lambda: array

    def _stopped(self, step: KernelCall) -> None:
        """A kernel refused its data: let the eager rule of its op say what is wrong."""
        self.status[0] = 0
        node = next(n for n in step.writes if isinstance(n, Apply))
        operands = [self._strided(self.array(b), layout) for b, layout in map(base_layout, node.args)]
        try:
            node.op.eager(*operands, **node.kwargs)
        except BoundsError as error:
            raise BoundsError(error.problem, detail=error.detail, hint=error.hint, where=node.where) from None
        raise InternalCompilerError(f"the kernel of {node.op.name} refused data its eager rule takes",
                                    where=node.where)


def _is_whole(buffer: Node, layout: Layout) -> bool:
    """Whether a layout shows a whole buffer in order."""
    return layout.offset == 0 and math.prod(layout.shape) == buffer.type.size and is_contiguous(layout)
