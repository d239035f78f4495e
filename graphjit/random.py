"""``gj.random``: random numbers that repeat, in eager mode and compiled."""

from graphjit.ops.random import (
    Generator,
    bernoulli,
    default_generator,
    manual_seed,
    normal,
    permutation,
    randint,
    uniform,
)

__all__ = [
    "Generator", "bernoulli", "default_generator", "manual_seed", "normal", "permutation", "randint",
    "uniform",
]
