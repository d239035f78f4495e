"""Tests that come from the op table: every row with every sample of ``tests/samples``.

``pytest tests/test_table.py -k "tanh and eager"`` runs what its words say. An op without samples fails.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
import sys
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
import samples
from samples.base import ERRORS, SAMPLES, ErrorSample, Sample

import graphjit.ops
from graphjit import tree
from graphjit.apply import apply
from graphjit.convert import as_tensor, tensor
from graphjit.errors import DTypeError, GradientError, GraphjitError, InternalCompilerError
from graphjit.ir import Apply, Graph, interpret, verify
from graphjit.op import TABLE, Assemble, Layout, View
from graphjit.tensor import Tensor
from graphjit.trace import Trace, tracing
from graphjit.types import DTYPES, TensorType, contiguous_strides

for _module in pkgutil.iter_modules(samples.__path__):
    importlib.import_module(f"samples.{_module.name}")
assert "tests.samples.base" not in sys.modules, "samples import `.base` relatively, or its lists exist twice"

Arrays = Sequence[np.ndarray[Any, Any]]


class Case(NamedTuple):
    """A sample at one floating dtype ('' where it has no floating arguments)."""

    sample: Sample
    dtype: str

    @property
    def op(self) -> str:
        return self.sample.ops[0]

    @property
    def id(self) -> str:
        return f"{self.op}-{self.sample.id}" + (f"-{self.dtype}" if self.dtype else "")

    def arrays(self, dtype: str = "") -> list[np.ndarray[Any, Any]]:
        rng = np.random.default_rng(zlib.crc32(f"{self.op}-{self.sample.id}".encode()))
        arrays = [np.asarray(a) for a in self.sample.args(rng)]
        kind = dtype or self.dtype
        return [a.astype(kind) if kind and a.dtype.kind == "f" else a for a in arrays]

    @property
    def has_floats(self) -> bool:
        return any(a.dtype.kind == "f" for a in self.arrays())


CASES = [Case(s, d) for s in SAMPLES for d in (s.dtypes if Case(s, "").has_floats else ("",))]
SMOOTH = [c for c in CASES if c.sample.grad and c.dtype in ("float64", "") and c.has_floats]
CURVED = [c for c in SMOOTH if c.sample.second]
OPS = sorted({c.op for c in CASES})


def each(cases: Sequence[Case]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=[c.id for c in cases])


each_op = pytest.mark.parametrize("op", OPS)


# ---- running a sample

def leaves(result: Any) -> list[Tensor]:
    return [x for x in tree.flatten(result)[0] if isinstance(x, Tensor)]


def run(function: Callable[..., Any], arrays: Arrays) -> list[np.ndarray[Any, Any]]:
    """Eagerly."""
    return [t.numpy() for t in leaves(function(*[Tensor(a) for a in arrays]))]


def record(function: Callable[..., Any], arrays: Arrays) -> tuple[Graph, list[Any], int]:
    """The graph, the values of its inputs, and the number of results."""
    trace = Trace()
    with tracing(trace):
        args = [Tensor._of(trace.argument(TensorType(a.shape, a.dtype), "x")) for a in arrays]
        results = [trace.read(t).data for t in leaves(function(*args))]
    states = [s.tensor.numpy() for s in trace.states.values()]
    lifted = [array for array, _ in trace.arrays.values()]
    return trace.graph(results), [*arrays, *states, *lifted], len(results)


def near(found: Arrays, wanted: Arrays, eps: float, what: str = "") -> None:
    """Same types, and values within ``eps`` times the largest."""
    assert len(found) == len(wanted), f"{what}: {len(found)} results for {len(wanted)}"
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == b.dtype, f"{what}: {a.dtype} for {b.dtype}"
        assert a.shape == b.shape, f"{what}: {a.shape} for {b.shape}"
        if b.dtype.kind != "f":
            np.testing.assert_array_equal(a, b, err_msg=what)
            continue
        finite = np.abs(b[np.isfinite(b)])
        tol = eps * np.finfo(b.dtype).eps
        scale = float(finite[finite < 1e20].max(initial=0))
        np.testing.assert_allclose(a, b, rtol=tol, atol=tol * scale, err_msg=what)


def expected(case: Case) -> list[np.ndarray[Any, Any]]:
    with np.errstate(all="ignore"):
        out = case.sample.reference(*case.arrays())
    return [np.asarray(a) for a in (out if isinstance(out, (tuple, list)) else [out])]


def strided(a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same values, every other element of a larger buffer."""
    if a.ndim == 0:
        return a
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    wide[..., 1::2] = a
    return wide[..., 1::2]


def transposed(a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same values, the first axis the fastest."""
    return np.asfortranarray(a) if a.ndim else a


# ---- values

def test_every_op_has_a_sample() -> None:
    covered = {op for s in SAMPLES for op in s.ops}
    assert sorted(set(TABLE) - covered) == []
    assert sorted(covered - set(TABLE)) == []


def test_no_sample_stands_twice() -> None:
    ids = [c.id for c in CASES]
    assert sorted({i for i in ids if ids.count(i) > 1}) == []


@each(CASES)
def test_eager(case: Case) -> None:
    near(run(case.sample.function, case.arrays()), expected(case), case.sample.rtol or 20)


@each(CASES)
def test_traced(case: Case) -> None:
    graph, inputs, count = record(case.sample.function, case.arrays())
    verify(graph)
    eager = run(case.sample.function, case.arrays())
    near(interpret(graph, inputs)[:count], eager, 4)
    used = {n.op.name for n in graph.nodes if isinstance(n, Apply)}
    assert case.op in used or not used, f"{case.op} is not among {sorted(used)}"


@each([c for c in CASES if any(np.ndim(a) for a in c.arrays())])
def test_strided_and_transposed_arguments_eager(case: Case) -> None:
    eager = run(case.sample.function, case.arrays())
    for other in (strided, transposed):
        near(run(case.sample.function, [other(a) for a in case.arrays()]), eager, case.sample.rtol or 20)


# ---- gradients

def cotangents(case: Case, outs: Sequence[Tensor]) -> list[np.ndarray[Any, Any] | None]:
    rng = np.random.default_rng(zlib.crc32(case.id.encode()) + 1)
    draws = [np.asarray(rng.normal(size=o.shape)) for o in outs]
    return [d.astype(o.dtype) if o.dtype.kind == "f" else None for d, o in zip(draws, outs, strict=True)]


def directions(case: Case, arrays: Arrays, seed: int) -> list[np.ndarray[Any, Any]]:
    """One for each argument, zero where it is not floating; at most 1 in each element."""
    rng = np.random.default_rng(zlib.crc32(case.id.encode()) + seed)
    return [np.asarray(rng.uniform(-1, 1, a.shape)).astype(a.dtype) * (a.dtype.kind == "f") for a in arrays]


def total(outs: Sequence[Tensor], weights: Sequence[np.ndarray[Any, Any] | None]) -> Any:
    out: Any = 0.0
    for o, w in zip(outs, weights, strict=True):
        if w is not None:
            out = out + (o * w).sum()
    return out


def leaf(x: Any) -> Tensor:
    t = tensor(x)
    return t.requires_grad_() if t.dtype.kind == "f" else t


def gradients(xs: Sequence[Tensor]) -> list[Tensor]:
    return [x * 0 if x.grad is None else x.grad for x in xs if x.dtype.kind == "f"]


def first(case: Case) -> Callable[..., list[Tensor]]:
    """The function that gives the gradients of a random projection of the sample's results."""
    def function(*args: Any) -> list[Tensor]:
        xs = [leaf(x) for x in args]
        outs = leaves(case.sample.function(*xs))
        loss = total(outs, cotangents(case, outs))
        if isinstance(loss, Tensor) and loss.requires_grad:
            loss.backward()
        return gradients(xs)
    return function


def second(case: Case) -> Callable[..., list[Tensor]]:
    """The function that gives the gradients of a random projection of those gradients."""
    def function(*args: Any) -> list[Tensor]:
        xs = [leaf(x) for x in args]
        outs = leaves(case.sample.function(*xs))
        loss = total(outs, cotangents(case, outs))
        if isinstance(loss, Tensor) and loss.requires_grad:
            loss.backward(create_graph=True)
        parts = [x.grad for x in xs]
        ways = directions(case, [np.zeros(x.shape, x.dtype) for x in xs], 2)
        again: Any = 0.0
        for x, part, way in zip(xs, parts, ways, strict=True):
            x.zero_grad()
            if part is not None and part.requires_grad:
                again = again + (part * way).sum()
        if isinstance(again, Tensor):
            again.backward()
        return gradients(xs)
    return function


def central(f: Callable[[float], float], h: float = 2e-3) -> float:
    """The derivative at 0 by central differences, extrapolated twice (Richardson): the error is O(h**6)."""
    d = [(f(s) - f(-s)) / (2 * s) for s in (h, h / 2, h / 4)]
    e = [(4 * b - a) / 3 for a, b in pairwise(d)]
    return (16 * e[1] - e[0]) / 15


def check_slope(case: Case, f: Callable[[Arrays], tuple[float, float]], grads: Arrays, what: str) -> None:
    """``f`` gives a value and its size (for the rounding error); its slope must agree with the gradients."""
    arrays = case.arrays("float64")
    way = directions(case, arrays, 3)

    def along(t: float) -> float:
        return f([a + t * w if a.dtype.kind == "f" else a for a, w in zip(arrays, way, strict=True)])[0]

    terms = np.concatenate([np.ravel(g * w) for g, w in
                            zip(grads, [w for w in way if w.dtype.kind == "f"], strict=True)])
    found, wanted = math.fsum(terms), central(along)
    assert abs(found - wanted) <= 1e-6 * np.abs(terms).sum() + 1e-10 * f(arrays)[1] + 1e-12, \
        f"{what} of {case.id}: {found}, by differences {wanted}"


@each(SMOOTH)
def test_gradient(case: Case) -> None:
    def value(arrays: Arrays) -> tuple[float, float]:
        outs = leaves(case.sample.function(*[Tensor(a) for a in arrays]))
        pairs = zip(outs, cotangents(case, outs), strict=True)
        parts = np.concatenate([np.ravel(o.numpy() * w) for o, w in pairs if w is not None])
        return math.fsum(parts), float(np.abs(parts).sum())

    check_slope(case, value, [g.numpy() for g in first(case)(*case.arrays("float64"))], "gradient")


@each(CURVED)
def test_second_gradient(case: Case) -> None:
    def value(arrays: Arrays) -> tuple[float, float]:
        ways = [w for w in directions(case, arrays, 2) if w.dtype.kind == "f"]
        pairs = zip(first(case)(*arrays), ways, strict=True)
        parts = np.concatenate([np.ravel(g.numpy() * w) for g, w in pairs])
        return math.fsum(parts), float(np.abs(parts).sum())

    check_slope(case, value, [g.numpy() for g in second(case)(*case.arrays("float64"))], "second gradient")


# ---- what rows say of memory

def read(buffer: np.ndarray[Any, Any], layout: Layout) -> np.ndarray[Any, Any]:
    """The elements of a 1-d buffer that a layout names."""
    index = np.full(layout.shape, layout.offset)
    for axis, (n, step) in enumerate(zip(layout.shape, layout.strides, strict=True)):
        index += np.expand_dims(np.arange(n) * step, [i for i in range(index.ndim) if i != axis])
    return buffer[index] if index.size else np.empty(layout.shape, buffer.dtype)


def layouts(array: np.ndarray[Any, Any]) -> list[tuple[np.ndarray[Any, Any], Layout]]:
    """A buffer and how the array may lie in it: row-major, column-major, stepped backwards."""
    rows = Layout(0, array.shape, contiguous_strides(array.shape))
    columns = Layout(0, array.shape, contiguous_strides(array.shape[::-1])[::-1])
    stepped = np.zeros(2 * array.size + 1, array.dtype)
    back = Layout(2 * array.size - 1, array.shape, tuple(-2 * s for s in rows.strides))
    stepped[1::2] = array.ravel()[::-1]
    return [(array.ravel(), rows), (array.ravel("F"), columns), (stepped, back)]


@pytest.mark.parametrize("op", [n for n in OPS if isinstance(TABLE[n].lower, (View, Assemble))])
def test_memory_layout(op: str) -> None:
    """A view's layout reads, and an assembly's regions fill, what the eager rule gives."""
    for case in of(op, CASES):
        graph, inputs, _ = record(case.sample.function, case.arrays())
        for node in graph.nodes:
            if not isinstance(node, Apply) or node.op.name != op:
                continue
            operands = interpret(Graph(graph.inputs, node.args), inputs)
            wanted = np.asarray(node.op.eager(*operands, **node.kwargs))
            match node.op.lower:
                case View(layout):
                    for buffer, at in layouts(operands[0]):
                        shape = node.args[0].type.shape
                        whole = contiguous_strides(shape)  # marked as lengths of the caller's choice
                        strides = whole if at.strides == whole else at.strides
                        found = layout(Layout(at.offset, shape, strides), **node.kwargs)
                        assert found is not None or at.strides != contiguous_strides(at.shape), case.id
                        if found is not None:
                            assert found.shape == node.type.shape, case.id
                            np.testing.assert_array_equal(read(buffer, found), wanted, err_msg=case.id)
                case Assemble(regions, fill):
                    flat = np.full(wanted.size, node.kwargs[fill] if fill else 0, wanted.dtype)
                    for array, at in zip(operands, regions(node.type, *[a.type for a in node.args], **node.kwargs),
                                         strict=True):
                        flat[read(np.arange(flat.size), at)] = array
                    np.testing.assert_array_equal(flat.reshape(wanted.shape), wanted, err_msg=case.id)


# ---- compiled: all samples of an op in one function, so that they are one compile

def together(cases: Sequence[Case], functions: Sequence[Callable[..., Any]], eps: float) -> None:
    """Compiled results of these functions are the eager ones, for arguments in any layout."""
    from graphjit.jit import compile

    counts = [len(c.arrays()) for c in cases]

    def everything(*flat: Any) -> list[Any]:
        rest = iter(flat)
        return [f(*[next(rest) for _ in range(n)]) for f, n in zip(functions, counts, strict=True)]

    flat = [a for c in cases for a in c.arrays()]
    wanted = [[t.numpy() for t in leaves(out)] for out in everything(*[Tensor(a) for a in flat])]
    step = compile(everything)
    for other in (np.asarray, strided, transposed):
        found = step(*[other(a) for a in flat])
        for case, a, b in zip(cases, found, wanted, strict=True):
            near([t.numpy() for t in leaves(a)], b, case.sample.rtol or eps, f"{case.id}, {other.__name__}")


def of(op: str, cases: Sequence[Case]) -> list[Case]:
    return [c for c in cases if c.op == op]


@each_op
def test_compiled(op: str) -> None:
    cases = of(op, CASES)
    together(cases, [c.sample.function for c in cases], 20)


@pytest.mark.parametrize("op", sorted({c.op for c in SMOOTH}))
def test_compiled_gradient(op: str) -> None:
    cases = of(op, SMOOTH)
    together(cases, [first(c) for c in cases], 100)


@pytest.mark.parametrize("op", sorted({c.op for c in CURVED}))
def test_compiled_second_gradient(op: str) -> None:
    cases = of(op, CURVED)
    together(cases, [second(c) for c in cases], 200)


# ---- errors

def error_arrays(sample: ErrorSample) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(a) for a in sample.args(np.random.default_rng(0))]


each_error = pytest.mark.parametrize("sample", ERRORS, ids=[f"{s.ops[0]}-{s.id}" for s in ERRORS])


@each_error
def test_error_eager(sample: ErrorSample) -> None:
    with pytest.raises(sample.error) as caught:
        run(sample.function, error_arrays(sample))
    assert isinstance(caught.value, GraphjitError)
    assert len(str(caught.value).splitlines()) <= 15


@each_error
def test_error_traced(sample: ErrorSample) -> None:
    with pytest.raises(sample.error) as caught:
        record(sample.function, error_arrays(sample))
    assert isinstance(caught.value, GraphjitError)


@each_error
def test_error_compiled(sample: ErrorSample) -> None:
    from graphjit.jit import compile

    with pytest.raises(sample.error) as caught:
        compile(sample.function)(*error_arrays(sample))
    assert isinstance(caught.value, GraphjitError)


def test_ops_without_derivative_say_so() -> None:
    for case in CASES:
        if TABLE[case.op].vjp is not None or case.dtype == "float32" or not case.has_floats:
            continue
        inputs = [leaf(a) for a in case.arrays()]  # held: a walk does not look for leaves that no one holds
        for out in leaves(case.sample.function(*inputs)):
            if out.op == case.op:
                with pytest.raises(GradientError, match=case.op):
                    out.sum().backward()


# ---- every dtype

def in_dtype(arrays: Arrays, old: Any, new: Any) -> list[np.ndarray[Any, Any]]:
    with np.errstate(all="ignore"):
        return [a.astype(new) if a.dtype == old else a for a in arrays]


def outcome(call: Callable[..., Any], case: Case, arrays: Arrays) -> tuple[Any, Any]:
    """What came out, and its types or the kind of error."""
    try:
        out = call(case.sample.function, arrays)
    except GraphjitError as error:
        return None, type(error)
    types = [n.type for n in out[0].outputs[:out[2]]] if isinstance(out, tuple) else out
    return out, [(tuple(map(int, t.shape)), str(t.dtype)) for t in types]


@each_op
def test_modes_agree_in_every_dtype(op: str) -> None:
    """Eager and traced calls give the same types or raise the same kind of error."""
    for case in of(op, CASES)[:6]:
        arrays = case.arrays()
        for old in {a.dtype for a in arrays}:
            for new in DTYPES:
                args = in_dtype(arrays, old, new)
                traced, wanted = outcome(record, case, args)
                assert outcome(run, case, args)[1] == wanted, f"{case.id} with {new} for {old}"
                for node in traced[0].nodes if traced else ():
                    if isinstance(node, Apply) and node.op.name == op:
                        check_row(node)


def check_row(node: Apply) -> None:
    """The eager rule gives the type that the shape rule says."""
    operands = [Tensor(np.ones(a.type.shape, a.type.dtype)) for a in node.args]
    try:
        out = apply(node.op, *operands, **node.kwargs)
    except GraphjitError as error:  # of the values, ones
        assert not isinstance(error, (DTypeError, InternalCompilerError))
        return
    assert out._type == node.type, f"{node.op} of {[t._type for t in operands]}"


@pytest.mark.parametrize("array", [
    np.zeros(2, "complex64"), np.zeros(2, "float16"), np.zeros(2, "longdouble"), np.array(["a"]),
    np.array([None]), np.zeros(2, "datetime64[s]")], ids=lambda a: str(a.dtype))
def test_other_dtypes_are_refused(array: np.ndarray[Any, Any]) -> None:
    for function in (Tensor, tensor, as_tensor, lambda a: as_tensor(1.0) + a):
        with pytest.raises(GraphjitError):
            function(array)


_ = graphjit.ops


def test_a_choice_by_bits_is_the_choice() -> None:
    from graphjit.kernels.reference import select

    rng = np.random.default_rng(0)
    shape = (64, 64)
    cond = rng.random(shape) > 0.5
    for dtype in (np.float32, np.float64, np.int32, np.int64, np.int8, np.bool_):
        many = rng.standard_normal(shape).astype(dtype)
        if many.dtype.kind == "f":
            many[0], many[1] = np.nan, -np.inf
        given = [many, many.T, many[:1], many[:, :1], np.zeros((), dtype), np.full((), -0.0).astype(dtype),
                 np.ones((), dtype)]
        for c in (cond, cond.T, np.broadcast_to(cond, (2, *shape))):
            for x in given:
                for y in given:
                    found, wanted = select(c, x, y), np.where(c, x, y)
                    assert found.dtype == wanted.dtype and found.shape == wanted.shape
                    assert found.tobytes() == wanted.tobytes()
