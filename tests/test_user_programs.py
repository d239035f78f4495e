"""Programs that users write: graphjit compiled beside eager and PyTorch; and the pure parts of their benchmark."""

from __future__ import annotations

import ast
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import graphjit as gj
from benchmarks.programs import PROGRAMS, frameworks, graphjit_, measure
from benchmarks.programs.__main__ import main
from benchmarks.programs.agreement import TOLERANCES, Found, Tolerance, difference, disagreements
from benchmarks.programs.frameworks import FRAMEWORKS, Framework
from benchmarks.programs.outcome import Entry, Outcome, header, notes, paired, row
from benchmarks.programs.program import Case, is_double, leaves, mapped

QUICK = ("logreg64", "expfit", "crps", "kepler")
CLOSE = {"float32": Tolerance(1e-5, 5e-4, 1e-4), "float64": Tolerance(1e-12, 1e-10, 1e-10)}
ROOMS = Path(frameworks.__file__).parent


def found(result):
    value, gradients = result
    return Found(float(value), [np.asarray(g, np.float64) for g in leaves(gradients)])


def precision(params):
    return "float64" if is_double(params) else "float32"


def compiled_beside_eager(name):
    case = PROGRAMS[name].case()
    step = gj.compile(gj.value_and_grad(partial(case.loss, graphjit_)))
    with gj.eager():
        want = found(step(case.params, *case.data))
    assert np.isfinite(want.value)
    assert [g.shape for g in want.gradients] == [p.shape for p in leaves(case.params)]
    for _ in range(2):
        assert difference(found(step(case.params, *case.data)), want, CLOSE[precision(case.params)]) == ""


@pytest.mark.parametrize("name", QUICK)
def test_compiled_is_as_eager(name):
    compiled_beside_eager(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PROGRAMS if name not in QUICK])
def test_every_program_compiled_is_as_eager(name):
    compiled_beside_eager(name)


def in_double(case):
    """The same in float64, where two right answers differ by rounding of its last digits only."""
    params, data = mapped(lambda a: a.astype(np.float64) if a.dtype == np.float32 else a, (case.params, case.data))
    return Case(case.loss, params, data)


@pytest.mark.slow
@pytest.mark.parametrize("double", [False, True], ids=["as it is", "float64"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_is_as_in_pytorch(name, double):
    pytest.importorskip("torch")
    torch_ = FRAMEWORKS["torch"].load()
    case = PROGRAMS[name].case()
    if double:
        case = in_double(case)
    ours, theirs = (found(xp.calls(partial(case.loss, xp), case.params, case.data)[0]()) for xp in (graphjit_, torch_))
    assert difference(ours, theirs, TOLERANCES[precision(case.params)]) == ""


# ---- the programs


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_repeat_their_numbers_and_say_what_they_are(name):
    program = PROGRAMS[name]
    assert program.text.endswith((".", "?")) and len(program.text) > 20
    first, again = program.case(), program.case()
    dtype = np.float64 if is_double(first.params) else np.float32
    for a, b in zip(leaves((first.params, first.data)), leaves((again.params, again.data)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert isinstance(a, np.ndarray) and a.dtype in (dtype, np.int64)


def test_the_frameworks_offer_the_same_functions():
    offered = [listed(ROOMS / f"{framework.room}.py") for framework in FRAMEWORKS.values()]
    assert len(offered) == 3 and offered[0] == offered[1] == offered[2]


def listed(room):
    """``__all__`` of a room whose framework need not be installed."""
    [names] = [node.value for node in ast.parse(room.read_text(encoding="utf-8")).body
               if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"]
    return ast.literal_eval(names)


def test_leaves_of_a_dict_have_the_order_of_its_keys():
    assert leaves({"b": [1, (2,)], "a": 3}) == [3, 1, 2]
    assert mapped(lambda x: 2 * x, {"b": [1, (2,)], "a": 3}) == {"b": [2, (4,)], "a": 6}


# ---- agreement


def answer(value=1.0, *gradients):
    return Found(value, [np.array(g, np.float64) for g in gradients or ([1.0, 2.0], [[1e-9, 0.0]])])


LOOSE = TOLERANCES["float32"]


def test_answers_that_agree():
    same = {"graphjit": answer(1.0001), "jax": answer(), "torch": answer(1.0, [1.001, 2.001], [[0.0, 1e-8]])}
    assert disagreements(same, LOOSE) == {}


@pytest.mark.parametrize(("wrong", "text"), [
    (answer(1.01), "value 1.01"),
    (answer(float("nan")), "value nan"),
    (answer(1.0, [1.0, 2.1], [[1e-9, 0.0]]), "gradient 0 of 2"),
    (answer(1.0, [2.0, 1.0], [[1e-9, 0.0]]), "gradient 0 of 2"),  # of the same sum
    (answer(1.0, [1.0, 2.0], [[0.01, 0.0]]), "gradient 1 of 2"),  # small beside the other
    (answer(1.0, [1.0, 2.0], [[float("inf"), 0.0]]), "gradient 1 of 2"),
])
def test_a_wrong_answer_is_found_among_three(wrong, text):
    found = disagreements({"graphjit": wrong, "jax": answer(), "torch": answer()}, LOOSE)
    assert list(found) == ["graphjit"] and found["graphjit"].startswith(text)


def test_a_small_gradient_is_held_to_its_own_size():
    small = answer(1.0, [1e3, 2e3], [[1.0, 0.0]])
    other = answer(1.0, [1e3, 2e3], [[1.1, 0.0]])
    assert set(disagreements({"jax": small, "torch": small, "graphjit": other}, LOOSE)) == {"graphjit"}


def test_of_two_that_differ_neither_is_right_and_alone_all_is():
    assert set(disagreements({"graphjit": answer(1.0), "jax": answer(2.0)}, LOOSE)) == {"graphjit", "jax"}
    assert disagreements({"graphjit": answer(1.0)}, LOOSE) == {}
    assert set(disagreements({"graphjit": answer(float("nan"))}, LOOSE)) == {"graphjit"}


# ---- outcomes


@pytest.fixture
def outcome():
    return Outcome("unet", {"graphjit": Entry(first=1.5, rounds=[1e-3, 3e-3, 4e-3]),
                            "jax": Entry(first=0.25, rounds=[2e-3, 2e-3, 8e-3]),
                            "torch": Entry(first=0.126, rounds=[9e-3, 1e-2, 9e-3])})


def test_the_ratio_is_the_median_of_rounds_that_were_beside_each_other(outcome):
    assert paired([1.0, 3.0, 4.0], [2.0, 2.0, 8.0]) == 0.5  # of the medians it is 1.5
    assert outcome.best_peer == "jax" and outcome.ratio == pytest.approx(0.5)


def test_wrong_and_failed_frameworks_do_not_count(outcome):
    outcome.entries["jax"].status = "wrong"
    assert outcome.best_peer == "torch"
    outcome.entries["torch"].status = "error"
    assert outcome.best_peer is None and outcome.ratio is None
    outcome.entries["jax"].status, outcome.entries["graphjit"].status = "ok", "wrong"
    assert outcome.best_peer == "jax" and outcome.ratio is None


def test_a_row_says_everything(outcome):
    assert header(list(FRAMEWORKS), 1) == ["program", "graphjit", "JAX", "PyTorch", "ratio", "first call, graphjit",
                                           "first call, JAX", "first call, PyTorch"]
    assert row(outcome, 1) == ["unet", "3.00 ms", "2.00 ms", "9.00 ms", "0.50", "1.50", "0.25", "0.13"]
    outcome.entries["jax"] = Entry("missing")
    outcome.entries["torch"].status = "wrong"
    assert row(outcome, 1) == ["unet", "3.00 ms", "missing", "wrong", "-", "1.50", "-", "0.13"]


def test_a_row_of_two_threads_says_how_much_faster_they_are(outcome):
    assert row(outcome, 2)[-3:] == ["-", "-", "-"]
    outcome.alone, outcome.together = [2e-3, 3e-3, 2e-3], [1e-3, 2e-3, 1e-3]
    assert row(outcome, 2)[-3:] == ["2.00 ms", "1.00 ms", "2.00x"]
    assert len(header(list(FRAMEWORKS), 2)) == len(row(outcome, 2))
    assert "2.00 times as fast" in notes([outcome])[1]


def test_notes_say_the_mean_and_what_went_wrong(outcome):
    outcome.entries["torch"] = Entry("missing")
    half = Outcome("vit", {"graphjit": Entry(rounds=[2.0]), "jax": Entry(rounds=[2.0])})
    wrong = Outcome("gp", {"graphjit": Entry("wrong", "value 1, should be 2"), "jax": Entry(rounds=[1.0])})
    assert notes([Outcome("unet", {"torch": Entry(rounds=[1.0])})]) == []
    assert notes([outcome, half, wrong]) == [
        "Geometric mean of 2 ratios to the better peer: 0.71.", "* PyTorch is not installed",
        "* gp, graphjit: wrong: value 1, should be 2"]


def test_an_outcome_survives_json(outcome):
    assert Outcome.from_json(json.loads(json.dumps(asdict(outcome)))) == outcome


# ---- the command


def test_listing_names_all(capsys):
    assert main(["--list"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in PROGRAMS)


@pytest.mark.parametrize("arguments", [["--only", "imagenet"], ["--peers", "tensorflow"]])
def test_an_unknown_name_is_said(arguments, capsys):
    assert main(arguments) == 2
    assert arguments[1] in capsys.readouterr().err


def test_a_program_is_measured_in_a_process_of_its_own(tmp_path, capsys):
    path = tmp_path / "found.json"
    assert main(["--only", "expfit", "--peers", "graphjit", "--seconds", "0.05", "--json", str(path)]) == 0
    assert "| expfit |" in capsys.readouterr().out
    [data] = json.loads(path.read_text(encoding="utf-8"))
    entry = Outcome.from_json(data).entries["graphjit"]
    assert entry.status == "ok" and entry.first > 0 and 0 < entry.seconds < 1


def test_frameworks_that_fail_or_are_missing_have_a_column_that_says_so(monkeypatch):
    monkeypatch.setitem(FRAMEWORKS, "jax", Framework("jax", "JAX", "no_such_package", "jax_"))
    monkeypatch.setitem(FRAMEWORKS, "torch", Framework("torch", "PyTorch", "numpy", "no_such_room"))
    outcome = measure.measure("logreg64", list(FRAMEWORKS), 0.02)
    assert [e.status for e in outcome.entries.values()] == ["ok", "missing", "error"]
    assert "no_such_room" in outcome.entries["torch"].detail and outcome.ratio is None


def test_a_framework_with_a_wrong_gradient_is_marked(monkeypatch):
    def turned(loss, params, data):
        (call,) = graphjit_.calls(loss, params, data)
        return [lambda: (call()[0], mapped(lambda g: -g, call()[1]))]

    wrong = SimpleNamespace(**{**vars(graphjit_), "calls": turned})
    for name in ("jax", "torch"):
        monkeypatch.setitem(FRAMEWORKS, name, Framework(name, name, "graphjit", "graphjit_"))
    monkeypatch.setattr(Framework, "load", lambda self: wrong if self.name == "torch" else graphjit_)
    outcome = measure.measure("logreg64", list(FRAMEWORKS), 0.02)
    assert [e.status for e in outcome.entries.values()] == ["ok", "ok", "wrong"]
    assert "gradient 0 of 2" in outcome.entries["torch"].detail
    assert outcome.best_peer == "jax" and 0.2 < outcome.ratio < 5  # it is graphjit beside itself


def test_a_process_that_dies_is_a_row_of_errors(tmp_path):
    outcome = measure.run("no such program", ["graphjit", "jax"], 0.1, 1, tmp_path, 60.0)
    assert [e.status for e in outcome.entries.values()] == ["error", "error"]


def test_graphjit_on_one_thread_is_measured_beside_itself_on_two(tmp_path):
    outcome = measure.run("nbody", ["graphjit"], 0.05, 2, tmp_path, 60.0)
    assert outcome.entries["graphjit"].status == "ok", outcome.entries["graphjit"].detail
    assert len(outcome.alone) == len(outcome.together) > 0 and outcome.speedup > 0
