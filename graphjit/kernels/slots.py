"""The arguments that all matrix-product kernels have: addresses, batch sizes, strides in bytes."""

from collections.abc import Mapping

from graphjit.kernels.emit import Int
from graphjit.kernels.epilogue import OPERANDS
from graphjit.kernels.problem import Problem

BATCH_DIMS = 3
_OPERANDS = tuple(f"e{i}" for i in range(OPERANDS))
_MATRICES = ("a", "b", "c", *_OPERANDS)

ADDRESSES = (*_MATRICES, "workspace")
BATCH = ("batch1", "batch2")
STRIDES = tuple(
    f"{matrix}_{which}"
    for matrix in _MATRICES
    for which in ("row", "col", *(f"batch{axis}" for axis in range(BATCH_DIMS)))
)


def common_slots(problem: Problem, size: int) -> dict[str, int | str]:
    """Addresses, as the caller's names for them, batch sizes and strides of a product."""
    pad = (0,) * (BATCH_DIMS - len(problem.batch))
    sizes = (*(1 for _ in pad), *problem.batch)
    slots: dict[str, int | str] = {"workspace": "workspace", "a": problem.names[0], "b": problem.names[1], "c": "c"}
    slots |= {"batch1": sizes[1], "batch2": sizes[2]}
    slots |= {f"{name}_{which}": 0 for name in _OPERANDS for which in ("batch0", "batch1", "batch2", "row")}
    slots |= {name: 0 for name in _OPERANDS} | {f"{name}_col": size for name in _OPERANDS}
    for name, matrix in zip(_MATRICES, problem.matrices, strict=False):
        if name in _OPERANDS:
            slots[name] = name
        slots |= {f"{name}_row": matrix.row * size, f"{name}_col": matrix.col * size}
        slots |= {f"{name}_batch{axis}": stride * size for axis, stride in enumerate((*pad, *matrix.batch))}
    return slots


def of_batch(at: Mapping[str, Int], matrix: Int) -> list[Int]:
    """Addresses of A, B, C and the epilogue's operands for one matrix of the batch."""
    outer = matrix // at["batch2"]
    place = outer // at["batch1"], outer % at["batch1"], matrix % at["batch2"]
    addresses = []
    for name in _MATRICES:
        address = at[name]
        for axis, index in enumerate(place):
            address = address + index * at[f"{name}_batch{axis}"]
        addresses.append(address)
    return addresses
