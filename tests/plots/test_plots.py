"""The plots: what they show, that they can be read alone, and what they refuse."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")

import graphjit as gj  # noqa: E402
from graphjit import ArgumentError, ShapeError, plots  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]

ONE = {"train_loss": [2.0, 1.0, 0.5], "val_loss": [2.1, 1.2, 1.3], "test_loss": [2.2, 1.25, 1.35],
       "train_accuracy": [0.2, 0.6, 0.9], "val_accuracy": [0.2, 0.7, 0.65], "test_accuracy": [0.2, 0.55, 0.6],
       "lr": [0.1, 0.05, 0.025], "seconds": [1.0, 1.0, 1.0]}
TWO = {"relu": ONE, "tanh": {name: [v * 1.1 for v in values] for name, values in ONE.items()}}
CURVES = [plots.loss_curves, plots.accuracy_curves, plots.test_loss, plots.test_accuracy, plots.lr_schedule,
          plots.overfitting_gap]
SERIES = {"loss_curves": ["train_loss", "val_loss"], "accuracy_curves": ["train_accuracy", "val_accuracy"],
          "test_loss": ["test_loss"], "test_accuracy": ["test_accuracy"], "lr_schedule": ["lr"]}
LABELS = {"loss_curves": "mean loss", "accuracy_curves": "correct (%)", "test_loss": "mean loss on the test set",
          "test_accuracy": "correct on the test set (%)", "lr_schedule": "learning rate"}


def every_plot(path=None):
    """Each plot once, with its name."""
    rng = np.random.default_rng(0)
    to = (lambda name: None) if path is None else (lambda name: path / f"{name}.png")
    yield from ((f.__name__, f(TWO, to(f.__name__))) for f in CURVES)
    yield "grid", plots.sample_grid(rng.random((3, 4, 4)), [0, 1, 2], [0, 1, 1], path=to("grid"))
    yield "series", plots.sample_grid(rng.random((3, 20)), [0, 1, 2], path=to("series"))
    yield "hessian", plots.hessian_spectrum([3.0, 1.0, -0.5], to("hessian"))
    yield "scaling", plots.scaling_curve([10, 100, 1000], {"eager": [1e-4, 2e-4, 1e-3]}, to("scaling"))
    yield "steps", plots.step_times({"eager": {"forward": 1e-3, "update": 1e-4}}, to("steps"), samples=32)
    yield "boundary", plots.decision_boundary(lambda p: p[:, 0], [[0.5, 0.0], [-1.0, 1.0]], [1, 0], to("boundary"))


def lines(axes):
    return [line for line in axes.get_lines() if len(line.get_xdata()) == 3]


def legend(figure):
    found = [axes.get_legend() for axes in figure.axes if axes.get_legend() is not None]
    return [text.get_text() for text in found[-1].get_texts()] if found else []


# ---- all of them

def test_each_stands_alone_and_is_written(tmp_path):
    for name, figure in every_plot(tmp_path):
        picture = matplotlib.image.imread(tmp_path / f"{name}.png")
        assert picture.shape[0] > 200 and picture.shape[1] > 400 and picture.std() > 0.02, name
        title = figure.axes[0].get_title() or figure.get_suptitle()
        assert title, name
        for axes in figure.axes:
            if name not in ("grid", "series"):
                assert axes.get_xlabel(), name
                assert axes.get_ylabel() or axes.get_yticklabels(), name
    assert len(list(tmp_path.iterdir())) == 12


@pytest.mark.parametrize("plot", CURVES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("end, starts", [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_formats(tmp_path, plot, end, starts):
    plot(ONE, str(tmp_path / "deep" / f"a.{end}"))
    assert (tmp_path / "deep" / f"a.{end}").read_bytes().startswith(starts)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == [f"a.{end}"]


@pytest.mark.parametrize("name", ["a", "a.bmp", "a.png.txt"])
def test_another_format_is_refused(tmp_path, name):
    with pytest.raises(ArgumentError, match="does not end like a picture"):
        plots.loss_curves(ONE, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written(tmp_path):
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(ArgumentError, match="cannot be written"):
        plots.loss_curves(ONE, tmp_path / "taken.png")
    assert [p.name for p in tmp_path.iterdir()] == ["taken.png"]


def test_pyplot_and_the_users_settings_are_left_alone():
    code = ("import sys, matplotlib; matplotlib.rcParams['axes.facecolor'] = 'black'\n"
            "before = dict(matplotlib.rcParams.copy())\n"
            "import graphjit as gj\n"
            "f = gj.plots.loss_curves({'train_loss': [1.0, 2.0]})\n"
            "assert 'matplotlib.pyplot' not in sys.modules\n"
            "assert dict(matplotlib.rcParams.copy()) == before\n"
            "print(f.axes[0].get_facecolor())")
    out = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert out.stdout.strip() == "(1.0, 1.0, 1.0, 1.0)", out.stderr


@pytest.mark.parametrize("plot", [*CURVES, plots.hessian_spectrum], ids=lambda f: f.__name__)
def test_without_matplotlib(monkeypatch, plot):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ArgumentError, match="not installed") as caught:
        plot([1.0] if plot is plots.hessian_spectrum else ONE)
    assert "pip install 'graphjit[plots]'" in str(caught.value)


def test_titles_can_be_given():
    assert plots.loss_curves(ONE, title="Mine").axes[0].get_title() == "Mine"
    assert plots.overfitting_gap(ONE, title="Mine").get_suptitle() == "Mine"


# ---- curves

@pytest.mark.parametrize("plot", CURVES[:5], ids=lambda f: f.__name__)
def test_curves_show_the_numbers(plot):
    scale = 100.0 if "accuracy" in plot.__name__ else 1.0
    [axes] = plot(TWO).axes
    assert axes.get_xlabel() == "epoch" and axes.get_ylabel() == LABELS[plot.__name__]
    want = [scale * np.array(run[name]) for run in TWO.values() for name in SERIES[plot.__name__]]
    found = lines(axes)
    assert len(found) == len(want)
    for line, values in zip(found, want, strict=True):
        np.testing.assert_allclose(line.get_ydata(), values)
        assert line.get_xdata().tolist() == [1, 2, 3]


def test_legends_tell_runs_and_series():
    assert legend(plots.loss_curves(ONE)) == ["training", "validation\nbest 1.2 (epoch 2)"]
    assert legend(plots.accuracy_curves(TWO)) == [
        "relu, training", "relu, validation\nbest 70.00 % (epoch 2)",
        "tanh, training", "tanh, validation\nbest 77.00 % (epoch 2)"]
    assert legend(plots.test_accuracy({"relu": ONE})) == ["relu\nat the end 60.00 %"]
    assert legend(plots.lr_schedule(ONE)) == []  # the title says it
    found = lines(plots.loss_curves(TWO).axes[0])
    assert found[0].get_color() == found[1].get_color() != found[2].get_color()
    assert found[0].get_linestyle() != found[1].get_linestyle()


def test_equal_lines_are_one_with_both_names():
    figure = plots.lr_schedule({"relu": ONE, "tanh": ONE})
    assert len(lines(figure.axes[0])) == 1 and legend(figure) == ["relu,\ntanh"]


def test_the_gap_is_validation_against_training():
    figure = plots.overfitting_gap(TWO)
    loss, accuracy = figure.axes
    np.testing.assert_allclose(lines(loss)[0].get_ydata(), [0.1, 0.2, 0.8])
    np.testing.assert_allclose(lines(accuracy)[0].get_ydata(), [0.0, -10.0, 25.0], atol=1e-9)
    assert legend(figure) == ["relu", "tanh"] and "percentage points" in accuracy.get_ylabel()
    only_loss = plots.overfitting_gap({k: v for k, v in ONE.items() if "loss" in k})
    assert len(only_loss.axes) == 1


def test_a_wide_range_of_losses_is_logarithmic():
    assert plots.loss_curves({"train_loss": [10.0, 1.0, 0.1]}).axes[0].get_yscale() == "log"
    assert plots.loss_curves({"train_loss": [10.0, 1.0, 0.5]}).axes[0].get_yscale() == "linear"
    assert plots.loss_curves({"train_loss": [10.0, 0.0, 0.01]}).axes[0].get_yscale() == "linear"
    figure = plots.lr_schedule({"lr": [1e-1, 1e-3, 1e-6]})
    figure.canvas.draw()
    assert "0.001" in [t.get_text() for t in figure.axes[0].get_yticklabels()]


def test_gaps_in_a_history(tmp_path):
    run = {"train_loss": [1.0, None, math.nan, math.inf, 0.5], "val_loss": [None] * 5}
    figure = plots.loss_curves(run, tmp_path / "a.png")
    [line] = figure.axes[0].get_lines()
    assert np.isnan(line.get_ydata()).tolist() == [False, True, True, True, False]


def test_a_constant_rate_is_shown_from_zero():
    low, high = plots.lr_schedule({"lr": [0.001, 0.001]}).axes[0].get_ylim()
    assert low == 0 and 0.001 < high < 0.002
    assert plots.lr_schedule({"lr": [0.0, 0.0]}).axes[0].get_ylim()[0] < 0


def test_one_epoch_and_a_history_object(tmp_path):
    plots.accuracy_curves({name: values[:1] for name, values in ONE.items()}, tmp_path / "a.png")
    history = gj.training.History(ONE)
    assert len(plots.loss_curves({"run": history}).axes[0].get_lines()) == 2
    assert len(plots.loss_curves(history).axes[0].get_lines()) == 2


@pytest.mark.parametrize("plot", CURVES, ids=lambda f: f.__name__)
def test_a_history_without_the_series_is_refused(plot, tmp_path):
    with pytest.raises(ArgumentError, match="there is no") as caught:
        plot({"seconds": [1.0]}, tmp_path / "a.png")
    assert "seconds" in str(caught.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("histories", [{}, [1.0, 2.0], None, {"a": ONE, "train_loss": [1.0]},
                                       {"train_loss": "high"}, {"train_loss": 3.0}, {"train_loss": [[1.0], [2.0]]}])
def test_what_is_no_history_is_refused(histories):
    with pytest.raises(ArgumentError):
        plots.loss_curves(histories)


@pytest.mark.parametrize("label", ["_hidden", "$\\frac{", "two\nlines", "x" * 200, "漢字", "\x00"])
def test_labels_are_shown_as_they_are(label, tmp_path):
    figure = plots.test_loss({label: ONE, "other": TWO["tanh"]}, tmp_path / "a.png", title=label)
    first = legend(figure)[0].split("\n")[0]
    assert len(first) <= 36 and first[:5] == "".join(c if c.isprintable() else " " for c in label)[:5]
    plots.step_times({label: {label: 1.0}}, tmp_path / "b.png")
    plots.sample_grid(np.ones((1, 2, 2)), [0], classes=[label], path=tmp_path / "c.png")


# ---- samples

def test_a_grid_says_what_is_right():
    figure = plots.sample_grid(np.random.default_rng(0).random((7, 8, 8)) * 16, range(7), [0, 1, 2, 3, 4, 5, 0],
                               ["zero", "one", "two", "three", "four", "five", "six"])
    assert figure.get_suptitle() == "6 of 7 predictions right" and len(figure.axes) == 7
    assert [axes.get_title() for axes in figure.axes][5:] == ["five", "zero (is six)"]
    assert figure.axes[5].title.get_color() != figure.axes[6].title.get_color()
    shown = figure.axes[0].images[0].get_array()
    assert shown.min() >= 0 and 0.5 < shown.max() <= 1


def test_coloured_images_and_series():
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 6, 3)).astype(np.uint8)
    figure = plots.sample_grid(images, [1, 0])
    assert figure.axes[0].images[0].get_array().shape == (5, 6, 3) and figure.get_suptitle() == "2 samples"
    np.testing.assert_allclose(plots.sample_grid(np.arange(6.0).reshape(2, 3), [1, 0]).axes[1].lines[0].get_ydata(),
                               [3, 4, 5])
    assert plots.sample_grid(np.zeros((1, 4, 4, 1)), [0]).axes[0].images[0].get_array().shape == (4, 4)


@pytest.mark.parametrize("images, labels, predictions, classes, error", [
    (np.zeros((2, 3, 3)), [1], None, None, ShapeError), (np.zeros((2, 3, 3)), [1, 2], [1], None, ShapeError),
    (np.zeros((2, 3, 3, 2)), [1, 2], None, None, ShapeError), (np.zeros(3), [1, 2, 3], None, None, ShapeError),
    (np.zeros((0, 3, 3)), [], None, None, ArgumentError), (np.zeros((101, 2, 2)), [0] * 101, None, None, ArgumentError),
    (np.zeros((1, 3, 3)), [2], None, ["a", "b"], ArgumentError),
    (np.zeros((1, 3, 3)), [-1], None, ["a", "b"], ArgumentError)])
def test_a_grid_refuses(images, labels, predictions, classes, error):
    with pytest.raises(error):
        plots.sample_grid(images, labels, predictions, classes)


# ---- cost

def test_eigenvalues_by_size_and_sign():
    axes = plots.hessian_spectrum([-0.5, 3.0, 1.0]).axes[0]
    assert [(bar.get_x() + 0.35, bar.get_height()) for bar in axes.patches] == [(1, 3.0), (2, 1.0), (3, -0.5)]
    assert axes.patches[1].get_facecolor() != axes.patches[2].get_facecolor()
    assert [text.get_text() for text in axes.texts] == ["3.00", "1.00", "-0.500"]
    assert plots.hessian_spectrum([1e3, 1.0]).axes[0].get_yscale() == "log"
    many = plots.hessian_spectrum(np.linspace(-1, 1, 200)).axes[0]
    assert sum(len(line.get_xdata()) for line in many.get_lines() if line.get_marker() == ".") == 200


@pytest.mark.parametrize("values", [[], [math.nan], ["a"], 3.0])
def test_no_eigenvalues(values):
    with pytest.raises(ArgumentError):
        plots.hessian_spectrum(values)


def test_scaling_is_sorted_and_has_a_unit():
    figure = plots.scaling_curve([1000, 10], {"eager": [3.0, 1.0], "compiled": [2.0, 0.002]}, size_name="samples")
    axes = figure.axes[0]
    eager, compiled, line = axes.get_lines()
    assert eager.get_xdata().tolist() == [10, 1000] and compiled.get_ydata().tolist() == [2.0, 2000.0]
    assert axes.get_xlabel() == "samples" and axes.get_ylabel() == "time of a step (ms)"
    assert legend(figure) == ["eager", "compiled", "proportional to the size"]
    np.testing.assert_allclose(line.get_ydata(), [30.0, 3000.0])


@pytest.mark.parametrize("sizes, seconds, error", [
    ([1, 2], {"a": [1.0]}, ShapeError), ([], {"a": []}, ArgumentError), ([1], {}, ArgumentError),
    ([0, 1], {"a": [1.0, 1.0]}, ArgumentError), ([1], {"a": [-1.0]}, ArgumentError), ([1], {"a": ["x"]}, ArgumentError),
    ([1], {"a": [math.nan]}, ArgumentError)])
def test_scaling_refuses(sizes, seconds, error):
    with pytest.raises(error):
        plots.scaling_curve(sizes, seconds)


def test_step_times_add_up():
    figure = plots.step_times({"eager": {"forward": 1e-3, "backward": 2e-3}, "compiled": {"forward": 2e-4}}, samples=30)
    axes = figure.axes[0]
    assert [(bar.get_x(), round(bar.get_width(), 9)) for bar in axes.patches] == [(0, 1.0), (1.0, 2.0), (0, 0.2)]
    assert [t.get_text() for t in axes.texts] == ["3 ms, 10,000 samples/s", "0.2 ms, 150,000 samples/s"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["eager", "compiled"]
    assert legend(figure) == ["forward", "backward"]


@pytest.mark.parametrize("seconds", [{}, {"a": {}}, {"a": {"b": -1.0}}, {"a": {"b": math.nan}}, {"a": {"b": "x"}}])
def test_step_times_refuse(seconds):
    with pytest.raises(ArgumentError):
        plots.step_times(seconds)


# ---- boundary

def test_a_model_of_one_score():
    gj.manual_seed(0)
    model = gj.nn.MLP(2, [4, 1])
    x = np.random.default_rng(0).standard_normal((30, 2)).astype(np.float32)
    says = np.asarray(model(x).numpy() > 0).reshape(-1)
    y = np.where(says, 1, -1)
    y[0] = -y[0]
    for predict in (model, gj.compile(model)):
        figure = plots.decision_boundary(predict, x, y)
        assert figure.axes[0].get_title() == "Decision boundary: 29 of 30 samples right (96.7 %)"
        assert legend(figure) == ["class -1", "class 1"]
    assert all(p.grad is None for p in model.parameters())


def test_scores_of_several_classes():
    centers = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    x = np.repeat(centers, 5, 0) + np.random.default_rng(0).uniform(-1, 1, (15, 2))
    figure = plots.decision_boundary(lambda p: -((p[:, None] - centers) ** 2).sum(-1), x, np.repeat([0, 1, 2], 5),
                                     classes=["a", "b", "c"])
    assert "15 of 15" in figure.axes[0].get_title() and legend(figure) == ["a", "b", "c"]
    dots = [c.get_offsets() for c in figure.axes[0].collections if len(c.get_offsets()) == 5]
    np.testing.assert_allclose(dots[1], x[5:10])


@pytest.mark.parametrize("predict, x, y, error", [
    (lambda p: p[:, 0], np.zeros((3, 3)), [0, 1, 1], ShapeError),
    (lambda p: p[:, 0], np.zeros((3, 2)), [0], ShapeError),
    (lambda p: 1.0, np.zeros((3, 2)), [0, 1, 1], ShapeError),
    (lambda p: p[:2], np.zeros((3, 2)), [0, 1, 1], ShapeError),
    (lambda p: p[:, 0], np.zeros((3, 2)), [0, 1, 2], ArgumentError),
    (lambda p: p, np.zeros((2, 2)), [0, 2], ArgumentError),
    (lambda p: p, np.zeros((0, 2)), [], ShapeError)])
def test_a_boundary_refuses(predict, x, y, error):
    with pytest.raises(error):
        plots.decision_boundary(predict, x, y)
