"""Switching the tape off and on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import _GeneratorContextManager as Mode
from typing import TypeVar, overload

from graphjit.tape import grad_mode

F = TypeVar("F", bound=Callable[..., object])


@overload
def no_grad() -> Mode[None]: ...
@overload
def no_grad(function: F) -> F: ...
def no_grad(function: F | None = None) -> Mode[None] | F:
    """A context, or a decorator, in which operations are not noted for ``backward()``.

    >>> import graphjit as gj
    >>> x = gj.tensor(2.0, requires_grad=True)
    >>> with gj.no_grad():
    ...     y = x * x
    >>> y.requires_grad
    False
    """
    return grad_mode(False) if function is None else grad_mode(False)(function)


@overload
def enable_grad() -> Mode[None]: ...
@overload
def enable_grad(function: F) -> F: ...
def enable_grad(function: F | None = None) -> Mode[None] | F:
    """The opposite of ``no_grad``, inside of it."""
    return grad_mode(True) if function is None else grad_mode(True)(function)
