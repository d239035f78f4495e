"""The house rules: imports go down, public names are documented, the README's first screen runs."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import graphjit as gj
from graphjit.operators import Operators

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "graphjit"

# lower rooms first; a module may import at its top level from its own room and from those before it
ROOMS = (
    "errors", "types", "op", "ir", "tree", "tables", "operators", "arrays", "tape", "trail", "buffers", "trace",
    "interop", "tensor", "convert", "replay", "backward", "walks", "leaves", "promotion", "apply", "composed",
    "structure", "runtime.cache", "runtime.machine", "runtime.kernel", "runtime.walk", "runtime.frontend",
    "runtime.compiler", "kernels", "ops", "transforms", "passes", "codegen", "runtime", "capture", "generators",
    "signature", "pullback", "shared", "outside", "specialize", "unpacking", "shortcut",
    "reasons", "profiling", "report", "jit", "nn", "optim", "checkpoint", "data", "training", "testing", "linalg",
    "random", "plots", "drawing", "cli", "__main__", "",
)


def room(module: str) -> int:
    name = module.removeprefix("graphjit").removeprefix(".")
    while name not in ROOMS and "." in name:
        name = name.rpartition(".")[0]
    assert name in ROOMS, f"{module} is in no room: add it to ROOMS"
    return ROOMS.index(name)


def modules() -> list[str]:
    return ["graphjit", *(m.name for m in pkgutil.walk_packages([str(PACKAGE)], "graphjit."))]


def top_level_imports(module: str) -> set[str]:
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None
    found: set[str] = set()
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "graphjit":
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                found.add(inner if (PACKAGE.parent / inner.replace(".", "/")).with_suffix(".py").exists()
                          or (PACKAGE.parent / inner.replace(".", "/")).is_dir() else node.module)
        elif isinstance(node, ast.Import):
            found.update(a.name for a in node.names if a.name.split(".")[0] == "graphjit")
    return found


def test_imports_go_down_only() -> None:
    wrong = [f"{module} imports {other}" for module in modules() for other in top_level_imports(module)
             if other not in ("graphjit", "graphjit.__version__") and room(other) > room(module)]
    assert wrong == []


def test_heavy_libraries_are_imported_when_used() -> None:
    code = ("import sys, graphjit; print([m for m in ('scipy', 'sklearn', 'matplotlib', 'rich', 'typer', 'torch') "
            "if m in sys.modules])")
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def public() -> list[tuple[str, object]]:
    names = [(f"gj.{n}", getattr(gj, n)) for n in gj.__all__]
    for part in ("nn", "optim", "checkpoint", "data", "training", "linalg", "random", "testing", "plots"):
        module = importlib.import_module(f"graphjit.{part}")
        names += [(f"gj.{part}.{n}", getattr(module, n)) for n in getattr(module, "__all__", ())]
    return names


@pytest.mark.parametrize("name, what", public(), ids=[n for n, _ in public()])
def test_every_public_name_says_what_it_is(name: str, what: object) -> None:
    assert not name.split(".")[-1].startswith("_")
    text = inspect.getdoc(what) or ""
    assert len(text) >= 4, f"{name} has no docstring"


def test_every_declared_method_is_attached() -> None:
    tree = ast.parse((PACKAGE / "operators.py").read_text(encoding="utf-8"))
    [cls] = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == Operators.__name__]
    [block] = [n for n in cls.body if isinstance(n, ast.If)]
    declared = [n.name for n in block.body if isinstance(n, ast.FunctionDef)]
    declared += [n.target.id for n in block.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
    assert len(declared) > 80
    missing = [n for n in declared if n not in vars(gj.Tensor) and not callable(getattr(Operators, n, None))]
    assert missing == []


def blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_readme_begins_with_two_command_lines() -> None:
    install, test = blocks("bash")[:2]
    assert len(install.strip().splitlines()) == len(test.strip().splitlines()) == 1
    assert "graphjit train" in install and "pytest" in test


def test_the_readme_example_runs() -> None:
    pytest.importorskip("sklearn")
    scope: dict[str, object] = {"__name__": "readme"}
    exec(compile(blocks("python")[0], "README.md", "exec"), scope)
    assert float(scope["loss"]) < 2.0  # type: ignore[arg-type]  # one epoch from 2.3
