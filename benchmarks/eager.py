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
    } | more_operations(x, y, z, u, m, j, a, b, c, v, mask, i)


def more_operations(x: Any, y: Any, z: Any, u: Any, m: Any, j: Any,
                    a: Any, b: Any, c: Any, v: Any, mask: Any, i: Any) -> dict[str, tuple[Step, Step]]:
    """The same of what is called less often; the tensors x, y, z, u, m, j are of the arrays a, b, c, v, mask, i."""
    half, places, cells = np.float32(0.5), np.argmax(a, 1)[:, None], np.arange(8)
    picks, order, labels, one = gj.tensor(places), gj.tensor(cells), gj.tensor(cells), np.float32(1)
    pair, image, window = a.reshape(4, 2, 8), c[:, :, :, None].repeat(8, 3), a[:, :3].reshape(1, 8, 3).repeat(8, 0)
    signal, taps, pixels = gj.tensor(pair), gj.tensor(window), gj.tensor(image)
    square = abs(a @ a.T) + 80 * np.eye(8, dtype=np.float32)
    s, rng, generator = gj.tensor(square), np.random.default_rng(0), gj.random.Generator(0)
    written, buffer = a.copy(), gj.tensor(a)

    def layer_norm(x: Any) -> Any:
        apart = x - x.mean(-1, keepdims=True)
        return apart / np.sqrt((apart * apart).mean(-1, keepdims=True) + 1e-5)

    def cross_entropy(x: Any, labels: Any) -> Any:
        apart = x - x.max(1, keepdims=True)
        return (np.log(np.exp(apart).sum(1)) - apart[np.arange(8), labels]).mean()

    def conv1d(x: Any, taps: Any) -> Any:
        windows = np.lib.stride_tricks.sliding_window_view(x, 3, 2)
        return np.einsum("bclk,ock->bol", windows, taps)

    def max_pool(x: Any) -> Any:
        return x.reshape(2, 8, 4, 2, 4, 2).max((3, 5))

    def scatter(x: Any, at: Any, rows: Any) -> Any:
        out = x.copy()
        np.add.at(out, at, rows)
        return out

    def write(out: Any, at: Any, value: Any) -> None:
        out[at] = value
    return {
        "x - number": (lambda: 1 - x, lambda: one - a),
        "power": (lambda: x ** 3.0, lambda: a ** np.float32(3)),
        "remainder": (lambda: x % 2, lambda: a % np.float32(2)),
        "sqrt": (lambda: gj.sqrt(s), lambda: np.sqrt(square)),
        "log": (lambda: gj.log(u.exp()), lambda: np.log(np.exp(v))),
        "sigmoid": (lambda: gj.sigmoid(x), lambda: 1 / (1 + np.exp(-a))),
        "abs": (lambda: abs(x), lambda: np.abs(a)),
        "sign": (lambda: gj.sign(x), lambda: np.sign(a)),
        "round": (lambda: gj.round(x), lambda: np.round(a)),
        "isnan": (lambda: gj.isnan(x), lambda: np.isnan(a)),
        "not": (lambda: ~m, lambda: ~mask),
        "logical_and": (lambda: gj.logical_and(m, m), lambda: np.logical_and(mask, mask)),
        "masked_fill": (lambda: gj.masked_fill(x, m, 0.0), lambda: np.where(mask, np.float32(0), a)),
        "gelu": (lambda: F.gelu(x, "tanh"), lambda: half * a * (1 + np.tanh(0.797885 * (a + 0.044715 * a**3)))),
        "silu": (lambda: F.silu(x), lambda: a / (1 + np.exp(-a))),
        "leaky_relu": (lambda: F.leaky_relu(x), lambda: np.where(a > 0, a, a * np.float32(0.01))),
        "prod": (lambda: x.prod(0), lambda: a.prod(0)),
        "min": (lambda: x.min(), lambda: a.min()),
        "all": (lambda: m.all(1), lambda: mask.all(1)),
        "count_nonzero": (lambda: gj.count_nonzero(x), lambda: np.count_nonzero(a)),
        "argmin": (lambda: x.argmin(), lambda: a.argmin()),
        "cumprod": (lambda: x.cumprod(0), lambda: a.cumprod(0)),
        "logsumexp": (lambda: gj.logsumexp(x, 1), lambda: np.log(np.exp(a - a.max(1, keepdims=True)).sum(1))),
        "log_softmax": (lambda: gj.log_softmax(x), lambda: np.log(numpy_softmax(a))),
        "norm": (lambda: gj.linalg.norm(x), lambda: np.linalg.norm(a)),
        "norm of rows": (lambda: gj.linalg.norm(x, axis=1), lambda: np.linalg.norm(a, axis=1)),
        "layer_norm": (lambda: F.layer_norm(x, 8), lambda: layer_norm(a)),
        "mse_loss": (lambda: F.mse_loss(x, y), lambda: ((a - b) ** 2).mean()),
        "cross_entropy": (lambda: F.cross_entropy(x, labels), lambda: cross_entropy(a, cells)),
        "conv1d": (lambda: F.conv1d(signal, taps[:, :2]), lambda: conv1d(pair, window[:, :2])),
        "max_pool2d": (lambda: F.max_pool2d(pixels, 2), lambda: max_pool(image)),
        "swapaxes": (lambda: z.swapaxes(0, 2), lambda: c.swapaxes(0, 2)),
        "moveaxis": (lambda: gj.moveaxis(z, 0, -1), lambda: np.moveaxis(c, 0, -1)),
        "permute_dims": (lambda: z.permute_dims((2, 0, 1)), lambda: c.transpose(2, 0, 1)),
        "roll": (lambda: gj.roll(x, 1, 0), lambda: np.roll(a, 1, 0)),
        "repeat": (lambda: gj.repeat(x, 2, 0), lambda: a.repeat(2, 0)),
        "tile": (lambda: gj.tile(x, (2, 1)), lambda: np.tile(a, (2, 1))),
        "unstack": (lambda: gj.unstack(z), lambda: list(c)),
        "split at": (lambda: gj.split(x, [2, 5], 1), lambda: np.split(a, [2, 5], 1)),
        "meshgrid": (lambda: gj.meshgrid(u, u), lambda: np.meshgrid(v, v)),
        "tril": (lambda: gj.tril(x), lambda: np.tril(a)),
        "diag": (lambda: gj.diag(x), lambda: np.diag(a)),
        "diagonal": (lambda: gj.linalg.diagonal(z), lambda: np.linalg.diagonal(c)),
        "trace": (lambda: gj.linalg.trace(x), lambda: np.trace(a)),
        "index a column": (lambda: x[:, 1], lambda: a[:, 1]),
        "index an element": (lambda: x[1, 2], lambda: a[1:2, 2]),
        "index ..., 1": (lambda: z[..., 1], lambda: c[..., 1]),
        "columns by array": (lambda: x[:, j], lambda: a[:, i]),
        "index two arrays": (lambda: x[j, j], lambda: a[i, i]),
        "index a list": (lambda: x[[1, 3, 0]], lambda: a[[1, 3, 0]]),
        "index NumPy's": (lambda: x[i], lambda: a[i]),
        "index a condition": (lambda: x[x > 0], lambda: a[a > 0]),
        "write a slice": (lambda: buffer.__setitem__(slice(1, 3), 0.5), lambda: write(written, slice(1, 3), half)),
        "write by array": (lambda: buffer.__setitem__(j, 0.5), lambda: write(written, i, half)),
        "write by mask": (lambda: buffer.__setitem__(m, 0.5), lambda: write(written, mask, half)),
        "take_along_axis": (lambda: gj.take_along_axis(x, picks, 1), lambda: np.take_along_axis(a, places, 1)),
        "scatter_add": (lambda: gj.scatter_add(x, order, y), lambda: scatter(a, cells, b)),
        "sort": (lambda: gj.sort(x), lambda: np.sort(a, kind="stable")),
        "argsort": (lambda: gj.argsort(x), lambda: np.argsort(a, kind="stable")),
        "topk": (lambda: gj.topk(x, 2), lambda: np.argsort(-a, kind="stable")[:, :2]),
        "searchsorted": (lambda: gj.searchsorted(order, j), lambda: np.searchsorted(cells, i)),
        "vecdot": (lambda: gj.vecdot(x, y), lambda: np.vecdot(a, b)),
        "tensordot": (lambda: gj.tensordot(x, y, 1), lambda: np.tensordot(a, b, 1)),
        "einsum ij,ij->i": (lambda: gj.einsum("ij,ij->i", x, y), lambda: np.einsum("ij,ij->i", a, b)),
        "inv": (lambda: gj.linalg.inv(s), lambda: np.linalg.inv(square)),
        "solve": (lambda: gj.linalg.solve(s, u), lambda: np.linalg.solve(square, v)),
        "det": (lambda: gj.linalg.det(s), lambda: np.linalg.det(square)),
        "cholesky": (lambda: gj.linalg.cholesky(s), lambda: np.linalg.cholesky(square)),
        "qr": (lambda: gj.linalg.qr(x), lambda: np.linalg.qr(a)),
        "eigh": (lambda: gj.linalg.eigh(s), lambda: np.linalg.eigh(square)),
        "svd": (lambda: gj.linalg.svd(x), lambda: np.linalg.svd(a, full_matrices=False)),
        "tensor": (lambda: gj.tensor(a), lambda: np.array(a)),
        "tensor of a list": (lambda: gj.tensor([1.0, 2.0]), lambda: np.array([1.0, 2.0], np.float32)),
        "detach": (lambda: x.detach(), lambda: a.view()),
        "ones": (lambda: gj.ones((8, 8)), lambda: np.ones((8, 8), np.float32)),
        "full": (lambda: gj.full((8, 8), 2.0), lambda: np.full((8, 8), 2.0, np.float32)),
        "zeros_like": (lambda: gj.zeros_like(x), lambda: np.zeros_like(a)),
        "eye": (lambda: gj.eye(8), lambda: np.eye(8, dtype=np.float32)),
        "linspace": (lambda: gj.linspace(0, 1, 8), lambda: np.linspace(0, 1, 8, dtype=np.float32)),
        "one_hot": (lambda: gj.one_hot(labels, 8), lambda: np.eye(8, dtype=np.float32)[cells]),
        "uniform": (lambda: gj.uniform((8, 8), generator=generator), lambda: rng.random((8, 8), np.float32)),
        "normal": (lambda: gj.normal((8, 8), generator=generator), lambda: rng.standard_normal((8, 8), np.float32)),
        "randint": (lambda: gj.randint(0, 9, (8, 8), generator=generator), lambda: rng.integers(0, 9, (8, 8))),
        "permutation": (lambda: gj.permutation(8, generator=generator), lambda: rng.permutation(8)),
        "dropout": (lambda: F.dropout(x, 0.5), lambda: a * (rng.random((8, 8), np.float32) < half) * 2),
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
