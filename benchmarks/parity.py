"""How far graphjit is from PyTorch, in float64: every layer, loss, optimizer and schedule, eager and compiled.

    python -m benchmarks.parity            # the table; a star marks what is above the limit
    python -m benchmarks.parity --eager    # without the compiled column

A difference is the largest of ``abs(ours - theirs) / max(1, abs(theirs))`` over everything compared: for a layer
its outputs, the gradients of inputs and parameters and its buffers, twice in training and once in evaluation,
after loading PyTorch's ``state_dict`` (and loading ours back); for a loss its value and gradients; for an optimizer
the parameters after each of 10 steps; for a schedule the learning rates of 30 epochs.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import graphjit as gj
from benchmarks.parity_cases import LAYERS, LOSSES, OPTIMIZERS, SCHEDULES, Array, Layer, Schedule, Update
from graphjit import nn, optim

LIMIT = 1e-10
Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


def eager(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def difference(ours: Any, theirs: Any) -> float:
    """The largest distance between two equally nested results; infinite where one has what the other lacks."""
    import torch

    if theirs is None or ours is None:
        return 0.0 if ours is theirs else np.inf
    if isinstance(theirs, (tuple, list)):
        if len(ours) != len(theirs):
            return np.inf
        return max((difference(a, b) for a, b in zip(ours, theirs, strict=True)), default=0.0)
    b = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else np.asarray(theirs)
    a = ours.numpy() if isinstance(ours, gj.Tensor) else np.asarray(ours)
    if a.shape != b.shape or a.dtype != b.dtype:
        return np.inf
    found = np.abs(a - b) / np.maximum(1, np.abs(b)) if b.size else np.zeros(1)
    return float(np.nan_to_num(found, nan=np.inf).max())


def tensors(tree: Any) -> list[Any]:
    """The tensors of nested tuples, in order."""
    if isinstance(tree, (tuple, list)):
        return [t for part in tree for t in tensors(part)]
    return [] if tree is None else [tree]


def layer_difference(case: Layer, wrap: Wrap = eager) -> float:
    import torch

    def argument(value: Any) -> Any:
        return torch.tensor(value) if isinstance(value, np.ndarray) else value
    ours: Any = getattr(nn, case.name)(*case.args, **case.options)
    theirs: Any = getattr(torch.nn, case.name)(*case.args, **{k: argument(v) for k, v in case.options.items()}).double()
    if list(ours.state_dict()) != list(theirs.state_dict()):
        return np.inf
    ours.double().load_state_dict(theirs.state_dict())
    arrays, floating = case.inputs, [x.dtype.kind == "f" for x in case.inputs]

    def packed(xs: list[Any]) -> list[Any]:
        return [xs[0], tuple(xs[1:])] if case.name == "LSTM" and len(xs) > 1 else xs  # its states are a pair

    def run(*given: Any) -> Any:
        ours.zero_grad()
        xs = [gj.tensor(x, requires_grad=f) for x, f in zip(given, floating, strict=True)]
        out = ours(*packed(xs), **case.call)
        found = tensors(out)
        sum((o * g).sum() for o, g in zip(found, projections, strict=True)).backward()
        return found, [x.grad for x in xs], [p.grad for p in ours.parameters()]

    def run_theirs() -> Any:
        theirs.zero_grad()
        xs = [torch.tensor(x, requires_grad=f) for x, f in zip(arrays, floating, strict=True)]
        found = tensors(theirs(*packed(xs), **{k: argument(v) for k, v in case.call.items()}))
        if not projections:
            projections.extend(np.random.default_rng(1).normal(size=o.shape) for o in found)
        if any(o.requires_grad for o in found):
            sum((o * torch.tensor(g)).sum() for o, g in zip(found, projections, strict=True)).backward()
        return found, [x.grad for x in xs], [p.grad for p in theirs.parameters()]

    projections: list[Array] = []
    worst, step = 0.0, wrap(run)
    for mode in (True, True, False):
        ours.train(mode)
        theirs.train(mode)
        wanted = run_theirs()
        worst = max(worst, difference(step(*arrays), wanted),
                    difference(list(ours.state_dict().values()), list(theirs.state_dict().values())))
    theirs.load_state_dict({name: torch.tensor(t.numpy()) for name, t in ours.state_dict().items()})
    return worst


STARTS = np.array([[0.5, -1.0], [2.0, 0.3], [-0.7, 1.1]]), np.array([1.5, -0.4, 0.2, 0.9])


def optimizer_difference(case: Update, wrap: Wrap = eager, steps: int = 10) -> float:
    import torch

    ours = [nn.Parameter(s) for s in STARTS]
    theirs = [torch.nn.Parameter(torch.tensor(s)) for s in STARTS]
    lr = {"LBFGS": 0.3, "Adagrad": 0.3}.get(case.name, 0.05)
    a = getattr(optim, case.name)([{"params": ours[:1]}, {"params": ours[1:], "lr": lr / 2}]
                                  if case.name != "LBFGS" else ours, lr=lr, **case.options)
    b = getattr(torch.optim, case.name)([{"params": theirs[:1]}, {"params": theirs[1:], "lr": lr / 2}]
                                        if case.name != "LBFGS" else theirs, lr=lr, **case.options)

    def loss(p: Any, q: Any, x: Any) -> Any:
        return (p * x).sin().sum() + (q * q).cos().sum()  # bounded, so that it can be climbed too

    def closure() -> Any:
        a.zero_grad()
        found = loss(*ours, x)
        found.backward()
        return found

    def other() -> Any:
        b.zero_grad()
        found = loss(*theirs, torch.tensor(x))
        found.backward()
        return found

    def update(x: Any) -> None:
        a.zero_grad()
        loss(*ours, x).backward()
        a.step()
    step, worst, rng = wrap(update), 0.0, np.random.default_rng(2)
    for _ in range(steps):
        x = rng.normal(size=(3, 2)) if case.name != "LBFGS" else np.ones((3, 2))
        if case.name == "LBFGS":
            a.step(closure)
            b.step(other)
        else:
            step(x)
            other()
            b.step()
        worst = max(worst, difference([p.detach() for p in ours], theirs))
    return worst


def scheduler_difference(case: Schedule, wrap: Wrap = eager, epochs: int = 30) -> float:
    """Steps of the optimizer run between those of the schedule, so that ``wrap`` counts here too."""
    import torch

    p, q = nn.Parameter(np.ones(2)), torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    a: Any = getattr(optim, case.optimizer)([p], lr=0.2)
    b: Any = getattr(torch.optim, case.optimizer)([q], lr=0.2)
    if case.optimizer == "SGD" and case.name == "OneCycleLR":
        a.momentum = 0.9
        b.param_groups[0]["momentum"] = 0.9

    def build(module: Any, optimizer: Any, it: Schedule) -> Any:
        parts = [build(module, optimizer, part) for part in it.parts]
        return getattr(module, it.name)(optimizer, *([parts] if parts else []), **it.options)

    def update() -> None:
        a.zero_grad()
        (p * p).sum().backward()
        a.step()
    step, worst = wrap(update), 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of its own SequentialLR
        mine, its = build(optim.lr_scheduler, a, case), build(torch.optim.lr_scheduler, b, case)
        for epoch in range(epochs):
            step()
            b.zero_grad()
            (q * q).sum().backward()
            b.step()
            value = [float(np.cos(epoch) / (1 + epoch // 6))] if case.name == "ReduceLROnPlateau" else []
            mine.step(*value)
            its.step(*value)
            worst = max(worst, difference(mine.get_last_lr(), [float(v) for v in its.get_last_lr()]),
                        difference(_numbers(a), _numbers(b)), difference(p.detach(), q))
    return worst


def _numbers(optimizer: Any) -> list[float]:
    group = optimizer.param_groups[0]
    return [float(group["lr"]), *(float(v) for v in group.get("betas", [group.get("momentum", 0.0)]))]


SECTIONS: list[tuple[str, list[Any], Callable[..., float]]] = [
    ("layers", LAYERS, layer_difference), ("losses", LOSSES, layer_difference),
    ("optimizers, 10 steps", OPTIMIZERS, optimizer_difference),
    ("schedules, 30 epochs", SCHEDULES, scheduler_difference),
]


def compilable(case: Any) -> bool:
    """Whether there is a compiled form: L-BFGS asks for values, and is eager only."""
    return case.name != "LBFGS"


def table(modes: Iterable[tuple[str, Wrap]]) -> bool:
    """Print the table; gives whether all are within the limit."""
    modes, good, count = list(modes), True, 0
    for title, cases, measure in SECTIONS:
        print(f"\n{title:<88}" + "".join(f"{name:>11}" for name, _ in modes))
        worst = [0.0] * len(modes)
        for case in cases:
            found = [measure(case, wrap) if name == "eager" or compilable(case) else None for name, wrap in modes]
            print(f"  {case!s:<86.86}" + "".join(
                f"{'-':>11}" if d is None else f"{d:>10.1e}{' ' if d <= LIMIT else '*'}" for d in found), flush=True)
            worst = [max(w, d or 0.0) for w, d in zip(worst, found, strict=True)]
            count += 1
        print(f"  {'largest':<86}" + "".join(f"{w:>10.1e} " for w in worst))
        good = good and max(worst) <= LIMIT
    print(f"\n{count} cases, float64, limit {LIMIT:.0e}: " + ("all within" if good else "SOME ABOVE"))
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description="Differences from PyTorch, in float64.")
    parser.add_argument("--eager", action="store_true", help="leave out the compiled column")
    chosen = parser.parse_args()
    return 0 if table([("eager", eager), *([] if chosen.eager else [("compiled", gj.compile)])]) else 1


if __name__ == "__main__":
    sys.exit(main())
