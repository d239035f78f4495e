"""What happens to a tile of a matrix product between its accumulators and memory.

An epilogue is a function on one vector of accumulators. It sees its operands through the `Tile`, which knows
where they lie: the same few lines serve a bias given per column, or per row when the product is computed
transposed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol


class Tile(Protocol):
    """The tile's side of the contract; row i and vector j count inside the tile."""

    builder: Any

    def constant(self, value: float) -> Any:
        """A vector of equal numbers."""

    def load(self, operand: int, i: int, j: int) -> Any:
        """The vector of an operand that lies over row i, vector j of the tile."""


@dataclass(frozen=True)
class Epilogue:
    """`operands` matrices, broadcast against C, are read; `emit(tile, x, i, j)` gives the vector to store."""

    name: str
    operands: int
    emit: Callable[[Tile, Any, int, int], Any]


def _store(tile: Tile, x: Any, i: int, j: int) -> Any:
    return x


def _bias(tile: Tile, x: Any, i: int, j: int) -> Any:
    return tile.builder.fadd(x, tile.load(0, i, j))


def _relu(tile: Tile, x: Any) -> Any:
    # an ordered comparison is false of NaN: NaN stays, as in max(x, 0)
    zero = tile.constant(0.0)
    return tile.builder.select(tile.builder.fcmp_ordered("<=", x, zero), zero, x)


def _bias_relu(tile: Tile, x: Any, i: int, j: int) -> Any:
    return _relu(tile, _bias(tile, x, i, j))


def _relu_mask(tile: Tile, x: Any, i: int, j: int) -> Any:
    """The gradient of relu: x where e0, the activations (or what came before them), is positive."""
    zero = tile.constant(0.0)
    return tile.builder.select(tile.builder.fcmp_ordered(">", tile.load(0, i, j), zero), x, zero)


EPILOGUES = {
    epilogue.name: epilogue
    for epilogue in (
        Epilogue("store", 0, _store),
        Epilogue("bias", 1, _bias),
        Epilogue("bias_relu", 1, _bias_relu),
        Epilogue("relu_mask", 1, _relu_mask),
    )
}
