"""Random programs over the public functions, for tests by hypothesis.

A program is the text of a function, so that a failing one is printed as what a user would write. Its values are
computed as it is drawn, twice: at the dtypes it has (narrow), and with float64 for float32 (wide, the reference).
A step whose result is not finite, too large or too long is left out again. *Exact* floats are small multiples of
a power of two that both modes computed alike: only these reach steps that jump (comparisons, roundings) or have a
kink (abs, max), where rounding would decide.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

import graphjit as gj

Array = np.ndarray[Any, Any]
Names = dict[str, Any]

MARGIN = 1e3          # larger floats are not let in
GRID = 2.0**10        # exact floats are multiples of 1 / GRID, below MARGIN
SEED = 20


@dataclass(frozen=True)
class Given:
    """An input.

    ``role``: "argument"; or captured (then lengths of one are structural), "tensor" or "array" of NumPy.
    ``memory``: how it lies, "plain", "transposed", "reversed" or "strided".
    """

    name: str
    array: Array
    role: str
    memory: str

    def laid_out(self, wide: bool) -> Array:
        array = self.array.astype(np.float64) if wide and self.array.dtype == np.float32 else self.array
        match self.memory:
            case "transposed":
                return np.array(array.T, order="C").T
            case "reversed":
                return np.array(array[..., ::-1])[..., ::-1] if array.ndim else array.copy()
            case "strided":
                out = np.zeros((*array.shape, 2), array.dtype)[..., 0]
                out[...] = array
                return out
            case _:
                return np.array(array)


@dataclass(frozen=True)
class Program:
    """The text of a function, and what it is called with; ``eps`` is the coarsest rounding that takes part."""

    inputs: tuple[Given, ...]
    lines: tuple[str, ...]
    outputs: tuple[str, ...]
    eps: float

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # what hypothesis shows
        printer.text(repr(self))

    def __repr__(self) -> str:
        what = [f"{g.name}: {g.array.dtype}{list(g.array.shape)}, {g.role}, {g.memory} = "
                + np.array2string(g.array, separator=",", threshold=40).replace("\n", "") for g in self.inputs]
        return "\n".join(["", *what, self.text()])

    def text(self) -> str:
        names = ", ".join(g.name for g in self.inputs if g.role == "argument")
        lifted = [f"{g.name} = gj.tensor({g.name}_array)" for g in self.inputs if g.role == "array"]
        return "\n    ".join([f"def program({names}):", *lifted, *self.lines,
                              f"return ({''.join(o + ', ' for o in self.outputs)})"]) + "\n"

    def arguments(self, wide: bool = False) -> list[Array]:
        return [g.laid_out(wide) for g in self.inputs if g.role == "argument"]

    def function(self, wide: bool = False, rng: gj.Generator | None = None) -> Callable[..., tuple[gj.Tensor, ...]]:
        """The function, with its own captured tensors (and random generator)."""
        names = names_for(wide, rng or gj.Generator(SEED))
        names |= {g.name: gj.Tensor(g.laid_out(wide)) for g in self.inputs if g.role == "tensor"}
        names |= {g.name + "_array": g.laid_out(wide) for g in self.inputs if g.role == "array"}
        exec(compile(self.text(), "<program>", "exec"), names)
        found: Callable[..., tuple[gj.Tensor, ...]] = names["program"]
        return found

    def floats(self) -> tuple[int, ...]:
        """Positions of the arguments that have gradients."""
        arguments = [g for g in self.inputs if g.role == "argument"]
        return tuple(i for i, g in enumerate(arguments) if g.array.dtype.kind == "f")

    def with_gradients(self, wide: bool = False, rng: gj.Generator | None = None) -> Callable[..., tuple[Any, ...]]:
        """A function that gives the results, and the gradients of a weighted sum of the floating ones."""
        function, places = self.function(wide, rng), self.floats()

        def loss(*args: Any) -> tuple[gj.Tensor, tuple[gj.Tensor, ...]]:
            outputs = function(*args)
            return gj.tensor(0.0, dtype=np.float64) + sum(weighted(t) for t in outputs if t.dtype.kind == "f"), outputs

        def both(*args: Any) -> tuple[Any, ...]:
            (_, outputs), gradients = gj.value_and_grad(loss, argnums=places, has_aux=True)(*args)
            return outputs, gradients
        return both if places else lambda *args: (function(*args), ())


def weighted(t: gj.Tensor) -> gj.Tensor:
    """A sum with weights that differ from element to element."""
    weights = (np.arange(t.size) % 5 + 1).reshape(tuple(map(int, t.shape))) / 4
    return (t.astype(np.float64) * weights).sum()


def names_for(wide: bool, rng: gj.Generator) -> Names:
    return {"gj": gj, "np": np, "rng": rng, "F32": np.float64 if wide else np.float32}


# ---- drawing

@dataclass
class Known:
    """A value of the program being drawn."""

    name: str
    narrow: Array
    exact: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return self.narrow.shape

    @property
    def kind(self) -> str:
        return self.narrow.dtype.kind

    @property
    def largest(self) -> float:
        return float(np.abs(self.narrow.astype(np.float64)).max(initial=0.0))


Made = str | tuple[str, ...] | None   # an expression; several statements, the last an expression; nothing fitted
Rule = Callable[["Draw"], Made]


@dataclass
class Draw:
    """The program so far, and choices for its next step."""

    choose: Callable[..., Any]
    sizes: Sequence[int]
    limit: int
    inputs: list[Given] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    values: list[Known] = field(default_factory=list)
    narrow: Names = field(default_factory=lambda: names_for(False, gj.Generator(SEED)))
    wide: Names = field(default_factory=lambda: names_for(True, gj.Generator(SEED)))

    def one(self, options: Sequence[Any]) -> Any:
        return options[0] if len(options) == 1 else self.choose(st.sampled_from(list(options)))

    def int(self, low: int, high: int) -> int:
        return int(self.choose(st.integers(low, high)))

    def flag(self) -> bool:
        return bool(self.choose(st.booleans()))

    def shape(self, low: int = 0, high: int = 3) -> tuple[int, ...]:
        shape = tuple(self.one(self.sizes) for _ in range(self.int(low, high)))
        while math.prod(shape) > self.limit:
            shape = shape[1:]
        return shape

    def value(self, kinds: str = "f", fits: Callable[[Known], bool] = lambda v: True) -> Known | None:
        """One of the values of these kinds ('f', 'i', 'b'; 'x': exact floats)."""
        found = [v for v in self.values
                 if (v.kind in kinds or ("x" in kinds and v.kind == "f" and v.exact)) and fits(v)]
        return self.one(found[::-1]) if found else None

    def axis(self, v: Known) -> int:
        return self.int(-len(v.shape), len(v.shape) - 1)

    def axes(self, v: Known) -> int | tuple[int, ...] | None:
        if not v.shape or self.int(0, 3) == 0:
            return None
        if self.flag():
            return self.axis(v)
        chosen = [i for i in range(len(v.shape)) if self.flag()]
        return tuple(i - len(v.shape) if self.flag() else i for i in chosen)

    def give(self, shape: tuple[int, ...], kind: str) -> Known:
        """A new input."""
        rng = np.random.default_rng(self.int(0, 2**16))
        match kind:
            case "f":
                quarters = rng.integers(-8, 9, shape) / 4
                array = quarters.astype(self.one([np.float32, np.float32, np.float64]))
            case "i":
                array = rng.integers(-9, 10, shape).astype(self.one([np.int64, np.int32]))
            case _:
                array = rng.integers(0, 2, shape).astype(np.bool_)
        memory = self.one(["plain", "plain", "transposed", "reversed", "strided"])
        role = self.one(["argument", "argument", "argument", "argument", "tensor", "array"])
        given = Given(f"v{len(self.values)}", np.asarray(array), role, memory)
        self.inputs.append(given)
        return self.enter(given.name, gj.Tensor(given.laid_out(False)), gj.Tensor(given.laid_out(True)))

    def enter(self, name: str, narrow: gj.Tensor, wide: gj.Tensor) -> Known:
        self.narrow[name], self.wide[name] = narrow, wide
        array = np.asarray(narrow.data)
        exact = array.dtype.kind != "f" or bool(
            (array == wide.data).all() and (np.rint(array * GRID) == array * GRID).all())
        known = Known(name, array, exact)
        self.values.append(known)
        return known

    def step(self, rule: Rule) -> Known | None:
        """Add what a rule makes, unless nothing fits or its values leave the range."""
        made = rule(self)
        if made is None:
            return None
        name = f"v{len(self.values)}"
        *before, last = (made,) if isinstance(made, str) else made
        lines = [*before, f"{name} = {last}"]
        narrow, wide = (dict(names) for names in (self.narrow, self.wide))
        draws = self.narrow["rng"].state, self.wide["rng"].state
        for names in (narrow, wide):
            exec("\n".join(lines), names)
        result = narrow[name]
        with np.errstate(all="ignore"):
            fine = result.size <= self.limit and (result.dtype.kind != "f" or bool(
                np.isfinite(result.data).all() and np.abs(result.data).max(initial=0) < MARGIN))
        if not fine:
            self.narrow["rng"].state, self.wide["rng"].state = draws
            return None
        self.lines += lines
        return self.enter(name, result, wide[name])


@st.composite
def programs(draw: Callable[..., Any], steps: int = 12, limit: int = 2000) -> Program:
    """Programs of up to so many steps whose values have at most ``limit`` elements.

    Their lengths come from few numbers, so that axes are equal by chance; 0 and 1 are among them.
    """
    from program_steps import RULES
    pool = [1, 2, 3, 4, 5, 7] + [16, 17, 33] * (limit >= 500) + [64, 96, 130] * (limit >= 20_000)
    sizes = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=3))
    if draw(st.integers(0, 9)) == 9:
        sizes.append(0)
    state = Draw(draw, sizes, limit)
    state.give(state.shape(1), "f")
    for _ in range(draw(st.integers(0, 2))):
        state.give(state.shape(), state.one(["f", "f", "i", "b"]))
    for _ in range(draw(st.sampled_from([1, 3, *range(6, steps + 1)]))):
        state.step(state.one(RULES))
    unused = [v.name for v in state.values if not any(uses(line, v.name) for line in state.lines)]
    outputs = unused[-4:] or [state.values[-1].name]
    for _ in range(draw(st.integers(0, 2))):
        outputs.append(state.one([v.name for v in state.values][::-1]))
    single = any("F32" in line for line in state.lines) or any(v.narrow.dtype == np.float32 for v in state.values)
    eps = float(np.finfo(np.float32 if single else np.float64).eps)
    return Program(tuple(state.inputs), tuple(state.lines), tuple(outputs), eps)


def uses(line: str, name: str) -> bool:
    """Whether a statement reads a value."""
    head, _, rest = line.partition(" = ")
    return bool(re.search(rf"\b{name}\b", rest if head.isidentifier() else line))


# ---- comparing

def mismatch(what: str, got: Array, eager: Array, wide: Array, eps: float) -> str:
    """Why a result is wrong; empty if it is right.

    Integers and bools must be equal. Floats may differ from the wide reference by rounding of precision ``eps``:
    of the size of their array, and as far as the eager result does too.
    """
    if got.dtype != eager.dtype or got.shape != eager.shape:
        return f"{what}: {got.dtype}{got.shape}, not {eager.dtype}{eager.shape}"
    if got.dtype.kind != "f":
        return "" if np.array_equal(got, eager) else f"{what}:\n{got}\nbut eagerly\n{eager}"
    scale = max(1.0, float(np.abs(wide).max(initial=0.0)))
    allowed = 2000 * eps * scale + 20 * float(np.abs(eager - wide).max(initial=0.0))
    wrong = ~(np.abs(got - wide) <= allowed)
    if not wrong.any():
        return ""
    return f"{what}: wrong by {np.abs(got - wide).max()}, {allowed} allowed\n{got}\nbut eagerly\n{eager}"
