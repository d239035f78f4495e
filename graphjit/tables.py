"""Numbers, places and tables as reports print them."""

from __future__ import annotations

import linecache
from collections.abc import Sequence

from graphjit.errors import Where

LINE = 44  # characters of the user's line that are shown


def amount(n: float) -> str:
    """A number of operations: 512, 57 k, 3.1 M, 12 G."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= 0.9995 * scale:
            return f"{n / scale:.2g} {unit}" if n < 10 * scale else f"{n / scale:.0f} {unit}"
    return f"{n:.0f}"


def size(n: float) -> str:
    """A number of bytes: 512 B, 57 kB, 3.1 MB."""
    text = amount(n)
    return text + ("B" if " " in text else " B")


def microseconds(us: float) -> str:
    return f"{us:.2f}" if us >= 0.1 else f"{us:.2g}"


def place(where: Sequence[Where]) -> str:
    """The user's first line, its text, and how many more lines there are."""
    if not where:
        return ""
    first = min(where, key=lambda w: (w.file != where[0].file, w.line))
    text = " ".join(linecache.getline(first.file, first.line).split())
    if len(text) > LINE:
        text = text[:LINE - 3] + "..."
    more = f" and {len(set(where)) - 1} more" if len(set(where)) > 1 else ""
    return f"{first}  {text}{more}".rstrip()


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[str] = ()) -> list[str]:
    """Lines of a table, its columns as wide as needed; numbers stand at the right."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    return ["   " + "  ".join(cell.ljust(w) if name in left else cell.rjust(w)
                              for name, cell, w in zip(columns, cells, widths, strict=True)).rstrip()
            for cells in (columns, *rows)]
