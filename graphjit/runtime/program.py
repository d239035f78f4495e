"""A program: kernels bound to memory, run by the driver on arguments, and host steps between them."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphjit.codegen.call import HostCall, KernelCall
from graphjit.codegen.lower import Lowered
from graphjit.errors import BoundsError, InternalCompilerError, NumericalError
from graphjit.ir import Apply, Const, Input, Node
from graphjit.op import Array, Host, Layout
from graphjit.passes.layout import base_layout
from graphjit.runtime.bound import Bound
from graphjit.runtime.calling import Place, Rows, plan_call
from graphjit.runtime.driver import ROW, runner
from graphjit.runtime.results import LARGE, Results
from graphjit.runtime.threads import desk, pool

LONG = 8_000.0  # estimated ns from which on the GIL is released


class Program(Bound):
    """A lowered graph, compiled, with its memory, and how to run it."""

    def __init__(self, lowered: Lowered, arguments: Sequence[Input], fixed: dict[Input, Array],
                 n_results: int) -> None:
        super().__init__(lowered, arguments, fixed, n_results)
        self.guard(threading.Lock())
        self.segments = self._segments()
        self._large = Results()
        self._run = runner(sum(s.cost for s in self.kernels) > LONG)
        self._staged = [(i, self.view(node)) for i, node in enumerate(self.arguments) if node in self.plan.offsets]
        self._pointed = [(i, node) for i, node in enumerate(self.arguments) if node not in self.plan.offsets]
        self.held: dict[Node, Array] = {}  # large arguments and results, while it runs
        self._hosts = {s.node: ([self._reader(*base_layout(x)) for x in s.node.args], self._reader(s.node))
                       for s in self.steps if isinstance(s, HostCall)}
        self._output_plan = [self._output_step(i, r) for i, r in enumerate(self.results)]

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
        except (BoundsError, NumericalError) as error:
            raise type(error)(error.problem, detail=error.detail, hint=error.hint, where=node.where) from None
        if isinstance(node.op.lower, Host):
            raise NumericalError(f"{node.op.name}: a matrix that is singular but for rounding", where=node.where)
        raise InternalCompilerError(f"the kernel of {node.op.name} refused data its eager rule takes",
                                    where=node.where)

