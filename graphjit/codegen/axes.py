"""Index maps: which loop axis each axis of a node follows (NONE for an axis of length one or stretched)."""

from __future__ import annotations

from graphjit.ir import Apply, Node
from graphjit.op import Elementwise, Gather, Indexed, Reduction, Rolled, View
from graphjit.types import Extent, Shape, is_one

NONE = -1
IndexMap = tuple[int, ...]


def fusable(node: Node) -> bool:
    """Whether generated loops compute this node."""
    return isinstance(node, Apply) and isinstance(node.op.lower, (Elementwise, Indexed, Reduction, Gather, Rolled))


def is_reduction(node: Node) -> bool:
    return isinstance(node, Apply) and isinstance(node.op.lower, Reduction)


def view_axes(view: Apply) -> tuple[int, ...] | None:
    """For each axis of a view's operand the axis of the view it becomes (NONE: gone or stretched).

    None for views that do more than rename axes (slices, flips, true reshapes).
    """
    x = view.args[0]
    shape = x.type.shape
    match view.op.name:
        case "permute_dims":
            axes = view.kwargs["axes"]
            return tuple(axes.index(j) for j in range(len(shape)))
        case "broadcast_to":
            return align(shape, view.type.shape)
        case "reshape":
            before = [j for j, n in enumerate(shape) if not is_one(n)]
            after = [i for i, n in enumerate(view.type.shape) if not is_one(n)]
            if [int(shape[j]) for j in before] != [int(view.type.shape[i]) for i in after]:
                return None
            to = dict(zip(before, after, strict=True))
            return tuple(to.get(j, NONE) for j in range(len(shape)))
        case _:
            return None


def align(shape: Shape, to: Shape) -> tuple[int, ...]:
    """Axes of ``shape`` matched from the right with those of the shape it broadcasts to."""
    lead = len(to) - len(shape)
    # a caller's length that happens to be one is an axis like any other, unless it is stretched
    return tuple([lead + j if n != 1 or (isinstance(n, Extent) and to[lead + j] == 1) else NONE
                  for j, n in enumerate(shape)])


def through(axes: tuple[int, ...], imap: IndexMap) -> IndexMap:
    """Compose: the loop axes of an operand whose axes become ``axes`` of a node with this index map."""
    return tuple([NONE if a == NONE else imap[a] for a in axes])


def operand_axes(node: Apply, k: int) -> tuple[int, ...] | None:
    """For each axis of operand ``k`` the axis of the node it follows; None where it must be read from memory otherwise.

    For a reduction these are the axes of its operand.
    """
    if k not in node.facts:
        node.facts[k] = _operand_axes(node, k)
    found: tuple[int, ...] | None = node.facts[k]
    return found


def _operand_axes(node: Apply, k: int) -> tuple[int, ...] | None:
    operand = node.args[k].type
    match node.op.lower:
        case Elementwise():
            return align(operand.shape, node.type.shape)
        case Reduction():
            return tuple(range(operand.ndim))
        case Gather() if k == 1:
            axis = node.kwargs["axis"]
            return tuple([NONE if is_one(n) else axis + i for i, n in enumerate(operand.shape)])
        case View():
            return view_axes(node)
        case _:
            return None


def operand_map(node: Apply, k: int, imap: IndexMap) -> IndexMap | None:
    """Index map of operand ``k`` of a fused node; None where it must be read from memory otherwise.

    For a reduction ``imap`` is that of its operand.
    """
    axes = operand_axes(node, k)
    return None if axes is None else through(axes, imap)


def result_map(node: Apply, imap: IndexMap) -> IndexMap:
    """Index map of a fused node's result (a reduction's ``imap`` is that of its operand)."""
    if not isinstance(node.op.lower, Reduction):
        return imap
    axes = node.kwargs["axis"]
    if node.kwargs["keepdims"]:
        return tuple(NONE if i in axes else a for i, a in enumerate(imap))
    return tuple(a for i, a in enumerate(imap) if i not in axes)


def look_through(node: Node, imap: IndexMap) -> tuple[Node, IndexMap] | None:
    """The computed node below renaming views, and its index map; None where another view intervenes."""
    while isinstance(node, Apply) and isinstance(node.op.lower, View):
        below = operand_map(node, 0, imap)
        if below is None:
            return None
        node, imap = node.args[0], below
    return node, imap
