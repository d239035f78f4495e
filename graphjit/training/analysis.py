"""What a training step costs: time and memory, eager and compiled, and how they grow with size."""

from __future__ import annotations

import copy
import statistics
import time
import tracemalloc
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from graphjit.errors import ArgumentError
from graphjit.jit import CompiledFunction, compile
from graphjit.nn.module import Module
from graphjit.nn.parameter import Parameter
from graphjit.op import Array
from graphjit.optim import Optimizer
from graphjit.training.steps import Loss
from graphjit.transforms import no_grad

MakeOptimizer = Callable[[list[Parameter]], Optimizer]
Name = TypeVar("Name", bound=Hashable)
MODES = ("eager", "compiled")
FEWEST = 3   # calls that are timed, whatever the budget
TURN = 5e-3  # seconds of one function, before it is another's turn


@dataclass(frozen=True)
class Cost:
    """What a training step costs in one mode.

    Attributes:
        seconds: median time of the ``step`` and of its parts ``forward``, ``backward``, ``update``; the latter two
            are differences of what forward, forward with backward, and all take.
        samples_per_second: batch size over the time of the step.
        memory: bytes a step needs at once, beside parameters, optimizer state and the batch.
        first_call_seconds: tracing and compiling included, where there is any.
    """

    seconds: dict[str, float]
    samples_per_second: float
    memory: int
    first_call_seconds: float


@dataclass(frozen=True)
class Performance:
    """Eager and compiled training steps of a model side by side.

    Attributes:
        batch_size, parameters: how many. speedup: time of the eager step over that of the compiled one.
        kernels: the compiled step's, the longest first: ``title``, ``us``, ``share``.
    """

    batch_size: int
    parameters: int
    eager: Cost
    compiled: Cost
    speedup: float
    kernels: list[dict[str, Any]]

    def asdict(self) -> dict[str, Any]:
        """As nested dicts and lists, for JSON."""
        return asdict(self)


def performance(model: Module, loss: Loss, make_optimizer: MakeOptimizer, x: Array, y: Array, *, budget: float = 0.5,
                on_measure: Callable[[], object] = lambda: None) -> Performance:
    """Time and memory of a training step on the batch ``x, y``, eager and compiled.

    Args:
        model: copied, so that it stays as it is; measured in training mode.
        make_optimizer: makes an optimizer for a list of parameters.
        budget: seconds to spend on each of the six times, about. on_measure: called every few milliseconds.

    >>> import numpy as np, graphjit as gj
    >>> from graphjit.training.analysis import performance
    >>> found = performance(gj.nn.Linear(4, 2), gj.nn.functional.mse_loss, gj.optim.SGD, np.ones((8, 4), np.float32),
    ...                     np.ones((8, 2), np.float32), budget=0.01)
    >>> found.batch_size, found.parameters, sorted(found.compiled.seconds)
    (8, 10, ['backward', 'forward', 'step', 'update'])
    """
    parts = {mode: _parts(model, loss, make_optimizer, mode == "compiled") for mode in MODES}
    first = {mode: _seconds(lambda step=steps["step"]: step(x, y)) for mode, steps in parts.items()}  # type: ignore[misc]
    took = median_seconds({(mode, name): lambda part=part: part(x, y)  # type: ignore[misc]
                           for mode, steps in parts.items() for name, part in steps.items()}, budget, on_measure)
    compiled = parts["compiled"]["step"]
    assert isinstance(compiled, CompiledFunction)
    memory = {"eager": _peak(lambda: parts["eager"]["step"](x, y)), "compiled": compiled.latest.program.plan.size}
    costs = {}
    for mode in MODES:
        forward, gradients, step = (took[mode, name] for name in ("forward", "gradients", "step"))
        seconds = {"forward": forward, "backward": max(0.0, gradients - forward),
                   "update": max(0.0, step - gradients), "step": step}
        costs[mode] = Cost(seconds, len(x) / step, memory[mode], first[mode])
    rows = sorted(compiled.profile(x, y).rows, key=lambda row: -row.us)
    return Performance(len(x), sum(p.size for p in model.parameters()), costs["eager"], costs["compiled"],
                       took["eager", "step"] / took["compiled", "step"],
                       [{"title": row.title, "us": row.us, "share": row.share} for row in rows])


def _parts(model: Module, loss: Loss, make_optimizer: MakeOptimizer,
           compiled: bool) -> dict[str, Callable[[Array, Array], Any]]:
    """The forward pass, that with gradients, and the whole step, of a copy of the model."""
    model = copy.deepcopy(model).train()
    parameters = list(model.parameters())
    optimizer = make_optimizer(parameters)

    def forward(x: Array, y: Array) -> Any:
        with no_grad():
            return loss(model(x), y)

    def gradients(x: Array, y: Array) -> Any:
        optimizer.zero_grad()
        loss(model(x), y).backward()
        return [p.grad for p in parameters]  # what is not returned would not be computed

    def step(x: Array, y: Array) -> Any:
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        optimizer.step()
        return value

    parts: dict[str, Callable[[Array, Array], Any]] = {"forward": forward, "gradients": gradients, "step": step}
    return {name: compile(part) for name, part in parts.items()} if compiled else parts


def median_seconds(calls: Mapping[Name, Callable[[], object]], budget: float,
                   on_measure: Callable[[], object] = lambda: None) -> dict[Name, float]:
    """The median time of each call. They take turns, so that what else the machine does falls on all alike.

    Args:
        calls: by name. budget: seconds to spend on each, about; each is made at least three times.
        on_measure: called after each turn.
    """
    times: dict[Name, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()  # the first one may trace and compile
    begin = now = time.perf_counter()
    while now - begin < budget * len(calls) or min(map(len, times.values())) < FEWEST:
        for name, call in calls.items():
            turn = now
            while True:
                call()
                before, now = now, time.perf_counter()
                times[name].append(now - before)
                if now - turn >= TURN:
                    break
            on_measure()
            now = time.perf_counter()
    return {name: statistics.median(found) for name, found in times.items()}


def _seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def _peak(call: Callable[[], object]) -> int:
    """Bytes that a call allocates and holds at once. NumPy tells ``tracemalloc`` of its arrays."""
    running = tracemalloc.is_tracing()
    if not running:
        tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        call()
        return max(0, tracemalloc.get_traced_memory()[1] - before)
    finally:
        if not running:
            tracemalloc.stop()


@dataclass(frozen=True)
class Scaling:
    """How the time of a training step grows.

    Attributes:
        what: what was made larger. sizes: how large. parameters: of the model at each size.
        seconds: for "eager" and "compiled" the median time of a step at each size.
    """

    what: str
    sizes: list[int]
    parameters: list[int]
    seconds: dict[str, list[float]]

    def asdict(self) -> dict[str, Any]:
        """As nested dicts and lists, for JSON."""
        return asdict(self)


def scaling(what: str, sizes: Sequence[int], problem: Callable[[int], tuple[Module, Array, Array]], loss: Loss,
            make_optimizer: MakeOptimizer, *, budget: float = 0.3,
            on_measure: Callable[[], object] = lambda: None) -> Scaling:
    """The time of a training step at several sizes, eager and compiled.

    Args:
        what: a name for what grows, "batch size" for example.
        problem: gives the model and the batch ``x, y`` for a size.
        loss, make_optimizer: as for ``performance``.
        budget: seconds to spend on each time, about. on_measure: called after each size.

    Raises:
        ArgumentError: no sizes.
    """
    if not sizes:
        raise ArgumentError("scaling needs sizes to measure")
    parameters: list[int] = []
    seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
    for size in sizes:
        model, x, y = problem(size)
        parameters.append(sum(p.size for p in model.parameters()))
        steps = {mode: _parts(model, loss, make_optimizer, mode == "compiled")["step"] for mode in MODES}
        took = median_seconds({mode: lambda step=step, x=x, y=y: step(x, y)  # type: ignore[misc]
                               for mode, step in steps.items()}, budget)
        for mode in MODES:
            seconds[mode].append(took[mode])
        on_measure()
    return Scaling(what, list(sizes), parameters, seconds)
