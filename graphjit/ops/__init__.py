"""THE TABLE: all that is known of each op, a file per family, and the array functions made of them."""

from graphjit.ops import (  # noqa: F401  # the modules register their rows and attach the methods
    contract,
    conv,
    creation,
    cumulative,
    decompose,
    einsum,
    elementwise,
    gather,
    indexing,
    join,
    linalg,
    movement,
    norms,
    pool,
    random,
    reduce,
    setitem,
    shape,
    sorting,
    statistics,
)
