"""The examples at small size, and what their docstrings say they print."""

from __future__ import annotations

import ast
import contextlib
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from data.true_formats import ecg_rows, ecg_txt, write_mnist, zipped

import graphjit as gj

FOLDER = Path(__file__).resolve().parent.parent / "examples"
PATHS = {path.stem: path for path in sorted(FOLDER.glob("*.py"))}
SMALL = {  # arguments that make a run short
    "char_gpt": ["--steps", "10", "--write", "20"],
    "custom_gradient": [],
    "digits_mlp": ["--epochs", "2", "--samples", "200"],
    "ecg5000_cnn": ["--dataset", "waves", "--epochs", "2", "--samples", "200"],
    "lenet": ["--dataset", "digits", "--epochs", "1"],
    "look_inside": [],
    "mnist_mlp": ["--dataset", "digits", "--epochs", "2"],
    "moons_svm": ["--epochs", "2"],
    "quickstart": ["--epochs", "2"],
    "scalars": [],
}
NEEDS = {"digits_mlp": "sklearn", "lenet": "sklearn", "mnist_mlp": "sklearn", "quickstart": "sklearn",
         "moons_svm": "matplotlib", "scalars": "matplotlib"}
FREE = {"char_gpt": "what a model of another training writes"}  # whose last lines are not of one form


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """What an example writes lands in a folder of the test's own; no data of the machine's are found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GRAPHJIT_DATA", raising=False)
    monkeypatch.setattr("graphjit.data.sources.cache_folder", lambda name: tmp_path / "cache" / name)
    monkeypatch.setattr("graphjit.data.download.fetch", unreachable)


def unreachable(file, *rest):
    """A machine without a network."""
    from graphjit.data.download import Unreachable
    raise Unreachable([f"{file.urls[0]}: no network"])


def run(name: str, arguments: list[str]) -> object:
    pytest.importorskip(NEEDS.get(name, "numpy"))
    if NEEDS.get(name) == "matplotlib":
        pytest.importorskip("sklearn")
    return runpy.run_path(str(PATHS[name]))["main"](arguments)


def shown(name: str) -> list[str]:
    """The lines of output in the docstring."""
    doc = ast.get_docstring(ast.parse(PATHS[name].read_text(encoding="utf-8"))) or ""
    block = doc[doc.index("    $ python examples/"):]
    return [line for line in block.splitlines() if line.strip() not in ("", "...") and " $ python" not in line]


def form(line: str) -> str:
    """A line without its numbers, as they differ from run to run."""
    return re.sub(r"[\s#%]+", " ", re.sub(r"\[[^a-z\]]*\]", "[]", re.sub(r"-?\d+(\.\d+)?", "#", line))).strip()


def test_every_example_is_listed_short_and_says_how_to_run_it():
    assert PATHS.keys() == SMALL.keys()
    readme = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    for name, path in PATHS.items():
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 100, name
        assert f"    $ python examples/{name}.py" in text
        assert f"examples/{name}.py" in readme


@pytest.mark.parametrize("name", PATHS)
def test_an_example_runs_and_prints_what_it_says(name, capsys):
    run(name, SMALL[name])
    printed = [form(line) for line in capsys.readouterr().out.splitlines()]
    promised = shown(name)
    if name in FREE:
        promised = [line for line in promised if " loss " in line or "characters" in line]
    assert len(promised) >= 3
    for line in promised:
        whole, dots, _ = line.partition(" ...")
        found = form(whole) in printed if not dots else any(p.startswith(form(whole)[:60]) for p in printed)
        assert found, f"{name} prints no line like {line!r}"


def test_few_digits_are_enough_for_nine_of_ten(capsys):
    """500 training samples, 10 epochs."""
    accuracy = run("digits_mlp", ["--samples", "500", "--epochs", "10"])
    assert accuracy >= 0.9
    assert capsys.readouterr().out.count("epoch") == 10


def test_the_moons_are_told_apart(capsys):
    """100 samples, MLP(2, [16, 16, 1]), max-margin loss, 40 epochs."""
    run("moons_svm", [])
    out = capsys.readouterr().out
    assert "100% of 100 samples right, 337 parameters" in out
    assert (Path("runs/moons/boundary.png")).stat().st_size > 10_000


def test_pictures_of_scalars():
    run("scalars", ["--out", "pictures"])
    assert Path("pictures/graph.svg").read_text(encoding="utf-8").startswith("<svg")
    assert Path("pictures/graph.png").read_bytes().startswith(b"\x89PNG")
    assert "digraph" in Path("pictures/graph.dot").read_text(encoding="utf-8")


@pytest.mark.parametrize("name, parameters", [("mnist_mlp", 134_794), ("lenet", 61_706)])
def test_mnist_from_files(name, parameters, tmp_path, capsys):
    rng = np.random.default_rng(0)
    write_mnist(tmp_path / "mine", [rng.integers(0, 256, (80, 28, 28)), np.arange(80) % 10,
                                    rng.integers(0, 256, (20, 28, 28)), np.arange(20) % 10])
    run(name, ["--folder", "mine", "--epochs", "1"])
    assert f"{parameters} parameters" in capsys.readouterr().out


def test_heartbeats_from_files(tmp_path, capsys):
    (tmp_path / "ECG5000.zip").write_bytes(zipped({f"ECG5000_{part}.txt": ecg_txt(*ecg_rows(40, seed))
                                                   for seed, part in enumerate(("TRAIN", "TEST"))}))
    run("ecg5000_cnn", ["--folder", str(tmp_path), "--epochs", "1"])
    out = capsys.readouterr().out
    assert "ecg5000: 48 training samples" in out
    assert "right: premature ventricular" in out


@pytest.mark.parametrize("name", ["mnist_mlp", "lenet", "ecg5000_cnn"])
def test_no_other_data_take_the_place_of_those_that_are_missing(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(name, [])
    text = str(stopped.value)
    assert "is not on this machine" in text and "--dataset" in text
    assert "epoch" not in capsys.readouterr().out


def test_digits_eager_and_compiled(capsys):
    losses = []
    for mode in (contextlib.nullcontext, gj.eager):
        with mode():
            run("digits_mlp", ["--samples", "100", "--epochs", "2"])
        losses.append([float(x) for x in re.findall(r"loss (\S+)", capsys.readouterr().out)])
    assert len(losses[0]) == 2
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
