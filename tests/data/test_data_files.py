"""People's own CSV and NPZ files."""

import io
import pickle

import numpy as np
import pytest
from true_formats import zipped

from graphjit import data
from graphjit.errors import ArgumentError, DataError, DatasetUnavailable, GraphjitError

TABLE = "length,width,kind\n1.5,2,rose\n2.5,-3e2,aster\n 3.5 , 4,rose\n"


def write(folder, text, name="plants.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("text", [
    TABLE, TABLE.replace(",", ";"), TABLE.replace(",", "\t"), "\ufeff" + TABLE, TABLE.replace("\n", "\r\n"),
    TABLE.rstrip(), TABLE.replace("rose", '"rose"'), TABLE.replace("\n", "\n\n")])
def test_a_csv_file_with_names(tmp_path, text):
    table = data.load(write(tmp_path, text))
    assert table.x.tolist() == [[1.5, 2.0], [2.5, -300.0], [3.5, 4.0]] and table.x.dtype == np.float32
    assert table.y.tolist() == [1, 0, 1] and table.y.dtype == np.int64
    assert (table.name, table.classes, table.features) == ("plants", ("aster", "rose"), ("length", "width"))
    assert table.shape == (2,) and table.test is None


def test_the_column_of_labels(tmp_path):
    path = write(tmp_path, "id,a,b\n10,1,2\n9,3,4\n10,5,6\n")
    assert data.load(path).classes == ("2", "4", "6")
    for label in ("id", 0, -3):
        table = data.load(str(path), label=label)
        assert table.classes == ("9", "10") and table.y.tolist() == [1, 0, 1] and table.features == ("a", "b")
        assert table.x.tolist() == [[1, 2], [3, 4], [5, 6]]
    with pytest.raises(ArgumentError, match=r"no column 'c'[\s\S]*id, a, b"):
        data.load(path, label="c")
    for label in (3, -4):
        with pytest.raises(ArgumentError, match="there are 3"):
            data.load(path, label=label)


def test_a_csv_file_without_names(tmp_path):
    table = data.load(write(tmp_path, "1,2,5.0\n3,4,-1\n5,6,5\n"))
    assert table.features == () and table.classes == ("-1", "5") and table.y.tolist() == [1, 0, 1]
    table = data.load(write(tmp_path, "1,2,yes\n3,4,no\n"))
    assert len(table) == 2 and table.classes == ("no", "yes")
    table = data.load(write(tmp_path, "0,1,label\n3,4,1\n5,6,0\n"))
    assert len(table) == 2 and table.classes == ("0", "1") and table.features == ("0", "1")
    assert len(data.load(write(tmp_path, "1,2,yes\n"))) == 1


@pytest.mark.parametrize("text, problem", [
    ("", "is empty"), ("\n \n", "is empty"), ("a\n1\n", "one column"),
    ("a,b,c\n1,2\n", "2 columns in line 2, 3 in the first"), ("1,2,0\n1,2,3,0\n", "4 columns in line 2"),
    ("a,b,c\n1,,x\n", "'' in line 2, column 'b'"), ("a,b,c\n1,2,x\n1,red,x\n", "'red' in line 3, column 'b'"),
    ("1,2,x\n1,nan,x\n", "'nan' in line 2, column number 2 of the features"), ("a,b\n1e39,x\n", "'1e39' in line 2"),
    ("a,b\ninf,x\n", "'inf' in line 2, column 'a'"), ("a,b,c\n1,2,\n", "no label in line 2"),
    ("a,b\n1,0.5\n2,1.5\n", "measurements, not classes"), ("a,b\n1,nan\n2,1\n", "measurements, not classes"),
    (b"a,b\n\xff\xfe,1\n", "cannot be read"), ('a,b\n"1,2\n', "cannot be read"),
    ("a,b\n1\0,2\n", "cannot be|no finite"),
])
def test_what_is_no_table(tmp_path, text, problem):
    path = write(tmp_path, text)
    with pytest.raises(DataError, match=problem) as caught:
        data.load(path)
    assert str(path) in str(caught.value)


def test_names_alone_are_no_table(tmp_path):
    with pytest.raises(DataError, match="names of columns only"):
        data.load(write(tmp_path, "a,b,c\n"), label="c")


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_an_npz_file(tmp_path):
    x, y = np.arange(12.0).reshape(4, 3), np.array([7, 3, 7, 5])
    table = data.load(save(tmp_path / "mine.npz", x=x, y=y))
    assert table.x.tolist() == x.tolist() and table.x.dtype == np.float32 and table.name == "mine"
    assert table.classes == ("3", "5", "7") and table.y.tolist() == [2, 0, 2, 1] and table.shape == (3,)
    table = data.load(save(tmp_path / "mine.npz", x_train=x, y_train=np.array(list("abca")), x_test=x[:1],
                           y_test=np.array(["d"])))
    assert table.classes == ("a", "b", "c", "d") and table.test.y.tolist() == [3] and len(table.test) == 1
    table = data.load(save(tmp_path / "mine.npz", x=x, y=y - 3, classes=np.array(["p", "q", "r", "s", "t"])))
    assert table.classes == ("p", "q", "r", "s", "t") and table.y.tolist() == [4, 0, 4, 2]
    for labels in ([True, False, True, True], [1.0, 0.0, 1.0, 1.0], [b"y", b"n", b"y", b"y"]):
        assert data.load(save(tmp_path / "mine.npz", x=x, y=np.array(labels))).y.tolist() == [1, 0, 1, 1]


def test_images_and_series_in_an_npz_file(tmp_path):
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (4, 5, 6), dtype=np.uint8)
    colour = rng.integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    y = np.array([[0], [1], [0], [1]])
    table = data.load(save(tmp_path / "a.npz", x_train=grey, y_train=y, x_test=grey[:2], y_test=y[:2]))
    assert table.shape == (1, 5, 6) == table.test.shape and table.y.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(table.images()[:, 0], grey / np.float32(255))
    table = data.load(save(tmp_path / "a.npz", x=colour, y=y))
    assert table.shape == (3, 5, 6)
    np.testing.assert_array_equal(table.images(), colour.transpose(0, 3, 1, 2) / np.float32(255))
    assert data.load(save(tmp_path / "a.npz", x=colour.transpose(0, 3, 1, 2), y=y)).shape == (3, 5, 6)
    series = rng.normal(size=(4, 2, 9))
    table = data.load(save(tmp_path / "a.npz", x=series, y=y))
    assert table.shape == (2, 9) and table.x.shape == (4, 18)
    np.testing.assert_array_equal(table.images(), series.astype(np.float32))


X, Y = np.zeros((3, 2)), np.array([0, 1, 0])


@pytest.mark.parametrize("arrays, problem", [
    ({}, "holds nothing"), ({"a": X, "b": Y}, "holds a, b"), ({"x": X}, "holds x"),
    ({"x": X, "y": Y[:2]}, r"x of shape \(3, 2\) and y of shape \(2,\)"), ({"x": Y, "y": Y}, "x of shape"),
    ({"x": X[:0], "y": Y[:0]}, "x of shape"), ({"x": np.full((3, 2), "a"), "y": Y}, "not of numbers"),
    ({"x": X + 1j, "y": Y}, "not of numbers"), ({"x": X * np.nan, "y": Y}, "not finite"),
    ({"x": X + 1e39, "y": Y}, "float32 does not hold"), ({"x": X, "y": Y + 0.5}, "measurements, not classes"),
    ({"x": X, "y": Y, "classes": np.array(["a"])}, "names 1 classes"),
    ({"x": X, "y": Y - 1, "classes": np.array(["a", "b"])}, "not 0 to 1"),
    ({"x": X, "y": Y, "classes": np.array("a")}, "names 1 classes"),
    ({"x_train": X, "y_train": Y, "x_test": X[:, :1], "y_test": Y}, r"test samples of shape \(1,\)"),
])
def test_npz_files_of_something_else(tmp_path, arrays, problem):
    path = save(tmp_path / "some.npz", **arrays)
    with pytest.raises(DataError, match=problem) as caught:
        data.load(path)
    assert caught.value.path == str(path)


class Trap:
    def __reduce__(self):
        return pytest.fail, ("unpickled",)


def test_nothing_is_unpickled(tmp_path):
    trap = np.array([Trap(), Trap(), Trap()], dtype=object)
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, trap, allow_pickle=True)
    for content in (zipped({"x.npy": buffer.getvalue(), "y.npy": buffer.getvalue()}), pickle.dumps(Trap()),
                    buffer.getvalue()):
        with pytest.raises(DataError, match=r"cannot be read|not an archive") as caught:
            data.load(write(tmp_path, content, "trap.npz"))
        assert caught.value.where.file == __file__
    np.save(tmp_path / "one.npy", X)
    with pytest.raises(DataError, match="one array without a name"):
        data.load((tmp_path / "one.npy").rename(tmp_path / "one.npz"))


def test_mutated_npz_files_are_read_or_refused(tmp_path):
    path = save(tmp_path / "mine.npz", x=np.arange(12.0).reshape(4, 3), y=np.array([1, 2, 3, 1]))
    good, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    for trial in range(150):
        bad = bytearray(good)
        if trial % 3 == 0:
            del bad[int(rng.integers(len(bad))):]
        else:
            bad[int(rng.integers(len(bad)))] ^= int(rng.integers(1, 256))
        path.write_bytes(bad)
        try:
            table = data.load(path)
        except GraphjitError as error:
            refused += 1
            assert str(path) in str(error)
        else:
            assert table.x.tolist() == np.arange(12.0).reshape(4, 3).tolist()
    assert refused > 75


def test_where_files_are_looked_for(tmp_path, monkeypatch):
    here, named, other = tmp_path / "here", tmp_path / "named", tmp_path / "other"
    for i, folder in enumerate((other, named, here)):
        folder.mkdir()
        write(folder, f"a,b\n{i},x\n", "t.csv")
    monkeypatch.chdir(here)
    monkeypatch.setenv("GRAPHJIT_DATA", str(other))
    for expected in (2.0, 1.0, 0.0):
        table = data.load("t.csv", folder=named)
        assert table.x[0, 0] == expected and data.status("t.csv", named)
        ({2.0: here, 1.0: named, 0.0: other}[expected] / "t.csv").unlink()
    assert not data.status("t.csv", named)
    with pytest.raises(DatasetUnavailable, match=r"no file t\.csv") as caught:
        data.load("t.csv", folder=named)
    assert all(str(folder) in str(caught.value) for folder in (here, named, other))
    assert caught.value.files == ("t.csv",) and isinstance(caught.value, FileNotFoundError)
    with pytest.raises(ArgumentError, match="no folder 'nowhere'"):
        data.load("t.csv", folder="nowhere")
    for name in ("digits", "other.npz"):
        with pytest.raises(ArgumentError, match="label="):
            data.load(name, label="a")
