"""Batches made ahead, transforms, and going on where a training stopped."""

import gc
import json
import subprocess
import sys
import threading

import numpy as np
import pytest

import graphjit as gj
from graphjit import data
from graphjit.errors import ArgumentError, BoundsError

X, Y = np.random.default_rng(0).normal(size=(23, 3)), np.arange(23)
DATA = data.TensorDataset(X, Y)


def workers():
    return [t for t in threading.enumerate() if t.name == "graphjit prefetch"]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    gc.collect()
    assert workers() == []


def bits(loader):
    return [tuple(field.tobytes() for field in batch) for batch in loader]


@pytest.mark.parametrize("prefetch", [1, 2, 50])
@pytest.mark.parametrize("options", [{}, {"shuffle": True}, {"shuffle": True, "drop_last": True}])
def test_prefetched_batches_are_the_same_bits_in_the_same_order(prefetch, options):
    plain = data.DataLoader(DATA, 4, seed=3, **options)
    ahead = data.DataLoader(DATA, 4, seed=3, prefetch=prefetch, **options)
    assert len(ahead) == len(plain) == len(list(ahead)) == len(list(plain))
    for _ in range(3):
        assert bits(ahead) == bits(plain) != []
    gj.manual_seed(9)
    first = [bits(data.DataLoader(DATA, 4, prefetch=prefetch, **options)), gj.random.uniform((2,)).tolist()]
    gj.manual_seed(9)
    assert first == [bits(data.DataLoader(DATA, 4, **options)), gj.random.uniform((2,)).tolist()]


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_transform_sees_each_whole_batch(prefetch):
    rng = np.random.default_rng(1)
    seen = []

    def transform(batch):
        seen.append(threading.current_thread().name)
        return batch[0] + rng.normal(size=batch[0].shape), batch[1] * 10

    batches = list(data.DataLoader(DATA, 10, transform=transform, prefetch=prefetch))
    same = np.random.default_rng(1)
    for i, (x, y) in enumerate(batches):
        rows = slice(10 * i, 10 * i + 10)
        np.testing.assert_array_equal(x, X[rows] + same.normal(size=X[rows].shape))
        np.testing.assert_array_equal(y, Y[rows] * 10)
    assert [len(y) for _, y in batches] == [10, 10, 3]
    assert all((name == "graphjit prefetch") == bool(prefetch) for name in seen)
    collated = data.DataLoader(DATA, 10, collate_fn=len, transform=lambda n: -n, prefetch=prefetch)
    assert list(collated) == [-10, -10, -3]


@pytest.mark.parametrize("prefetch", [0, 1, 3])
@pytest.mark.parametrize("where", ["dataset", "collate_fn", "transform"])
def test_errors_come_up_where_the_batch_is_asked_for(prefetch, where):
    def fail_at_13(value):
        if np.any(np.asarray(value if where == "dataset" else value[-1]) == 13):
            raise KeyError("thirteen")
        return value

    class Source(data.Dataset):
        def __len__(self):
            return 23

        def __getitem__(self, i):
            return fail_at_13(i) if where == "dataset" else i

    options = {"collate_fn": lambda samples: fail_at_13([np.array(samples)])} if where == "collate_fn" else {}
    if where == "transform":
        options = {"transform": fail_at_13}
    loader = data.DataLoader(Source(), 5, prefetch=prefetch, **options)
    for _ in range(2):
        batches, iterator = [], iter(loader)
        with pytest.raises(KeyError, match="thirteen") as caught:
            for batch in iterator:
                batches.append(batch)
        assert len(batches) == 2 and "fail_at_13" in str(caught.traceback[-1].name)
        assert list(iterator) == [] and workers() == []


def test_errors_of_graphjit_name_the_line_of_the_loop():
    ragged = data.DataLoader([np.zeros(2), np.zeros(3)], 2, prefetch=1)
    with pytest.raises(ArgumentError, match="different shapes") as caught:
        next(iter(ragged))
    assert caught.value.where.file == __file__


def test_leaving_early_ends_the_thread():
    ahead = data.DataLoader(DATA, 2, shuffle=True, seed=0, prefetch=2)
    for _ in range(5):
        for _batch in ahead:
            assert len(workers()) == 1
            break
        assert workers() == []
    plain = data.DataLoader(DATA, 2, shuffle=True, seed=0)
    for _ in range(5):
        next(iter(plain))
    assert bits(ahead) == bits(plain)  # the passes left early count as passes
    with pytest.raises(ZeroDivisionError):
        for _batch in ahead:
            raise ZeroDivisionError
    iterator = iter(ahead)
    assert workers() == []  # nothing is made before it is asked for
    next(iterator)
    iterator.close()
    assert workers() == [] and list(iterator) == []
    two = iter(ahead), iter(ahead)
    assert [len(next(it)) for it in two] == [2, 2] and len(workers()) == 2
    del two
    assert workers() == []


def test_only_so_many_batches_are_made_ahead():
    made, enough = [], threading.Event()

    def transform(batch):
        made.append(len(made))
        if len(made) == 4:
            enough.set()
        return batch

    iterator = iter(data.DataLoader(DATA, 2, transform=transform, prefetch=2))
    next(iterator)
    assert enough.wait(10)  # the one given, two in the queue, one in hand
    assert not threading.Event().wait(0.05) and made == [0, 1, 2, 3]


def test_a_program_may_end_within_a_loop():
    code = ("import graphjit as gj\n"
            "batches = iter(gj.data.DataLoader(list(range(9)), 2, prefetch=1))\n"
            "print(next(batches)[0].tolist())\n")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (out.returncode, out.stdout, out.stderr) == (0, "[0, 1]\n", "")


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("make", [lambda: {"seed": 5}, lambda: {"generator": gj.random.Generator(5)}])
def test_going_on_where_it_stopped(prefetch, make):
    whole = data.DataLoader(DATA, 4, shuffle=True, prefetch=prefetch, **make())
    passes = [bits(whole) for _ in range(5)]
    assert len({tuple(p) for p in passes}) == 5 and whole.epoch == 5

    begun = data.DataLoader(DATA, 4, shuffle=True, **make())
    assert [bits(begun) for _ in range(2)] == passes[:2]
    state = json.loads(json.dumps(begun.state_dict()))
    assert state["epoch"] == 2
    resumed = data.DataLoader(DATA, 4, shuffle=True, seed=77)
    resumed.load_state_dict(state)
    assert [bits(resumed) for _ in range(3)] == passes[2:] and resumed.epoch == 5
    assert resumed.state_dict() == whole.state_dict()
    begun.load_state_dict(data.DataLoader(DATA, 4, shuffle=True, **make()).state_dict())
    assert bits(begun) == passes[0]


def test_the_default_generator_is_not_part_of_the_state():
    loader = data.DataLoader(DATA, 4, shuffle=True)
    next(iter(loader))
    assert loader.state_dict() == {"epoch": 1, "generator": None}
    other = data.DataLoader(DATA, 4, shuffle=True)
    other.load_state_dict(loader.state_dict())
    assert other.epoch == 1
    seeded = data.DataLoader(DATA, 4, shuffle=True, seed=1)
    before = seeded.state_dict()
    for state in ({}, None, {"epoch": 1}, {"epoch": -1, "generator": [1, 2]}, {"epoch": 1, "generator": [1]},
                  {"epoch": 1, "generator": "ab"}, {"epoch": 1, "generator": None},
                  {"epoch": 1, "generator": [0.5, 1]}):
        with pytest.raises(ArgumentError):
            seeded.load_state_dict(state)
        assert seeded.state_dict() == before
    with pytest.raises(ArgumentError, match="has no generator of its own"):
        loader.load_state_dict(before)


def test_what_is_refused():
    for prefetch in (-1, 1.5, True):
        with pytest.raises(ArgumentError, match="prefetch is a whole number from 0 up"):
            data.DataLoader(DATA, prefetch=prefetch)
    with pytest.raises(ArgumentError, match="flatnonzero"):
        data.Subset(DATA, Y > 3)
    for wrong in ([0.5], 3, [[1]]):
        with pytest.raises(ArgumentError, match="list of whole numbers"):
            data.Subset(DATA, wrong)
    for place in (23, -24):
        with pytest.raises(BoundsError, match=f"index {place} is outside of the 23 samples"):
            data.Subset(DATA, [0, place])
    assert len(data.Subset(DATA, [])) == 0 and data.Subset(DATA, [-1])[0][1] == 22


def test_data_sets_can_be_looped_over():
    class Endless(data.Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return i * i  # never an IndexError

    assert list(Endless()) == [0, 1, 4] and [int(y) for _, y in data.Subset(DATA, [4, 2])] == [4, 2]


def test_a_compiled_step_trains_alike_with_and_without_prefetch():
    def weights(prefetch):
        gj.manual_seed(0)
        model = gj.nn.Sequential(gj.nn.Linear(3, 4), gj.nn.Dropout(0.5), gj.nn.Linear(4, 1))
        opt = gj.optim.SGD(model.parameters(), lr=0.1)

        @gj.compile
        def step(x):
            opt.zero_grad()
            loss = (model(x) ** 2).mean()
            loss.backward()
            opt.step()
            return loss

        loader = data.DataLoader(data.TensorDataset(X.astype(np.float32)), 8, shuffle=True, prefetch=prefetch)
        for _ in range(3):
            for (x,) in loader:
                step(x)
        return [p.data.tobytes() for p in model.parameters()]

    assert weights(0) == weights(3)
