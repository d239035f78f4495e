"""Graph -> Graph: the optimizer, one flat list of named passes."""

from graphjit.passes.pipeline import PIPELINE, optimize

__all__ = ["PIPELINE", "optimize"]
