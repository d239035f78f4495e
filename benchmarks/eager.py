"""Eager speed: what an operation costs over NumPy's own call, and a training step beside PyTorch's.

``python -m benchmarks.eager`` prints CPU time (of one thread, so that other load counts little), the best of many
rounds; "on the tape" is the same where the operands require a gradient. The step is the moons workload: an MLP
2-16-16-1 with ReLU, hinge loss and L2 penalty, 100 points, SGD.
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
from graphjit.nn import functional as F

Step = Callable[[], Any]
LR, DECAY = 0.1, 1e-4


def cpu_time(f: Callable[[], Any], number: int = 200, rounds: int = 20) -> float:
    """Seconds of CPU time of one call."""
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(number):
            f()
        best = min(best, time.process_time() - start)
    return best / number


def operations(grad: bool = False) -> dict[str, tuple[Step, Step]]:
    """The same operation of graphjit and of NumPy, on small operands; ``grad``: floating ones require a gradient."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((8, 8)).astype(np.float32) for _ in range(2))
    c, d = (rng.standard_normal((2, 8, 8)).astype(np.float32) for _ in range(2))
    table = rng.standard_normal((65, 16)).astype(np.float32)
    v, mask, i, ids = a[0].copy(), a > 0, np.array([1, 3, 0]), rng.integers(0, 65, (4, 8))
    one = a[:1].copy()
    x, y, z, w, u, row, rows = (gj.tensor(array, requires_grad=grad) for array in (a, b, c, d, v, one, table))
    m, j, tokens, buffer, array = gj.tensor(mask), gj.tensor(i), gj.tensor(ids), gj.tensor(a), a.copy()
    half = np.float32(0.5)
    return {
        "add": (lambda: x + y, lambda: a + b),
        "add a number": (lambda: x + 0.5, lambda: a + half),
        "add a vector": (lambda: x + u, lambda: a + v),
        "add an array": (lambda: x + b, lambda: a + b),
        "int + number": (lambda: j + 0.5, lambda: i + 0.5),
        "divide": (lambda: x / y, lambda: a / b),
        "square": (lambda: x ** 2, lambda: a ** 2),
        "negative": (lambda: -x, lambda: -a),
        "exp": (lambda: gj.exp(x), lambda: np.exp(a)),
        "tanh": (lambda: x.tanh(), lambda: np.tanh(a)),
        "relu": (lambda: gj.relu(x), lambda: np.maximum(a, 0)),
        "maximum": (lambda: gj.maximum(x, y), lambda: np.maximum(a, b)),
        "clip": (lambda: gj.clip(x, -1, 1), lambda: np.clip(a, -1, 1)),
        "compare": (lambda: x > y, lambda: a > b),
        "and": (lambda: m & m, lambda: mask & mask),
        "where": (lambda: gj.where(m, x, 0), lambda: np.where(mask, a, np.float32(0))),
        "astype": (lambda: x.astype("float64"), lambda: a.astype("float64")),
        "sum": (lambda: x.sum(), lambda: a.sum()),
        "sum of an axis": (lambda: x.sum(0), lambda: a.sum(0)),
        "mean": (lambda: x.mean(1, keepdims=True), lambda: a.mean(1, keepdims=True)),
        "var": (lambda: x.var(0), lambda: a.var(0)),
        "std": (lambda: x.std(0), lambda: a.std(0)),
        "max": (lambda: x.max(1), lambda: a.max(1)),
        "argmax": (lambda: x.argmax(1), lambda: a.argmax(1)),
        "any": (lambda: m.any(), lambda: mask.any()),
        "cumsum": (lambda: x.cumsum(1), lambda: a.cumsum(1)),
        "softmax": (lambda: gj.softmax(x), lambda: numpy_softmax(a)),
        "reshape": (lambda: x.reshape(4, 16), lambda: a.reshape(4, 16)),
        "reshape, -1": (lambda: x.reshape(-1, 16), lambda: a.reshape(-1, 16)),
        "flatten": (lambda: z.flatten(1), lambda: c.reshape(2, 64)),
        "T": (lambda: x.T, lambda: a.T),
        "transpose": (lambda: z.transpose(0, 2, 1), lambda: c.transpose(0, 2, 1)),
        "expand_dims": (lambda: gj.expand_dims(x, 1), lambda: np.expand_dims(a, 1)),
        "squeeze": (lambda: row.squeeze(0), lambda: one.squeeze(0)),
        "broadcast_to": (lambda: u.broadcast_to((8, 8)), lambda: np.broadcast_to(v, (8, 8))),
        "flip": (lambda: gj.flip(x, 0), lambda: np.flip(a, 0)),
        "pad": (lambda: gj.pad(x, 1), lambda: np.pad(a, 1)),
        "index": (lambda: x[1], lambda: a[1]),
        "slice": (lambda: x[1:5, None], lambda: a[1:5, None]),
        "step back": (lambda: x[::-1], lambda: a[::-1]),
        "index array": (lambda: x[j], lambda: a[i]),
        "mask": (lambda: x[m], lambda: a[mask]),
        "take": (lambda: gj.take(x, j, 0), lambda: np.take(a, i, 0)),
        "embedding": (lambda: F.embedding(tokens, rows), lambda: table[ids]),
        "write a row": (lambda: buffer.__setitem__(1, 0.5), lambda: array.__setitem__(1, half)),
        "concat": (lambda: gj.concat([x, y]), lambda: np.concatenate([a, b])),
        "stack": (lambda: gj.stack([x, y]), lambda: np.stack([a, b])),
        "split": (lambda: gj.split(x, 2), lambda: np.split(a, 2)),
        "matmul": (lambda: x @ y, lambda: a @ b),
        "matrix, vector": (lambda: x @ u, lambda: a @ v),
        "vectors": (lambda: u @ u, lambda: v @ v),
        "batched matmul": (lambda: z @ w, lambda: c @ d),
        "outer": (lambda: gj.outer(u, u), lambda: np.outer(v, v)),
        "einsum": (lambda: gj.einsum("bij,bjk->bik", z, w), lambda: np.einsum("bij,bjk->bik", c, d)),
        "linear": (lambda: F.linear(x, y, u), lambda: a @ b.T + v),
        "zeros": (lambda: gj.zeros((8, 8)), lambda: np.zeros((8, 8), np.float32)),
        "arange": (lambda: gj.arange(8), lambda: np.arange(8)),
    }


def numpy_softmax(x: Any) -> Any:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


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
    print(f"{'operation':16} {'over NumPy':>10} {'on the tape':>11} {'NumPy':>8}   us of CPU time")
    on_tape = operations(grad=True)
    for name, (ours, numpys) in operations().items():
        base = cpu_time(numpys)
        print(f"{name:16} {(cpu_time(ours) - base) * 1e6:10.2f} {(cpu_time(on_tape[name][0]) - base) * 1e6:11.2f} "
              f"{base * 1e6:8.2f}")
    steps = moons()
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(20):  # in turns, so that other load meets both
        for name, step in steps.items():
            best[name] = min(best[name], cpu_time(step, 30, 1))
    for name, seconds in best.items():
        print(f"moons step, {name:9} {seconds * 1e6:7.0f}")


if __name__ == "__main__":
    main()
