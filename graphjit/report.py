"""``explain`` and ``source``: what a compiled function became, as text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from graphjit.codegen.call import HostCall, Step
from graphjit.ir import Apply, Const, Graph
from graphjit.profiling import (
    Profile,
    extent,
    footprint,
    main_dtype,
    multiplies,
    profile,
    threads_text,
    title,
    work,
)
from graphjit.reasons import brief, describe
from graphjit.runtime.compiler import LoopKernel
from graphjit.runtime.program import Program
from graphjit.runtime.roofline import bound
from graphjit.structure import Structured
from graphjit.tables import amount, microseconds, place, size, table

if TYPE_CHECKING:
    from graphjit.jit import CompiledFunction
    from graphjit.specialize import Specialization

TRACES = 12  # most that are listed
NAMES = 8    # most names in one line

__all__ = ["Profile", "explain", "profile", "source"]


def explain(compiled: CompiledFunction) -> str:
    """A report: traces and their reasons, then of the latest program state, graph, memory, work and kernels."""
    programs = compiled.programs
    if not programs:
        return f"{_short(compiled)}   not called yet"
    latest = compiled.latest
    lines = [_head(compiled, programs), *_traces(compiled, programs), *_state(latest), *_baked(latest)]
    lines += [_row("graph", _graph_text(latest)), _row("memory", _memory_text(latest.program)),
              _row("work", _work_text(latest.program, latest.measured)), "",
              *_kernel_table(latest.program.steps, latest.measured)]
    if latest.backward is not None:
        lines += _reverse(latest)
    return "\n".join(lines)


def source(specialization: Specialization) -> str:
    """The generated Python of a program's kernels in the order they run, each statement with the user's line."""
    parts = [*_sources(specialization.program.steps)]
    backward = specialization.backward
    if backward is not None and backward.program is not None:
        parts += ["# ---- the reverse program\n", *_sources(backward.program.steps)]
    return "\n".join(parts)


# ---- lines

def _row(name: str, text: str) -> str:
    return f"  {name:<11}{text}"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _short(compiled: CompiledFunction) -> str:
    return compiled.__qualname__.rpartition("<locals>.")[2]


def _listed(names: Iterable[str]) -> str:
    found = list(dict.fromkeys(names))
    more = [f"and {len(found) - NAMES} more"] if len(found) > NAMES else []
    return ", ".join(found[:NAMES] + more)


def _head(compiled: CompiledFunction, programs: list[Specialization]) -> str:
    kernels = {call.kernel for p in programs for part in (p.program, p.backward and p.backward.program) if part
               for step in part.kernels for call in step.calls}
    new = compiled.kernels
    return (f"{_short(compiled)}   {_count(compiled.trace_count, 'trace')}, {_count(len(kernels), 'kernel')} "
            f"({new.compiled} compiled, {new.loaded} loaded in {1e3 * new.seconds:.1f} ms)")


def _traces(compiled: CompiledFunction, programs: list[Specialization]) -> list[str]:
    shown = sorted(programs, key=lambda p: p.number)[-TRACES:]
    texts = [_arguments(p) for p in shown]
    width = min(max(map(len, texts)), 60)
    lines = [_row(f"trace {p.number}", f"{text:<{width}}   {p.reason}{_new_kernels(p)}")
             for p, text in zip(shown, texts, strict=True)]
    hidden = compiled.trace_count - len(shown)
    return [_row("", f"{_count(hidden, 'older trace')} not shown"), *lines] if hidden else lines


def _arguments(program: Specialization) -> str:
    parts = [f"{name} {describe(part)}" for name, part in zip(program.leaf_names, program.key[1:], strict=True)]
    return ", ".join(parts[:NAMES]) + (f", and {len(parts) - NAMES} more" if len(parts) > NAMES else "")


def _new_kernels(program: Specialization) -> str:
    if program.number == 1:
        return ""
    return f"; {program.kernels.compiled} compiled" if program.kernels.compiled else "; no new kernel"


def _state(program: Specialization) -> list[str]:
    read = sum(s.node.type.nbytes for s in program.states)
    lines = []
    if program.states:
        lines.append(_row("state", f"{_count(len(program.states), 'tensor')} read ({size(read)}), "
                                   f"{len(program.writes)} written: {_listed(s.node.name for s in program.states)}"))
    if turned := [f"{s.node.name} {s.order}" for s in program.states if s.order]:
        lines.append(_row("", f"held with their axes as products read them: {_listed(turned)}"))
    if program.arrays:
        names = {id(held): name for name, held in program.capture.objects() if isinstance(held, np.ndarray)}
        lines.append(_row("arrays", f"{len(program.arrays)} read by reference: "
                          + _listed(f"{names.get(id(a), 'made while tracing')} {value.type}"
                                    for a, value in program.trace.arrays.values())))
    return lines


def _baked(program: Specialization) -> list[str]:
    """What the program holds as it was when it was traced."""
    watched = [f"{name} = {brief(held)}" for name, held in program.capture.objects()
               if isinstance(held, (bool, int, float, str, np.generic))]
    found = [each for it, _ in program.watched for each in _attributes(it)]
    watched += [text for text, value in sorted(found, key=lambda each: not isinstance(each[1], float))]
    lines = [_row("baked in", _listed(watched) + "; a change traces again")] if watched else []
    arrays = [n for n in program.raw_graph.nodes if isinstance(n, Const) and n.value.size > 1
              and n.type.dtype != np.uint64]  # what random states count with
    if arrays:
        total = sum(n.value.nbytes for n in arrays)
        lines.append(_row("", f"{_count(len(arrays), 'array')} of constants ({size(total)}), computed while tracing: "
                              "a change of what they came from is not seen"))
    return lines


def _attributes(it: Structured) -> list[tuple[str, object]]:
    """Static attributes of a module or optimizer: ``Dropout.p = 0.2``."""
    return [(f"{type(it).__name__}.{name} = {brief(value)}", value) for name, value in vars(it).items()
            if not name.startswith("_") and isinstance(value, (bool, int, float, str))]


def _graph_text(program: Specialization) -> str:
    before, after = (_nodes(g) for g in (program.raw_graph, program.graph))
    took = [f"{what} in {1e3 * seconds:.1f} ms" for what, seconds in (
        ("traced", program.trace_seconds), ("optimized", program.optimize_seconds), ("lowered", program.lower_seconds))]
    return f"{before} nodes recorded, {after} after simplify, fold, cse; " + ", ".join(took)


def _nodes(graph: Graph) -> int:
    return sum(isinstance(n, Apply) for n in graph.nodes)


def _memory_text(program: Program) -> str:
    return f"arena {size(program.plan.size)} for {size(program.plan.total)} of intermediates"


def _work_text(program: Program, measured: Profile | None) -> str:
    flops, nbytes = (sum(column) for column in zip((0, 0), *map(work, program.steps), strict=True))
    memory = footprint(program)
    limit = sum(bound(*work(s), main_dtype(s), memory, multiplies(s)) for s in program.steps)
    operations = amount(flops) + ("FLOP" if flops >= 1e3 else " FLOP")
    text = f"{operations}, {size(nbytes)}; roofline {1e6 * limit:.1f} us on one core"
    return text if measured is None else \
        f"{text}; measured {measured.step_us:.1f} us on {threads_text(measured.threads)}"


def _kernel_table(steps: list[Step], measured: Profile | None) -> list[str]:
    columns = ["#", "kernel", "extent", "flops", "bytes"]
    cells = [[str(i), title(s), str(extent(s)), *_work_cells(s)] for i, s in enumerate(steps)]
    if measured is not None:
        columns += ["us", "share"]
        for row, found in zip(cells, measured.rows, strict=True):
            row += [microseconds(found.us), f"{100 * found.share:.0f} %"]
    for row, step in zip(cells, steps, strict=True):
        row.append(place(step.where))
    return table([*columns, "from"], cells, left=("kernel", "from")) if cells else ["   no kernels"]


def _work_cells(step: Step) -> tuple[str, str]:
    flops, nbytes = work(step)
    return amount(flops), size(nbytes)


def _reverse(latest: Specialization) -> list[str]:
    backward = latest.backward
    assert backward is not None
    kept = sum(n.type.nbytes for n in backward.residuals)
    lines = ["", _row("backward", f"keeps {_count(len(backward.residuals), 'array')} ({size(kept)}) of each call for "
                                  f"{_count(len(backward.found), 'gradient')}")]
    if backward.program is None:
        return [*lines, _row("", "its kernels are made at the first backward()")]
    lines += [_row("memory", _memory_text(backward.program)), _row("work", _work_text(backward.program, None)), ""]
    return lines + _kernel_table(backward.program.steps, None)


# ---- source

def _sources(steps: list[Step]) -> Iterable[str]:
    first: dict[Any, int] = {}
    for i, step in enumerate(steps):
        if isinstance(step, HostCall):
            yield f"{_head_of(i, step)}\n# the eager rule of {step.node.op.name}, a call of NumPy\n"
            continue
        if step.parts:
            yield f"# kernel {i}: {step.extent - step.tail} times a strip of each of these\n"
        for call in step.calls:
            match call.kernel:
                case LoopKernel() if call.kernel in first:
                    yield f"{_head_of(i, call)}\n# as kernel {first[call.kernel]}\n"
                case LoopKernel(source=text):
                    first[call.kernel] = i
                    yield f"{_head_of(i, call)}\n{text}"
                case _:
                    yield f"{_head_of(i, call)}\n# of the kernel library: {call.kernel.name}\n"


def _head_of(i: int, step: Step) -> str:
    return f"# kernel {i}: {title(step)}, extent {extent(step)}   {place(step.where)}".rstrip()
