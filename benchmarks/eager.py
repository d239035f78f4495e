"""Eager speed: what an operation costs over NumPy's own call, and a training step beside PyTorch's.

``python -m benchmarks.eager`` prints CPU time (of one thread, so that other load counts little), the best of many
rounds. The step is the moons workload: an MLP 2-16-16-1 with ReLU, hinge loss and L2 penalty, 100 points, SGD.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import graphjit as gj
from benchmarks.kinds import two_moons
from graphjit import nn, optim

Step = Callable[[], Any]
LR, DECAY = 0.1, 1e-4


def cpu_time(f: Callable[[], Any], number: int = 300, rounds: int = 30) -> float:
    """Seconds of CPU time of one call."""
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(number):
            f()
        best = min(best, time.process_time() - start)
    return best / number


def operations() -> dict[str, tuple[Step, Step]]:
    """The same operation of graphjit and of NumPy, on small operands."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((8, 8)).astype(np.float32) for _ in range(2))
    v, mask = a[0].copy(), a > 0
    x, y, u, m = (gj.tensor(array) for array in (a, b, v, mask))
    half = np.float32(0.5)
    return {
        "add": (lambda: x + y, lambda: a + b),
        "add a number": (lambda: x + 0.5, lambda: a + half),
        "exp": (lambda: gj.exp(x), lambda: np.exp(a)),
        "relu": (lambda: gj.relu(x), lambda: np.maximum(a, 0)),
        "compare": (lambda: x > y, lambda: a > b),
        "where": (lambda: gj.where(m, x, 0), lambda: np.where(mask, a, np.float32(0))),
        "astype": (lambda: x.astype("float64"), lambda: a.astype("float64")),
        "sum": (lambda: x.sum(), lambda: a.sum()),
        "sum of an axis": (lambda: x.sum(0), lambda: a.sum(0)),
        "mean": (lambda: x.mean(1, keepdims=True), lambda: a.mean(1, keepdims=True)),
        "max": (lambda: x.max(1), lambda: a.max(1)),
        "reshape": (lambda: x.reshape(4, 16), lambda: a.reshape(4, 16)),
        "reshape, -1": (lambda: x.reshape(-1, 16), lambda: a.reshape(-1, 16)),
        "T": (lambda: x.T, lambda: a.T),
        "index": (lambda: x[1], lambda: a[1]),
        "slice": (lambda: x[1:5, None], lambda: a[1:5, None]),
        "concat": (lambda: gj.concat([x, y]), lambda: np.concatenate([a, b])),
        "matmul": (lambda: x @ y, lambda: a @ b),
        "matrix, vector": (lambda: x @ u, lambda: a @ v),
        "vectors": (lambda: u @ u, lambda: v @ v),
    }


def moons() -> dict[str, Step]:
    """A training step of graphjit and, where it is installed, of PyTorch."""
    data = two_moons(100, np.random.default_rng(0), "float32")
    steps = {"graphjit": graphjit_step(*data)}
    if importlib.util.find_spec("torch") is not None:
        steps["torch"] = torch_step(*data)
    return steps


def graphjit_step(points: Any, labels: Any) -> Step:
    model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
    params = list(model.parameters())
    opt = optim.SGD(params, lr=LR)
    x, y = gj.tensor(points), gj.tensor(labels)

    def step() -> Any:
        opt.zero_grad()
        loss = gj.relu(1 - y * model(x)).mean() + DECAY * sum((p * p).sum() for p in params)
        loss.backward()
        opt.step()
        return loss
    return step


def torch_step(points: Any, labels: Any) -> Step:
    import torch

    torch.set_num_threads(1)
    net = torch.nn
    model = net.Sequential(net.Linear(2, 16), net.ReLU(), net.Linear(16, 16), net.ReLU(), net.Linear(16, 1))
    params = list(model.parameters())
    opt = torch.optim.SGD(params, lr=LR)
    x, y = torch.from_numpy(points), torch.from_numpy(labels)

    def step() -> Any:
        opt.zero_grad()
        loss = torch.relu(1 - y * model(x)).mean() + DECAY * sum((p * p).sum() for p in params)
        loss.backward()
        opt.step()
        return loss
    return step


def main() -> None:
    print(f"{'operation':16} {'over NumPy':>10} {'NumPy':>8}   us of CPU time")
    for name, (ours, numpys) in operations().items():
        base = cpu_time(numpys)
        print(f"{name:16} {(cpu_time(ours) - base) * 1e6:10.2f} {base * 1e6:8.2f}")
    steps = moons()
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(20):  # in turns, so that other load meets both
        for name, step in steps.items():
            best[name] = min(best[name], cpu_time(step, 30, 1))
    for name, seconds in best.items():
        print(f"moons step, {name:9} {seconds * 1e6:7.0f}")


if __name__ == "__main__":
    main()
