"""Keeping gradients small."""

from __future__ import annotations

import math
from collections.abc import Iterable

from graphjit.convert import filled
from graphjit.errors import NumericalError
from graphjit.ops.elementwise import abs, clip, maximum, minimum, pow
from graphjit.ops.transcendental import sqrt
from graphjit.tape import grad_mode
from graphjit.tensor import Tensor
from graphjit.types import FLOAT32, promote


def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0,
                    error_if_nonfinite: bool = False) -> Tensor:
    """Scale the gradients so that the norm of all of them together is at most ``max_norm``.

    Args:
        parameters: those without a gradient are passed over.
        max_norm: the bound.
        norm_type: p of the p-norm; ``math.inf`` for the largest absolute value.
        error_if_nonfinite: raise when the norm is not finite (not in compiled functions).

    Returns:
        The norm before scaling, a scalar tensor.

    Raises:
        NumericalError: see ``error_if_nonfinite``.
    """
    with grad_mode(False):
        found = _with_grads(parameters)
        if not found:
            return filled((), 0, FLOAT32)
        dtype = promote(*{g.dtype for _, g in found})
        grads = [g.astype(dtype) for _, g in found]
        if norm_type == math.inf:
            norm = abs(grads[0]).max()
            for g in grads[1:]:
                norm = maximum(norm, abs(g).max())
        else:
            total = _powers(grads[0], norm_type)
            for g in grads[1:]:
                total = total + _powers(g, norm_type)
            norm = sqrt(total) if norm_type == 2 else pow(total, 1 / norm_type)
        if error_if_nonfinite and not norm.isfinite():
            raise NumericalError(f"the norm of the gradients is {norm.item()}",
                                 hint="error_if_nonfinite=False scales them all the same.")
        scale = minimum(max_norm / (norm + 1e-6), 1)
        for p, g in found:
            p.grad = g * scale.astype(g.dtype)
        return norm


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Hold every element of the gradients between -clip_value and clip_value."""
    with grad_mode(False):
        for p, g in _with_grads(parameters):
            p.grad = clip(g, -clip_value, clip_value)


def _with_grads(parameters: Tensor | Iterable[Tensor]) -> list[tuple[Tensor, Tensor]]:
    tensors = [parameters] if isinstance(parameters, Tensor) else parameters
    return [(p, g) for p in tensors if (g := p.grad) is not None]


def _powers(g: Tensor, p: float) -> Tensor:
    return (g * g).sum() if p == 2 else pow(abs(g), p).sum()
