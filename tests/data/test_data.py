"""Data sets, loaders and offline tables."""

import re
import subprocess
import sys

import numpy as np
import pytest

import graphjit as gj
from graphjit import data
from graphjit.errors import ArgumentError, DatasetUnavailable, ShapeError

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


HELD_OR_MADE = [name for name, source in data.SOURCES.items() if not source.downloads]
FETCHED = [name for name, source in data.SOURCES.items() if source.downloads]


@pytest.mark.parametrize("name", HELD_OR_MADE)
def test_tables(name):
    pytest.importorskip("sklearn")
    table, source = data.load(name), data.SOURCES[name]
    features = int(np.prod(source.shape))
    assert table.x.shape == (source.samples[0], features) and table.x.dtype == np.float32
    assert table.x.flags.c_contiguous and table.test is None and table.shape == source.shape
    assert table.y.dtype == np.int64 and sorted(set(table.y)) == list(range(len(source.classes)))
    assert table.classes == source.classes and len(table.features) == features and len(table) == len(table.y)
    assert table.dataset()[0][0].shape == (features,) and table.dataset(flat=False)[0][0].shape == source.shape
    np.testing.assert_array_equal(table.x, data.load(name).x)
    assert data.status(name) and name in repr(table)


def test_made_tables_follow_their_options():
    pytest.importorskip("sklearn")
    clean = data.load("moons", samples=100, noise=0.0, seed=3)
    assert len(clean) == 100 and np.abs(np.hypot(*clean.x[clean.y == 0].T) - 1).max() < 1e-6
    assert (data.load("moons", samples=100, seed=3).x != data.load("moons", samples=100, seed=4).x).any()


@pytest.mark.parametrize("name", FETCHED)
def test_sources_that_are_fetched_can_be_known(name):
    source = data.SOURCES[name]
    assert source.name == name and source.title and len(source.classes) > 1 and sum(source.samples) > 4000
    for file in source.downloads:
        assert all(url.startswith("http") and url.endswith("/" + file.name) for url in file.urls)
        assert any(file.name in names for form in source.forms for names in form)
        if not name.startswith("ecg"):
            assert re.fullmatch("[0-9a-f]{64}", file.sha256) and re.fullmatch("[0-9a-f]{32}", file.md5)
            assert file.size > 4000 and len(file.urls) > 1
    instead = re.search(r"load\('(.*?)'\)", source.alternative)
    assert instead is not None and instead[1] in HELD_OR_MADE
    assert len({f.sha256 or f.name for s in data.SOURCES.values() for f in s.downloads}) == 11


@pytest.mark.parametrize("name", FETCHED)
def test_a_set_that_is_not_here(name, tmp_path):
    assert not data.status(name, tmp_path)
    with pytest.raises(DatasetUnavailable, match="is not on this machine") as caught:
        data.load(name, folder=tmp_path, download=False)
    error, files = caught.value, data.SOURCES[name].downloads
    assert error.files == tuple(f.name for f in files) and error.urls == tuple(u for f in files for u in f.urls)
    text = str(error)
    assert all(part in text for part in (*error.files, error.folder, str(tmp_path), data.SOURCES[name].alternative))
    assert error.where.file == __file__ and len(text.splitlines()) <= 15


def test_names_that_are_no_data_set():
    for name, near in (("MNIST", "mnist"), ("fashion_mnist", "fashion-mnist"), ("digit", "digits")):
        with pytest.raises(ArgumentError, match=rf"no data set '{name}'[\s\S]*Did you mean '{near}'"):
            data.load(name)
    with pytest.raises(ArgumentError, match=r"there are digits, [\s\S]*file\.npz"):
        data.status("qqqq")
    with pytest.raises(ArgumentError, match="no data set 'None'"):
        data.load(None)


def test_a_missing_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DatasetUnavailable, match=r"pip install") as caught:
        data.load("digits")
    assert caught.value.files == () == caught.value.urls
    assert not data.status("digits")


def test_the_room_is_light():
    code = ("import sys, graphjit.data as d; d.status('mnist', '.'); "
            "print([m for m in ('sklearn', 'urllib.request', 'http.client', 'pandas', 'pooch') if m in sys.modules])")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
