"""A function run on fresh inputs, and the tape from its results back to them: how every transform begins.

The fresh inputs are linked to the caller's tensors by a step of the tape, so that transforms nest and an
outer ``backward()`` passes through them. Where nothing outside can want a derivative of the result, gradients
are not themselves recorded and results come back detached: ``p = p - lr * grad(f)(p)`` grows no tape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from graphjit.backward import order_back, walk_back
from graphjit.buffers import guard_view
from graphjit.convert import as_tensor, filled
from graphjit.errors import ArgumentError, GradientError, ShapeError
from graphjit.tape import Item, Value, clock, grad_mode, note_call, state
from graphjit.tensor import Tensor, value_of
from graphjit.tree import flatten, flatten_like, unflatten
from graphjit.types import FLOAT32, TensorType, is_float

ARRAYS = (Tensor, np.ndarray, np.generic, bool, int, float)


class Record:
    """One run of ``f`` by a transform.

    Args:
        transform: its name, for errors.
        f: the function; it gives nested containers of tensors, with ``has_aux`` a pair of them and anything.
        picks: which of ``args`` to differentiate with respect to.
    """

    def __init__(self, transform: str, f: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any],
                 picks: Sequence[int], has_aux: bool = False) -> None:
        self.name = f"{transform} of {name_of(f)}"
        self.horizon = clock.tick()  # older values do not depend on the fresh inputs
        self.specs = []
        leaves: list[Tensor] = []
        for i in picks:
            found, spec = flatten(args[i])
            own = [self._input(x, i) for x in found]
            if state.trace is not None and not spec.is_leaf():  # a model's parameters
                for t in own:
                    state.trace.know_lengths(value_of(t))
            leaves += own
            self.specs.append(spec)
        self.inputs = fresh(self.name, leaves)
        given = list(args)
        for i, tree in zip(picks, self.nest([Tensor._of(v) for v in self.inputs]), strict=True):
            given[i] = tree
        with grad_mode(True):
            result = f(*given, **kwargs)
        self.aux: Any = None
        if has_aux:
            if not isinstance(result, tuple) or len(result) != 2:
                raise ArgumentError(
                    f"{self.name}: with has_aux=True the function must return a pair (result, aux)",
                    detail=(f"it returned {type(result).__name__}",))
            result, self.aux = result
        found, self.out_spec = flatten(result)
        self.outputs = [self._output(x) for x in found]
        self.values = [value_of(t) for t in self.outputs]
        self.linked = state.grad_enabled and bool(self._reaching_out(self.values, ()))
        self.live = [v for v in self.values if v.requires_grad]
        self.order: list[Value] | None = None

    def _input(self, x: Any, position: int) -> Tensor:
        what = f"{self.name}: argument {position} holds"
        if not isinstance(x, ARRAYS):
            raise ArgumentError(f"{what} {type(x).__name__}, not a tensor or number",
                                hint="Say with argnums= which arguments to differentiate with respect to.")
        t = as_tensor(x)
        if t._type.weak:
            t = t.astype(FLOAT32)
        if not is_float(t.dtype):
            raise GradientError(f"{what} {t._type}, only floats have derivatives",
                                hint="Convert with x.astype(...), or choose other arguments with argnums=.")
        return t

    def _output(self, x: Any) -> Tensor:
        if not isinstance(x, ARRAYS):
            raise ArgumentError(
                f"{self.name}: the function returned {type(x).__name__}, not a tensor or number",
                hint="Return other things beside the result with has_aux=True.")
        t = as_tensor(x)
        return t.astype(FLOAT32) if t._type.weak else t

    # ---- in and out of containers

    def nest(self, leaves: Sequence[Any]) -> tuple[Any, ...]:
        """One tree per differentiated argument."""
        out, at = [], 0
        for spec in self.specs:
            out.append(unflatten(spec, leaves[at:at + spec.num_leaves]))
            at += spec.num_leaves
        return tuple(out)

    def tangents(self, trees: Sequence[Any]) -> list[Tensor | None]:
        """The leaves of tangents nested like the differentiated arguments."""
        if len(trees) != len(self.specs):
            raise ArgumentError(f"{self.name}: {len(self.specs)} primals but {len(trees)} tangents")
        found = [x for spec, tree in zip(self.specs, trees, strict=True)
                 for x in flatten_like(spec, tree, f"{self.name}: the tangents")]
        return [self._direction("tangent", x, v) for x, v in zip(found, self.inputs, strict=True)]

    def cotangents(self, tree: Any) -> list[Tensor | None]:
        """The leaves of a cotangent nested like the result."""
        found = flatten_like(self.out_spec, tree, f"{self.name}: the cotangent")
        return [self._direction("cotangent", x, v) for x, v in zip(found, self.values, strict=True)]

    def _direction(self, what: str, x: Any, of: Value) -> Tensor | None:
        found = of.type
        if x is None or not is_float(found.dtype):
            return None
        t = as_tensor(x, found.dtype)
        if t.shape != found.shape:
            raise ShapeError(f"{self.name}: a {what} of shape {t.shape} for a value of shape {found.shape}")
        return t.astype(found.dtype)

    def scalar(self) -> Tensor:
        """The result, which must be one floating number.

        Raises:
            GradientError: when it is not.
        """
        if self.out_spec.is_leaf() and self.outputs[0].shape == () and is_float(self.outputs[0].dtype):
            return self.outputs[0]
        found = str(unflatten(self.out_spec, [str(t._type) for t in self.outputs])).replace("'", "")
        raise GradientError(f"{self.name}: the function must return one floating number, it returned {found}",
                            hint="Reduce it with .sum() or .mean(), or use gj.vjp or gj.jacobian.")

    # ---- derivatives

    def close(self) -> None:
        """Make the tape private where nothing outside is linked to it: for all but ``pull`` its values are
        constants from here on, so that what is computed from them does not require grad because of it."""
        if not self.linked:
            self.order = order_back(self.live, self.horizon)
            for v in self.order:
                if v.stamp >= self.horizon and v.op is not None:
                    v.requires_grad = False

    def pull(self, cotangents: Sequence[Tensor | None], create_graph: bool) -> list[Tensor | None]:
        """Cotangents of the inputs; None for zero."""
        pairs = [(v, g) for v, g in zip(self.values, cotangents, strict=True) if g is not None and v in self.live]
        found = walk_back(pairs, self.inputs, create_graph=create_graph, release=False,
                          order=self.order) if self.inputs else {}
        return [found.get(v) for v in self.inputs]

    def whole(self, parts: Iterable[Tensor | None]) -> list[Tensor]:
        """One cotangent per input, zeros for None."""
        return [zeros(v.type) if g is None else g for g, v in zip(parts, self.inputs, strict=True)]

    def wants_graph(self, directions: Iterable[Tensor | None]) -> bool:
        """Whether derivatives along these directions may be differentiated by someone outside."""
        return state.grad_enabled and (
            self.linked or any(d is not None and value_of(d).requires_grad for d in directions))

    def settle(self, tensors: Sequence[Tensor], probes: Sequence[Value] = ()) -> list[Tensor]:
        """Results as the caller gets them: on the tape where they depend on something outside that requires
        grad, detached elsewhere. ``probes``: more fresh inputs."""
        values = [value_of(t) for t in tensors]
        keep = self._reaching_out(values, probes) if state.grad_enabled else set()
        return [t if v in keep or v.stamp < self.horizon else t.detach()
                for t, v in zip(tensors, values, strict=True)]

    def settle_tree(self, tree: Any) -> Any:
        """``settle`` for the tensors in ``aux``."""
        leaves, spec = flatten(tree)
        settled = iter(self.settle([x for x in leaves if isinstance(x, Tensor)]))
        return unflatten(spec, [next(settled) if isinstance(x, Tensor) else x for x in leaves])

    def _reaching_out(self, values: Iterable[Value], probes: Sequence[Value]) -> set[Value]:
        """Those values (and what is below them) that depend on something outside that requires grad."""
        own = {*self.inputs, *probes}
        out: set[Value] = set()
        for v in order_back((v for v in values if v.requires_grad), self.horizon):
            outside = v.stamp < self.horizon or (not v.inputs and v not in own)
            if outside or any(i in out for i in v.inputs or ()):
                out.add(v)
        return out


def fresh(name: str, tensors: Sequence[Tensor]) -> list[Value]:
    """Values equal to the tensors', requiring grad; linked to those that require it themselves."""
    callers = [value_of(t) for t in tensors]
    values = []
    for caller in callers:
        value = Value(caller.data, True, caller.trace, Item(name, 0), where=caller.where)
        guard_view(caller, value)
        values.append(value)
    if state.grad_enabled:
        links = [(c, v) for c, v in zip(callers, values, strict=True) if c.requires_grad]
        if links:
            count = len(links)
            note_call(name, [c for c, _ in links], [v for _, v in links],
                      lambda g: g + [None] * (count - len(g)))
    return values


def zeros(found: TensorType) -> Tensor:
    """A tensor of zeros of this type."""
    return filled(found.shape, 0, found.dtype)


def ones(like: Tensor) -> Tensor:
    """A tensor of ones of the tensor's type."""
    return filled(like.shape, 1, like.dtype)


def name_of(f: Callable[..., Any]) -> str:
    return getattr(f, "__name__", None) or type(f).__name__


def positions(transform: str, f: Callable[..., Any], argnums: int | Sequence[int],
              count: int) -> tuple[int, ...]:
    """Which positional arguments are meant.

    Raises:
        ArgumentError: when there is no such argument, or one is named twice.
    """
    named = tuple(argnums) if isinstance(argnums, Sequence) else (argnums,)
    if any(isinstance(i, bool) or not isinstance(i, (int, np.integer)) for i in named):
        raise ArgumentError(f"argnums must be an int or a sequence of ints, not {argnums!r}")
    if any(not -count <= i < count for i in named):
        raise ArgumentError(
            f"{transform} of {name_of(f)}: argnums={argnums}, but it got {count} positional arguments",
            hint="Pass what to differentiate by position, not by keyword.")
    found = tuple(int(i) % count for i in named)
    if len(set(found)) != len(found):
        raise ArgumentError(f"{transform} of {name_of(f)}: argnums={argnums} names an argument twice")
    return found
