"""Matrix products that take the bias behind them, and relu behind that, with them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from graphjit.codegen.cluster import Cluster
from graphjit.ir import Apply, Graph, Node
from graphjit.op import Library
from graphjit.passes.layout import base
from graphjit.types import is_float


@dataclass(frozen=True, slots=True)
class Epilogue:
    """What is done to a product before it is stored: ``result`` is what then lies in memory."""

    result: Apply
    bias: Node
    relu: bool


def epilogues(graph: Graph, clusters: Collection[Cluster], stored: Collection[Node], inline: Collection[Node],
              placed: Collection[Node]) -> dict[Node, Epilogue]:
    """Loop nests that only add a bias to a product, and rectify it, by the product that shall do that.

    A loop over the finished product would read and write it once more: a third of the time of a small layer.

    Args:
        graph: of the clusters.
        clusters: the loop nests.
        stored: the nodes that get memory.
        inline: those that their readers compute for themselves.
        placed: stored nodes whose memory is another's.
    """
    users: dict[Node, int] = {}
    for node in (*(a for n in graph.nodes if isinstance(n, Apply) for a in n.args), *graph.outputs):
        users[node] = users.get(node, 0) + 1
    found: dict[Node, Epilogue] = {}
    for cluster in clusters:
        results = [n for n in cluster.members if n in stored]
        if len(results) != 1 or results[0] in placed:
            continue
        [result] = results
        relu = result.op.name == "relu"
        total = result.args[0] if relu else result
        if isinstance(total, Apply) and total.op.name == "add" and total not in inline:
            for product, bias in _sides(total):
                memory = base(bias)
                if users[product] == 1 and (memory in stored or not isinstance(memory, Apply)):
                    found[product] = Epilogue(result, bias, relu)
                    break  # the bias may be a product, too
    return found


def _sides(total: Apply) -> Iterator[tuple[Apply, Node]]:
    """A product and a bias for its columns, as a sum has them."""
    x, y = total.args
    for product, bias in ((x, y), (y, x)):
        if (isinstance(product, Apply) and isinstance(product.op.lower, Library) and product.op.lower.kernel == "matmul"
                and is_float(product.type.dtype) and product.type == total.type and bias.type.dtype == total.type.dtype
                and bias.type.ndim and bias.type.size == bias.type.shape[-1] == product.type.shape[-1]):
            yield product, bias
