"""Looking in: explain(), source(), graph, profile()."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import nn, optim
from graphjit.profiling import Profile
from graphjit.runtime.roofline import bandwidth, peak_flops
from graphjit.tables import amount, microseconds, size, table

X = np.random.default_rng(0).standard_normal((32, 16)).astype(np.float32)
Y = np.arange(32) % 4
TABLE = np.ones(4, np.float32)


@pytest.fixture(scope="module")
def trained():
    gj.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 4))
    opt = optim.Adam(model.parameters(), lr=1e-3)
    scale = 1.5

    @gj.compile
    def train_step(x, y):
        opt.zero_grad()
        hidden = model(x) * scale + TABLE
        loss = F.cross_entropy(hidden, y)
        loss.backward()
        opt.step()
        return loss
    train_step(X, Y)
    train_step(X[:5], Y[:5])
    train_step(X, Y)
    return train_step, model, opt


def test_explain_tells_what_happened(trained):
    step, _, _ = trained
    text = step.explain()
    lines = text.splitlines()
    assert re.match(r"train_step   2 traces, \d+ kernels \(\d+ compiled, \d+ loaded in [\d.]+ ms\)", lines[0])
    assert re.search(r"trace 1 +x float32\[32, 16\], y int64\[32\] +first call", text)
    assert re.search(r"trace 2 +x float32\[5, 16\], y int64\[5\] +x: axis 0 was 32; y: axis 0 was 32; no new kernel",
                     text)
    assert re.search(r"state +\d+ tensors read \([\d.]+ kB\), \d+ written: .*0\.weight", text)
    assert re.search(r"arrays +1 read by reference: TABLE float32\[4\]", text)
    assert "scale = 1.5" in text
    assert "Dropout.p = 0.2" in text
    assert re.search(r"graph +\d+ nodes recorded, \d+ after simplify, fold, cse", text)
    assert re.search(r"memory +arena [\d.]+ [kM]B for [\d.]+ [kM]B of intermediates", text)
    assert re.search(r"work +[\d.]+ [kM]FLOP, [\d.]+ kB; roofline [\d.]+ us", text)
    assert re.search(r"\d+  matmul 32x16x8 .*test_compile_report.py:\d+  hidden = model\(x\) \* scale \+ TABLE", text)
    assert re.search(r"opt.step\(\)", text)
    assert len(lines) < 60
    assert max(map(len, lines)) < 260


def test_explain_counts_rows_of_the_latest_program(trained):
    step, _, _ = trained
    rows = re.findall(r"^ +\d+  \S.*test_compile_report", step.explain(), re.M)
    assert len(rows) == len(step.latest.program.steps)


def test_source_is_the_python_that_runs(trained):
    step, _, _ = trained
    text = step.source()
    assert "def k_" in text
    assert "test_compile_report.py:" in text
    assert "# of the kernel library: gemm_float32" in text
    compile(text, "source", "exec")
    assert text.count("# kernel ") >= len(step.latest.program.steps)


def test_graph_prints_with_lines(trained):
    step, _, _ = trained
    text = str(step.graph)
    assert "matmul" in text
    assert "test_compile_report.py" in text
    assert step.graph.to_dot().startswith("digraph")


def test_profile_measures_and_moves_state_by_one_call(trained):
    step, model, opt = trained
    before = {k: v.numpy().copy() for k, v in model.state_dict().items()}
    count = float(opt.state_dict()["state"][0]["step"])
    seed = gj.random.default_generator().state[1]
    report = step.profile(X, Y)
    assert isinstance(report, Profile)
    assert float(opt.state_dict()["state"][0]["step"]) == count + 1
    assert gj.random.default_generator().state[1] == seed + 1
    after = {k: v.numpy() for k, v in model.state_dict().items()}
    assert int(after["1.num_batches_tracked"]) == int(before["1.num_batches_tracked"]) + 1
    assert np.abs(after["0.weight"] - before["0.weight"]).max() < 0.01, "one step of Adam, not thousands"
    assert all(np.isfinite(v).all() for v in after.values())
    assert len(report.rows) == len(step.latest.program.steps)
    assert report.step_us > 0
    assert sum(r.share for r in report.rows) == pytest.approx(1)
    for r in report.rows:
        assert r.us > 0
        assert r.calls > 1
        assert r.gflops >= 0
        assert r.gbytes >= 0
    text = str(report)
    assert re.search(r"#  kernel +extent +flops +bytes +us +share +GF/s +GB/s +calls  from", text)
    assert "matmul 32x16x8" in text
    explained = step.explain()
    assert re.search(r"measured [\d.]+ us on \d threads?", explained)
    assert re.search(r"us +share  from", explained)
    assert np.isfinite(float(step(X, Y)))


def test_profile_gives_the_same_training_as_a_call():
    def run(profiled):
        w = nn.Parameter(np.linspace(1, 2, 4))
        opt = optim.SGD([w], lr=0.1, momentum=0.9)

        @gj.compile
        def step(x):
            opt.zero_grad()
            (w * w * x).sum().backward()
            opt.step()
        for i in range(4):
            (step.profile if profiled and i % 2 else step)(np.arange(4.0))
        return w.data.copy()
    np.testing.assert_array_equal(run(True), run(False))


def test_profile_of_large_arrays_and_host_calls():
    big = np.ones((300, 300))
    f = gj.compile(lambda x: (gj.sort(x, axis=1) * 2, gj.linalg.norm(x)))
    report = f.profile(big)
    assert any("(NumPy)" in r.title for r in report.rows)
    assert (big == 1).all()
    assert "(NumPy)" in f.explain()
    np.testing.assert_array_equal(f(big)[0], big * 2)


def test_chrome_trace(tmp_path):
    f = gj.compile(lambda x: (gj.exp(x) @ x.T).sum())
    report = f.profile(X)
    path = tmp_path / "trace.json"
    report.save(path)
    trace = json.loads(path.read_text())
    events = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    assert len(events) == len(report.rows)
    at = 0.0
    for event, row in zip(events, report.rows, strict=True):
        assert event["name"] == row.title
        assert event["ts"] == pytest.approx(at)
        assert event["dur"] == pytest.approx(row.us)
        assert event["args"]["flops"] == row.flops
        at += event["dur"]


def test_profile_traces_new_arguments_and_takes_keywords():
    f = gj.compile(lambda x, *, s: gj.exp(x) * s)
    assert len(f.profile(X, s=2.0).rows) == 1
    assert f.trace_count == 1
    x = gj.tensor(X, requires_grad=True)
    assert f.profile(x, s=2.0).rows
    assert f.trace_count == 2


def test_nothing_to_measure_in_eager_mode():
    f = gj.compile(lambda x: x * 2)
    with gj.eager(), pytest.raises(gj.TraceError, match="uncompiled"):
        f.profile(X)


def test_explain_before_any_call_and_of_trivial_functions():
    f = gj.compile(lambda x: x)
    assert "not called yet" in f.explain()
    f(X)
    assert "1 trace," in f.explain()
    g = gj.compile(lambda: None)
    g()
    assert "no kernels" in g.explain()
    assert g.source() == ""
    assert g.profile().rows == ()


def test_explain_of_a_differentiable_function():
    w = gj.tensor(np.ones((16, 4), np.float32), requires_grad=True)
    f = gj.compile(lambda x: gj.tanh(x @ w))
    y = f(X)
    assert re.search(r"backward +keeps \d+ arrays? \([\d.]+ k?B\) of each call for 1 gradient", f.explain())
    assert "first backward()" in f.explain()
    y.sum().backward()
    assert "first backward()" not in f.explain()
    assert "# ---- the reverse program" in f.source()


def test_static_arguments_and_constants_are_listed():
    held = [0.5, 0.25]

    @gj.compile
    def f(x, n, mode="fast"):
        weights = np.linspace(0, 1, 16, dtype=np.float32)  # NumPy, while tracing
        return x[:n] * weights + held[0] + gj.tensor([float(i) for i in range(16)])
    f(X, 3, mode="slow" * 100)
    text = f.explain()
    assert "n 3" in text
    assert "mode 'slowslow" in text
    assert "1 read by reference: made while tracing float32[16]" in text
    assert "1 array of constants (64 B), computed while tracing" in text
    assert max(map(len, text.splitlines())) < 250


def test_many_traces_are_summarised():
    f = gj.compile(lambda x, n: x * n)
    for n in range(80):
        f(X, n)
    text = f.explain()
    assert "80 traces" in text
    assert "older traces not shown" in text
    assert len(text.splitlines()) < 40


def test_numbers_in_reports():
    assert [amount(n) for n in (0, 512, 1000, 57_000, 999_900, 3_140_000, 12e9)] == [
        "0", "512", "1 k", "57 k", "1 M", "3.1 M", "12 G"]
    assert [size(n) for n in (12, 118_000)] == ["12 B", "118 kB"]
    assert [microseconds(n) for n in (0.00123, 1.234, 1234.5)] == ["0.0012", "1.23", "1234.50"]
    assert table(["a", "name"], [["1", "x"], ["10", "yy"]], left=("name",)) == ["    a  name", "    1  x", "   10  yy"]


def test_the_roofline_is_plausible():
    assert 1e9 < peak_flops(8) < peak_flops(4) < 1e13
    assert 1e8 < bandwidth(1 << 26) < 1e12
    assert bandwidth(1 << 17) > 1e8
