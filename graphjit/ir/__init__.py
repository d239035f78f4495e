"""The graph and what can be said of one without compiling it."""

from graphjit.ir.graph import Apply, Const, Graph, Input, Node, apply_op, rewrite, topological, users
from graphjit.ir.interpret import interpret
from graphjit.ir.show import show, to_dot
from graphjit.ir.verify import verify

__all__ = ["Apply", "Const", "Graph", "Input", "Node", "apply_op", "interpret", "rewrite", "show", "to_dot",
           "topological", "users", "verify"]
