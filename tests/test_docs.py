"""The pages people read: their Python runs and prints what they say, their links lead somewhere, the reference builds.

A ``text`` block that directly follows a ``python`` block is what that block prints. Numbers may be off by some
percent (machines round differently); where the block says ``text varies``, numbers do not count at all. A line
``...`` stands for any number of lines.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import runpy
import subprocess
import sys
import types
from pathlib import Path

import pytest
from pages import blocks

import graphjit as gj

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("nn", "nn.functional", "nn.init", "nn.utils", "optim", "optim.lr_scheduler", "data", "training", "checkpoint",
         "plots", "linalg", "random", "testing")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?")


def in_python(*args: str, folder: Path = ROOT) -> str:
    """Standard output of a new interpreter in which warnings are errors."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    out = subprocess.run([sys.executable, "-W", "error", *args], cwd=folder, env=env, capture_output=True, text=True,
                         timeout=240)
    assert out.returncode == 0, out.stderr[-3000:]
    return out.stdout


def form(line: str) -> list[str]:
    """The words of a line without its numbers and units, as those differ from run to run."""
    return [re.sub("^(us|ms|s)$", "time", word) for word in NUMBER.sub("#", line).split()]


def same_line(printed: str, said: str, exact: bool) -> bool:
    if not exact:
        words, told = form(printed), form(said)
        return words[:len(told) - 1] == told[:-1] if told[-1:] == ["..."] else words == told
    if NUMBER.sub("#", printed).split() != NUMBER.sub("#", said).split():
        return False
    pairs = zip(*([float(n.replace(",", "")) for n in NUMBER.findall(line)] for line in (printed, said)), strict=True)
    return all(abs(a - b) <= 0.05 * abs(b) + 2e-6 for a, b in pairs)


def same_text(printed: list[str], said: list[str], exact: bool) -> bool:
    if not said:
        return not printed
    if said[0].strip() == "...":
        return any(same_text(printed[i:], said[1:], exact) for i in range(len(printed) + 1))
    return bool(printed) and same_line(printed[0], said[0], exact) and same_text(printed[1:], said[1:], exact)


@pytest.mark.parametrize("page", PAGES, ids=[p.stem for p in PAGES])
def test_the_code_of_a_page_runs_and_prints_what_it_says(page, tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    found = [b for b in blocks(page) if b.language in ("python", "text")]
    printed = iter(json.loads(in_python(str(ROOT / "tests" / "pages.py"), str(page), folder=tmp_path)))
    last = None
    for block in found:
        if block.language == "python":
            last = next(printed)
        elif block.directly and last is not None:
            told = [line.rstrip() for line in block.text.rstrip().splitlines()]
            lines = [line.rstrip() for line in last.rstrip().splitlines()]
            assert same_text(lines, told, block.words != "varies"), f"{page.name}:{block.line} prints\n{last}"


def test_the_commands_of_the_readme_print_what_it_says(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    from typer.testing import CliRunner

    from graphjit.cli import app
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.delenv("GRAPHJIT_DATA", raising=False)
    shown = [b for b in blocks(PAGES[0]) if b.language == "console"]
    assert len(shown) >= 6
    for block in shown:
        command, *said = block.text.rstrip().splitlines()
        program, *arguments = command.removeprefix("$ ").split()
        assert program == "graphjit"
        found = CliRunner().invoke(app, arguments)
        assert found.exit_code == 0, found.output
        printed = [line.rstrip() for line in found.output.rstrip().splitlines()]
        assert same_text(printed, said, False), f"{command} prints\n{found.output}"


def test_what_the_runner_compares():
    assert same_text(["a 1.00", "b"], ["a 1.01", "b"], True)
    assert not same_text(["a 1.00"], ["a 1.20"], True)
    assert same_text(["a 1.00"], ["a 1.20"], False)
    assert not same_text(["a 1.00"], ["b 1.00"], False)
    assert same_text(["x", "y", "z"], ["x", "...", "z"], True)
    assert not same_text(["x", "y"], ["x"], True)
    assert same_text(["982 samples"], ["34,427 samples"], False)
    assert same_text(["took 3.1 ms and", "more"], ["took 12 us ...", "more"], False)
    assert not same_text(["took 3.1 ms and"], ["gave 12 us ..."], False)


@pytest.mark.parametrize("page", PAGES, ids=[p.stem for p in PAGES])
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http:", "https:", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_the_reference_builds_without_warnings(tmp_path):
    pytest.importorskip("pdoc")
    in_python(str(ROOT / "docs" / "reference.py"), str(tmp_path))
    pages = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.html")}
    rooms = {f"graphjit/{room.replace('.', '/')}.html" for room in ROOMS}
    assert pages == {"index.html", "graphjit.html", *rooms}
    first = (tmp_path / "graphjit.html").read_text(encoding="utf-8")
    for name in gj.__all__:
        if not isinstance(getattr(gj, name), types.ModuleType):
            assert f'id="{name}"' in first, name


def documented() -> list[tuple[str, object]]:
    """Public classes' methods and properties, and the functions of the rooms, by name."""
    found = {}
    for room in ("", *ROOMS):
        module = importlib.import_module(f"graphjit.{room}".rstrip("."))
        for name in getattr(module, "__all__", ()):
            what = found[f"{module.__name__}.{name}"] = getattr(module, name)
            if inspect.isclass(what) and what.__module__.startswith("graphjit"):
                found |= {f"{module.__name__}.{name}.{part}": it for part, it in inspect.getmembers(what)
                          if not part.startswith("_") and (callable(it) or isinstance(it, property))}
    return list(found.items())


def test_everything_in_the_reference_says_what_it_is():
    found = documented()
    assert len(found) > 500
    assert [name for name, what in found if not (inspect.getdoc(what) or "").strip()] == []


def test_the_pictures_of_the_readme_can_be_made_anew():
    script = runpy.run_path(str(ROOT / "docs" / "pictures.py"))
    assert {f"{name}.png" for name in script["PICTURES"]} == {p.name for p in (ROOT / "docs" / "pictures").iterdir()}
    made = "".join(" ".join(command) for command in script["COMMANDS"])
    for name in ("scalars", "moons_svm", "compare", "predict", "hessian"):
        assert name in made
