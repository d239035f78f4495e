"""Graph -> steps: which buffers there are, which kernels fill them, and in what order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphjit.codegen.access import Place
from graphjit.codegen.assemble import computed_in_place, fills, places
from graphjit.codegen.axes import fusable, result_map, through
from graphjit.codegen.call import HostCall, KernelCall, Step
from graphjit.codegen.cluster import Cluster, operand_below, singleton, used
from graphjit.codegen.epilogues import epilogues
from graphjit.codegen.followers import with_followers
from graphjit.codegen.fusions import Fused
from graphjit.codegen.library import Products, library_calls, matrix_call
from graphjit.codegen.nest import is_cheap
from graphjit.codegen.repeats import write_cluster
from graphjit.codegen.schedule import schedule
from graphjit.codegen.strips import in_strips
from graphjit.codegen.turned import turned
from graphjit.errors import InternalCompilerError
from graphjit.ir import Apply, Const, Graph, Input, Node, apply_op
from graphjit.op import TABLE, Assemble, Gather, Host, Indexed, Library, View
from graphjit.passes.layout import base, base_layout, is_contiguous
from graphjit.types import Extent, contiguous_strides

SMALL = 1 << 16  # bytes of a result that NumPy puts in order as fast as a kernel
INLINE_OPS, INLINE_LEAVES = 6, 3  # how much is computed again rather than stored and loaded


@dataclass(slots=True, eq=False)
class Lowered:
    """Steps in order, and what they were made from."""

    steps: list[Step]
    graph: Graph
    clusters: list[Cluster]
    in_place: dict[Node, Input]  # nodes whose buffer is that of the state they replace


def lower(graph: Graph, n_results: int, states: Sequence[Input]) -> Lowered:
    """Lower a graph whose outputs are ``n_results`` results and then one new value for each of ``states``.

    New values are stored straight into the state's buffer where every reader of the old one can run before,
    and copied there at the end otherwise.
    """
    graph = _in_order(graph, n_results, states)
    graph, fused = turned(graph, Fused(graph))
    writes = dict(zip(graph.outputs[n_results:], states, strict=True))
    direct = {node for node in writes if _may_write_in_place(node, writes[node], fused.of.get(node))}
    products = Products()
    while True:
        lowering = _Lowering(graph, fused, products, {n: writes[n] for n in direct},
                             {n: s for n, s in writes.items() if n not in direct})
        steps = lowering.run()
        tangled = {state for s in steps if isinstance(s, KernelCall) for state in s.tangled}
        back = {n for n in direct if writes[n] in tangled}
        if not back:
            order, stuck = schedule(steps, lowering.loops, graph, set(states))
            if not stuck:
                in_place = {n: writes[n] for n in direct}
                order = with_followers(order, graph.outputs, in_place)
                return Lowered(in_strips(order, graph.outputs, in_place), graph, fused.clusters, in_place)
            back = {n for n in direct if any(writes[n] in s.writes for s in stuck)}
        if not back:
            raise InternalCompilerError("the program's kernels wait for each other in a circle",
                                        detail=tuple(s.title for s in stuck[:8]))
        direct -= back


def _in_order(graph: Graph, n_results: int, states: Sequence[Input]) -> Graph:
    """Give every written state a computed node of its own, and copies to results that are a state's old value or large
    and not in order."""
    outputs = list(graph.outputs)
    for i in range(n_results):
        if base(outputs[i]) in set(states) or _large_and_out_of_order(outputs[i]):
            outputs[i] = apply_op(TABLE["copy"], (outputs[i],), {})
    taken: set[Node] = set()
    for i in range(n_results, len(outputs)):
        node = outputs[i]
        if not isinstance(node, Apply) or isinstance(node.op.lower, View) or node in taken:
            node = apply_op(TABLE["copy"], (node,), {})
        taken.add(node)
        outputs[i] = node
    return Graph(graph.inputs, tuple(outputs))


def _large_and_out_of_order(node: Node) -> bool:
    """Of a length that the caller chose nothing is known: kernels are the same for all batch sizes."""
    large = node.type.nbytes > SMALL or any(isinstance(n, Extent) for n in node.type.shape)
    return large and isinstance(node, Apply) and isinstance(node.op.lower, View) and \
        not is_contiguous(base_layout(node)[1])


def _may_write_in_place(node: Node, state: Input, cluster: Cluster | None) -> bool:
    """Whether a loop nest may store a value over the state it replaces: it reads the old one at no other point."""
    if cluster is None or not isinstance(node, Apply):
        return False
    if cluster.reduced and cluster.is_full(node):
        return False
    here = result_map(node, cluster.members[node])
    for member, imap in cluster.members.items():
        for k, operand in enumerate(member.args):
            if base(operand) is state:
                found = operand_below(member, k, imap)
                if found is None or found[0] is not state or found[1] != here:
                    return False
    return True


class _Lowering:
    """One attempt: which nodes are stored, and the steps that store them."""

    def __init__(self, graph: Graph, fused: Fused, products: Products, direct: Mapping[Node, Input],
                 copied: Mapping[Node, Input]) -> None:
        self.graph = graph
        self.products = products
        self.readers = fused.readers
        self.clusters = fused.clusters
        self.of = fused.of
        self.direct = direct
        self.copied = copied
        self.assembled = {n: p for n, p in computed_in_place(graph).items() if n not in direct and n not in copied}
        self.stored: set[Node] = set()
        self.pinned: set[Node] = set()
        self.inline: set[Node] = set()

    def run(self) -> list[Step]:
        self.find_stored()
        self.find_inline()
        self.find_sources()
        target = {n: Place(s, 0, contiguous_strides(s.type.shape)) for n, s in self.direct.items()}
        target |= self.assembled
        steps: list[Step] = []
        inline = frozenset(self.inline)
        self.behind = epilogues(self.graph, self.clusters, self.stored, inline, target)
        done = {each.result for each in self.behind.values()}
        for cluster in self.clusters:
            stored = [n for n in cluster.members if n in self.stored]
            if stored and stored[0] not in done:
                steps.append(write_cluster(cluster, stored, inline, target))
        self.loops = len(steps)
        for node in self.graph.nodes:
            if isinstance(node, Apply) and not fusable(node):
                steps.extend(self.special(node))
        for node, state in self.copied.items():
            steps.append(_copy_to(node, Place(state, 0, contiguous_strides(state.type.shape))))
        return steps

    def find_stored(self) -> None:
        """Nodes that need memory: outputs, operands of library kernels, what one cluster computes for another."""
        for node in self.graph.outputs:
            self.pin(node)
        for node in self.graph.nodes:
            if not isinstance(node, Apply) or isinstance(node.op.lower, View):
                continue
            cluster = self.of.get(node)
            if cluster is None:
                for operand in node.args:
                    self.pin(operand)
                continue
            for k, operand in enumerate(node.args):
                below = base(operand)
                if isinstance(node.op.lower, Gather) and k == 0:
                    self.pin(operand)
                elif self.of.get(below) is not cluster:
                    if operand_below(node, k, cluster.members[node]) is None or not fusable(below):
                        self.pin(operand)
                    self.stored.add(below)
        self.stored = {n for n in self.stored if isinstance(n, Apply)}

    def pin(self, node: Node) -> None:
        below = base(node)
        self.stored.add(below)
        self.pinned.add(below)

    def find_inline(self) -> None:
        """Compute cheap values again in the clusters that use them, where all they read is in memory anyway."""
        for node in self.graph.nodes:
            if not isinstance(node, Apply) or node not in self.stored or node in self.pinned or node not in self.of:
                continue
            chain = self.cheap_chain(node)
            if chain is not None and ((chain == {node} and not node.args) or self.read_in_full(node)):
                self.stored.discard(node)
                self.inline |= chain

    def find_sources(self) -> None:
        """Store what values follow from cheaply instead of them, where that is smaller: a mean, not what is centred by
        it; a tanh, not the two factors of a gradient that are made of it."""
        large: dict[Apply, list[tuple[Apply, set[Node], set[Apply]]]] = {}
        for node in self.graph.nodes:
            if not isinstance(node, Apply) or node not in self.stored or node in self.pinned or node not in self.of:
                continue
            sources: set[Apply] = set()
            chain = self.cheap_chain(node, sources)
            if chain is None or not sources or not self.read_in_full(node):
                continue
            axes = self.axes(node)
            whole = [x for x in sources if not self.axes(x) < axes]
            if not whole:
                self.replace(node, chain, sources)
            elif len(whole) == 1 and self.axes(whole[0]) == axes:
                large.setdefault(whole[0], []).append((node, chain, sources))
        for source, made in large.items():
            if source.type.dtype.itemsize < sum(node.type.dtype.itemsize for node, *_ in made):
                for each in made:
                    self.replace(*each)

    def axes(self, node: Apply) -> frozenset[int]:
        """The loop axes of its cluster that a member's result runs over."""
        return used(result_map(node, self.of[node].members[node]))

    def replace(self, node: Apply, chain: set[Node], sources: set[Apply]) -> None:
        self.stored.discard(node)
        self.stored |= sources
        self.inline |= chain

    def cheap_chain(self, node: Apply, sources: set[Apply] | None = None) -> set[Node] | None:
        """The cheap operations that make a node of what is in memory; None where there are many, or dear ones.

        Dear ones of its own cluster, and those that run over fewer axes, are added to ``sources``, if given.
        """
        chain: set[Node] = set()
        leaves: set[Node] = set()
        stack: list[Node] = [node]
        while stack:
            x = stack.pop()
            if x is not node and (x in self.stored or not isinstance(x, Apply)):
                if not (isinstance(x, Const) and x.value.ndim == 0):
                    leaves.add(x)
                continue
            if x in chain:
                continue
            if not isinstance(x, Apply):
                return None
            if not x.args and isinstance(x.op.lower, Indexed):
                chain.add(x)  # the element's own index
                continue
            small = sources is not None and self.of.get(x) is self.of[node] and self.axes(x) < self.axes(node)
            if small or not is_cheap(x):
                if sources is None or x is node or self.of.get(x) is not self.of[node]:
                    return None
                sources.add(x)
                leaves.add(x)
                continue
            chain.add(x)
            stack.extend(base(a) for a in x.args)
            if len(chain) > INLINE_OPS or len(leaves) > INLINE_LEAVES:
                return None
        return chain if len(leaves) <= INLINE_LEAVES else None

    def read_in_full(self, node: Node) -> bool:
        """Whether every reader runs over as many elements as the node has (and so computes each but once)."""
        for user, axes in self.readers(node):
            cluster = self.of[user]
            if cluster is self.of[node]:
                continue
            if axes is None:
                return False
            imap = cluster.members[user]
            if node.type.ndim and used(through(axes, imap)) != used(imap):
                return False
        return True

    def special(self, node: Apply) -> list[Step]:
        """Steps of a node that no loop nest computes."""
        match node.op.lower:
            case Library():
                return [*library_calls(node, self.products, self.assembled.get(node), self.behind.get(node))]
            case Host():
                if node.op.lower.small and (small := matrix_call(node)) is not None:
                    return [small]
                reads = tuple(dict.fromkeys(base_layout(a)[0] for a in node.args))
                return [HostCall(node, reads, (node,), node.op.name, (node.where,) if node.where else ())]
            case Assemble():
                into = places(node, self.assembled.get(node))
                parts = [*fills(node), *((a, at) for a, at in zip(node.args, into, strict=True)
                                         if base(a) not in self.assembled)]
                return [_copy_to(part, at) for part, at in parts]
            case _:
                return []


def _copy_to(node: Node, where: Place) -> KernelCall:
    """A kernel that copies a node from memory to a place."""
    copy = apply_op(TABLE["copy"], (node,), {}, node.where if isinstance(node, Apply) else None)
    return write_cluster(singleton(copy), [copy], frozenset(), {copy: where})
