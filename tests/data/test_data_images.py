"""IDX files and CIFAR-10 batches, written here byte by byte, read as tables."""

import gzip
import tarfile

import numpy as np
import pytest
from true_formats import (
    CIFAR,
    cifar_archive,
    cifar_arrays,
    cifar_batch,
    idx,
    mnist_arrays,
    tar_gz,
    write_mnist,
)

from graphjit import data
from graphjit.data.images import read_idx
from graphjit.errors import DataError, DatasetUnavailable, GraphjitError


@pytest.mark.parametrize("layout, zipped, dotted", [
    ("", True, False), ("", False, False), ("", False, True), ("MNIST/raw", False, False), ("raw", True, False)])
def test_mnist_from_the_usual_places(tmp_path, layout, zipped, dotted):
    images, labels, test_images, test_labels = mnist_arrays()
    write_mnist(tmp_path / layout, [images, labels, test_images, test_labels], zipped, dotted)
    table = data.load("mnist", folder=tmp_path)
    assert table.name == "mnist" and table.shape == (1, 28, 28) and table.x.shape == (12, 784)
    assert table.x.dtype == np.float32 and table.y.dtype == np.int64 and len(table.classes) == 10
    np.testing.assert_array_equal(table.images()[:, 0], images.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(table.y, labels)
    np.testing.assert_array_equal(table.test.x, (test_images / np.float32(255)).reshape(5, -1).astype(np.float32))
    np.testing.assert_array_equal(table.test.y, test_labels)
    assert table.test.test is None and table.x.min() >= 0 and table.x.max() <= 1
    x, y = table.dataset(flat=False)[3]
    assert x.shape == (1, 28, 28) and y == labels[3] and table.dataset()[3][0].shape == (784,)


def test_mnist_and_fashion_mnist_lie_side_by_side(tmp_path):
    write_mnist(tmp_path / "MNIST/raw", mnist_arrays(1))
    write_mnist(tmp_path / "FashionMNIST/raw", mnist_arrays(2))
    first, second = data.load("mnist", folder=tmp_path), data.load("fashion-mnist", folder=tmp_path)
    np.testing.assert_array_equal(second.y, mnist_arrays(2)[1])
    assert first.classes[9] == "9" and second.classes[9] == "ankle boot" and (first.y != second.y).any()


@pytest.mark.parametrize("name, other, part, labels", [
    ("mnist", "fashion-mnist", 1, [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]),
    ("fashion-mnist", "mnist", 3, [7, 2, 1, 0, 4, 1, 4, 9, 5, 9])])
def test_one_set_is_not_taken_for_the_other(tmp_path, name, other, part, labels):
    arrays = mnist_arrays(training=20, test=20)
    arrays[part][:10] = labels
    paths = write_mnist(tmp_path, arrays)
    with pytest.raises(DataError, match=f"is of '{other}', not of '{name}'") as caught:
        data.load(name, folder=tmp_path)
    assert caught.value.path == str(paths[part])
    assert len(data.load(other, folder=tmp_path)) == 20


def test_files_of_two_places_are_not_mixed(tmp_path):
    for path in write_mnist(tmp_path / "mnist", mnist_arrays(1))[:2]:
        path.unlink()
    write_mnist(tmp_path, mnist_arrays(2))
    np.testing.assert_array_equal(data.load("mnist", folder=tmp_path).test.y, mnist_arrays(2)[3])
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DatasetUnavailable):
        data.load("mnist", folder=tmp_path, download=False)


GOOD = idx(np.arange(6).reshape(2, 3))


@pytest.mark.parametrize("content, problem", [
    (b"", "not an IDX file: it begins with nothing"),
    (b"<html>not found</html>", "not an IDX file"),
    (GOOD[:9], "cut off within its header"),
    (GOOD[:-1], "cut off: 5 bytes of data, its header promises 6"),
    (GOOD + b"\0", "goes on after the 6 bytes"),
    (b"\0\0\x0d" + GOOD[3:], "type 0x0d of 2 axes, not bytes of 2 axes"),
    (idx(np.arange(3)), "of 1 axes, not bytes of 2 axes"),
    (bytes([0, 0, 8, 2]) + b"\xff" * 8 + b"abc", "cut off: 3 bytes of data"),
    (gzip.compress(GOOD, mtime=0)[:-3], "cannot be read"),
    (gzip.compress(GOOD, mtime=0)[:-6] + b"\0" * 6, "cannot be read.*CRC"),
    (gzip.compress(GOOD, mtime=0)[:10] + b"\xff" * 20, "cannot be read"),
])
def test_what_is_no_idx_file(tmp_path, content, problem):
    path = tmp_path / "some-idx2-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError, match=problem) as caught:
        read_idx(path, 2)
    assert str(path) in str(caught.value) and caught.value.path == str(path)
    path.write_bytes(gzip.compress(GOOD, mtime=0))
    assert read_idx(path, 2).tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("part, array, problem", [
    (0, np.zeros((12, 8, 8)), "images of 8 x 8, not of 28 x 28"),
    (1, np.zeros(11), "11 labels, for 12 images"),
    (1, np.full(12, 10), "label 10"),
    (2, np.zeros((0, 28, 28)), "5 labels, for 0 images")])
def test_images_and_labels_that_do_not_fit(tmp_path, part, array, problem):
    arrays = mnist_arrays()
    arrays[part] = array
    write_mnist(tmp_path, arrays, zipped=True)
    with pytest.raises(DataError, match=problem):
        data.load("mnist", folder=tmp_path)


def write_cifar(folder, arrays, form):
    if form == "archive":
        (folder / "cifar-10-binary.tar.gz").write_bytes(cifar_archive(arrays))
        return
    folder = folder / form
    folder.mkdir(parents=True, exist_ok=True)
    for name, batch in zip(CIFAR, arrays, strict=True):
        (folder / name).write_bytes(cifar_batch(*batch))


@pytest.mark.parametrize("form", ["archive", "cifar-10-batches-bin", ""])
def test_cifar10(tmp_path, form):
    arrays = cifar_arrays()
    write_cifar(tmp_path, arrays, form)
    table = data.load("cifar10", folder=tmp_path)
    pixels = np.concatenate([x for _, x in arrays]).astype(np.float32)
    labels = np.concatenate([y for y, _ in arrays])
    assert table.shape == (3, 32, 32) and table.classes[0] == "airplane" and len(table) == 15
    np.testing.assert_array_equal(table.images(), pixels[:15] / np.float32(255))
    np.testing.assert_array_equal(table.test.images(), pixels[15:] / np.float32(255))
    np.testing.assert_array_equal(np.concatenate([table.y, table.test.y]), labels)


def test_cifar10_in_grey(tmp_path):
    arrays = cifar_arrays(each=4)
    arrays[0][1][0] = 255
    arrays[5][1][1] = 0
    write_cifar(tmp_path, arrays, "archive")
    table = data.load("cifar10", folder=tmp_path, grey=True)
    r, g, b = np.concatenate([x for _, x in arrays]).transpose(1, 0, 2, 3)
    luma = (0.299 * r + 0.587 * g + 0.114 * b) / 255
    assert table.shape == table.test.shape == (1, 32, 32) and table.x.shape == (20, 1024)
    np.testing.assert_allclose(table.images()[:, 0], luma[:20], atol=1e-6)
    np.testing.assert_allclose(table.test.images()[:, 0], luma[20:], atol=1e-6)
    assert table.x.max() <= 1 and table.test.x[1].max() == 0


def test_grey_blocks_do_not_overlap(tmp_path, monkeypatch):
    write_cifar(tmp_path, cifar_arrays(each=5), "archive")
    whole = data.load("cifar10", folder=tmp_path, grey=True).x
    monkeypatch.setattr("graphjit.data.images.GREY_BLOCK", 2)
    np.testing.assert_array_equal(data.load("cifar10", folder=tmp_path, grey=True).x, whole)


def test_members_that_reach_out_of_the_archive_are_not_followed(tmp_path):
    arrays = cifar_arrays()
    secret = tmp_path / "secret"
    secret.write_bytes(cifar_batch(*arrays[0]))
    link = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
    link.type, link.linkname = tarfile.SYMTYPE, str(secret)
    members = {f"../../{name}": cifar_batch(*a) for name, a in zip(CIFAR[1:], arrays[1:], strict=True)}
    folder = tmp_path / "inner" / "data"
    folder.mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    (folder / "cifar-10-binary.tar.gz").write_bytes(tar_gz({"link": link, **members}))
    with pytest.raises(DataError, match=r"lacks data_batch_1\.bin\n"):
        data.load("cifar10", folder=folder)
    assert set(tmp_path.rglob("*")) - set(before) == {folder / "cifar-10-binary.tar.gz"}


@pytest.mark.parametrize("damage, problem", [
    (lambda b: b[:-1], "9218 bytes, not 3073 for each"),
    (lambda b: b"", "0 bytes, not 3073"),
    (lambda b: bytes([10]) + b[1:], "label 10"),
    (lambda b: b * 3334, "not 3073 for each of 1 to 10000")])
def test_damaged_batches(tmp_path, damage, problem):
    write_cifar(tmp_path, cifar_arrays(), "")
    path = tmp_path / "data_batch_2.bin"
    batch = damage(path.read_bytes())
    path.write_bytes(batch)
    with pytest.raises(DataError, match=problem) as caught:
        data.load("cifar10", folder=tmp_path)
    assert caught.value.path == str(path)
    archive = tmp_path / "archive" / "cifar-10-binary.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(tar_gz({name: (tmp_path / name).read_bytes() for name in CIFAR}))
    with pytest.raises(DataError, match=problem):
        data.load("cifar10", folder=archive.parent)


def test_mutated_archives_are_read_rightly_or_refused(tmp_path):
    good = cifar_archive(cifar_arrays(each=1))
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(good)
    right = data.load("cifar10", folder=tmp_path)
    rng, refused = np.random.default_rng(0), 0
    for trial in range(60):
        bad = bytearray(good)
        if trial % 3 == 0:
            del bad[int(rng.integers(len(bad))):]
        else:
            bad[int(rng.integers(len(bad)))] ^= int(rng.integers(1, 256))
        path.write_bytes(bad)
        try:
            table = data.load("cifar10", folder=tmp_path)
        except GraphjitError as error:
            refused += 1
            assert str(path) in str(error)
        else:
            np.testing.assert_array_equal(table.x, right.x)
    assert refused > 50


def test_pickles_are_not_read(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(DatasetUnavailable, match=r"unread  .*cifar-10-batches-py: pickles"):
        data.load("cifar10", folder=tmp_path, download=False)
