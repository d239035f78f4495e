"""What a kernel call is: the kernel, its arguments, what it reads and writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graphjit.errors import Where
from graphjit.ir import Node

if TYPE_CHECKING:
    from graphjit.runtime.compiler import Kernel


@dataclass(frozen=True, slots=True, eq=False)
class Scratch:
    """Memory a kernel needs while it runs; its contents mean nothing before and after the calls that name it.

    Each thread has its own, or there is one for all in ``common``.
    """

    nbytes: int
    common: bool = False


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a buffer, plus an offset in bytes."""

    buffer: Node | Scratch
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """The address of the program's status word: a kernel that finds bad data writes a number there."""


Slot = int | float | Address | Status


@dataclass(slots=True, eq=False)
class KernelCall:
    """One row of a program.

    Attributes:
        kernel: what runs.
        codes: type code of each argument ("*float32", "int64", ...).
        slots: value of each argument.
        extent: the kernel runs [0, extent) of its outermost loop, or any part of it.
        reads, writes: nodes whose buffers it reads and writes.
        title, where: for reports.
        flops, nbytes: estimates of its work and of the memory it must touch.
        source: the Python text with the user's lines; empty for library kernels.
        checks: whether it may set the status word.
        align: the extent is best split at multiples of this.
        tail: the last unit of the extent runs behind all others.
        cost: estimated time on one thread, ns.
        also: kernels that other sizes would take: compiled along, so that a new batch size costs no compile.
        tangled: states it may not overwrite after all, as it reads them elsewhere.
    """

    kernel: Kernel
    codes: tuple[str, ...]
    slots: tuple[Slot, ...]
    extent: int
    reads: tuple[Node, ...]
    writes: tuple[Node, ...]
    title: str
    where: tuple[Where, ...] = ()
    flops: int = 0
    nbytes: int = 0
    source: str = ""
    checks: bool = False
    align: int = 1
    tail: bool = False
    cost: float = 0.0
    also: tuple[Kernel, ...] = ()
    tangled: tuple[Node, ...] = ()


@dataclass(slots=True, eq=False)
class HostCall:
    """A node computed by its eager rule between kernels."""

    node: Any
    reads: tuple[Node, ...]
    writes: tuple[Node, ...]
    title: str
    where: tuple[Where, ...] = field(default=())


Step = KernelCall | HostCall
