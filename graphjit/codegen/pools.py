"""Pools with the channels last whose windows tile their operand: calls of the kernels that are made for them."""

from __future__ import annotations

from graphjit.codegen.access import Place
from graphjit.codegen.call import Address, KernelCall, Slot
from graphjit.ir import Apply
from graphjit.passes.layout import base_layout
from graphjit.types import contiguous_strides

POOLS = frozenset({"max_pool_last", "max_pool_grad_last", "sum_pool_last", "sum_pool_grad_last"})


def pool_call(node: Apply, place: Place | None = None) -> KernelCall | None:
    """The call for a pool or its gradient, one of POOLS; None where a loop kernel must do. ``place``: where the result
    goes, if not into a buffer of its own."""
    from graphjit.kernels.pools import plan_pool
    backward = "grad" in node.op.name
    image, windows = (node, node.args[-1]) if backward else (node.args[0], node)
    found = plan_pool(node.op.name, image.type, windows.type, node.kwargs)
    if found is None:
        return None
    kernel, named = found
    bases = [base_layout(a) for a in node.args]
    places: list[Slot] = [Address(base, at.offset * node.type.dtype.itemsize) for base, at in bases]
    to = place or Place(node, 0, contiguous_strides(node.type.shape))
    address = {"image": places[0], "window": places[-1],
               "result": Address(to.buffer, to.offset * node.type.dtype.itemsize)}
    steps = {"result_image": to.strides[0], "result_row": to.strides[-3] if node.type.ndim > 3 else 0}
    slots = tuple((address.get(s) or steps[s]) if isinstance(s, str) else s for s in named)
    return KernelCall(kernel, ("int64",) * len(slots), slots, int(node.type.shape[0]),
                      reads=tuple(base for base, _ in bases), writes=(to.buffer,), title=node.op.name,
                      where=(node.where,) if node.where else (), flops=node.type.size,
                      nbytes=node.type.nbytes + sum(a.type.nbytes for a in node.args), cost=node.type.nbytes * 0.05)
