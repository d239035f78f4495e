"""Operands that lie apart along the innermost loop, brought to tiles."""

import numpy as np
import pytest

import graphjit as gj

DTYPES = [np.float32, np.float64, np.int32, np.int64, np.uint16, np.bool_]
LENGTHS = [1, 3, 4, 5, 9, 15, 16, 17, 33, 63, 64, 65, 130]


def numbers(shape, dtype=np.float32, seed=0):
    return (np.random.default_rng(seed).standard_normal(shape) * 8).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_transposes_of_all_lengths(dtype):
    f = gj.compile(lambda x: gj.where(x.T == x.T, x.T, x.T))
    for m in LENGTHS:
        for n in LENGTHS:
            x = numbers((m, n), dtype)
            np.testing.assert_array_equal(f(x).numpy(), x.T, err_msg=f"{m} {n}")


PROGRAMS = {
    "transposed and not": lambda x, y: x.T + y,
    "two transposed": lambda x, y: x.T * y.T,
    "a column as well": lambda x, y: x.T * y[:, :1] + y[0],
    "reversed": lambda x, y: gj.flip(x, (0,)).T - gj.flip(y, (1,)),
    "every other": lambda x, y: x[::2, ::2].T + y[::2, ::2],
    "a part": lambda x, y: x[1:-1, 2:].T.exp(),
    "several results": lambda x, y: (x.T + y, x.T.exp(), (y < x.T)),
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("n", [20, 70, 131])
def test_with_other_operands(name, n):
    f = gj.compile(PROGRAMS[name])
    x, y = numbers((n, n)) / 8, numbers((n, n), seed=1)
    got, want = f(x, y), PROGRAMS[name](gj.tensor(x), gj.tensor(y))
    for a, b in zip(got, want, strict=True) if isinstance(got, tuple) else [(got, want)]:
        np.testing.assert_allclose(a.numpy(), b.numpy(), 1e-6)


@pytest.mark.parametrize("axes", [(0, 2, 1), (2, 0, 1), (1, 2, 0), (2, 1, 0), (1, 0, 2)])
@pytest.mark.parametrize("shape", [(5, 20, 33), (18, 4, 70), (40, 30, 20), (70, 1, 66)])
def test_three_axes(axes, shape):
    f = gj.compile(lambda x: x.transpose(axes) + 1)
    x = numbers(shape)
    np.testing.assert_array_equal(f(x).numpy(), x.transpose(axes) + 1)


def test_a_state_replaced_by_its_transpose():
    t = gj.tensor(numbers((70, 70)))
    before = t.numpy().copy()
    step = gj.compile(lambda: t.assign(2 * t.T))
    step()
    np.testing.assert_array_equal(t.numpy(), 2 * before.T)


def test_shares_of_threads_give_the_same():
    x = numbers((700, 900))
    before = gj.get_num_threads()
    try:
        for threads in (1, 2, 3):
            gj.set_num_threads(threads)
            np.testing.assert_array_equal(gj.compile(lambda x: x.T * 3)(x).numpy(), x.T * 3)
    finally:
        gj.set_num_threads(before)


def test_rows_too_short_for_tiles_are_read_where_they_lie():
    moved, w = gj.compile(lambda x: x.T + 1), gj.tensor(numbers((3, 50)))
    moved(numbers((40, 50)))
    assert "to_lanes" in moved.source()
    short = gj.compile(lambda: w.T + 1)
    short()
    assert "to_lanes" not in short.source()


def test_blocks_of_a_known_length_are_not_unrolled():
    w = gj.tensor(numbers((32, 3)))
    f = gj.compile(lambda: w.T + 1)
    np.testing.assert_array_equal(f().numpy(), w.numpy().T + 1)
    assert "in lanes(block, " in f.source()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("taps", [4, 5, 7, 9, 15])
def test_taps_of_weights_come_before_their_channels(taps, dtype):
    for channels in (16, 40, 70):
        w = gj.tensor(numbers((6, channels, taps), dtype))
        f = gj.compile(lambda w=w: w.swapaxes(1, 2) + 1)
        np.testing.assert_array_equal(f().numpy(), w.numpy().swapaxes(1, 2) + 1)
        assert "to_lanes" in f.source()
