"""Functions that must give, compiled, what they give eagerly: values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import graphjit as gj
from graphjit.ir import Apply

Array = np.ndarray[Any, Any]


def all_gradients(function: Callable[..., Any], arrays: list[Array]) -> list[Any]:
    """The result, and gradients by all arguments."""
    xs = [gj.tensor(a).requires_grad_() for a in arrays]
    out = function(*xs)
    (out * gj.sin(out)).sum().backward()
    return [out, *(x.grad for x in xs)]


def agree(functions: list[Callable[..., Any]], arrays: list[list[Array]], eps: float) -> None:
    """Compiled, all in one program, they give what they give eagerly."""
    flat = [a for each in arrays for a in each]

    def everything(*flat: Any) -> list[Any]:
        rest = iter(flat)
        return [all_gradients(f, [next(rest) for _ in each]) for f, each in zip(functions, arrays, strict=True)]

    for found, wanted in zip(gj.compile(everything)(*flat), everything(*flat), strict=True):
        for a, b in zip(found, wanted, strict=True):
            assert a.dtype == b.dtype and a.shape == b.shape
            scale = float(np.abs(b.numpy()).max(initial=1e-30))
            np.testing.assert_allclose(a.numpy(), b.numpy(), atol=eps * scale, rtol=eps)


def names(function: Callable[..., Any], *arrays: Array) -> list[str]:
    compiled = gj.compile(function)
    compiled(*arrays)
    return [n.op.name for n in compiled.latest.program.lowered.graph.nodes if isinstance(n, Apply)]
