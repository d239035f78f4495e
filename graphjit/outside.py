"""The arrays from outside that a program reads and writes: where they are now, and in which order they lie."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from graphjit.buffers import order_kept, turn
from graphjit.ir import Input
from graphjit.op import Array
from graphjit.runtime.program import Program
from graphjit.trace import State


class Outside:
    """The arrays of a program's states and captured arrays.

    Args:
        states: the tensors it reads or writes.
        captured: NumPy arrays from outside, and where they stand in the graph.
        written: when the program's function last wrote its states (see ``Value.writers``).

    Attributes:
        arrays: what the program is bound to.
        copies: captured arrays that it cannot read as they lie: their numbers are copied at each call.
        buffers: ids of the arrays it writes; native code looks at them.
    """

    def __init__(self, states: Sequence[State], captured: Iterable[tuple[Array, Input]], written: list[int]) -> None:
        self.states, self.written = states, written
        for s in states:
            if s.order and not s.array.flags.c_contiguous:
                turn(s.tensor._value, s.order)
        self.arrays: dict[Input, Array] = {s.held: s.array for s in states}
        self.arrays.update({node: array for array, node in captured})
        self.copies = {node: array for node, array in self.arrays.items()
                       if not (array.flags.c_contiguous and array.dtype.isnative)}
        for node, array in self.copies.items():
            self.arrays[node] = np.ascontiguousarray(array, node.type.dtype)
        for s in states:
            if s.held in self.copies:
                s.tensor._value.data = self.arrays[s.held]
                del self.copies[s.held]  # the tensor has the copy from now on
        self.bound = {s: (s.tensor._value, s.tensor._value.data) for s in states}
        self.buffers = np.zeros(sum(s.written for s in states), np.int64)
        self._note()

    def _note(self) -> None:
        writes = [s for s in self.states if s.written]
        self.buffers[:] = [id(self.bound[s][1]) for s in writes]
        for s in writes:
            value = s.tensor._value
            if not any(w is self.written for w in value.writers):
                value.writers = (*value.writers, self.written)

    def rebind(self, program: Program) -> bool:
        """Bind to the arrays the states have now; False when one is of another type, or lies as another program wants
        it."""
        for s in self.states:
            value = s.tensor._value
            data = value.data
            if value is self.bound[s][0] and data is self.bound[s][1]:
                continue
            if not isinstance(data, np.ndarray) or data.shape != s.node.type.shape or data.dtype != s.node.type.dtype:
                return False
            if not s.array.flags.c_contiguous:
                if order_kept(value):
                    return False
                if s.order:
                    turn(value, s.order)
                else:
                    value.data = np.ascontiguousarray(data)
            program.rebind(s.held, s.array)
            self.bound[s] = value, value.data
            self._note()
        return True
