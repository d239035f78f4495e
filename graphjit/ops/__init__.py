"""THE TABLE: all that is known of each op, a file per family."""

from graphjit.ops import (  # noqa: F401  # registers the rows, attaches the methods
    contract,
    creation,
    cumulative,
    einsum,
    elementwise,
    gather,
    indexing,
    join,
    movement,
    random,
    reduce,
    setitem,
    shape,
    sorting,
    statistics,
)
