"""Memory of what lives from step to step: where it begins, and that it is an array like any other."""

from __future__ import annotations

import gc
import mmap
import weakref

import numpy as np
import pytest

from graphjit.arrays import HUGE, LINE, PAGE, lasting, lasting_copy, on_huge_pages

F32 = np.dtype(np.float32)


@pytest.fixture(params=["huge pages", "none"])
def _pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "none":
        monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)


@pytest.mark.usefixtures("_pages")
@pytest.mark.parametrize("nbytes", [4, 1 << 10, 1 << 16, HUGE - 4, HUGE, 3 * HUGE + 20])
def test_it_begins_at_a_line_and_holds_what_is_written(nbytes: int) -> None:
    arrays = [lasting((nbytes // 4,), F32) for _ in range(3)]
    for i, x in enumerate(arrays):
        assert x.ctypes.data % LINE == 0
        assert x.nbytes == nbytes
        x[...] = i
    for i, x in enumerate(arrays):
        assert (x == i).all()


def test_large_ones_begin_at_different_places_of_a_page() -> None:
    arrays = [lasting((HUGE // 4,), F32) for _ in range(8)]
    assert len({x.ctypes.data % PAGE for x in arrays}) == 8


@pytest.mark.usefixtures("_pages")
def test_huge_pages_are_cleared_and_given_back() -> None:
    memory = on_huge_pages(2 * HUGE + 100)
    assert memory.nbytes == 2 * HUGE + 100
    assert not memory.any()
    assert memory.ctypes.data % (HUGE if hasattr(mmap, "MADV_HUGEPAGE") else LINE) == 0
    part = memory[HUGE:]
    owner = weakref.ref(memory.base)
    del memory
    gc.collect()
    assert owner() is not None  # the part still needs it
    part[-1] = 7
    del part
    gc.collect()
    assert owner() is None


def test_a_copy_has_the_values_and_memory_of_its_own() -> None:
    x = np.arange(HUGE // 2, dtype=np.float32).reshape(-1, 64).T
    copy = lasting_copy(x)
    np.testing.assert_array_equal(copy, x)
    assert copy.flags.c_contiguous
    assert copy.flags.writeable
    x[0, 0] = -1
    assert copy[0, 0] == 0
