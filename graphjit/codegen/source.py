"""Writing loop nests: bodies that hold statements, each value in the outermost body where it is known."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence

import numpy as np

from graphjit.ir import Apply, Const
from graphjit.op import Reduction
from graphjit.types import DType

INDENT = "    "
DIVISIONS = "floor_divide", "remainder"
LITERALS = frozenset({-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0})

ROW_BLOCK = 2048     # float32 sums along a row are added up in float64 every so many elements
COLUMN_BLOCK = 32    # and along a column every so many rows

START = {"sum": 0.0, "prod": 1.0, "any": 0.0, "all": 1.0}
FOLD = {"sum": "radd({0}, {1})", "prod": "rmul({0}, {1})", "max": "rmax({0}, {1})", "min": "rmin({0}, {1})",
        "any": "bit_or({0}, {1})", "all": "bit_and({0}, {1})"}


class Body:
    """Statements inside some loops; ``axes`` are those whose indices are known here."""

    def __init__(self, axes: frozenset[int], parent: Body | None = None) -> None:
        self.axes = axes
        self.parent = parent
        self.lines: list[str] = []
        self.known: dict[Hashable, str] = {}
        self.stores: list[tuple[Body, str]] = []  # written once every value of this body has been read

    def flush(self) -> None:
        """Emit the pending stores."""
        for home, line in self.stores:
            home.lines.append(line)
        self.stores.clear()

    def find(self, key: Hashable) -> str | None:
        body: Body | None = self
        while body is not None:
            if key in body.known:
                return body.known[key]
            body = body.parent
        return None

    def home(self, axes: frozenset[int]) -> Body:
        """The outermost body that knows these axes."""
        body = self
        while body.parent is not None and axes <= body.parent.axes:
            body = body.parent
        return body

    def add(self, line: str, comment: str = "") -> None:
        self.lines.append(f"{line}  # {comment}" if comment else line)

    def nest(self, headers: Sequence[str], inner: Sequence[str]) -> None:
        """Put lines inside nested loop headers at the end of this body; a header may be of several lines."""
        headers = [line for each in headers for line in each.split("\n")]
        for depth, header in enumerate(headers):
            self.lines.append(INDENT * depth + header)
        pad = INDENT * len(headers)
        self.lines.extend(pad + line for line in (inner or ["pass"]))


@functools.cache
def short(dtype: DType) -> str:
    """The cast function of a dtype: f32, i64, b1, ..."""
    return "b1" if dtype.kind == "b" else f"{dtype.kind}{dtype.itemsize * 8}"


@functools.cache
def stored_name(dtype: DType) -> str:
    """The dtype of a buffer's elements in a kernel's signature: bools are bytes."""
    return "uint8" if dtype.kind == "b" else dtype.name


def load(pointer: str, index: str, dtype: DType) -> str:
    return f"b1({pointer}[{index}])" if dtype.kind == "b" else f"{pointer}[{index}]"


def store(pointer: str, index: str, value: str, dtype: DType) -> str:
    return f"{pointer}[{index}] = " + (f"u8({value})" if dtype.kind == "b" else value)


def is_literal(node: Const, reader: Apply, k: int) -> bool:
    """Whether a scalar constant, a reader's operand k, stands in the source; others are arguments, so that kernels are
    shared. Integers are divided by a known number several times as fast."""
    if node.value.dtype.kind == "b":
        return True
    if k == 1 and node.value.dtype.kind in "iu" and reader.op.name in DIVISIONS:
        return not node.opaque
    value = float(node.value)
    return not node.opaque and value in LITERALS and not (value == 0.0 and bool(np.signbit(value)))


def literal(value: object, dtype: DType) -> str:
    if dtype.kind == "b":
        return f"b1({int(bool(value))})"
    if dtype.kind == "f":
        number = float(value)  # type: ignore[arg-type]  # a number
        text = "-1e999" if number == -np.inf else "1e999" if number == np.inf else repr(number)
        return f"{short(dtype)}({text})"
    return f"{short(dtype)}({int(value)})"  # type: ignore[call-overload]  # a number


def fold_kind(node: Apply) -> str:
    assert isinstance(node.op.lower, Reduction)
    return node.op.lower.kind


def start_of(kind: str, dtype: DType) -> str:
    """The value a fold starts from."""
    if kind in START:
        return literal(START[kind], dtype)
    if dtype.kind == "f":
        return literal(-np.inf if kind == "max" else np.inf, dtype)
    if dtype.kind == "b":
        return literal(kind == "min", dtype)
    info = np.iinfo(dtype)
    return literal(info.min if kind == "max" else info.max, dtype)
