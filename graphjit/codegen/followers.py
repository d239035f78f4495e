"""Products that hand what they compute to the loop that follows: an update that takes a gradient most of all.

The product then needs no memory, and the loop little time of its own. It runs on strips of the product while others are
multiplied (``kernels/follower.py``): on the tile unit other units compute it meanwhile, elsewhere tiles fetch what else
it reads. Or it becomes code that works on the registers of each tile (``kernels/tile_follower.py``), if it does nothing
but arithmetic, and what it reads is near.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from graphjit.codegen.call import Address, KernelCall, Scratch, Step
from graphjit.ir import Apply, Input, Node
from graphjit.kernels.follower import NEAR
from graphjit.passes.layout import base_layout
from graphjit.runtime.compiler import LoopKernel

LEAST = 1 << 18  # bytes of a product of which strips are handed on: smaller ones stay in the cache anyway
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
    if not isinstance(loop.kernel, LoopKernel):
        return None
    [node] = product.writes
    if not isinstance(node, Apply) or node in in_place or users[node] != 2:
        return None
    if loop.extent != node.type.size:
        return None
    written = {in_place.get(b, b) for b in loop.writes}
    if written & {in_place.get(b, b) for b in product.reads}:
        return None
    holes = [i for i, x in enumerate(loop.slots) if isinstance(x, Address) and x.buffer is node]
    if len(holes) != 1:
        return None
    call = _by_tiles(product, loop, holes[0], node) or _by_strips(product, loop, holes[0], node)
    if call is None or not _follows(loop, node, in_place):
        return None
    others = dict.fromkeys(b for b in (*loop.reads, *loop.writes) if b is not node)
    reads = dict.fromkeys((*call.reads, *(b for b in loop.reads if b in others)))
    return replace(
        call, reads=tuple(reads), writes=loop.writes, title=f"{call.title}; {loop.title}",
        where=tuple(dict.fromkeys((*call.where, *loop.where))), flops=call.flops + loop.flops,
        nbytes=call.nbytes + loop.nbytes - 2 * node.type.nbytes, cost=call.cost + (1 - HIDDEN) * loop.cost,
        cuts={**{b: n for b, n in loop.cuts.items() if b in others}, **call.cuts})


def _by_tiles(product: KernelCall, loop: KernelCall, hole: int, node: Apply) -> KernelCall | None:
    from graphjit.kernels.gemm import element_of
    from graphjit.kernels.tile_follower import tile_follower
    assert product.handing is not None and isinstance(loop.kernel, LoopKernel)
    call = product.handing("tiles")
    found = call and tile_follower(loop.kernel, hole, element_of(node.type.dtype))
    if call is None or found is None:
        return None
    return replace(call, then=replace(loop, kernel=found.kernel), hole=hole, words=found.words)


def _by_strips(product: KernelCall, loop: KernelCall, hole: int, node: Apply) -> KernelCall | None:
    if node.type.nbytes < LEAST or node.args[0].type.shape[-1] > DEEP:
        return None
    assert product.handing is not None
    call = product.handing("strips")
    if call is None or node.type.shape[0] < (FETCHED if call.fetches else FEWEST):
        return None
    spans = loop.spans()
    near = {x.buffer: i for i, x in enumerate(loop.slots) if isinstance(x, Address) and x.buffer is not node
            and not isinstance(x.buffer, Scratch) and x.buffer in loop.reads
            and spans.get(x.buffer) == x.buffer.type.dtype.itemsize}  # fmt: skip
    if call.fetches and not near:
        return None
    return replace(call, then=loop, hole=hole, near=tuple(near.values())[:NEAR])


def _follows(loop: KernelCall, node: Apply, in_place: Mapping[Node, Input]) -> bool:
    """Whether a unit of a loop is an element: of the node, and of all it writes."""
    spans = {in_place.get(b, b): n for b, n in loop.spans().items()}
    return all(spans.get(b) == b.type.dtype.itemsize for b in (node, *(in_place.get(b, b) for b in loop.writes)))
