"""Graphs as text and as DOT."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.ir.graph import Apply, Const, Graph, Input, Node


def names(graph: Graph) -> dict[Node, str]:
    """A short name for each node: inputs by their own, constants by value, the rest %0, %1, ..."""
    out: dict[Node, str] = {}
    for i, given in enumerate(graph.inputs):
        out[given] = given.name or f"in{i}"
    count = 0
    for node in graph.nodes:
        match node:
            case Const(value):
                out[node] = constant_text(value)
            case Apply():
                out[node] = f"%{count}"
                count += 1
    return out


def constant_text(value: np.ndarray[Any, Any]) -> str:
    if value.ndim == 0:
        return f"{value[()]:.6g}" if value.dtype.kind == "f" else str(value[()])
    return f"const {value.dtype.name}{list(value.shape)}"


def params_text(node: Apply) -> str:
    return ", ".join(f"{k}={v}" for k, v in node.params)


def show(graph: Graph) -> str:
    """One line a node, with its type and the user's line.

    ``%2: float32[3] = add(%0, %1)  # train.py:14``
    """
    name = names(graph)
    lines = [f"graph({', '.join(f'{name[n]}: {n.type}' for n in graph.inputs)}) {{"]
    for node in graph.nodes:
        if isinstance(node, Apply):
            args = ", ".join([name[a] for a in node.args] + ([params_text(node)] if node.params else []))
            where = f"  # {node.where}" if node.where else ""
            lines.append(f"  {name[node]}: {node.type} = {node.op.name}({args}){where}")
    lines.append(f"  return {', '.join(name[o] for o in graph.outputs)}")
    return "\n".join([*lines, "}"])


def dot_text(text: str, special: str = "") -> str:
    """A text for a quoted string of DOT, and with further characters behind backslashes."""
    kept = "".join("\\" + c if c in '\\"' or c in special else c if c.isprintable() else " " for c in text)
    return kept.replace("&", "&amp;")


def to_dot(graph: Graph) -> str:
    """The graph in Graphviz's DOT language: boxes are inputs, ellipses ops."""
    name = names(graph)
    ident = {node: f"n{i}" for i, node in enumerate(dict.fromkeys([*graph.inputs, *graph.nodes]))}
    lines = ["digraph graph_ {", "  rankdir=LR;", '  node [fontname="sans-serif", fontsize=10];']
    for node, key in ident.items():
        if isinstance(node, Apply):
            label, shape = f"{node.op.name}\\n{node.type}", "ellipse"
        else:
            label, shape = f"{dot_text(name[node])}\\n{node.type}", "box" if isinstance(node, Input) else "plaintext"
        lines.append(f'  {key} [label="{label}", shape={shape}];')
        if isinstance(node, Apply):
            lines.extend(f"  {ident[a]} -> {key};" for a in node.args)
    for i, node in enumerate(graph.outputs):
        lines.append(f'  out{i} [label="output {i}", shape=box, style=bold];')
        lines.append(f"  {ident[node]} -> out{i};")
    return "\n".join([*lines, "}"])
