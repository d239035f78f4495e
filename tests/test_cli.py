"""The command line, run as a user runs it."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import graphjit as gj
from graphjit.cli import app, main
from graphjit.training import Settings, train

pytest.importorskip("sklearn")
SMALL = ["train", "--dataset", "iris", "--epochs", "2", "--hidden", "8"]


def run(*args):
    return CliRunner().invoke(app, list(args), env={"COLUMNS": "200"})


def test_digits_eagerly_and_compiled_give_the_same_losses():
    compiled, eager = (train(Settings(epochs=2, hidden=(32, 16), seed=3, eager=e)) for e in (False, True))
    assert [e.loss for e in compiled.epochs] == pytest.approx([e.loss for e in eager.epochs], rel=1e-4)
    assert compiled.test_accuracy == pytest.approx(eager.test_accuracy, abs=0.01)
    assert compiled.samples == eager.samples == (1258, 180, 359)
    assert compiled.traces == 2 and eager.traces == eager.compile_seconds == 0


def test_digits_are_learned():
    begun = []
    result = train(Settings(), on_epoch=begun.append)
    assert result.test_accuracy >= 0.97 and result.seconds < 30
    assert [e.number for e in begun] == list(range(1, 26)) and begun == result.epochs
    assert result.epochs[-1].loss < result.epochs[0].loss / 5


def test_train_prints_a_line_for_each_epoch_and_a_summary(tmp_path):
    path = tmp_path / "result.json"
    result = run(*SMALL, "--json", str(path), "--dropout", "0", "--lr", "0.01", "--batch-size", "16")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["1", "2"] and "%" in lines[2]
    for part in ("compile time", "time per step", "test accuracy", "105 training, 15 validation, 30 test"):
        assert part in result.output
    saved = json.loads(path.read_text())
    assert saved["settings"]["hidden"] == [8] and len(saved["epochs"]) == 2
    assert 0 <= saved["test_accuracy"] <= 1


def test_a_seed_repeats_everything():
    def losses(seed):
        return [e.loss for e in train(Settings(dataset="wine", epochs=2, hidden=(8,), seed=seed)).epochs]
    assert losses(1) == losses(1) != losses(2)


def test_a_last_batch_of_one_is_left_out():
    # 105 training samples in batches of 8: one is left
    assert train(Settings(dataset="iris", epochs=1, batch_size=8, hidden=(4,), eager=True)).epochs


@pytest.mark.parametrize("options, message", [
    (["--dataset", "mnist"], "there is no data set 'mnist'"), (["--epochs", "0"], "epochs"),
    (["--batch-size", "1"], "batch-size"), (["--lr", "0"], "not a positive number"), (["--lr", "x"], "--lr"),
    (["--hidden", "a,b"], "128,64"), (["--hidden", "8,0"], "128,64"), (["--dropout", "1.5"], "dropout"),
    (["--threads", "0"], "threads"), (["--json", "/no/such/directory/x.json"], "there is no directory"),
    (["--speed", "9"], "No such option")])
def test_bad_options_are_named_and_end_with_2(options, message):
    result = run("train", *options)
    assert result.exit_code == 2 and message in result.output and "Traceback" not in result.output


def test_doctor_shows_what_matters():
    result = run("doctor")
    assert result.exit_code == 0, result.output
    for part in ("graphjit", "numpy", "numba", "python", "vector width", "kernel cache", "threads"):
        assert part in result.output


def test_errors_of_graphjit_end_with_1(monkeypatch, capsys):
    def fails(*args, **kwargs):
        raise gj.ArgumentError("no luck", hint="try again")
    monkeypatch.setattr("graphjit.cli.run_training", fails)
    monkeypatch.setattr(sys, "argv", ["graphjit", *SMALL])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert "no luck" in capsys.readouterr().err


def test_the_example_learns_digits(capsys):
    example = runpy.run_path(str(Path(__file__).parent.parent / "examples" / "digits_mlp.py"))
    assert example["main"](epochs=12) >= 0.95
    assert capsys.readouterr().out.count("epoch") == 12


def test_python_m_graphjit():
    command = [sys.executable, "-m", "graphjit", "--help"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "train" in out and "doctor" in out
