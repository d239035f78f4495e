"""Products that hand what they compute to the loop that follows: an update that takes a gradient most of all.

The loop runs on strips of the product while the tiles of the next strip are multiplied, so the product needs no memory,
and the loop little time of its own (``kernels/follower.py``). Where the tiles are the tile unit's, other units compute
the loop. Where they are not, what is gained is that they fetch what else the loop reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from graphjit.codegen.call import Address, KernelCall, Scratch, Step
from graphjit.ir import Apply, Input, Node
from graphjit.kernels.follower import NEAR
from graphjit.passes.layout import base_layout

LEAST = 1 << 18  # bytes of a product that is handed on: smaller ones stay in the cache anyway
FEWEST = 256     # rows of it: what follows the last strip is not hidden
FETCHED = 64     # rows of it, where the product fetches what the loop reads
DEEP = 256       # most steps of k: with more, products take all the time there is
HIDDEN = 0.4     # of the loop's time


def with_followers(steps: Sequence[Step], outputs: Iterable[Node], in_place: Mapping[Node, Input]) -> list[Step]:
    """The same steps in the same order, but for products and loops right behind them that become one.

    Args:
        outputs: of the graph.
        in_place: nodes whose buffer is that of a state.
    """
    users = Counter(b for step in steps for b in {*step.reads, *step.writes})
    users.update(base_layout(node)[0] for node in outputs)
    out: list[Step] = []
    for step in steps:
        before = out[-1] if out else None
        joined = _joined(before, step, users, in_place) if isinstance(before, KernelCall) else None
        if joined is None:
            out.append(step)
        else:
            out[-1] = joined
    return out


def _joined(product: KernelCall, loop: Step, users: Mapping[Node, int],
            in_place: Mapping[Node, Input]) -> KernelCall | None:
    if product.handing is None or not isinstance(loop, KernelCall) or loop.checks or loop.tail or loop.parts:
        return None
    [node] = product.writes
    if not isinstance(node, Apply) or node in in_place or users[node] != 2 or node.type.nbytes < LEAST:
        return None
    if node.args[0].type.shape[-1] > DEEP:
        return None
    if loop.extent != node.type.size or not _follows(loop, node, in_place):
        return None
    written = {in_place.get(b, b) for b in loop.writes}
    if written & {in_place.get(b, b) for b in product.reads}:
        return None
    holes = [i for i, x in enumerate(loop.slots) if isinstance(x, Address) and x.buffer is node]
    call = product.handing()
    if call is None or len(holes) != 1 or node.type.shape[0] < (FETCHED if call.fetches else FEWEST):
        return None
    spans = loop.spans()
    near = {x.buffer: i for i, x in enumerate(loop.slots) if isinstance(x, Address) and x.buffer is not node
            and not isinstance(x.buffer, Scratch) and x.buffer in loop.reads
            and spans.get(x.buffer) == x.buffer.type.dtype.itemsize}  # fmt: skip
    if call.fetches and not near:
        return None
    others = dict.fromkeys(b for b in (*loop.reads, *loop.writes) if b is not node)
    reads = dict.fromkeys((*call.reads, *(b for b in loop.reads if b in others)))
    return replace(
        call, then=loop, hole=holes[0], near=tuple(near.values())[:NEAR], reads=tuple(reads), writes=loop.writes,
        title=f"{call.title}; {loop.title}",
        where=tuple(dict.fromkeys((*call.where, *loop.where))), flops=call.flops + loop.flops,
        nbytes=call.nbytes + loop.nbytes - 2 * node.type.nbytes, cost=call.cost + (1 - HIDDEN) * loop.cost,
        cuts={**{b: n for b, n in loop.cuts.items() if b in others}, **call.cuts})


def _follows(loop: KernelCall, node: Apply, in_place: Mapping[Node, Input]) -> bool:
    """Whether a unit of a loop is an element: of the node, and of all it writes."""
    spans = {in_place.get(b, b): n for b, n in loop.spans().items()}
    return all(spans.get(b) == b.type.dtype.itemsize for b in (node, *(in_place.get(b, b) for b in loop.writes)))
