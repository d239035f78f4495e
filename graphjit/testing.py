"""Checks of derivatives against differences of values, for tests of one's own ops and models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from graphjit.convert import as_tensor, tensor
from graphjit.op import Array
from graphjit.tape import grad_mode
from graphjit.tensor import Tensor
from graphjit.transforms import vjp
from graphjit.tree import Spec, flatten, unflatten
from graphjit.types import FLOAT64, is_float

STEP = 1e-4  # of the central difference: its error is of order STEP**4, rounding's of order 1e-16 / STEP


def check_grads(f: Callable[..., Any], args: Sequence[Any], order: int = 2, rtol: float = 1e-6,
                atol: float = 1e-10, seed: int = 0) -> None:
    """Hold the derivatives of ``f`` that graphjit computes against central differences of its values.

    One random direction and one random cotangent test all partial derivatives together: ``<u, J v>`` must
    equal the slope of ``<u, f(x + t v)>`` at ``t = 0``, found by a fourth-order central difference. For
    ``order=2`` the pullback of ``f`` is checked in the same way, and so on.

    Args:
        f: a function of tensors, giving nested containers of tensors; smooth near the arguments.
        args: its positional arguments: arrays, floats or nested containers of them. Floating ones are
            converted to float64 and varied; all else is passed as it is.
        order: the highest derivative to check.
        rtol: error allowed, relative to the size the slope has for a typical direction.
        atol: absolute error allowed: what rounding makes of a derivative that is 0.
        seed: of the random direction.

    Raises:
        AssertionError: with the two slopes, and those along each single argument.

    >>> import numpy as np, graphjit as gj
    >>> gj.testing.check_grads(lambda x: (x * gj.sin(x)).sum(), (np.linspace(0.0, 1.0, 5),))
    """
    leaves, spec = flatten(tuple(args))
    varied = [i for i, x in enumerate(leaves) if _is_float(x)]
    start = [_float64(leaves[i]) for i in varied]

    def of_varied(*xs: Tensor) -> list[Tensor]:
        full = list(leaves)
        for i, x in zip(varied, xs, strict=True):
            full[i] = x
        found, _ = flatten(f(*unflatten(spec, full)))
        return [t for t in map(as_tensor, found) if is_float(t.dtype)]

    names = _names(spec, leaves, varied)
    rng = np.random.default_rng(seed)
    name = getattr(f, "__name__", type(f).__name__)
    for level in range(1, order + 1):
        cotangents = _check(f"derivative {level} of {name}", of_varied, start, names, rtol, atol, rng)
        if level < order:
            of_varied, start, names = _pullback_of(of_varied, len(start)), [*start, *cotangents], [
                *names, *(f"cotangent {i} of order {level}" for i in range(len(cotangents)))]


class Slope(NamedTuple):
    """A directional derivative, as computed and as measured, and the error that is allowed."""

    computed: float
    measured: float
    allowed: float

    @property
    def agrees(self) -> bool:
        return abs(self.computed - self.measured) <= self.allowed


def _check(what: str, f: Callable[..., list[Tensor]], start: list[Array], names: list[str], rtol: float,
           atol: float, rng: np.random.Generator) -> list[Array]:
    """One order; gives the random cotangents it used."""
    out, pullback = vjp(f, *start)
    u = [np.asarray(rng.standard_normal(t.shape)) for t in out]
    v = [np.asarray(rng.standard_normal(x.shape)) for x in start]
    gradient = [g.numpy() for g in pullback([tensor(x) for x in u])]

    def along(directions: list[Array]) -> Slope:
        return _slope(f, start, directions, u, gradient, rtol, atol)

    whole = along(v)
    if not whole.agrees:
        lines = [f"{what} does not agree with the central difference of its values",
                 f"  along a random direction: computed {whole.computed:.10g}, "
                 f"measured {whole.measured:.10g}, allowed error {whole.allowed:.2g}"]
        for i, name in enumerate(names):
            alone = along([d if i == j else np.zeros_like(d) for j, d in enumerate(v)])
            verdict = "agrees" if alone.agrees else "DIFFERS"
            lines.append(f"  along {name} {_brief(start[i])} alone: computed {alone.computed:.10g}, "
                         f"measured {alone.measured:.10g}: {verdict}")
        raise AssertionError("\n".join(lines))
    return u


def _slope(f: Callable[..., list[Tensor]], start: list[Array], v: list[Array], u: list[Array],
           gradient: list[Array], rtol: float, atol: float) -> Slope:
    largest = 0.0

    def value(t: float) -> float:
        nonlocal largest
        with grad_mode(False):
            out = f(*(tensor(x + t * d) for x, d in zip(start, v, strict=True)))
        terms = [a * t.numpy() for a, t in zip(u, out, strict=True)]
        largest = max(largest, sum(float(np.abs(a).sum()) for a in terms))
        return sum(float(a.sum()) for a in terms)

    near, far = value(STEP) - value(-STEP), value(2 * STEP) - value(-2 * STEP)
    measured = (8 * near - far) / (12 * STEP)
    computed = sum(float((g * d).sum()) for g, d in zip(gradient, v, strict=True))
    # the slope along a random direction is of the size |gradient|, and may be near 0 by chance
    typical = math.sqrt(sum(float((g * g * (d != 0)).sum()) for g, d in zip(gradient, v, strict=True)))
    rounding = 100 * float(np.finfo(FLOAT64).eps) * largest / STEP
    return Slope(computed, measured, rtol * max(abs(measured), typical) + atol + rounding)


def _pullback_of(f: Callable[..., list[Tensor]], count: int) -> Callable[..., list[Tensor]]:
    """The pullback of ``f``, as a function of the primals and the cotangents."""
    def pulled(*args: Tensor) -> list[Tensor]:
        _, pullback = vjp(f, *args[:count])
        return list(pullback(list(args[count:])))
    return pulled


def _is_float(x: Any) -> bool:
    if isinstance(x, (Tensor, np.ndarray, np.generic)):
        return bool(is_float(x.dtype))
    return isinstance(x, float)


def _float64(x: Any) -> Array:
    return np.array(x.data if isinstance(x, Tensor) else x, FLOAT64)


def _names(spec: Spec, leaves: Sequence[Any], varied: Sequence[int]) -> list[str]:
    paths = spec.paths()
    return [f"argument {paths[i][0]}" + "".join(f"[{p!r}]" for p in paths[i][1:]) for i in varied]


def _brief(x: Array) -> str:
    return f"float64[{', '.join(map(str, x.shape))}]"
