"""What all readers of data files share: bounded reading, and one kind of error for what is damaged."""

from __future__ import annotations

import contextlib
import gzip
import io
from collections.abc import Iterator
from pathlib import Path

from graphjit.errors import DataError, GraphjitError

Stream = io.BufferedReader | gzip.GzipFile

BLOCK = 1 << 20
REPLACE = "Replace it by a whole copy; a file that graphjit fetched itself is fetched again once it is deleted."


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """A context in which anything that goes wrong is a DataError that names the file."""
    try:
        yield
    except GraphjitError:
        raise
    except Exception as error:  # whatever the parsers of NumPy and the standard library trip over
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise DataError(f"{path} cannot be read: {reason}", path=str(path), hint=REPLACE) from error


def damaged(path: Path, what: str, hint: str = REPLACE) -> DataError:
    """The error to raise for a file that is not as it should be."""
    return DataError(f"{path} {what}", path=str(path), hint=hint)


def exactly(stream: Stream, size: int, path: Path) -> bytearray:
    """The ``size`` bytes up to the end of a stream.

    Memory grows with what is really there, whatever a header promises.

    Raises:
        DataError: fewer bytes, or more.
    """
    data = bytearray()
    while len(data) < size and (block := stream.read(min(size - len(data), BLOCK))):
        data += block
    if len(data) < size:
        raise damaged(path, f"is cut off: {len(data)} bytes of data, its header promises {size}")
    if stream.read(1):
        raise damaged(path, f"goes on after the {size} bytes of data its header promises")
    return data
