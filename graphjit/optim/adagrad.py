"""Adagrad."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphjit.ops.transcendental import sqrt
from graphjit.optim.group import ParamGroup
from graphjit.optim.optimizer import STEP, Optimizer, Params, decayed, step_counter
from graphjit.replay import on_arrays
from graphjit.tensor import Tensor


@on_arrays
def _moved(p: Tensor, g: Tensor, total: Tensor, rate: Tensor, eps: Tensor) -> tuple[Tensor, ...]:
    """The parameter after a step, and the sum of its squared gradients."""
    new = total + g * g
    return p - g * rate / (sqrt(new) + eps), new


class Adagrad(Optimizer):
    """Adagrad (Duchi et al., 2011): steps divided by the root of the sum of all squared gradients.

    ``s += g**2``, ``p -= lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)`` at a parameter's t-th step.

    Args:
        params: tensors or groups.
        lr: step size. lr_decay: how fast it falls.
        weight_decay: factor of the parameter that is added to its gradient.
        initial_accumulator_value: what s starts at.
        eps: added to the denominator.
        maximize: climb instead.

    >>> import graphjit as gj
    >>> p = gj.nn.Parameter([1.0])
    >>> opt = gj.optim.Adagrad([p], lr=0.1)
    >>> (p * p).sum().backward(); opt.step(); round(p.item(), 3)
    0.9
    """

    def __init__(self, params: Params, lr: float = 1e-2, lr_decay: float = 0.0, weight_decay: float = 0.0,
                 initial_accumulator_value: float = 0.0, eps: float = 1e-10, *, maximize: bool = False) -> None:
        super().__init__(params, {"lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
                                  "initial_accumulator_value": initial_accumulator_value, "maximize": maximize})

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        super().add_param_group(group)
        new = self.param_groups[-1]
        counter = step_counter(0.0)
        for p in new["params"]:
            self._slot(p, "sum", new["initial_accumulator_value"])
            self.state[p][STEP] = counter

    def _update(self, group: ParamGroup, grads: dict[Tensor, Tensor]) -> None:
        (lr,), (lr_decay,), (eps,) = group.tensors("lr"), group.tensors("lr_decay"), group.tensors("eps")
        (decay,) = group.tensors("weight_decay")
        for t, params in self._advance(grads):
            rate = lr / ((t - 1) * lr_decay + 1)
            for p in params:
                total = self._slot(p, "sum")
                moved, new = _moved(p, decayed(grads[p], p, decay), total, rate.astype(p.dtype), eps.astype(p.dtype))
                total.assign(new)
                p.assign(moved)
