"""What the loop nest of a cluster looks like: its loops, its stages, and what each of them computes.

A stage is what lies between two rounds of reductions. A value needed in a later stage is computed again if that is
cheap, else kept in scratch memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from graphjit.codegen.access import Access, Place, access, collapse, innermost, place
from graphjit.codegen.axes import NONE, IndexMap, look_through, operand_map, result_map
from graphjit.codegen.cluster import Cluster, used
from graphjit.ir import Apply, Node
from graphjit.kernels.row_tiles import SIZES
from graphjit.kernels.target import target
from graphjit.op import Elementwise, Gather, Indexed, Rolled
from graphjit.passes.layout import base
from graphjit.types import SHORT, Extent, is_one

KNOWN = 128  # turns of the innermost loop that stand in the source, unless the caller chose them; of others SHORT
UNROLLED = 512  # values computed in the turns of a loop that is unrolled
# measured: LLVM's loop of whole vectors is for several at once, and of rows of so few numbers it computes most by
# narrow vectors and one by one. That takes longer than masks do, if it is dear or folds what is read in so many places
FEW, MANY_LOADS = 63, 6
# rows of so many numbers are to be the lanes of vectors, up to twice as long ones if they are folded so often; but not
# fewer rows than these
SHORTEST, LONGEST, MANY_FOLDS, FEW_ROWS = 9, 63, 3, 8
COLUMNS = 512  # more of them, all rows of which are folded to one, threads share; of fewer the rows


def length_class(cluster: Cluster) -> tuple[int, ...]:
    """What the form of a nest may depend on of the lengths that the caller chose."""
    length = math.prod([cluster.extents[a] for a in cluster.reduced])
    return sum(length > limit for limit in (1, LONGEST, 2 * LONGEST)), *[
        sum(n > limit for limit in (*_limits(cluster), COLUMNS)) for n in cluster.extents if isinstance(n, Extent)]


def _limits(cluster: Cluster) -> tuple[int, int]:
    """How long rows are at most that are too short for a vector, and those of few vectors."""
    return _full_vector(cluster) // 2, FEW


def _full_vector(cluster: Cluster) -> int:
    """How many of the widest floats here fill a vector."""
    return target().lanes(max((n.type.dtype.itemsize for n in cluster.members if n.type.dtype.kind == "f"), default=4))


def is_cheap(node: Node) -> bool:
    """Whether to compute a node again is better than to keep it."""
    lower = node.op.lower if isinstance(node, Apply) else None
    return isinstance(lower, Rolled) or (isinstance(lower, Elementwise) and lower.cheap)


def static_map(node: Apply, imap: IndexMap) -> IndexMap:
    """Index map of a gather's operand 0, with nothing along the axis that is picked from."""
    axis, n = node.kwargs["axis"], node.args[1].type.ndim
    return (*imap[:axis], NONE, *imap[axis + n:])


class Nest:
    """The loops of one cluster.

    Args:
        cluster: what is computed.
        stored: the members whose values are needed in memory, by others or later.
        inline: cheap members of other clusters, computed again instead of loaded.
        target: where results go that have no buffer of their own.

    Attributes:
        column: whether the innermost loop runs over a kept axis, inside of reduced ones.
        row_lanes: how many rows it runs over at once (see `row_tiles`), 0 where it runs over all there is.
        by_length: whether that depends on a length that the caller chose.
        last_vector: whether something dear is computed of each element, and nothing that is stored is read: some may be
            computed twice then.
        few: whether the innermost loop is to be of masked vectors.
        inner: the innermost loop that is not unrolled.
        known: the loops whose turns stand in the source, and how many those are: few are best unrolled, and of some
            more LLVM should know how many vectors they fill.
        lanes: of these the one whose turns are to become the lanes of vectors, and not be unrolled; -1 for none.
        loops, loop_kind: the loops, each O (outer), R (reduced) or J (the kept one inside).
        stage: of each member, how many rounds of reductions must be over before it can be computed.
        last: the last stage there is.
        rolled: the axes along which something is read on from their start, and by which shifts.
        around: the buffers that this is read from, at other elements than those of the turn.
        cuts: those along the innermost loop, in the order in which it comes to the ends of what is read: it runs from
            each to the next.
        kept: members that a later stage needs and that are too costly to compute twice.
    """

    def __init__(self, cluster: Cluster, stored: Iterable[Apply], inline: frozenset[Node],
                 target: Mapping[Node, Place]) -> None:
        self.cluster = cluster
        self.inline = inline
        self.stored = [n for n in cluster.members if n in set(stored)]
        self.target = target
        self.n_axes = len(cluster.extents)
        self.row_lanes, self.by_length = 0, False
        self.rolled: dict[int, set[int]] = {}
        self.around: set[Node] = set()
        self.stage: dict[Node, int] = {}
        self._find_stages()
        self._plan_loops()
        self.last_vector = self._may_compute_twice()
        self.known = self._known_turns()
        self.lanes = self._lanes()
        self.few = self._has_few_turns()
        self.inner = self._vectors_along()
        self.cuts = self._cuts()
        self.kept: dict[Apply, None] = {}
        self._find_kept()

    def placed(self, node: Apply) -> Access:
        """How a member's value is stored."""
        return place(node, self.target.get(node), result_map(node, self.cluster.members[node]), self.n_axes)

    def full_roots(self, stage: int) -> list[Apply]:
        """Reductions and stored full members that this stage computes."""
        return [n for n in self.cluster.members if self.stage[n] == stage
                and (self.cluster.folds(n) or (self.cluster.is_full(n) and n in self.stored))]

    def title_words(self) -> list[str]:
        words = list(dict.fromkeys(n.op.name for n in self.cluster.members))
        return words if len(words) <= 6 else [*words[:5], "etc"]

    def _find_stages(self) -> None:
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
        loads, picked, stores = self.loads(), self.picked(), self.stores()
        template = next((m for n, m in cluster.members.items() if n in self.stored and cluster.is_full(n)), None) \
            or next((m for m in cluster.members.values() if used(m) == cluster.all_axes), ())
        order = [a for a in template if a != NONE]
        order += [a for a in range(self.n_axes) if a not in order]
        self.column = False
        kept: list[int] = []
        if order:
            inner = innermost(self.n_axes, stores, loads, picked, order, cluster.reduced)
            outer = [a for a in order if a in cluster.outer]
            reduced = [a for a in order if a in cluster.reduced]
            kept = [inner]
            self.column = bool(reduced) and inner in cluster.outer
            if self.column:
                order = [a for a in outer if a != inner] + reduced + kept
            elif reduced:
                order = outer + [a for a in reduced if a != inner] + [inner]
            elif cluster.extents:
                order = [a for a in order if a != inner] + [inner]
        classes = ["R" if a in cluster.reduced else "O" for a in range(self.n_axes)]
        if self.column:
            for a in kept:
                classes[a] = "J"
        apart = [(kind, a if a in self.rolled else NONE) for a, kind in enumerate(classes)]
        self.loops = collapse(order, cluster.extents, apart, [*loads, *picked, *stores])
        self.loop_kind = [classes[loop.axes[0]] for loop in self.loops]
        if self._may_tile_rows([*loads, *stores]) and self._has_short_rows():
            *above, rows, along = self.loops
            self.loops, self.loop_kind = [*above, along, rows], [*self.loop_kind[:-2], "R", "J"]
            self.column, self.row_lanes = True, 2 * self.full_vector
        elif self.column:
            self.by_length |= isinstance(self.loops[-1].extent, Extent)

    def _may_tile_rows(self, accesses: Iterable[Access]) -> bool:
        """Whether rows lie as `row_tiles` wants them, and more is done than to add them up once."""
        members = self.cluster.members
        if self.rolled or self.column or self.loop_kind[-2:] != ["O", "R"] or self.loop_kind.count("R") != 1:
            return False
        if self.last == 0 and all(self.cluster.folds(n) or is_cheap(n) for n in members if self.cluster.is_full(n)):
            return False
        *_, rows, along = self.loops
        for a in accesses:
            step = a.strides[along.axes[-1]]
            if step and a.strides[rows.axes[-1]] and not (is_one(step) and a.buffer.type.dtype.itemsize in SIZES):
                return False
        return isinstance(rows.extent, Extent) or rows.extent >= FEW_ROWS

    def _has_short_rows(self) -> bool:
        length = self.loops[-1].extent
        self.by_length = isinstance(length, Extent)
        # measured: LLVM does as well with some, if it knows how many numbers to unroll a loop for
        shortest = 2 if self.by_length else SHORTEST
        folds = sum(map(self.cluster.folds, self.cluster.members))
        return shortest <= length <= (2 * LONGEST if folds >= MANY_FOLDS else LONGEST)

    def _may_compute_twice(self) -> bool:
        members = self.cluster.members
        dear = (isinstance(n.op.lower, Elementwise) and not is_cheap(n) for n in members if self.cluster.is_full(n))
        read = {a.buffer for a in (*self.loads(), *self.picked())}
        stored = {a.buffer for a in self.stores()}
        return not self.cluster.reduced and not self.rolled and any(dear) and not read & stored

    def _known_turns(self) -> dict[int, int]:
        if self.row_lanes:
            along = len(self.loops) - 2
            n = self.loops[along].extent
            return {} if isinstance(n, Extent) else {along: n}
        known: dict[int, int] = {}
        turns, full = 1, self.full_vector
        for k in reversed(range(1, len(self.loops))):
            n = self.loops[k].extent
            turns *= n
            innermost = k == len(self.loops) - 1
            most = KNOWN if innermost and (self.last_vector or 2 * (n % full) <= full) else SHORT
            if 1 < turns <= most and not isinstance(n, Extent):
                known[k] = n
        return known

    def _lanes(self) -> int:
        """The innermost loop if vectors are to lie along it. Measured: of one that is unrolled LLVM makes
        vectors along the loop around it, whose elements lie apart, but none of which is nearly empty."""
        k = len(self.loops) - 1
        if self.row_lanes:
            return k
        turns = self.known.get(k, 0)
        least = 8 if not self.cluster.reduced else 16 if self.column else 13
        return k if turns >= least or turns * len(self.cluster.members) > UNROLLED else -1

    def _cuts(self) -> list[int]:
        """None where the innermost loop is unrolled: then each turn knows what it reads."""
        last = len(self.loops) - 1
        if last < 0 or (last in self.known and last != self.lanes):
            return []
        return sorted(self.rolled.get(self.loops[last].axes[-1], ()), key=lambda shift: (shift < 0, shift))

    def _vectors_along(self) -> int:
        k = len(self.loops) - 1
        while k > 0 and k in self.known and k != self.lanes:
            k -= 1
        return k

    def _has_few_turns(self) -> bool:
        last = len(self.loops) - 1
        members = [n for n in self.cluster.members if self.cluster.is_full(n)]
        if last < 1 or self.row_lanes or last in self.known or not target().masks or any(
                isinstance(n.op.lower, Indexed | Gather | Rolled) for n in members):
            return False
        much = any(isinstance(n.op.lower, Elementwise) and not is_cheap(n) for n in members)
        much |= self.loop_kind[-1] == "R" and len({*self.loads()}) >= MANY_LOADS
        turns = self.loops[last].extent
        self.by_length |= much and isinstance(turns, Extent)
        low, high = _limits(self.cluster)
        return much and low < turns <= high

    @property
    def full_vector(self) -> int:
        """How many of the widest floats here fill one."""
        return _full_vector(self.cluster)

    def loads(self) -> list[Access]:
        """What members read from memory, but for what gathers pick."""
        return [a for node, imap in self.cluster.members.items() for a in self._loads(node, imap)]

    def picked(self) -> list[Access]:
        """What gathers read when the first element is picked."""
        return [access(node.args[0], static_map(node, imap), self.n_axes)
                for node, imap in self.cluster.members.items() if isinstance(node.op.lower, Gather)]

    def stores(self) -> list[Access]:
        return [self.placed(node) for node in self.stored]

    def _loads(self, node: Apply, imap: IndexMap) -> Iterator[Access]:
        """What a node reads from memory, also through operands that are computed again here; what is ``rolled`` among
        them is noted."""
        if isinstance(node.op.lower, Indexed):
            yield place(node, None, imap, self.n_axes)
        if isinstance(node.op.lower, Rolled):
            for axis, shift in zip(imap, node.kwargs["shifts"], strict=True):
                if shift and axis != NONE:
                    self.rolled.setdefault(axis, set()).add(shift)
            found_at = access(node.args[0], imap, self.n_axes)
            self.around.add(found_at.buffer)
            yield found_at
            return
        for k, operand in enumerate(node.args):
            below, implied = base(operand), operand_map(node, k, imap)
            if below in self.cluster.members or implied is None:
                continue
            found = look_through(operand, implied) if below in self.inline else None
            if found is not None and isinstance(found[0], Apply):
                yield from self._loads(found[0], found[1])
            elif operand.type.ndim:
                yield access(operand, implied, self.n_axes)

    def _find_kept(self) -> None:
        """Find full members too costly to compute twice that more than one stage needs."""
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
                if len(needed[node]) > 1 and not is_cheap(node) and node not in self.stored:
                    self.kept[node] = None

    def _full_operands(self, node: Apply) -> list[Apply]:
        return [b for a in node.args if isinstance(b := base(a), Apply) and b in self.cluster.members
                and self.cluster.is_full(b)]
