"""The pipeline: every pass by name, in the order they run."""

from __future__ import annotations

from collections.abc import Callable

from graphjit.ir import Graph, verify
from graphjit.passes.added_rows import added_rows
from graphjit.passes.channels_last import channels_last
from graphjit.passes.cse import cse
from graphjit.passes.flattened import flattened
from graphjit.passes.fold import fold
from graphjit.passes.groups import groups
from graphjit.passes.layout import contiguous
from graphjit.passes.pools import pools
from graphjit.passes.products import transpose_products, turn_once
from graphjit.passes.rolls import rolls
from graphjit.passes.simplify import simplify
from graphjit.passes.sums import sums
from graphjit.passes.touched_rows import touched_rows
from graphjit.passes.views import views_below

Pass = Callable[[Graph], Graph]

PIPELINE: tuple[tuple[str, Pass], ...] = (
    ("simplify", simplify),
    ("fold", fold),
    ("cse", cse),
    ("rolls", rolls),
    ("views below", views_below),
    ("simplify again", simplify),
    ("cse again", cse),
    ("sums", sums),
    ("groups", groups),
    ("pools", pools),
    ("channels last", channels_last),
    ("simplify views", simplify),
    ("cse of views", cse),
    ("flattened", flattened),
    ("transpose products", transpose_products),
    ("turn once", turn_once),
    ("touched rows", touched_rows),
    ("added rows", added_rows),
    ("contiguous", contiguous),
    ("cse of copies", cse),
)


def optimize(graph: Graph, check: bool = False) -> Graph:
    """Run the pipeline; dead nodes fall away with each rewriting, as nodes are found from the outputs."""
    settled: dict[Pass, Graph] = {}  # what a pass left as it was
    for _, step in PIPELINE:
        before = graph
        if settled.get(step) is not graph:
            graph = step(graph)
        if graph is before:
            settled[step] = graph
        if check:
            verify(graph)
    return graph
