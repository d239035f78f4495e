"""Starting values of parameters: each function overwrites a tensor in place and gives it back.

Names and formulas are those of ``torch.nn.init``; numbers come from graphjit's generator, so that
``gj.manual_seed`` repeats them.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np

from graphjit.errors import ArgumentError, ShapeError
from graphjit.nn.parameter import Parameter
from graphjit.ops import random
from graphjit.ops.creation import eye
from graphjit.ops.decompose import qr
from graphjit.ops.elementwise import where
from graphjit.ops.random import Generator
from graphjit.ops.transcendental import erfinv
from graphjit.tape import grad_mode
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import FLOAT32, FLOAT64, check_dtype

T = TypeVar("T", bound=Tensor)
GAINS = {"linear": 1.0, "conv1d": 1.0, "conv2d": 1.0, "conv_transpose1d": 1.0, "conv_transpose2d": 1.0,
         "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4}


def empty(shape: tuple[int, ...], dtype: Any = None) -> Parameter:
    """A parameter of zeros that waits for its starting values; float32 when no dtype is given."""
    return Parameter(np.zeros(shape, FLOAT32 if dtype is None else check_dtype(dtype)))


def _fill(t: T, values: TensorLike) -> T:
    with grad_mode(False):
        t.assign(values)
    return t


def uniform_(tensor: T, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> T:
    """Evenly spread over [a, b)."""
    return _fill(tensor, random.uniform(tensor.shape, a, b, tensor.dtype, generator))


def normal_(tensor: T, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> T:
    """Normally distributed."""
    return _fill(tensor, random.normal(tensor.shape, mean, std, tensor.dtype, generator))


def trunc_normal_(tensor: T, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0,
                  generator: Generator | None = None) -> T:
    """Normally distributed, given that it lies in [a, b], by the inverse of the distribution function."""
    if std <= 0 or a >= b:
        raise ArgumentError(f"trunc_normal_ with std {std} between {a} and {b}")
    low, high = (math.erf((bound - mean) / (std * math.sqrt(2))) for bound in (a, b))
    share = random.uniform(tensor.shape, low, high, FLOAT64, generator)
    return _fill(tensor, (erfinv(share) * (std * math.sqrt(2)) + mean).clip(a, b))


def orthogonal_(tensor: T, gain: float = 1.0, generator: Generator | None = None) -> T:
    """``gain`` times a matrix of orthonormal rows or columns, whichever are fewer, evenly distributed (Saxe et
    al., 2014; Mezzadri, 2007); further axes count as columns.

    Raises:
        ShapeError: less than two dimensions.
    """
    if tensor.ndim < 2:
        raise ShapeError(f"orthogonal_ needs at least two dimensions, not {tensor._type}")
    rows = tensor.shape[0]
    columns = math.prod(tensor.shape[1:])
    if rows == 0 or columns == 0:
        return tensor
    found = qr(random.normal((max(rows, columns), min(rows, columns)), dtype=FLOAT64, generator=generator))
    diagonal = (found.R * eye(found.R.shape[0], dtype=FLOAT64)).sum(axis=0)
    q = found.Q * where(diagonal < 0, -1, 1) * gain  # the signs make it evenly distributed
    return _fill(tensor, (q.mT if rows < columns else q).reshape(tensor.shape))


def constant_(tensor: T, val: float) -> T:
    """One number everywhere."""
    return _fill(tensor, val)


def zeros_(tensor: T) -> T:
    """0 everywhere."""
    return _fill(tensor, 0)


def ones_(tensor: T) -> T:
    """1 everywhere."""
    return _fill(tensor, 1)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps the variance through this function ('linear', 'relu', 'tanh', 'leaky_relu', ...).

    Args:
        nonlinearity: its name.
        param: the negative slope of 'leaky_relu', 0.01 when not given.
    """
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    if nonlinearity not in GAINS:
        raise ArgumentError(f"no gain is known for {nonlinearity!r}",
                            hint=f"Known are leaky_relu, {', '.join(GAINS)}.")
    return GAINS[nonlinearity]


def _fans(tensor: Tensor) -> tuple[int, int]:
    """Inputs and outputs of one unit of a weight (out, in, ...)."""
    if tensor.ndim < 2:
        raise ShapeError(f"fan in and fan out need a weight of at least two dimensions, not {tensor._type}")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def _fan(tensor: Tensor, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ArgumentError(f"mode is 'fan_in' or 'fan_out', not {mode!r}")
    return _fans(tensor)[mode == "fan_out"]


def xavier_uniform_(tensor: T, gain: float = 1.0, generator: Generator | None = None) -> T:
    """Uniform of variance gain**2 * 2 / (fan_in + fan_out) (Glorot and Bengio, 2010)."""
    bound = gain * math.sqrt(6 / max(1, sum(_fans(tensor))))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: T, gain: float = 1.0, generator: Generator | None = None) -> T:
    """Normal of variance gain**2 * 2 / (fan_in + fan_out) (Glorot and Bengio, 2010)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / max(1, sum(_fans(tensor)))), generator)


def kaiming_uniform_(tensor: T, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
                     generator: Generator | None = None) -> T:
    """Uniform of variance gain**2 / fan (He et al., 2015); ``a`` is the negative slope of 'leaky_relu'."""
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3 / max(1, _fan(tensor, mode)))
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(tensor: T, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
                    generator: Generator | None = None) -> T:
    """Normal of variance gain**2 / fan (He et al., 2015); ``a`` is the negative slope of 'leaky_relu'."""
    std = calculate_gain(nonlinearity, a) / math.sqrt(max(1, _fan(tensor, mode)))
    return normal_(tensor, 0.0, std, generator)
