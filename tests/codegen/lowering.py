"""Looking into the compiler: what a function is lowered to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import graphjit as gj
from graphjit.codegen.call import HostCall, KernelCall
from graphjit.codegen.cluster import Fusion
from graphjit.ir import Graph
from graphjit.runtime.program import Program

Array = np.ndarray[Any, Any]


def compiled(function: Callable[..., Any], *args: Any) -> gj.CompiledFunction:
    """The function, compiled and called once."""
    found = gj.compile(function)
    found(*args)
    return found


def program_of(function: Callable[..., Any], *args: Any) -> Program:
    program: Program = compiled(function, *args).latest.program
    return program


def kernels(function: Callable[..., Any], *args: Any) -> list[str]:
    """The title of each step, in order."""
    return [step.title for step in program_of(function, *args).steps]


def clusters(graph: Graph) -> list[list[str]]:
    """The ops of each cluster."""
    return [[n.op.name for n in c.members] for c in Fusion(graph).run()]


def sources(program: Program) -> list[str]:
    return [s.source for s in program.steps if isinstance(s, KernelCall) and s.source]


def is_host(step: KernelCall | HostCall) -> bool:
    return isinstance(step, HostCall)


def floats(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Array:
    return np.asarray(np.random.default_rng(seed).normal(size=shape)).astype(dtype)
