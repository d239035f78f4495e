"""The kinds of error graphjit raises, and how an error finds the user's own line."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Mapping
from types import FrameType
from typing import ClassVar, NamedTuple

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_BETWEEN = (_PACKAGE, contextlib.__file__, functools.__file__)  # graphjit's context managers and cached properties


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
    """The innermost frame that is not graphjit's own code, nor what runs it."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_BETWEEN):
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


class TraceWarning(UserWarning):
    """A compiled function does something whose result becomes a constant of its program."""


class DataDependentError(TraceError, TypeError):
    """Python asked for the value of a tensor that is only known when the program runs."""


class LeakedTensorError(TraceError):
    """A tensor of a finished trace was used."""


class NumericalError(GraphjitError, ArithmeticError):
    """A computation that has no finite answer where one is needed (a singular matrix, say)."""


class DataError(GraphjitError, ValueError):
    """A data file that does not hold what its format says: cut off, damaged, of another kind.

    Attributes:
        path: the file.
    """

    def __init__(self, problem: str, *, path: str, detail: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(problem, detail=detail, hint=hint)
        self.path = path


class DatasetUnavailable(GraphjitError, FileNotFoundError):
    """A data set that is not on this machine and could not be fetched.

    Attributes:
        files: names of the files it is made of. urls: where they can be had.
        folder: where to put them ("" when it is not made of files).
    """

    def __init__(self, problem: str, *, files: tuple[str, ...] = (), urls: tuple[str, ...] = (), folder: str = "",
                 detail: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(problem, detail=detail, hint=hint)
        self.files = files
        self.urls = urls
        self.folder = folder


class TrainingDiverged(NumericalError):
    """A loss that is not finite any more.

    Attributes:
        history: of the epochs before, a ``graphjit.training.History``.
        epoch, step: where it happened, from 1; step 0 is the evaluation at the end of the epoch.
    """

    def __init__(self, problem: str, *, history: Mapping[str, list[float]], epoch: int, step: int,
                 detail: tuple[str, ...] = (), hint: str = "") -> None:
        self.history = history
        self.epoch = epoch
        self.step = step
        super().__init__(problem, detail=detail, hint=hint)


class CheckpointError(GraphjitError, ValueError):
    """A checkpoint that cannot be written or read, is damaged, or does not fit what it is loaded into.

    Attributes:
        mismatches: all that does not fit, one line each; the message shows the first ones.
    """

    SHOWN: ClassVar[int] = 10

    def __init__(self, problem: str, *, mismatches: tuple[str, ...] = (), detail: tuple[str, ...] = (),
                 hint: str = "") -> None:
        self.mismatches = mismatches
        more = len(mismatches) - self.SHOWN
        rest = (f"... and {more} more (in .mismatches)",) if more > 0 else ()
        super().__init__(problem, detail=(*detail, *mismatches[:self.SHOWN], *rest), hint=hint)


class InternalCompilerError(GraphjitError, RuntimeError):
    """graphjit's own fault: a kernel that should have compiled did not."""
