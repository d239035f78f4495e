"""LLVM: modules to machine code, machine code into the process.

Compiled and loaded code enter the process the same way: as an object file, linked by one LLVM engine that lives as
long as the process.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import os
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from llvmlite.binding import ffi

I64 = ir.IntType(64)
ENTRY_TYPE = ir.FunctionType(ir.VoidType(), [I64.as_pointer(), I64, I64])  # (slots, start, stop)


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


def entry(module: ir.Module, symbol: str, nargs: int) -> tuple[ir.IRBuilder, list[ir.Value], ir.Value, ir.Value]:
    """A new entry function: a builder in it, the values of its slots, start and stop."""
    function = ir.Function(module, ENTRY_TYPE, symbol)
    function.attributes.add("nounwind")  # no unwind tables to emit and register
    slots, start, stop = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    return builder, [builder.load(builder.gep(slots, [I64(i)])) for i in range(nargs)], start, stop


def new_module(name: str) -> ir.Module:
    """An empty module for the CPU that kernels are compiled for."""
    module = ir.Module(name)
    module.triple, module.data_layout = _layout()
    return module


@functools.cache
def _layout() -> tuple[str, str]:
    return llvm.get_process_triple(), str(_target_machine().target_data)


def assembly(module: ir.Module, symbol: str) -> str:
    """The text of a module where only the entry is visible: equal names in two kernels do not clash."""
    for each in module.global_values:
        declared = each.is_declaration if isinstance(each, ir.Function) else each.initializer is None
        if not declared and each.linkage in ("", "external", "common") and each.name != symbol:
            each.linkage = "internal"
    return str(module).encode().decode("latin1")


def parse(text: str, context: llvm.ContextRef | None = None) -> llvm.ModuleRef:
    """The module of a text. Raises RuntimeError when it is not valid."""
    module = llvm.parse_assembly(text, context)
    module.verify()
    return module


def object_code(modules: Sequence[llvm.ModuleRef], optimise: Callable[[llvm.ModuleRef], None]) -> bytes:
    """Link modules of one context into one, optimise, emit. Several threads may, each in a context of its own."""
    whole, *rest = modules
    for module in rest:
        whole.link_in(module)
    optimise(whole)
    with ffi.OutputString() as error:
        buffer = _at_once(ffi.lib.LLVMPY_TargetMachineEmitToMemory)(_target_machine(), whole, 1, error)
        if not buffer:
            raise RuntimeError(str(error))
    try:
        start, size = ffi.lib.LLVMPY_GetBufferStart(buffer), ffi.lib.LLVMPY_GetBufferSize(buffer)
        return ctypes.string_at(start, size)
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)


def _at_once(function: Any) -> Any:
    """A function of llvmlite without the lock that lets one thread at a time into LLVM. What is private to a thread,
    the context of its modules and its target machine, needs none, and nearly all time goes by in two functions."""
    return getattr(function, "_cfn", function)


def _run(passes: llvm.ModulePassManager, module: llvm.ModuleRef, builder: llvm.PassBuilder) -> None:
    _at_once(ffi.lib.LLVMPY_RunNewModulePassManager)(passes, module, builder)


def optimise_loops(module: llvm.ModuleRef) -> None:
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization, options.slp_vectorization = True, False
    builder = llvm.create_pass_builder(_target_machine(), options)
    _run(builder.getModulePassManager(), module, builder)
    if forms := [f for f in module.functions if f.name.startswith("graphjit.") and not f.is_declaration]:
        for form in forms:  # of slow paths (`kernels/vmath_rare.py`): only the vectoriser had to find them whole
            form.linkage = "internal"
        passes = llvm.create_new_module_pass_manager()
        passes.add_always_inliner_pass()
        passes.add_simplify_cfg_pass()
        _run(passes, module, builder)


def optimise_emitted(module: llvm.ModuleRef) -> None:
    for function in module.functions:
        if function.linkage is llvm.Linkage.linkonce_odr:  # what kernels share
            function.linkage = "internal"
    passes = llvm.create_new_module_pass_manager()
    passes.add_sroa_pass()
    passes.add_simplify_cfg_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    _run(passes, module, llvm.create_pass_builder(_target_machine(), llvm.create_pipeline_tuning_options()))


def _new_target_machine() -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    cpu, features = target_cpu()
    reloc = "static" if target.name.startswith("x86") else "default"  # what MCJIT wants
    return target.create_target_machine(cpu, features, opt=3, reloc=reloc, codemodel="jitdefault", jit=True)


_own = threading.local()


def _target_machine() -> llvm.TargetMachine:
    """The one that compiles in this thread."""
    if not hasattr(_own, "machine"):
        _own.machine = _new_target_machine()
    return _own.machine


@functools.cache
def _engine() -> llvm.ExecutionEngine:
    """The engine that holds all machine code."""
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _new_target_machine())
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))  # never freed: kernels may run to the very end
    return engine


def link(objects: Sequence[bytes], symbols: Iterable[str]) -> dict[str, int]:
    """Bring object files into the process; the address of each symbol. Every symbol they need must `resolve`."""
    engine = _engine()
    for code in objects:
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return {symbol: engine.get_function_address(symbol) for symbol in symbols}


def resolve(symbol: str) -> bool:
    """Whether LLVM finds a symbol, after showing it those of CPython and libm."""
    _engine()  # making it shows the process's own symbols to LLVM
    if llvm.address_of_symbol(symbol):
        return True
    for library in (ctypes.pythonapi, _libm()):
        with suppress(AttributeError):
            llvm.add_symbol(symbol, ctypes.cast(getattr(library, symbol), ctypes.c_void_p).value)
            return True
    return False


@functools.cache
def _libm() -> ctypes.CDLL | None:
    name = ctypes.util.find_library("m")
    return ctypes.CDLL(name) if name else None


def undefined_symbols(objects: Sequence[bytes]) -> tuple[str, ...]:
    """What object files need from outside; () where objects are not ELF (macOS), for it is not known."""
    return tuple(sorted({symbol for code in objects for symbol in _undefined(code)}))


def _undefined(code: bytes) -> Iterator[str]:
    if code[:6] != b"\x7fELF\x02\x01":
        return
    (table_at,) = struct.unpack_from("<Q", code, 0x28)
    entry_size, count = struct.unpack_from("<HH", code, 0x3A)
    sections = [struct.unpack_from("<IIQQQQII", code, table_at + i * entry_size) for i in range(count)]
    for _, kind, _, _, offset, size, strings, _ in sections:
        if kind == 2:  # SHT_SYMTAB
            for name, _, _, section, _, _ in struct.iter_unpack("<IBBHQQ", code[offset : offset + size]):
                if name and section == 0:  # SHN_UNDEF
                    start = sections[strings][4] + name
                    yield code[start : code.index(b"\0", start)].decode()
