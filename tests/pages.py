"""Runs the Python blocks of a Markdown page in order, in one namespace: ``python tests/pages.py PAGE`` prints JSON.

Each block is compiled with the page's name and its own line numbers, so that messages speak of the page.
"""

from __future__ import annotations

import contextlib
import io
import json
import linecache
import re
import sys
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the words behind that, its text, and the line it begins at (from 1)."""

    language: str
    words: str
    text: str
    line: int
    directly: bool  # nothing but white space stands between it and the block before


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found, end = [], -1
    for match in FENCE.finditer(text):
        directly = end >= 0 and not text[end:match.start()].strip()
        found.append(Block(match[1], match[2].strip(), match[3], text[:match.start(3)].count("\n") + 1, directly))
        end = match.end()
    return found


def run(page: Path) -> list[str]:
    """What each Python block of the page prints."""
    scope: dict[str, object] = {"__name__": "page"}
    lines = page.read_text(encoding="utf-8").splitlines(keepends=True)
    linecache.cache[page.name] = (sum(map(len, lines)), None, lines, page.name)  # reports show the user's lines
    printed = []
    for block in blocks(page):
        if block.language == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile("\n" * (block.line - 1) + block.text, page.name, "exec"), scope)
            printed.append(out.getvalue())
    return printed


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]))))
