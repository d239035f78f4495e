"""Kernels that are not generated loops: matrix products by the GEMM library, the rest from loop templates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from graphjit.codegen.access import Place
from graphjit.codegen.call import Address, Handed, KernelCall, Scratch, Slot, Status
from graphjit.codegen.contractions import PARTS, WORK, adding, contract_calls, input_grad_calls
from graphjit.codegen.epilogues import Epilogue
from graphjit.codegen.pools import POOLS, pool_call
from graphjit.errors import InternalCompilerError
from graphjit.ir import Apply, Node
from graphjit.op import Layout, Library
from graphjit.passes.layout import base_layout
from graphjit.types import Extent, contiguous_strides, is_float, is_one

if TYPE_CHECKING:
    from graphjit.codegen.library_loops import LoopCall
    from graphjit.kernels.gemm import GemmPlan

SMALL = 1 << 16  # bytes of a product that hands nothing on


def stores_at(node: Node, place: Place) -> bool:
    """Whether a node is of a library op whose kernel stores its result at a place: a product where its rows or its
    columns are contiguous, the others where rows of channels are."""
    if not isinstance(node, Apply) or not isinstance(node.op.lower, Library):
        return False
    kernel = node.op.lower.kernel
    if kernel == "matmul":
        return is_float(node.type.dtype) and any(map(is_one, place.strides[-2:]))
    whole = contiguous_strides(node.type.shape)
    if kernel in POOLS:
        return place.strides[-2:] == whole[-2:] and pool_call(node) is not None
    return kernel in ("contract", "conv_last_input_grad") and is_one(place.strides[-1])


class Products:
    """Plans of the matrix products of a program: of equal ones, such as the steps of an unrolled loop, one is made."""

    @cached_property
    def plan(self) -> Callable[..., GemmPlan]:
        from graphjit.kernels.gemm import plan
        return cache(plan)

    @cached_property
    def plan_handing(self) -> Callable[..., GemmPlan | None]:
        from graphjit.kernels.gemm import plan_handing
        return cache(plan_handing)


def library_calls(node: Apply, products: Products, place: Place | None = None,
                  epilogue: Epilogue | None = None) -> list[KernelCall]:
    """The kernel calls of a library op, in order.

    Args:
        node: the op.
        products: those of its program.
        place: where the result goes, if not into a buffer of its own.
        epilogue: what a matrix product does to its result.
    """
    assert isinstance(node.op.lower, Library)
    match node.op.lower.kernel:
        case "matmul" if is_float(node.type.dtype):
            parts = _in_parts(node, products) if place is None and epilogue is None else []
            return parts or [_matmul(node, products, place, epilogue)]
        case "contract":
            return contract_calls(node, place)
        case "conv_last_input_grad":
            return input_grad_calls(node, place)
        case kernel if kernel in POOLS:
            return [pool_call(node, place) or _loop(node)]
        case _:
            return [_loop(node)]


def _loop(node: Apply) -> KernelCall:
    from graphjit.codegen.library_loops import build
    loop = build(node.op.name, tuple(a.type for a in node.args), node.type, node.kwargs)
    if loop is None:
        raise InternalCompilerError(f"{node.op.name} has no kernel for {node.type}", where=node.where)
    return _loop_call(node, loop)


def matrix_call(node: Apply) -> KernelCall | None:
    """The kernel of an op of linear algebra on small matrices, which lie anyhow; None if they are large."""
    from graphjit.codegen.small_matrices import small_matrices
    layouts = [base_layout(a)[1] for a in node.args]
    loop = small_matrices(node.op.name, layouts, node.type, **node.kwargs)
    return _loop_call(node, loop) if loop is not None else None


def _loop_call(node: Apply, loop: LoopCall) -> KernelCall:
    from graphjit.runtime.compiler import LoopKernel
    bases = [base_layout(a) for a in node.args]
    slots: list[Slot] = []
    for value in loop.values:
        if value == "status":
            slots.append(Status())
        elif value == "out":
            slots.append(Address(node))
        elif value == "room":
            slots.append(Address(Scratch(loop.room)))
        elif isinstance(value, str):
            base, layout = bases[int(value.removeprefix("in"))]
            slots.append(Address(base, layout.offset * base.type.dtype.itemsize))
        else:
            slots.append(value)
    return KernelCall(LoopKernel(loop.name, loop.source, loop.args), loop.args, tuple(slots), loop.extent,
                      reads=tuple(b for b, _ in bases), writes=(node,), title=node.op.name,
                      where=(node.where,) if node.where else (), flops=node.type.size,
                      nbytes=node.type.nbytes + sum(a.type.nbytes for a in node.args), source=loop.source,
                      checks="status" in loop.values, cost=loop.cost or node.type.nbytes * 0.2)


def _matmul(node: Apply, products: Products, place: Place | None, epilogue: Epilogue | None) -> KernelCall:
    from graphjit.kernels.gemm import family
    from graphjit.kernels.parts import adding_kernel
    from graphjit.runtime.threads import get_num_threads
    (a, la), (b, lb) = (base_layout(x) for x in node.args)
    out = node.type
    may_be_cut = place is None and epilogue is None and _is_small(node) and isinstance(
        node.args[0].type.shape[1], Extent)  # at another batch size
    batch = tuple(int(n) for n in out.shape[:-2])
    m, n, k = int(out.shape[-2]), int(out.shape[-1]), int(node.args[0].type.shape[-1])
    result, reads, strides, behind = node, [a, b], [], "store"
    size = out.dtype.itemsize
    address: dict[str, Slot] = {"a": Address(a, la.offset * size), "b": Address(b, lb.offset * size)}
    if epilogue is not None:
        bias, at = base_layout(epilogue.bias)
        result, behind = epilogue.result, "bias_relu" if epilogue.relu else "bias"
        strides.append((0,) * (len(batch) + 1) + (int(at.strides[-1]),))
        address["e0"] = Address(bias, at.offset * size)
        reads.append(bias)
    to = place or Place(result, 0, contiguous_strides(out.shape))
    c = to.strides
    found = products.plan(m, n, k, out.dtype, _last(la), _last(lb), (int(c[-2]), int(c[-1])), batch,
                          _batch(la, batch), _batch(lb, batch), tuple(map(int, c[:-2])), epilogue=behind,
                          e_strides=tuple(strides), cores=get_num_threads())
    address |= {"c": Address(to.buffer, to.offset * size)}
    call = KernelCall(found.kernel, ("int64",) * len(found.slots), _filled(found, address), found.extent,
                      reads=tuple(reads), writes=(to.buffer,),
                      title=f"matmul {m}x{k}x{n}{_times(batch)}" + (f" {behind.replace('_', ' ')}" if epilogue else ""),
                      where=tuple(dict.fromkeys(x.where for x in (node, result) if x.where)),
                      flops=found.flops + (len(reads) - 2) * out.size,
                      nbytes=out.nbytes + sum(x.type.nbytes for x in node.args), cost=found.nanoseconds,
                      align=found.align, least=found.least,
                      also=(*family(out.dtype), *([adding_kernel(out.dtype)] if may_be_cut else [])),
                      cuts=dict(zip((a, b, to.buffer), found.cuts, strict=True)), repeated=found.repeated,
                      spans=lambda: _spans(found, [(a, la.offset), (to.buffer, to.offset)], reads[1:]))
    if not batch and place is None and epilogue is None:
        call.handing = lambda how: _handing(
            call, found, products.plan_handing(m, n, k, out.dtype, _last(la), _last(lb), how), address)
    return call


def _is_small(node: Apply) -> bool:
    """Whether a product's sum may be cut into parts."""
    return node.type.ndim == 2 and node.type.nbytes < SMALL and 1 not in node.type.shape


def _in_parts(node: Apply, products: Products) -> list[KernelCall]:
    """A small product of long sums, cut into parts that are added up at the end: threads have the rows of both operands
    that they wrote. How many parts there are follows from lengths alone; none where they are no gain."""
    from graphjit.kernels.gemm import family
    from graphjit.kernels.parts import adding_kernel
    from graphjit.runtime.threads import get_num_threads
    if not _is_small(node):
        return []
    (a, la), (b, lb) = (base_layout(x) for x in node.args)
    m, n, k = int(node.type.shape[0]), int(node.type.shape[1]), int(node.args[0].type.shape[1])
    parts = next((p for p in PARTS if k % p == 0 and p * m * n <= (m + n) * k // 4), 1) if m * n * k >= WORK else 1
    if parts == 1:
        return []
    each, room, size = k // parts, Scratch(parts * node.type.nbytes, common=True), node.type.dtype.itemsize
    of_a, of_b = _last(la), _last(lb)
    found = products.plan(m, n, each, node.type.dtype, of_a, of_b, (n, 1), (parts,), (each * of_a[1],),
                          (each * of_b[0],), (m * n,), cores=get_num_threads())
    address = {"a": Address(a, la.offset * size), "b": Address(b, lb.offset * size), "c": Address(room)}
    return [KernelCall(found.kernel, ("int64",) * len(found.slots), _filled(found, address), found.extent,
                       reads=(a, b), writes=(node,), title=f"matmul {m}x{each}x{n} batch {parts}",
                       where=(node.where,) if node.where else (), flops=found.flops,
                       nbytes=parts * node.type.nbytes + sum(x.type.nbytes for x in node.args),
                       cost=found.nanoseconds, align=found.align,
                       also=(*family(node.type.dtype), adding_kernel(node.type.dtype)), least=found.least),
            adding(node, room, parts)]


def _filled(plan: GemmPlan, address: Mapping[str, Slot]) -> tuple[Slot, ...]:
    """The arguments of a product's kernel."""
    known = {**address, "workspace": Address(Scratch(max(plan.workspace, 64)))}
    slots: list[Any] = list(plan.slots)
    for i in plan.named:
        slots[i] = known.get(slots[i], 0)
    return tuple(slots)


def _handing(call: KernelCall, stored: GemmPlan, plan: GemmPlan | None,
             address: Mapping[str, Slot]) -> KernelCall | None:
    """The same product, handed on; None where it is better as it is."""
    if plan is None or plan.kernel is not stored.hands_on:
        return None
    slots = _filled(plan, {**address, "c": 0, "follower": Handed()})
    return replace(call, kernel=plan.kernel, codes=("int64",) * len(slots), slots=slots, extent=plan.extent,
                   align=plan.align, repeated=plan.repeated, writes=(), handing=None, spans=dict,
                   fetches=plan.fetches, cuts=dict(zip(call.reads, plan.cuts[:2], strict=True)))


def _spans(plan: GemmPlan, matrices: list[tuple[Node, int]], whole: list[Node]) -> dict[Node, int]:
    """Bytes by unit of A and C, given by buffer and first element, if their rows lie one behind the other."""
    spans: dict[Node, int] = {}
    for (buffer, offset), (row, reach) in zip(matrices, plan.steps, strict=True):
        if plan.rows and reach >= 0 and offset + reach < row and buffer not in whole:
            spans[buffer] = plan.rows * row * buffer.type.dtype.itemsize
    return spans


def _times(batch: tuple[int, ...]) -> str:
    return f" batch {'x'.join(map(str, batch))}" if batch else ""


def _last(layout: Layout) -> tuple[int, int]:
    return int(layout.strides[-2]), int(layout.strides[-1])


def _batch(layout: Layout, batch: tuple[int, ...]) -> tuple[int, ...]:
    """Strides along the batch axes, 0 where an operand is stretched or lacks the axis."""
    own = list(zip(layout.shape[:-2], layout.strides[:-2], strict=True))
    lead = len(batch) - len(own)
    return (0,) * lead + tuple(0 if n == 1 else int(s) for n, s in own)

