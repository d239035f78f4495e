"""Which part of each buffer a unit of a loop nest's extent touches, where units go through buffers in order."""

from __future__ import annotations

from collections.abc import Mapping

from graphjit.codegen.access import Access
from graphjit.codegen.folds import chunk_length, in_chunks
from graphjit.codegen.nest import Nest
from graphjit.ir import Node
from graphjit.op import Gather, Indexed
from graphjit.passes.layout import base_layout


def nest_spans(nest: Nest) -> Mapping[Node, int]:
    """Bytes of each buffer by unit: unit u touches bytes [u * span, (u + 1) * span) and no others.

    Buffers of which that is not so are left out. What a last unit behind all chunks touches does not count.
    """
    if in_chunks(nest):
        turns = chunk_length(nest)
    elif nest.loops and (nest.loop_kind[0] == "O" or nest.row_lanes):
        turns = 1
    else:
        return {}
    steps: dict[Node, int] = {}
    elsewhere = {base_layout(x)[0] for node in nest.cluster.members for k, x in enumerate(node.args)
                 if isinstance(node.op.lower, Indexed) or (isinstance(node.op.lower, Gather) and k == 0)}
    elsewhere |= nest.around
    for a in [*nest.loads(), *nest.picked(), *nest.stores()]:
        step = _step(nest, a)
        if steps.setdefault(a.buffer, step) != step or not step:
            elsewhere.add(a.buffer)
    return {b: step * turns * b.type.dtype.itemsize for b, step in steps.items() if b not in elsewhere}


def _step(nest: Nest, a: Access) -> int:
    """Elements from one turn of the loop that threads cut to the next; 0 if a turn reaches farther."""
    first, *others = nest.loops if nest.loop_kind[0] == "O" or not nest.row_lanes else reversed(nest.loops)
    step, reach = int(a.strides[first.axes[-1]]), int(a.offset)
    for loop in others:
        stride = int(a.strides[loop.axes[-1]])
        if stride < 0:
            return 0
        reach += (int(loop.extent) - 1) * stride
    return step if reach < step else 0
