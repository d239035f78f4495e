"""Nested containers of arguments and results (pytrees): tuples, lists, dicts, named tuples, dataclasses.

None is a container of nothing. The work is optree's; dataclasses are made known to it when first met.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Hashable, Iterable
from typing import Any

import optree

from graphjit.errors import ArgumentError

Spec = optree.PyTreeSpec

_NAMESPACE = "graphjit"
_known: set[type] = set()
_lock = threading.Lock()


def flatten(tree: Any) -> tuple[list[Any], Spec]:
    """The leaves of nested containers (dicts in the order of their keys), and how to put them together again.

    >>> flatten({"b": [1, None], "a": 2})[0]
    [2, 1]
    """
    while True:
        leaves, spec = optree.tree_flatten(tree, namespace=_NAMESPACE)
        new = {type(leaf) for leaf in leaves if dataclasses.is_dataclass(leaf) and _is_container(leaf)}
        if not new:
            return leaves, spec
        for cls in new:
            _register(cls)


def _is_container(it: object) -> bool:
    from graphjit.structure import Structured  # above this file: modules, which are leaves
    return not isinstance(it, (type, Structured))


def unflatten(spec: Spec, leaves: Iterable[Any]) -> Any:
    """The containers of ``spec`` around other leaves."""
    return optree.tree_unflatten(spec, leaves)


def flatten_like(spec: Spec, tree: Any, what: str) -> list[Any]:
    """What stands in ``tree`` where ``spec`` has leaves.

    Raises:
        ArgumentError: when the containers differ; ``what`` names the tree.
    """
    flatten(tree)  # makes its dataclasses known
    try:
        return list(spec.flatten_up_to(tree))
    except ValueError as error:
        raise ArgumentError(f"{what} must be nested like {_text(spec)}", detail=(str(error),)) from None


def _text(spec: Spec) -> str:
    text = str(unflatten(spec, ["*"] * spec.num_leaves)).replace("'*'", "*")
    return text if len(text) <= 80 else text[:77] + "..."


def _register(cls: type) -> None:
    names = tuple(f.name for f in dataclasses.fields(cls))

    def parts(it: Any) -> tuple[list[Any], None, tuple[str, ...]]:
        return [getattr(it, name) for name in names], None, names

    def build(_: Hashable | None, values: Iterable[Any]) -> Any:
        # not cls(...): __post_init__ may convert or check what is a tensor for now
        out: Any = object.__new__(cls)
        for name, value in zip(names, values, strict=True):
            object.__setattr__(out, name, value)
        return out
    with _lock:
        if cls not in _known:
            optree.register_pytree_node(cls, parts, build, namespace=_NAMESPACE)
            _known.add(cls)
