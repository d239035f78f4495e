"""The command line, run as a user runs it."""

import gzip
import io
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from graphjit.cli import app, main
from graphjit.cli.screen import counting, downloading, epoch_lines
from graphjit.kernels.target import target
from graphjit.training import Settings, folders, study

pytest.importorskip("sklearn")
SMALL = ("--dataset", "iris", "--epochs", "2", "--hidden", "8", "--eager")


@pytest.fixture
def pictures():
    """Asked for by tests that draw: it takes longer than the small trainings here."""
    return pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def elsewhere(request, tmp_path, monkeypatch):
    """Runs land in a folder of the test's own, no file of the machine's is found, nothing is drawn unasked."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setitem(sys.modules, "matplotlib", None)  # an import fails then
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GRAPHJIT_DATA", raising=False)
    monkeypatch.setattr("graphjit.data.sources.cache_folder", lambda name: tmp_path / "cache" / name)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Folders of tiny image sets in their true formats: a class is a bright column or row."""
    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("images")

    def drawn(n, side):
        y = np.arange(n) % 10
        x = rng.integers(0, 60, (n, side, side))
        x[np.arange(n), :, 2 * y] += 180
        return x.astype(np.uint8), y.astype(np.uint8)

    for name in ("mnist", "fashion-mnist"):
        folder = root / name
        folder.mkdir()
        for part, n in (("train", 200), ("t10k", 50)):
            x, y = drawn(n, 28)
            for file, array in ((f"{part}-images-idx3-ubyte.gz", x), (f"{part}-labels-idx1-ubyte.gz", y)):
                head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
                (folder / file).write_bytes(gzip.compress(head + array.tobytes()))
    (root / "cifar10").mkdir()
    for file in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        x, y = drawn(40, 32)
        records = np.concatenate([y[:, None], np.repeat(x.reshape(40, -1), 3, axis=1).reshape(40, -1)], axis=1)
        (root / "cifar10" / file).write_bytes(records.astype(np.uint8).tobytes())
    return root


def run(*args, code=0):
    result = CliRunner().invoke(app, list(args), env={"COLUMNS": "200"})
    assert result.exit_code == code, (result.output, result.exception)
    return result


def fails(monkeypatch, capsys, *args):
    """Exit code and error text of the whole program."""
    monkeypatch.setattr(sys, "argv", ["graphjit", *args])
    with pytest.raises(SystemExit) as caught:
        main()
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return caught.value.code, text


def trained(*args):
    run("train", *SMALL, *args)
    return folders.newest("runs")


# ---- train

def test_train_prints_a_line_for_each_epoch_and_a_summary(tmp_path):
    result = run("train", *SMALL[:-1], "--json", "result.json", "--dropout", "0", "--lr", "0.01", "--batch-size", "16")
    lines = result.output.splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["1", "2"] and "%" in lines[2]
    for part in ("compile time", "time per step", "test accuracy", "105 training, 15 validation, 30 test",
                 "run folder    runs/iris-mlp-relu-0-1"):
        assert part in result.output
    saved = json.loads(Path("result.json").read_text())
    assert saved["settings"]["hidden"] == [8] and saved["settings"]["dropout"] == 0
    assert len(saved["history"]["val_accuracy"]) == 2 and 0 <= saved["result"]["test_accuracy"] <= 1
    assert saved["result"]["traces"] == 2


def test_every_run_has_its_folder():
    first = trained()
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    second = trained()
    assert (first.name, second.name) == ("iris-mlp-relu-0-1", "iris-mlp-relu-0-2")
    assert {p.name for p in first.iterdir()} >= {"config.json", "history.json", "result.json", "model.safetensors"}
    assert all(path.read_bytes() == content for path, content in before.items())


def test_out_names_the_folder_of_runs():
    run("train", *SMALL, "--out", "a/b", "--seed", "7", "--activation", "tanh")
    assert [p.name for p in Path("a/b").iterdir()] == ["iris-mlp-tanh-7-1"] and not Path("runs").exists()


def test_pictures_are_drawn(pictures):
    folder = trained()
    assert sorted(p.stem for p in (folder / "plots").iterdir()) == sorted(study.PICTURES)


def test_without_matplotlib_a_line_says_so():
    result = run("train", *SMALL)
    [line] = [line for line in result.output.splitlines() if "matplotlib" in line]
    assert "no pictures" in line and "pip install" in line
    assert folders.newest("runs").is_dir()
    assert "no pictures" in run("analyze", "--budget", "0").output
    assert not list(Path("runs").rglob("*.png"))


def test_json_on_the_standard_output_stands_alone():
    command = [sys.executable, "-m", "graphjit", "train", *SMALL, "--json", "-"]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(out.stdout)["result"]["epochs"] == 2
    assert "test accuracy" in out.stderr


@pytest.mark.parametrize("options, message", [
    (["--dataset", "mnits"], "there is no data set 'mnits'; did you mean 'mnist'?"),
    (["--dataset", "no.csv"], "there is no file no.csv"), (["--epochs", "0"], "epochs"),
    (["--batch-size", "1"], "batch-size"), (["--lr", "0"], "not a positive number"), (["--lr", "x"], "--lr"),
    (["--hidden", "a,b"], "128,64"), (["--hidden", "8,0"], "128,64"), (["--dropout", "1.5"], "dropout"),
    (["--threads", "0"], "threads"), (["--json", "/no/such/directory/x.json"], "there is no directory"),
    (["--json", "."], "is a directory"), (["--model", "rnn"], "not one of mlp, cnn"),
    (["--activation", "step"], "not one of relu, tanh"), (["--optimizer", "x"], "not one of adam"),
    (["--schedule", "x"], "not one of constant"), (["--init", "x"], "not one of default"),
    (["--preset", "x"], "not one of default, study"), (["--folder", "/no/such"], "does not exist"),
    (["--train-samples", "0"], "train-samples"), (["--speed", "9"], "No such option")])
def test_bad_options_are_named_and_end_with_2(options, message):
    result = run("train", *options, code=2)
    assert message in " ".join(result.output.replace("│", " ").split()) and "Traceback" not in result.output
    assert not Path("runs").exists()


def test_the_help_shows_options_and_defaults():
    text = run("train", "--help").output
    for part in ("--dataset", "--activation", "--eager", "[default: (128,64)]", "[default: (25)]", "(--norm)",
                 "graphjit train --dataset"):
        assert part in text
    text = run("compare", "--help").output
    assert "(128,128,128)" in text and "(--no-norm)" in text and "--activation " not in text
    assert "Exit codes" in run("--help").output


def test_bars_on_a_terminal(tmp_path):
    console = Console(file=io.StringIO(), force_terminal=True, width=100, highlight=False)
    with epoch_lines(console) as lines:
        study.train(Settings.of(dataset="wine", hidden=(4,), epochs=6, eager=True), None, [lines])
    with counting(console, "measuring", 2) as step:
        step()
    with downloading(console) as progress:
        progress("a.gz", 10, None)
        progress("a.gz", 20, 40)
    text = console.file.getvalue()
    assert all(part in text for part in ("compiling", "training", "measuring", "1/2", "fetching a.gz", "20/40 bytes"))


# ---- errors of the whole program

def test_data_that_are_not_at_hand_end_with_3(monkeypatch, capsys):
    code, text = fails(monkeypatch, capsys, "train", "--dataset", "mnist", "--offline")
    assert code == 3
    assert text.startswith("Error: the data set 'mnist' is not on this machine")
    assert "train-images-idx3-ubyte.gz" in text and "digits" in text and "  at " not in text
    assert not Path("runs").exists()


def test_errors_of_graphjit_end_with_1(monkeypatch, capsys):
    code, text = fails(monkeypatch, capsys, "train", *SMALL, "--model", "cnn")
    assert code == 1 and text.startswith("Error: a cnn needs images or series")
    code, text = fails(monkeypatch, capsys, "train", *SMALL, "--lr", "1e38", "--optimizer", "sgd")
    assert code == 1 and "Error: the training loss is" in text and "learning rate" in text


def test_bad_run_folders_end_with_1(monkeypatch, capsys):
    for args, message in ((("predict",), "there is no trained model in runs"),
                          (("predict", "nowhere"), "nowhere is not a run folder"),
                          (("analyze", "nowhere"), "nowhere is not a run folder"),
                          (("compare", "nowhere", "there"), "nowhere is not a run folder")):
        code, text = fails(monkeypatch, capsys, *args)
        assert code == 1 and text.startswith(f"Error: {message}")
        assert len(text.splitlines()) <= 2
    folder = trained()
    model = folder / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-100])
    code, text = fails(monkeypatch, capsys, "predict", str(folder))
    assert code == 1 and "model.safetensors" in text.splitlines()[0]
    model.unlink()
    code, text = fails(monkeypatch, capsys, "predict", str(folder))
    assert code == 1 and "holds no model" in text


def test_a_folder_that_cannot_be_made_is_an_error(monkeypatch, capsys):
    Path("file").write_text("")
    code, text = fails(monkeypatch, capsys, "train", *SMALL, "--out", "file/runs")
    assert code == 1 and text.startswith("Error: ") and "file" in text and len(text.splitlines()) == 1


def test_ctrl_c_keeps_what_there_is(monkeypatch):
    real = study.fit

    def interrupted(*args, **kwargs):
        class Stop(study.Callback):
            def on_step(self, state):
                if state.epoch == 2:
                    raise KeyboardInterrupt
        return real(*args, **{**kwargs, "callbacks": [*kwargs["callbacks"], Stop()]})
    monkeypatch.setattr(study, "fit", interrupted)
    result = run("train", *SMALL, "--epochs", "50", code=130)
    assert "interrupted" in result.output and "run folder" in result.output
    assert folders.read_run(folders.newest("runs")).history.epochs == 1


# ---- compare

def test_compare_trains_each_activation_and_draws_all_together(pictures):
    result = run("compare", *SMALL[:-1], "--activations", "relu, tanh,gelu", "--json", "all.json")
    names = sorted(p.name for p in Path("runs").iterdir())
    assert names == ["iris-compare-relu-tanh-gelu-0-1", "iris-mlp-gelu-0-1", "iris-mlp-relu-0-1", "iris-mlp-tanh-0-1"]
    saved = json.loads(Path("all.json").read_text())
    assert saved == json.loads(Path("runs/iris-compare-relu-tanh-gelu-0-1/results.json").read_text())
    assert list(saved) == ["relu", "tanh", "gelu"]
    kinds = [{k: v for k, v in found["settings"].items() if k != "activation"} for found in saved.values()]
    assert kinds[0] == kinds[1] == kinds[2] and kinds[0]["optimizer"] == "sgd" and kinds[0]["init"] == "xavier"
    assert saved["relu"]["history"]["train_loss"] != saved["tanh"]["history"]["train_loss"]
    assert len(list(Path("runs/iris-compare-relu-tanh-gelu-0-1/plots").iterdir())) == 6
    assert folders.newest("runs").name == "iris-mlp-gelu-0-1"
    rows = [line.split()[0] for line in result.output.splitlines() if line.startswith(("relu", "tanh", "gelu"))]
    assert rows == ["relu", "tanh", "gelu"]


def test_compare_takes_runs_there_are():
    two = [str(trained("--seed", str(seed))) for seed in (1, 2)]
    run("compare", *two, "--json", "all.json")
    assert list(json.loads(Path("all.json").read_text())) == ["iris-mlp-relu-1-1", "iris-mlp-relu-2-1"]
    assert len(list(Path("runs").iterdir())) == 3


@pytest.mark.parametrize("names", ["relu", "relu,relu", "relu,step"])
def test_compare_needs_different_activations(names):
    assert "activation" in run("compare", "--activations", names, code=2).output


# ---- predict

def test_predict_shows_examples_of_the_newest_model(pictures):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)
        trained()
        run("train", "--dataset", "digits", "--epochs", "3", "--hidden", "32", "--eager")
    result = run("predict", "--show-examples", "12", "--json", "p.json")
    saved = json.loads(Path("p.json").read_text())
    assert saved["run"] == "runs/digits-mlp-relu-0-1" and len(saved["examples"]) == 12 and saved["of"] == 359
    assert saved["accuracy"] > 0.8
    right = sum(row["true"] == row["predicted"] for row in saved["examples"])
    assert result.output.count("wrong") == 12 - right
    assert Path("runs/digits-mlp-relu-0-1/predictions.png").read_bytes()[:4] == b"\x89PNG"
    run("predict", "runs/digits-mlp-relu-0-1")
    assert Path("runs/digits-mlp-relu-0-1/predictions-2.png").exists()


def test_predict_without_images_draws_none():
    result = run("predict", str(trained()))
    assert "picture" not in result.output and "test accuracy" in result.output


# ---- analyze

@pytest.mark.parametrize("options, keys", [
    (["--type", "performance"], {"eager", "compiled", "speedup", "kernels"}),
    (["--type", "scaling"], {"sizes", "seconds", "parameters", "what"}),
    (["--type", "scaling", "--over", "batch"], {"sizes", "seconds", "parameters", "what"}),
    (["--type", "hessian", "--eigenvalues", "3", "--samples", "50"], {"eigenvalues", "bounds", "products"})])
def test_analyze_writes_numbers_and_a_picture(options, keys, pictures):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)
        folder = trained("--no-norm")
    run("analyze", *options, "--budget", "0", "--json", "a.json")
    kind = options[1]
    saved = json.loads((folder / f"analysis-{kind}.json").read_text())
    assert keys <= saved.keys()
    assert json.loads(Path("a.json").read_text()) == {"run": str(folder), "type": kind, **saved}
    assert (folder / f"analysis-{kind}.png").read_bytes()[:4] == b"\x89PNG"
    if kind == "hessian":
        sizes = [abs(v) for v in saved["eigenvalues"]]
        assert len(sizes) == 3 and sizes == sorted(sizes, reverse=True) and saved["samples"] == 50
        before = (folder / "analysis-hessian.json").read_bytes()
        run("analyze", *options)
        assert (folder / "analysis-hessian-2.json").exists()
        assert (folder / "analysis-hessian.json").read_bytes() == before
    if kind == "scaling":
        assert saved["sizes"] == sorted(saved["sizes"]) and len(saved["seconds"]["compiled"]) == len(saved["sizes"])


# ---- data sets that come as files

@pytest.mark.parametrize("name, inputs", [("mnist", 784), ("fashion-mnist", 784), ("cifar10", 1024)])
def test_the_study_on_images_from_their_files(images, name, inputs, monkeypatch):
    monkeypatch.chdir(images)
    run("train", "--preset", "study", "--dataset", name, "--folder", name, "--epochs", "8",
        "--batch-size", "16", "--eager")
    folder = folders.newest("runs").absolute()
    result = json.loads((folder / "result.json").read_text())
    assert result["parameters"] == inputs * 128 + 128 + 2 * (128 * 128 + 128) + 128 * 10 + 10
    assert result["samples"]["train"] == 180 and result["samples"]["test"] in (40, 50)
    assert result["test_accuracy"] > 0.9
    history = json.loads((folder / "history.json").read_text())
    assert history["lr"] == pytest.approx([0.02 * 0.95 ** i for i in range(8)])
    monkeypatch.chdir("/")  # the run knows where its files are
    run("predict", str(folder), "--show-examples", "3")


def test_a_cnn_on_colour_images(images):
    run("train", "--dataset", "cifar10", "--folder", str(images / "cifar10"), "--model", "cnn", "--epochs", "1",
        "--train-samples", "64", "--hidden", "8", "--eager")
    assert folders.read_run(folders.newest("runs")).shape == (3, 32, 32)
    run("predict", "--show-examples", "2")


def test_a_file_of_the_users_own():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 3)), np.arange(60) % 2
    rows = ["a,b,c,kind", *(",".join(f"{v:.4f}" for v in row + 4 * k) + (',yes' if k else ',no')
                            for row, k in zip(x, y, strict=True))]
    Path("own.csv").write_text("\n".join(rows))
    run("train", "--dataset", "own.csv", "--hidden", "4", "--epochs", "3", "--eager")
    assert folders.newest("runs").name == "own-mlp-relu-0-1"
    assert run("predict").output.count("yes") > 0


# ---- datasets, doctor

def test_datasets_tells_what_is_at_hand(images):
    result = run("datasets", "--folder", str(images / "mnist"), "--json", "d.json")
    saved = json.loads(Path("d.json").read_text())
    assert saved["digits"]["at_hand"] and saved["mnist"]["at_hand"] and not saved["cifar10"]["at_hand"]
    assert "cifar-10-binary.tar.gz" in result.output and saved["cifar10"]["folder"] in result.output
    assert "train-images-idx3-ubyte.gz" not in result.output


def test_doctor_shows_what_matters():
    result = run("doctor", "--json", "d.json")
    for part in ("graphjit", "numpy", "numba", "matplotlib", "python", "vector width", "tile unit", "kernel cache",
                 "threads"):
        assert part in result.output
    saved = json.loads(Path("d.json").read_text())
    assert saved["threads"].isdecimal()
    assert saved["tile unit"].startswith("used") == target().tile_unit


def test_python_m_graphjit():
    command = [sys.executable, "-m", "graphjit", "--help"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert all(name in out for name in ("train", "compare", "predict", "analyze", "datasets", "doctor"))
