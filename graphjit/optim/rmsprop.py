"""RMSprop."""

from __future__ import annotations

from graphjit.ops.transcendental import sqrt
from graphjit.optim.group import ParamGroup
from graphjit.optim.optimizer import Optimizer, Params, decayed, settled
from graphjit.replay import on_arrays
from graphjit.tensor import Tensor


@on_arrays
def _moved(p: Tensor, g: Tensor, step_size: Tensor, keep: Tensor, take: Tensor, eps: Tensor, again: Tensor,
           square: Tensor, *slots: Tensor, centered: bool, momentum: bool) -> tuple[Tensor, ...]:
    """The parameter after a step, and what is kept for it."""
    spread = settled(square * keep + g * g * take)
    new = [spread]
    if centered:
        middle = settled(slots[0] + (g - slots[0]) * take)
        new.append(middle)
        spread = spread - middle * middle
    g = g / (sqrt(spread) + eps)
    if momentum:
        g = settled(slots[-1] * again + g)
        new.append(g)
    return p - g * step_size, *new


class RMSprop(Optimizer):
    """RMSprop (Hinton, 2012): steps divided by the root of a moving mean of squared gradients.

    ``v = alpha * v + (1 - alpha) * g**2``, ``p -= lr * g / (sqrt(v) + eps)``; with a momentum
    ``buf = momentum * buf + g / (sqrt(v) + eps)``, ``p -= lr * buf``.

    Args:
        params: tensors or groups.
        lr: step size. alpha: share of the last mean kept. eps: added to the denominator.
        weight_decay: factor of the parameter that is added to its gradient.
        momentum: share of the last step kept.
        centered: divide by the standard deviation, the moving mean subtracted (Graves, 2013).
        maximize: climb instead.

    >>> import graphjit as gj
    >>> p = gj.nn.Parameter([1.0])
    >>> opt = gj.optim.RMSprop([p], lr=0.01)
    >>> (p * p).sum().backward(); opt.step(); round(p.item(), 3)
    0.9
    """

    def __init__(self, params: Params, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
                 weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False, *,
                 maximize: bool = False) -> None:
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay,
                                  "momentum": momentum, "centered": centered, "maximize": maximize})

    def _update(self, group: ParamGroup, grads: dict[Tensor, Tensor]) -> None:
        (lr,), (alpha,), (eps,) = group.tensors("lr"), group.tensors("alpha"), group.tensors("eps")
        (momentum,), (decay,) = group.tensors("momentum"), group.tensors("weight_decay")
        scalars = (lr, alpha, 1 - alpha, eps, momentum)
        self._advance(grads)
        for p, g in grads.items():
            step_size, keep, take, small, again = (s.astype(p.dtype) for s in scalars)
            names = ["square_avg", *["grad_avg"] * bool(group["centered"]),
                     *["momentum_buffer"] * group.has("momentum")]
            slots = [self._slot(p, name) for name in names]
            new = _moved(p, decayed(g, p, decay), step_size, keep, take, small, again, *slots,
                         centered=bool(group["centered"]), momentum=group.has("momentum"))
            for state, value in zip((p, *slots), new, strict=True):
                state.assign(value)
