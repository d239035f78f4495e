"""The kinds of error graphjit raises, and how an error finds the user's own line."""

from __future__ import annotations

import os
import sys
from types import FrameType
from typing import NamedTuple

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


class Where(NamedTuple):
    """A place in the user's program."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{os.path.basename(self.file)}:{self.line}"

    def full(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


def user_frame() -> FrameType | None:
    """The innermost frame that is not graphjit's own code."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return frame


def user_line() -> Where | None:
    """Where the user's program called into graphjit; None when there is no such frame."""
    frame = user_frame()
    if frame is None:
        return None
    return Where(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)


class GraphjitError(Exception):
    """Base of every error graphjit raises on purpose.

    Args:
        problem: what is wrong, one sentence.
        detail: further lines: operands, where they were made.
        hint: what to do about it.
        where: the user's line; found by itself when not given.
    """

    def __init__(self, problem: str, *, detail: tuple[str, ...] = (), hint: str = "",
                 where: Where | None = None) -> None:
        self.problem = problem
        self.detail = detail
        self.hint = hint
        self.where = where or user_line()
        super().__init__(problem)

    def __str__(self) -> str:
        lines = [self.problem, *("  " + line for line in self.detail)]
        if self.where is not None:
            lines.append(f"  at {self.where.full()}")
        if self.hint:
            lines.append(f"  {self.hint}")
        return "\n".join(lines)


class ShapeError(GraphjitError, ValueError):
    """Shapes that do not fit the operation."""


class DTypeError(GraphjitError, TypeError):
    """Element types the operation has no meaning for."""


class ArgumentError(GraphjitError, ValueError, TypeError):
    """An argument that is not what the function takes."""


class BoundsError(GraphjitError, IndexError):
    """An index or a class label outside its range."""


class GradientError(GraphjitError, RuntimeError):
    """A derivative that does not exist, or a tape that can no longer be walked."""


class TraceError(GraphjitError, RuntimeError):
    """Something a traced function cannot do."""


class DataDependentError(TraceError, TypeError):
    """Python asked for the value of a tensor that is only known when the program runs."""


class LeakedTensorError(TraceError):
    """A tensor of a finished trace was used."""


class NumericalError(GraphjitError, ArithmeticError):
    """A computation that has no finite answer where one is needed (a singular matrix, say)."""


class InternalCompilerError(GraphjitError, RuntimeError):
    """graphjit's own fault: a kernel that should have compiled did not."""
