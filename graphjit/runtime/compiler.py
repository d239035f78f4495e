"""Kernels to machine code: what is new is compiled, what is old is loaded.

A kernel is compiled once on a machine. In a process it is found by its identity (what it computes, not what
it is called); else on disk (`cache`); else it is compiled, together with everything else that is missing.
A process that finds all its kernels on disk never imports Numba.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import importlib.util
import os
import re
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

from graphjit.runtime import cache
from graphjit.runtime.frontend import front_end
from graphjit.runtime.machine import (
    assembly,
    entry,
    link,
    new_module,
    numba_module,
    object_code,
    optimise_emitted,
    optimise_loops,
    parse,
    resolve,
    target_cpu,
    undefined_symbols,
)

Namespace = Mapping[str, object]
ENOUGH = 50_000  # characters of assembly that keep LLVM busy for longer than it takes to hand them over


@dataclass(frozen=True, slots=True)
class LoopKernel:
    """A kernel given as readable Python source over typed pointers.

    Args:
        name: for humans: the function's name in the source and part of its symbol; not part of the identity.
        source: text of `def {name}(p0, ..., s0, ..., start, stop):`; comments and blank lines do not count.
        args: type code of each parameter but the last two, which are int64: "*float32" is a pointer,
            "float32" a scalar. Memory that a kernel writes is reached through one pointer only. A bool in
            memory is a uint8.
    """

    name: str
    source: str
    args: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IRKernel:
    """A kernel whose body is emitted as LLVM IR: the hand-made kernel library.

    Args:
        name: for humans, and part of the symbol.
        key: what the code depends on: equal names and keys emit equal code. Its repr must not differ between
            processes.
        nargs: the number of slots.
        emit: called with a builder in the entry function and [slot values (i64) ..., start, stop]. Functions
            it defines beside the entry stay private to the kernel; linkonce_odr ones are shared by name.
    """

    name: str
    key: tuple[Hashable, ...]
    nargs: int
    emit: Callable[[ir.IRBuilder, list[ir.Value]], None] = field(compare=False)


Kernel = LoopKernel | IRKernel

_lock = threading.RLock()
_addresses: dict[str, int] = {}  # kernels asked for in this process: key -> entry
_resident: dict[str, int] = {}  # kernels whose code is in memory, asked for or not
_counts = {"compiled": 0, "loaded": 0}

if hasattr(os, "register_at_fork"):  # a child must not inherit a lock that a thread of its parent holds
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def compile_kernels(kernels: Sequence[Kernel], namespace: Namespace | None = None) -> list[int]:
    """The address of each kernel's entry, `void entry(int64 *slots, int64 start, int64 stop)`.

    What is neither in this process nor on disk is compiled here. Addresses stay valid as long as the process. Any
    thread may call.

    Args:
        kernels: any number, equal ones too.
        namespace: the globals of loop kernels; by default `graphjit.kernels.scalar.NAMESPACE`.

    Raises:
        InternalCompilerError: a kernel does not compile; names it and a file that reproduces it.
    """
    keys = [_key(kernel, namespace) for kernel in kernels]
    if not all(key in _addresses for key in keys):
        with _lock:
            _provide(dict(zip(keys, kernels, strict=True)), namespace)
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
    for i, (value, code) in enumerate(zip(values, codes, strict=True)):
        slots[i : i + 1].view(np.int64 if code.startswith("*") else code)[0] = value
    return slots


# ---- identity ----------------------------------------------------------------------------------------------


def _key(kernel: Kernel, namespace: Namespace | None) -> str:
    """The identity of a kernel's machine code: what it computes, the compiler, the CPU."""
    parts: tuple[Hashable, ...]
    match kernel:
        case LoopKernel(name, source, args):
            parts = "loop", _normalise(name, source), args, namespace and _describe(namespace)
        case IRKernel(name, key, nargs):
            parts = "ir", name, repr(key), nargs
    return hashlib.sha256(f"{_fingerprint()}{parts!r}".encode()).hexdigest()


def _normalise(name: str, source: str) -> str:
    """The source without its own name, comments and blank lines. A `#` after a quote is left alone."""
    lines = []
    for line in source.splitlines():
        code, _, _ = line.partition("#")
        kept = (line if '"' in code or "'" in code else code).rstrip()
        if kept:
            lines.append(kept)
    return "\n".join(lines).replace(f"def {name}(", "def kernel(", 1)


def _describe(namespace: Namespace) -> str:
    """The names and values of a namespace, without addresses: enough for one that a test brings along."""
    items = sorted((name, str(value)) for name, value in namespace.items())
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(items))


@functools.cache
def _fingerprint() -> str:
    """All that machine code depends on besides its kernel: compilers, our own code generation, the CPU."""
    facts = (cache.FORMAT, sys.version_info[:2], llvmlite.__version__, llvm.llvm_version_info,
             llvm.get_process_triple(), *target_cpu())
    digest = hashlib.sha256(repr(facts).encode())
    here = Path(__file__).parent
    sources = [*sorted(here.glob("*.py")), *sorted((here.parent / "kernels").rglob("*.py"))]
    numba = importlib.util.find_spec("numba")  # located, not imported
    if numba is not None and numba.origin is not None:
        sources.append(Path(numba.origin).with_name("_version.py"))
    try:
        for path in sources:
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    except OSError:  # no source files to tell one version from another: nothing on disk is for this process
        digest.update(os.urandom(32))
    return digest.hexdigest()


# ---- finding and building ----------------------------------------------------------------------------------


def _provide(wanted: dict[str, Kernel], namespace: Namespace | None) -> None:
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
        for batch in _compile(loops, emitted, namespace):
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


def _compile(loops: Mapping[str, LoopKernel], emitted: Mapping[str, IRKernel],
             namespace: Namespace | None) -> list[cache.Batch]:
    """What is missing, loop kernels and IR kernels in a batch each.

    LLVM runs in a thread of its own, outside the GIL: it works on some kernels while this thread emits the IR of IR
    kernels, imports Numba and runs its front end on the next ones, the longest last.
    """
    jobs: dict[str, list[Future[bytes]]] = {"emitted": [], "loops": []}
    symbols = {"emitted": _symbols(emitted), "loops": _symbols(loops)}
    llvm_thread = ThreadPoolExecutor(1, "graphjit-llvm")

    def submit(kind: str, work: list[tuple[Kernel, str]], optimise: Callable[[Any], None]) -> None:
        if work:
            jobs[kind].append(llvm_thread.submit(_object, work, optimise))

    try:
        with without_gc(), quick_turns():
            submit("emitted", [(kernel, _emit(kernel, symbols["emitted"][key])) for key, kernel in emitted.items()],
                   optimise_emitted)  # in one: they share functions
            work: list[tuple[Kernel, str]] = []
            for key in sorted(loops, key=lambda key: len(loops[key].source)):
                work.append((loops[key], _lower(loops[key], symbols["loops"][key], namespace)))
                if sum(len(text) for _, text in work) > ENOUGH:
                    submit("loops", work, optimise_loops)
                    work = []
            submit("loops", work, optimise_loops)
        objects = {kind: tuple(job.result() for job in jobs[kind]) for kind in jobs}
    finally:
        llvm_thread.shutdown(cancel_futures=True)
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


def _lower(kernel: LoopKernel, symbol: str, namespace: Namespace | None) -> str:
    """The module of a loop kernel as LLVM assembly."""
    with numba_module("compiler_lock").global_compiler_lock:
        if namespace is None:
            from graphjit.kernels.scalar import NAMESPACE

            namespace = NAMESPACE
        try:
            return front_end()(kernel, symbol, namespace)
        except Exception as error:
            raise _failure(kernel, error) from None


def _object(work: Sequence[tuple[Kernel, str]], optimise: Callable[[Any], None]) -> bytes:
    """Kernels and their LLVM assembly as one object file."""
    modules = []
    for kernel, text in work:
        try:
            modules.append(parse(text))
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
