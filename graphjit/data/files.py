"""Readers of people's own tables: ``.csv`` and ``.npz``."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from graphjit.data.reading import damaged, reading
from graphjit.data.table import Table, make_table
from graphjit.errors import ArgumentError
from graphjit.op import Array

FLOAT32_MAX = float(np.finfo(np.float32).max)
FIX = "Every column but that of the labels holds numbers; fill or leave out what is missing."
NPZ = "It takes 'x' and 'y', or 'x_train' and 'y_train' (with 'x_test' and 'y_test'), and 'classes' if wanted."


def read_csv(path: Path, label: str | int | None = None) -> Table:
    """A CSV file as a Table: a line for each sample, numbers in each column, and a column of labels.

    Args:
        path: UTF-8 text; commas, semicolons or tabs between columns, whichever the first line has most of. The
            first line may name the columns: it does when it is not of numbers like the others.
        label: name or place of the label column; the last one if None.

    Labels are whole numbers or any strings; the classes are the distinct ones in increasing order, and ``y``
    counts in them from 0.

    Raises:
        DataError: a line of another length, a cell that is no finite number (naming line and column), no samples.
        ArgumentError: no such label column.
    """
    with reading(path), open(path, newline="", encoding="utf-8-sig") as stream:
        first = stream.readline()
        stream.seek(0)
        reader = csv.reader(stream, delimiter=max(",;\t", key=first.count), strict=True)
        # line by line: as strings, a large table would take many times its memory
        lines = ((reader.line_num, row) for row in reader if any(cell.strip() for cell in row))
        begin = list(itertools.islice(lines, 2))
        if not begin:
            raise damaged(path, "is empty", FIX)
        width = len(begin[0][1])
        if width < 2:
            raise damaged(path, "has one column: there is nothing to tell the classes by", FIX)
        names = _header([row for _, row in begin], label)
        at = _column(path, label, names, width)
        features = names[:at] + names[at + 1:]
        x, labels = [], []
        for line, row in itertools.chain(begin[1:] if names else begin, lines):
            if len(row) != width:
                raise damaged(path, f"has {len(row)} columns in line {line}, {width} in the first", FIX)
            labels.append(row.pop(at).strip())
            x.append(_numbers(path, line, row, features))
            if not labels[-1]:
                raise damaged(path, f"has no label in line {line}", FIX)
        if not x:
            raise damaged(path, "has names of columns only, no samples", FIX)
        numeric = all(map(_is_number, labels))
        y, classes = _classes(path, np.array([float(text) for text in labels] if numeric else labels))
        return make_table(path.stem, np.stack(x), y, classes, features=features)


def _header(rows: list[list[str]], label: str | int | None) -> list[str]:
    """The names in the first row; [] when it holds a sample."""
    numbers = [[_is_number(cell) for cell in row] for row in rows]
    # a column of numbers under a word has a name; so does one of words beside a column that has
    if isinstance(label, str) or (len(rows) > 1 and any(b and not a for a, b in zip(*numbers, strict=False))):
        return [cell.strip() for cell in rows[0]]
    return []


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _column(path: Path, label: str | int | None, names: list[str], width: int) -> int:
    if isinstance(label, str):
        if label not in names:
            raise ArgumentError(f"{path} has no column {label!r}", detail=(f"columns: {', '.join(names[:20])}",))
        return names.index(label)
    place = -1 if label is None else label
    if not -width <= place < width:
        raise ArgumentError(f"{path} has no column {place}: there are {width}")
    return place % width


def _numbers(path: Path, line: int, row: list[str], names: list[str]) -> Array:
    """The cells of a line as float32."""
    try:
        values = np.fromiter(map(float, row), np.float64, len(row))
    except ValueError:
        values = np.array([np.nan])
    if not (np.abs(values) <= FLOAT32_MAX).all():
        j = next(j for j, cell in enumerate(row) if not (_is_number(cell) and abs(float(cell)) <= FLOAT32_MAX))
        column = repr(names[j]) if names else f"number {j + 1} of the features"
        raise damaged(path, f"has {row[j]!r} in line {line}, column {column}: no finite number", FIX)
    return values.astype(np.float32)


def _classes(path: Path, labels: Array, names: Array | None = None) -> tuple[Array, list[str]]:
    """The class of each label, counted from 0, and the names of the classes."""
    if labels.dtype.kind == "f" and (np.abs(labels) < 2**53).all() and (labels % 1 == 0).all():
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iubSU":
        raise damaged(path, f"has labels like {labels.flat[0]!r}, which are measurements, not classes",
                      "Labels are whole numbers or strings.")
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8")
    if names is not None:
        if names.ndim != 1 or labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= len(names):
            raise damaged(path, f"names {names.size} classes, but its labels are not 0 to {names.size - 1}", NPZ)
        return labels.astype(np.int64), [str(name) for name in names]
    distinct, y = np.unique(labels, return_inverse=True)
    return y.astype(np.int64), [str(value) for value in distinct]


def read_npz(path: Path) -> Table:
    """An NPZ file (``np.savez``) as a Table; what is pickled in it is refused.

    Its arrays: ``x`` (samples, ...) of numbers and ``y`` (samples,) of whole numbers or strings; or ``x_train``
    and ``y_train``, where ``x_test`` and ``y_test`` are for testing; ``classes``, if wanted, their names.

    Samples of several axes keep them as the table's ``shape``. Bytes (uint8) of three or four axes are images: they
    are scaled to 0..1, (height, width) becomes (1, height, width), and channels that come last (1 or 3 of them)
    are moved to the front. Without ``classes`` these are the distinct labels in increasing order.

    Raises:
        DataError: other arrays, lengths that differ, numbers that are not finite, a damaged file.
    """
    with reading(path), open(path, "rb") as stream:
        loaded = np.load(stream, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise damaged(path, "holds one array without a name, not an archive of arrays", NPZ)
        with loaded:
            wanted = ("x", "y", "x_train", "y_train", "x_test", "y_test", "classes")
            arrays: dict[str, Array] = {name: loaded[name] for name in wanted if name in loaded}
            found = sorted(loaded.files)
        training = _pair(path, arrays, "x", "y") or _pair(path, arrays, "x_train", "y_train")
        if training is None:
            raise damaged(path, f"holds {', '.join(found) or 'nothing'}", NPZ)
        test = _pair(path, arrays, "x_test", "y_test")
        x, labels = training
        # together, so that a label means the same class in both
        every = labels if test is None else np.concatenate([labels, test[1]])
        y, classes = _classes(path, every, arrays.get("classes"))
        held_out = None
        if test is not None:
            if test[0].shape[1:] != x.shape[1:]:
                raise damaged(path, f"has training samples of shape {x.shape[1:]}, test samples of shape "
                                    f"{test[0].shape[1:]}", NPZ)
            held_out = make_table(path.stem, test[0].reshape(len(test[0]), -1), y[len(x):], classes, shape=x.shape[1:])
        return make_table(path.stem, x.reshape(len(x), -1), y[:len(x)], classes, shape=x.shape[1:], test=held_out)


def _pair(path: Path, arrays: Mapping[str, Array], x_name: str, y_name: str) -> tuple[Array, Array] | None:
    """Samples, float32 with the channels first, and labels of these names."""
    if x_name not in arrays or y_name not in arrays:
        return None
    x, y = arrays[x_name], arrays[y_name]
    y = y.reshape(len(y)) if y.ndim == 2 and y.shape[1] == 1 else y
    if x.ndim < 2 or y.ndim != 1 or len(x) != len(y) or not x.size:
        raise damaged(path, f"has {x_name} of shape {x.shape} and {y_name} of shape {y.shape}", NPZ)
    if x.dtype.kind not in "fiub":
        raise damaged(path, f"has {x_name} of dtype {x.dtype}, not of numbers", NPZ)
    if x.dtype == np.uint8 and x.ndim in (3, 4):
        if x.ndim == 4 and x.shape[-1] in (1, 3) and x.shape[1] not in (1, 3):
            x = x.transpose(0, 3, 1, 2)
        x = x[:, None] if x.ndim == 3 else x
        x = np.divide(x, 255, dtype=np.float32)
    with np.errstate(over="ignore"):  # what becomes infinite is refused below
        x = x.astype(np.float32, order="C", copy=False)
    if not np.isfinite(x).all():
        raise damaged(path, f"has numbers in {x_name} that float32 does not hold, or that are not finite", FIX)
    return x, y
