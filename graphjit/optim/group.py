"""``ParamGroup``: parameters that share hyperparameters."""

from __future__ import annotations

import math
from collections.abc import Iterator, MutableMapping
from typing import Any

import numpy as np

from graphjit.convert import as_tensor
from graphjit.errors import ArgumentError
from graphjit.structure import Structured
from graphjit.tape import Value, clock, grad_mode, state
from graphjit.tensor import Tensor
from graphjit.types import DType

Numbers = tuple[Tensor, ...]
CEILINGS = {"lr": math.inf, "momentum": math.inf, "dampening": math.inf, "weight_decay": math.inf,
            "eps": math.inf, "betas": 1.0, "alpha": math.inf, "lr_decay": math.inf,
            "initial_accumulator_value": math.inf, "max_iter": math.inf, "max_eval": math.inf,
            "tolerance_grad": math.inf, "tolerance_change": math.inf, "history_size": math.inf}
PAIRS = ("betas",)
SWITCHES = ("momentum", "dampening")  # an update without them has another structure
INITIAL = "initial_lr"                # set by schedules: the learning rate they started from


class ParamGroup(Structured, MutableMapping[str, Any]):
    """Hyperparameters by name, and ``"params"``: what ``optimizer.param_groups`` holds.

    Numbers (lr, betas, ...) are held as float64 scalars that compiled steps read, so that writing one takes
    effect at the next step and traces nothing again. They read as Python floats; inside a compiled
    function, as tensors of the parameters' dtype, so that what is computed with them keeps it.
    """

    def __init__(self, owner: str, params: list[Tensor], options: dict[str, Any]) -> None:
        self._params = params
        self._numbers: dict[str, Numbers] = {}
        self._flags: dict[str, Any] = {}
        self._zero: dict[str, bool] = {}
        self._initial_lr = np.full((), math.nan)  # an array, so that setting it is no change of structure
        for name, value in options.items():
            if name != INITIAL and (name in CEILINGS or not isinstance(value, (bool, str, type(None)))):
                labels = [f"{owner}.{name}"] * (2 if name in PAIRS else 1)
                self._numbers[name] = tuple(Tensor._of(Value(np.zeros(())), label) for label in labels)
            self[name] = value

    def tensors(self, name: str, dtype: DType | None = None) -> Numbers:
        """A hyperparameter as scalar tensors, float64 or of the given dtype."""
        return self._numbers[name] if dtype is None else tuple(t.astype(dtype) for t in self._numbers[name])

    def has(self, name: str) -> bool:
        """Whether 'momentum' or 'dampening' is not 0: part of the structure of the update."""
        return not self._zero[name]

    def __getitem__(self, name: str) -> Any:
        if name == "params":
            return self._params
        if name in self._flags:
            return self._flags[name]
        if name == INITIAL and not np.isnan(self._initial_lr):
            return float(self._initial_lr) if state.trace is None else as_tensor(self._initial_lr)
        found: tuple[Any, ...]
        if state.trace is None:
            found = tuple(t.item() for t in self._numbers[name])
        else:
            found = self.tensors(name, self._params[0].dtype if self._params else None)
        return found if name in PAIRS else found[0]

    def __setitem__(self, name: str, value: Any) -> None:
        if name == "params":
            raise ArgumentError("the parameters of a group cannot be replaced",
                                hint="Use optimizer.add_param_group({'params': [...]}).")
        if name == INITIAL:
            self._initial_lr[()] = _number("lr", value)
            return
        if name not in self._numbers:
            if name not in self._flags or self._flags[name] != value:
                clock.structure += 1
            self._flags[name] = value
            return
        if name in PAIRS and not (isinstance(value, (tuple, list)) and len(value) == 2):
            raise ArgumentError(f"{name} takes two numbers, not {value!r}")
        parts = tuple(_number(name, p) for p in (value if name in PAIRS else (value,)))
        with grad_mode(False):
            for t, part in zip(self._numbers[name], parts, strict=True):
                t.assign(part)
        if name in SWITCHES:
            zero = parts[0] == 0 if isinstance(parts[0], float) else False
            if self._zero.get(name) != zero:
                clock.structure += 1
                self._zero[name] = zero

    def __delitem__(self, name: str) -> None:
        if name not in self._flags:
            raise ArgumentError(f"{name!r} cannot be deleted from a parameter group")
        clock.structure += 1
        del self._flags[name]

    def __iter__(self) -> Iterator[str]:
        initial = () if np.isnan(self._initial_lr) else (INITIAL,)
        return iter(("params", *self._numbers, *self._flags, *initial))

    def __len__(self) -> int:
        return len(list(iter(self)))

    __eq__ = object.__eq__  # groups of equal numbers are still two groups
    __hash__ = object.__hash__

    def options(self) -> dict[str, Any]:
        """Everything but the parameters."""
        return {name: value for name, value in self.items() if name != "params"}

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in self.options().items())
        return f"ParamGroup({len(self._params)} tensors, {options})"


def _number(name: str, value: Any) -> float | Tensor:
    """A hyperparameter as a float, or as the tensor it is in a trace.

    Raises:
        ArgumentError: not a number, or one the optimizer has no meaning for.
    """
    if isinstance(value, Tensor) and state.trace is not None:
        return value
    if isinstance(value, (bool, str)) or value is None:
        raise ArgumentError(f"{name} is a number, not {value!r}")
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise ArgumentError(f"{name} is a number, not {value!r}") from None
    if name in CEILINGS and not 0 <= found < CEILINGS[name]:
        raise ArgumentError(f"{name} must be at least 0 and below {CEILINGS[name]}, not {found}")
    return found
