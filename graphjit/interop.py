"""What NumPy's own functions do with a Tensor."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from graphjit.errors import GradientError
from graphjit.tape import state
from graphjit.tree import flatten, unflatten

# array + tensor is a Tensor: NumPy asks here before the tensor's reflected method is tried
_OPERATORS: dict[Any, Callable[..., Any]] = {
    np.add: operator.add, np.subtract: operator.sub, np.multiply: operator.mul,
    np.true_divide: operator.truediv, np.floor_divide: operator.floordiv, np.remainder: operator.mod,
    np.power: operator.pow,
    np.matmul: operator.matmul, np.bitwise_and: operator.and_, np.bitwise_or: operator.or_,
    np.bitwise_xor: operator.xor, np.left_shift: operator.lshift, np.right_shift: operator.rshift,
    np.equal: operator.eq, np.not_equal: operator.ne, np.less: operator.lt, np.less_equal: operator.le,
    np.greater: operator.gt, np.greater_equal: operator.ge,
}
_OF_TYPE = {np.shape: lambda t: t.shape, np.ndim: lambda t: t.ndim}


class NumpyProtocol:
    """Operators between arrays and tensors give tensors; other NumPy functions see the array.

    Raises:
        DataDependentError: in a compiled function, where there is no array yet.
        GradientError: when the result is floating and a gradient would be lost unnoticed.
    """

    __slots__ = ()

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        from graphjit.convert import as_tensor

        if ufunc in _OPERATORS and method == "__call__" and not kwargs:
            return _OPERATORS[ufunc](*(as_tensor(x) if isinstance(x, (np.ndarray, np.generic)) else x
                                       for x in inputs))
        return _on_arrays(getattr(ufunc, method), ufunc.__name__, inputs, kwargs)

    def __array_function__(self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
        if function in _OF_TYPE and len(args) == 1:
            return _OF_TYPE[function](*args)
        return _on_arrays(function, function.__name__, args, kwargs)


def _on_arrays(function: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    from graphjit.tensor import Tensor

    leaves, spec = flatten((args, kwargs))
    arrays = [x._known(f"NumPy's {name}") if isinstance(x, Tensor) else x for x in leaves]
    args, kwargs = unflatten(spec, arrays)
    out = function(*args, **kwargs)
    if state.grad_enabled and isinstance(out, (np.ndarray, np.floating)) and out.dtype.kind == "f" \
            and any(isinstance(x, Tensor) and x.requires_grad for x in leaves):
        raise GradientError(f"NumPy's {name} on a tensor that requires a gradient would lose it",
                            hint=f"Use graphjit's own {name}, or t.detach().")
    return out
