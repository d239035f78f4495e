"""Generated source is as reviewed: a change of the compiler shows as a change of ``golden/``.

``GRAPHJIT_UPDATE_GOLDEN=1 pytest tests/codegen/test_golden.py`` writes the files anew.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

import pytest
from golden_programs import PROGRAMS
from lowering import compiled

from graphjit.codegen.call import KernelCall

GOLDEN = Path(__file__).parent / "golden"
UPDATE = os.environ.get("GRAPHJIT_UPDATE_GOLDEN") == "1"


def generated(name: str) -> str:
    """The graph and the kernels of a program, without line numbers."""
    function, args = PROGRAMS[name]()
    found = compiled(function, *args)
    parts = [f"# {PROGRAMS[name].__doc__}\n", "".join(f"# {line}\n" for line in str(found.graph).splitlines())]
    for step in found.latest.program.steps:
        if isinstance(step, KernelCall):
            parts.append(step.source or f"# {step.title}\n")
    return re.sub(r"\w+\.py:\d+ ?", "", "\n".join(parts)).replace("  # \n", "\n")


@pytest.mark.parametrize("name", PROGRAMS)
def test_source_is_as_reviewed(name: str) -> None:
    path, text = GOLDEN / f"{name}.py.txt", generated(name)
    if UPDATE:
        path.write_text(text, encoding="utf-8")
    expected = path.read_text(encoding="utf-8")
    changes = difflib.unified_diff(expected.splitlines(), text.splitlines(), path.name, "now", lineterm="")
    assert text == expected, "\n".join(
        ["the generated source changed (GRAPHJIT_UPDATE_GOLDEN=1 accepts it):", *changes])


def test_no_golden_file_is_left_over() -> None:
    assert {path.name.removesuffix(".py.txt") for path in GOLDEN.iterdir()} == set(PROGRAMS)
