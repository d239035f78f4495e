"""The verifier: re-runs each shape rule."""

from __future__ import annotations

from graphjit.errors import InternalCompilerError
from graphjit.ir.graph import Apply, Graph, Input
from graphjit.op import TABLE
from graphjit.types import TensorType


def verify(graph: Graph) -> Graph:
    """The graph itself, if every node has the type its op's rule gives and every input is declared.

    Raises:
        InternalCompilerError: naming the node that does not hold. ArgumentError: the graph has a cycle.
    """
    declared = set(graph.inputs)
    for node in graph.nodes:
        if isinstance(node, Input):
            if node not in declared:
                raise InternalCompilerError(f"graph input {node.name!r} is used but not declared")
        elif isinstance(node, Apply):
            if TABLE.get(node.op.name) is not node.op:
                raise InternalCompilerError(f"op {node.op.name!r} is not in the table")
            want = node.op.infer(*(a.type for a in node.args), **node.kwargs)
            if not same_type(want, node.type):
                raise InternalCompilerError(
                    f"node {node.op.name} has type {node.type}, its shape rule gives {want}", where=node.where)
    return graph


def same_type(a: TensorType, b: TensorType) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype
