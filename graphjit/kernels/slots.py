"""The arguments that all matrix-product kernels have: addresses, batch sizes, strides in bytes."""

from collections.abc import Sequence
from math import prod
from typing import Any

from graphjit.kernels.emit import I64, Int, load, only_if, store
from graphjit.kernels.epilogue import OPERANDS
from graphjit.kernels.problem import Problem

BATCH_DIMS = 3
_OPERANDS = tuple(f"e{i}" for i in range(OPERANDS))
_MATRICES = ("a", "b", "c", *_OPERANDS)

ADDRESSES = (*_MATRICES, "workspace")
BATCH = ("matrices", "batch1", "batch2")
STRIDES = tuple(f"{matrix}_{which}" for matrix in _MATRICES for which in ("row", "col"))
BATCH_STRIDES = tuple(f"{matrix}_batch{axis}" for matrix in _MATRICES for axis in range(BATCH_DIMS))


def common_slots(problem: Problem, size: int) -> dict[str, int | str]:
    """Addresses, as the caller's names for them, batch sizes and strides of a product."""
    pad = (0,) * (BATCH_DIMS - len(problem.batch))
    sizes = (*(1 for _ in pad), *problem.batch)
    slots: dict[str, int | str] = dict.fromkeys((*ADDRESSES, *STRIDES, *BATCH_STRIDES), 0)  # as unused ones stay
    slots |= {"matrices": prod(sizes), "batch1": sizes[1], "batch2": sizes[2], "workspace": "workspace"}
    slots |= {f"{name}_col": size for name in _OPERANDS}
    for name, matrix in zip(_MATRICES, problem.matrices, strict=False):
        slots |= {name: name, f"{name}_row": matrix.row * size, f"{name}_col": matrix.col * size}
        slots |= {f"{name}_batch{axis}": stride * size for axis, stride in enumerate((*pad, *matrix.batch))}
    slots["a"], slots["b"] = problem.names
    return slots


class Words:
    """Int64 words in memory by name, each read where it is needed."""

    def __init__(self, builder: Any, names: Sequence[str], base: Int) -> None:
        self.builder, self.base, self.places = builder, base, {name: 8 * i for i, name in enumerate(names)}

    def __getitem__(self, name: str) -> Int:
        return Int(self.builder, load(self.base + self.places[name], I64, 8))

    def set(self, **words: Int | int) -> None:
        """Write some of them."""
        for name, value in words.items():
            number = value if isinstance(value, Int) else Int(self.builder, value)
            store(number.value, self.base + self.places[name], 8)


class Slots(Words):
    """The slots of the kernel that is being emitted: there are more than registers, and few matter to most products."""

    def __init__(self, builder: Any, names: Sequence[str]) -> None:
        super().__init__(builder, names, Int(builder, builder.ptrtoint(builder.function.args[0], I64)))


def matrices(at: Slots, start: Int, stop: Int) -> tuple[Int, Int]:
    """The matrices that units [start, stop) are of, from first to behind the last."""
    units, zero = at["units"], Int(start.builder, 0)
    first, end = only_if(at["matrices"] != 1, [zero, zero + 1],
                         lambda: [start // units, (stop + units - 1) // units])  # fmt: skip
    return first, end


def of_matrix(at: Slots, matrix: Int) -> list[Int]:
    """Addresses of A, B, C and the epilogue's operands for one matrix of the batch."""

    def several() -> list[Int]:
        outer = matrix // at["batch2"]
        return [outer // at["batch1"], outer % at["batch1"], matrix % at["batch2"]]

    def addresses() -> list[Int]:
        zero = Int(matrix.builder, 0)
        place = only_if(at["matrices"] != at["batch2"], [zero, zero, matrix], several)
        result = []
        for name in _MATRICES:
            address = at[name]
            for axis, index in enumerate(place):
                address = address + index * at[f"{name}_batch{axis}"]
            result.append(address)
        return result

    return only_if(at["matrices"] != 1, [at[name] for name in _MATRICES], addresses)
