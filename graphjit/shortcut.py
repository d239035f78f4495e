"""The short way through a call: Python generated for one program, which checks just what its use depends on."""

from __future__ import annotations

from collections.abc import Callable
from operator import is_, itemgetter
from typing import Any

import numpy as np

from graphjit.capture import EMPTY
from graphjit.specialize import Specialization
from graphjit.tape import Value, clock, state
from graphjit.tensor import Tensor

MISS = object()
Shortcut = Callable[[tuple[Any, ...]], Any]


def no_shortcut(args: tuple[Any, ...]) -> object:
    return MISS


def shortcut(spec: Specialization) -> Shortcut:
    """A function of a call's arguments that runs the program, or gives MISS when another way must be taken.

    For calls whose arguments are arrays, floats and tensors that require no gradient. It always gives MISS for a
    program whose results an eager ``backward()`` may start from, or that leaves more behind than state.
    """
    if spec.backward is not None or spec.copies or spec.given_grads or spec.bare or spec.accumulates:
        return no_shortcut
    program = spec.program
    names: dict[str, Any] = {
        "MISS": MISS, "ndarray": np.ndarray, "Tensor": Tensor, "Value": Value, "of": Tensor._of, "state": state,
        "clock": clock, "spec": spec, "program": program, "tick": clock.tick,
        "containers_hold": spec.capture.containers_hold,
    }
    lines = ["def shortcut(args):", " try:"]

    def unless(*conditions: str) -> None:
        lines.append(f"  if {' or '.join(conditions)}: return MISS")

    args = [f"a{i}" for i in range(len(spec.arguments))]
    unless("state.trace is not None", "state.eager", f"state.grad_enabled is not {state.grad_enabled}",
           "clock.structure != spec.seen", f"len(args) != {len(args)}",
           *(["clock.grad_writes != spec.seen_grads"] if spec.uses_grads else []),
           *(["clock.views != spec.seen_views"] if spec.writes else []))
    scopes: dict[int, list[tuple[Any, str, object]]] = {}
    for entry in spec.capture.names:
        scopes.setdefault(id(entry[0]), []).append(entry)
    for i, group in enumerate(scopes.values()):
        scope = group[0][0]
        there = [(name, held) for _, name, held in group if held is not EMPTY]
        if len(there) > 1:  # all at once: a name's check takes a third of the time
            names |= {f"g{i}": scope, f"n{i}": itemgetter(*(name for name, _ in there)),
                      f"h{i}": tuple(held for _, held in there), "same": is_}
            unless(f"not all(map(same, n{i}(g{i}), h{i}))")
        elif there:
            names |= {f"g{i}": scope, f"h{i}": there[0][1]}
            unless(f"g{i}[{there[0][0]!r}] is not h{i}")
        for _, name, held in group:
            if held is EMPTY:
                names[f"g{i}"] = scope
                unless(f"{name!r} in g{i}")
    for i, (cell, _, held) in enumerate(spec.capture.cells):
        names |= {f"c{i}": cell, f"k{i}": held}
        unless(f"c{i}.cell_contents is not k{i}")
    if spec.capture.containers:
        unless("not containers_hold()")
    lines += [" except (KeyError, ValueError): return MISS"]  # a global name or a variable of the closure was deleted
    if args:
        lines.append(f" {', '.join(args)}, = args")
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
                  f"{f' or id({a}) in spec.buffers' if spec.writes else ''}: return MISS"]
    results = [f"r{i}" for i in range(len(program.results))]
    lines += program.inlined(args, results, names)
    if spec.writes:
        lines.append(" spec.written[0] = tick()")
    outs = f"[{', '.join(f'of(Value({r}))' for r in results)}]"
    if spec.single and not spec.kept_grads:
        lines.append(" return of(Value(r0))")
    else:
        lines.append(f" return spec.handed_out({outs})")
    exec(compile("\n".join(lines), f"{__file__}: call of {spec.name}", "exec"), names)  # no line of the user's
    made: Shortcut = names["shortcut"]
    return made
