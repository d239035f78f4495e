"""``apply``: the one place every operation passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from numpy import asarray, ndarray

from graphjit.backward import pull_by
from graphjit.buffers import guard_view
from graphjit.errors import GraphjitError, InternalCompilerError
from graphjit.op import Op
from graphjit.tape import Rule, Value, note_call, state
from graphjit.tensor import Tensor, value_of
from graphjit.trace import leaked
from graphjit.types import is_float

_new: Callable[..., Tensor] = object.__new__


def apply(op: Op, x: Tensor | None = None, y: Tensor | None = None, /, *more: Tensor, **params: Any) -> Tensor:
    """Apply an op to tensors: record it in a trace, run its eager rule otherwise; note it on the tape.

    Raises:
        ShapeError, DTypeError: operands the op has no meaning for.
    """
    now = state.now
    if now is None:
        return _record(op, tuple([t for t in (x, y, *more) if t is not None]), params)
    quiet, needs_grad = now
    values: tuple[Value, ...]
    # one and two operands without parameters spelled out: this is what an operation costs beyond NumPy
    if x is None:
        values, needs_grad = (), False
    else:
        v = x._value
        if v.trace is not None:
            raise leaked(v)
        if y is None:
            values, needs_grad = (v,), needs_grad and v.requires_grad
        else:
            w = y._value
            if w.trace is not None:
                raise leaked(w)
            values, needs_grad = (v, w), needs_grad and (v.requires_grad or w.requires_grad)
            if more:
                rest = tuple([t._value for t in more])
                for u in rest:
                    if u.trace is not None:
                        raise leaked(u)
                    needs_grad = needs_grad or (u.requires_grad and now[1])
                values += rest
    try:
        if params or more or x is None:
            out = quiet(op.eager, *[u.data for u in values], **params)
        else:
            out = quiet(op.eager, v.data) if y is None else quiet(op.eager, v.data, w.data)
    except (ValueError, TypeError, IndexError, ZeroDivisionError, AttributeError, RuntimeError) as error:
        if isinstance(error, GraphjitError):
            raise
        raise _explained(op, values, params, error) from error
    return noted(op, values, params, out, needs_grad)


def noted(op: Op, values: tuple[Value, ...], params: dict[str, Any], out: Any, needs_grad: bool) -> Tensor:
    """The tensor of what an op's eager rule gave, its step on the tape if ``needs_grad``."""
    if type(out) is not ndarray:
        out = asarray(out)
    if needs_grad and out.dtype.kind == "f":
        value = Value(out, True, None, op, values, params)
    else:
        value = Value(out)
    if op.view:
        guard_view(values[0], value)
    made = _new(Tensor)  # as Tensor._of, without the call
    made._value = value
    made._grad = None
    made._label = ""
    return made


def _record(op: Op, tensors: tuple[Tensor, ...], params: dict[str, Any]) -> Tensor:
    trace = state.trace
    assert trace is not None, "what settle() says"
    values = tuple([trace.read(t) for t in tensors])
    value = trace.record(op, values, params)
    if state.grad_enabled and any(v.requires_grad for v in values) and is_float(value.type.dtype):
        value.requires_grad = True
        value.op = op
        value.inputs = values
        value.params = params
    return Tensor._of(value)


def with_rule(name: str, out: Tensor, x: Tensor, pull: Callable[..., Tensor], *saved: Tensor) -> Tensor:
    """``out``, computed from ``x``, with a gradient rule that is shorter, or saves less, than what its steps give.

    ``pull(g, *saved)`` makes x's cotangent of that of the result, and reads no other tensors. Second derivatives are
    those of ``pull``.
    """
    [result] = with_rules(name, [out], x, pull, *saved)
    return result


def with_rules(name: str, outs: Sequence[Tensor], x: Tensor, pull: Callable[..., Tensor],
               *saved: Tensor) -> list[Tensor]:
    """The same for several results: ``pull(*cotangents, *saved)``, where what has none is zero."""
    source = value_of(x)
    if not (state.grad_enabled and source.requires_grad):
        return list(outs)
    results: list[Value] = []
    for out in outs:
        made = value_of(out)
        results.append(Value(made.data, True, made.trace, where=made.where))
        guard_view(made, results[-1])
    note_rule(name, source, results, pull, [value_of(t) for t in saved])
    return [Tensor._of(v) for v in results]


def note_rule(name: str, source: Value, results: Sequence[Value], pull: Callable[..., Tensor],
              saved: Sequence[Value]) -> None:
    """Note on the tape that ``results`` were computed from ``source`` by a step whose gradient rule is ``pull``."""
    rule = Rule(pull, saved, [v.type for v in results])
    call = note_call(name, [source], results, partial(pull_by, rule))
    call.rule = rule


def _explained(op: Op, values: Sequence[Value], params: dict[str, Any], error: Exception) -> GraphjitError:
    """What the shape rule says of operands that the eager rule could not take."""
    try:
        op.infer(*(v.type for v in values), **params)
    except GraphjitError as found:
        return found
    return InternalCompilerError(
        f"the eager rule of {op.name} failed where its shape rule did not: {error}",
        detail=tuple(f"operand {i}: {v.type}" for i, v in enumerate(values)))
