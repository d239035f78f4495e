"""``Optimizer``: parameter groups, the state kept for each parameter, and the frame of a step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphjit.arrays import lasting, lasting_copy
from graphjit.convert import as_tensor
from graphjit.errors import ArgumentError, ShapeError, TraceError
from graphjit.nn.module import zero_gradients
from graphjit.op import Array
from graphjit.ops.elementwise import where
from graphjit.optim.group import INITIAL, ParamGroup
from graphjit.structure import Structured
from graphjit.tape import Value, clock, grad_mode, state
from graphjit.tensor import Tensor, held
from graphjit.types import is_float

Params = Iterable[Tensor] | Iterable[Mapping[str, Any]]
STEP = "step"  # name of the counter in a parameter's state


class Optimizer(Structured):
    """Base of the optimizers.

    Args:
        params: tensors, or groups as dicts ``{"params": tensors, "lr": ...}`` that override the defaults.
        defaults: hyperparameters and their values.

    Attributes:
        param_groups: the groups, mappings of hyperparameters. Writing a number (``group["lr"] = 0.01``, or
            ``opt.lr = 0.01`` for all groups) takes effect at the next step, compiled or not, and traces
            nothing again.
        state: parameter -> name -> tensor (moments and the like), made at a parameter's first step.
    """

    _clocked = frozenset({"param_groups", "state", "defaults"})

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        if state.trace is not None:
            raise TraceError(f"{type(self).__name__}(...) inside a compiled function",
                             hint="Make the optimizer outside; call opt.step() inside.")
        self.defaults = defaults
        self.param_groups: list[ParamGroup] = []
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        if isinstance(params, (Tensor, Mapping)):
            raise ArgumentError(f"params is an iterable of tensors or groups, not a {type(params).__name__}",
                                hint="Put it in a list, or pass model.parameters().")
        found = list(params)
        if not found:
            raise ArgumentError(f"{type(self).__name__} got an empty list of parameters",
                                hint="A generator like model.parameters() serves only once.")
        for group in found if isinstance(found[0], Mapping) else [{"params": found}]:
            self.add_param_group(group)  # type: ignore[arg-type]  # a mapping of the user's

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Optimize further parameters, with hyperparameters of their own.

        Raises:
            ArgumentError: no floating leaf tensors, tensors that are in a group already, unknown names.
        """
        options = {**self.defaults, **group}
        params = options.pop("params", ())
        params = [params] if isinstance(params, Tensor) else list(params)
        known = {p for g in self.param_groups for p in g["params"]}
        for p in params:
            if not isinstance(p, Tensor) or not is_float(p.dtype) or not p.is_leaf:
                raise ArgumentError(f"{type(self).__name__} takes floating leaf tensors, not {p!r:.60}")
            if p in known:
                raise ArgumentError(f"parameter {p.label or p._type} is given to {type(self).__name__} twice")
            known.add(p)
        if unknown := options.keys() - self.defaults.keys() - {INITIAL}:
            raise ArgumentError(f"{type(self).__name__} has no hyperparameter {', '.join(sorted(unknown))}",
                                hint=f"It has {', '.join(self.defaults)}.")
        self.param_groups.append(ParamGroup(type(self).__name__, params, options))
        clock.structure += 1

    # ---- hyperparameters as attributes

    def __getattr__(self, name: str) -> Any:
        groups = vars(self).get("param_groups")
        if not groups or name == "params" or name not in groups[0]:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        if state.trace is None and any(g[name] != groups[0][name] for g in groups):
            raise ArgumentError(f"the groups differ in {name}", hint=f"Read opt.param_groups[i][{name!r}].")
        return groups[0][name]

    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self).get("defaults", ()):
            for group in self.param_groups:
                group[name] = value
        else:
            super().__setattr__(name, value)

    # ---- a step

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or set those there are to zero."""
        self._reach()
        zero_gradients((p for group in self.param_groups for p in group["params"]), set_to_none)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient, in place.

        Args:
            closure: computes the loss and its gradients anew; what it returns is returned.
        """
        self._reach()
        loss = None if closure is None else closure()
        with grad_mode(False):
            for group in self.param_groups:
                found = {p: g.astype(p.dtype) for p in group["params"] if (g := p.grad) is not None}
                if found:
                    self._update(group, {p: -g for p, g in found.items()} if group.get("maximize") else found)
        return loss

    def _update(self, group: ParamGroup, grads: dict[Tensor, Tensor]) -> None:
        """Update these parameters by their gradients."""
        raise NotImplementedError(f"{type(self).__name__} does not define _update()")

    # ---- state

    def _slot(self, p: Tensor, name: str, start: float = 0.0) -> Tensor:
        """A tensor like the parameter that is kept from step to step, and what it starts at."""
        slots = self.state.setdefault(p, {})
        slot = slots.get(name)
        if slot is None:
            array = lasting(p.shape, p.dtype)
            array.fill(start)
            slot = slots[name] = _kept(array, f"{p.label}.{name}")
        elif slot.shape != p.shape:
            raise ShapeError(f"{slot.label} has shape {slot.shape}, its parameter {p.shape}",
                             hint="Make a new optimizer after replacing a parameter's data.")
        elif slot.dtype != p.dtype:  # after model.double()
            slot = slots[name] = _kept(lasting_copy(held(slot).astype(p.dtype)), slot.label)
        return slot

    def _advance(self, params: Iterable[Tensor]) -> list[tuple[Tensor, list[Tensor]]]:
        """Count one more step of these parameters; gives each counter with the parameters that share it.

        Parameters that were always updated together share one counter, so that what follows from it
        (bias corrections) is computed once. One that sat out a step gets its own.
        """
        sharing: dict[Tensor, list[Tensor]] = {}
        fresh: Tensor | None = None
        for p in params:
            slots = self.state.setdefault(p, {})
            if STEP not in slots:
                begun = 1.0 if slots else 0.0  # state without a counter: it was updated before counting began
                fresh = fresh if fresh is not None and held(fresh) == begun else step_counter(begun)
                slots[STEP] = fresh
            sharing.setdefault(slots[STEP], []).append(p)
        holders = Counter(id(slots.get(STEP)) for slots in self.state.values())
        found = []
        for counter, members in sharing.items():
            if len(members) < holders[id(counter)]:
                counter = step_counter(float(held(counter)))
                for p in members:
                    self.state[p][STEP] = counter
            counter.assign(counter + 1)
            found.append((counter, members))
        return found

    def state_dict(self) -> dict[str, Any]:
        """All state and hyperparameters as they are now, parameters by their position, in PyTorch's layout:
        ``{"state": {0: {"exp_avg": tensor, ...}}, "param_groups": [{"lr": ..., "params": [0, ...]}]}``."""
        params = [p for group in self.param_groups for p in group["params"]]
        place = {p: i for i, p in enumerate(params)}
        return {
            "state": {i: {name: t.detach() for name, t in self.state[p].items()}
                      for i, p in enumerate(params) if p in self.state},
            "param_groups": [{**group.options(), "params": [place[p] for p in group["params"]]}
                             for group in self.param_groups],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over state and hyperparameters; the tensors of the state stay the same and are overwritten.

        Args:
            state_dict: as ``state_dict()`` gives it (also PyTorch's); cast to the parameters' dtypes.

        Raises:
            ArgumentError: other groups or shapes than here; nothing has been changed then.
        """
        groups = state_dict["param_groups"]
        here, there = ([len(g["params"]) for g in side] for side in (self.param_groups, groups))
        if here != there:
            raise ArgumentError(f"a state_dict does not fit {type(self).__name__}",
                                detail=(f"parameters in each group: {there} there, {here} here",))
        order = [i for g in groups for i in g["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        loaded = {p: {name: _array(value) for name, value in state_dict["state"].get(i, {}).items()
                      if value is not None} for p, i in zip(params, order, strict=True)}
        wrong = [f"{name} of {p.label or 'parameter'} has shape {a.shape}, the parameter {p.shape}"
                 for p, arrays in loaded.items() for name, a in arrays.items()
                 if a.shape != (() if name == STEP else p.shape)]
        if wrong:
            raise ArgumentError(f"a state_dict does not fit {type(self).__name__}", detail=tuple(wrong[:8]))
        for group, given in zip(self.param_groups, groups, strict=True):
            for name in {*self.defaults, INITIAL} & given.keys():
                group[name] = given[name]
        with grad_mode(False):
            for p, arrays in loaded.items():
                for name in dict.fromkeys((*arrays, *self.state.get(p, {}))):
                    if name != STEP:
                        self._slot(p, name).assign(arrays.get(name, 0))
            self._load_counters(loaded)

    def _load_counters(self, loaded: dict[Tensor, dict[str, Array]]) -> None:
        taken: dict[Tensor, float] = {}      # what a counter that exists now shows
        made: dict[float, Tensor] = {}       # counters for parameters that cannot keep theirs
        for p, arrays in loaded.items():
            if STEP not in arrays and STEP not in self.state.get(p, {}):
                continue
            count = float(arrays.get(STEP, 1.0 if arrays else 0.0))
            slots = self.state.setdefault(p, {})
            counter = slots.get(STEP)
            if counter is None or taken.setdefault(counter, count) != count:
                if count not in made:
                    made[count] = step_counter(count)
                counter = slots[STEP] = made[count]
                taken[counter] = count
        for counter, count in taken.items():
            counter.assign(count)

    def __repr__(self) -> str:
        groups = "".join(
            f"Parameter Group {i}\n" + "".join(f"    {k}: {v}\n" for k, v in sorted(group.options().items()))
            for i, group in enumerate(self.param_groups))
        return f"{type(self).__name__} (\n{groups})"


def decayed(g: Tensor, p: Tensor, weight_decay: Tensor) -> Tensor:
    """g + weight_decay * p, and exactly g where weight_decay is 0, whatever p holds."""
    if state.trace is None and held(weight_decay).item() == 0:
        return g  # the same values as below, without computing them
    return where(weight_decay != 0, g + p * weight_decay.astype(p.dtype), g)


def settled(x: Tensor) -> Tensor:
    """State that fades by a factor a step, and 0 where that made it denormal.

    It would stay there as long as no gradient comes (a unit that is dead, a rare word), and each step compute with
    it, many times slower.
    """
    return where(abs(x) < float(np.finfo(x.dtype).smallest_normal), 0, x)


def first(numbers: Sequence[Tensor]) -> Tensor:
    """The one number of a hyperparameter that is not a pair."""
    (number,) = numbers
    return number


def _kept(array: Array, label: str) -> Tensor:
    """A tensor that outlives a running trace; the structure of the state has changed."""
    clock.structure += 1
    return Tensor._of(Value(array), label)


def step_counter(count: float) -> Tensor:
    """A count of steps that outlives a running trace."""
    return _kept(np.full((), count), "optimizer step")


def _array(value: Any) -> Array:
    return value.data if isinstance(value, Tensor) else np.asarray(as_tensor(np.asarray(value)).data)
