"""``Parameter``: a tensor that a module learns."""

from __future__ import annotations

from graphjit.arrays import lasting_copy, to_array
from graphjit.errors import TraceError
from graphjit.tape import Value, state
from graphjit.tensor import Tensor, TensorLike


class Parameter(Tensor):
    """A tensor that, set as an attribute of a ``Module``, is one of its parameters.

    Args:
        data: number, nested lists, NumPy array or Tensor; copied, arrays keep their dtype.
        requires_grad: whether ``backward()`` shall find its gradient.
        label: a name for graphs and reports; a module gives one where there is none.

    Raises:
        DTypeError: ``requires_grad`` of data that is not floating.
        TraceError: inside a compiled function, where every call would make another.

    >>> from graphjit import nn
    >>> nn.Parameter([1.0, 2.0]).requires_grad
    True
    """

    __slots__ = ()

    def __init__(self, data: TensorLike, requires_grad: bool = True, label: str = "") -> None:
        if state.trace is not None:
            raise TraceError("a Parameter cannot be made inside a compiled function",
                             hint="Make parameters, modules and optimizers outside and use them inside.")
        self._value = Value(lasting_copy(to_array(data)))
        self._grad = None
        self.label = label
        if requires_grad:
            self.requires_grad = True
