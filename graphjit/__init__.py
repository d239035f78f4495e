"""graphjit: differentiate and train on the CPU, eagerly or compiled.

The public surface is this page: tensors and array functions, derivatives, ``compile``, and the rooms ``nn``,
``optim``, ``data``, ``linalg``, ``random``, ``testing``, imported when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from graphjit.convert import tensor
from graphjit.errors import (
    ArgumentError,
    BoundsError,
    CheckpointError,
    DataDependentError,
    DataError,
    DatasetUnavailable,
    DTypeError,
    GradientError,
    GraphjitError,
    InternalCompilerError,
    LeakedTensorError,
    NumericalError,
    ShapeError,
    TraceError,
    TraceWarning,
    TrainingDiverged,
)
from graphjit.jit import CompiledFunction, compile, eager
from graphjit.ops.contract import dot, matmul, outer, tensordot, vecdot
from graphjit.ops.creation import (
    arange,
    eye,
    full,
    full_like,
    identity,
    linspace,
    one_hot,
    ones,
    ones_like,
    tril,
    triu,
    zeros,
    zeros_like,
)
from graphjit.ops.cumulative import diff
from graphjit.ops.einsum import einsum
from graphjit.ops.elementwise import (
    abs,
    add,
    astype,
    ceil,
    clip,
    divide,
    floor,
    floor_divide,
    masked_fill,
    maximum,
    minimum,
    multiply,
    negative,
    pow,
    relu,
    remainder,
    round,
    sign,
    square,
    subtract,
    trunc,
    where,
)
from graphjit.ops.gather import scatter_add, take, take_along_axis
from graphjit.ops.join import concat, concatenate, diag, meshgrid, pad, repeat, roll, split, stack, tile, unstack
from graphjit.ops.logic import (
    bitwise_and,
    bitwise_left_shift,
    bitwise_not,
    bitwise_or,
    bitwise_right_shift,
    bitwise_xor,
    equal,
    greater,
    greater_equal,
    isfinite,
    isinf,
    isnan,
    less,
    less_equal,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    not_equal,
    signbit,
)
from graphjit.ops.movement import (
    broadcast_arrays,
    broadcast_to,
    flip,
    matrix_transpose,
    moveaxis,
    permute_dims,
    swapaxes,
    transpose,
)
from graphjit.ops.random import (
    Generator,
    bernoulli,
    manual_seed,
    normal,
    permutation,
    randint,
    uniform,
)
from graphjit.ops.reduce import all, any, argmax, argmin, count_nonzero, cumprod, cumsum, max, min, prod, sum
from graphjit.ops.shape import expand_dims, flatten, ravel, reshape, squeeze
from graphjit.ops.sorting import argsort, median, quantile, searchsorted, sort, topk
from graphjit.ops.special import copysign, digamma, hypot, lgamma, logaddexp
from graphjit.ops.statistics import log_softmax, logsumexp, mean, softmax, std, var
from graphjit.ops.transcendental import (
    acos,
    acosh,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    cos,
    cosh,
    erf,
    erfc,
    erfinv,
    exp,
    exp2,
    expm1,
    log,
    log1p,
    log2,
    log10,
    reciprocal,
    rsqrt,
    sigmoid,
    sin,
    sinh,
    softplus,
    sqrt,
    tan,
    tanh,
)
from graphjit.runtime.denormal import set_flush_denormal
from graphjit.runtime.threads import get_num_threads, set_num_threads
from graphjit.tensor import Tensor
from graphjit.transforms import (
    custom_vjp,
    enable_grad,
    grad,
    hessian,
    hvp,
    jacobian,
    jvp,
    no_grad,
    value_and_grad,
    vjp,
)

if TYPE_CHECKING:
    from graphjit import checkpoint, data, linalg, nn, optim, plots, random, testing, training
    from graphjit.checkpoint import load_checkpoint, save_checkpoint
    from graphjit.drawing import draw_dot

__version__ = "0.1.0"

_ROOMS = frozenset({"checkpoint", "data", "linalg", "nn", "optim", "plots", "random", "testing", "training"})
_LATER = {  # names whose room is imported for them
    "draw_dot": "drawing",
    "load_checkpoint": "checkpoint",
    "save_checkpoint": "checkpoint",
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"graphjit.{name}")
    if name in _LATER:
        return getattr(importlib.import_module(f"graphjit.{_LATER[name]}"), name)
    raise AttributeError(f"module 'graphjit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS, *_LATER})


__all__ = [
    "ArgumentError", "BoundsError", "CheckpointError", "CompiledFunction", "DTypeError", "DataDependentError",
    "DataError", "DatasetUnavailable", "Generator", "GradientError", "GraphjitError", "InternalCompilerError",
    "LeakedTensorError", "NumericalError", "ShapeError", "Tensor", "TraceError", "TraceWarning", "TrainingDiverged",
    "abs", "acos", "acosh", "add", "all", "any", "arange", "argmax", "argmin", "argsort", "asin", "asinh", "astype",
    "atan", "atan2", "atanh", "bernoulli", "bitwise_and", "bitwise_left_shift", "bitwise_not", "bitwise_or",
    "bitwise_right_shift", "bitwise_xor", "broadcast_arrays", "broadcast_to", "ceil", "checkpoint", "clip", "compile",
    "concat", "concatenate", "copysign", "cos", "cosh", "count_nonzero", "cumprod", "cumsum", "custom_vjp", "data",
    "diag", "diff", "digamma", "divide", "dot", "draw_dot", "eager", "einsum", "enable_grad", "equal", "erf", "erfc",
    "erfinv", "exp", "exp2", "expand_dims", "expm1", "eye", "flatten", "flip", "floor", "floor_divide", "full",
    "full_like", "get_num_threads", "grad", "greater", "greater_equal", "hessian", "hvp", "hypot", "identity",
    "isfinite", "isinf", "isnan", "jacobian", "jvp", "less", "less_equal", "lgamma", "linalg", "linspace",
    "load_checkpoint", "log", "log1p", "log2", "log10", "log_softmax", "logaddexp", "logical_and", "logical_not",
    "logical_or", "logical_xor", "logsumexp", "manual_seed", "masked_fill", "matmul", "matrix_transpose", "max",
    "maximum", "mean", "median", "meshgrid", "min", "minimum", "moveaxis", "multiply", "negative", "nn", "no_grad",
    "normal", "not_equal", "one_hot", "ones", "ones_like", "optim", "outer", "pad", "permutation", "permute_dims",
    "plots", "pow", "prod", "quantile", "randint", "random", "ravel", "reciprocal", "relu", "remainder", "repeat",
    "reshape", "roll", "round", "rsqrt", "save_checkpoint", "scatter_add", "searchsorted", "set_flush_denormal",
    "set_num_threads", "sigmoid", "sign", "signbit", "sin", "sinh", "softmax", "softplus", "sort", "split", "sqrt",
    "square", "squeeze", "stack", "std", "subtract", "sum", "swapaxes", "take", "take_along_axis", "tan", "tanh",
    "tensor", "tensordot", "testing", "tile", "topk", "training", "transpose", "tril", "triu", "trunc", "uniform",
    "unstack", "value_and_grad", "var", "vecdot", "vjp", "where", "zeros", "zeros_like",
]
