"""The frameworks that are measured: one row for each form a step can take in them.

A room ``<name>_.py`` has ``build(workload, form) -> Runner`` and imports its framework when it is imported itself;
it raises ``Unsupported`` for a workload that the framework cannot express.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.kinds import Workload


class Unsupported(Exception):
    """The framework, or this form of it, has no idiomatic way to compute the workload."""


@dataclass(frozen=True)
class Runner:
    """A workload ready to run in one framework.

    Attributes:
        step: one call; state moves on. What it gives may be a promise.
        numbers: what a call gave, as numbers to compare: the loss, or the value and sums of the gradients.
        resized: one call with another batch size.
        wait: blocks until the result of a call is there.
        steps: training steps that one call makes.
        compiled: seconds that building it spent on compiling, for a framework that does not wait for the first call.
        alone: makes a step like this one that keeps to one thread.
    """

    step: Callable[[], Any]
    numbers: Callable[[Any], list[float]]
    resized: Callable[[], Any] | None = None
    wait: Callable[[Any], Any] = lambda result: None
    steps: int = 1
    compiled: float = 0.0
    alone: Callable[[], Runner] | None = None


@dataclass(frozen=True)
class Peer:
    """A framework in one form.

    Attributes:
        family: the forms of a framework that share a bar and are chosen together.
        package: what has to be installed.
        room: the module of this folder that builds its steps.
        form: which of the room's forms.
        cached: keeps compiled code on disk, so that a second process starts warm.
        slow: compiles for many seconds; runs only the workloads that ask for it, or with ``--all``.
        contest: stands for "the best peer"; not graphjit itself, nor several steps in one call.
        only: kinds of workloads it makes sense for; empty for all.
    """

    name: str
    title: str
    family: str
    package: str
    room: str
    form: str = ""
    cached: bool = False
    slow: bool = False
    contest: bool = True
    only: tuple[str, ...] = ()

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None

    def build(self, workload: Workload) -> Runner:
        """Raises: Unsupported, or whatever the framework raises."""
        runner: Runner = importlib.import_module(f"benchmarks.peers.{self.room}").build(workload, self.form)
        return runner

    def takes(self, workload: Workload, everything: bool = False) -> bool:
        """Whether it is measured on this workload."""
        if self.only and type(workload).__name__ not in self.only:
            return False
        return everything or not self.slow or self.name in workload.slow


PEERS: dict[str, Peer] = {peer.name: peer for peer in (
    Peer("graphjit", "graphjit", "graphjit", "graphjit", "graphjit_", "compiled", cached=True, contest=False),
    Peer("eager", "graphjit eager", "eager", "graphjit", "graphjit_", "eager", contest=False),
    Peer("jax", "JAX jit", "jax", "jax", "jax_", "step", cached=True),
    Peer("jax-nhwc", "JAX jit, NHWC", "jax", "jax", "jax_", "nhwc", cached=True, only=("ConvNet",)),
    Peer("jax-scan", "JAX, 16 steps in one scan", "jax", "jax", "jax_", "scan", contest=False),
    Peer("torch", "PyTorch eager", "torch", "torch", "torch_", "eager"),
    Peer("torch.compile", "torch.compile, loss", "torch.compile", "torch", "torch_", "compile", cached=True, slow=True),
    Peer("torch.func", "torch.compile, whole step", "torch.compile", "torch", "torch_", "func", cached=True, slow=True),
    Peer("pytensor", "PyTensor Numba", "pytensor", "pytensor", "pytensor_", cached=True, slow=True),
    Peer("mygrad", "MyGrad", "mygrad", "mygrad", "mygrad_"),
    Peer("numpy", "NumPy by hand", "numpy", "numpy", "numpy_", only=("Mlp", "Chain")),
)}


def choose(names: Sequence[str]) -> list[Peer]:
    """Peers by the name of a form or of a family: "jax" is all its forms. No names: all peers.

    Raises:
        KeyError: nothing has that name.
    """
    known = {name for peer in PEERS.values() for name in (peer.name, peer.family)}
    for name in names:
        if name not in known:
            raise KeyError(name)
    return [p for p in PEERS.values() if not names or p.name in names or p.family in names]
