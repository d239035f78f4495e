"""What a node does, whatever its operands are and however long the axes are that the caller chose."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import count

from graphjit.codegen.axes import is_reduction, operand_axes
from graphjit.errors import InternalCompilerError
from graphjit.ir import Apply, Node
from graphjit.op import Elementwise, Indexed, View
from graphjit.types import Extent

HELD = 65536  # kinds of nodes

_numbers: dict[Hashable, int] = {}
_next = count()


def template(node: Apply) -> str:
    """The expression of an element-wise or indexed op, ``{0}``, ``{1}`` its operands."""
    if "template" not in node.facts:
        types = tuple([a.type for a in node.args])
        match node.op.lower:
            case Elementwise(expr):
                node.facts["template"] = expr if isinstance(expr, str) else expr(types, node.type)
            case Indexed(indexed):
                node.facts["template"] = indexed if isinstance(indexed, str) else indexed(
                    types, node.type, node.kwargs)
            case _:
                raise InternalCompilerError(f"{node.op.name} is not a loop op", where=node.where)
    found: str = node.facts["template"]
    return found


def kind(node: Apply) -> int:
    """A number that only nodes have which do the same with operands of the same types."""
    found: int | None = node.facts.get("kind")
    if found is None:
        how: Hashable = None  # of a view its axes say all there is, or else the place of its elements does
        if isinstance(node.op.lower, (Elementwise, Indexed)):
            how = template(node)
        elif is_reduction(node):
            how = repr(node.params), type_pattern(node.args[0])
        elif not isinstance(node.op.lower, View):
            how = repr(node.params)
        what = (node.op, how, type_pattern(node), *[operand_axes(node, k) for k in range(len(node.args))])
        if len(_numbers) >= HELD:
            _numbers.clear()  # numbers are never given twice
        found = node.facts["kind"] = _numbers.setdefault(what, next(_next))
    return found


def type_pattern(node: Node) -> Hashable:
    """The type of a node, without the lengths the caller chose."""
    shape, dtype, weak = node.type
    return pattern(shape), dtype.char, weak


def pattern(numbers: tuple[int, ...]) -> Hashable:
    """Numbers, those of the caller's choice replaced by whether they are 0."""
    if not chosen(numbers):
        return numbers
    return tuple([(Extent, n == 0) if isinstance(n, Extent) else n for n in numbers])


def chosen(numbers: tuple[int, ...]) -> bool:
    """Whether any of these numbers is the caller's choice, or computed from it."""
    return Extent in map(type, numbers)
