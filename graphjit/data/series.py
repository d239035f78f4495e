"""Readers of series: the text and ``.ts`` files of the UCR archive, and a CSV copy of ECG5000.

Formats: H. A. Dau et al., "The UCR time series archive" (2018); for ``.ts``, the aeon toolkit's specification.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from graphjit.data.catalog import Source
from graphjit.data.reading import damaged, reading
from graphjit.data.table import Table, make_table
from graphjit.op import Array

TEXT_LIMIT = 1 << 26  # bytes of a text file; ECG5000's have 10 MB
KINDS = (".txt", ".tsv", ".ts")


def read_ecg5000(source: Source, paths: Sequence[Path]) -> Table:
    """Training and test file, or the ``.zip`` that holds them, as a Table.

    The text format: a class 1-5 and 140 values a line, with white space between. ``.ts``: lines that begin with
    ``@`` or ``#``, then 140 values with commas between, a colon and the class, a line.
    """
    if len(paths) == 1:
        training, test = _members(paths[0])
        where = paths[0], paths[0]
    else:
        training, test = _text(paths[0]), _text(paths[1])
        where = paths[0], paths[1]
    return _ecg5000(source, training, where[0], _ecg5000(source, test, where[1]))


def _ecg5000(source: Source, text: str, path: Path, test: Table | None = None) -> Table:
    with reading(path):
        rows = _ts_rows(text, path) if text.lstrip()[:1] in ("@", "#") else _rows(text, path)
        return _series(source, rows[:, 1:], rows[:, 0] - 1, path, test)


def read_ecg_csv(source: Source, paths: Sequence[Path]) -> Table:
    """A CSV file of 140 values and a label 0 or 1 a line, without a header, as a Table."""
    [path] = paths
    with reading(path):
        rows = _rows(_text(path), path, ",")
        return _series(source, rows[:, :-1], rows[:, -1], path)


def _series(source: Source, x: Array, y: Array, path: Path, test: Table | None = None) -> Table:
    length, classes = source.shape[-1], len(source.classes)
    if x.shape[1] != length:
        raise damaged(path, f"has lines of {x.shape[1] + 1} numbers, not of {length} and a class")
    if not np.isfinite(x).all():
        raise damaged(path, "has values that are no finite numbers")
    if not np.isin(y, range(classes)).all():
        raise damaged(path, f"has labels that are none of its {classes} classes")
    return make_table(source.name, x, y, source.classes, shape=source.shape, test=test)


def _rows(text: str, path: Path, delimiter: str | None = None) -> Array:
    """The numbers of a text, float64 (lines, numbers a line)."""
    if not text.strip():
        raise damaged(path, "is empty")
    return np.loadtxt(io.StringIO(text), np.float64, comments=None, delimiter=delimiter, ndmin=2)


def _ts_rows(text: str, path: Path) -> Array:
    """The rows of a ``.ts`` file, its class in front."""
    head, mark, body = text.partition("@data")
    if not mark:
        raise damaged(path, "is cut off: it has no @data line")
    if "@classlabel true" not in " ".join(head.lower().split()):
        raise damaged(path, "does not say that it has class labels")
    lines = []
    for line in body.splitlines():
        values, colon, label = line.strip().rpartition(":")
        if colon and ":" in values:
            raise damaged(path, "has series of more than one dimension")
        if line.strip():
            lines.append(f"{label},{values}")
    return _rows("\n".join(lines), path, ",")


def _text(path: Path) -> str:
    with reading(path), open(path, "rb") as stream:
        data = stream.read(TEXT_LIMIT + 1)
        if len(data) > TEXT_LIMIT:
            raise damaged(path, f"has more than {TEXT_LIMIT} bytes")
        return data.decode("utf-8-sig")


def _members(path: Path) -> list[str]:
    """The texts of training and test file, read where they are: nothing is unpacked to disk."""
    texts = []
    with reading(path), zipfile.ZipFile(path) as archive:
        members = {info.filename.rpartition("/")[2].lower(): info for info in archive.infolist()}
        for part in ("train", "test"):
            found = [members[name] for kind in KINDS if (name := f"ecg5000_{part}{kind}") in members]
            if not found:
                raise damaged(path, f"lacks ECG5000_{part.upper()}.txt (or .tsv, .ts)")
            if found[0].file_size > TEXT_LIMIT:
                raise damaged(path, f"holds a {found[0].filename} of more than {TEXT_LIMIT} bytes")
            texts.append(archive.read(found[0]).decode("utf-8-sig"))
    return texts
