"""A loop kernel that follows a product element for element: an update, most of all.

It runs on strips of C, some rows each, as soon as they are there, while the tiles of the next strip are multiplied: so
C is never in memory as a whole, and what the loop does takes little time of its own. It is called as always, by
[start, stop) of its units, which are the elements of C in order. The address it finds for C is changed for each call.

The product finds at an address five int64 words: the follower's entry, its slots' address, the address of that of its
slots which holds the address of C, and those of two that hold addresses of other arrays it goes through, or 0. A
blocked product has its tiles fetch them. The state of the work on a strip is some int64 words, too.
"""

from typing import Any

from graphjit.kernels.emit import ENTRY, I64, Int, call, function, load, loop, only_if, store
from graphjit.kernels.slots import Words
from graphjit.kernels.tiles import array

NEAR = 2  # arrays of the follower that the product may fetch
HANDED = 3 + NEAR  # words at the address that the product is given
LEAST = 256  # elements of a call, if there are as many: fewer would cost more than they hide

WORDS = (
    "entry", "slots", "hole",  # of the follower
    "near", "other",  # addresses of two arrays that it reads element for element, 0 for none
    "strip", "pitch", "width", "rows",  # address of a strip, bytes from row to row, elements of a row, rows
    "first", "whole",  # its first element's place in C, elements of a row of C
    "row", "column",  # of the next call
    "most",  # elements of a call
    "size",  # bytes of an element
)  # fmt: skip


class Follower(Words):
    """The state."""

    def __init__(self, builder: Any, base: Int | None = None) -> None:
        super().__init__(builder, WORDS, array(builder, I64, len(WORDS)) if base is None else base)

    def take_up(self, told: Int, follows: Any, whole: Int, size: int) -> None:
        """Begin with what a product has been told of its follower, if it has one: there is no strip yet. `whole`:
        elements of a row of C."""
        with self.builder.if_then(follows):
            words = [Int(self.builder, load(told + 8 * i, I64, 8)) for i in range(HANDED)]
            words[3:] = [_held(word) for word in words[3:]]
            self.set(**dict(zip(WORDS, words, strict=False)), whole=whole, rows=0, row=0, size=size)

    @property
    def place(self) -> Int:
        """The place in C of the next call's first element."""
        return self["first"] + self["whole"] * self["row"] + self["column"]

    def begin(self, strip: Int, rows: Int, width: Int, first: Int) -> None:
        """Take up the next strip, whose rows lie one behind the other."""
        whole = width == self["whole"]  # then it is one long row
        self.set(strip=strip, pitch=width * self["size"], rows=Int(self.builder, 1).where(whole, rows),
                 width=(width * rows).where(whole, width), first=first, row=0, column=0)  # fmt: skip


def _held(address: Int) -> Int:
    """What is there, 0 at no address."""
    return only_if(address != 0, [address], lambda: [Int(address.builder, load(address, I64, 8))])[0]


def follow_function(module: Any) -> Any:
    """`follow(state)`: the next call, if there is something left of the strip."""
    name = "tile_follow"
    if name in module.globals:
        return module.globals[name]
    made, b, (address,) = function(module, name, 1)
    state = Follower(b, address)
    row, column = state["row"], state["column"]
    with b.if_then(row < state["rows"]):
        start = state.place
        stop = start + (state["width"] - column).min(state["most"])
        store((state["strip"] + state["pitch"] * row + (column - start) * state["size"]).value, state["hole"], 8)
        b.call(b.inttoptr(state["entry"].value, ENTRY.as_pointer()),
               [b.inttoptr(state["slots"].value, I64.as_pointer()), start.value, stop.value])
        then = column + (stop - start)
        ends = then >= state["width"]
        state.set(row=(row + 1).where(ends, row), column=Int(b, 0).where(ends, then))
    b.ret_void()
    return made


def rest_function(module: Any) -> Any:
    """`rest(state)`: all that is left of the strip."""
    name = "tile_follow_rest"
    if name in module.globals:
        return module.globals[name]
    made, b, (address,) = function(module, name, 1)
    state = Follower(b, address)
    state.set(most=1 << 40)
    with loop(state["row"], state["rows"]):
        call(follow_function(module), b, [address])
    b.ret_void()
    return made
