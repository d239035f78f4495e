"""What a picture of a graph shows: nodes of short texts, arrows between them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from typing import Literal, NamedTuple

# 'leaf' requires a gradient; 'more' stands for what is not drawn
Kind = Literal["leaf", "constant", "value", "op", "output", "more"]
Edge = tuple[int, int]  # from operand to user, by their places in the list of nodes

WIDEST = 40  # characters of a text


class Node(NamedTuple):
    """A box, its texts side by side. ``about`` is shown under the mouse."""

    kind: Kind
    cells: tuple[str, ...]
    about: str = ""


class Picture(NamedTuple):
    """Nodes, arrows, and a line of text below (or none)."""

    nodes: list[Node]
    edges: list[Edge]
    caption: str = ""


def plain(text: str, widest: int = WIDEST) -> str:
    """A text on one line, of characters every format can hold."""
    kept = "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return kept if len(kept) <= widest else kept[:widest - 1] + "…"


def columns(text: str) -> int:
    """How many columns of a fixed-width font a text takes: two for a wide character, none for a combining one."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def number(x: float | int | bool) -> str:
    """A number in few characters."""
    if not isinstance(x, float) or not math.isfinite(x):
        return str(x)
    return f"{x:.4f}" if x == 0 or 1e-3 <= abs(x) < 1e5 else f"{x:.4g}"


def cycle(count: int, edges: Sequence[Edge]) -> list[int]:
    """The nodes, of ``count``, of a cycle of the arrows; empty if there is none."""
    before: list[list[int]] = [[] for _ in range(count)]
    after: list[list[int]] = [[] for _ in range(count)]
    for a, b in edges:
        before[b].append(a)
        after[a].append(b)
    open_ = [len(operands) for operands in before]
    ready = [i for i in range(count) if not open_[i]]
    for a in ready:  # grows while it is walked
        for b in after[a]:
            open_[b] -= 1
            if not open_[b]:
                ready.append(b)
    if len(ready) == count:
        return []
    path = [next(i for i in range(count) if open_[i])]
    while path.index(path[-1]) == len(path) - 1:  # what is open has an open operand
        path.append(next(a for a in before[path[-1]] if open_[a]))
    return path[path.index(path[-1]):-1]


def caption(drawn: int, all_: int, what: str) -> str:
    """The line below a picture of a part."""
    if drawn == all_:
        return ""
    return f"the {drawn:,} {what} nearest to the result; {all_ - drawn:,} more are not drawn"
