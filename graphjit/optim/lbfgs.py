"""L-BFGS, and the line search that goes with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np

from graphjit.convert import as_tensor
from graphjit.errors import ArgumentError, TraceError
from graphjit.op import Array
from graphjit.optim.optimizer import Optimizer, Params
from graphjit.tape import grad_mode, state
from graphjit.tensor import Tensor

DECREASE, CURVATURE = 1e-4, 0.9  # of the Wolfe conditions: how much lower, how much flatter a point must be
LEAST_CURVATURE = 1e-10          # of a step and its change of gradient, to be remembered


@dataclass
class Memory:
    """What is kept from one ``step`` to the next, all parameters in one vector."""

    n_iter: int = 0
    func_evals: int = 0
    d: Array | None = None                                 # the last direction, and how far along it
    t: float = 0.0
    old_dirs: list[Array] = field(default_factory=list)    # changes of the gradient
    old_stps: list[Array] = field(default_factory=list)    # steps that made them
    ro: list[float] = field(default_factory=list)          # 1 / (change @ step)
    H_diag: float = 1.0                                    # scale of the first guess of the inverse Hessian
    prev_flat_grad: Array | None = None
    prev_loss: float = 0.0

    def remember(self, grad: Array, most: int) -> None:
        """Take up the last step and what it did to the gradient."""
        assert self.d is not None and self.prev_flat_grad is not None
        change, step = grad - self.prev_flat_grad, self.d * self.t
        curvature = float(change @ step)
        if curvature > LEAST_CURVATURE and most > 0:
            self.old_dirs = [*self.old_dirs, change][-most:]
            self.old_stps = [*self.old_stps, step][-most:]
            self.ro = [*self.ro, 1 / curvature][-most:]
            self.H_diag = curvature / float(change @ change)

    def direction(self, grad: Array) -> Array:
        """Minus the inverse Hessian times the gradient, by two loops (Nocedal and Wright, algorithm 7.4)."""
        q = -grad
        shares: list[float] = []
        pairs = list(zip(self.old_dirs, self.old_stps, self.ro, strict=True))
        for change, step, ro in reversed(pairs):
            shares.append(float(step @ q) * ro)
            q = q - change * shares[-1]
        r = q * self.H_diag
        for (change, step, ro), share in zip(pairs, reversed(shares), strict=True):
            r = r + step * (share - float(change @ r) * ro)
        return r


class LBFGS(Optimizer):
    """L-BFGS (Liu and Nocedal, 1989): steps along an estimate of the Newton direction, made of the last gradients.

    It asks for loss and gradients several times in a step and decides by their values, so it runs eagerly only;
    its closure may call a compiled function that is differentiable.

    Args:
        params: tensors; there is one group only.
        lr: length of a step, or where the line search begins.
        max_iter: iterations in a ``step``. max_eval: calls of the closure, 1.25 * max_iter when not given.
        tolerance_grad: stop where no element of the gradient is larger.
        tolerance_change: stop where loss or parameters change less.
        history_size: how many past gradients are kept.
        line_search_fn: 'strong_wolfe', or None for steps of length lr.

    >>> import graphjit as gj
    >>> p = gj.nn.Parameter([3.0, -1.0])
    >>> opt = gj.optim.LBFGS([p], line_search_fn="strong_wolfe")
    >>> def closure():
    ...     opt.zero_grad()
    ...     loss = ((p - 1) ** 2).sum()
    ...     loss.backward()
    ...     return loss
    >>> opt.step(closure).item(), p.numpy().round(4).tolist()
    (8.0, [1.0, 1.0])
    """

    def __init__(self, params: Params, lr: float = 1.0, max_iter: int = 20, max_eval: int | None = None,
                 tolerance_grad: float = 1e-7, tolerance_change: float = 1e-9, history_size: int = 100,
                 line_search_fn: str | None = None) -> None:
        super().__init__(params, {"lr": lr, "max_iter": max_iter, "tolerance_grad": tolerance_grad,
                                  "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
                                  "tolerance_change": tolerance_change, "history_size": history_size,
                                  "line_search_fn": line_search_fn})
        if line_search_fn not in (None, "strong_wolfe"):
            raise ArgumentError(f"line_search_fn is 'strong_wolfe' or None, not {line_search_fn!r}")
        self._memory = Memory()

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        if self.param_groups:
            raise ArgumentError("LBFGS has one parameter group only")
        super().add_param_group(group)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Iterate until a tolerance or a limit is reached.

        Args:
            closure: clears the gradients, computes the loss and its gradients, returns the loss.

        Returns:
            The loss before the step.

        Raises:
            TraceError: inside a compiled function. ArgumentError: without a closure.
        """
        if state.trace is not None:
            raise TraceError("LBFGS.step() inside a compiled function: it decides by the values of the loss",
                             hint="Call it outside; its closure may call a compiled function.")
        if closure is None:
            raise ArgumentError("LBFGS.step() needs a closure that computes the loss and its gradients anew")
        group, memory = self.param_groups[0], self._memory
        lr, flat = group["lr"], group["tolerance_change"]
        most, calls, history = (int(group[name]) for name in ("max_iter", "max_eval", "history_size"))

        def evaluate() -> tuple[Any, Array]:
            memory.func_evals += 1
            with grad_mode(True):
                found = closure()
            if found is None:
                raise ArgumentError("the closure of LBFGS.step() returned no loss")
            return found, self._gradient()

        def along(x: Array, t: float, d: Array) -> Point:
            self._set(x + d * t)
            found, g = evaluate()
            return Point(t, float(found), g, float(g @ d))
        before = memory.func_evals
        first, grad = evaluate()
        loss = float(first)
        if _largest(grad) <= group["tolerance_grad"]:
            return first
        for iteration in range(1, most + 1):
            memory.n_iter += 1
            if memory.n_iter > 1:
                memory.remember(grad, history)
            d = memory.d = memory.direction(grad)
            memory.prev_flat_grad, memory.prev_loss = grad, loss
            memory.t = lr if memory.n_iter > 1 else min(1.0, 1 / float(np.abs(grad).sum())) * lr
            slope = float(grad @ d)
            if slope > -flat:
                break
            x = self._flat()
            if group["line_search_fn"] is not None:
                left = calls - (memory.func_evals - before)
                found = strong_wolfe(lambda t, x=x, d=d: along(x, t, d),  # type: ignore[misc]  # bound now
                                     Point(0.0, loss, grad, slope), memory.t, _largest(d), flat, left)
                memory.t, loss, grad = found.t, found.loss, found.grad
            self._set(x + d * memory.t)
            if iteration == most:
                break
            if group["line_search_fn"] is None:
                value, grad = evaluate()
                loss = float(value)
            if (memory.func_evals - before >= calls or _largest(grad) <= group["tolerance_grad"]
                    or _largest(d * memory.t) <= flat or abs(loss - memory.prev_loss) < flat):
                break
        return first

    @property
    def _params(self) -> list[Tensor]:
        found: list[Tensor] = self.param_groups[0]["params"]
        return found

    def _gradient(self) -> Array:
        return np.concatenate([np.zeros(p.size, p.dtype) if (g := p.grad) is None else g.data.ravel()
                               for p in self._params])

    def _flat(self) -> Array:
        return np.concatenate([p.data.ravel() for p in self._params])

    def _set(self, x: Array) -> None:
        parts = np.split(x, np.cumsum([p.size for p in self._params])[:-1])
        with grad_mode(False):
            for p, part in zip(self._params, parts, strict=True):
                p.assign(part.reshape(p.shape))

    # ---- state: all of it under the first parameter, as PyTorch's

    def state_dict(self) -> dict[str, Any]:
        """As that of every optimizer; the memory stands under parameter 0, lists of vectors as matrices."""
        found = super().state_dict()
        if self._memory.n_iter or self._memory.func_evals:
            kept = {f.name: getattr(self._memory, f.name) for f in fields(Memory)}
            found["state"] = {0: {name: as_tensor(np.array(value)) for name, value in kept.items()
                                  if value is not None}}
        return found

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` gave (also PyTorch's).

        Raises:
            ArgumentError: other groups or sizes than here; nothing has been changed then.
        """
        given = {name: value for name, value in state_dict["state"].get(0, {}).items() if value is not None}
        found, size = Memory(), sum(p.size for p in self._params)
        for name in ("d", "prev_flat_grad"):
            setattr(found, name, np.asarray(given[name]) if name in given else None)
        for name in ("old_dirs", "old_stps"):
            setattr(found, name, [np.asarray(v) for v in given.get(name, ())])
        found.ro = [float(v) for v in given.get("ro", ())]
        found.n_iter, found.func_evals = int(given.get("n_iter", 0)), int(given.get("func_evals", 0))
        found.t, found.prev_loss = float(given.get("t", 0.0)), float(given.get("prev_loss", 0.0))
        found.H_diag = float(given.get("H_diag", 1.0))
        vectors = [found.d, found.prev_flat_grad, *found.old_dirs, *found.old_stps]
        if any(v is not None and v.shape != (size,) for v in vectors):
            raise ArgumentError("a state_dict does not fit LBFGS", detail=(f"the parameters hold {size} numbers",))
        super().load_state_dict({"state": {}, "param_groups": state_dict["param_groups"]})
        self._memory = found


def _largest(x: Array) -> float:
    return float(np.abs(x).max()) if x.size else 0.0


# ---- line search

class Point(NamedTuple):
    """A place on a line: how far along, and there the loss, its gradient, and its slope along the line."""

    t: float
    loss: float
    grad: Array
    slope: float


def strong_wolfe(at: Callable[[float], Point], start: Point, t: float, length: float, least: float,
                 most: int) -> Point:
    """A point that is lower and flatter than the start by the strong Wolfe conditions (Nocedal and Wright,
    algorithms 3.5 and 3.6, with the cubic interpolation of minFunc, Schmidt, 2005).

    Args:
        at: the point at a distance.
        start: the point at 0, its slope negative.
        t: the first distance tried.
        length: the largest element of the direction. least: the change of a parameter that is too small to matter.
        most: how many further points are tried.
    """
    def high_up(p: Point) -> bool:
        return p.loss > start.loss + DECREASE * p.t * start.slope

    def even(p: Point) -> bool:
        return abs(p.slope) <= -CURVATURE * start.slope
    # go on until a minimum is passed
    before, now, tried = start, at(t), 0
    while tried < most:
        if high_up(now) or (tried > 1 and now.loss >= before.loss):
            break
        if even(now):
            return now
        if now.slope >= 0:
            break
        t = _cubic(before, now, now.t + 0.01 * (now.t - before.t), now.t * 10)
        before, now, tried = now, at(t), tried + 1
    else:
        before = start
    # then draw the two sides together
    low, high = (before, now) if before.loss <= now.loss else (now, before)
    stuck = False
    while tried < most and abs(high.t - low.t) * length >= least:
        left, right = min(low.t, high.t), max(low.t, high.t)
        t, margin = _cubic(low, high, left, right), 0.1 * (right - left)
        if min(right - t, t - left) < margin:  # so near to a side that little may be won
            if stuck or t >= right or t <= left:
                t = right - margin if abs(t - right) < abs(t - left) else left + margin
                stuck = False
            else:
                stuck = True
        else:
            stuck = False
        now, tried = at(t), tried + 1
        if high_up(now) or now.loss >= low.loss:
            low, high = (low, now) if low.loss <= now.loss else (now, low)
            continue
        if even(now):
            return now
        if now.slope * (high.t - low.t) >= 0:
            high = low
        low = now
    return low


def _cubic(a: Point, b: Point, least: float, most: float) -> float:
    """Where the cubic through both losses and slopes is lowest, held between two bounds; their middle where it has
    no minimum (Nocedal and Wright, equation 3.59)."""
    a, b = (a, b) if a.t <= b.t else (b, a)
    mean = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = mean * mean - a.slope * b.slope
    root = math.sqrt(square) if square >= 0 else math.nan
    below = b.slope - a.slope + 2 * root
    t = b.t - (b.t - a.t) * (b.slope + root - mean) / below if below else math.nan
    return min(max(t, least), most) if math.isfinite(t) else (least + most) / 2
