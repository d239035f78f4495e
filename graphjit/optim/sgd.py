"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphjit.errors import ArgumentError
from graphjit.ops.elementwise import where
from graphjit.optim.group import ParamGroup
from graphjit.optim.optimizer import Optimizer, Params, decayed, settled
from graphjit.replay import on_arrays
from graphjit.tensor import Tensor


@on_arrays
def _descend(p: Tensor, g: Tensor, lr: Tensor) -> tuple[Tensor, ...]:
    return (p - g * lr,)


@on_arrays
def _roll(p: Tensor, g: Tensor, buffer: Tensor, lr: Tensor, momentum: Tensor, *share: Tensor,
          nesterov: bool) -> tuple[Tensor, ...]:
    new = settled(buffer * momentum + (g * share[0] if share else g))
    return new, p - (g + new * momentum if nesterov else new) * lr


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum as PyTorch computes it (Sutskever et al., 2013).

    ``buf = momentum * buf + (1 - dampening) * g`` (the first time ``buf = g``), ``p -= lr * buf``.

    Args:
        params: tensors or groups.
        lr: step size. momentum: share of the last step kept. dampening: see above.
        weight_decay: factor of the parameter that is added to its gradient.
        nesterov: step along ``g + momentum * buf``.
        maximize: climb instead.

    >>> import graphjit as gj
    >>> p = gj.nn.Parameter([1.0])
    >>> opt = gj.optim.SGD([p], lr=0.1)
    >>> (p * p).sum().backward(); opt.step(); round(p.item(), 3)
    0.8
    """

    def __init__(self, params: Params, lr: float = 1e-3, momentum: float = 0.0, dampening: float = 0.0,
                 weight_decay: float = 0.0, nesterov: bool = False, *, maximize: bool = False) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "dampening": dampening,
                                  "weight_decay": weight_decay, "nesterov": nesterov, "maximize": maximize})

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        chosen = {**self.defaults, **group}
        if chosen["nesterov"] and (chosen["momentum"] == 0 or chosen["dampening"] != 0):
            raise ArgumentError("nesterov needs a momentum and no dampening")
        super().add_param_group(group)

    def _update(self, group: ParamGroup, grads: dict[Tensor, Tensor]) -> None:
        (decay,) = group.tensors("weight_decay")
        shares = self._shares(group, grads)
        names = ("lr", "momentum") if group.has("momentum") else ("lr",)
        numbers = {dtype: [t for name in names for t in group.tensors(name, dtype)]
                   for dtype in {p.dtype for p in grads}}
        for p, g in grads.items():
            g = decayed(g, p, decay)
            if group.has("momentum"):
                buffer = self._slot(p, "momentum_buffer")
                share = (shares[p].astype(p.dtype),) if p in shares else ()
                new, moved = _roll(p, g, buffer, *numbers[p.dtype], *share, nesterov=bool(group["nesterov"]))
                buffer.assign(new)
            else:
                (moved,) = _descend(p, g, *numbers[p.dtype])
            p.assign(moved)

    def _shares(self, group: ParamGroup, grads: dict[Tensor, Tensor]) -> dict[Tensor, Tensor]:
        """With dampening, the share of its gradient that each parameter's buffer takes: all of the first."""
        if not (group.has("momentum") and group.has("dampening")):
            return {}
        (dampening,) = group.tensors("dampening")
        return {p: where(counter == 1, 1, 1 - dampening) for counter, ps in self._advance(grads) for p in ps}
