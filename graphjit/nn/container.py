"""Modules that hold modules or parameters: ``Sequential``, ``ModuleList``, ``ModuleDict``, ``ParameterList``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Any, TypeVar, overload

from graphjit.errors import ArgumentError, BoundsError
from graphjit.nn.module import Module, own
from graphjit.nn.parameter import Parameter
from graphjit.tensor import TensorLike

S = TypeVar("S", bound="_Indexed")


class _Indexed(Module):
    """Modules under the names '0', '1', ... (or names of their own), in order."""

    def _items(self) -> dict[str, Module]:
        return dict(own(self, Module))

    def _place(self, index: int) -> str:
        names = list(self._items())
        if isinstance(index, bool) or not isinstance(index, int):
            raise ArgumentError(f"{type(self).__name__} indices are integers or slices, not {index!r}")
        if not -len(names) <= index < len(names):
            raise BoundsError(f"there is no module {index} in a {type(self).__name__} of {len(names)}")
        return names[index]

    def _hold(self, modules: Iterable[tuple[str, Any]]) -> None:
        for name, module in modules:
            if not isinstance(module, Module):
                raise ArgumentError(f"{type(self).__name__} holds modules, not {module!r}",
                                    hint="Make a function a module by a class with forward().")
            self.add_module(name, module)

    def _slice(self: S, items: dict[str, Module]) -> S:
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self._items())

    def __iter__(self) -> Iterator[Module]:
        return iter(self._items().values())

    @overload
    def __getitem__(self: S, index: slice) -> S: ...
    @overload
    def __getitem__(self, index: int) -> Module: ...
    def __getitem__(self: S, index: int | slice) -> S | Module:
        if isinstance(index, slice):
            return self._slice(dict(list(self._items().items())[index]))
        found: Module = vars(self)[self._place(index)]
        return found

    def __setitem__(self, index: int, module: Module) -> None:
        self._hold([(self._place(index), module)])

    def __delitem__(self, index: int) -> None:
        delattr(self, self._place(index))
        self._number(list(self._items().items()))

    def _number(self, modules: list[tuple[str, Module]]) -> None:
        """Hold these in this order; names that are numbers become the places."""
        for name in self._items():
            delattr(self, name)
        self._hold((str(i) if name.isdigit() else name, m) for i, (name, m) in enumerate(modules))

    def insert(self: S, index: int, module: Module) -> S:
        """Add a module before another; gives itself."""
        modules = list(self._items().items())
        self.append(module)  # refuses what is no module before anything moves
        modules.insert(index, ("0", module))
        self._number(modules)
        return self

    def pop(self, index: int = -1) -> Module:
        """Take a module away; gives it."""
        module = self[index]
        del self[index]
        return module

    def append(self: S, module: Module) -> S:
        """Add a module at the end; gives itself."""
        return self.extend([module])

    def extend(self: S, modules: Iterable[Module]) -> S:
        """Add modules at the end; gives itself."""
        free = (str(i) for i in count(len(self)) if str(i) not in vars(self))  # a slice keeps its names: '1', '2'
        self._hold(zip(free, list(modules), strict=False))
        return self


class Sequential(_Indexed):
    """Modules called one after the other, each with what the one before gave.

    Args:
        args: the modules; or one dict of them, whose keys become their names.

    >>> from graphjit import nn
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    >>> len(model), [name for name, p in model[:1].named_parameters()]
    (3, ['0.weight', '0.bias'])
    """

    def __init__(self, *args: Module | Mapping[str, Module]) -> None:
        super().__init__()
        first = args[0] if len(args) == 1 else None
        self._hold(first.items() if isinstance(first, Mapping) else ((str(i), m) for i, m in enumerate(args)))

    def forward(self, x: Any) -> Any:
        for module in self:
            x = module(x)
        return x

    def _slice(self: S, items: dict[str, Module]) -> S:
        kind: Any = type(self)
        made: S = kind(items)
        return made


class ModuleList(_Indexed):
    """A list of modules that are registered. It has no ``forward``.

    >>> from graphjit import nn
    >>> layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    >>> len(list(layers.parameters()))
    6
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)

    def _slice(self: S, items: dict[str, Module]) -> S:
        kind: Any = type(self)
        made: S = kind(items.values())
        return made


class ModuleDict(Module):
    """A dict of modules that are registered. It has no ``forward``.

    >>> from graphjit import nn
    >>> heads = nn.ModuleDict({"mean": nn.Linear(2, 1), "scale": nn.Linear(2, 1)})
    >>> list(heads.keys())
    ['mean', 'scale']
    """

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        self.update(modules or {})

    def _items(self) -> dict[str, Module]:
        return dict(own(self, Module))

    def update(self, modules: Mapping[str, Module]) -> None:
        """Add these modules, replacing those of the same names."""
        for name, module in modules.items():
            self[name] = module

    def __getitem__(self, name: str) -> Module:
        return self._items()[name]

    def __setitem__(self, name: str, module: Module) -> None:
        self.add_module(name, module)

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        delattr(self, name)

    def pop(self, name: str) -> Module:
        """Take a module away; gives it."""
        module = self[name]
        del self[name]
        return module

    def __len__(self) -> int:
        return len(self._items())

    def __iter__(self) -> Iterator[str]:
        return iter(self._items())

    def __contains__(self, name: object) -> bool:
        return name in self._items()

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._items().keys()

    def values(self) -> Iterable[Module]:
        """The modules."""
        return self._items().values()

    def items(self) -> Iterable[tuple[str, Module]]:
        """Names and modules."""
        return self._items().items()


class ParameterList(Module):
    """A list of parameters that are registered, under the names '0', '1', ... It has no ``forward``.

    Args:
        values: parameters; other tensors and arrays become parameters.

    >>> import graphjit as gj
    >>> scales = gj.nn.ParameterList(gj.ones(n) for n in (2, 3))
    >>> [name for name, p in scales.named_parameters()], scales[-1].shape
    (['0', '1'], (3,))
    """

    def __init__(self, values: Iterable[TensorLike] = ()) -> None:
        super().__init__()
        self.extend(values)

    def _items(self) -> list[Parameter]:
        return [p for _, p in own(self, Parameter)]

    def __len__(self) -> int:
        return len(self._items())

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self._items())

    @overload
    def __getitem__(self, index: slice) -> ParameterList: ...
    @overload
    def __getitem__(self, index: int) -> Parameter: ...
    def __getitem__(self, index: int | slice) -> ParameterList | Parameter:
        if isinstance(index, slice):
            return ParameterList(self._items()[index])
        return self._items()[self._place(index)]

    def __setitem__(self, index: int, value: TensorLike) -> None:
        self.register_parameter(str(self._place(index)), _parameter(value))

    def _place(self, index: int) -> int:
        if isinstance(index, bool) or not isinstance(index, int):
            raise ArgumentError(f"ParameterList indices are integers or slices, not {index!r}")
        if not -len(self) <= index < len(self):
            raise BoundsError(f"there is no parameter {index} in a ParameterList of {len(self)}")
        return index % len(self)

    def append(self, value: TensorLike) -> ParameterList:
        """Add a parameter at the end; gives itself."""
        return self.extend([value])

    def extend(self, values: Iterable[TensorLike]) -> ParameterList:
        """Add parameters at the end; gives itself."""
        for i, value in enumerate(list(values), start=len(self)):
            self.register_parameter(str(i), _parameter(value))
        return self

    def extra_repr(self) -> str:
        return ", ".join(f"({i}): {p._type}" for i, p in enumerate(self))


def _parameter(value: TensorLike) -> Parameter:
    return value if isinstance(value, Parameter) else Parameter(value)
