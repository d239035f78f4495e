"""Cluster -> kernel: the Python source of a loop nest and its arguments.

Three forms, chosen by which axis is contiguous:

* no reduction: one nest, a store per result;
* row form (the contiguous axis is reduced, or nothing else is): the outer loops, and inside them a loop
  over the reduced axes for each *stage*; reduced values are local variables;
* column form (the contiguous axis is kept): inside the stages the innermost loop runs over the kept
  axis, so that it vectorises; reduced values are small arrays.

What is written depends on lengths that the caller chose in no other way than on which of them are equal.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from itertools import pairwise, starmap

from graphjit.codegen.access import Access, Place, access, place
from graphjit.codegen.arguments import Arguments, Scalar, Written, turns
from graphjit.codegen.axes import NONE, IndexMap, is_reduction, operand_map, result_map
from graphjit.codegen.cluster import Cluster, used
from graphjit.codegen.kinds import template
from graphjit.codegen.nest import Nest, is_cheap, static_map
from graphjit.codegen.reach import Reach
from graphjit.codegen.row_tiles import RowTiles
from graphjit.codegen.source import Body, is_literal, literal, load, store, stored_name
from graphjit.codegen.turned_tiles import TurnedTiles, is_long
from graphjit.errors import InternalCompilerError, Where
from graphjit.ir import Apply, Const, Input, Node
from graphjit.op import Elementwise, Gather, Indexed, Rolled, View
from graphjit.passes.layout import base, base_layout
from graphjit.types import Extent, is_one

CHEAP, DEAR, FOLD = 0.012, 0.25, 0.04  # ns of an element's value on one core of today
MOST = 1 << 62  # of a stride
NOT_ROLLED: Mapping[int, str] = {}


@functools.lru_cache(maxsize=4096)
def _short(where: Where) -> str:
    return str(where)


class LoopWriter(Nest):
    """Writes one cluster; for the arguments see ``Nest``."""

    def __init__(self, cluster: Cluster, stored: Iterable[Apply], inline: frozenset[Node],
                 target: Mapping[Node, Place]) -> None:
        super().__init__(cluster, stored, inline, target)
        self.arguments = Arguments(self.known)
        self.told_apart = False  # the loop along which there are vectors, as strides do not tell LLVM
        self.reach = RowTiles(self) if self.row_lanes else TurnedTiles(self) if self._may_turn() else Reach(self)
        self.wheres: dict[Where, None] = {}
        self.loaded: dict[Node, set[Access]] = {}  # from where in each buffer values are read
        self.counter = 0
        self.work: Counter[tuple[tuple[int, ...], float]] = Counter()  # see ``Written``
        self.written: dict[Node, Access] = {}   # stored members, once their store is emitted
        self.row_scratch: dict[Node, str] = {}  # full members kept for a later stage
        self.arrays: dict[Node, tuple[str, str]] = {}  # outer members of a column nest: scratch and index
        self.steps: dict[Access, list[str]] = {}  # strides along the innermost loop
        self.totals: dict[Node, str] = {}  # float64 totals of a column nest's float32 sums

    def _may_turn(self) -> bool:
        """Whether what lies apart along the innermost loop may be brought to tiles."""
        last = len(self.loops) - 1
        return (not self.cluster.reduced and not self.cuts and last > 0 and is_long(self.loops[last])
                and all(self.cluster.is_full(n) for n in self.stored))

    def fresh(self, prefix: str = "v") -> str:
        self.counter += 1
        return f"{prefix}{self.counter}"

    def count_fold(self) -> None:
        """Count a fold of all elements as work."""
        self.work[tuple(range(len(self.loops))), FOLD] += 1

    # ---- indices

    def index(self, a: Access, body: Body, turns: Mapping[int, str] = NOT_ROLLED) -> str:
        """The element index as an expression; what outer loops contribute is computed outside. ``turns``: of loops for
        whose turns others are read."""
        terms: list[tuple[frozenset[int], str]] = []
        for k, loop in enumerate(self.loops):
            stride = a.strides[loop.axes[-1]]
            if stride:
                axes = frozenset(loop.axes)
                i = turns.get(k) or self.reach.turn(k, body.home(axes))
                terms.append((axes, i if is_one(stride) else f"{i} * {self.stride(a, k)}"))
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

    def stride(self, a: Access, k: int) -> str:
        """From one turn of a loop to the next."""
        stride = a.strides[self.loops[k].axes[-1]]
        axes = [self.loops[k].axes[-1], *(axis for loop in self.loops[k + 1:] for axis in loop.axes)]
        if 1 < len(self.loops) - k <= 3 and is_one(a.strides[axes[-1]]) and all(starmap(a.even, pairwise(axes))):
            names = [self.arguments.extent(j) for j in range(k + 1, len(self.loops))]
        elif k == self.inner and k + 1 in self.known and not isinstance(stride, Extent):
            names = [str(stride)]  # or LLVM would not know that what the turns of the loop inside touch lies apart
        else:
            names = [self.arguments.stride((a, k), a.buffer, a.offset, stride)]
            self.told_apart |= k == self.inner and k + 1 in self.known  # but of the turns of this one
        if k == self.inner:
            self.steps[a] = names
        return " * ".join(names)

    # ---- values

    def operand(self, node: Apply, k: int, imap: IndexMap, body: Body) -> str:
        """The value of a node's operand; for the rest see ``value``."""
        x = node.args[k]
        if isinstance(x, Const) and x.value.ndim == 0:
            if is_literal(x, node, k):
                return literal(x.value[()], x.type.dtype)
            return self.arguments.add(("const", node, k), "c", stored_name(x.type.dtype), Scalar(x, (node, k)))
        return self.value(x, imap, body)

    def value(self, node: Node, imap: IndexMap, body: Body) -> str:
        """The name of a node's value at an index map, computed in the outermost body that can."""
        home = body.home(used(imap))
        key = node, imap
        name = home.find(key)
        if name is not None:
            return name
        if isinstance(node, Apply) and isinstance(node.op.lower, View):
            below = operand_map(node, 0, imap)
            if below is not None and (base(node) in self.cluster.members or base(node) in self.inline):
                return self.operand(node, 0, below, body)
            return self.read(access(node, imap, self.n_axes), home, key)
        if node in self.written:
            return self.reach.stored(self.written[node], home, key)
        if node in self.row_scratch:
            return self.named(load(self.row_scratch[node], self.scratch_index(imap), node.type.dtype), home, key)
        if node in self.arrays:
            return self.named(load(*self.arrays[node], node.type.dtype), home, key)
        if not isinstance(node, Apply) or not (node in self.cluster.members or node in self.inline):
            return self.read(access(node, imap, self.n_axes), home, key)
        if self.cluster.folds(node):
            raise InternalCompilerError(f"{node.op.name} is used before its loop", where=node.where)
        if is_reduction(node):  # only axes of length one are folded
            return self.operand(node, 0, self.cluster.members[node], body)
        return self.compute(node, imap, home, key)

    def read(self, a: Access, home: Body, key: Hashable) -> str:
        self.loaded.setdefault(a.buffer, set()).add(a)
        return self.named(load(*self.reach.source(a, home), a.buffer.type.dtype), home, key)

    def named(self, text: str, home: Body, key: Hashable, comment: str = "") -> str:
        """Compute a value there, under a new name."""
        name = self.fresh()
        home.add(f"{name} = {text}", comment)
        home.known[key] = name
        return name

    def compute(self, node: Apply, imap: IndexMap, home: Body, key: Hashable) -> str:
        comment = node.op.name
        if node.where:
            self.wheres[node.where] = None
            comment = f"{_short(node.where)} {comment}"
        match node.op.lower:
            case Elementwise():
                names = []
                for k in range(len(node.args)):
                    implied = operand_map(node, k, imap)
                    assert implied is not None
                    names.append(self.operand(node, k, implied, home))
                zero = literal(0, node.args[0].type.dtype) if node.args else ""
                text = template(node).format(*names, zero=zero)
            case Indexed():
                whole = [access(x, (NONE,) * x.type.ndim, self.n_axes) for x in node.args]
                pointers = [self.arguments.pointer(a.buffer, a.offset) for a in whole]
                linear = self.index(place(node, None, imap, self.n_axes), home)
                text = template(node).format(*pointers, i=f"({linear})")
            case Gather():
                text = self._picked(node, imap, home)
            case Rolled():
                text = self._rolled(node, imap, home)
            case _:
                raise InternalCompilerError(f"{node.op.name} is not a loop op", where=node.where)
        inside = tuple([k for k, loop in enumerate(self.loops) if frozenset(loop.axes) <= used(imap)])
        self.work[inside, CHEAP if is_cheap(node) else DEAR] += 1
        if text.isidentifier():
            home.known[key] = text
            return text
        return self.named(text, home, key, comment)

    def _picked(self, node: Apply, imap: IndexMap, home: Body) -> str:
        """The element that a gather picks."""
        implied = operand_map(node, 1, imap)
        assert implied is not None
        picked = self.operand(node, 1, implied, home)
        x = node.args[0]
        a = access(x, static_map(node, imap), self.n_axes)
        stride = base_layout(x)[1].strides[node.kwargs["axis"]]
        step = picked if is_one(stride) else \
            f"{picked} * {self.arguments.stride(node, a.buffer, a.offset, stride)}"
        static = self.index(a, home)
        index = step if static == "0" else f"{static} + {step}"
        return load(self.arguments.pointer(a.buffer, a.offset), index, x.type.dtype)

    def _rolled(self, node: Apply, imap: IndexMap, home: Body) -> str:
        """The element that stands there when all has been rolled."""
        a = access(node.args[0], imap, self.n_axes)
        turns: dict[int, str] = {}
        for axis, shift in zip(imap, node.kwargs["shifts"], strict=True):
            if not shift or axis == NONE:
                continue
            k = next(k for k, loop in enumerate(self.loops) if axis in loop.axes)
            body = home.home(frozenset([axis]))
            i, n = self.reach.turn(k, body), self.arguments.extent(k)
            first, then = (f"{n} - {shift}", f"-{shift}") if shift > 0 else (str(-shift), f"{-shift} - {n}")
            if shift in self.cuts and k == len(self.loops) - 1:  # the same for all turns of a part
                turns[k] = f"({i} + ({first} if part < {self.cuts.index(shift) + 1} else {then}))"
                continue
            known = body.find(("rolled", k, shift))
            is_first = f"{i} < {shift}" if shift > 0 else f"{i} < {n} - {-shift}"
            turns[k] = known or self.named(f"{i} + ({first} if {is_first} else {then})", body, ("rolled", k, shift))
        return load(self.arguments.pointer(a.buffer, a.offset), self.index(a, home, turns), node.type.dtype)

    # ---- stores and scratch

    def put(self, node: Apply, body: Body) -> None:
        """Have a member's value stored into its buffer when the body is complete."""
        imap = result_map(node, self.cluster.members[node])
        value = self.value(node, imap, body)
        a = self.placed(node)
        line = store(*self.reach.destination(a, body), value, node.type.dtype)
        if a.buffer is not node and isinstance(a.buffer, Input):
            self.arguments.writes[node] = None  # its value is found in the state's buffer from now on
        body.stores.append((body.home(used(imap)), line))

    def mark_written(self, roots: Iterable[Apply]) -> None:
        for node in roots:
            if not self.cluster.folds(node):
                self.written[node] = self.placed(node)

    def late(self) -> list[Apply]:
        """Stored members that no stage has stored: those that run over the outer axes only."""
        return [n for n in self.stored if n not in self.written]

    def keep_stage(self, stage: int, body: Body) -> None:
        """Keep full members' values in scratch for a later stage."""
        for node in self.kept:
            if self.stage[node] == stage and node not in self.row_scratch:
                imap = self.cluster.members[node]
                value = self.value(node, imap, body)
                name = self.reach.scratch(node, self._spans(), node.type.dtype)
                body.add(store(name, self.scratch_index(imap), value, node.type.dtype))
                self.row_scratch[node] = name

    def _spans(self) -> list[int]:
        """The loops that scratch spans: all but the outer ones."""
        return [k for k, kind in enumerate(self.loop_kind) if kind != "O"]

    def scratch_index(self, imap: IndexMap) -> str:
        """Row-major over the loops that scratch spans."""
        terms: list[str] = []
        spans = self._spans()
        for position, k in enumerate(spans):
            if frozenset(self.loops[k].axes) <= used(imap):
                inside = spans[position + 1:]
                terms.append(" * ".join([f"i{k}", *map(self.reach.span, inside)]))
        return " + ".join(terms) or "0"

    # ---- the nest

    def is_apart(self, k: int) -> bool:
        """Whether LLVM is to be told that the turns of a loop touch different memory."""
        return self.told_apart and k == self.inner and self.loop_kind[k] != "R"

    def header_of(self, k: int, end: str, begin: str = "0") -> str:
        """Of a loop over [begin, end); the one that ``lanes`` names runs over all its turns. One with cuts runs from
        each to the next."""
        if self.cuts and k == len(self.loops) - 1:
            n, count = self.arguments.extent(k), len(self.cuts)
            ends = [str(shift) if shift > 0 else f"{n} - {-shift}" for shift in self.cuts]
            low, high = (" ".join(f"{cut} if part < {p} else" for p, cut in enumerate(cuts, 1)) for cuts in (
                [begin, *ends[:-1]], ends))
            return (f"for part in range({count + 1}):\n"
                    f"for i{k} in range(maximum({begin}, {low} {ends[-1]}), minimum({end}, {high} {end})):")
        over = "few" if self.few and k == len(self.loops) - 1 else "apart" if self.is_apart(k) else "range"
        if k == self.lanes and begin == "0":
            over = "lanes"
        return f"for i{k} in {over}({end if begin == '0' else f'{begin}, {end}'}):"

    def write(self) -> Written:
        """The kernel and what its arguments are."""
        from graphjit.codegen.columns import write_columns
        from graphjit.codegen.folds import in_chunks, write_chunks
        from graphjit.codegen.rows import write_rows
        top = Body(frozenset())
        chunked = in_chunks(self)
        split = -1
        if chunked:
            extent = write_chunks(self, top)
        else:
            split = (write_columns if self.column else write_rows)(self, top)
            extent = turns(*([split] if split >= 0 else []))
        words, given = self.title_words(), self.arguments
        name = "k_" + "_".join(words)[:40]
        lines = [f"def {name}({', '.join([*given.params, 'start', 'stop'])}):", *("    " + line for line in top.lines)]
        if not self.row_lanes and self._pays_to_gather():
            # LLVM would have vectors for strides of one only, if it took the innermost loop's for plain variables
            names = dict.fromkeys(name for step in self.steps.values() for name in step if name.isidentifier())
            lines[1:1] = [f"    {s} = minimum({s}, {MOST})" for s in names]
        return Written(
            name=name, source="\n".join(lines) + "\n", codes=tuple(given.codes), arguments=tuple(given.values),
            loops=tuple([loop.axes for loop in self.loops]), work=tuple(self.work.items()), extent=extent,
            align=(self.row_lanes or 64) if split >= 0 and split == len(self.loops) - 1 else 1,
            strict=self.column and not self.row_lanes and split == len(self.loops) - 1, tail=chunked,
            title=" ".join(words), where=tuple(self.wheres), reads=tuple(given.reads), writes=tuple(given.writes),
            tangled=self._tangled())

    def _pays_to_gather(self) -> bool:
        """Whether vectors pay whose elements lie apart: storing them takes longer than a cheap loop of single ones."""
        dear = any(ns == DEAR and self.inner in loops for (loops, ns) in self.work)
        return dear or not {self.placed(n) for n in self.stored} & {*self.steps}

    def _tangled(self) -> tuple[Node, ...]:
        """States stored in place whose old value is read at another point: a later turn would read the new one."""
        stores = [self.placed(n) for n in self.stored if n in self.target]
        return tuple(a.buffer for a in stores if a.buffer in self.around or self.loaded.get(a.buffer, set()) - {a})
