"""Random programs: compiled equals eager, and each stage of the compiler keeps the meaning.

About 200 programs, always the same, by default; ``GRAPHJIT_FUZZ=2000`` draws so many new ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_calls import in_pieces, in_python, poison
from programs import Program, mismatch, programs

import graphjit as gj
from graphjit.ir import Graph, interpret, verify
from graphjit.passes.pipeline import PIPELINE
from graphjit.tensor import Tensor, _read
from graphjit.trace import Trace, tracing
from graphjit.tree import flatten
from graphjit.types import TensorType

Array = np.ndarray[Any, Any]
FUZZ = int(os.environ.get("GRAPHJIT_FUZZ", "0"))


def examples(count: int) -> Any:
    """Settings for a test of so many of the 200 programs."""
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


@examples(90)
@given(programs())
def test_compiled_equals_eager_with_gradients(program: Program) -> None:
    eager, wide = references(program)
    compiled = gj.compile(program.with_gradients())
    assert_same(program, arrays(compiled(*program.arguments())), eager, wide)


@examples(30)
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


# ---- the stages

def recorded(function: Callable[..., Any], args: list[Array]) -> tuple[Graph, list[Array]]:
    """The graph of a function, and the arrays its inputs stand for."""
    trace = Trace()
    with tracing(trace):
        inside = [Tensor._of(trace.argument(TensorType(x.shape, x.dtype), f"x{i}")) for i, x in enumerate(args)]
        outputs = [_read(t).data for t in flatten(function(*inside))[0]]
    states = [s.tensor._value.data for s in trace.states.values()]
    return trace.graph(outputs), [*args, *states, *(array for array, _ in trace.arrays.values())]  # type: ignore


@examples(100)
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


@examples(40)
@given(programs(), st.booleans())
def test_kernels_run_in_pieces_give_the_same_bits(program: Program, backwards: bool) -> None:
    whole, pieces = (gj.compile(program.with_gradients()) for _ in range(2))
    args = program.arguments()
    expected = arrays(whole(*args))
    prepare(pieces, program, lambda p: in_pieces(p, backwards))
    for i, (a, b) in enumerate(zip(arrays(pieces(*args)), expected, strict=True)):
        assert a.tobytes() == b.tobytes(), f"result {i}:\n{a}\nbut in one piece\n{b}"


@examples(40)
@given(programs(steps=8, limit=100))
def test_kernel_sources_run_as_python(program: Program) -> None:
    eager, wide = references(program)
    compiled = gj.compile(program.with_gradients())
    prepare(compiled, program, in_python)
    assert_same(program, arrays(compiled(*program.arguments())), eager, wide)


def prepare(compiled: Any, program: Program, change: Callable[[Any], None]) -> None:
    """Compile without running, and change how the program runs."""
    generator = compiled.function
    compiled(*program.arguments())
    found = compiled.latest.program
    poison(found)
    change(found)
    reset_random(generator)


def reset_random(function: Callable[..., Any]) -> None:
    from programs import SEED
    seen = [function]
    while seen:
        f = seen.pop()
        for cell in f.__closure__ or ():
            if hasattr(cell.cell_contents, "__globals__"):
                seen.append(cell.cell_contents)
        if "rng" in f.__globals__:
            f.__globals__["rng"].state = np.array([SEED, 0], np.uint64)
