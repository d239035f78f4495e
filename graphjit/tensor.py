"""``Tensor``, the value people hold, and ``apply``, the one place every operation passes."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np

from graphjit.errors import (
    ArgumentError,
    DataDependentError,
    DTypeError,
    GradientError,
    GraphjitError,
    InternalCompilerError,
    ShapeError,
    TraceError,
)
from graphjit.interop import NumpyProtocol
from graphjit.op import Array, Op
from graphjit.operators import Operators
from graphjit.tape import Value, clock, state, walk_back
from graphjit.trace import Trace, leaked
from graphjit.types import FLOAT32, FLOAT64, DType, Shape, TensorType, check_dtype, is_float, promote

TensorLike = Any  # a Tensor, a NumPy array or scalar, a Python number, nested lists of numbers


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

    __slots__ = ("__weakref__", "_grad", "_value", "label")
    __array_priority__ = 1000

    _value: Value
    _grad: Tensor | Unavailable | None

    def __init__(self, data: TensorLike, requires_grad: bool = False, label: str = "") -> None:
        if state.trace is not None and not isinstance(data, np.ndarray):
            raise TraceError("Tensor(...) inside a compiled function", hint="Use gj.tensor(...).")
        self._value = _shared(data)
        self._grad = None
        self.label = label
        if requires_grad:
            self.requires_grad = True

    @staticmethod
    def _of(value: Value, label: str = "") -> Tensor:
        out = Tensor.__new__(Tensor)
        out._value = value
        out._grad = None
        out.label = label
        return out

    # ---- what it is

    @property
    def _type(self) -> TensorType:
        value = self._value
        if value.trace is not None and value.trace is not state.trace:
            raise leaked(value)
        return value.type

    @property
    def shape(self) -> Shape:
        value = self._value
        if value.trace is None:
            return value.data.shape  # type: ignore[union-attr, no-any-return]  # an array
        return self._type.shape

    @property
    def dtype(self) -> DType:
        value = self._value
        if value.trace is None:
            return value.data.dtype  # type: ignore[union-attr, no-any-return]  # an array
        return self._type.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
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
        self._value = _shared(array)
        clock.structure += 1
        if requires_grad:
            self.requires_grad = True

    def numpy(self) -> Array:
        """The array; the same memory, so don't write to it."""
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
        out._value = Value(self.data.copy())
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
        return self._value.op is None

    @property
    def grad(self) -> Tensor | None:
        """The gradient that ``backward()`` left, or None."""
        trace = state.trace
        if trace is not None:
            entry = trace.grads.get(id(self))
            if entry is not None:
                return entry[1]
        found = self._grad
        if isinstance(found, Unavailable):
            if trace is None or found.held is None:
                raise GradientError(
                    f"the gradient of {self.label or 'this tensor'} stayed inside a compiled step",
                    hint="Read it in the step, or use @graphjit.compile(keep_grads=True).")
            found = found.held
        if trace is not None and self._value.trace is None:
            # a handle of the trace's own: the next call may find another gradient in its place
            handle = None if found is None else Tensor._of(found._value, f"{self.label or 'tensor'}.grad")
            return trace.entry_grads.setdefault(id(self), (self, handle))[1]
        return found

    @grad.setter
    def grad(self, g: TensorLike | None) -> None:
        new = None if g is None else as_tensor(g, self.dtype)
        if new is not None and new.shape != self.shape:
            raise ShapeError(f"a gradient of shape {new.shape} does not fit a tensor of shape {self.shape}")
        self._set_grad(None if new is None else new.astype(self.dtype))

    def _set_grad(self, g: Tensor | None) -> None:
        if state.trace is not None:
            state.trace.grads[id(self)] = (self, g)
        else:
            self._grad = g
            clock.grad_writes += 1

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self._set_grad(None)

    def backward(self, gradient: TensorLike | None = None, retain_graph: bool = False,
                 create_graph: bool = False) -> None:
        """Add the gradient of this tensor to ``.grad`` of every leaf that requires one.

        Args:
            gradient: cotangent of the tensor's shape; 1 for a scalar when not given.
            retain_graph: keep the tape for another backward.
            create_graph: record the gradients themselves, for second derivatives.

        Raises:
            GradientError: nothing requires a gradient, an op has no derivative, or the tape is gone.
        """
        value = _read(self)
        if not value.requires_grad:
            raise GradientError("backward() from a tensor that does not require a gradient",
                                detail=(f"it is {value.type}",),
                                hint="Set requires_grad=True on the inputs, and mind no_grad().")
        if gradient is None:
            if value.type.size != 1:
                raise GradientError(
                    f"backward() without a gradient starts from a scalar, this is {value.type}",
                    hint="Call .sum() or .mean() first, or pass gradient=.")
            g = filled(value.shape, 1, value.type.dtype)
        else:
            g = as_tensor(gradient).astype(value.type.dtype)
            if g.shape != value.shape:
                raise ShapeError(f"gradient of shape {g.shape} for a tensor of shape {value.shape}")
        found = walk_back([(value, g)], None, create_graph=create_graph,
                          release=not (retain_graph or create_graph))
        for leaf, part in found.items():
            if leaf.leaf is None or (owner := leaf.leaf()) is None:
                continue
            if state.trace is not None and owner._value.trace is None and owner._value.op is not None:
                raise GradientError(
                    "backward() in a compiled function reached a tensor that was computed outside of it",
                    detail=(f"{owner._value.type}, the result of {owner.op}",),
                    hint="Compute it inside the function, or use its detach().")
            before = owner.grad
            if not create_graph:
                part = part.detach()
            owner._set_grad(part if before is None else before + part)

    def detach(self) -> Tensor:
        """The same values, cut off from the tape."""
        value = _read(self)
        new = Value(value.data, False, value.trace)
        new.where = value.where
        _guard_view(value, new)
        return Tensor._of(new)

    @property
    def op(self) -> str:
        """Name of the operation that made this tensor on the tape; empty for a leaf."""
        return self._value.op.name if self._value.op is not None else ""

    @property
    def prev(self) -> tuple[Tensor, ...]:
        """The operands of that operation."""
        return tuple(v.leaf() if v.leaf is not None and v.leaf() is not None else Tensor._of(v)  # type: ignore[misc]
                     for v in self._value.inputs or ())

    # ---- state

    def assign(self, x: TensorLike) -> Tensor:
        """Make this tensor hold the values of ``x`` (cast and broadcast to its type); gives itself.

        In a compiled function this is how state changes; eagerly the buffer is overwritten.
        """
        new = as_tensor(x, self.dtype)
        old = _read(self)
        if new.dtype != old.type.dtype:
            new = new.astype(old.type.dtype)
        if new.shape != old.shape:
            new = new.broadcast_to(old.shape)
        if state.trace is not None:
            if self._value.trace is None:
                state.trace.assign(self, _read(new))
            else:
                self._value = Value(_read(new).data, False, state.trace)
            return self
        if old.op is not None:
            raise GradientError("assign() to a computed tensor", hint="Assign to a leaf, or use t[...] = x.")
        overwrite(old, new.data)
        return self

    def __setitem__(self, index: Any, x: TensorLike) -> None:
        new = self._with_item(index, x)
        value = _read(self)
        if state.trace is not None and self._value.trace is None:
            if value.requires_grad and state.grad_enabled:
                raise GradientError("t[i] = v on a leaf that requires a gradient",
                                    hint="Do it under no_grad(), or on a copy (t + 0).")
            state.trace.assign(self, _read(new))
        elif value.op is None and state.trace is None:
            if value.requires_grad and state.grad_enabled:
                raise GradientError("t[i] = v on a leaf that requires a gradient",
                                    hint="Do it under no_grad(), or on a copy (t + 0).")
            if new.requires_grad:
                self._value = new._value
                clock.structure += 1
            else:
                overwrite(value, new.data)
        else:
            self._value = _read(new)
            clock.structure += state.trace is None


class Unavailable:
    """Stands where a gradient stayed inside a compiled step.

    ``held``: that gradient, where the next compiled step adds to it.
    """

    __slots__ = ("held",)

    def __init__(self, held: Tensor | None = None) -> None:
        self.held = held


UNAVAILABLE = Unavailable()


def _rebuild(cls: type[Tensor], data: Array, requires_grad: bool, label: str) -> Tensor:
    out = cls.__new__(cls)
    out._value = Value(data)
    out._grad = None
    out.label = label
    if requires_grad:
        out.requires_grad = True
    return out


def overwrite(value: Value, array: Array) -> None:
    """Copy ``array`` into the buffer of a leaf; views taken of it keep what they showed."""
    protect_views(value)
    np.copyto(value.data, array)  # type: ignore[arg-type]  # an array outside of traces
    mark_written(value)


def protect_views(value: Value) -> None:
    """Give every live view of this buffer its own copy, as the buffer is about to change."""
    if value.views:
        for ref in value.views:
            view = ref()
            if view is not None:
                view.data = view.data.copy()  # type: ignore[union-attr]  # an array outside of traces
                clock.structure += 1  # compiled functions may read or write it
        value.views = None


def mark_written(value: Value) -> None:
    value.written = clock.tick()


def _guard_view(base: Value, view: Value) -> None:
    """Remember that ``view`` shares the buffer of ``base``; a family of views has one list."""
    if base.trace is None:
        clock.views += 1
        views = base.views
        if views is None:
            views = base.views = []
        elif (n := len(views)) >= 64 and n & (n - 1) == 0:  # now and then, so that many live views stay cheap
            views[:] = [r for r in views if r() is not None]
        views.append(weakref.ref(view))
        view.views = views


def _shared(data: TensorLike) -> Value:
    """A value over the caller's own array or tensor: written to, it takes a copy first."""
    value = Value(to_array(data))
    if isinstance(data, Tensor):
        _guard_view(data._value, value)
    elif isinstance(data, np.ndarray):
        clock.views += 1
        value.views = [weakref.ref(value)]
    return value


# ---- making tensors

def to_array(data: TensorLike, dtype: DType | None = None) -> Array:
    """An array graphjit holds: floats in lists become float32, arrays keep their dtype.

    Raises:
        ArgumentError: ragged lists, strings, objects. DTypeError: complex, float16 and other dtypes.
    """
    if isinstance(data, Tensor):
        return data.data
    if isinstance(data, (np.ndarray, np.generic)):
        array = np.asarray(data)
    else:
        if isinstance(data, (list, tuple)) and _holds_tensors(data):
            raise ArgumentError("a list of tensors is not a tensor", hint="Use gj.stack([...]).")
        try:
            array = np.asarray(data)
        except (ValueError, TypeError, OverflowError) as error:
            raise ArgumentError(
                f"{_brief(data)} cannot be made a tensor", detail=(str(error).split(". ")[0],),
                hint="Nested lists must have equal lengths and hold numbers.") from None
        if array.dtype == FLOAT64 and (dtype is None or dtype != FLOAT64):  # None == float64 for NumPy
            array = array.astype(FLOAT32)
    if array.dtype.kind in "OSUVMm":
        raise ArgumentError(
            f"{_brief(data)} cannot be made a tensor: its elements are {array.dtype}, not numbers")
    kind = check_dtype(array.dtype if dtype is None else dtype)
    if array.dtype != kind or not array.dtype.isnative:
        array = array.astype(kind)
    return array


def _holds_tensors(data: Sequence[Any]) -> bool:
    return any(isinstance(x, Tensor) or (isinstance(x, (list, tuple)) and _holds_tensors(x)) for x in data)


def _brief(data: object) -> str:
    text = repr(data)
    return f"{type(data).__name__} " + (text if len(text) <= 60 else text[:57] + "...")


def as_tensor(x: TensorLike, dtype: DType | None = None) -> Tensor:
    """A tensor for whatever stands for one; ``dtype`` is for Python numbers only."""
    if isinstance(x, Tensor):
        return x
    trace = state.trace
    if isinstance(x, (bool, int, float)) and not isinstance(x, np.generic):
        return scalar(x, dtype if dtype is not None else default_dtype(x))
    if trace is not None:
        array = to_array(x)
        if isinstance(x, np.ndarray):
            value = trace.lift_array(x)
        else:
            value = trace.constant(array)
        return Tensor._of(value)
    return Tensor._of(_shared(x))


def held(tensor: Tensor) -> Array:
    """The array a tensor from outside holds now, in a trace too: for state that is set up while tracing."""
    value = tensor._value
    if value.trace is not None:
        raise leaked(value)
    array: Array = value.data  # type: ignore[assignment]  # not traced
    return array


def default_dtype(x: bool | int | float) -> DType:
    if isinstance(x, bool):
        return np.dtype(np.bool_)
    return np.dtype(np.int64) if isinstance(x, int) else FLOAT32


def scalar(x: bool | int | float, dtype: DType) -> Tensor:
    """A 0-d tensor of a Python number.

    Raises:
        DTypeError: when the number does not fit the dtype.
    """
    try:
        if state.trace is not None:
            return Tensor._of(state.trace.scalar(x, dtype))
        return Tensor._of(Value(np.array(x, dtype)))
    except OverflowError:
        raise DTypeError(f"the Python integer {x} does not fit dtype {dtype}") from None


def operand(x: bool | int | float, dtype: DType) -> Tensor:
    """``scalar`` for an operand that no one else gets to hold, so that one tensor can serve again."""
    if state.trace is not None or x == 0:  # 0.0 and -0.0 are equal, and would be one entry of the cache
        return scalar(x, dtype)
    return _kept_scalar(x, dtype)


_kept_scalar = lru_cache(maxsize=256, typed=True)(scalar)


def constant(array: Array) -> Tensor:
    """A tensor of an array that never changes."""
    return Tensor._of(Value(array) if state.trace is None else state.trace.constant(array))


def filled(shape: Shape, value: bool | int | float, dtype: DType) -> Tensor:
    """A tensor of one repeated number."""
    if state.trace is not None:
        out: Tensor = scalar(value, dtype).broadcast_to(shape)
        return out
    return Tensor._of(Value(np.full(shape, value, dtype)))


def tensor(data: TensorLike, dtype: Any = None, requires_grad: bool = False, label: str = "") -> Tensor:
    """A tensor of the given data.

    Args:
        data: number, nested lists, NumPy array or Tensor; arrays are copied and keep their dtype,
            Python floats become float32, integers int64.
        dtype: element type, when another is wanted.
        requires_grad: whether ``backward()`` shall find its gradient.
        label: a name for graphs and reports.

    Raises:
        ArgumentError: ragged lists, strings, objects. DTypeError: element types graphjit does not hold.

    >>> import graphjit as gj
    >>> gj.tensor([[1, 2], [3, 4]], dtype="float64").shape
    (2, 2)
    """
    kind = None if dtype is None else check_dtype(dtype)
    if state.trace is not None:
        if isinstance(data, (Tensor, np.ndarray)):
            # a fresh value each time the program runs, read from the captured array by reference
            out = as_tensor(data)
            found = out._type
            out = out.astype(kind or (FLOAT32 if found.weak else found.dtype)).detach()
        else:
            out = Tensor._of(state.trace.constant(to_array(data, kind)))
        out.label = label
        if requires_grad:
            out.requires_grad = True
        return out
    out = Tensor._of(Value(np.array(to_array(data, kind))), label)
    if requires_grad:
        out.requires_grad = True
    return out


# ---- the one place every operation passes

def _read(tensor: Tensor) -> Value:
    value = tensor._value
    trace = state.trace
    if trace is not None:
        return trace.read(tensor)
    if value.trace is not None:
        raise leaked(value)
    return value


def apply(op: Op, *tensors: Tensor, **params: Any) -> Tensor:
    """Apply an op to tensors: record it in a trace, run its eager rule otherwise; note it on the tape.

    Raises:
        ShapeError, DTypeError: operands the op has no meaning for.
    """
    if state.trace is not None:
        return _record(state.trace, op, tensors, params)
    arrays: list[Any] = []
    needs_grad = False
    for t in tensors:
        v = t._value
        if v.trace is not None:
            raise leaked(v)
        arrays.append(v.data)
        if v.requires_grad:
            needs_grad = True
    try:
        out = state.quiet(op.eager, *arrays, **params)
    except (ValueError, TypeError, IndexError, ZeroDivisionError, AttributeError, RuntimeError) as error:
        if isinstance(error, GraphjitError):
            raise
        raise _explained(op, [t._value for t in tensors], params, error) from error
    value = Value(out if type(out) is np.ndarray else np.asarray(out))
    if op.view:
        _guard_view(tensors[0]._value, value)
    if needs_grad and state.grad_enabled and out.dtype.kind == "f":
        value.requires_grad = True
        value.op = op
        value.inputs = tuple([t._value for t in tensors])
        value.params = params
    return Tensor._of(value)


def _record(trace: Trace, op: Op, tensors: tuple[Tensor, ...], params: dict[str, Any]) -> Tensor:
    values = tuple([trace.read(t) for t in tensors])
    value = trace.record(op, values, params)
    if state.grad_enabled and any(v.requires_grad for v in values) and is_float(value.type.dtype):
        value.requires_grad = True
        value.op = op
        value.inputs = values
        value.params = params
    return Tensor._of(value)


def _explained(op: Op, values: Sequence[Value], params: dict[str, Any], error: Exception) -> GraphjitError:
    """What the shape rule says of operands that the eager rule could not take."""
    try:
        op.infer(*(v.type for v in values), **params)
    except GraphjitError as found:
        return found
    return InternalCompilerError(
        f"the eager rule of {op.name} failed where its shape rule did not: {error}",
        detail=tuple(f"operand {i}: {v.type}" for i, v in enumerate(values)))


def result_dtype(xs: Sequence[TensorLike]) -> DType:
    """The dtype these promote to; Python numbers are weak, as in NumPy 2."""
    strong: list[DType] = []
    weak: list[type] = []
    for x in xs:
        if isinstance(x, (bool, int, float)) and not isinstance(x, np.generic):
            weak.append(type(x))
        elif isinstance(x, Tensor):
            found = x._type
            if found.weak:
                weak.append(float)
            else:
                strong.append(found.dtype)
        elif isinstance(x, (np.ndarray, np.generic)) and x.dtype.kind in "biufc":
            strong.append(check_dtype(x.dtype))
        else:
            strong.append(to_array(x).dtype)
    if not strong:
        return FLOAT64 if all_weak(xs) else max((default_dtype(t(0)) for t in weak), key=_rank)
    out = promote(*strong)
    for t in weak:
        if t is float and out.kind != "f":
            out = FLOAT64
        elif t is int and out.kind == "b":
            out = np.dtype(np.int64)
    return out


def _rank(dtype: DType) -> int:
    return "biuf".index(dtype.kind)


def all_weak(xs: Sequence[TensorLike]) -> bool:
    """Whether a run-time Python float is among these and nothing stronger: the result stays weak."""
    return any(isinstance(x, Tensor) for x in xs) and all(
        x._type.weak if isinstance(x, Tensor) else isinstance(x, (bool, int, float)) for x in xs)


def promoted(*xs: TensorLike, dtype: DType | None = None) -> list[Tensor]:
    """Tensors of one common dtype."""
    if dtype is None:
        dtype = result_dtype(xs)
    keep_weak = all_weak(xs)
    out: list[Tensor] = []
    for x in xs:
        if isinstance(x, Tensor):
            found = x._type
            out.append(x if found.dtype == dtype and (keep_weak or not found.weak) else x.astype(dtype))
        elif isinstance(x, (bool, int, float)):
            out.append(operand(x, dtype))
        else:
            t = as_tensor(x)
            out.append(t if t.dtype == dtype else t.astype(dtype))
    return out
