"""What a function reads from outside: closure cells and globals, and whether they still hold what they held."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Callable, Iterator
from functools import partial
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import Any

from graphjit.transforms import custom_vjp

_LIBRARIES = tuple({sysconfig.get_paths()[k] + os.sep for k in ("stdlib", "platstdlib", "purelib", "platlib")}
                   | {os.path.dirname(os.path.abspath(__file__)) + os.sep})
_EMPTY = object()


class Capture:
    """The names a function (and the user's functions it calls) reads from outside, with the objects they held.

    Args:
        function: the decorated function.
    """

    __slots__ = ("cells", "globals")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.cells: list[tuple[CellType, object, str]] = []
        self.globals: list[tuple[dict[str, Any], str, object]] = []
        seen: set[object] = set()
        stack: list[FunctionType] = [f for f in _functions(function)]
        while stack:
            f = stack.pop()
            if f in seen or f.__code__.co_filename.startswith(_LIBRARIES):
                continue
            seen.add(f)
            for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
                held = _content(cell)
                self.cells.append((cell, held, name))
                stack.extend(_functions(held))
            for name in _names(f.__code__):
                if name in f.__globals__:
                    held = f.__globals__[name]
                    if not isinstance(held, (ModuleType, BuiltinFunctionType)):
                        self.globals.append((f.__globals__, name, held))
                        stack.extend(_functions(held))

    def holds(self) -> bool:
        """Whether every name still holds the same object (or an equal number or string)."""
        for names, name, held in self.globals:
            now = names.get(name, _EMPTY)
            if now is not held and not _equal(now, held):
                return False
        for cell, held, _ in self.cells:
            now = _content(cell)
            if now is not held and not _equal(now, held):
                return False
        return True

    def changed(self) -> list[str]:
        """Names that hold something else now, for reports."""
        out = [name for names, name, held in self.globals
               if (now := names.get(name, _EMPTY)) is not held and not _equal(now, held)]
        return out + [name for cell, held, name in self.cells
                      if (now := _content(cell)) is not held and not _equal(now, held)]

    def objects(self) -> Iterator[tuple[str, object]]:
        """Everything captured, by name."""
        for _, name, held in self.globals:
            yield name, held
        for _, held, name in self.cells:
            yield name, held


def _equal(a: object, b: object) -> bool:
    return type(a) is type(b) and isinstance(a, (bool, int, float, str, bytes)) and a == b


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        return _EMPTY


def _functions(held: object) -> list[FunctionType]:
    """The user's functions behind a callable: under decorators, transforms, methods and partials."""
    if isinstance(held, FunctionType) and not hasattr(held, "__wrapped__"):
        return [held]
    if isinstance(held, custom_vjp):
        return [f for part in (held.function, held.fwd, held.bwd) for f in _functions(part)]
    if isinstance(held, partial):
        return _functions(held.func)
    inner = getattr(held, "__wrapped__", getattr(held, "__func__", None))
    return [] if inner is None else _functions(inner)


def _names(code: CodeType) -> Iterator[str]:
    """Global names a code object and those nested in it may read."""
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _names(const)
