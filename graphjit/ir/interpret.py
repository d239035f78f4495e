"""What a graph means: each node's eager rule, operands first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphjit.ir.graph import Apply, Const, Graph, Node
from graphjit.op import Array


def interpret(graph: Graph, inputs: Sequence[Array]) -> list[Array]:
    """The outputs for these inputs; every pass and kernel is correct when it agrees with this."""
    values: dict[Node, Array] = dict(zip(graph.inputs, inputs, strict=True))
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            if isinstance(node, Const):
                values[node] = node.value
            elif isinstance(node, Apply):
                values[node] = np.asarray(node.op.eager(*(values[a] for a in node.args), **node.kwargs))
    return [values[o] for o in graph.outputs]
