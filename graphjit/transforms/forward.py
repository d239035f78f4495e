"""Directional derivatives and second order: jvp, hvp.

There is no forward mode of its own: a pullback is linear in its cotangent u, so the pullback of
``u -> pullback(u)`` is the pushforward (the double-vjp trick, J. Townsend 2017,
https://j-towns.github.io/2017/06/12/A-new-trick.html). In a compiled program the pullback at 0 is dead code.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from graphjit.backward import walk_back
from graphjit.tape import Value, grad_mode
from graphjit.tensor import Tensor, value_of
from graphjit.transforms.record import Record, fresh, ones, zeros
from graphjit.tree import unflatten


class Pushforward:
    """The linear map from tangents of a record's inputs to those of its outputs."""

    def __init__(self, run: Record) -> None:
        self.run = run
        self.probes: list[Value | None] = [None] * len(run.values)
        with grad_mode(True):
            for i, v in enumerate(run.values):
                if v.requires_grad:
                    self.probes[i] = fresh(run.name, [zeros(v.type)])[0]
            along = [None if p is None else Tensor._of(p) for p in self.probes]
            self.pulled = run.pull(along, create_graph=True)

    def __call__(self, tangents: Sequence[Tensor | None]) -> list[Tensor]:
        """Tangents of the outputs."""
        live = [p for p in self.probes if p is not None]
        found = walk_back(_paired(self.pulled, tangents), live, create_graph=self.run.wants_graph(tangents),
                          release=False) if live else {}
        return self.run.settle([zeros(v.type) if p is None or p not in found else found[p]
                                for p, v in zip(self.probes, self.run.values, strict=True)], live)


def _paired(values: Sequence[Tensor | None], tangents: Sequence[Tensor | None]) -> list[tuple[Value, Tensor]]:
    return [(v, t) for g, t in zip(values, tangents, strict=True)
            if g is not None and t is not None and (v := value_of(g)).requires_grad]


def jvp(f: Callable[..., Any], primals: Any, tangents: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """``f`` and its directional derivative.

    Args:
        f: gives nested containers of tensors; with ``has_aux`` a pair of them and anything.
        primals: a tuple of the positional arguments of ``f``; anything else is its one argument.
        tangents: nested like the primals, of the same shapes; None for zero.

    Returns:
        ``(out, tangent)`` (and aux), both nested like the result of ``f``.

    >>> import graphjit as gj
    >>> out, tangent = gj.jvp(lambda x, y: x * y, (3.0, 4.0), (1.0, 0.0))
    >>> float(out), float(tangent)
    (12.0, 4.0)
    """
    args, along = _arguments(f, primals, tangents)
    run = Record("jvp", f, args, {}, range(len(args)), has_aux)
    directions = run.tangents(along)
    out = unflatten(run.out_spec, run.settle(run.outputs))
    tangent = unflatten(run.out_spec, Pushforward(run)(directions))
    return (out, tangent, run.settle_tree(run.aux)) if has_aux else (out, tangent)


def hvp(f: Callable[..., Any], primals: Any, tangents: Any) -> Any:
    """The Hessian of ``f`` times a vector, without the Hessian: the gradient of ``<grad f, tangents>``.

    Args:
        f: gives one floating number.
        primals: a tuple of the positional arguments of ``f``; anything else is its one argument.
        tangents: nested like the primals, of the same shapes; None for zero.

    Returns:
        Tensors nested like the primals.

    Raises:
        GradientError: the result of ``f`` is no floating scalar, an op on the way has no second derivative.

    >>> import graphjit as gj
    >>> float(gj.hvp(lambda x: x * x * x, 2.0, 1.0))
    12.0
    """
    args, along = _arguments(f, primals, tangents)
    run = Record("hvp", f, args, {}, range(len(args)))
    directions = run.tangents(along)
    with grad_mode(True):
        slopes = run.pull([ones(run.scalar())], create_graph=True)
    found = walk_back(_paired(slopes, directions), run.inputs, create_graph=run.wants_graph(directions),
                      release=False) if run.inputs else {}
    trees = run.nest(run.settle(run.whole(found.get(v) for v in run.inputs)))
    return trees if args is primals else trees[0]


def _arguments(f: Callable[..., Any], primals: Any, tangents: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Positional arguments and their tangents. A tuple that ``f`` cannot take so is its one argument."""
    if type(primals) is tuple and isinstance(tangents, (tuple, list)) and _takes(f, primals):
        return primals, tuple(tangents)
    return (primals,), (tangents,)


def _takes(f: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    try:
        inspect.signature(f).bind(*args)
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        pass
    return True
