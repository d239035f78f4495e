"""Whole matrices of derivatives: jacobian, hessian."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphjit.convert import constant
from graphjit.ops.join import stack
from graphjit.tape import Value
from graphjit.tensor import Tensor
from graphjit.transforms.forward import Pushforward
from graphjit.transforms.record import Record, positions, zeros
from graphjit.transforms.reverse import grad
from graphjit.tree import unflatten
from graphjit.types import DType, Shape, TensorType, is_float


def jacobian(f: Callable[..., Any], argnums: int | Sequence[int] = 0,
             has_aux: bool = False) -> Callable[..., Any]:
    """The function that computes all partial derivatives of the result of ``f``.

    It takes one walk over the tape per element of the result or of the arguments, whichever are fewer.

    Args:
        f: gives nested containers of tensors; with ``has_aux`` a pair of them and anything.
        argnums: the positional argument (or arguments) to differentiate with respect to.

    Returns:
        A function of the same arguments. Where ``f`` gives a tensor of shape ``out``, its result has a tensor
        of shape ``out + in`` and the argument's dtype; nested results hold, in the place of each tensor, a
        nest like the argument (a tuple of such for several ``argnums``).

    >>> import graphjit as gj
    >>> gj.jacobian(lambda x: x * x)(gj.tensor([1.0, 2.0])).tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    """
    @functools.wraps(f, updated=())
    def jacobian_of(*args: Any, **kwargs: Any) -> Any:
        run = Record("jacobian", f, args, kwargs, positions("jacobian", f, argnums, len(args)), has_aux)
        size_in, size_out = (sum(v.type.size for v in part) for part in (run.inputs, run.values))
        blocks = _rows(run) if size_out <= size_in else _columns(run)
        nests = [run.nest(row) for row in blocks]
        out = unflatten(run.out_spec, nests if isinstance(argnums, Sequence) else [n[0] for n in nests])
        return (out, run.settle_tree(run.aux)) if has_aux else out
    return jacobian_of


def hessian(f: Callable[..., Any], argnums: int | Sequence[int] = 0,
            has_aux: bool = False) -> Callable[..., Any]:
    """The function that computes all second derivatives of a scalar ``f``: the jacobian of its gradient.

    Returns:
        A function of the same arguments; for an array of shape ``s`` it gives a tensor of shape ``s + s``,
        for nested arguments a nest of nests.

    >>> import graphjit as gj
    >>> gj.hessian(lambda x: (x * x * x).sum())(gj.tensor([1.0, 2.0])).tolist()
    [[6.0, 0.0], [0.0, 12.0]]
    """
    return jacobian(grad(f, argnums, has_aux), argnums, has_aux)


def _rows(run: Record) -> list[list[Tensor]]:
    """Blocks by output, then input; a pullback for each element of the outputs."""
    blocks = []
    for i, out in enumerate(run.values):
        rows: list[list[Tensor]] = []
        for basis in _basis(out):
            along: list[Tensor | None] = [None] * len(run.values)
            along[i] = basis
            rows.append(run.settle(run.whole(run.pull(along, run.wants_graph(())))))
        blocks.append([_join([row[j] for row in rows], out.shape + v.shape, v.type.dtype, 0)
                       for j, v in enumerate(run.inputs)])
    return blocks


def _columns(run: Record) -> list[list[Tensor]]:
    """The same, by a pushforward for each element of the inputs."""
    push = Pushforward(run)
    blocks: list[list[Tensor]] = [[] for _ in run.values]
    for j, v in enumerate(run.inputs):
        columns: list[list[Tensor]] = []
        for basis in _basis(v):
            along: list[Tensor | None] = [None] * len(run.inputs)
            along[j] = basis
            columns.append(push(along))
        for i, out in enumerate(run.values):
            blocks[i].append(_join([column[i] for column in columns], out.shape + v.shape, v.type.dtype, -1))
    return blocks


def _basis(of: Value) -> list[Tensor | None]:
    """The tensors of the value's type with a single 1, in row-major order; None for integers."""
    shape, dtype, _ = of.type
    n = of.type.size
    if not is_float(dtype):
        return [None] * n
    rows = np.eye(n, dtype=dtype).reshape(n, *shape)
    return [constant(row) for row in rows]


def _join(parts: Sequence[Tensor], shape: Shape, dtype: DType, axis: int) -> Tensor:
    if not parts:
        return zeros(TensorType(shape, dtype))
    return stack(parts, axis=axis).reshape(shape).astype(dtype)
