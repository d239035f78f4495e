"""Data sets, loaders and offline tables."""

import sys

import numpy as np
import pytest

import graphjit as gj
from graphjit import data
from graphjit.errors import ArgumentError, ShapeError

X, Y = np.arange(20.0).reshape(10, 2), np.arange(10)


class Squares(data.Dataset):
    def __len__(self):
        return 5

    def __getitem__(self, i):
        return {"x": float(i), "xx": np.array([i, i * i])}


def labels(loader):
    return [y.tolist() for _, y in loader]


def test_a_tensor_dataset_gives_rows_and_batches():
    ds = data.TensorDataset(X, gj.tensor(Y), [[float(i)] for i in range(10)])
    assert len(ds) == 10 and ds[3][1] == 3 and ds[3][0].tolist() == [6.0, 7.0]
    x, y, z = ds.batch([1, 1])
    assert x.tolist() == [[2.0, 3.0]] * 2 and y.dtype == np.int64 and z.dtype == np.float32
    x[:] = 0
    assert X[1].tolist() == [2.0, 3.0]
    with pytest.raises(ShapeError, match="equally many rows"):
        data.TensorDataset(X, Y[:4])
    with pytest.raises(ArgumentError):
        data.TensorDataset()


def test_batches_in_order_with_an_odd_last_one():
    loader = data.DataLoader(data.TensorDataset(X, Y), batch_size=4)
    assert labels(loader) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]] and len(loader) == 3
    loader = data.DataLoader(data.TensorDataset(X, Y), batch_size=4, drop_last=True)
    assert labels(loader) == [[0, 1, 2, 3], [4, 5, 6, 7]] and len(loader) == 2
    assert list(data.DataLoader(data.TensorDataset(X[:0], Y[:0]), batch_size=4)) == []
    assert [x.dtype for x, _ in loader] == [np.float64] * 2


def test_a_seed_repeats_the_orders_and_each_pass_has_another():
    def orders(**options):
        loader = data.DataLoader(data.TensorDataset(X, Y), batch_size=3, shuffle=True, **options)
        return [[y for batch in labels(loader) for y in batch] for _ in range(3)]
    first = orders(seed=1)
    assert first == orders(seed=1) != orders(seed=2) and first[0] != first[1]
    assert all(sorted(order) == list(range(10)) for order in first)
    gj.manual_seed(5)
    a = orders()
    gj.manual_seed(5)
    assert a == orders()
    assert orders(generator=gj.random.Generator(1)) == first


def test_other_datasets_are_collated():
    batches = list(data.DataLoader(Squares(), batch_size=3))
    assert batches[0]["x"].tolist() == [0.0, 1.0, 2.0] and batches[1]["xx"].tolist() == [[3, 9], [4, 16]]
    assert [b[0].tolist() for b in data.DataLoader([1, 2, 3], batch_size=2)] == [[1, 2], [3]]
    pairs = [(np.zeros(2), 0), (np.ones(2), 1)]
    x, y = next(iter(data.DataLoader(pairs, batch_size=2)))
    assert x.shape == (2, 2) and y.tolist() == [0, 1]
    assert next(iter(data.DataLoader(pairs, batch_size=2, collate_fn=len))) == 2
    with pytest.raises(ArgumentError, match="different shapes"):
        next(iter(data.DataLoader([np.zeros(2), np.zeros(3)], batch_size=2)))
    with pytest.raises(ArgumentError, match="different numbers of fields"):
        data.collate([(1, 2), (1,)])


def test_subsets_and_splits_share_nothing():
    ds = data.TensorDataset(X, Y)
    half = data.Subset(ds, [1, 3, 5])
    assert len(half) == 3 and half[1][1] == 3 and half.batch([0, 2])[1].tolist() == [1, 5]
    assert labels(data.DataLoader(half, batch_size=2)) == [[1, 3], [5]]
    parts = data.random_split(ds, [0.5, 0.25, 0.25], generator=gj.random.Generator(0))
    assert [len(p) for p in parts] == [6, 2, 2]
    assert sorted(np.concatenate([p.indices for p in parts])) == list(range(10))
    assert [len(p) for p in data.random_split(ds, [7, 3])] == [7, 3]
    again = data.random_split(ds, [0.5, 0.25, 0.25], generator=gj.random.Generator(0))
    assert all((p.indices == q.indices).all() for p, q in zip(parts, again, strict=True))
    for wrong in ([7, 4], [0.5, 0.2], [-1, 11], [9.5, 0.5]):
        with pytest.raises(ArgumentError, match="do not add up"):
            data.random_split(ds, wrong)
    chained = data.Subset(data.Subset(Squares(), [4, 2, 0]), [0, 1])
    assert chained.batch([0, 1])["x"].tolist() == [4.0, 2.0]


def test_what_a_loader_refuses():
    ds = data.TensorDataset(X, Y)
    for options in ({"batch_size": 0}, {"batch_size": 2.5}, {"batch_size": True},
                    {"seed": 1, "generator": gj.random.Generator(1)}):
        with pytest.raises(ArgumentError):
            data.DataLoader(ds, **options)
    with pytest.raises(ArgumentError, match="not a data set"):
        data.DataLoader(i for i in range(3))


@pytest.mark.parametrize("name, shape, classes", [
    ("digits", (1797, 64), 10), ("iris", (150, 4), 3), ("wine", (178, 13), 3),
    ("breast_cancer", (569, 30), 2), ("moons", (1000, 2), 2), ("circles", (1000, 2), 2),
    ("blobs", (1000, 2), 3)])
def test_tables(name, shape, classes):
    pytest.importorskip("sklearn")
    table = data.load(name)
    assert table.x.shape == shape and table.x.dtype == np.float32 and table.x.flags.c_contiguous
    assert table.y.dtype == np.int64 and sorted(set(table.y)) == list(range(classes))
    assert len(table.classes) == classes and len(table.features) == shape[1] and len(table) == shape[0]
    assert table.dataset()[0][0].shape == shape[1:]
    np.testing.assert_array_equal(table.x, data.load(name).x)


def test_unknown_tables_and_a_missing_scikit_learn(monkeypatch):
    with pytest.raises(ArgumentError, match=r"no data set 'mnist'[\s\S]*digits"):
        data.load("mnist")
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ArgumentError, match=r"pip install"):
        data.load("digits")
