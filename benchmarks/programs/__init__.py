"""Programs of users, each one loss function for graphjit, JAX and PyTorch alike: ``python -m benchmarks.programs``."""

from benchmarks.programs import images, relations, science, sequences, statistics  # each adds its programs
from benchmarks.programs.program import PROGRAMS, Case, Program

__all__ = ["PROGRAMS", "Case", "Program", "images", "relations", "science", "sequences", "statistics"]
