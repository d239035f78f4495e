"""Sums that were computed in parts, which lie one behind the other, added up in their order."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphjit.kernels.emit import Int, carried, loop, masked_load, masked_store
from graphjit.kernels.target import Element, target
from graphjit.runtime.compiler import IRKernel


@functools.cache
def adding_kernel(dtype: np.dtype[Any]) -> IRKernel:
    """out[i] = the sum of parts[p * size + i] over p < count. Arguments: parts, out, count, size; a unit is an i."""
    element = Element(dtype.name, dtype.itemsize, target().lanes(dtype.itemsize))
    return IRKernel(f"add_parts_{element.name}", (element.suffix,), 4, functools.partial(_emit, element))


def _emit(element: Element, builder: Any, values: Sequence[Any]) -> None:
    parts, out, count, size, start, stop = (Int(builder, value) for value in values)
    with loop(start, stop, element.lanes) as i:
        live, to = (stop - i).min(element.lanes), out + i * element.size

        def part(number: Int | int, i: Int = i, live: Int = live) -> Any:
            place = parts + (size * number + i) * element.size
            return masked_load(builder.module, element, place, live)
        first, before = part(0), builder.block
        with loop(1, count) as p:
            total = carried(p, first, before)  # a masked store is not forwarded to a load of what it stored
            total.add_incoming(builder.fadd(total, part(p)), builder.block)
        masked_store(builder.module, element, total, to, live)
