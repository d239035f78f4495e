"""Adam and AdamW."""

from __future__ import annotations

from graphjit.ops.elementwise import maximum
from graphjit.ops.transcendental import rsqrt, sqrt
from graphjit.optim.group import ParamGroup
from graphjit.optim.optimizer import Optimizer, Params, decayed, settled
from graphjit.replay import on_arrays
from graphjit.tensor import Tensor
from graphjit.types import DType

MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")


@on_arrays
def _scalars(t: Tensor, lr: Tensor, beta1: Tensor, beta2: Tensor, eps: Tensor, *, dtype: DType) -> tuple[Tensor, ...]:
    scalars = (lr / (1 - beta1**t), rsqrt(1 - beta2**t), 1 - beta1, beta2, 1 - beta2, eps)
    return tuple([s.astype(dtype) for s in scalars])


@on_arrays
def _moved(p: Tensor, g: Tensor, step_size: Tensor, correction: Tensor, w1: Tensor, keep2: Tensor, w2: Tensor,
           eps: Tensor, m: Tensor, v: Tensor, *top: Tensor) -> tuple[Tensor, ...]:
    """The parameter after a step, and its moments."""
    new_m = settled(m + (g - m) * w1)
    new_v = settled(v * keep2 + g * g * w2)
    tops = tuple([maximum(t, new_v) for t in top])
    largest = tops[0] if tops else new_v
    return p - step_size * (new_m / (sqrt(largest) * correction + eps)), new_m, new_v, *tops


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015).

    ``m += (1 - beta1) * (g - m)``, ``v = beta2 * v + (1 - beta2) * g**2``,
    ``p -= lr * m / (1 - beta1**t) / (sqrt(v / (1 - beta2**t)) + eps)`` at a parameter's t-th step.

    Args:
        params: tensors or groups.
        lr: step size. betas: of the mean and of the mean square. eps: added to the denominator.
        weight_decay: factor of the parameter that is added to its gradient.
        amsgrad: use the largest v so far (Reddi et al., 2018).
        maximize: climb instead.

    >>> import graphjit as gj
    >>> p = gj.nn.Parameter([1.0])
    >>> opt = gj.optim.Adam([p], lr=0.1)
    >>> (p * p).sum().backward(); opt.step(); round(p.item(), 3)
    0.9
    """

    def __init__(self, params: Params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0.0,
                 amsgrad: bool = False, *, maximize: bool = False) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                                  "amsgrad": amsgrad, "maximize": maximize})

    def _update(self, group: ParamGroup, grads: dict[Tensor, Tensor]) -> None:
        (lr,), (beta1, beta2), (eps,) = group.tensors("lr"), group.tensors("betas"), group.tensors("eps")
        for t, params in self._advance(grads):
            # computed in float64, once for all parameters that share the counter
            scalars = {dtype: _scalars(t, lr, beta1, beta2, eps, dtype=dtype) for dtype in {p.dtype for p in params}}
            for p in params:
                start, g = self._decay(group, p, grads[p])
                slots = [self._slot(p, name) for name in MOMENTS[:3 if group["amsgrad"] else 2]]
                new = _moved(start, g, *scalars[p.dtype], *slots)
                for state, value in zip((p, *slots), new, strict=True):
                    state.assign(value)

    def _decay(self, group: ParamGroup, p: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """The parameter and the gradient that the step starts from."""
        return p, decayed(g, p, *group.tensors("weight_decay"))


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019): ``p *= 1 - lr * weight_decay`` before
    each step, and nothing added to the gradient. Arguments as those of ``Adam``.
    """

    def __init__(self, params: Params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 1e-2,
                 amsgrad: bool = False, *, maximize: bool = False) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)

    def _decay(self, group: ParamGroup, p: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        (lr,), (decay,) = group.tensors("lr"), group.tensors("weight_decay")
        return p * (1 - lr * decay).astype(p.dtype), g
