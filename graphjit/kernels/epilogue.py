"""What is done to a matrix product before it goes on: a bias, a rectifier. (The gradient of a rectifier gains nothing
here: a loop has to add the rows up for the gradient of the bias anyway.)

An epilogue is a function on one vector of C, or one number where C or an operand is strided. It runs over a panel of
columns as soon as that is complete and still in the first-level cache. Doing it in the registers of the tile would
save some 20 cycles a tile, and cost another set of tiles, 0.2 s of compiling, for each epilogue.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from graphjit.kernels.emit import I64, Int, call, function, load, loop, store
from graphjit.kernels.target import Element

OPERANDS = 1  # the most that an epilogue has


@dataclass(frozen=True)
class Epilogue:
    """`emit(builder, x, *operands)` gives the value of C; all are vectors or all are numbers."""

    name: str
    operands: int
    emit: Callable[..., Any]


def _zero(x: Any) -> Any:
    return ir.Constant(x.type, None if isinstance(x.type, ir.VectorType) else 0.0)


def _bias(b: Any, x: Any, bias: Any) -> Any:
    return b.fadd(x, bias)


def _bias_relu(b: Any, x: Any, bias: Any) -> Any:
    total = b.fadd(x, bias)
    # an ordered comparison is false of NaN: NaN stays, as in max(x, 0)
    return b.select(b.fcmp_ordered("<=", total, _zero(x)), _zero(x), total)


# the place in this list is what the kernels know them by; the first leaves C as it is
EPILOGUES = [
    Epilogue("store", 0, lambda b, x: x),
    Epilogue("bias", 1, _bias),
    Epilogue("bias_relu", 1, _bias_relu),
]
NUMBERS = {epilogue.name: number for number, epilogue in enumerate(EPILOGUES)}


def choose(builder: Any, number: Int, emit: Callable[[Epilogue], None]) -> None:
    """Emit code for each epilogue, of which the one of this number runs; none for 'store'."""
    done = builder.append_basic_block("epilogue_done")
    switch = builder.switch(number.value, done)
    for i, epilogue in enumerate(EPILOGUES[1:], 1):
        block = builder.append_basic_block(epilogue.name)
        switch.add_case(ir.Constant(I64, i), block)
        builder.position_at_end(block)
        emit(epilogue)
        builder.branch(done)
    builder.position_at_end(done)


def epilogue_function(module: Any, element: Element) -> Any:
    """`epilogue(number, c, c row, c column, rows, columns, e0, e0 row, e0 column)` over a part of C."""
    name = f"epilogue_{element.suffix}"
    if name in module.globals:
        return module.globals[name]
    made, builder, given = function(module, name, 6 + 3 * OPERANDS)
    number, c, c_row, c_col, rows, columns, *operands = given
    size = element.size
    dense = c_col == size
    for column in operands[2::3]:
        dense = builder.and_(dense, column == size)

    def over(kind: Any, first: Int, count: Int, step: int) -> Callable[[Epilogue], None]:
        """Columns from `first` on, `count` times `step` of them."""

        def emit(epilogue: Epilogue) -> None:
            with loop(0, rows) as i, loop(0, count) as j:
                at = first + j * step
                values = []
                for base, row, col in zip(operands[::3], operands[1::3], operands[2::3], strict=True):
                    values.append(load(base + row * i + col * at, kind, size))
                to = c + c_row * i + c_col * at
                x = load(to, kind, size)
                store(epilogue.emit(builder, x, *values[: epilogue.operands]), to, size)

        return emit

    vectors = (columns // element.lanes).where(dense, 0)
    with builder.if_then(vectors > 0):
        choose(builder, number, over(element.vector, Int(builder, 0), vectors, element.lanes))
    done = vectors * element.lanes
    with builder.if_then(done < columns):
        choose(builder, number, over(element.type, done, columns - done, 1))
    builder.ret_void()
    return made


def apply(module: Any, element: Element, builder: Any, number: Int, c: Sequence[Int], rows: Int, columns: Int,
          operands: Sequence[Int]) -> None:
    """Call the epilogue, if there is one, over a part of C: (address, row stride, column stride)."""
    made = epilogue_function(module, element)
    with builder.if_then(number != 0):
        call(made, builder, [number, *c, rows, columns, *operands])
