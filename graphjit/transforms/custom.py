"""Functions with a derivative of their own: custom_vjp."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Sequence
from functools import partial, update_wrapper
from typing import Any

import numpy as np

from graphjit.buffers import guard_view
from graphjit.convert import as_tensor
from graphjit.errors import ArgumentError, GradientError, ShapeError
from graphjit.structure import Structured
from graphjit.tape import Value, note_call, state
from graphjit.tensor import Tensor, value_of
from graphjit.transforms.record import name_of, zeros
from graphjit.tree import Spec, flatten, flatten_like, unflatten
from graphjit.types import Shape, TensorType, is_float


class custom_vjp(Structured):
    """A function whose pullback the user gives.

    Use it as a decorator, then name the two halves with ``f.defvjp(fwd, bwd)``:

    * ``fwd(*args) -> (out, residuals)`` computes the result and keeps what the pullback needs;
    * ``bwd(residuals, g) -> tuple`` takes a cotangent nested like ``out`` and gives one cotangent per
      positional argument, nested like it; None for zero, and for arguments that are not tensors.

    Arguments, results and residuals may be nested containers. ``f`` itself runs where no gradient is wanted, and
    where ``fwd`` calls it.
    Second derivatives are those of ``bwd``. Keyword arguments and defaults are handed over by position.

    Raises:
        GradientError: called for a gradient without ``defvjp``; ``bwd`` gives a wrong number of cotangents.
        ShapeError: when a cotangent has not its argument's shape.

    >>> import graphjit as gj
    >>> @gj.custom_vjp
    ... def clipped(x):
    ...     return x
    >>> clipped.defvjp(lambda x: (x, None), lambda residuals, g: (g.clip(-1, 1),))
    >>> float(gj.grad(lambda x: clipped(x) * 5)(2.0))
    1.0
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        update_wrapper(self, function)
        self.function = function
        self.inside = threading.local()  # whether this thread runs fwd, which may call the function itself
        self.fwd: Callable[..., tuple[Any, Any]] | None = None
        self.bwd: Callable[[Any, Any], Sequence[Any]] | None = None

    def defvjp(self, fwd: Callable[..., tuple[Any, Any]], bwd: Callable[[Any, Any], Sequence[Any]]) -> None:
        """Set the two halves of the derivative."""
        if not callable(fwd) or not callable(bwd):
            raise ArgumentError(f"defvjp of {name_of(self)} takes two functions, fwd and bwd")
        self.fwd, self.bwd = fwd, bwd

    def __repr__(self) -> str:
        return f"custom_vjp({name_of(self)})"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs:
            bound = inspect.signature(self.function).bind(*args, **kwargs)
            bound.apply_defaults()
            if bound.kwargs:
                raise ArgumentError(f"{name_of(self)}: a custom_vjp function has no keyword-only arguments",
                                    detail=(", ".join(bound.kwargs),))
            args = bound.args
        self._reach()
        name = name_of(self)
        leaves, spec = flatten(args)
        wanted = {i: v for i, x in enumerate(leaves)
                  if isinstance(x, Tensor) and (v := value_of(x)).requires_grad} if state.grad_enabled else {}
        if not wanted or getattr(self.inside, "fwd", False):
            return self.function(*args)
        if self.fwd is None or self.bwd is None:
            raise GradientError(f"{name} has no derivative yet", hint="Call its defvjp(fwd, bwd) first.")
        # recorded, so that residuals know how they depend on the arguments: second derivatives need it
        self.inside.fwd = True
        try:
            pair = self.fwd(*args)
        finally:
            self.inside.fwd = False
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise GradientError(f"fwd of {name} must return a pair (out, residuals)",
                                detail=(f"it returned {type(pair).__name__}",))
        outs, out_spec = flatten(pair[0])
        types: list[TensorType | None] = [None] * len(outs)
        results: list[Value] = []
        for i, x in enumerate(outs):
            if isinstance(x, (Tensor, np.ndarray, np.floating)):
                inner = value_of(as_tensor(x))
                types[i] = inner.type
                result = Value(inner.data, False, inner.trace, where=inner.where)
                guard_view(inner, result)
                outs[i] = Tensor._of(result)
                if is_float(inner.type.dtype):
                    results.append(result)
        if results:
            shapes = [x.shape if isinstance(x, Tensor) else None for x in leaves]
            note_call(name, list(wanted.values()), results,
                      partial(_pull, name, self.bwd, pair[1], spec, shapes, list(wanted), out_spec, types))
        return unflatten(out_spec, outs)


def _pull(name: str, bwd: Callable[[Any, Any], Sequence[Any]], residuals: Any, spec: Spec,
          shapes: list[Shape | None], wanted: list[int], out_spec: Spec, types: list[TensorType | None],
          given: list[Tensor | None]) -> list[Tensor | None]:
    """Cotangents of the wanted leaves of the arguments, by the user's ``bwd``."""
    arriving = iter(given)
    cotangents: list[Tensor | None] = []
    for found in types:
        g = next(arriving, None) if found is not None and is_float(found.dtype) else None
        cotangents.append(zeros(found) if g is None and found is not None else g)
    parts = bwd(residuals, unflatten(out_spec, cotangents))
    children = spec.children()
    if not isinstance(parts, (tuple, list)) or len(parts) != len(children):
        got = f"{len(parts)}" if isinstance(parts, (tuple, list)) else type(parts).__name__
        raise GradientError(f"bwd of {name} must return a tuple of {len(children)} cotangents, "
                            f"one per argument; it returned {got}",
                            hint="Give None for an argument without a derivative.")
    leaves: list[Any] = []
    for i, (child, part) in enumerate(zip(children, parts, strict=True)):
        what = f"bwd of {name}: the cotangent of argument {i}"
        found_leaves = [None] * child.num_leaves if part is None else flatten_like(child, part, what)
        for g, shape in zip(found_leaves, shapes[len(leaves):], strict=False):
            if g is not None and shape is not None and as_tensor(g).shape != shape:
                raise ShapeError(f"{what} has shape {as_tensor(g).shape}, the argument {shape}")
        leaves += found_leaves
    return [None if leaves[i] is None else as_tensor(leaves[i]) for i in wanted]
