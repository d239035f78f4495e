"""Numba compiles loop kernels to LLVM IR. Optimising and linking are `machine`'s.

Numba's pipeline types a kernel's parameters, and makes, lowers and calls its function. The body is one intrinsic, whose
code `walk` emits: what Numba infers of types, which takes it longest, is one call. Its contexts here are of their own
and know numbers, pointers and this intrinsic only; the usual ones import all that Numba can do with NumPy first.
"""

from __future__ import annotations

import ast
import functools
import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from llvmlite import ir

from graphjit.runtime.machine import assembly, entry, new_module
from graphjit.runtime.walk import Pointer, emit

if TYPE_CHECKING:
    from graphjit.runtime.kernel import LoopKernel


def lower(kernel: LoopKernel, symbol: str) -> str:
    """The kernel's module as LLVM assembly."""
    (tree,) = ast.parse(kernel.source).body
    if not isinstance(tree, ast.FunctionDef):
        raise TypeError("a kernel is a function")
    if len(tree.args.args) != len(kernel.args) + 2:
        raise TypeError(f"{len(tree.args.args)} parameters for {len(kernel.args)} types and a range")
    return _compiler()(tree, kernel.args, symbol)


@functools.cache
def _compiler() -> Callable[[ast.FunctionDef, Sequence[str], str], str]:
    """What has Numba compile a kernel; a closure because Numba is only imported when it is needed."""
    compiler, machinery, types = _numba("compiler"), _numba("compiler_machinery"), _numba("types")
    typed, untyped, templates = _numba("typed_passes"), _numba("untyped_passes"), _numba("typing.templates")
    lock: Any = _numba("compiler_lock").global_compiler_lock  # other threads may use Numba, too
    context_base: Any = _numba("cpu").CPUContext
    typing_base: Any = _numba("typing.context").BaseContext
    pipeline_base: Any = compiler.CompilerBase
    library_base: Any = _numba("codegen").CodeLibrary
    template_base: Any = templates.AbstractTemplate
    from graphjit.kernels.irmath import B1, TYPES, U8, V  # only wanted where something is compiled

    class Typing(typing_base):  # type: ignore[misc]  # a subclass of Any
        """Types the intrinsic and nothing else."""

        def install_registry(self, registry: Any) -> None: ...

    class Context(context_base):  # type: ignore[misc]
        """What numbers and pointers are in LLVM, for one kernel."""

        tree: ast.FunctionDef | None = None

        def load_additional_registries(self) -> None: ...

        def post_lowering(self, *_: object) -> None: ...  # no reference counts

    manager = machinery.PassManager("graphjit")  # no rewriting, no inlining, no parallel loops
    for each in (untyped.TranslateByteCode, untyped.FixupArgs, untyped.IRProcessing,
                 typed.NopythonTypeInference, typed.NativeLowering):
        manager.add_pass(each, each.__name__)
    manager.finalize()

    class Pipeline(pipeline_base):  # type: ignore[misc]
        def define_pipelines(self) -> list[Any]:
            return [manager]

    class Library(library_base):  # type: ignore[misc]
        """Holds the module that Numba fills."""

        module: ir.Module

        def create_ir_module(self, name: str) -> ir.Module:
            return new_module(name)

        def add_ir_module(self, ir_module: ir.Module) -> None:
            self.module = ir_module

        def unused(self, *_: object) -> Any:
            raise NotImplementedError

        add_linking_library = finalize = get_function = get_llvm_str = get_asm_str = unused

    def intrinsic(*arguments: Any) -> None:
        """The body of a kernel."""

    class Template(template_base):  # type: ignore[misc]
        key = intrinsic

        def generic(self, args: Sequence[Any], _: object) -> Any:
            return types.void(*args)

    def generate(context: Context, builder: ir.IRBuilder, signature: Any, args: Sequence[ir.Value]) -> ir.Value:
        assert context.tree is not None
        emit(builder, context.tree, [
            Pointer(builder, value, TYPES[str(kind.dtype)]) if isinstance(kind, types.CPointer) else
            V(builder, value, TYPES[str(kind)]) for kind, value in zip(signature.args, args, strict=True)])
        return context.get_dummy_value()

    generate.signature = (types.VarArg(types.Any),)  # type: ignore[attr-defined]
    typing = Typing()
    target = Context(typing, "cpu")
    typing.insert_user_function(intrinsic, Template)
    target.insert_func_defn([(generate, intrinsic, generate.signature)])  # type: ignore[attr-defined]
    flags = compiler.Flags()
    flags.noalias = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = flags.no_compile = True
    flags.nrt = False

    def numba_type(code: str) -> Any:
        """A bool in memory is a byte."""
        if code.startswith("*"):
            return types.CPointer(numba_type(str(U8) if code == "*bool" else code[1:]))
        return getattr(types, "boolean" if code == str(B1) else code)

    def from_slot(builder: ir.IRBuilder, value: ir.Value, kind: Any) -> ir.Value:
        """An i64 slot as the value of a Numba type."""
        want = target.get_value_type(kind)
        if isinstance(want, ir.PointerType):
            return builder.inttoptr(value, want)
        if isinstance(want, ir.IntType):
            return builder.trunc(value, want) if want.width < 64 else value
        return builder.bitcast(builder.trunc(value, ir.IntType(32)) if kind.bitwidth == 32 else value, want)

    def kernel(*arguments: Any) -> None:  # however many there are: byte code has another call for more than thirty
        intrinsic(*arguments)

    def compiled(tree: ast.FunctionDef, codes: Sequence[str], symbol: str) -> str:
        kinds = (*map(numba_type, codes), types.int64, types.int64)
        given = (types.StarArgTuple(kinds),)
        library = Library(target.codegen(), symbol)
        with lock:
            result = compiler.compile_extra(typing, target.subtarget(tree=tree), kernel, given, types.void, flags, {},
                                            library=library, pipeline_class=Pipeline)
        module = library.module
        builder, slots, start, stop = entry(module, symbol, len(codes))
        values = [from_slot(builder, slot, kind) for slot, kind in zip(slots, kinds, strict=False)]
        packed = target.make_tuple(builder, *given, [*values, start, stop])
        inner = module.get_global(result.fndesc.llvm_func_name)
        target.call_conv.call_function(builder, inner, types.void, given, [packed])
        builder.ret_void()
        return assembly(module, symbol)

    return compiled


def _numba(module: str) -> Any:
    """A module of `numba.core`, untyped: what few annotations Numba has do not allow what it documents."""
    return importlib.import_module(f"numba.core.{module}")
