"""Kernels to machine code: what is new becomes one LLVM module, what is old is loaded.

A kernel is compiled once on a machine. In a process it is found by its identity (what it computes, not what
it is called); else on disk (`cache`); else it is compiled, together with everything else that is missing.
Compiled and loaded code enter the process the same way: as an object file, linked by one LLVM engine that
lives as long as the process. A process that finds all its kernels on disk never imports Numba.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import gc
import hashlib
import importlib
import importlib.util
import os
import re
import struct
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import llvmlite
import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

from graphjit.runtime import cache

I64 = ir.IntType(64)
ENTRY_TYPE = ir.FunctionType(ir.VoidType(), [I64.as_pointer(), I64, I64])  # (slots, start, stop)

Namespace = Mapping[str, object]


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

    What is neither in this process nor on disk is compiled here: all loop kernels as one LLVM module, all IR
    kernels as another. Addresses stay valid as long as the process. Any thread may call.

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
    sources = [here / "compiler.py", here / "driver.py", *sorted((here.parent / "kernels").rglob("*.py"))]
    numba = importlib.util.find_spec("numba")  # located, not imported
    if numba is not None and numba.origin is not None:
        sources.append(Path(numba.origin).with_name("_version.py"))
    try:
        for path in sources:
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    except OSError:  # no source files to tell one version from another: nothing on disk is for this process
        digest.update(os.urandom(32))
    return digest.hexdigest()


@functools.cache
def target_cpu() -> tuple[str, str]:
    """The CPU that kernels are compiled for: its LLVM name and features ("+avx2,-avx512f,...").

    It is the host's, unless Numba's variables NUMBA_CPU_NAME and NUMBA_CPU_FEATURES name another. A CPU named
    without features has "": those that LLVM knows of it. Where there are 512-bit vectors they are used: LLVM prefers
    256 bits on CPUs that once slowed down for wider ones, which costs a third of the speed of vector math.
    """
    name = os.environ.get("NUMBA_CPU_NAME") or "host"
    features = os.environ.get("NUMBA_CPU_FEATURES", "")
    if name != "host":
        return name, features
    if not features:
        found = llvm.get_host_cpu_features()
        features = found.flatten() + (",-prefer-256-bit" if found.get("avx512f") else "")
    return llvm.get_host_cpu_name(), features


# ---- finding and building ----------------------------------------------------------------------------------


def _provide(wanted: dict[str, Kernel], namespace: Namespace | None) -> None:
    """Bring every wanted kernel into `_addresses`: from memory, from disk, or compiled."""
    wanted = {key: kernel for key, kernel in wanted.items() if key not in _addresses}
    for key in wanted:
        if key not in _resident and (batch := cache.load(key)) is not None:
            _link(batch)
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
    if loops:
        _take(_compile_loops(loops, namespace))
    if emitted:
        _take(_compile_emitted(emitted))


def _take(batch: cache.Batch) -> None:
    """A batch fresh from the compiler: into the process and onto the disk."""
    if not _link(batch):
        unknown = [symbol for symbol in batch.externals if not _resolve(symbol)]
        raise _internal_error(f"{', '.join(batch.symbols.values())}: unknown symbols {', '.join(unknown)}")
    _addresses.update({key: _resident[key] for key in batch.symbols})
    _counts["compiled"] += len(batch.symbols)
    cache.store(batch)


def _compile_loops(kernels: Mapping[str, LoopKernel], namespace: Namespace | None) -> cache.Batch:
    """Loop kernels through Numba's front end into one module, optimised once, in full."""
    if namespace is None:
        from graphjit.kernels.scalar import NAMESPACE

        namespace = NAMESPACE
    symbols = _symbols(kernels)
    modules: list[llvm.ModuleRef] = []
    with _numba("compiler_lock").global_compiler_lock, _without_gc():
        lower = _front_end()
        for key, kernel in kernels.items():
            try:
                texts, libraries = lower(kernel, symbols[key], namespace)
                modules += [_parse(text) for text in texts] + libraries
            except Exception as error:
                raise _failure(kernel, error) from None
        return _build(modules, symbols, _optimise_loops)


def _compile_emitted(kernels: Mapping[str, IRKernel]) -> cache.Batch:
    """IR kernels into one module; their authors chose the instructions, so light passes suffice."""
    symbols = _symbols(kernels)
    modules = []
    for key, kernel in kernels.items():
        module = ir.Module(symbols[key])
        module.triple, module.data_layout = llvm.get_process_triple(), str(_target_machine().target_data)
        builder, slots, start, stop = _entry(module, symbols[key], kernel.nargs)
        try:
            kernel.emit(builder, [*slots, start, stop])
            if not builder.block.is_terminated:
                builder.ret_void()
            modules.append(_parse(str(module)))
        except Exception as error:
            raise _failure(kernel, error) from None
    return _build(modules, symbols, _optimise_emitted)


def _symbols(kernels: Mapping[str, Kernel]) -> dict[str, str]:
    """A symbol for each kernel. It names the batch too: one engine may hold a kernel in two batches."""
    batch = hashlib.sha256("".join(kernels).encode()).hexdigest()[:8]
    return {key: f"{_identifier(kernel.name)}_{key[:16]}_{batch}" for key, kernel in kernels.items()}


def _identifier(name: str) -> str:
    return re.sub(r"[^0-9A-Za-z_]", "_", name)


def _entry(module: ir.Module, symbol: str,
           nargs: int) -> tuple[ir.IRBuilder, list[ir.Value], ir.Value, ir.Value]:
    """A new entry function: a builder in it, the values of its slots, start and stop."""
    function = ir.Function(module, ENTRY_TYPE, symbol)
    function.attributes.add("nounwind")  # no unwind tables to emit and register
    slots, start, stop = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    return builder, [builder.load(builder.gep(slots, [I64(i)])) for i in range(nargs)], start, stop


def _parse(text: str) -> llvm.ModuleRef:
    module = llvm.parse_assembly(text)
    module.verify()
    return module


def _build(modules: Sequence[llvm.ModuleRef], symbols: Mapping[str, str],
           optimise: Callable[[llvm.ModuleRef], None]) -> cache.Batch:
    """Link modules into one where only the entries are visible, optimise, emit."""
    entries = set(symbols.values())
    whole, *rest = modules
    for module in modules:
        _hide(module, entries, (llvm.Linkage.external,))  # equal names of two kernels do not clash
    for module in rest:
        whole.link_in(module)
    _hide(whole, entries, (llvm.Linkage.linkonce_odr, llvm.Linkage.common))
    optimise(whole)
    code = _target_machine().emit_object(whole)
    return cache.Batch(dict(symbols), _undefined_symbols(code), code)


def _hide(module: llvm.ModuleRef, entries: set[str], linkages: tuple[llvm.Linkage, ...]) -> None:
    """Make what a module defines, but for the entries, invisible outside it."""
    for definitions in (module.functions, module.global_variables):
        for each in definitions:
            if not each.is_declaration and each.linkage in linkages and each.name not in entries:
                each.linkage = "internal"


def _optimise_loops(module: llvm.ModuleRef) -> None:
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization, options.slp_vectorization = True, False
    builder = llvm.create_pass_builder(_target_machine(), options)
    builder.getModulePassManager().run(module, builder)


def _optimise_emitted(module: llvm.ModuleRef) -> None:
    passes = llvm.create_new_module_pass_manager()
    passes.add_sroa_pass()
    passes.add_simplify_cfg_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.run(module, llvm.create_pass_builder(_target_machine(), llvm.create_pipeline_tuning_options()))


# ---- Numba's front end -------------------------------------------------------------------------------------

Lower = Callable[[LoopKernel, str, Namespace], tuple[list[str], list[Any]]]


def _numba(module: str) -> Any:
    """A module of `numba.core`, untyped: what few annotations Numba has do not allow what it documents."""
    return importlib.import_module(f"numba.core.{module}")


@functools.cache
def _front_end() -> Lower:
    """What lowers a loop kernel to LLVM IR; a closure because Numba is only imported when it is needed."""
    codegen, compiler, types = _numba("codegen"), _numba("compiler"), _numba("types")
    typed, untyped, machinery = _numba("typed_passes"), _numba("untyped_passes"), _numba("compiler_machinery")
    cpu = _numba("registry").cpu_target
    typing, target = cpu.typing_context, cpu.target_context
    compiler_base: Any = compiler.CompilerBase
    library_base: Any = codegen.CodeLibrary

    class Pipeline(compiler_base):  # type: ignore[misc]  # a subclass of Any
        """What a function of plain typed loops needs: no rewriting, no inlining, no parallel loops."""

        def define_pipelines(self) -> list[Any]:
            manager = machinery.PassManager("graphjit")
            for each in (untyped.TranslateByteCode, untyped.FixupArgs, untyped.IRProcessing,
                         untyped.ReconstructSSA, typed.NopythonTypeInference, typed.PreLowerStripPhis,
                         typed.IRLegalization, typed.NativeLowering, typed.NoPythonBackend):
                manager.add_pass(each, each.__name__)
            manager.finalize()
            return [manager]

    class Collector(library_base):  # type: ignore[misc]
        """A library that only collects what Numba emits; linking and optimising are ours."""

        def __init__(self, name: str) -> None:
            super().__init__(target.codegen(), name)
            self.modules: list[ir.Module] = []
            self.libraries: list[Any] = []

        def add_ir_module(self, ir_module: ir.Module) -> None:
            self.modules.append(ir_module)

        def add_linking_library(self, library: Any) -> None:
            self.libraries.append(library)

        def finalize(self) -> None: ...

        def get_function(self, *_: str) -> NoReturn:
            raise NotImplementedError

        get_llvm_str = get_asm_str = get_function

    flags = compiler.Flags()
    # no fast-math flag, not even contract: a value computed again in another kernel must have the same bits, or
    # x == max(x) holds for no element
    flags.noalias, flags.error_model = True, "numpy"
    flags.no_cpython_wrapper = flags.no_cfunc_wrapper = flags.no_compile = True
    flags.nrt = False

    def numba_type(code: str) -> Any:
        if code.startswith("*"):
            return types.CPointer(numba_type("uint8" if code == "*bool" else code[1:]))
        return types.boolean if code == "bool" else getattr(types, code)

    def from_slot(builder: ir.IRBuilder, value: ir.Value, kind: Any) -> ir.Value:
        """An i64 slot as the value of a Numba type."""
        want = target.get_value_type(kind)
        if isinstance(want, ir.PointerType):
            return builder.inttoptr(value, want)
        if isinstance(want, ir.IntType):
            return builder.trunc(value, want) if want.width < 64 else value
        return builder.bitcast(builder.trunc(value, ir.IntType(32)) if kind.bitwidth == 32 else value, want)

    def lower(kernel: LoopKernel, symbol: str, namespace: Namespace) -> tuple[list[str], list[Any]]:
        """The kernel's modules as LLVM assembly, and copies of the modules of jitted functions it calls."""
        typing.refresh()  # intrinsics made since the last time
        target.refresh()
        scope = {**namespace, "__name__": "graphjit.kernel"}
        exec(compile(kernel.source, f"<graphjit kernel {kernel.name}>", "exec"), scope)
        args = (*map(numba_type, kernel.args), types.int64, types.int64)
        library = Collector(symbol)
        result = compiler.compile_extra(typing, target, scope[kernel.name], args, types.void, flags, {},
                                        library=library, pipeline_class=Pipeline)
        module = library.modules[-1]
        builder, slots, start, stop = _entry(module, symbol, len(kernel.args))
        values = [from_slot(builder, slot, kind) for slot, kind in zip(slots, args, strict=False)]
        inner = module.get_global(result.fndesc.llvm_func_name)
        target.call_conv.call_function(builder, inner, types.void, args, [*values, start, stop])
        builder.ret_void()
        texts = [str(each).encode().decode("latin1") for each in library.modules]
        return texts, [each._get_module_for_linking().clone() for each in dict.fromkeys(library.libraries)]

    return lower


@contextmanager
def _without_gc() -> Iterator[None]:
    """Numba makes some 10^5 objects a kernel; collecting the user's heap meanwhile can double its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


# ---- machine code into the process -------------------------------------------------------------------------


def _new_target_machine() -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    cpu, features = target_cpu()
    reloc = "static" if target.name.startswith("x86") else "default"  # as Numba: what MCJIT wants
    return target.create_target_machine(cpu, features, opt=3, reloc=reloc, codemodel="jitdefault", jit=True)


_target_machine = functools.cache(_new_target_machine)  # the one that compiles


@functools.cache
def _engine() -> llvm.ExecutionEngine:
    """The engine that holds all machine code."""
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _new_target_machine())
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))  # never freed: kernels may run to the very end
    return engine


def _link(batch: cache.Batch) -> bool:
    """Make a batch's kernels resident; False when it needs a symbol that this process does not have."""
    engine = _engine()  # first: making it shows the process's own symbols to LLVM
    if not all(_resolve(symbol) for symbol in batch.externals):  # LLVM would end the process
        return False
    engine.add_object_file(llvm.ObjectFileRef.from_data(batch.code))
    engine.finalize_object()
    for key, symbol in batch.symbols.items():
        _resident.setdefault(key, engine.get_function_address(symbol))
    return True


def _resolve(symbol: str) -> bool:
    """Whether LLVM finds a symbol, after showing it those of CPython, libm and Numba."""
    if llvm.address_of_symbol(symbol):
        return True
    for library in (ctypes.pythonapi, _libm()):
        with suppress(AttributeError):
            llvm.add_symbol(symbol, ctypes.cast(getattr(library, symbol), ctypes.c_void_p).value)
            return True
    _numba("registry").cpu_target.target_context.refresh()  # brings Numba's helpers
    return llvm.address_of_symbol(symbol) is not None


@functools.cache
def _libm() -> ctypes.CDLL | None:
    name = ctypes.util.find_library("m")
    return ctypes.CDLL(name) if name else None


def _undefined_symbols(code: bytes) -> tuple[str, ...]:
    """What an object file needs from outside; () where objects are not ELF (macOS), for it is not known."""
    if code[:6] != b"\x7fELF\x02\x01":
        return ()
    (table_at,) = struct.unpack_from("<Q", code, 0x28)
    entry_size, count = struct.unpack_from("<HH", code, 0x3A)
    sections = [struct.unpack_from("<IIQQQQII", code, table_at + i * entry_size) for i in range(count)]
    found = []
    for _, kind, _, _, offset, size, strings, _ in sections:
        if kind == 2:  # SHT_SYMTAB
            for name, _, _, section, _, _ in struct.iter_unpack("<IBBHQQ", code[offset : offset + size]):
                if name and section == 0:  # SHN_UNDEF
                    start = sections[strings][4] + name
                    found.append(code[start : code.index(b"\0", start)].decode())
    return tuple(sorted(found))


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
