"""Random programs: compiled equals eager, and each stage of the compiler keeps the meaning.

200 programs, always the same ones, by default; ``GRAPHJIT_FUZZ=2000`` draws so many anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_calls import in_pieces, in_python, poison
from programs import SEED, Program, mismatch, programs

import graphjit as gj
from graphjit.ir import Graph, interpret, verify
from graphjit.passes.pipeline import PIPELINE
from graphjit.tensor import Tensor, value_of
from graphjit.trace import Trace, tracing
from graphjit.tree import flatten
from graphjit.types import TensorType

Array = np.ndarray[Any, Any]
FUZZ = int(os.environ.get("GRAPHJIT_FUZZ", "0"))


def examples(count: int) -> Any:
    """Settings for a test of so many programs, or its share of ``GRAPHJIT_FUZZ``."""
    return settings(max_examples=(FUZZ or 200) * count // 200, derandomize=not FUZZ, deadline=None, database=None,
                    suppress_health_check=list(HealthCheck), print_blob=bool(FUZZ))


def arrays(result: Any) -> list[Array]:
    return [np.array(t.data) for t in flatten(result)[0]]


def assert_same(program: Program, got: list[Array], eager: list[Array], wide: list[Array]) -> None:
    wrong = [mismatch(f"result {i}", *three, program.eps)
             for i, three in enumerate(zip(got, eager, wide, strict=True))]
    assert not any(wrong), "\n".join(filter(None, wrong))


def references(program: Program) -> tuple[list[Array], list[Array]]:
    """Results and gradients, eagerly: at the program's dtypes, and in float64."""
    return (arrays(program.with_gradients()(*program.arguments())),
            arrays(program.with_gradients(wide=True)(*program.arguments(wide=True))))


@examples(200)
@given(programs())
def test_compiled_equals_eager_with_gradients(program: Program) -> None:
    calls = [(program.with_gradients(wide), program.arguments(wide)) for wide in (False, True)]
    compiled = gj.compile(program.with_gradients())
    for _ in range(2):
        eager, wide = (arrays(function(*args)) for function, args in calls)
        assert_same(program, arrays(compiled(*program.arguments())), eager, wide)


@examples(60)
@given(programs(steps=8))
def test_backward_through_a_compiled_function(program: Program) -> None:
    eager, wide = references(program)
    compiled = gj.compile(program.function())
    inputs = [gj.tensor(x, requires_grad=i in program.floats()) for i, x in enumerate(program.arguments())]
    outputs = compiled(*inputs)
    total = sum(((t.astype(np.float64) * weights(t)).sum() for t in outputs if t.requires_grad), gj.tensor(0.0))
    if total.requires_grad:
        total.backward()
    found = [inputs[i] for i in program.floats()]
    gradients = [gj.zeros_like(x) if x.grad is None else x.grad for x in found]
    assert_same(program, arrays((outputs, gradients)), eager, wide)


def weights(t: gj.Tensor) -> Array:
    return (np.arange(t.size) % 5 + 1).reshape(t.shape) / 4


@examples(30)
@given(programs(limit=60_000))
def test_large_arrays_on_any_number_of_threads(program: Program) -> None:
    """Large arguments, results and kernels take other ways: read and written where they are, shared by threads."""
    eager, wide = references(program)
    threads, found = gj.get_num_threads(), []
    try:
        for n in (1, 3):
            gj.set_num_threads(n)
            found.append(arrays(gj.compile(program.with_gradients())(*program.arguments())))
    finally:
        gj.set_num_threads(threads)
    assert_same(program, found[0], eager, wide)
    assert_same_bits(found[1], found[0])


def assert_same_bits(got: list[Array], expected: list[Array]) -> None:
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert a.tobytes() == b.tobytes(), f"result {i}:\n{a}\nnot\n{b}"


# ---- the stages

def recorded(function: Callable[..., Any], args: list[Array]) -> tuple[Graph, list[Array]]:
    """The graph of a function, and the arrays its inputs stand for."""
    trace = Trace()
    with tracing(trace):
        inside = [Tensor._of(trace.argument(TensorType(x.shape, x.dtype), f"x{i}")) for i, x in enumerate(args)]
        outputs = [value_of(t).data for t in flatten(function(*inside))[0]]
    states = [s.tensor._value.data for s in trace.states.values()]
    return trace.graph(outputs), [*args, *states, *(array for array, _ in trace.arrays.values())]  # type: ignore


@examples(200)
@given(programs())
def test_each_pass_keeps_the_meaning(program: Program) -> None:
    graph, inputs = recorded(program.with_gradients(), program.arguments())
    verify(graph)
    before = interpret(graph, inputs)
    for name, step in PIPELINE:
        graph = verify(step(graph))
        after = interpret(graph, inputs)
        wrong = [mismatch(f"after {name}: output {i}", b, a, a, program.eps)
                 for i, (a, b) in enumerate(zip(before, after, strict=True))]
        assert not any(wrong), "\n".join(filter(None, wrong))


@examples(50)
@given(programs(), st.booleans())
def test_kernels_run_in_pieces_give_the_same_bits(program: Program, backwards: bool) -> None:
    expected, found = run_twice(program, lambda p: in_pieces(p, backwards))
    assert_same_bits(found, expected)


@examples(50)
@given(programs(steps=8, limit=100))
def test_kernel_sources_run_as_python(program: Program) -> None:
    eager, wide = references(program)
    _, found = run_twice(program, in_python)
    assert_same(program, found, eager, wide)


def run_twice(program: Program, change: Callable[[Any], None]) -> tuple[list[Array], list[Array]]:
    """Results of the compiled program as it is, and then changed, with a poisoned arena."""
    rng = gj.Generator(SEED)
    compiled = gj.compile(program.with_gradients(rng=rng))
    before = arrays(compiled(*program.arguments()))
    poison(compiled.latest.program)
    change(compiled.latest.program)
    rng.manual_seed(SEED)
    return before, arrays(compiled(*program.arguments()))


# ---- state

TENSORS = ["s0", "s1", "x", "t0", "t1"]
FORMS = [
    "{0} * 0.5", "{0} + {1}", "{0} - {1}.T", "{0}.T", "gj.tanh({0} @ {1})", "gj.tanh({0} + {1})", "gj.flip({0}, 0)",
    "{0}[::-1, ::-1] * {1}", "gj.roll({0}, 1, 1)", "gj.softmax({0}, 1)", "{0} - {0}.mean(0, keepdims=True)",
    "{0} - {1}.mean(1, keepdims=True)", "gj.maximum({0}, {1})", "gj.concat([{0}[1:], {1}[:1]])", "{0} + {1}.sum(0)",
    "gj.take({0}, [0, -1, 0], 0)[:1] + {1}", "({0} + v)", "{0} * gj.sum({1} * {1}, 1)", "gj.cumsum({0}, 0) * 0.25",
    "{0} * gj.bernoulli(0.5, {0}.shape, generator=rng)", "gj.broadcast_to(v, {0}.shape)",
    "gj.expand_dims({0}[0], 0) + {1}",
    "gj.where(count % 2 == 0, {0}, {1})", "gj.zeros_like({0})", "gj.tril({0}) + {1}", "{0}",
]
STATEMENTS = [
    "t0 = {form}", "t1 = {form}", "s0.assign({form})", "s1.assign({form})", "s0.assign({form})", "s1.assign({form})",
    "t0, t1 = s0 * 1, s1 * 1", "t0 = s0.T", "t1 = s1[::-1]", "s0.assign(s1)", "s1.assign(s0.T)",
    "count.assign(count + 1)", "v.assign(s0.sum(0))", "v.assign(v * 0.5 + t0[0])", "s0[1:] = ({form}).sum(0) * 2",
    "s1[0] = v", "s0[:, ::2] = 0.25", "s0.assign(s0 - 0.125 * ({form}))", "s1.assign(0.5 * s1 + s0)",
    "t0, t1 = s0 + x, s1 * x", "s0.assign(t0 + t0.T)", "s1.assign(({form}) - t1[::-1])",
]


@st.composite
def state_programs(draw: Callable[..., Any]) -> tuple[str, int, int]:
    """Text of a function that changes matrices s0 and s1, a vector v and a counter; their length; a seed."""
    lines = ["t0, t1 = x * 2, x + s0"]
    for _ in range(draw(st.integers(1, 7))):
        statement, form = draw(st.sampled_from(STATEMENTS)), draw(st.sampled_from(FORMS))
        a, b = draw(st.sampled_from(TENSORS)), draw(st.sampled_from(TENSORS))
        lines.append(statement.replace("{form}", form.format(a, b)))
    results = draw(st.lists(st.sampled_from(["s0", "s1", "s0.T", "t0", "t1", "v", "count", "s1[::-1]", "s0 + 1", "x"]),
                            min_size=1, max_size=3))
    text = "\n    ".join(["def step(x):", *lines, f"return ({', '.join(results)},)"])
    return text, draw(st.sampled_from([3, 5, 1, 2, 96])), draw(st.integers(0, 99))


@examples(80)
@given(state_programs())
def test_state_changes_as_it_does_eagerly(case: tuple[str, int, int]) -> None:
    text, n, seed = case
    (eager, eager_states), (step, states) = (step_of(text, n, seed) for _ in range(2))
    compiled = gj.compile(step)
    for call in range(3):
        x = np.random.default_rng(call).normal(size=(n, n))
        expected, found = arrays(eager(x)), arrays(compiled(x))
        expected += [s.data for s in eager_states]
        found += [s.data for s in states]
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            scale = max(1.0, float(np.abs(b).max(initial=0)))
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-10 * scale, err_msg=f"{text}\ncall {call}, value {i}")


def step_of(text: str, n: int, seed: int) -> tuple[Callable[..., Any], list[gj.Tensor]]:
    """A function of a state program, and the state that it changes."""
    rng = np.random.default_rng(seed)
    names = {"gj": gj, "np": np, "rng": gj.Generator(seed)}
    states = {"s0": gj.tensor(rng.normal(size=(n, n))), "s1": gj.tensor(rng.normal(size=(n, n))),
              "v": gj.tensor(rng.normal(size=n)), "count": gj.tensor(0)}
    exec(compile(text, "<step>", "exec"), names | states, names)
    return names["step"], list(states.values())
