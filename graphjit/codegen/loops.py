"""Cluster -> kernel: the Python source of a loop nest and its arguments.

Three forms, chosen by which axis is contiguous:

* no reduction: one nest, a store per result;
* row form (the contiguous axis is reduced, or nothing else is): the outer loops, and inside them a loop
  over the reduced axes for each *stage*; reduced values are local variables;
* column form (the contiguous axis is kept): inside the stages the innermost loop runs over the kept
  axis, so that it vectorises; reduced values are small arrays.

A stage is what lies between two rounds of reductions. A value needed in a later stage is computed again if that is
cheap, else kept in scratch memory.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterable, Iterator, Mapping
from itertools import pairwise, starmap

import numpy as np

from graphjit.codegen.access import Access, Place, access, collapse, elements, innermost, place
from graphjit.codegen.axes import NONE, IndexMap, is_reduction, look_through, operand_map, result_map
from graphjit.codegen.call import Address, KernelCall, Scratch, Slot
from graphjit.codegen.cluster import Cluster, base, used
from graphjit.codegen.source import Body, is_literal, literal, load, short, store, stored_name
from graphjit.errors import InternalCompilerError, Where
from graphjit.ir import Apply, Const, Input, Node
from graphjit.op import Elementwise, Gather, Indexed, Reduction, View
from graphjit.types import DType, Extent, is_one

ROW_BLOCK = 2048     # float32 sums along a row are added up in float64 every so many elements
COLUMN_BLOCK = 32    # and along a column every so many rows

START = {"sum": 0.0, "prod": 1.0, "any": 0.0, "all": 1.0}
FOLD = {"sum": "radd({0}, {1})", "prod": "rmul({0}, {1})", "max": "rmax({0}, {1})", "min": "rmin({0}, {1})",
        "any": "bit_or({0}, {1})", "all": "bit_and({0}, {1})"}


def start_of(kind: str, dtype: DType) -> str:
    """The value a fold starts from."""
    if kind in START:
        return literal(START[kind], dtype)
    if dtype.kind == "f":
        return literal(-np.inf if kind == "max" else np.inf, dtype)
    if dtype.kind == "b":
        return literal(kind == "min", dtype)
    info = np.iinfo(dtype)
    return literal(info.min if kind == "max" else info.max, dtype)


@functools.lru_cache(maxsize=4096)
def _short(where: Where) -> str:
    return str(where)


def fold_kind(node: Apply) -> str:
    assert isinstance(node.op.lower, Reduction)
    return node.op.lower.kind


class LoopWriter:
    """Writes one cluster. ``stored`` are the members whose values are needed in memory, by others or later."""

    def __init__(self, cluster: Cluster, stored: Iterable[Apply], inline: frozenset[Node],
                 target: Mapping[Node, Place]) -> None:
        self.cluster = cluster
        self.inline = inline  # cheap members of other clusters, computed again instead of loaded
        self.stored = [n for n in cluster.members if n in set(stored)]
        self.target = target  # where results go that have no buffer of their own
        self.n_axes = len(cluster.extents)
        self.codes: list[str] = []
        self.slots: list[Slot] = []
        self.names: dict[object, str] = {}
        self.constants: dict[int, Const] = {}  # by slot
        self.params: list[str] = []
        self.reads: dict[Node, None] = {}
        self.writes: dict[Node, None] = {}
        self.wheres: dict[Where, None] = {}
        self.loaded: dict[Node, set[Access]] = {}  # from where in each buffer values are read
        self.counter = 0
        self.flops = 0
        self.cost = 0.0  # ns on one core of today
        self.written: dict[Node, Access] = {}   # stored members, once their store is emitted
        self.row_scratch: dict[Node, str] = {}  # full members kept for a later stage
        self.arrays: dict[Node, tuple[str, str]] = {}  # outer members of a column nest: scratch and index
        self.totals: dict[Node, str] = {}  # float64 totals of a column nest's float32 sums
        self.stage: dict[Node, int] = {}
        self._find_stages()
        self._plan_loops()

    # ---- analysis

    def _find_stages(self) -> None:
        """Stage of each member: how many rounds of reductions must be over before it can be computed."""
        for node in self.cluster.members:
            stages = [0]
            for operand in node.args:
                below = base(operand)
                if below in self.stage:
                    stages.append(self.stage[below] + self.cluster.folds(below))
            self.stage[node] = max(stages)
        cluster = self.cluster
        self.last = max((self.stage[n] for n in cluster.members
                         if cluster.folds(n) or (cluster.is_full(n) and n in self.stored)), default=0)

    def _plan_loops(self) -> None:
        cluster = self.cluster
        loads: list[Access] = []
        stores: list[Access] = []
        for node, imap in cluster.members.items():
            loads.extend(self._loads(node, imap))
            match node.op.lower:
                case Gather():
                    x = node.args[0]
                    loads.append(access(x, self._static_map(node, imap), self.n_axes))
            if node in self.stored:
                stores.append(self.placed(node))
        template = next((m for n, m in cluster.members.items() if n in self.stored and cluster.is_full(n)), None) \
            or next((m for m in cluster.members.values() if used(m) == cluster.all_axes), ())
        order = [a for a in template if a != NONE]
        order += [a for a in range(self.n_axes) if a not in order]
        self.column = False
        if order:
            inner = innermost(self.n_axes, stores, loads, order)
            outer = [a for a in order if a in cluster.outer]
            reduced = [a for a in order if a in cluster.reduced]
            self.column = bool(reduced) and inner in cluster.outer
            if self.column:
                order = [a for a in outer if a != inner] + reduced + [inner]
            elif reduced:
                order = outer + [a for a in reduced if a != inner] + [inner]
            elif cluster.extents:
                order = [a for a in order if a != inner] + [inner]
        classes = ["R" if a in cluster.reduced else "O" for a in range(self.n_axes)]
        if self.column:
            classes[order[-1]] = "J"
        self.loops = collapse(order, cluster.extents, classes, [*loads, *stores])
        self.loop_of = {axis: k for k, loop in enumerate(self.loops) for axis in loop.axes}
        self.loop_kind = [classes[loop.axes[0]] for loop in self.loops]

    def _loads(self, node: Apply, imap: IndexMap) -> Iterator[Access]:
        """What a node reads from memory, also through operands that are computed again here."""
        if isinstance(node.op.lower, Indexed):
            yield place(node, None, imap, self.n_axes)
        for k, operand in enumerate(node.args):
            below, implied = base(operand), operand_map(node, k, imap)
            if below in self.cluster.members or implied is None:
                continue
            found = look_through(operand, implied) if below in self.inline else None
            if found is not None and isinstance(found[0], Apply):
                yield from self._loads(found[0], found[1])
            elif operand.type.ndim:
                yield access(operand, implied, self.n_axes)

    def placed(self, node: Apply) -> Access:
        return place(node, self.target.get(node), result_map(node, self.cluster.members[node]), self.n_axes)

    def _static_map(self, node: Apply, imap: IndexMap) -> IndexMap:
        """Index map of a gather's operand 0, with nothing along the axis that is picked from."""
        axis, n = node.kwargs["axis"], node.args[1].type.ndim
        return (*imap[:axis], NONE, *imap[axis + n:])

    # ---- arguments

    def argument(self, key: object, prefix: str, code: str, value: Slot) -> str:
        name = self.names.get(key)
        if name is None:
            name = f"{prefix}{sum(p.startswith(prefix) for p in self.params)}"
            self.names[key] = name
            self.params.append(name)
            self.codes.append(code)
            self.slots.append(value)
        return name

    def pointer(self, buffer: Node, offset: int, writes: bool = False) -> str:
        (self.writes if writes else self.reads)[buffer] = None
        dtype = buffer.type.dtype
        return self.argument((buffer, offset), "p", "*" + stored_name(dtype),
                             Address(buffer, offset * dtype.itemsize))

    def scratch(self, key: object, count: int, dtype: DType) -> str:
        name = "*" + stored_name(dtype)
        return self.argument(("scratch", key), "t", name, Address(Scratch(max(count, 1) * dtype.itemsize)))

    def extent(self, k: int) -> str:
        return self.argument(("extent", k), "n", "int64", int(self.loops[k].extent))

    def fresh(self, prefix: str = "v") -> str:
        self.counter += 1
        return f"{prefix}{self.counter}"

    # ---- indices

    def strides(self, a: Access) -> list[int]:
        """Stride of an access along each loop."""
        return [a.strides[loop.axes[-1]] for loop in self.loops]

    def index(self, a: Access, body: Body) -> str:
        """The element index as an expression; what outer loops contribute is computed outside."""
        terms: list[tuple[frozenset[int], str]] = []
        for k, stride in enumerate(self.strides(a)):
            if stride:
                axes = frozenset(self.loops[k].axes)
                terms.append((axes, f"i{k}" if is_one(stride) else f"i{k} * {self.stride_name(a, k, stride)}"))
        if not terms:
            return "0"
        parts: list[str] = []
        rest: list[str] = []
        for axes, term in terms:
            (rest if body.home(axes) is body else parts).append(term)
        if not parts:
            return " + ".join(rest)
        outer_axes = frozenset().union(*(axes for axes, term in terms if term in parts))
        text = " + ".join(parts)
        if len(parts) > 1 or "*" in text:
            home = body.home(outer_axes)
            known = home.find(("index", text))
            if known is None:
                known = self.fresh("o")
                home.add(f"{known} = {text}")
                home.known["index", text] = known
            text = known
        return " + ".join([text, *rest])

    def stride_name(self, a: Access, k: int, stride: int) -> str:
        axes = [self.loops[k].axes[-1], *(axis for loop in self.loops[k + 1:] for axis in loop.axes)]
        if 1 < len(self.loops) - k <= 3 and is_one(a.strides[axes[-1]]) and all(starmap(a.even, pairwise(axes))):
            return " * ".join(self.extent(j) for j in range(k + 1, len(self.loops)))
        return self.argument(("stride", a, k), "s", "int64", stride)

    # ---- values

    def value(self, node: Node, imap: IndexMap, body: Body, use: object = None) -> str:
        """The name of a node's value at an index map, computed in the outermost body that can.

        Each ``use`` of a constant is an argument of its own: two that are equal by chance (at one batch size)
        must not make another kernel.
        """
        if isinstance(node, Const) and node.value.ndim == 0:
            if is_literal(node):
                return literal(node.value[()], node.type.dtype)
            key: Hashable = ("const", node, use)
            if key not in self.names:
                self.constants[len(self.slots)] = node
            return self.argument(key, "c", stored_name(node.type.dtype), node.value.item())
        home = body.home(used(imap))
        key = node, imap
        name = home.find(key)
        if name is not None:
            return name
        if isinstance(node, Apply) and isinstance(node.op.lower, View):
            below = operand_map(node, 0, imap)
            if below is not None and (base(node) in self.cluster.members or base(node) in self.inline):
                return self.value(node.args[0], below, body)
            return self.read(access(node, imap, self.n_axes), home, key)
        if node in self.written:
            return self.read(self.written[node], home, key)
        if node in self.row_scratch:
            return self.read_scratch(self.row_scratch[node], self.scratch_index(imap), node.type.dtype, home, key)
        if node in self.arrays:
            return self.read_scratch(*self.arrays[node], node.type.dtype, home, key)
        if not isinstance(node, Apply) or not (node in self.cluster.members or node in self.inline):
            return self.read(access(node, imap, self.n_axes), home, key)
        if self.cluster.folds(node):
            raise InternalCompilerError(f"{node.op.name} is used before its loop", where=node.where)
        if is_reduction(node):  # only axes of length one are folded
            return self.value(node.args[0], self.cluster.members[node], body)
        return self.compute(node, imap, home, key)

    def read(self, a: Access, home: Body, key: Hashable) -> str:
        dtype = a.buffer.type.dtype
        self.loaded.setdefault(a.buffer, set()).add(a)
        text = load(self.pointer(a.buffer, a.offset), self.index(a, home), dtype)
        name = self.fresh()
        home.add(f"{name} = {text}")
        home.known[key] = name
        return name

    def compute(self, node: Apply, imap: IndexMap, home: Body, key: Hashable) -> str:
        comment = node.op.name
        if node.where:
            self.wheres[node.where] = None
            comment = f"{_short(node.where)} {comment}"
        match node.op.lower:
            case Elementwise(expr):
                template = expr if isinstance(expr, str) else expr(tuple(a.type for a in node.args), node.type)
                names = []
                for k, operand in enumerate(node.args):
                    implied = operand_map(node, k, imap)
                    assert implied is not None
                    names.append(self.value(operand, implied, home, (node, k)))
                zero = literal(0, node.args[0].type.dtype) if node.args else ""
                text = template.format(*names, zero=zero)
            case Indexed(expr):
                template = expr if isinstance(expr, str) else expr(
                    tuple(a.type for a in node.args), node.type, node.kwargs)
                pointers = [self.pointer(access(a, (NONE,) * a.type.ndim, self.n_axes).buffer,
                                         access(a, (NONE,) * a.type.ndim, self.n_axes).offset)
                            for a in node.args]
                linear = self.index(place(node, None, imap, self.n_axes), home)
                text = template.format(*pointers, i=f"({linear})")
            case Gather():
                implied = operand_map(node, 1, imap)
                assert implied is not None
                picked = self.value(node.args[1], implied, home)
                x = node.args[0]
                a = access(x, self._static_map(node, imap), self.n_axes)
                from graphjit.passes.layout import base_layout
                stride = base_layout(x)[1].strides[node.kwargs["axis"]]
                step = picked if is_one(stride) else \
                    f"{picked} * {self.argument(('gather', node), 's', 'int64', stride)}"
                static = self.index(a, home)
                index = step if static == "0" else f"{static} + {step}"
                text = load(self.pointer(a.buffer, a.offset), index, x.type.dtype)
            case _:
                raise InternalCompilerError(f"{node.op.name} is not a loop op", where=node.where)
        count = elements(lp for lp in self.loops if frozenset(lp.axes) <= used(imap))
        self.flops += count
        self.cost += count * (0.04 if isinstance(node, Apply) and self._cheap(node) else 0.6)
        if text.isidentifier():
            home.known[key] = text
            return text
        name = self.fresh()
        home.add(f"{name} = {text}", comment)
        home.known[key] = name
        return name

    # ---- stores and scratch

    def put(self, node: Apply, body: Body) -> None:
        """Have a member's value stored into its buffer when the body is complete."""
        imap = result_map(node, self.cluster.members[node])
        value = self.value(node, imap, body)
        a = self.placed(node)
        line = store(self.pointer(a.buffer, a.offset, writes=True), self.index(a, body), value, node.type.dtype)
        if a.buffer is not node and isinstance(a.buffer, Input):
            self.writes[node] = None  # its value is found in the state's buffer from now on
        body.stores.append((body.home(used(imap)), line))

    def keep(self, node: Apply, body: Body) -> None:
        """Keep a full member's value in scratch for a later stage."""
        imap = self.cluster.members[node]
        value = self.value(node, imap, body)
        span = elements(lp for lp, kind in zip(self.loops, self.loop_kind, strict=True) if kind != "O")
        name = self.scratch(node, span, node.type.dtype)
        body.add(store(name, self.scratch_index(imap), value, node.type.dtype))
        self.row_scratch[node] = name

    def scratch_index(self, imap: IndexMap) -> str:
        """Row-major over the loops that scratch spans: all but the outer ones."""
        terms: list[str] = []
        spans = [k for k, kind in enumerate(self.loop_kind) if kind != "O"]
        for position, k in enumerate(spans):
            if frozenset(self.loops[k].axes) <= used(imap):
                terms.append(" * ".join([f"i{k}", *(self.extent(j) for j in spans[position + 1:])]))
        return " + ".join(terms) or "0"

    def read_scratch(self, name: str, index: str, dtype: DType, home: Body, key: Hashable) -> str:
        value = self.fresh()
        home.add(f"{value} = {load(name, index, dtype)}")
        home.known[key] = value
        return value

    # ---- the nest

    def header(self, k: int, split: bool) -> str:
        return f"for i{k} in range(start, stop):" if split else f"for i{k} in range({self.extent(k)}):"

    def write(self) -> KernelCall:
        """The kernel call."""
        self._keep_for_later()
        top = Body(frozenset())
        split, units = -1, 0
        from graphjit.codegen.folds import in_chunks, write_chunks
        if in_chunks(self):
            units = write_chunks(self, top)
        elif self.column:
            from graphjit.codegen.columns import write_columns
            split = write_columns(self, top)
        else:
            split = self._write_rows(top)
        name = "k_" + "_".join(self._title_words())[:40]
        lines = [f"def {name}({', '.join([*self.params, 'start', 'stop'])}):",
                 *("    " + line for line in top.lines)]
        extent = units or (int(self.loops[split].extent) if split >= 0 else 1)
        from graphjit.runtime.compiler import LoopKernel
        source = "\n".join(lines) + "\n"
        buffers = dict.fromkeys([*self.reads, *self.writes])
        return KernelCall(
            kernel=LoopKernel(name, source, tuple(self.codes)), codes=tuple(self.codes),
            slots=tuple(self.slots), extent=extent, reads=tuple(self.reads), writes=tuple(self.writes),
            title=" ".join(self._title_words()), where=tuple(self.wheres), flops=self.flops,
            nbytes=sum(b.type.nbytes for b in buffers), source=source, tangled=self.tangled(),
            align=64 if split >= 0 and split == len(self.loops) - 1 else 1, tail=units > 0,
            cost=self.cost + 0.04 * sum(b.type.nbytes for b in buffers))

    def tangled(self) -> tuple[Node, ...]:
        """States stored in place whose old value is read at another point: a later turn would read the new one."""
        stores = [self.placed(n) for n in self.stored if n in self.target]
        return tuple(a.buffer for a in stores if self.loaded.get(a.buffer, set()) - {a})

    def _title_words(self) -> list[str]:
        names = [n.op.name for n in self.cluster.members]
        short_list = list(dict.fromkeys(names))
        return short_list if len(short_list) <= 6 else [*short_list[:5], "etc"]

    def full_roots(self, stage: int) -> list[Apply]:
        """Reductions and stored full members that this stage computes."""
        return [n for n in self.cluster.members if self.stage[n] == stage
                and (self.cluster.folds(n) or (self.cluster.is_full(n) and n in self.stored))]

    def _keep_for_later(self) -> None:
        """Find full members too costly to compute twice that more than one stage needs."""
        self.kept: set[Apply] = set()
        if self.last == 0:
            return
        needed: dict[Apply, set[int]] = {}
        for stage in range(self.last + 1):
            seen: set[Node] = set()
            stack: list[Apply] = []
            for root in self.full_roots(stage):
                stack.extend(self._full_operands(root) if self.cluster.folds(root) else [root])
            while stack:
                node = stack.pop()
                if node in seen:
                    continue
                seen.add(node)
                needed.setdefault(node, set()).add(stage)
                if node in self.kept or (node in self.stored and self.stage[node] < stage):
                    continue
                stack.extend(self._full_operands(node))
            for node in list(needed):
                if len(needed[node]) > 1 and not self._cheap(node) and node not in self.stored:
                    self.kept.add(node)

    def _full_operands(self, node: Apply) -> list[Apply]:
        return [b for a in node.args if isinstance(b := base(a), Apply) and b in self.cluster.members
                and self.cluster.is_full(b)]

    @staticmethod
    def _cheap(node: Apply) -> bool:
        return isinstance(node.op.lower, Elementwise) and node.op.lower.cheap

    def _write_rows(self, top: Body) -> int:
        """Outer loops, and inside them the stages. Gives the loop that is split, -1 for none."""
        reduces = bool(self.cluster.reduced)
        if reduces:
            outer = [k for k, kind in enumerate(self.loop_kind) if kind == "O"]
        else:
            outer = list(range(len(self.loops) - 1))
        inner = [k for k in range(len(self.loops)) if k not in outer]
        outer_axes = frozenset(a for k in outer for a in self.loops[k].axes)
        out = Body(outer_axes, top) if outer else top
        for stage in range(self.last + 1):
            roots = self.full_roots(stage)
            if roots:
                self._row_stage(stage, roots, out, inner, split_inner=not outer and not reduces)
        for node in self.late():
            self.put(node, out)
        out.flush()
        if outer:
            top.nest([self.header(k, split=k == 0) for k in outer], out.lines)
        if outer or (inner and not reduces):
            return 0
        return -1

    def late(self) -> list[Apply]:
        """Stored members that no stage has stored: those that run over the outer axes only."""
        return [n for n in self.stored if n not in self.written]

    def _row_stage(self, stage: int, roots: list[Apply], out: Body, inner: list[int], split_inner: bool) -> None:
        body = Body(self.cluster.all_axes, out) if inner else out
        accumulators = self.fold_body(stage, roots, body)
        totals = self.fold_loops(accumulators, body, out, inner, ("start", "stop") if split_inner else None)
        types = {acc: node.type.dtype for node, acc in accumulators}
        out.lines.extend(f"{acc} = {short(types[acc])}({acc}_total)" for acc in totals)
        self.mark_written(roots)
        for node, acc in accumulators:
            out.known[node, result_map(node, self.cluster.members[node])] = acc

    def fold_body(self, stage: int, roots: list[Apply], body: Body) -> list[tuple[Apply, str]]:
        """What the loops of a stage do in each turn; gives its folds and the variables they are in."""
        accumulators: list[tuple[Apply, str]] = []
        for node in roots:
            if self.cluster.folds(node):
                value = self.value(node.args[0], self.cluster.members[node], body)
                acc = self.fresh("a")
                body.stores.append((body, f"{acc} = " + FOLD[fold_kind(node)].format(acc, value)))
                accumulators.append((node, acc))
                self.flops += elements(self.loops)
            else:
                self.put(node, body)
        self.keep_stage(stage, body)
        body.flush()
        return accumulators

    def keep_stage(self, stage: int, body: Body) -> None:
        for node in self.kept:
            if self.stage[node] == stage and node not in self.row_scratch:
                self.keep(node, body)

    def mark_written(self, roots: Iterable[Apply]) -> None:
        for node in roots:
            if not self.cluster.folds(node):
                self.written[node] = self.placed(node)

    def fold_loops(self, accumulators: list[tuple[Apply, str]], body: Body, out: Body, inner: list[int],
                   span: tuple[str, str] | None) -> list[str]:
        """The loops of a stage around its body; ``span`` is what the first of them runs over, None for all.

        Gives the folds that are in a float64 total ``{acc}_total`` then.
        """
        sums = [acc for node, acc in accumulators if fold_kind(node) == "sum" and node.type.dtype.kind == "f"]
        starts = {acc: f"{acc} = {start_of(fold_kind(node), node.type.dtype)}"
                  for node, acc in accumulators}
        if not inner:
            return []
        first, last = inner[0], inner[-1]
        bounds = {k: ("0", self.extent(k)) if span is None or k != first else span for k in inner}
        headers = [f"for i{k} in range({end if begin == '0' else f'{begin}, {end}'}):"
                   for k, (begin, end) in bounds.items()]
        long = isinstance(self.loops[last].extent, Extent) or self.loops[last].extent > ROW_BLOCK
        if not sums or not (len(inner) > 1 or long):
            out.lines.extend(starts.values())
            out.nest(headers, body.lines)
            return []
        # two levels: float32 partial sums added up in float64, as accurate as pairwise summation
        out.lines.extend(text for acc, text in starts.items() if acc not in sums)
        out.lines.extend(f"{acc}_total = f64(0.0)" for acc in sums)
        (begin, end), b = bounds[last], f"block{last}"
        block = [starts[acc] for acc in sums]
        block += [f"for i{last} in range({b}, minimum({b} + {ROW_BLOCK}, {end})):"]
        block += ["    " + line for line in body.lines]
        block += [f"{acc}_total = {acc}_total + f64({acc})" for acc in sums]
        out.nest([*headers[:-1], f"for {b} in range({begin}, {end}, {ROW_BLOCK}):"], block)
        return sums
