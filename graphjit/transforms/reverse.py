"""Reverse mode: grad, value_and_grad, vjp."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from graphjit.transforms.record import Record, ones, positions
from graphjit.tree import unflatten


def grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0,
         has_aux: bool = False) -> Callable[..., Any]:
    """The function that computes the gradient of ``f``.

    Args:
        f: gives one floating number; with ``has_aux`` a pair of it and anything.
        argnums: the positional argument (or arguments) to differentiate with respect to: arrays, tensors,
            floats or nested containers of them.

    Returns:
        A function of the same arguments; its result is nested like the argument, of the same shapes and
        dtypes (a tuple of such for several ``argnums``); with ``has_aux`` a pair of that and aux.

    Raises:
        GradientError: when called: the result of ``f`` is no floating scalar, an argument holds integers.

    >>> import graphjit as gj
    >>> float(gj.grad(lambda x: x * x)(3.0))
    6.0
    """
    both = value_and_grad(f, argnums, has_aux)

    @functools.wraps(f, updated=())
    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, found = both(*args, **kwargs)
        return (found, value[1]) if has_aux else found
    return gradient


def value_and_grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0,
                   has_aux: bool = False) -> Callable[..., Any]:
    """The function that computes the value of ``f`` and its gradient; arguments as for ``grad``.

    Returns:
        A function that gives ``(value, gradient)``, with ``has_aux`` ``((value, aux), gradient)``.

    >>> import graphjit as gj
    >>> value, (gx, gy) = gj.value_and_grad(lambda x, y: x * y, argnums=(0, 1))(3.0, 4.0)
    >>> float(value), float(gx), float(gy)
    (12.0, 4.0, 3.0)
    """
    @functools.wraps(f, updated=())
    def value_and_gradient(*args: Any, **kwargs: Any) -> Any:
        run = Record("grad", f, args, kwargs, positions("grad", f, argnums, len(args)), has_aux)
        out = run.scalar()
        found = run.pull([ones(out)], run.linked)
        out, *leaves = run.settle([out, *run.whole(found)])
        trees = run.nest(leaves)
        value = (out, run.settle_tree(run.aux)) if has_aux else out
        return value, trees if isinstance(argnums, Sequence) else trees[0]
    return value_and_gradient


def vjp(f: Callable[..., Any], *args: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """``f(*args)`` and its pullback, the linear map from a cotangent of the result to those of the arguments.

    Args:
        f: gives nested containers of tensors; with ``has_aux`` a pair of them and anything.
        args: the primals: arrays, tensors, floats or nested containers of them.

    Returns:
        ``(out, pullback)`` (and aux). ``pullback(cotangent)`` takes a cotangent nested like ``out`` (None for
        zero) and gives a tuple with one entry per primal, nested like it. It can be called many times.

    >>> import graphjit as gj
    >>> out, pullback = gj.vjp(lambda x, y: x * y, 3.0, 4.0)
    >>> [float(g) for g in pullback(1.0)]
    [4.0, 3.0]
    """
    run = Record("vjp", f, args, {}, range(len(args)), has_aux)

    def pullback(cotangent: Any) -> tuple[Any, ...]:
        directions = run.cotangents(cotangent)
        found = run.pull(directions, run.wants_graph(directions))
        return run.nest(run.settle(run.whole(found)))

    out, aux = unflatten(run.out_spec, run.settle(run.outputs)), run.settle_tree(run.aux)
    run.close()
    return (out, pullback, aux) if has_aux else (out, pullback)
