"""Whether frameworks found the same value and gradients. All pure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from benchmarks.programs.program import Array


class Found(NamedTuple):
    """What a call gave: the value, and the gradient by each parameter, of its shape."""

    value: float
    gradients: list[Array]


class Tolerance(NamedTuple):
    """What two right answers may differ by.

    Attributes:
        value: relative to the value.
        gradient: of each parameter's gradient, its largest difference relative to its largest number.
        rounding: relative to the largest number of all gradients: a gradient below that is taken for 0 that was
            rounded, and measured by that.
    """

    value: float
    gradient: float
    rounding: float


TOLERANCES = {"float32": Tolerance(1e-4, 5e-3, 1e-4), "float64": Tolerance(1e-10, 1e-8, 1e-9)}


def disagreements(found: dict[str, Found], tolerance: Tolerance) -> dict[str, str]:
    """What is wrong with which framework's answer. What is right is the median of all, number by number."""
    finite = [f for f in found.values() if np.isfinite(f.value) and all(np.isfinite(g).all() for g in f.gradients)]
    if not finite:
        return dict.fromkeys(found, "no framework gave finite numbers")
    value = float(np.median([f.value for f in finite]))
    gradients = [np.median(each, axis=0) for each in zip(*(f.gradients for f in finite), strict=True)]
    wrong = {name: difference(f, Found(value, gradients), tolerance) for name, f in found.items()}
    return {name: text for name, text in wrong.items() if text}


def difference(found: Found, right: Found, tolerance: Tolerance) -> str:
    """In words, where an answer is not the right one; nothing if it is."""
    apart = abs(found.value - right.value)
    if not apart <= tolerance.value * max(abs(right.value), tolerance.rounding):  # also nan
        return f"value {found.value:.7g}, should be {right.value:.7g}"
    sizes = [float(abs(g).max(initial=0)) for g in right.gradients]
    least = tolerance.rounding * max(sizes)
    for i, (ours, theirs, size) in enumerate(zip(found.gradients, right.gradients, sizes, strict=True)):
        error = float(abs(ours - theirs).max(initial=0)) / max(size, least, np.finfo(np.float64).tiny)
        if not error <= tolerance.gradient:
            return f"gradient {i} of {len(sizes)} differs by {error:.1e} of its largest number"
    return ""
