"""What a program is: a loss that a user would write, with the parameters and data of one call."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
Tree = Any  # nested dicts, lists and tuples of arrays
Random = np.random.Generator


class Case(NamedTuple):
    """``loss(xp, params, *data)`` is written against a namespace ``xp`` of array functions: see ``frameworks``."""

    loss: Callable[..., Any]
    params: Tree
    data: tuple[Array, ...]


@dataclass(frozen=True)
class Program:
    """A case that can be built again and again, of the same numbers.

    Attributes:
        text: what it is and of what sizes.
        make: the case, of a source of random numbers.
    """

    name: str
    text: str
    make: Callable[[Random], Case]

    def case(self) -> Case:
        return self.make(np.random.default_rng(0))


PROGRAMS: dict[str, Program] = {}


def program(make: Callable[[Random], Case]) -> Program:
    """The program of a function: named like it, described by its docstring."""
    name = make.__name__
    assert name not in PROGRAMS, name
    found = PROGRAMS[name] = Program(name, " ".join((make.__doc__ or "").split()), make)
    return found


# ---- containers


def leaves(tree: Tree) -> list[Any]:
    """The arrays of a container, those of a dict by the order of its keys."""
    match tree:
        case dict():
            return [leaf for key in sorted(tree) for leaf in leaves(tree[key])]
        case list() | tuple():
            return [leaf for part in tree for leaf in leaves(part)]
        case _:
            return [tree]


def mapped(function: Callable[[Any], Any], tree: Tree) -> Tree:
    """A container of the same form, of what the function gives for each array."""
    match tree:
        case dict():
            return {key: mapped(function, part) for key, part in tree.items()}
        case list() | tuple():
            return type(tree)(mapped(function, part) for part in tree)
        case _:
            return function(tree)


def is_double(params: Tree) -> bool:
    """Whether they are of float64."""
    return any(leaf.dtype == np.float64 for leaf in leaves(params))


# ---- numbers to begin with


def normal(rng: Random, *shape: int, scale: float = 1.0) -> Array:
    """Normal numbers in float32."""
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def zeros(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


def ones(*shape: int) -> Array:
    return np.ones(shape, np.float32)


def dense(rng: Random, *sizes: int) -> list[tuple[Array, Array]]:
    """Weights (in, out) and biases of layers from size to size."""
    return [(normal(rng, into, out, scale=into**-0.5), zeros(out)) for into, out in itertools.pairwise(sizes)]
