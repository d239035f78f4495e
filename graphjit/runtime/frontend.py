"""Numba's front end: the source of a loop kernel becomes LLVM IR. Optimising and linking are ours.

Kernels are loops over typed pointers and scalars that call intrinsics, so they are compiled in contexts of their own,
which know numbers, pointers and ranges only. Numba's usual ones import all it can do with NumPy and SciPy first.
Nothing here enters LLVM, whose one lock another thread may hold for long while it optimises the kernel before.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from llvmlite import ir

from graphjit.runtime.machine import assembly, entry, new_module, numba_module

if TYPE_CHECKING:
    from graphjit.runtime.compiler import LoopKernel

Lower = Callable[["LoopKernel", str, Mapping[str, object]], str]


@functools.cache
def front_end() -> Lower:
    """What lowers a loop kernel to LLVM assembly; a closure because Numba is only imported when it is needed."""
    compiler, machinery = numba_module("compiler"), numba_module("compiler_machinery")
    typed, untyped, types = numba_module("typed_passes"), numba_module("untyped_passes"), numba_module("types")
    codegen, cpu, descriptors = numba_module("codegen"), numba_module("cpu"), numba_module("funcdesc")
    cgutils, templates = numba_module("cgutils"), numba_module("typing.templates")
    compiler_base: Any = compiler.CompilerBase
    library_base: Any = codegen.CodeLibrary
    context_base: Any = cpu.CPUContext
    typing_base: Any = numba_module("typing.context").BaseContext
    lower_base: Any = numba_module("lowering").Lower
    pass_base: Any = machinery.LoweringPass

    def plain(rule: type) -> bool:
        return not issubclass(rule, templates._TemplateTargetHelperMixin)

    class Context(context_base):  # type: ignore[misc]  # a subclass of Any
        """What numbers, pointers and ranges are in LLVM."""

        def load_additional_registries(self) -> None:
            from numba.cpython import builtins, numbers, rangeobj  # noqa: F401  # they fill Numba's builtin registry

        def post_lowering(self, *_: object) -> None:
            """Nothing: no reference counts."""

    class Typing(typing_base):  # type: ignore[misc]
        """Numba's typing rules, but for functions that it compiles from Python or fits to a target: to make the rule
        of one brings in its usual contexts."""

        def install_registry(self, registry: Any) -> None:
            new = self._registries.setdefault(registry, templates.RegistryLoader(registry)).new_registrations
            for rule in filter(plain, new("functions")):
                self.insert_function(rule(self))
            for rule in filter(plain, new("attributes")):
                self.insert_attributes(rule(self))
            for value, kind in new("globals"):
                if all(map(plain, getattr(kind, "templates", ()))):
                    known = self._lookup_global(value)
                    if known is not None:
                        self._remove_global(value)
                        kind = known.augment(kind)
                    self._insert_global(value, kind)

    class Function(lower_base):  # type: ignore[misc]
        """Lowers without notes for debuggers, for which Numba asks LLVM the size of each variable."""

        def alloca_lltype(self, name: str, lltype: ir.Type, datamodel: object = None) -> Any:
            return cgutils.alloca_once(self.builder, lltype, name=name, zfill=False)

        def storevar(self, value: ir.Value, name: str, argidx: int | None = None) -> None:
            super().storevar(value, name)

    class Lowering(pass_base):  # type: ignore[misc]
        """Numba's NativeLowering, without its statistics."""

        _name = "graphjit_lowering"

        def __init__(self) -> None: ...

        def run_pass(self, state: Any) -> bool:
            context = state.targetctx
            described = descriptors.PythonFunctionDescriptor.from_specialized_function(
                state.func_ir, state.typemap, state.return_type, state.calltypes, mangler=context.mangler,
                inline=False, noalias=True, abi_tags=())
            with context.push_code_library(state.library):
                Function(context, state.library, described, state.func_ir, metadata=state.metadata).lower()
            state.cr = described
            return True

    machinery.register_pass(mutates_CFG=True, analysis_only=False)(Lowering)

    class Pipeline(compiler_base):  # type: ignore[misc]
        """What a function of plain typed loops needs: no rewriting, no inlining, no parallel loops."""

        def define_pipelines(self) -> list[Any]:
            manager = machinery.PassManager("graphjit")
            for each in (untyped.TranslateByteCode, untyped.FixupArgs, untyped.IRProcessing,
                         typed.NopythonTypeInference, Lowering):
                manager.add_pass(each, each.__name__)
            manager.finalize()
            return [manager]

    class Library(library_base):  # type: ignore[misc]
        """Holds the module that Numba fills."""

        module: ir.Module

        def create_ir_module(self, name: str) -> ir.Module:
            return new_module(name)

        def add_ir_module(self, ir_module: ir.Module) -> None:
            self.module = ir_module

        def unused(self, *_: object) -> NoReturn:
            raise NotImplementedError

        add_linking_library = finalize = get_function = get_llvm_str = get_asm_str = unused

    typing = Typing()
    target = Context(typing, "cpu")
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

    def lower(kernel: LoopKernel, symbol: str, namespace: Mapping[str, object]) -> str:
        """The kernel's module as LLVM assembly."""
        target.refresh()  # functions made since the last time
        scope = {**namespace, "__name__": "graphjit.kernel"}
        exec(compile(kernel.source, f"<graphjit kernel {kernel.name}>", "exec"), scope)
        args = (*map(numba_type, kernel.args), types.int64, types.int64)
        library = Library(target.codegen(), symbol)
        described = compiler.compile_extra(typing, target, scope[kernel.name], args, types.void, flags, {},
                                           library=library, pipeline_class=Pipeline)
        module = library.module
        builder, slots, start, stop = entry(module, symbol, len(kernel.args))
        values = [from_slot(builder, slot, kind) for slot, kind in zip(slots, args, strict=False)]
        inner = module.get_global(described.llvm_func_name)
        target.call_conv.call_function(builder, inner, types.void, args, [*values, start, stop])
        builder.ret_void()
        return assembly(module, symbol)

    return lower
