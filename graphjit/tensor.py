"""``Tensor``, the value people hold."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np

from graphjit.arrays import lasting_copy, to_array
from graphjit.buffers import guard_view
from graphjit.errors import ArgumentError, DataDependentError, DTypeError, GradientError, TraceError
from graphjit.interop import NumpyProtocol
from graphjit.op import Array
from graphjit.operators import Operators
from graphjit.tape import Item, Value, clock, state
from graphjit.trace import leaked
from graphjit.types import DType, Shape, TensorType, is_float

TensorLike = Any  # a Tensor, a NumPy array or scalar, a Python number, nested lists of numbers


_new = object.__new__


class Tensor(Operators, NumpyProtocol):
    """An n-dimensional array that knows how it was computed.

    Made by ``gj.tensor(data)``; every operation gives a new one. Attributes:

    * ``data``: the NumPy array (eager only); ``shape dtype ndim size T mT``;
    * ``requires_grad``: whether ``backward()`` shall find its gradient; ``grad``: that gradient;
    * ``label``: a name, shown in graphs and reports.

    >>> import graphjit as gj
    >>> x = gj.tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad.numpy().tolist()
    [2.0, 4.0]
    """

    __slots__ = ("__weakref__", "_grad", "_label", "_value")
    __array_priority__ = 1000

    _value: Value
    _grad: Any  # a Tensor, None, or what stands where a gradient stayed in a compiled step

    def __init__(self, data: TensorLike, requires_grad: bool = False, label: str = "") -> None:
        if state.trace is not None and not isinstance(data, np.ndarray):
            raise TraceError("Tensor(...) inside a compiled function", hint="Use gj.tensor(...).")
        self._value = shared(data)
        self._grad = None
        self.label = label
        if requires_grad:
            self.requires_grad = True

    @staticmethod
    def _of(value: Value, label: str = "") -> Tensor:
        out: Tensor = _new(Tensor)
        out._value = value
        out._grad = None
        out._label = label
        return out

    # ---- what it is

    @property
    def label(self) -> str:
        """A name, shown in graphs and reports."""
        return self._label

    @label.setter
    def label(self, name: str) -> None:
        self._label = name
        if name or self._value._home is not None:
            self._value.home.label = name  # so that what is computed from it can tell

    @property
    def _type(self) -> TensorType:
        value = self._value
        if value.trace is not None and value.trace is not state.trace:
            raise leaked(value)
        return value.type

    @property
    def shape(self) -> Shape:
        """The length of each axis."""
        value = self._value
        if value.trace is None:
            return value.data.shape  # type: ignore[union-attr, no-any-return]  # an array
        return self._type.shape

    @property
    def dtype(self) -> DType:
        """Of the elements."""
        value = self._value
        if value.trace is None:
            return value.data.dtype  # type: ignore[union-attr, no-any-return]  # an array
        return self._type.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        value = self._value
        if value.trace is None:
            return value.data.ndim  # type: ignore[union-attr]  # an array
        return self._type.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self._type.size

    @property
    def data(self) -> Array:
        """The array. Raises DataDependentError in a trace, where there is none yet."""
        return self._known(".data")

    @data.setter
    def data(self, array: TensorLike) -> None:
        if state.trace is not None:
            raise TraceError("setting .data inside a compiled function", hint="Use t.assign(x).")
        requires_grad = self._value.requires_grad
        self._value = shared(array)
        clock.structure += 1
        if requires_grad:
            self.requires_grad = True

    def numpy(self) -> Array:
        """The array; the same memory, so don't write to it. A matrix may lie in it column by column (``.strides``)."""
        return self.data

    def item(self) -> Any:
        """The one element as a Python number."""
        return self._number(".item()")

    def tolist(self) -> Any:
        """The elements as nested lists."""
        return self._known(".tolist()").tolist()

    def _known(self, what: str) -> Array:
        """The array, for ``what``. In a trace there is none, and that of a tensor from outside may change."""
        value = self._value
        if value.trace is not None or state.trace is not None:
            self._no_value(what)
        data: Array = value.data  # type: ignore[assignment]  # not traced
        return data

    def _number(self, what: str) -> Any:
        array = self._known(what)
        if array.size != 1:
            raise ArgumentError(f"{what} of a tensor of shape {array.shape}: it is not one number",
                                hint="Use .tolist().")
        return array.item()

    def _no_value(self, what: str) -> NoReturn:
        trace = state.trace
        if trace is None:
            raise leaked(self._value)
        value = trace.read(self)
        if self._value.trace is None:
            made = f"it is {self.label or 'a tensor'} from outside of the compiled function"
        else:
            made = f"it was made at {value.where.full()}" if value.where is not None else "it is an argument"
        raise DataDependentError(
            f"{what} asks for the value of a tensor {value.type} that is known only when the program runs",
            detail=(made,),
            hint="Choose with gj.where(cond, a, b), compute outside of the compiled function, or debug "
                 "inside `with gj.eager():`.")

    def __bool__(self) -> bool:
        array = self._known("a condition (if, while, and, or, not)")
        if array.size != 1:
            raise ArgumentError(f"the truth of a tensor of shape {array.shape} is ambiguous",
                                hint="Use .any() or .all().")
        return bool(array)

    def __float__(self) -> float:
        return float(self._number("float()"))

    def __int__(self) -> int:
        return int(self._number("int()"))

    def __index__(self) -> int:
        if self.dtype.kind not in "iu" or self.ndim != 0:
            raise ArgumentError(f"a tensor {self._type} is not an index")
        return int(self._number("an index"))

    def __len__(self) -> int:
        if not self.shape:
            raise ArgumentError("a 0-d tensor has no length")
        return int(self.shape[0])

    def __iter__(self) -> Iterator[Tensor]:
        if not self.shape:
            raise ArgumentError("a 0-d tensor cannot be iterated over")
        return iter([self[i] for i in range(self.shape[0])])

    def __contains__(self, x: object) -> bool:
        return bool((self == x).any())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self._known("a NumPy function"), dtype=dtype, copy=copy)

    def __hash__(self) -> int:
        return id(self)

    def __format__(self, spec: str) -> str:
        return format(self._number(f"the format {spec!r}"), spec) if spec else str(self)

    def __repr__(self) -> str:
        value = self._value
        if value.trace is not None or state.trace is not None:
            return f"Tensor({value.type}" + (f" made at {value.where}" if value.where else "") + ")"
        extra = ", requires_grad=True" if value.requires_grad else ""
        extra += f", label={self.label!r}" if self.label else ""
        body = np.array2string(value.data, separator=", ", prefix="Tensor(")  # type: ignore[arg-type]  # an array
        return f"Tensor({body}, dtype={self.dtype.name}{extra})"

    def __copy__(self) -> Tensor:
        return self.__deepcopy__({})

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if self._value.trace is not None:
            raise TraceError("a tensor of a running trace cannot be copied")
        if self._value.op is not None:
            raise GradientError("only tensors without history can be copied", hint="Use t.detach() first.")
        out = type(self).__new__(type(self))
        memo[id(self)] = out
        out._value = Value(lasting_copy(self.data))
        out._grad = None
        out.label = self.label
        if self.requires_grad:
            out.requires_grad = True
        return out

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.data, self.requires_grad, self.label))

    # ---- gradients

    @property
    def requires_grad(self) -> bool:
        """Whether ``backward()`` looks for its gradient."""
        trace = state.trace
        if trace is not None and self._value.trace is None:
            entry = trace.states.get(id(self))
            if entry is not None:
                return entry.current.requires_grad
        return self._value.requires_grad

    @requires_grad.setter
    def requires_grad(self, on: bool) -> None:
        value = self._value
        if state.trace is not None and value.trace is None:
            raise TraceError("setting requires_grad of a tensor from outside in a compiled function",
                             hint="Set it before the call.")
        if value.op is not None and not on:
            raise GradientError("requires_grad of a computed tensor cannot be switched off",
                                hint="Use t.detach().")
        if on and not is_float(self.dtype):
            raise DTypeError(f"only floating tensors have gradients, this is {self._type}")
        if value.requires_grad != bool(on):
            value.requires_grad = bool(on)
            clock.structure += 1
        if on:
            value.leaf = weakref.ref(self)

    def requires_grad_(self, on: bool = True) -> Tensor:
        """Set ``requires_grad``; gives the tensor itself."""
        self.requires_grad = on
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether it was made, not computed."""
        return self._value.op is None

    @property
    def op(self) -> str:
        """Name of the operation that made this tensor on the tape; empty for a leaf."""
        return self._value.op.name if self._value.op is not None else ""

    @property
    def prev(self) -> tuple[Tensor, ...]:
        """The operands of that operation; none for a leaf, and once ``backward()`` has released the tape.

        >>> import graphjit as gj
        >>> a = gj.tensor(2.0, requires_grad=True, label="a")
        >>> b = a * 3.0
        >>> b.op, b.prev[0] is a, b.prev[1].item()
        ('mul', True, 3.0)
        """
        value = self._value
        if isinstance(value.op, Item) and value.inputs:  # one result of a custom or compiled function
            [value] = value.inputs
        return tuple([_handle(v) for v in value.inputs or ()])


def _handle(value: Value) -> Tensor:
    """The leaf that people hold of a value, or a new handle."""
    tensor = value.leaf() if value.leaf is not None else None
    return tensor if tensor is not None else Tensor._of(value, value.label)


def _rebuild(cls: type[Tensor], data: Array, requires_grad: bool, label: str) -> Tensor:
    out = cls.__new__(cls)
    out._value = Value(lasting_copy(data))
    out._grad = None
    out.label = label
    if requires_grad:
        out.requires_grad = True
    return out


def shared(data: TensorLike) -> Value:
    """A value over the caller's own array or tensor: written to, it takes a copy first."""
    value = Value(to_array(data))
    if isinstance(data, Tensor):
        guard_view(data._value, value)
    elif isinstance(data, np.ndarray):
        clock.views += 1
        value.views = [weakref.ref(value)]
    return value


def value_of(tensor: Tensor) -> Value:
    """What the tensor holds at this point: of the trace, or of the program that runs."""
    value = tensor._value
    trace = state.trace
    if trace is not None:
        return trace.read(tensor)
    if value.trace is not None:
        raise leaked(value)
    return value


def held(tensor: Tensor) -> Array:
    """The array a tensor from outside holds now, in a trace too: for state that is set up while tracing."""
    value = tensor._value
    if value.trace is not None:
        raise leaked(value)
    array: Array = value.data  # type: ignore[assignment]  # not traced
    return array
