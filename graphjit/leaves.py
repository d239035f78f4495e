"""What a leaf holds between steps: its gradient and its state; ``backward``, ``detach``, ``assign``, ``t[i] = v``.

Methods of Tensor that need what is built on the class, attached to it here.
"""

from __future__ import annotations

from typing import Any

from graphjit.backward import order_back, walk_back
from graphjit.buffers import guard_view, overwrite
from graphjit.convert import as_tensor, filled
from graphjit.errors import GradientError, ShapeError
from graphjit.operators import attach
from graphjit.tape import Value, clock, state
from graphjit.tensor import Tensor, TensorLike, value_of
from graphjit.trace import Trace
from graphjit.trail import remember
from graphjit.walks import learn, walk_again


class Unavailable:
    """Stands where a gradient stayed inside a compiled step.

    ``held``: that gradient, where the next compiled step adds to it.
    """

    __slots__ = ("held",)

    def __init__(self, held: Tensor | None = None) -> None:
        self.held = held


UNAVAILABLE = Unavailable()


def _get_grad(self: Tensor) -> Tensor | None:
    """The gradient that ``backward()`` left, or None."""
    trace = state.trace
    if trace is not None:
        entry = trace.grads.get(id(self))
        if entry is not None:
            return entry[1]
    found: Tensor | Unavailable | None = self._grad
    if isinstance(found, Unavailable):
        if trace is None or found.held is None:
            raise GradientError(
                f"the gradient of {self.label or 'this tensor'} stayed inside a compiled step",
                hint="Read it in the step, or use @graphjit.compile(keep_grads=True).")
        found = found.held
    if trace is not None and (self._value.trace is None or id(self) in trace.given):
        # a handle of the trace's own: the next call may find another gradient in its place
        handle = None if found is None else Tensor._of(found._value, f"{self.label or 'tensor'}.grad")
        return trace.entry_grads.setdefault(id(self), (self, handle))[1]
    return found


def _put_grad(self: Tensor, g: TensorLike | None) -> None:
    new = None if g is None else as_tensor(g, self.dtype)
    if new is not None and new.shape != self.shape:
        raise ShapeError(f"a gradient of shape {new.shape} does not fit a tensor of shape {self.shape}")
    _set_grad(self, None if new is None else new.astype(self.dtype))


def _set_grad(self: Tensor, g: Tensor | None) -> None:
    if state.trace is not None:
        state.trace.grads[id(self)] = (self, g)
    else:
        self._grad = g
        clock.grad_writes += 1


def zero_grad(self: Tensor) -> None:
    """Forget the gradient."""
    _set_grad(self, None)


def backward(self: Tensor, gradient: TensorLike | None = None, retain_graph: bool = False,
             create_graph: bool = False) -> None:
    """Add the gradient of this tensor to ``.grad`` of every leaf that requires one.

    Args:
        gradient: cotangent of the tensor's shape; 1 for a scalar when not given.
        retain_graph: keep the tape for another backward.
        create_graph: record the gradients themselves, for second derivatives.

    Raises:
        GradientError: nothing requires a gradient, an op has no derivative, the tape is gone, or has a cycle.
    """
    value = value_of(self)
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
    release = not (retain_graph or create_graph)
    found = walk_again(value, g, release) if state.trace is None and not create_graph else None
    if found is None:
        order = order_back([value])
        numbers = None
        if state.trace is None:
            numbers = remember(order)
            learn(order)
        found = walk_back([(value, g)], None, create_graph=create_graph, release=release, order=order,
                          numbers=numbers)
    for leaf, part in found.items():
        if leaf.leaf is None or (owner := leaf.leaf()) is None:
            continue
        if state.trace is not None and _was_computed_outside(owner, state.trace):
            raise computed_outside(owner)
        before = owner.grad
        if state.trace is not None and not create_graph:
            part = part.detach()
        _set_grad(owner, part if before is None else before + part)


def computed_outside(owner: Tensor) -> GradientError:
    return GradientError("backward() in a compiled function reached a tensor that was computed outside of it",
                         detail=(f"{owner._value.type} {owner.label}".rstrip(),),
                         hint="Compute it inside the function, or use its detach().")


def _was_computed_outside(owner: Tensor, trace: Trace) -> bool:
    given = trace.given.get(id(owner))
    return not given.leaf if given is not None else owner._value.trace is None and owner._value.op is not None


def detach(self: Tensor) -> Tensor:
    """The same values, cut off from the tape."""
    value = value_of(self)
    new = Value(value.data, False, value.trace)
    new.where = value.where
    guard_view(value, new)
    return Tensor._of(new)


def assign(self: Tensor, x: TensorLike) -> Tensor:
    """Make this tensor hold the values of ``x`` (cast and broadcast to its type); gives itself.

    In a compiled function this is how state changes; eagerly the buffer is overwritten.
    """
    if type(x) is Tensor and state.trace is None:  # eager updates
        old, given = self._value, x._value
        if (old.op is None and old.trace is None and given.trace is None and given.data.dtype is old.data.dtype  # type: ignore[union-attr]  # arrays
                and given.data.shape == old.data.shape):  # type: ignore[union-attr]  # arrays
            overwrite(old, given.data)  # type: ignore[arg-type]  # an array
            return self
    dtype, shape = self.dtype, self.shape
    new = as_tensor(x, dtype)
    old = value_of(self)
    if new.dtype != dtype:
        new = new.astype(dtype)
    if new.shape != shape:
        new = new.broadcast_to(shape)
    if state.trace is not None:
        if self._value.trace is None:
            state.trace.assign(self, value_of(new))
        else:
            self._value = Value(value_of(new).data, False, state.trace)
        return self
    if old.op is not None:
        raise GradientError("assign() to a computed tensor", hint="Assign to a leaf, or use t[...] = x.")
    overwrite(old, new.data)
    return self


def set_item(self: Tensor, index: Any, x: TensorLike) -> None:
    value = self._value
    if (state.trace is None and value.op is None and value.trace is None
            and not (value.requires_grad and state.grad_enabled) and self._write_item(index, x)):
        return
    new = self._with_item(index, x)
    value = value_of(self)
    if state.trace is not None and self._value.trace is None:
        if value.requires_grad and state.grad_enabled:
            raise GradientError("t[i] = v on a leaf that requires a gradient",
                                hint="Do it under no_grad(), or on a copy (t + 0).")
        state.trace.assign(self, value_of(new))
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
        self._value = value_of(new)
        clock.structure += state.trace is None


attach(grad=property(_get_grad, _put_grad, doc=_get_grad.__doc__), zero_grad=zero_grad, backward=backward,
       detach=detach, assign=assign, __setitem__=set_item)
