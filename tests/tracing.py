"""A function run as compiled code runs, without a compiler: traced, verified, interpreted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphjit.ir.interpret import interpret
from graphjit.ir.verify import verify
from graphjit.tensor import Tensor, value_of
from graphjit.trace import Trace, tracing
from graphjit.tree import flatten, unflatten
from graphjit.types import TensorType


def traced(f: Callable[..., Any], *args: Any) -> Any:
    """``f(*args)`` by way of its graph; arrays in the arguments become inputs, results are arrays."""
    leaves, spec = flatten(args)
    trace = Trace()
    with tracing(trace):
        inside = [Tensor._of(trace.argument(TensorType(x.shape, x.dtype), f"x{i}"))
                  if isinstance(x, np.ndarray) else x for i, x in enumerate(leaves)]
        out, out_spec = flatten(f(*unflatten(spec, inside)))
        nodes = [value_of(t).data for t in out]
    given = [x for x in leaves if isinstance(x, np.ndarray)]
    states = [s.tensor._value.data for s in trace.states.values()]
    arrays = [array for array, _ in trace.arrays.values()]
    found = interpret(verify(trace.graph(nodes)), [*given, *states, *arrays])
    for s, array in zip(trace.written(), found[len(nodes):], strict=True):
        s.tensor.assign(array)
    return unflatten(out_spec, found[:len(nodes)])
