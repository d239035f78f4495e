"""What a function reads from outside, and whether that is still what it was when the function was traced.

Found by reading code: the names that the function, and the user's functions it reaches, load from closures,
globals and modules, and the attributes of those names on the objects at hand. Each is remembered with what it held.
"""

from __future__ import annotations

import dis
import functools
import operator
import os
import sys
import sysconfig
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from graphjit.structure import Structured
from graphjit.tensor import Tensor
from graphjit.transforms import custom_vjp

_LIBRARIES = tuple({sysconfig.get_paths()[k] + os.sep for k in ("stdlib", "platstdlib", "purelib", "platlib")}
                   | {os.path.dirname(os.path.abspath(__file__)) + os.sep})
EMPTY = object()
_PLAIN = (bool, int, float, complex, str, bytes, np.generic, np.ndarray, Tensor, np.dtype, type(None))
LARGEST = 1000  # elements of a container that are looked into; larger ones are data


class Capture:
    """What a function reads from outside: names with the objects they held, containers with their elements.

    Args:
        function: the decorated function.
        others: objects it is given, whose attributes and methods it may use too.
    """

    def __init__(self, function: Callable[..., Any], others: Iterable[object] = ()) -> None:
        self.names: list[tuple[Mapping[str, Any], str, object]] = []
        self.cells: list[tuple[CellType, str, object]] = []
        self.containers: list[tuple[Any, str, Any]] = []
        found = _Finder(self, getattr(function, "__module__", None) or "")
        found.visit(function, "")
        for it in others:
            found.visit(it, "")
        found.finish()
        self.structured = found.structured

    def settle(self) -> None:
        """After the trace: what the function itself changed (a counter, a list of calls) is no change to look for.

        A name that holds a tensor of the trace is left as it was: the next call reads it again, and gets told.
        """
        self.names = [(names, name, _settled(names.get(name, EMPTY), held)) for names, name, held in self.names]
        self.cells = [(cell, name, _settled(_content(cell), held)) for cell, name, held in self.cells]
        self.containers = [(it, name, it.copy()) for it, name, _ in self.containers]

    def holds(self) -> bool:
        """Whether every name still holds the same object (or an equal number or string)."""
        for names, name, held in self.names:
            now = names.get(name, EMPTY)
            if now is not held and not _equal(now, held):
                return False
        for cell, _, held in self.cells:
            now = _content(cell)
            if now is not held and not _equal(now, held):
                return False
        return containers_hold(self.containers)

    def changed(self) -> list[str]:
        """What holds something else now, in words."""
        pairs = [(name, names.get(name, EMPTY), held) for names, name, held in self.names]
        pairs += [(name, _content(cell), held) for cell, name, held in self.cells]
        out = [f"{name}: {_compared(held, now)}" for name, now, held in pairs
               if now is not held and not _equal(now, held)]
        out += [f"{name}: its elements were changed" for now, name, held in self.containers if not _alike(now, held)]
        return list(dict.fromkeys(out))

    def objects(self) -> Iterator[tuple[str, object]]:
        """Everything captured, by name."""
        for _, name, held in self.names:
            yield name, held
        for _, name, held in self.cells:
            yield name, held


class Words(NamedTuple):
    """Names that code loads: globals, attributes (and what it imports from modules), modules."""

    globals: frozenset[str]
    attributes: frozenset[str]
    modules: frozenset[str]


@functools.cache
def _words(code: CodeType) -> Words:
    names: dict[str, set[str]] = {"LOAD_GLOBAL": set(), "LOAD_ATTR": set(), "IMPORT_NAME": set()}
    kinds = {"LOAD_NAME": "LOAD_GLOBAL", "LOAD_METHOD": "LOAD_ATTR", "IMPORT_FROM": "LOAD_ATTR",
             "LOAD_SUPER_ATTR": "LOAD_ATTR"}
    stack = [code]
    while stack:
        for step in dis.get_instructions(stack.pop()):
            kind = kinds.get(step.opname, step.opname)
            if kind in names:
                names[kind].add(step.argval)
            elif isinstance(step.argval, CodeType):
                stack.append(step.argval)
    return Words(*map(frozenset, names.values()))


class _Finder:
    """Walks functions and objects, and enters into a capture what they read."""

    def __init__(self, capture: Capture, module: str) -> None:
        self.capture = capture
        root = module.partition(".")[0]
        self.own = root if root != "graphjit" else ""  # the package whose code is the user's wherever it lies
        self.started = False
        self.seen: set[int] = set()
        self.watched: set[tuple[int, str]] = set()
        self.attributes: set[str] = set()
        self.holders: list[tuple[str, Any]] = []  # objects, classes and modules whose attributes may be read
        self.structured: dict[Structured, str] = {}  # and what the user calls them
        self.kept: list[object] = []              # alive, so that no id is used twice

    def finish(self) -> None:
        """Look again at the attributes of all holders until no new name turns up."""
        size = -1
        while size != len(self.seen) + len(self.watched) + len(self.attributes):
            size = len(self.seen) + len(self.watched) + len(self.attributes)
            for path, it in list(self.holders):
                self._attributes_of(path, it)

    def visit(self, it: Any, path: str) -> None:
        """Take up an object that the function can reach; ``path`` is what the user calls it."""
        if isinstance(it, _PLAIN) or id(it) in self.seen:
            return
        self.seen.add(id(it))
        self.kept.append(it)
        match it:
            case FunctionType():
                self._function(it)
            case MethodType():
                self.visit(it.__func__, path)
                self.visit(it.__self__, path)
            case partial():
                for part in (it.func, *it.args, *it.keywords.values()):
                    self.visit(part, path)
            case custom_vjp():
                for part in (it.function, it.fwd, it.bwd):
                    self.visit(part, path)
            case property():
                self.visit(it.fget, path)
            case staticmethod() | classmethod():
                self.visit(it.__func__, path)
            case dict() | list() | set() | deque() | tuple() | frozenset():
                self._container(it, path)
            case BuiltinFunctionType():
                pass
            case ModuleType():
                if not self._is_library(getattr(it, "__file__", None), it.__name__):
                    self.holders.append((path, it))
            case _ if hasattr(it, "__wrapped__"):
                self.visit(it.__wrapped__, path)
            case _:
                self._object(it, path)

    def _function(self, f: FunctionType) -> None:
        if hasattr(f, "__wrapped__"):
            self.visit(f.__wrapped__, "")
        library = self.started and self._is_library(f.__code__.co_filename, f.__module__)
        self.started = True
        for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
            held = _content(cell)
            if not library:
                self.capture.cells.append((cell, name, held))
            if not library or isinstance(held, FunctionType):
                self.visit(held, name)
        if library:
            return
        for default in (*(f.__defaults__ or ()), *(f.__kwdefaults__ or {}).values()):
            self.visit(default, "")
        words = _words(f.__code__)
        self.attributes |= words.attributes
        for name in words.globals & f.__globals__.keys():
            self._watch(f.__globals__, f.__globals__, name, name)
        for name in words.modules:
            if name in sys.modules:
                self.visit(sys.modules[name], name)

    def _watch(self, holder: object, names: Mapping[str, Any], name: str, path: str) -> None:
        """Remember what a name of a holder holds (or that it has none), and go on there."""
        if (id(holder), name) in self.watched:
            return
        self.watched.add((id(holder), name))
        held = names.get(name, EMPTY)
        if not isinstance(held, (ModuleType, BuiltinFunctionType)):
            self.capture.names.append((names, name, held))
        if held is not EMPTY:
            self.visit(held, path)

    def _container(self, it: Any, path: str) -> None:
        if not isinstance(it, (tuple, frozenset)):
            self.capture.containers.append((it, path, it.copy()))
        if len(it) <= LARGEST:
            for part in it.values() if isinstance(it, dict) else it:
                self.visit(part, path)

    def _object(self, it: Any, path: str) -> None:
        if isinstance(it, Structured):
            self.structured[it] = path or type(it).__name__
            for name, part in list(vars(it).items()):
                if isinstance(part, Structured):
                    self.visit(part, f"{path}.{name}")
        if isinstance(it, type):
            for cls in it.__mro__:
                self._class(cls, path)
        else:
            self.holders.append((path, it))
            self.visit(type(it), path)

    def _class(self, cls: type, path: str) -> None:
        if not self._is_library(getattr(sys.modules.get(cls.__module__), "__file__", None), cls.__module__):
            self.holders.append((path, cls))

    def _attributes_of(self, path: str, it: Any) -> None:
        """Watch those attributes that some code at hand names."""
        names = getattr(it, "__dict__", None)
        if names is None:
            return
        if isinstance(it, type):
            for name, part in list(names.items()):  # called without being named
                if isinstance(part, FunctionType) and (name == "forward" or name.startswith("__")):
                    self.visit(part, name)
        for name in sorted(self.attributes):
            where = f"{path}.{name}" if path else name
            if isinstance(it, Structured):
                if name in names and name not in it._clocked:
                    self.visit(names[name], where)  # which object it is, is part of its signature
            elif name in names or self._has_default(it, name):
                self._watch(it, names, name, where)

    @staticmethod
    def _has_default(it: object, name: str) -> bool:
        """Whether an object without this attribute reads its class's."""
        return not isinstance(it, (type, ModuleType)) and any(
            name in vars(cls) and not hasattr(vars(cls)[name], "__get__") for cls in type(it).__mro__)

    def _is_library(self, file: str | None, module: str | None) -> bool:
        if self.own and (module or "").partition(".")[0] == self.own:
            return False
        if file is None:
            return module in sys.builtin_module_names
        return os.path.abspath(file).startswith(_LIBRARIES)


def _settled(now: object, before: object) -> object:
    return before if isinstance(now, Tensor) and now._value.trace is not None else now


def _equal(a: object, b: object) -> bool:
    """Whether two constants are the same value: NaN is itself, -0.0 is not 0.0."""
    if type(a) is not type(b):
        return False
    match a, b:
        case (float() | complex() | np.generic()), _:
            return repr(a) == repr(b)
        case (bool() | int() | str() | bytes()), _:
            return a == b
        case (tuple(), tuple()):
            return len(a) == len(b) and all(x is y or _equal(x, y) for x, y in zip(a, b, strict=True))
        case _:
            return False


def _alike(now: Any, held: Any) -> bool:
    """Whether a container holds the same elements as its copy."""
    if len(now) != len(held):
        return False
    if isinstance(now, set):
        return bool(now == held)
    if isinstance(now, dict):
        return all(a is b or _equal(a, b) for a, b in zip(now, held, strict=True)) and _alike(
            list(now.values()), list(held.values()))
    return all(map(operator.is_, now, held)) or all(a is b or _equal(a, b) for a, b in zip(now, held, strict=True))


def containers_hold(containers: Iterable[tuple[Any, str, Any]]) -> bool:
    """Whether every container still holds the same elements."""
    return all(_alike(now, held) for now, _, held in containers)


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        return EMPTY


def _compared(before: object, now: object) -> str:
    a, b = _brief(before), _brief(now)
    return f"another {type(now).__name__}" if a == b else f"was {a}, is {b}"


def _brief(it: object) -> str:
    """A number or short string as it is, of everything else the type."""
    if it is EMPTY:
        return "undefined"
    text = repr(it) if it is None or isinstance(it, (bool, int, float, complex, str, bytes, np.generic)) else ""
    return text if text and len(text) <= 40 else f"a {type(it).__name__}"
