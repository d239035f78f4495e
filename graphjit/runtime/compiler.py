"""Kernels to machine code: what is new is compiled, what is old is loaded.

A kernel is compiled once on a machine. In a process it is found by its identity (what it computes, not what
it is called); else on disk (`cache`); else it is compiled, together with everything else that is missing.
"""

from __future__ import annotations

import gc
import hashlib
import os
import re
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from graphjit.runtime import cache
from graphjit.runtime.frontend import lower
from graphjit.runtime.kernel import IRKernel as IRKernel
from graphjit.runtime.kernel import Kernel as Kernel
from graphjit.runtime.kernel import LoopKernel as LoopKernel
from graphjit.runtime.kernel import identity
from graphjit.runtime.machine import (
    assembly,
    entry,
    link,
    new_module,
    object_code,
    optimise_emitted,
    optimise_loops,
    parse,
    resolve,
    undefined_symbols,
)

ENOUGH = 10_000  # characters of assembly that keep LLVM busy for longer than it takes to hand them over
MOST = 4  # threads that LLVM runs in

_lock = threading.RLock()
_addresses: dict[str, int] = {}  # kernels asked for in this process: key -> entry
_resident: dict[str, int] = {}  # kernels whose code is in memory, asked for or not
_counts = {"compiled": 0, "loaded": 0}

if hasattr(os, "register_at_fork"):  # a child must not inherit a lock that a thread of its parent holds
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def compile_kernels(kernels: Sequence[Kernel]) -> list[int]:
    """The address of each kernel's entry, `void entry(int64 *slots, int64 start, int64 stop)`.

    What is neither in this process nor on disk is compiled here. Addresses stay valid as long as the process. Any
    thread may call.

    Args:
        kernels: any number, equal ones too.

    Raises:
        InternalCompilerError: a kernel does not compile; names it and a file that reproduces it.
    """
    keys = [identity(kernel) for kernel in kernels]
    if not all(key in _addresses for key in keys):
        with _lock:
            _provide(dict(zip(keys, kernels, strict=True)))
    return [_addresses[key] for key in keys]


def compile_count() -> int:
    """How many kernels this process has compiled."""
    return _counts["compiled"]


def load_count() -> int:
    """How many kernels this process has taken from the disk cache instead of compiling them."""
    return _counts["loaded"]


def pack_args(values: Sequence[int | float | np.generic], codes: Sequence[str]) -> np.ndarray:
    """The argument slots of one call: int64, at least one; scalars bit-cast into the low bytes.

    Args:
        values: an address for each pointer, a number for each scalar.
        codes: the type code of each, as in `LoopKernel.args`.
    """
    slots = np.zeros(max(len(codes), 1), np.int64)
    whole = [code == "int64" or code[0] == "*" for code in codes]
    slots[:len(codes)] = [value if fits else 0 for value, fits in zip(values, whole, strict=True)]
    for i, fits in enumerate(whole):
        if not fits:
            slots[i : i + 1].view(codes[i])[0] = values[i]
    return slots


# ---- finding and building ----------------------------------------------------------------------------------


def _provide(wanted: dict[str, Kernel]) -> None:
    """Bring every wanted kernel into `_addresses`: from memory, from disk, or compiled."""
    wanted = {key: kernel for key, kernel in wanted.items() if key not in _addresses}
    for key in wanted:
        if key not in _resident and (batch := cache.load(key)) is not None:
            _enter(batch)
    found = {key: _resident[key] for key in wanted if key in _resident}
    _addresses.update(found)
    _counts["loaded"] += len(found)
    loops: dict[str, LoopKernel] = {}
    emitted: dict[str, IRKernel] = {}
    for key, kernel in wanted.items():
        if key in found:
            continue
        if isinstance(kernel, LoopKernel):
            loops[key] = kernel
        else:
            emitted[key] = kernel
    if loops or emitted:
        for batch in _compile(loops, emitted):
            _take(batch)


def _enter(batch: cache.Batch) -> bool:
    """Make a batch's kernels resident; False when it needs a symbol that this process does not have."""
    if not all(map(resolve, batch.externals)):  # LLVM would end the process
        return False
    addresses = link(batch.objects, batch.symbols.values())
    for key, symbol in batch.symbols.items():
        _resident.setdefault(key, addresses[symbol])
    return True


def _take(batch: cache.Batch) -> None:
    """A batch fresh from the compiler: into the process and onto the disk."""
    if not _enter(batch):
        unknown = [symbol for symbol in batch.externals if not resolve(symbol)]
        raise _internal_error(f"{', '.join(batch.symbols.values())}: unknown symbols {', '.join(unknown)}")
    _addresses.update({key: _resident[key] for key in batch.symbols})
    _counts["compiled"] += len(batch.symbols)
    cache.store(batch)


def _compile(loops: Mapping[str, LoopKernel], emitted: Mapping[str, IRKernel]) -> list[cache.Batch]:
    """What is missing, loop kernels and IR kernels in a batch each.

    LLVM runs in threads of its own, outside the GIL: it works on IR kernels while this thread imports Numba, and on
    some loop kernels, the longest first, while Numba is at the next ones.
    """
    from graphjit.runtime.threads import get_num_threads  # which compiles what threads run

    jobs: dict[str, list[Future[bytes]]] = {"emitted": [], "loops": []}
    symbols = {"emitted": _symbols(emitted), "loops": _symbols(loops)}
    count = min(get_num_threads(), MOST)
    threads = ThreadPoolExecutor(count, "graphjit-llvm")

    def submit(kind: str, work: list[tuple[Kernel, str]], optimise: Callable[[Any], None]) -> None:
        if work:
            jobs[kind].append(threads.submit(_object, work, optimise))

    try:
        with without_gc(), quick_turns():
            for part in range(count):  # few: they share functions
                keys = list(emitted)[part::count]
                submit("emitted", [(emitted[key], _emit(emitted[key], symbols["emitted"][key])) for key in keys],
                       optimise_emitted)
            work: list[tuple[Kernel, str]] = []
            for key in sorted(loops, key=lambda key: len(loops[key].source), reverse=True):
                work.append((loops[key], _lower(loops[key], symbols["loops"][key])))
                if sum(len(text) for _, text in work) > ENOUGH:
                    submit("loops", work, optimise_loops)
                    work = []
            submit("loops", work, optimise_loops)
        objects = {kind: tuple(job.result() for job in jobs[kind]) for kind in jobs}
    finally:
        threads.shutdown(cancel_futures=True)
    return [cache.Batch(symbols[kind], undefined_symbols(objects[kind]), objects[kind])
            for kind in jobs if objects[kind]]


def _emit(kernel: IRKernel, symbol: str) -> str:
    """The module of an IR kernel as LLVM assembly."""
    module = new_module(symbol)
    builder, slots, start, stop = entry(module, symbol, kernel.nargs)
    try:
        kernel.emit(builder, [*slots, start, stop])
        if not builder.block.is_terminated:
            builder.ret_void()
        return assembly(module, symbol)
    except Exception as error:
        raise _failure(kernel, error) from None


def _lower(kernel: LoopKernel, symbol: str) -> str:
    """The module of a loop kernel as LLVM assembly."""
    try:
        return lower(kernel, symbol)
    except Exception as error:
        raise _failure(kernel, error) from None


def _object(work: Sequence[tuple[Kernel, str]], optimise: Callable[[Any], None]) -> bytes:
    """Kernels and their LLVM assembly as one object file."""
    modules, context = [], llvm.create_context()
    for kernel, text in work:
        try:
            modules.append(parse(text, context))
        except Exception as error:
            raise _failure(kernel, error) from None
    return object_code(modules, optimise)


def _symbols(kernels: Mapping[str, Kernel]) -> dict[str, str]:
    """A symbol for each kernel. It names the batch too: one engine may hold a kernel in two batches."""
    batch = hashlib.sha256("".join(kernels).encode()).hexdigest()[:8]
    return {key: f"{_identifier(kernel.name)}_{key[:16]}_{batch}" for key, kernel in kernels.items()}


def _identifier(name: str) -> str:
    return re.sub(r"[^0-9A-Za-z_]", "_", name)


@contextmanager
def quick_turns() -> Iterator[None]:
    """Let threads take turns often: between its calls LLVM's needs the GIL, for which it would wait 5 ms each time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, 2e-4))
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def without_gc() -> Iterator[None]:
    """While a compiler makes objects by the thousand, none of them garbage, looking for garbage can double its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


# ---- what went wrong ---------------------------------------------------------------------------------------


def _failure(kernel: Kernel, error: Exception) -> Exception:
    """Whatever the compilation of a kernel raised, as one error with a file that reproduces it."""
    path = _save_reproducer(kernel, error)
    lines = [line.strip() for line in re.sub(r"\x1b\[\d*m", "", str(error)).splitlines()]
    reason = next((line for line in lines if line and not line.startswith("Failed in")), "no message")
    return _internal_error(f"kernel {kernel.name} does not compile ({type(error).__name__}: {reason}). "
                           f"This is a bug in graphjit; {path} reproduces it. "
                           "To go on meanwhile, run eagerly: GRAPHJIT_EAGER=1.")


def _internal_error(message: str) -> Exception:
    from graphjit.errors import InternalCompilerError

    return InternalCompilerError(message)


def _save_reproducer(kernel: Kernel, error: Exception) -> str:
    """A script that compiles the kernel again, with the traceback as comment; its path."""
    match kernel:
        case LoopKernel(name, source, args):
            text = repr(source) if "'''" in source or "\\" in source else f"'''\\\n{source}\n'''"
            body = ("from graphjit.runtime.compiler import LoopKernel, compile_kernels\n\n"
                    f"SOURCE = {text}\n\ncompile_kernels([LoopKernel({name!r}, SOURCE, {args!r})])\n")
        case IRKernel():
            body = f"# {kernel!r}\n"
    lines = "".join(traceback.format_exception(error)).splitlines()
    trace = "".join(f"# {line}\n" for line in lines)
    name = f"failed-{_identifier(kernel.name)}-{hashlib.sha256(body.encode()).hexdigest()[:8]}.py"
    for folder in (cache.directory(), Path(tempfile.gettempdir())):
        with suppress(OSError):
            if folder is not None:
                (folder / name).write_text(f"{body}\n{trace}", encoding="utf-8")
                return str(folder / name)
    return "nothing (no directory can be written to)"
