"""The arguments of a generated kernel, and the kernel call before its numbers are known.

What depends on a length the caller chose is a function of the lengths of the loops, so that one writing serves
every batch size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from graphjit.codegen.call import Address, Entry
from graphjit.codegen.source import stored_name
from graphjit.errors import Where
from graphjit.ir import Apply, Const, Node
from graphjit.types import DType, Extent

if TYPE_CHECKING:
    from graphjit.runtime.kernel import Kernel

Use = tuple[Apply, int]  # a node and the number of its operand
Count = Callable[[Sequence[int]], int]  # of the lengths of the loops


@dataclass(frozen=True, slots=True)
class Room:
    """The address of so many bytes of scratch memory, one for all threads if ``common``."""

    nbytes: Count
    common: bool = False


@dataclass(frozen=True, slots=True)
class Stride:
    """A stride that depends on lengths the caller chose, of what lies in a buffer from an offset in bytes on."""

    buffer: Node
    offset: int
    value: int


@dataclass(frozen=True, slots=True)
class Scalar:
    """A constant as the operand of a node.

    Each use is an argument of its own: constants that are equal by chance (at one batch size) must not make another
    kernel.
    """

    node: Const
    use: Use


Argument = Count | Room | Stride | Address | Scalar | Entry | int


@dataclass(frozen=True, slots=True)
class Written:
    """A loop nest as it was written.

    Attributes:
        name, source, codes: of the kernel.
        arguments: what each of them is.
        loops: the axes of each loop.
        work: how often something is computed in each turn of some loops, at so many ns: ``(loops, ns), times``.
        extent: of the kernel, see ``KernelCall``, as are the rest.
    """

    name: str
    source: str
    codes: tuple[str, ...]
    arguments: tuple[Argument, ...]
    loops: tuple[tuple[int, ...], ...]
    work: tuple[tuple[tuple[tuple[int, ...], float], int], ...]
    extent: Count
    align: int
    strict: bool
    tail: bool
    title: str
    where: tuple[Where, ...]
    reads: tuple[Node, ...]
    writes: tuple[Node, ...]
    tangled: tuple[Node, ...]


class Arguments:
    """The arguments of a kernel in the making, each there once.

    Args:
        known: the lengths of loops that stand in the source instead.
    """

    def __init__(self, known: Mapping[int, int]) -> None:
        self.known = known
        self.codes: list[str] = []
        self.values: list[Argument] = []
        self.params: list[str] = []
        self.names: dict[object, str] = {}
        self.reads: dict[Node, None] = {}
        self.writes: dict[Node, None] = {}

    def add(self, key: object, prefix: str, code: str, value: Argument) -> str:
        """The name of the argument known by a key."""
        name = self.names.get(key)
        if name is None:
            name = f"{prefix}{sum(p.startswith(prefix) for p in self.params)}"
            self.names[key] = name
            self.params.append(name)
            self.codes.append(code)
            self.values.append(value)
        return name

    def pointer(self, buffer: Node, offset: int, writes: bool = False) -> str:
        (self.writes if writes else self.reads)[buffer] = None
        dtype = buffer.type.dtype
        return self.add((buffer, offset), "p", "*" + stored_name(dtype), Address(buffer, offset * dtype.itemsize))

    def scratch(self, key: object, loops: Sequence[int], dtype: DType, many: int = 1, more: int = 0) -> str:
        """Memory for so many values at each turn of some loops, and of some more turns."""
        return self.add(("scratch", key), "t", "*" + stored_name(dtype),
                        Room(partial(_bytes, tuple(loops), dtype.itemsize * many, more)))

    def entry(self, kernel: Kernel) -> str:
        """The code of another kernel."""
        return self.add(("entry", kernel), "f", "int64", Entry(kernel))

    def extent(self, k: int) -> str:
        if k in self.known:
            return str(self.known[k])
        return self.add(("extent", k), "n", "int64", turns(k))

    def stride(self, key: object, buffer: Node, offset: int, stride: int) -> str:
        value = Stride(buffer, offset * buffer.type.dtype.itemsize, stride) if isinstance(stride, Extent) else stride
        return self.add(("stride", key), "s", "int64", value)


def turns(*loops: int) -> Count:
    """How often the inside of some loops runs."""
    return partial(_turns, loops)


def _turns(loops: tuple[int, ...], lengths: Sequence[int]) -> int:
    return math.prod([lengths[k] for k in loops])


def _bytes(loops: tuple[int, ...], itemsize: int, more: int, lengths: Sequence[int]) -> int:
    return (max(_turns(loops, lengths), 1) + more) * itemsize
