"""Random loops that tracing unrolls: values and gradients are those of eager mode, on one thread and on two.

20 of them, always the same ones, by default; ``GRAPHJIT_FUZZ=2000`` draws 200 anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from test_programs import assert_same_bits, examples

import graphjit as gj
from graphjit.tensor import Tensor

UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "sin": gj.sin, "exp": lambda t: gj.exp(-t * t), "root": lambda t: gj.sqrt(t * t + 0.1), "relu": gj.relu,
    "mean": lambda t: t.mean(-1, keepdims=True) + 0 * t, "turned": lambda t: gj.flip(t, axis=-1),
    "part": lambda t: gj.concat([t[:, :2], t[:, 2:] * 2], axis=1)}
BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda a, b: a + b, "mul": lambda a, b: a * b, "where": lambda a, b: gj.where(a > b, a, 0.5 * b),
    "div": lambda a, b: a / (1 + b * b)}


class Loop(NamedTuple):
    """Turns of a body: steps ``(op, which value, which other)`` on the state, what is given for the turn and what the
    steps before have found. The last values, made small, are the next state; folds are added up."""

    turns: int
    states: int
    body: tuple[tuple[str, int, int], ...]
    fold: tuple[int, ...]
    axes: tuple[int | None, ...]

    def __call__(self, x: Tensor, given: Tensor, w: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
        states = [x * (i + 1) for i in range(self.states)]
        folds: list[Tensor] = [gj.zeros(1, dtype="float64") for _ in self.fold]
        for turn in range(self.turns):
            values = [*states, given[turn] * scale]
            for op, i, j in self.body:
                a, b = (values[k % len(values)] for k in (i, j))
                values.append(a @ w * 0.3 + bias if op == "product" else UNARY[op](a) if op in UNARY else
                              BINARY[op](a, b))
            states = [gj.tanh(t) for t in values[-self.states:]]
            terms = (values[k % len(values)].sum(axis) for k, axis in zip(self.fold, self.axes, strict=True))
            folds = [f + term for f, term in zip(folds, terms, strict=True)]
        return sum(((f * f).mean() for f in folds), sum((t * t).mean() for t in states))


@st.composite
def loops(draw: st.DrawFn) -> Loop:
    ops = st.sampled_from([*UNARY, *BINARY, *BINARY, "product"])
    place = st.integers(0, 20)
    fold = draw(st.lists(place, max_size=2))
    return Loop(draw(st.integers(3, 70)), draw(st.integers(1, 3)),
                tuple(draw(st.lists(st.tuples(ops, place, place), min_size=2, max_size=9))), tuple(fold),
                tuple(draw(st.sampled_from([None, 0, 1])) for _ in fold))


@examples(20)
@given(loops(), st.sampled_from([(3, 4), (1, 4), (40, 5)]))
def test_values_and_gradients_are_those_of_eager_mode(loop: Loop, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    data = (rng.normal(size=shape), rng.normal(size=(loop.turns, *shape)), rng.normal(size=(shape[1], shape[1])),
            rng.normal(size=shape[1]), np.array(0.7))
    function = gj.value_and_grad(loop, argnums=(0, 1, 2, 3, 4))
    value, gradients = function(*map(gj.tensor, data))
    found, before = [], gj.get_num_threads()
    for threads in (1, 2):
        gj.set_num_threads(threads)
        try:
            got, slopes = gj.compile(function)(*data)
        finally:
            gj.set_num_threads(before)
        found.append([np.array(t.data) for t in (got, *slopes)])
    for a, b in zip(found[0], (value, *gradients), strict=True):
        assert np.allclose(a, b.data, rtol=1e-7, atol=1e-9 * max(1.0, float(abs(b.data).max()))), str(loop)
    assert_same_bits(*found)
