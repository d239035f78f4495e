"""Random numbers: repeatable, the same in both modes, distributed as they should be."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import graphjit as gj
from graphjit.errors import ArgumentError
from graphjit.random import Generator

N = 200_000


def test_compiled_draws_continue_eager_ones() -> None:
    def draws(source: Generator) -> list[Any]:
        return [gj.uniform(5, generator=source), gj.normal((2, 2), generator=source),
                gj.permutation(6, generator=source)]

    eager, compiled = Generator(3), Generator(3)
    step = gj.compile(lambda: draws(compiled))
    found = []
    for call in range(3):
        wanted = draws(eager)
        found.append(draws(compiled) if call == 1 else step())
        for a, b in zip(found[-1], wanted, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5)
    assert (compiled.state == eager.state).all()
    assert not np.array_equal(found[0][0].numpy(), found[2][0].numpy())


def test_seed_and_state_repeat() -> None:
    gj.manual_seed(7)
    first = gj.normal(4).numpy()
    assert not np.array_equal(gj.normal(4).numpy(), first)
    gj.manual_seed(7)
    np.testing.assert_array_equal(gj.normal(4).numpy(), first)

    source = Generator(1)
    gj.uniform(3, generator=source)
    kept, twin = source.state, copy.deepcopy(source)
    wanted = gj.uniform(3, generator=source).numpy()
    np.testing.assert_array_equal(gj.uniform(3, generator=twin).numpy(), wanted)
    source.state = kept
    np.testing.assert_array_equal(gj.uniform(3, generator=source).numpy(), wanted)
    with pytest.raises(ArgumentError):
        source.state = [1.5, 2]  # type: ignore[assignment]


def test_generators_of_chance_differ() -> None:
    assert Generator().state[0] != Generator().state[0]


def test_distributions() -> None:
    source = Generator(0)
    u = gj.uniform(N, generator=source).numpy()
    assert u.min() >= 0 and u.max() < 1 and abs(u.mean() - 0.5) < 3e-3 and abs(u.var() - 1 / 12) < 1e-3
    for dtype in ("float32", "float64"):
        z = gj.normal(N, dtype=dtype, generator=source).numpy()
        assert z.dtype == dtype and np.isfinite(z).all()
        assert abs(z.mean()) < 0.01 and abs(z.std() - 1) < 0.01 and abs((z**4).mean() - 3) < 0.1
    k = np.bincount(gj.randint(0, 7, N, generator=source).numpy(), minlength=7)
    assert abs(k / N - 1 / 7).max() < 5e-3
    assert abs(gj.bernoulli(0.25, N, generator=source).numpy().mean() - 0.25) < 5e-3
    assert not gj.bernoulli(0.0, N, generator=source).numpy().any()
    assert gj.bernoulli(1.0, N, generator=source).numpy().all()
    p = gj.permutation(N, generator=source).numpy()
    assert (np.sort(p) == np.arange(N)).all() and abs(np.corrcoef(p, np.arange(N))[0, 1]) < 0.01


def test_native_code_draws_the_bits_that_numpy_draws() -> None:
    from graphjit.kernels.threefry import threefry2x32_numpy
    from graphjit.kernels.threefry_bits import threefry_bits

    for n in (0, 1, 15, 16, 17, 1000):
        for k0, k1, c1 in ((1, 2, 3), (0xFFFFFFFF, 0x80000000, 0xDEADBEEF)):
            wanted = threefry2x32_numpy(k0, k1, np.arange(n, dtype=np.uint32), c1)
            np.testing.assert_array_equal(threefry_bits(k0, k1, c1, n), wanted)


def test_draws_go_on_with_the_same_bits_when_native_code_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphjit.ops import random as room

    found = []
    for few in (0, 1 << 30):
        monkeypatch.setattr(room, "FEW", few)
        generator = gj.random.Generator(5)
        found.append([gj.random.normal((3, 7), generator=generator).numpy() for _ in range(3)])
    np.testing.assert_array_equal(found[0], found[1])
