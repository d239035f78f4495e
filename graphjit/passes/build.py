"""Nodes that several passes make, each for the sake of another node, from which it has its place in the user's file."""

from __future__ import annotations

from graphjit.errors import Where
from graphjit.ir import Apply, Node, apply_op
from graphjit.op import TABLE
from graphjit.types import Shape


def reshaped(x: Node, shape: Shape, where: Node) -> Node:
    return apply_op(TABLE["reshape"], (x,), {"shape": tuple(shape)}, _place(where))


def permuted(x: Node, axes: tuple[int, ...], where: Node) -> Node:
    """x itself where its axes are in this order."""
    if axes == tuple(range(len(axes))):
        return x
    return apply_op(TABLE["permute_dims"], (x,), {"axes": axes}, _place(where))


def applied(name: str, where: Node, *args: Node) -> Node:
    """An op without parameters."""
    return apply_op(TABLE[name], args, {}, _place(where))


def copied(x: Node, where: Node) -> Node:
    return applied("copy", where, x)


def _place(node: Node) -> Where | None:
    return node.where if isinstance(node, Apply) else None
