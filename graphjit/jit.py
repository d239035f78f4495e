"""``compile``: a function traced once for each kind of arguments, and run as one program from then on."""

from __future__ import annotations

import functools
import itertools
import os
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any, overload

import numpy as np

from graphjit.convert import as_tensor
from graphjit.errors import ArgumentError, TraceError
from graphjit.ir import Graph
from graphjit.reasons import argument_names, why_another, why_stale
from graphjit.shared import Kernels, Shared
from graphjit.shortcut import MISS, Shortcut, no_shortcut, shortcut
from graphjit.signature import Signature, plain_key
from graphjit.specialize import Specialization
from graphjit.tape import state
from graphjit.tree import flatten, unflatten

ARRAYS = (np.ndarray, np.generic)
PROGRAMS = 64  # signatures one function holds; the least recently used goes


class CompiledFunction:
    """What ``compile`` gives: called like the function, it runs the compiled program.

    * ``explain()``: a report of traces, kernels, memory and work; ``source()``: the generated Python;
      ``graph``: the optimized graph; ``profile(*args)``: time per kernel.
    * ``trace_count``: signatures traced so far; ``compile_count``: kernels compiled for this function.
    """

    def __init__(self, function: Callable[..., Any], keep_grads: bool = False) -> None:
        functools.update_wrapper(self, function, updated=())
        self.__qualname__ = _name(function)
        self.function = function
        self.trace_count = 0
        self.reasons: list[str] = []
        self._programs: dict[Hashable, list[Specialization]] = {}
        self._clock = itertools.count()
        self._used: dict[Specialization, int] = {}
        self._lock = threading.RLock()  # held while tracing
        self._shared = Shared(keep_grads)
        self._latest: Specialization | None = None
        self._plain: dict[Hashable, tuple[Specialization, Shortcut]] = {}  # by the key of plain arguments
        self._quick: Shortcut = no_shortcut  # that of the latest call
        _living.add(self)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None or isinstance(self.function, staticmethod) else MethodType(self, instance)

    def __reduce__(self) -> str:
        return self.__qualname__  # like a function: copied as itself, pickled by its name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        out = self._quick(args, kwargs)
        if out is not MISS:
            return out
        if state.trace is not None or state.eager:
            return self._uncompiled(args, kwargs)
        plain = plain_key(args, kwargs)
        known = None if plain is None else self._plain.get(plain)
        if known is not None:
            latest, quick = known
            out = quick(args, kwargs)
            if out is not MISS:
                self._latest, self._quick = latest, quick
                if latest in self._used:
                    self._used[latest] = next(self._clock)
                return out
        call = Signature(args, kwargs)
        key = (call.key, state.grad_enabled)
        found = self._find(key)
        if found is None:
            found = self._trace(key, call)
        if found.shortcut is None:
            found.shortcut = shortcut(found, call)
        self._quick = found.shortcut
        if plain is not None:
            self._plain[plain] = found, found.shortcut
        return found.run(call.arrays, call)

    def _uncompiled(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The function itself; it gets tensors where a program would."""
        leaves, spec = flatten((args, kwargs))
        if any(isinstance(x, ARRAYS) for x in leaves):
            args, kwargs = unflatten(spec, [as_tensor(x) if isinstance(x, ARRAYS) else x for x in leaves])
        return self.function(*args, **kwargs)

    def _find(self, key: Hashable) -> Specialization | None:
        for candidate in self._programs.get(key, ()):
            if candidate.stands():
                self._used[candidate] = next(self._clock)
                self._latest = candidate
                return candidate
        return None

    def _trace(self, key: Hashable, call: Signature) -> Specialization:
        with self._lock:
            found = self._find(key)
            if found is not None:
                return found
            names = argument_names(self.function, call)
            reason = self._reason(key, names)
            new = Specialization(self.function, call, names, self._shared)
            self.trace_count += 1
            self.reasons.append(reason)
            new.reason, new.number = reason, self.trace_count
            self._programs.setdefault(key, []).insert(0, new)
            self._used[new] = next(self._clock)
            self._latest = new
            self._forget()
            return new

    def _forget(self) -> None:
        while len(self._used) > PROGRAMS:
            oldest = min(self._used, key=self._used.__getitem__)
            del self._used[oldest]
            for key, group in list(self._programs.items()):
                if oldest in group:
                    group.remove(oldest)
                    if not group:
                        del self._programs[key]
            for plain in [k for k, (known, _) in self._plain.items() if known is oldest]:
                del self._plain[plain]

    def _reason(self, key: Hashable, names: list[str]) -> str:
        """Why there is no program yet for this call."""
        if not self._programs:
            return "first call"
        if key in self._programs:
            return why_stale(self._programs[key][0])
        return why_another(reversed(self._programs), key, names)

    # ---- looking in

    @property
    def programs(self) -> list[Specialization]:
        """The programs there are, the least recently used first."""
        return sorted(self._used, key=self._used.__getitem__)

    @property
    def kernels(self) -> Kernels:
        """The kernels its programs asked for that were new to the process."""
        return self._shared.kernels

    @property
    def compile_count(self) -> int:
        """Kernels compiled for this function; those that were found in the process or on the disk do not count."""
        return self.kernels.compiled

    @property
    def latest(self) -> Specialization:
        """The specialization that ran last.

        Raises:
            TraceError: when the function was not called yet.
        """
        if self._latest is None:
            raise TraceError(f"{self.__qualname__} has not been called yet", hint="Call it once with its arguments.")
        return self._latest

    @property
    def graph(self) -> Graph:
        """The optimized graph of the latest call; prints, and ``to_dot()``."""
        return self.latest.graph

    def source(self) -> str:
        """The generated Python of the latest call's kernels, each statement with the user's line."""
        from graphjit.report import source
        return source(self.latest)

    def explain(self) -> str:
        """A report: traces and their reasons, state, graph, kernels, memory, work."""
        from graphjit.report import explain
        return explain(self)

    def profile(self, *args: Any, **kwargs: Any) -> Any:
        """Run once with these arguments and time each kernel; see ``report.Profile``. State moves on as in a call."""
        from graphjit.report import profile
        return profile(self, args, kwargs)

    def renew_locks(self) -> None:
        """In a forked child: the threads that held the locks do not exist here."""
        self._lock, self._shared.lock = threading.RLock(), threading.Lock()
        for each in self._used:
            each.guard()
            each.shortcut = None  # it looks at the old lock
        self._plain.clear()
        self._quick = no_shortcut

    def clear_cache(self) -> None:
        """Forget all programs of this function."""
        with self._lock:
            self._programs.clear()
            self._used.clear()
            self._plain.clear()
            self._latest, self._quick = None, no_shortcut

    def __repr__(self) -> str:
        return f"<compiled {self.__qualname__}, {self.trace_count} traces>"

    __qualname__: str


_living: weakref.WeakSet[CompiledFunction] = weakref.WeakSet()


def _renew_locks() -> None:
    for each in list(_living):
        each.renew_locks()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


def _name(function: Callable[..., Any]) -> str:
    if isinstance(function, functools.partial):
        return _name(function.func)
    return getattr(function, "__qualname__", type(function).__qualname__)


@overload
def compile(function: Callable[..., Any], *, keep_grads: bool = False) -> CompiledFunction: ...
@overload
def compile(function: None = None, *, keep_grads: bool = False) -> Callable[[Callable[..., Any]], CompiledFunction]: ...


def compile(function: Callable[..., Any] | None = None, *, keep_grads: bool = False) -> Any:
    """Compile a function: trace it once for each kind of arguments, then run it as one program.

    The function may read and assign tensors from outside (parameters, buffers, optimizer state) and call
    ``backward()`` and ``opt.step()``: the whole training step becomes one program.

    Args:
        function: an ordinary function on tensors or arrays; also a method.
        keep_grads: leave ``.grad`` of parameters behind, as eager code does.

    Raises:
        ArgumentError: ``function`` is not callable.

    >>> import graphjit as gj
    >>> @gj.compile
    ... def f(x):
    ...     return (x * x).sum()
    >>> float(f(gj.tensor([1.0, 2.0])))
    5.0
    """
    if function is None:
        return functools.partial(compile, keep_grads=keep_grads)
    if not callable(function):
        raise ArgumentError(f"compile takes a function, not {type(function).__name__}")
    if isinstance(function, CompiledFunction):
        return CompiledFunction(function.function, keep_grads)
    return CompiledFunction(function, keep_grads)


@contextmanager
def eager() -> Iterator[None]:
    """Run compiled functions uncompiled inside this block: for debugging, and as the reference."""
    before = state.eager
    state.eager = True
    state.settle()
    try:
        yield
    finally:
        state.eager = before
        state.settle()
