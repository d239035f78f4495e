"""What a checkpoint holds of a training, and how it gets back: everything fits, or nothing is changed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from graphjit.checkpoint import file
from graphjit.errors import ArgumentError, CheckpointError
from graphjit.nn.module import Module, own
from graphjit.op import Array
from graphjit.ops.random import Generator, default_generator
from graphjit.optim import LBFGS, Optimizer
from graphjit.optim.lr_scheduler import LRScheduler
from graphjit.optim.optimizer import STEP

OPTIMIZER, RANDOM = "optimizer/", "random/"  # before the names of tensors that are not the model's
DEFAULT = RANDOM + "default"


class Stateful(Protocol):
    """What has a state that JSON holds: a DataLoader."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any], /) -> object: ...


@dataclass(frozen=True)
class Checkpoint:
    """What ``load_checkpoint`` found.

    Attributes:
        path: the file. epoch: epochs that were finished. extra: what was given as such, as JSON holds it.
        history: name -> a number for each epoch.
        tensors: the model's, by their names in ``state_dict()``.
    """

    path: Path
    epoch: int
    extra: Any
    history: dict[str, list[float]]
    tensors: dict[str, Array]


def save_checkpoint(path: str | os.PathLike[str], model: Module | None = None, optimizer: Optimizer | None = None,
                    scheduler: LRScheduler | None = None, *, epoch: int = 0,
                    history: Mapping[str, Sequence[float]] | None = None, extra: Any = None,
                    loaders: Mapping[str, Stateful] | None = None) -> Path:
    """Write the state of a training into one safetensors file, in one step: a crash leaves the old file or the new.

    The model's tensors stand in it under their names in ``state_dict()``, so that other programs can read them.
    The state of the default random generator, and of generators that layers hold, is always written along.

    Args:
        path: the file; missing folders are made.
        model, optimizer, scheduler: what is saved of them is their ``state_dict()``.
        epoch: how many epochs are done.
        history: a number for each epoch, by name. extra: whatever else JSON holds.
        loaders: DataLoaders by name, for the orders of their passes to come.

    Returns:
        The path.

    Raises:
        ArgumentError: a history or an ``extra`` that JSON does not hold. CheckpointError: the disk refuses.

    >>> import tempfile, graphjit as gj
    >>> model = gj.nn.Linear(2, 1)
    >>> path = gj.save_checkpoint(tempfile.mkdtemp() + "/linear.safetensors", model, epoch=3)
    >>> gj.load_checkpoint(path, gj.nn.Linear(2, 1)).epoch
    3
    """
    tensors: dict[str, Array] = {}
    state: dict[str, Any] = {"epoch": epoch, "extra": extra,
                             "history": {name: list(values) for name, values in (history or {}).items()}}
    if model is not None:
        tensors.update((name, t.data) for name, t in model.state_dict().items())
        if taken := [name for name in tensors if name.startswith((OPTIMIZER, RANDOM))]:
            raise ArgumentError(f"a parameter of a checkpoint cannot be called {taken[0]!r}")
    if optimizer is not None:
        found = optimizer.state_dict()
        tensors.update((f"{OPTIMIZER}{i}.{name}", t.data)
                       for i, slots in found["state"].items() for name, t in slots.items())
        state["optimizer"] = {"class": type(optimizer).__name__, "param_groups": found["param_groups"]}
    if scheduler is not None:
        state["scheduler"] = {"class": type(scheduler).__name__, "state": scheduler.state_dict()}
    state["loaders"] = {name: loader.state_dict() for name, loader in (loaders or {}).items()}
    tensors.update((name, g.state) for name, g in _generators(model))
    file.write(Path(path), tensors, state)
    return Path(path)


def load_checkpoint(path: str | os.PathLike[str], model: Module | None = None, optimizer: Optimizer | None = None,
                    scheduler: LRScheduler | None = None, *, loaders: Mapping[str, Stateful] | None = None,
                    random_state: bool | None = None) -> Checkpoint:
    """Read a checkpoint, and put its state into what is given. Loading runs no code, whatever is in the file.

    Args:
        path: a file of ``save_checkpoint``.
        model, optimizer, scheduler: built as they were when it was saved.
        loaders: as in ``save_checkpoint``.
        random_state: whether random numbers go on as they would have; None: where an optimizer is given, since
            training goes on then.

    Raises:
        CheckpointError: no such file, damage, or something that does not fit: the error lists all names, shapes
            and dtypes that differ. Nothing has been changed then.
    """
    path = Path(path)
    tensors, state = file.read(path)
    _check_outline(path, state)
    of_model = {name: a for name, a in tensors.items() if not name.startswith((OPTIMIZER, RANDOM))}
    slots = {name: a for name, a in tensors.items() if name.startswith(OPTIMIZER)}
    if random_state is None:
        random_state = optimizer is not None
    sources = dict(_generators(model)) if random_state else {}
    wrong = [*(_model_differs(model, of_model) if model is not None else ()),
             *(_optimizer_differs(optimizer, slots, state.get("optimizer")) if optimizer is not None else ()),
             *(_scheduler_differs(scheduler, state.get("scheduler")) if scheduler is not None else ()),
             *_loaders_differ(loaders or {}, state.get("loaders")),
             *(f"{name}: there is no such random state in the file" for name in sources
               if name not in tensors or tensors[name].shape != (2,) or tensors[name].dtype != np.uint64)]
    if wrong:
        raise CheckpointError(f"the checkpoint {path} does not fit", mismatches=tuple(wrong),
                              hint="Nothing has been changed. Build everything as it was when it was saved.")
    loads: list[tuple[Any, dict[str, Any]]] = []
    if optimizer is not None:
        loads.append((optimizer, {"state": _by_parameter(slots),
                                  "param_groups": state["optimizer"]["param_groups"]}))
    if scheduler is not None:
        loads.append((scheduler, state["scheduler"]["state"]))
    loads += [(loader, state["loaders"][name]) for name, loader in (loaders or {}).items()]
    if model is not None:
        loads.append((model, of_model))
    _load_all(path, loads)
    for name, source in sources.items():
        source.state = tensors[name]
    return Checkpoint(path, state["epoch"], state["extra"], state["history"], of_model)


def _load_all(path: Path, loads: list[tuple[Any, dict[str, Any]]]) -> None:
    """Load each state into its object; where one refuses, give all their states back."""
    before = [(it, it.state_dict()) for it, _ in loads]
    try:
        for it, found in loads:
            it.load_state_dict(found)
    except Exception as error:  # a class of the user's may raise anything
        for it, found in before:
            it.load_state_dict(found)
        raise CheckpointError(f"the checkpoint {path} does not fit", detail=(str(error)[:400],),
                              hint="Nothing has been changed.") from error


def _generators(model: Module | None) -> Iterator[tuple[str, Generator]]:
    """Sources of random numbers under their names in the file: the default one, and those that layers hold."""
    yield DEFAULT, default_generator()
    for path, module in model.named_modules("model") if model is not None else ():
        yield from ((f"{RANDOM}{path}.{name}", g) for name, g in own(module, Generator))


# ---- what does not fit

def _check_outline(path: Path, state: dict[str, Any]) -> None:
    """Raise where the document's state lacks what every checkpoint holds; make its history floats."""
    epoch, history = state.get("epoch"), state.get("history", {})
    whole = isinstance(epoch, int) and not isinstance(epoch, bool) and epoch >= 0 and "extra" in state
    try:
        if not whole or not all(_kind(v) == "a number" for values in history.values() for v in values):
            raise ValueError
        state["history"] = {name: [float(v) for v in values] for name, values in history.items()}
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise CheckpointError(f"{path} holds no epoch or no history",
                              hint="It was not written by save_checkpoint.") from None


def _model_differs(model: Module, there: Mapping[str, Array]) -> Iterator[str]:
    here = model.state_dict()
    yield from (f"{name} is missing in the file" for name in here if name not in there)
    yield from (f"{name} is unexpected" for name in there if name not in here)
    yield from (f"{name} is {_type(there[name])} in the file, {_type(t.data)} here" for name, t in here.items()
                if name in there and _type(there[name]) != _type(t.data))


def _optimizer_differs(optimizer: Optimizer, slots: Mapping[str, Array], there: Any) -> Iterator[str]:
    name = type(optimizer).__name__
    if not _is_part(there, name, "param_groups", list):
        yield f"optimizer: the file holds {_class(there)}, here is {name}"
        return
    here = optimizer.state_dict()["param_groups"]
    if len(there["param_groups"]) != len(here):
        yield f"optimizer: {len(there['param_groups'])} parameter groups in the file, {len(here)} here"
        return
    for i, (mine, given) in enumerate(zip(here, there["param_groups"], strict=True)):
        # a schedule sets initial_lr when it is made, here or there
        found = list(_differs(f"optimizer.param_groups[{i}]", mine, given, optional=("initial_lr",)))
        if not found and given["params"] != mine["params"]:
            found = [f"optimizer.param_groups[{i}].params are other ones in the file"]
        yield from found
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for name, array in slots.items():
        place, _, slot = name.removeprefix(OPTIMIZER).partition(".")
        if not (place.isascii() and place.isdecimal() and len(place) < 10 and int(place) < len(params) and slot):
            yield f"{name} is unexpected"
            continue
        p = params[int(place)]
        wanted = np.zeros(()) if slot == STEP else p.data
        if not isinstance(optimizer, LBFGS) and _type(array) != _type(wanted):
            yield f"{name} is {_type(array)} in the file, {_type(wanted)} here"


def _scheduler_differs(scheduler: LRScheduler, there: Any) -> Iterator[str]:
    name = type(scheduler).__name__
    if not _is_part(there, name, "state", dict):
        yield f"scheduler: the file holds {_class(there)}, here is {name}"
    else:
        yield from _differs("scheduler", scheduler.state_dict(), there["state"])


def _loaders_differ(loaders: Mapping[str, Stateful], there: Any) -> Iterator[str]:
    for name, loader in loaders.items():
        if not isinstance(there, dict) or name not in there:
            yield f"loaders.{name} is missing in the file"
        else:
            yield from _differs(f"loaders.{name}", loader.state_dict(), there[name])


def _differs(name: str, here: Any, there: Any, optional: tuple[str, ...] = ()) -> Iterator[str]:
    """Where two values are not of the same structure: names, lengths of lists, kinds of what stands in them."""
    mine, other = _kind(here), _kind(there)
    if mine != other and {mine, other} != {"nothing", "a string"}:
        yield f"{name} is {other} in the file, {mine} here"
    elif isinstance(here, dict):
        names = [n for n in dict.fromkeys((*here, *there)) if n not in optional or (n in here and n in there)]
        yield from (f"{name}.{n} is missing {'in the file' if n in here else 'here'}" for n in names
                    if n not in here or n not in there)
        for n in names:
            if n in here and n in there:
                yield from _differs(f"{name}.{n}", here[n], there[n])
    elif isinstance(here, (list, tuple)):
        if len(here) != len(there):
            yield f"{name} has {len(there)} elements in the file, {len(here)} here"
        else:
            for i, (a, b) in enumerate(zip(here, there, strict=True)):
                yield from _differs(f"{name}[{i}]", a, b)


def _kind(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool() | np.bool_():
            return "true or false"
        case int() | float() | np.number():
            return "a number"
        case str():
            return "a string"
        case list() | tuple():
            return "a list"
        case dict():
            return "a mapping"
        case _:
            return f"a {type(value).__name__}"


def _is_part(there: Any, name: str, key: str, kind: type) -> bool:
    return isinstance(there, dict) and there.get("class") == name and isinstance(there.get(key), kind)


def _class(there: Any) -> str:
    name = there.get("class") if isinstance(there, dict) else None
    return name[:80] if isinstance(name, str) else "none"


def _type(array: Array) -> str:
    return f"{array.dtype.name}[{', '.join(str(n) for n in array.shape)}]"


def _by_parameter(slots: Mapping[str, Array]) -> dict[int, dict[str, Array]]:
    """Optimizer state as ``load_state_dict`` takes it: position of a parameter -> name -> array."""
    found: dict[int, dict[str, Array]] = {}
    for name, array in slots.items():
        place, _, slot = name.removeprefix(OPTIMIZER).partition(".")
        found.setdefault(int(place), {})[slot] = array
    return found
