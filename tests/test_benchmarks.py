"""The benchmark suite's pure parts, and one real measurement of graphjit."""

import itertools
import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import apart, measure, report
from benchmarks.apart import Alone, Patience, Watch
from benchmarks.kinds import ConvNet, Mlp
from benchmarks.peers import PEERS, Runner, choose
from benchmarks.results import Machine, Record, Run, geometric_mean, mark_wrong
from benchmarks.workloads import TABLE, WORKLOADS

MACHINE = Machine("a processor", 2, 1, {"float32": 253e9, "float64": 126e9},
                  {1 << 16: 200e9, 1 << 21: 127e9, 1 << 27: 27e9}, {"numpy": "2.4"}, quiet=True, seconds=600.0)


AT_ONCE = Patience(measure.cores(1), 0)


def record(workload, peer, seconds, numbers=(1.0, 2.0, 3.0), **more):
    return Record(workload, peer, rounds=[seconds], numbers=list(numbers), **more)


@pytest.fixture
def run():
    return Run(MACHINE, [
        record("mnist", "graphjit", 170e-6, cold=0.5, warm=0.05, resized=0.02, peak=150 << 20),
        record("mnist", "jax", 340e-6, cold=0.3, warm=0.1, resized=0.3, peak=300 << 20),
        record("mnist", "jax-scan", 100e-6),
        record("mnist", "torch", 700e-6, busy=0.5),
        Record("mnist", "pytensor", "timeout", "more than 150 s"),
        record("call", "graphjit", 1e-6),
        record("call", "torch", 2e-6),
        Record("call", "mygrad", "missing"),
    ])


@pytest.mark.parametrize(("seconds", "text"), [
    (2.34e-7, "234 ns"), (1.0e-6, "1.00 us"), (9.999e-6, "10.0 us"), (278e-6, "278 us"), (999.9e-6, "1.00 ms"),
    (0.0685, "68.5 ms"), (12.345, "12.3 s"), (1234.0, "1230 s"), (None, "-"), (math.inf, "-")])
def test_duration_has_three_digits(seconds, text):
    assert report.duration(seconds) == text


def test_ratio_is_to_the_best_peer_and_ignores_the_scan(run):
    assert run.best_peer("mnist").peer == "jax"
    assert run.ratio("mnist") == pytest.approx(0.5)
    assert run.ratio("mnist", "jax-scan") == pytest.approx(100 / 340)
    assert run.ratio("call") == pytest.approx(0.5)
    assert run.ratio("gpt") is None


def test_a_wrong_peer_is_marked_and_does_not_count():
    records = [record("mnist", "graphjit", 3e-6, (2.3, 2.2, 2.1)), record("mnist", "jax", 1e-6, (2.3, 2.2, 2.2)),
               record("mnist", "torch", 4e-6, (2.3001, 2.2, 2.1)), record("mnist", "numpy", 5e-6, (math.nan, 2.2, 2.1))]
    mark_wrong(records)
    assert [r.status for r in records] == ["ok", "wrong", "ok", "wrong"]
    assert Run(MACHINE, records).best_peer("mnist").peer == "torch"


def test_the_median_over_rounds_is_the_time():
    assert Record("call", "jax", rounds=[1.0, 2.0, 9.0]).seconds == 2.0
    assert Record("call", "jax").seconds == math.inf


def test_geometric_mean():
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1.0)
    assert math.isnan(geometric_mean([]))


def test_roofline_counts_products_and_the_traffic_of_the_state(run):
    mnist = WORKLOADS["mnist"]
    assert mnist.flops == 2 * 64 * (784 * 128 * 2 + 2 * 128 * 128 * 3 + 128 * 10 * 3)
    parameters = 784 * 128 + 128 * 128 * 2 + 128 * 10 + 128 * 3 + 10
    assert mnist.bytes == 4 * 4 * parameters + 64 * (784 * 4 + 8)
    assert MACHINE.roofline("mnist") == pytest.approx(mnist.flops / 253e9 + mnist.bytes / 127e9)
    assert run.share("mnist") == pytest.approx(MACHINE.roofline("mnist") / 170e-6)
    assert run.share("call") is None


@pytest.mark.parametrize("name", WORKLOADS)
def test_workloads_repeat_their_data_in_their_own_type(name):
    w = WORKLOADS[name]
    for a, b in zip(w.inputs(), w.inputs(), strict=True):
        np.testing.assert_array_equal(a, b)
    for p in w.params().values():
        assert p.dtype == w.dtype and np.isfinite(p).all()
    assert w.inputs(w.other_batch)[0].shape != w.inputs()[0].shape
    assert 0 < w.target <= 1 and w.bytes > 0 and set(w.slow) <= PEERS.keys()


def test_convolution_lengths():
    ecg, lenet = WORKLOADS["ecg"], WORKLOADS["lenet"]
    assert isinstance(ecg, ConvNet) and isinstance(lenet, ConvNet)
    assert [lengths for _, lengths in ecg.stages()] == [(140,), (70,), (35,)]
    assert ecg.sizes == (32 * 35, 5) and lenet.sizes == (16 * 49, 64, 10)


def test_peers_by_form_and_by_family():
    assert [p.name for p in choose(["jax"])] == ["jax", "jax-nhwc", "jax-scan"]
    assert [p.name for p in choose(["graphjit", "torch.compile"])] == ["graphjit", "torch.compile", "torch.func"]
    assert len(choose([])) == len(PEERS)
    with pytest.raises(KeyError, match="tensorflow"):
        choose(["tensorflow"])


def test_slow_peers_run_where_they_are_asked_for():
    assert PEERS["pytensor"].takes(WORKLOADS["moons"])
    assert not PEERS["pytensor"].takes(WORKLOADS["gpt"])
    assert PEERS["pytensor"].takes(WORKLOADS["gpt"], everything=True)
    assert not PEERS["jax-nhwc"].takes(WORKLOADS["mnist"], everything=True)


def test_report_says_everything(run):
    text = report.markdown(run)
    assert "| mnist | 170 us | JAX jit | 340 us | 0.50 | 0.65 |" in text
    assert "(100 us)" in text
    assert "Geometric mean of the ratios, 2 workloads of the table: 0.50." in text
    assert "* mygrad is not installed" in text
    assert "* mnist, PyTensor Numba: timeout: more than 150 s" in text
    assert "mnist in PyTorch eager (50%)" in text
    assert "The machine was not quiet" not in text
    assert "The machine was not quiet" in report.markdown(Run(replace(MACHINE, quiet=False), run.records))


def test_a_run_survives_json(run):
    again = Run.from_json(json.loads(json.dumps(run.to_json())))
    assert again == run


def test_tables_of_one_and_two_threads_stand_side_by_side(run, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "chart", lambda run, path: path.write_bytes(b""))
    (tmp_path / "README.md").write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.publish(run, tmp_path)
    faster = [replace(r, rounds=[t / 2 for t in r.rounds], turns=[170e-6, 85e-6] if r.peer == "graphjit" else [])
              for r in run.records]
    report.publish(Run(replace(MACHINE, threads=2), faster), tmp_path)
    results, readme = (tmp_path / "results.md").read_text(), (tmp_path / "README.md").read_text()
    assert "| mnist | 170 us | 85.0 us | 2.00x |" in results
    assert readme.startswith("before\n") and readme.endswith("after\n") and "old" not in readme
    assert "chart.png" in readme and "chart-2.png" in readme
    assert set(json.loads((tmp_path / "results.json").read_text())) == {"1", "2"}


def test_one_thread_and_more_are_compared_in_one_process(run):
    assert "graphjit on one thread" not in report.markdown(run)
    many = [replace(r, turns=[160e-6, 80e-6]) if r.workload == "mnist" else r for r in run.records]
    text = report.scaling(Run(replace(MACHINE, threads=2), many))
    assert "| workload | 1 thread | 2 threads | faster |" in text
    assert "| mnist | 160 us | 80.0 us | 2.00x |" in text and "call" not in text


def test_bars_are_times_over_graphjits(run):
    assert report.bars(run)["jax"] == [pytest.approx(2.0), pytest.approx(math.nan, nan_ok=True)]
    assert report.bars(run)["torch"] == [pytest.approx(700 / 170), pytest.approx(2.0)]


def test_chart_is_drawn(run, tmp_path):
    pytest.importorskip("matplotlib")
    report.chart(run, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").stat().st_size > 5000


def test_listing_names_all(capsys):
    assert command.main(["--list"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in (*WORKLOADS, *PEERS))


def test_an_unknown_name_is_said(capsys):
    assert command.main(["--only", "imagenet"]) == 2
    assert "imagenet" in capsys.readouterr().err


def test_children_get_a_clean_environment(tmp_path, monkeypatch):
    hobbling = {"OPENBLAS_CORETYPE": "Haswell", "PYTHONDONTWRITEBYTECODE": "1"}
    for name, value in hobbling.items():
        monkeypatch.setenv(name, value)
    env = measure.environment(2, tmp_path)
    assert not hobbling.keys() & env.keys()
    assert env["OMP_NUM_THREADS"] == env["GRAPHJIT_NUM_THREADS"] == "2"


def test_a_machine_is_known_by_its_best_moments():
    disturbed = replace(MACHINE, flops={"float32": 260e9, "float64": 90e9},
                        bandwidth={size: rate / 2 for size, rate in MACHINE.bandwidth.items()})
    for found in (MACHINE.at_its_best(disturbed), disturbed.at_its_best(MACHINE)):
        assert found == replace(MACHINE, flops={"float32": 260e9, "float64": 126e9})


def test_a_failing_process_is_a_row_not_a_crash(tmp_path):
    found = measure.start("benchmarks.nothing", [], 1, tmp_path, limit=20.0)
    assert found["status"] == "error" and "benchmarks.nothing" in found["detail"]


def test_graphjit_is_measured_compiled_and_eager(tmp_path):
    options = command.Options(threads=1, budget=0.02, everything=False, limit=60.0)
    found = command.measure_workload(WORKLOADS["call"], [PEERS["graphjit"], PEERS["eager"]], options, tmp_path, AT_ONCE)
    mark_wrong(found)
    compiled, eager = found
    assert [r.status for r in found] == ["ok", "ok"], [r.detail for r in found]
    assert compiled.cold > 0 and compiled.warm > 0 and compiled.resized > 0 and compiled.peak > 1 << 20
    np.testing.assert_allclose(compiled.numbers, eager.numbers, rtol=1e-5)


class Told:
    """A watch that says what it is told to, in turn."""

    def __init__(self, *answers):
        self.answers = itertools.cycle(answers)

    def apart(self):
        return next(self.answers)


@pytest.mark.parametrize(("answers", "share"), [((True,), 1.0), ((False,), 0.0), ((True, False), 0.0)])
def test_rounds_next_to_shared_cores_are_left_out(answers, share):
    calls = []
    runner = Runner(step=lambda: calls.append(len(calls)), numbers=lambda _: [])
    times, _, kept = measure.rounds(runner, 0.01, Told(*answers))
    assert kept == share
    assert len(times) == measure.QUANTILES and min(times) > 0  # where none is kept, all count


def test_few_kept_rounds_are_said(run):
    run.records[0].kept = 0.05
    assert any("cores of their own" in line and "mnist in graphjit (5%)" in line for line in report.troubles(run))


def test_a_core_is_shared_while_a_loop_takes_longer_than_ever_seen(monkeypatch):
    times = iter([1.0, 1.3, 2.0, 0.5, 1.0, 0.6])
    monkeypatch.setattr(apart, "python_loop", lambda: next(times))
    alone = Alone()
    assert [alone.apart() for _ in range(6)] == [True, True, False, True, False, True]
    monkeypatch.undo()
    assert not Alone(best=0.0).apart() and Alone().apart()


def test_patience_has_an_end(monkeypatch):
    patience = Patience(measure.cores(1), 0.5)
    assert 0 < patience.best < 1
    looks = itertools.chain([(1.0, 2.0), (1.0, 1.2)], itertools.repeat((0.5, 1.0)))
    monkeypatch.setattr(patience, "_look", lambda: next(looks))
    patience.best = 1.0
    patience.wait()
    assert patience.best == 1.0 and 0 < patience.left < 0.5  # the second look was quiet
    patience.wait()
    assert patience.best == 0.5 and patience.left <= 0
    patience.wait()  # at once


def test_a_watch_answers_until_it_is_closed():
    watch = Watch(1)
    assert {watch.apart() for _ in range(20)} <= {True, False}
    watch.close()
    with pytest.raises((ValueError, BrokenPipeError)):
        watch.apart()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no cores to choose")
def test_threads_that_share_a_core_have_none_of_their_own():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        watch = Watch(2)
        assert not watch.apart()
        watch.close()
    finally:
        os.sched_setaffinity(0, before)


def test_graphjit_on_one_thread_is_measured_beside_itself_on_two(tmp_path):
    options = command.Options(threads=2, budget=0.02, everything=False, limit=60.0)
    (found,) = command.measure_workload(WORKLOADS["moons"], [PEERS["graphjit"]], options, tmp_path, AT_ONCE)
    assert found.status == "ok", found.detail
    assert len(found.turns) == 2 and min(found.turns) > 0


def test_the_table_of_targets_is_complete():
    assert [w.name for w in TABLE] == ["moons", "digits", "digits-dropout", "mnist", "mnist-tanh", "ecg", "lenet",
                                       "chain", "chain-1k", "chain-f64", "wide", "gpt", "call"]
    assert isinstance(WORKLOADS["wide"], Mlp) and WORKLOADS["wide"].flops > 1e10
