"""The short way through a call: Python generated for one program, which checks just what its use depends on."""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType
from typing import Any

import numpy as np

from graphjit.capture import EMPTY, containers_hold
from graphjit.runtime.builtin import fields_are_known
from graphjit.runtime.driver import caller, holder
from graphjit.runtime.holding import KINDS, plan_checks
from graphjit.signature import Signature
from graphjit.specialize import Specialization
from graphjit.tape import Value, clock, state
from graphjit.tensor import Tensor
from graphjit.tree import Spec, unflatten
from graphjit.unpacking import Unpacking

MISS = object()
Shortcut = Callable[[tuple[Any, ...], dict[str, Any]], Any]


def no_shortcut(args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    return MISS


def shortcut(spec: Specialization, call: Signature) -> Shortcut:
    """A function of a call's arguments that runs the program, or gives MISS when another way must be taken.

    For calls like this one of the program, whose tensors require no gradient. It always gives MISS for a program
    whose results an eager ``backward()`` may start from, or that leaves more behind than state.
    """
    if spec.backward is not None or spec.outside.copies or spec.bare or spec.accumulates or call.tensors:
        return no_shortcut
    program, capture = spec.program, spec.capture
    alike = [(it, held) for it, _, held in capture.containers if type(it) in KINDS]
    others = [(it, name, held) for it, name, held in capture.containers if type(it) not in KINDS]
    fields = fields_are_known()
    checks, kept = plan_checks(capture.names, [(cell, held) for cell, _, held in capture.cells], alike, EMPTY)
    names: dict[str, Any] = {
        "MISS": MISS, "ndarray": np.ndarray, "Tensor": Tensor, "Value": Value, "of": Tensor._of, "state": state,
        "clock": clock, "spec": spec, "program": program, "tick": clock.tick, "others": others,
        "containers_hold": containers_hold, "holds": holder(checks) if fields else capture.holds, "kept": kept,
    }
    unpacking = Unpacking(call, names)
    if not unpacking.is_whole:
        return no_shortcut
    conditions = [
        f"state.compiled is not {state.grad_enabled}", "clock.structure != spec.seen",
        *(["clock.grad_writes != spec.seen_grads"] if spec.uses_grads else []),
        *(["clock.views != spec.seen_views"] if spec.writes else []),
        *(["not holds()"] if checks[0] else []),
        *(["not containers_hold(others)"] if others else []),
    ]
    written = spec.written if spec.writes else None
    native = program.native(_is_single(spec), written, MISS, spec.outside.buffers) if fields else None
    lines = ["def shortcut(args, kwargs):", f" if {' or '.join(conditions)}: return MISS", *unpacking.lines]
    if native is not None:
        plan, alive = native
        names |= {"call": caller(plan), "alive": alive, "in_order": in_order}
        lines += [f" out = call({unpacking.given})",  # None: an argument is not contiguous
                  f" if out is None: out = call(*map(in_order, {unpacking.row}))",
                  " if out is MISS: return MISS", *_handed_out(spec, names)]
    else:
        lines += _in_python(spec, unpacking.row, names)
    exec(compile("\n".join(lines), f"{__file__}: call of {spec.name}", "exec"), names)  # no line of the user's
    made: Shortcut = names["shortcut"]
    return made


def in_order(a: Any) -> Any:
    """A contiguous array for one that is not; what else may come is left as it is."""
    if type(a) is Tensor and not a._value.requires_grad and a._value.trace is None:
        a = a._value.data
    return a.copy() if type(a) is np.ndarray and not a.flags.c_contiguous else a


def _is_single(spec: Specialization) -> bool:
    """Whether a call gives the tensor of its only result, and leaves no more behind."""
    return spec.single and not spec.kept_grads


def _handed_out(spec: Specialization, names: dict[str, Any]) -> list[str]:
    """Lines that return what the function does, made of ``out``: a tensor for a single result, else a list of them."""
    if _is_single(spec):
        return [" return out"]
    if spec.kept_grads or not _is_plain(spec.out_spec) or not all(isinstance(leaf, int) for leaf in spec.out_leaves):
        return [" return spec.handed_out(out)"]
    return [f" return {_text(unflatten(spec.out_spec, [f'out[{i}]' for i in spec.out_leaves]), names)}"]


def _is_plain(tree: Spec) -> bool:
    """Whether there are tuples, lists, dicts and None only."""
    return tree.is_leaf() or (tree.type in (tuple, list, dict, NoneType) and all(map(_is_plain, tree.children())))


def _text(it: Any, names: dict[str, Any]) -> str:
    """Python for plain containers of Python; ``names`` gets the keys of dicts."""
    if type(it) is dict:
        keys = f"keys{len(names)}"
        names[keys] = tuple(it)
        return f"{{{', '.join(f'{keys}[{i}]: {_text(part, names)}' for i, part in enumerate(it.values()))}}}"
    if type(it) in (tuple, list):
        parts = "".join(f"{_text(part, names)}, " for part in it)
        return f"[{parts}]" if type(it) is list else f"({parts})"
    return str(it)


def _in_python(spec: Specialization, row: str, names: dict[str, Any]) -> list[str]:
    """Lines that look at the dynamic leaves in ``row``, run the program and wrap the results; ``names`` gets what they
    use."""
    args = [f"a{i}" for i in range(len(spec.arguments))]
    lines = [f" row = {row}", f" if len(row) != {len(args)}: return MISS"]
    if args:
        lines.append(f" {', '.join(args)}, = row")
    for i, (a, node) in enumerate(zip(args, spec.arguments, strict=True)):
        if node.type.weak:
            lines.append(f" if type({a}) is not float: return MISS")
            continue
        names |= {f"s{i}": tuple(map(int, node.type.shape)), f"d{i}": np.dtype(node.type.dtype)}
        lines += [f" if type({a}) is not ndarray:",
                  f"  if type({a}) is not Tensor: return MISS",
                  f"  v = {a}._value",
                  "  if v.requires_grad or v.trace is not None: return MISS",
                  f"  {a} = v.data",
                  f" if {a}.shape != s{i} or {a}.dtype is not d{i}"
                  f"{f' or id({a}) in spec.outside.buffers.tolist()' if spec.writes else ''}: return MISS"]
    results = [f"r{i}" for i in range(len(spec.program.results))]
    targets = f"{', '.join(results)}, = " if results else ""
    lines.append(f" {targets}program.run([{', '.join(args)}])")
    if spec.writes:
        lines.append(" spec.written[0] = tick()")
    outs = ", ".join(f"of(Value({r}))" for r in results)
    lines.append(f" out = {'of(Value(r0))' if _is_single(spec) else f'[{outs}]'}")
    return [*lines, *_handed_out(spec, names)]
