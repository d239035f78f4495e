"""Tiles of dot products: sums of products of rows of A and columns of B, both contiguous, vectors along k.

Each sum is `lanes` chains of multiply-adds, then a tree over the lanes: the same in every tile, so the tile a number
falls into does not change its bits.
"""

import functools
from collections.abc import Sequence
from itertools import product
from typing import Any

from llvmlite import ir

from graphjit.kernels.emit import F32, I32, I64, Int, intrinsic, load, masked_load, store
from graphjit.kernels.target import Element, target
from graphjit.kernels.tiles import assembled, tile_table

# `tile(a, a row, b, b column, k, to, step)`: rows of sums, each so many bytes behind the one before
TILE = ir.FunctionType(ir.VoidType(), [I64] * 7)
LINES = 8  # vectors of a column that stays in registers


@functools.cache
def heights() -> tuple[int, ...]:
    """Rows of the tallest tile of 1, 2, ... columns; neither is more than a vector's lanes."""
    return (8, 8, 6, 6, 5) if target().assembly else (4, 4)


def dot_table(module: Any, element: Element) -> Any:
    """The addresses of the tiles by columns and rows."""
    shapes = [(rows, columns) for columns, most in enumerate(heights(), 1) for rows in range(1, most + 1)]
    prefix = f"dot_{element.suffix}_"
    names = {f"{prefix}{rows}x{columns}": (rows, columns) for rows, columns in shapes}

    def make() -> dict[tuple[int, int], Any]:
        if target().assembly:
            text = [line for name, shape in names.items() for line in _assembly(element, name, *shape)]
            of_lines = {f"{prefix}lines{vectors}": (vectors, 0) for vectors in range(1, LINES + 1)}
            text += [line for name, (vectors, _) in of_lines.items() for line in _of_lines(element, name, vectors)]
            made = assembled(module, prefix + "all", "\n".join(text), TILE, [*names, *of_lines])
            return dict(zip([*shapes, *of_lines.values()], made, strict=True))
        return {shape: _emitted(module, element, name, *shape) for name, shape in names.items()}

    return tile_table(module, f"{prefix}tiles", TILE, len(heights()), make)


# ---- AVX-512 assembly: rdi a, rsi a row, rdx b, rcx b column, r8 k, r9 to, 8(%rsp) step ---------------------


def _assembly(element: Element, name: str, height: int, width: int) -> list[str]:
    kind = "ps" if element.size == 4 else "pd"
    x = _places(height)
    y = [f"(%rdx{place})" for place in ("", ",%rcx", ",%rcx,2", ",%rax", ",%rcx,4")[:width]]
    cells = height * width
    lines = [".p2align 5", f"{name}:", "mov %r8d, %eax", f"and ${element.lanes - 1}, %eax", "mov $-1, %r10d",
             "bzhi %eax, %r10d, %r10d", "kmovw %r10d, %k1", f"shr ${element.lanes.bit_length() - 1}, %r8",
             "lea (%rsi,%rsi,2), %r10"]  # fmt: skip
    if height > 5:
        lines.append("lea (%rsi,%rsi,4), %r11")
    if height > 7:
        lines.append("lea (%r11,%rsi,2), %rax")
    if width > 3:
        lines.append("lea (%rcx,%rcx,2), %rax")
    lines += [f"vpxord %zmm{cell}, %zmm{cell}, %zmm{cell}" for cell in range(cells)]

    def step(mask: str, count: int = 1) -> list[str]:
        held = [[f"%zmm{31 - count * j - at}" for at in range(count)] for j in range(width)]
        passing = [f"%zmm{r}" for r in range(cells, 32 - count * width)]
        found = [f"vmovu{kind} {64 * at}{y[j]}, {held[j][at]}{mask}" for j in range(width) for at in range(count)]
        for i, at in product(range(height), range(count)):
            row = passing[(i * count + at) % len(passing)]
            found.append(f"vmovu{kind} {64 * at}{x[i]}, {row}{mask}")
            found += [f"vfmadd231{kind} {row}, {held[j][at]}, %zmm{i * width + j}" for j in range(width)]
        return found

    # neighbouring cache lines together, if there are registers: the second-level cache is faster at that
    count = 2 if cells + 2 * width < 32 else 1
    lines += [f"sub ${count}, %r8", "jl 2f", ".p2align 5", "1:", *step("", count), f"add ${64 * count}, %rdi",
              f"add ${64 * count}, %rdx", f"sub ${count}, %r8", "jge 1b", "2:"]  # fmt: skip
    if count > 1:
        lines += ["test $1, %r8b", "jz 4f", *step(""), "add $64, %rdi", "add $64, %rdx", "4:"]
    lines += ["kortestw %k1, %k1", "jz 3f", *step("{%k1}{z}"), "3:"]
    joins, vectors = _joined(kind, cells, (30, 31))
    return [*lines, *joins, *_stores(element, height, width, vectors), "vzeroupper", "ret"]


def _places(height: int) -> list[str]:
    """Where rows of A begin: r10, r11, rax hold 3, 5 and 7 times their distance."""
    behind = ("", ",%rsi", ",%rsi,2", ",%r10", ",%rsi,4", ",%r11", ",%r10,2", ",%rax")
    return [f"(%rdi{place})" for place in behind[:height]]


def _joined(kind: str, cells: int, free: tuple[int, int]) -> tuple[list[str], list[int]]:
    """The sums of the first so many registers, and which are full of them then."""
    # two vectors become one that holds half as many parts of each sum: within 128 bits, then of 128 bits
    halves = [(f"vunpckl{each}", f"vunpckh{each}") for each in (("ps", "pd") if kind == "ps" else ("pd",))]
    halves += [("vshuff32x4 $0x88,", "vshuff32x4 $0xdd,")] * 2
    lines, vectors, (x, y) = [], list(range(cells)), free
    for low, high in halves:
        pairs = _pairs(vectors)
        vectors = [first for first, _ in pairs]
        for first, second in pairs:
            lines += [f"{low} %zmm{second}, %zmm{first}, %zmm{x}", f"{high} %zmm{second}, %zmm{first}, %zmm{y}",
                      f"vadd{kind} %zmm{x}, %zmm{y}, %zmm{first}"]  # fmt: skip
    return lines, vectors


def rows_at_once(vectors: int) -> int:
    """Rows that are a kilobyte together, if they are dense."""
    return 8 if vectors <= 2 else 4 if vectors <= 4 else 2


def _of_lines(element: Element, name: str, vectors: int) -> list[str]:
    """The products of many rows with one column of so many vectors, which stays in registers: `rcx` is how many rows, a
    multiple of those at once. The sums lie together.

    Each row is read from its beginning to its end. A processor that sees an instruction read every kilobyte fetches
    what it will read next; it does not find out where tiles read 8 rows side by side.
    """
    kind, rows = "ps" if element.size == 4 else "pd", rows_at_once(vectors)
    column, passing = [f"%zmm{31 - v}" for v in range(vectors)], [f"%zmm{rows + i}" for i in range(rows)]
    lines = [".p2align 5", f"{name}:", "dec %r8d", f"and ${element.lanes - 1}, %r8d", "inc %r8d", "mov $-1, %eax",
             "bzhi %r8d, %eax, %eax", "kmovw %eax, %k1", "lea (%rsi,%rsi,2), %r10", "lea (%rsi,%rsi,4), %r11",
             "lea (%r11,%rsi,2), %rax"]  # fmt: skip
    lines += [f"vmovu{kind} {64 * v}(%rdx), {x}{'{%k1}{z}' * (v == vectors - 1)}" for v, x in enumerate(column)]
    lines += [".p2align 5", "1:"]
    for i, (x, last) in enumerate(zip(_places(rows), passing, strict=True)):
        lines.append(f"vpxord %zmm{i}, %zmm{i}, %zmm{i}")
        lines += [f"vfmadd231{kind} {64 * v}{x}, {y}, %zmm{i}" for v, y in enumerate(column[:-1])]
        lines += [f"vmovu{kind} {64 * (vectors - 1)}{x}, {last}{{%k1}}{{z}}",
                  f"vfmadd231{kind} {last}, {column[-1]}, %zmm{i}"]  # fmt: skip
    joins, (sums, *more) = _joined(kind, rows, (rows, rows + 1))
    stores = [_store(v, min(rows, element.lanes), element.size, f"{64 * i}(%r9)") for i, v in enumerate([sums, *more])]
    return [*lines, *joins, *stores, f"lea (%rdi,%rsi,{rows}), %rdi", f"add ${rows * element.size}, %r9",
            f"sub ${rows}, %rcx", "jnz 1b", "vzeroupper", "ret"]  # fmt: skip


def _stores(element: Element, height: int, width: int, vectors: list[int]) -> list[str]:
    """Store rows of sums, from vectors that are full of them: whole vectors where rows lie together."""
    size, lanes, cells = element.size, element.lanes, height * width
    rest = cells - (len(vectors) - 1) * lanes
    lines = [*_mask(width), "mov 8(%rsp), %rdi", f"cmp ${width * size}, %rdi", "je 5f"]
    for first in range(0, cells, width):
        row, at = vectors[first // lanes], first % lanes
        if at:
            following = vectors[min(first // lanes + 1, len(vectors) - 1)]
            lines.append(f"valign{'dq'[size // 8]} ${at}, %zmm{row}, %zmm{following}, %zmm31")
        lines += [_store(31 if at else row, width, size, "(%r9)"), "add %rdi, %r9"]
    lines += ["vzeroupper", "ret", "5:", *_mask(rest)]
    lines += [_store(vector, lanes, size, f"{64 * i}(%r9)") for i, vector in enumerate(vectors[:-1])]
    return [*lines, _store(vectors[-1], rest, size, f"{64 * (len(vectors) - 1)}(%r9)")]


def _mask(count: int) -> list[str]:
    return [] if count.bit_count() == 1 else [f"mov ${(1 << count) - 1}, %eax", "kmovw %eax, %k1"]


def _store(vector: int, count: int, size: int, place: str) -> str:
    """Store the first numbers of a vector by the narrowest instruction that has all of them."""
    nbytes = count * size
    register = f"%{'xyz'[(nbytes > 16) + (nbytes > 32)]}mm{vector}"
    move = {4: "vmovss", 8: "vmovsd"}.get(nbytes, "vmovups" if size == 4 else "vmovupd")
    return f"{move} {register}, {place}{'{%k1}' * len(_mask(count)[:1])}"


def _pairs(vectors: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Neighbours; an odd one is its own."""
    return list(zip(vectors[::2], [*vectors[1::2], vectors[-1]][: len(vectors[::2])], strict=True))


# ---- LLVM IR ------------------------------------------------------------------------------------------------


def _emitted(module: Any, element: Element, name: str, height: int, width: int) -> Any:
    made = ir.Function(module, TILE, name)
    made.linkage = "linkonce_odr"
    made.attributes.add("noinline")
    made.attributes.add("nounwind")
    b = ir.IRBuilder(made.append_basic_block("entry"))
    rows, row, columns, column, k, to, step = (Int(b, argument) for argument in made.args)
    kind, lanes, size = element.vector, element.lanes, element.size
    fma = intrinsic(module, f"llvm.fmuladd.{element.suffix}", kind, kind, kind, kind)
    x_rows, y_rows = [rows + row * i for i in range(height)], [columns + column * j for j in range(width)]
    cells = [(i, j) for i in range(height) for j in range(width)]

    def multiply(at: Int, chains: Sequence[Any], read: Any) -> list[Any]:
        y, x = [read(row + at) for row in y_rows], [read(row + at) for row in x_rows]
        return [b.call(fma, [x[i], y[j], chain]) for (i, j), chain in zip(cells, chains, strict=True)]

    def phis(*edges: tuple[Any, Sequence[Any]]) -> list[Any]:
        joined = [b.phi(kind) for _ in cells]
        for block, values in edges:
            for phi, value in zip(joined, values, strict=True):
                phi.add_incoming(value, block)
        return joined

    whole = k // lanes
    before = b.block
    body, tail, rest_of_k, done = (b.append_basic_block(name) for name in ("k", "tail", "rest", "end"))
    zeros = [ir.Constant(kind, None)] * len(cells)
    b.cbranch(whole > 0, body, tail)
    b.position_at_end(body)
    at, left = Int(b, b.phi(I64)), Int(b, b.phi(I64))
    chains = phis((before, zeros))
    following = multiply(at, chains, lambda address: load(address, kind, size))
    further, less = at + lanes * size, left - 1
    b.cbranch(less > 0, body, tail)
    for phi, first, then in [(at.value, I64(0), further.value), (left.value, whole.value, less.value)]:
        phi.add_incoming(first, before)
        phi.add_incoming(then, body)
    for phi, then in zip(chains, following, strict=True):
        phi.add_incoming(then, body)
    b.position_at_end(tail)
    totals = phis((before, zeros), (body, following))
    rest = k - whole * lanes
    b.cbranch(rest > 0, rest_of_k, done)
    b.position_at_end(rest_of_k)
    more = multiply(whole * (lanes * size), totals, lambda at: masked_load(module, element, at, rest))
    after = b.block
    b.branch(done)
    b.position_at_end(done)
    sums = _sums(b, phis((tail, totals), (after, more)))
    for number, (i, j) in enumerate(cells):
        store(b.extract_element(sums[number // lanes], I32(number % lanes)), to + step * i + j * size, size)
    b.ret_void()
    return made


def _sums(b: Any, vectors: list[Any]) -> list[Any]:
    """The sums of each vector's numbers, as vectors: as in the assembly."""
    lanes, part = vectors[0].type.count, 4 if vectors[0].type.element == F32 else 2

    def combined(x: Any, y: Any, low: list[int], apart: int) -> Any:
        first, second = (b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, lanes), [at + by for at in low]))
                         for by in (0, apart))  # fmt: skip
        return b.fadd(first, second)

    for width in (1, 2)[: part // 2]:
        low = [at for block in range(0, lanes, part) for group in range(block, block + part // 2, width)
               for start in (group, lanes + group) for at in range(start, start + width)]  # fmt: skip
        vectors = [combined(x, y, low, part // 2) for x, y in _pairs(vectors)]
    for _ in range((lanes // part).bit_length() - 1):
        low = [at for block in range(0, 2 * lanes, 2 * part) for at in range(block, block + part)]
        vectors = [combined(x, y, low, part) for x, y in _pairs(vectors)]
    return vectors
