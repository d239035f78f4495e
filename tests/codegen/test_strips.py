"""Kernels that run strip by strip compute the same bits as one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from kernel_calls import in_pieces, poison
from lowering import compiled, floats, program_of

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import nn, optim
from graphjit.codegen import strips
from graphjit.codegen.call import Address, KernelCall, Scratch
from graphjit.runtime.program import Program

Array = np.ndarray[Any, Any]
ROWS = 1000


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A machine whose near memory is that small that arrays of tests are far larger."""
    monkeypatch.setattr(strips, "near_memory", lambda: 1 << 16)
    monkeypatch.setattr(strips, "FEWEST", 2)
    yield monkeypatch


def groups(program: Program) -> list[KernelCall]:
    return [s for s in program.steps if isinstance(s, KernelCall) and s.parts]


def titles(program: Program) -> list[list[str]]:
    return [[part.title for part in group.parts] for group in groups(program)]


def weights(*sizes: int) -> list[Array]:
    return [floats(n, m, seed=n + m) * np.float32(n ** -0.5) for n, m in pairwise(sizes)]


W1, W2, W3 = weights(16, 24, 16, 8)


def chain(x: Any) -> Any:
    return gj.tanh(gj.tanh(x @ W1) @ W2) @ W3


def transposed(x: Any) -> Any:
    return gj.relu(gj.relu(x @ W2.T) @ W1.T)


def rows(x: Any) -> Any:
    h = gj.relu(x @ W1 + 1.0)
    return F.log_softmax((h - h.mean(-1, keepdims=True)) @ W2, axis=-1)


def gradient(x: Any) -> Any:
    def loss(x: Any) -> Any:
        return ((chain(x) + 1.0) ** 2).sum()
    return gj.value_and_grad(loss)(x)


def columns(x: Any) -> Any:
    h = gj.relu(x @ W1)
    return h.sum(0), gj.exp(-h) @ W2


def gram(x: Any) -> Any:
    h = gj.relu(x @ W1)
    return (h @ h[:40].mT) @ gj.ones((40, 3), dtype=x.dtype)


def upside_down(x: Any) -> Any:
    h = gj.relu(x @ W1)
    return gj.tanh(gj.flip(h, axis=0)) @ W2


def neighbours(x: Any) -> Any:
    h = gj.relu(x @ W1)
    return gj.tanh(h[1:] - h[:-1]) @ W2


def picked(x: Any) -> Any:
    h = gj.relu(x @ W1)
    return gj.tanh(gj.take(h, np.arange(len(x))[::-1].copy(), axis=0)) @ W2


def halves(x: Any) -> Any:
    h = x @ W1
    return gj.concat([gj.tanh(h[:, :12]) @ W1[:12], gj.relu(h[:, 12:]) @ W1[:12]], axis=1) * 2.0


def several(x: Any) -> Any:
    """All that lies between is a result as well."""
    a = x @ W1
    b = gj.tanh(a)
    return a, b, b @ W2


def deep(x: Any) -> Any:
    return gj.softmax(x.reshape(10, -1, 16) @ W1, axis=-1) @ W2


def biased(x: Any) -> Any:
    """Products that add a bias to their result."""
    return gj.relu(gj.relu(x @ W1 + W1[0]) @ W2 + W2[1]) @ W3 + W3[0]


def placed(x: Any) -> Any:
    """Products that store side by side."""
    h = gj.relu(x @ W1)
    return gj.concat([h @ W2, h @ W1.T], axis=1)


def stepped(x: Any) -> Any:
    """Every other row is read."""
    h = gj.relu(x @ W1)
    return gj.tanh(h[::2] @ W2) @ W3


def single(x: Any) -> Any:
    """Matrices of one row each, which are not one behind the other."""
    h = gj.relu(x @ W1).reshape(-1, 2, 24)
    return gj.tanh(h[:, :1] @ W2) @ W3


GROUPED = [chain, transposed, rows, gradient, columns, halves, several, deep, biased, placed, stepped, single]
ALL = [*GROUPED, gram, upside_down, neighbours, picked]


def flat(found: Any) -> list[Array]:
    if isinstance(found, (tuple, list)):
        return [array for each in found for array in flat(each)]
    return [np.array(found.data)]


@pytest.mark.parametrize(("n", "dtype"), [(ROWS, np.float32), (1038, np.float32), (800, np.float64)])
@pytest.mark.parametrize("function", ALL)
def test_strips_have_the_same_bits(small: pytest.MonkeyPatch, function: Callable[..., Any], dtype: Any,
                                   n: int) -> None:
    x = floats(n if function is not deep else n // 10 * 10, 16).astype(dtype)
    stripped = compiled(function, x)
    if function in GROUPED and dtype == np.float32:
        assert groups(stripped.latest.program)
    small.setattr("graphjit.codegen.lower.in_strips", lambda steps, outputs, in_place: list(steps))
    plain = compiled(lambda x: function(x), x)
    assert not groups(plain.latest.program)
    expected = flat(plain(x))
    program = stripped.latest.program
    for change in (poison, lambda p: in_pieces(p, backwards=True)):
        change(program)
        poison(program)
        for a, b in zip(program.run([x]), expected, strict=True):  # calls of the function are native by now
            np.testing.assert_array_equal(a, b)


def test_what_reads_other_rows_is_in_no_strip(small: pytest.MonkeyPatch) -> None:
    x = floats(ROWS, 16)
    for function in (upside_down, neighbours, picked, gram):
        for group in groups(program_of(function, x)):
            written = {b for part in group.parts for b in part.writes}
            for part in group.parts:
                spans = part.spans()
                assert all(b in spans for b in part.reads if b in written)


def step_of(model: nn.Module, optimizer: Any) -> Callable[..., Any]:
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss
    return step


def trained(norm: Callable[[int], nn.Module], threads: int) -> tuple[list[Array], Program]:
    gj.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), norm(32), nn.ReLU(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 5))
    before = gj.get_num_threads()
    gj.set_num_threads(threads)
    try:
        step = gj.compile(step_of(model, optim.SGD(model.parameters(), lr=0.1, momentum=0.9)))
        losses = [step(floats(ROWS, 16), np.arange(ROWS) % 5) for _ in range(3)]
        with pytest.raises(gj.BoundsError):
            step(floats(ROWS, 16), np.full(ROWS, 7))
        return [*flat(losses), *flat(list(model.parameters()))], step.latest.program
    finally:
        gj.set_num_threads(before)


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.BatchNorm1d])
def test_training_has_the_same_bits_on_any_number_of_threads(small: pytest.MonkeyPatch, norm: Any) -> None:
    single, program = trained(norm, 1)
    assert groups(program)
    for threads in (2, 3):
        for a, b in zip(trained(norm, threads)[0], single, strict=True):
            np.testing.assert_array_equal(a, b)
    small.setattr("graphjit.codegen.lower.in_strips", lambda steps, outputs, in_place: list(steps))
    plain, program = trained(norm, 1)
    assert not groups(program)
    for a, b in zip(plain, single, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_array_between_has_memory_for_a_strip_only(small: pytest.MonkeyPatch) -> None:
    program = program_of(chain, floats(ROWS * 16, 16))
    (group,) = groups(program)
    assert len(group.parts) == 5
    inner = {s.buffer for part in group.parts for s in part.slots if isinstance(s, Address)
             and isinstance(s.buffer, Scratch)}
    assert group.moves
    assert not {b for part in group.parts for b in part.writes} & set(program.plan.offsets)
    assert all(buffer.nbytes < ROWS * 16 * 4 for buffer in inner)
    assert program.plan.size < ROWS * 16 * 24 * 4


def test_what_fits_into_the_cache_is_left_alone() -> None:
    assert not groups(program_of(chain, floats(64, 16)))


def test_a_report_and_the_sources_tell_of_strips(small: pytest.MonkeyPatch) -> None:
    step = compiled(chain, floats(ROWS, 16))
    assert "strips: matmul 1000x16x24; tanh; matmul 1000x24x16; tanh" in step.explain()
    assert step.source().count("# of the kernel library: gemm") == 3
    assert "def k_tanh" in step.source()


def test_strips_of_a_program_that_native_code_calls(small: pytest.MonkeyPatch) -> None:
    small.setattr("graphjit.runtime.bound.get_num_threads", lambda: 1)
    x = gj.tensor(floats(ROWS, 16))
    scales = [gj.tensor(scale) for scale in floats(6)]
    step = gj.compile(lambda scale: chain(x * scale).sum())
    found = [np.array(step(scale).data) for scale in scales]
    program = step.latest.program
    assert groups(program)
    assert program.native(True, None, None, np.zeros(0, np.int64)) is not None
    small.setattr("graphjit.codegen.lower.in_strips", lambda steps, outputs, in_place: list(steps))
    plain = gj.compile(lambda scale: chain(x * scale).sum())
    np.testing.assert_array_equal(found, [np.array(plain(scale).data) for scale in scales])
    assert not groups(plain.latest.program)
