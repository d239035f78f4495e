"""Pictures of graphs: ``draw_dot``."""

from graphjit.drawing.draw import Drawing, draw_dot

__all__ = ["Drawing", "draw_dot"]
