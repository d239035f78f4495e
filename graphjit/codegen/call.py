"""What a kernel call is: the kernel, its arguments, what it reads and writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


@dataclass(frozen=True, slots=True)
class Handed:
    """The address of what a product has to know of the kernel that follows it (``kernels/follower.py``)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The address of the code of another kernel, which this one calls."""

    kernel: Kernel


Slot = int | float | Address | Status | Handed | Entry


@dataclass(frozen=True, slots=True)
class Move:
    """A slot of a part of a group: an address from which so many bytes are taken for each strip before this one."""

    part: int
    slot: int
    nbytes: int


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
        strict: it is to be split at no others, as units beside each other touch the same lines again and again.
        tail: the last unit of the extent runs behind all others.
        cost: estimated time on one thread, ns.
        also: kernels that it calls, and those that other sizes would take: compiled along, so that a new batch size
            costs no compile.
        spans: gives bytes of buffers by unit: unit u touches bytes [u * span, (u + 1) * span) of the buffer, and no
            others (what a tail touches does not count). Buffers of which that is not so are left out.
        cuts: for buffers that threads may cut in another way than in order, how many elements of memory the axis
            spans that they cut: they have the same part of a buffer where that is the same. 0: all read all of it.
        repeated: of the cost, what each thread that takes part does again, ns.
        least: units that should run together: with fewer, work that every run repeats would show.
        parts: the kernels of a group that runs strip by strip (`codegen/strips.py`): a unit of the group is a strip,
            so many units of each part, ``strip``.
        moves: addresses of buffers that have memory for one strip only.
        handing: makes the call, and its scratch memory, that hands what this one computes to another kernel, by
            'strips' or by 'tiles'; or None.
        then: the kernel that this one runs on strips of what it computes, of which slot ``hole`` is the address; of
            tiles, a kernel that it runs first, which tells them in so many ``words`` what they do with theirs.
        fetches: whether handing pays because this one fetches what else the other kernel reads.
        near: slots of `then`, two at most, that are addresses of other arrays it goes through as it does through those.
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
    strict: bool = False
    tail: bool = False
    cost: float = 0.0
    also: tuple[Kernel, ...] = ()
    tangled: tuple[Node, ...] = ()
    spans: Callable[[], Mapping[Node, int]] = dict
    cuts: Mapping[Node, int] = field(default_factory=dict)
    repeated: float = 0.0
    least: int = 1
    parts: tuple[KernelCall, ...] = ()
    strip: tuple[int, ...] = ()
    moves: tuple[Move, ...] = ()
    handing: Callable[[str], KernelCall | None] | None = None
    then: KernelCall | None = None
    hole: int = 0
    near: tuple[int, ...] = ()
    words: int = 0
    fetches: bool = False

    @property
    def calls(self) -> tuple[KernelCall, ...]:
        """The kernels that run: the parts of a group, else this one and what follows it."""
        return self.parts or ((self,) if self.then is None else (self, self.then))


@dataclass(slots=True, eq=False)
class HostCall:
    """A node computed by its eager rule between kernels."""

    node: Any
    reads: tuple[Node, ...]
    writes: tuple[Node, ...]
    title: str
    where: tuple[Where, ...] = field(default=())


Step = KernelCall | HostCall
