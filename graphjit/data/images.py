"""Readers of image files: IDX (MNIST and its relatives) and the binary batches of CIFAR-10.

Formats: IDX, Y. LeCun et al., "The MNIST database of handwritten digits"; CIFAR-10 binary version,
A. Krizhevsky, "Learning multiple layers of features from tiny images" (2009).
"""

from __future__ import annotations

import gzip
import math
import struct
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from graphjit.data.catalog import Source
from graphjit.data.reading import BLOCK, Stream, damaged, exactly, reading
from graphjit.data.table import Table, make_table
from graphjit.op import Array

LUMA = (0.299, 0.587, 0.114)  # weights of red, green, blue: ITU-R BT.601
SIDE = 28
RECORD = 1 + 3 * 32 * 32  # a label, then the red, the green and the blue plane, row by row
BATCH_LIMIT = 10_000 * RECORD  # bytes of a batch; more is no CIFAR-10 file
GREY_BLOCK = 1000  # images made grey at a time: bounds the memory in between

# files of these sets have the same names: what their labels begin with tells them apart
FIRST_LABELS = {
    "mnist": ((5, 0, 4, 1, 9, 2, 1, 3, 1, 4), (7, 2, 1, 0, 4, 1, 4, 9, 5, 9)),
    "fashion-mnist": ((9, 0, 0, 3, 0, 2, 7, 2, 5, 5), (9, 2, 1, 1, 6, 1, 4, 6, 5, 7)),
}


def read_idx(path: Path, axes: int) -> Array:
    """The bytes of an IDX file, gzipped or not, as an array uint8 of so many axes.

    Raises:
        DataError: another format or type, other axes, cut off, damaged, or too long.
    """
    with reading(path), _open(path) as stream:
        head = stream.read(4 + 4 * axes)
        if len(head) < 4 or head[:2] != b"\0\0":
            raise damaged(path, f"is not an IDX file: it begins with {head[:4].hex(' ') or 'nothing'}")
        if head[2] != 8 or head[3] != axes:
            raise damaged(path, f"holds IDX type 0x{head[2]:02x} of {head[3]} axes, not bytes of {axes} axes")
        if len(head) < 4 + 4 * axes:
            raise damaged(path, "is cut off within its header")
        shape = struct.unpack(f">{axes}I", head[4:])
        return np.frombuffer(exactly(stream, math.prod(shape), path), np.uint8).reshape(shape)


def _open(path: Path) -> Stream:
    with open(path, "rb") as stream:
        zipped = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if zipped else open(path, "rb")


def read_mnist(source: Source, paths: Sequence[Path]) -> Table:
    """Training images and labels, test images and labels, in this order, as a Table."""
    test = _images(source, paths[2], paths[3])
    return _images(source, paths[0], paths[1], test)


def _images(source: Source, images: Path, labels: Path, test: Table | None = None) -> Table:
    pixels, y = read_idx(images, 3), read_idx(labels, 1)
    if pixels.shape[1:] != (SIDE, SIDE):
        raise damaged(images, f"holds images of {pixels.shape[1]} x {pixels.shape[2]}, not of {SIDE} x {SIDE} pixels")
    if len(pixels) != len(y) or not len(y):
        raise damaged(labels, f"holds {len(y)} labels, for {len(pixels)} images in {images.name}")
    _check_labels(y, labels)
    first = tuple(y[:10].tolist())
    for name, beginnings in FIRST_LABELS.items():
        if name != source.name and first in beginnings:
            raise damaged(labels, f"is of {name!r}, not of {source.name!r}",
                          "The files of both have the same names: keep them in folders of their own.")
    x = np.divide(pixels.reshape(len(pixels), -1), 255, dtype=np.float32)
    return make_table(source.name, x, y, source.classes, shape=source.shape, test=test)


def _check_labels(y: Array, path: Path) -> None:
    if y.max() > 9:
        raise damaged(path, f"has a label {y.max()}; there are classes 0 to 9")


def read_cifar10(source: Source, paths: Sequence[Path], grey: bool) -> Table:
    """Five training batches and a test batch, or the archive that holds them, as a Table.

    Args:
        source: names and classes.
        paths: the six files in order, or the one ``.tar.gz``, which is read member by member: nothing is
            unpacked to disk.
        grey: luma instead of the three colours, 1024 features instead of 3072.
    """
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    batches = _members(paths[0], names) if len(paths) == 1 else [_batch(path) for path in paths]
    for i, batch in enumerate(batches):
        _check_labels(batch[:, 0], paths[i % len(paths)])
    shape = (1, 32, 32) if grey else (3, 32, 32)

    def table(parts: list[Array], test: Table | None = None) -> Table:
        y = np.concatenate([part[:, 0] for part in parts])
        x = np.empty((len(y), math.prod(shape)), np.float32)
        start = 0
        for part in parts:
            _pixels(part[:, 1:], grey, x[start:start + len(part)])
            start += len(part)
        return make_table(source.name, x, y, source.classes, shape=shape, test=test)

    return table(batches[:5], table(batches[5:]))


def _batch(path: Path) -> Array:
    with reading(path), open(path, "rb") as stream:
        return _records(stream.read(BATCH_LIMIT + 1), path)


def _members(path: Path, names: Sequence[str]) -> list[Array]:
    found: dict[str, Array] = {}
    with reading(path), gzip.open(path) as unzipped, tarfile.open(fileobj=unzipped, mode="r:") as archive:
        for member in archive:
            name = member.name.rpartition("/")[2]
            # regular files only: a link could name any file of this machine
            if name not in names or name in found or not member.isreg():
                continue
            what = f"holds a {name} that is"
            _check_size(member.size, path, what)
            stream = archive.extractfile(member)
            found[name] = _records(stream.read() if stream else b"", path, what)
        while unzipped.read(BLOCK):  # only at its end a gzip file says whether what came out is right
            pass
        missing = [name for name in names if name not in found]
        if missing:
            raise damaged(path, f"lacks {', '.join(missing)}")
    return [found[name] for name in names]


def _records(data: bytes, path: Path, what: str = "is") -> Array:
    _check_size(len(data), path, what)
    return np.frombuffer(data, np.uint8).reshape(-1, RECORD)


def _check_size(size: int, path: Path, what: str) -> None:
    if not size or size % RECORD or size > BATCH_LIMIT:
        more = " or more" if size > BATCH_LIMIT else ""  # of a file only so much is read
        raise damaged(path, f"{what} no batch of CIFAR-10: {size} bytes{more}, not {RECORD} for each of 1 to 10000 "
                            "images")


def _pixels(planes: Array, grey: bool, out: Array) -> None:
    """Write pixels 0..255 (n, 3072) as float32 0..1 to ``out``, (n, 3072) or (n, 1024)."""
    if not grey:
        np.divide(planes, 255, out=out, dtype=np.float32)
        return
    weights = [np.float32(w / 255) for w in LUMA]
    for start in range(0, len(planes), GREY_BLOCK):
        red, green, blue = planes[start:start + GREY_BLOCK].reshape(-1, 3, 1024).transpose(1, 0, 2)
        luma = red * weights[0] + green * weights[1] + blue * weights[2]
        np.minimum(luma, 1, out=out[start:start + GREY_BLOCK])  # rounding may lift white above 1
