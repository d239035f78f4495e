"""Fetching files: mirrors in order, resumed where they broke off, checked before they get their name."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from graphjit.data.catalog import File
from graphjit.errors import GraphjitError

Progress = Callable[[str, int, int | None], object]

TIMEOUT = 15.0  # seconds without an answer, or without a byte
TRIES = 5  # connections to one address, each of which must bring something
BLOCK = 1 << 18
LIMIT = 1 << 30  # bytes of a file whose size is not known
RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class Unreachable(Exception):
    """A file that none of its addresses gave; ``reasons`` has a line for each."""

    def __init__(self, reasons: list[str]) -> None:
        self.reasons = reasons
        super().__init__("; ".join(reasons))


def fetch(file: File, folder: Path, check: Callable[[Path], object], progress: Progress | None = None) -> Path:
    """A file in this folder: the one that is there if it is right, or fetched.

    What has arrived is kept as ``name.part`` when a download breaks off, and the next one goes on from there. It gets
    its name, in one step, once its hash is right, and is deleted when it is not.

    Args:
        file: what is wanted.
        folder: where to; made if need be.
        check: reads a file whose hash nobody knows, and raises a GraphjitError if it is not what it should be. The
            SHA-256 of such a file is written down beside it, for ``genuine``.
        progress: called with the file's name, the bytes that are there, and how many there will be (None: unknown).

    Raises:
        Unreachable: no address gave the right file, or the folder cannot be written.
    """
    reasons = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / ".lock"):
            target, part = folder / file.name, folder / f"{file.name}.part"
            if target.exists() and genuine(target, file):
                return target  # another process fetched it meanwhile
            for url in file.urls:
                problem = _fetch_from(url, file, part, check, progress)
                if not problem:
                    _install(part, target, file)
                    return target
                reasons.append(f"{url}: {problem}")
    except OSError as error:
        reasons.append(f"{folder} cannot be written: {error.strerror or error}")
    raise Unreachable(reasons)


def genuine(path: Path, file: File) -> bool:
    """Whether a file is the one that is known, or that was fetched once; True if nothing is known of it."""
    if _known(file):
        return not _mismatch(path, file)
    with contextlib.suppress(OSError):
        return digest(path, "sha256") == _record(path).read_text("ascii").split()[0]
    return True


def digest(path: Path, algorithm: str) -> str:
    """The hash of a file, hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def _known(file: File) -> bool:
    return bool(file.sha256 or file.md5)


def _mismatch(path: Path, file: File) -> str:
    """What differs from the hash that is known; "" if nothing does."""
    algorithm, right = ("sha256", file.sha256) if file.sha256 else ("md5", file.md5)
    found = digest(path, algorithm)
    return "" if found == right else f"the file has {algorithm} {found[:12]}..., not {right[:12]}..."


def _record(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _fetch_from(url: str, file: File, part: Path, check: Callable[[Path], object], progress: Progress | None) -> str:
    """Make ``part`` the whole, right file; the reason if that failed, and no wrong bytes are kept then."""
    if _known(file) and file.size and _size(part) >= file.size:  # an earlier download ended just before it was done
        return _wrong(part, file, check) and _fetch_from(url, file, part, check, progress)
    resumed = _known(file) and _size(part) > 0
    problem = _transfer(url, file, part, progress)
    if problem:
        return problem
    problem = _wrong(part, file, check)
    # the fault may lie in what was there before: once more, from the beginning
    return _fetch_from(url, file, part, check, progress) if problem and resumed else problem


def _wrong(part: Path, file: File, check: Callable[[Path], object]) -> str:
    """Why a complete file is not the right one, and then it is deleted; "" if it is."""
    problem = ""
    if _known(file):
        problem = _mismatch(part, file)
    else:
        try:
            check(part)
        except GraphjitError as error:
            problem = error.problem.replace(str(part), "what came")
    if problem:
        part.unlink()
    return problem


def _transfer(url: str, file: File, part: Path, progress: Progress | None) -> str:
    """The bytes behind an address, appended to what there is of them; the reason if some are lacking."""
    problem, validator = "", ""
    limit = file.size or LIMIT
    for _ in range(TRIES):
        have = _size(part)
        headers = {"User-Agent": "graphjit", "Accept-Encoding": "identity"}
        if have and (_known(file) or validator):  # else nothing tells whether the rest belongs to what is there
            headers["Range"] = f"bytes={have}-"
            if validator:
                headers["If-Range"] = validator  # all of it, should it have changed meanwhile
        try:
            with urlopen(Request(url, headers=headers), timeout=TIMEOUT) as answer:
                start, total = _extent(answer)
                if start not in (0, have):
                    return f"asked for the bytes from {have} on, it sent those from {start} on"
                validator = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
                size = start
                with open(part, "ab" if start else "wb") as out:
                    while block := answer.read1(BLOCK):
                        out.write(block)
                        size += len(block)
                        if progress is not None:
                            progress(file.name, size, total)
                        if size > limit:
                            break
        except HTTPError as error:
            error.close()
            if error.code == 416 and have:  # more is there than the whole file has
                part.unlink()
                continue
            return f"HTTP {error.code} {error.reason}"
        except (HTTPException, OSError) as error:
            problem = _reason(error)
        else:
            if size > limit:
                part.unlink()
                return f"it sent more than {limit} bytes"
            if total is None or size >= total:
                return ""
            problem = f"the connection broke off after {size} of {total} bytes"
        if _size(part) <= have:
            break
    return problem or "it has another size than it says"


def _extent(answer: Any) -> tuple[int, int | None]:
    """Where the bytes of an answer begin in the file, and how many the whole file has, if it says so."""
    if answer.status == 206:
        found = RANGE.match(answer.headers.get("Content-Range", ""))
        if found is None:
            return -1, None
        return int(found[1]), None if found[2] == "*" else int(found[2])
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", None) or error
    return str(inner) or type(inner).__name__


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _install(part: Path, target: Path, file: File) -> None:
    with open(part, "rb+") as stream:
        os.fsync(stream.fileno())  # a crash leaves the whole file under its name, or none
    if not _known(file):
        _record(target).write_text(f"{digest(part, 'sha256')}  {file.name}\n", "ascii")
    part.replace(target)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process fetches into the folder. The lock dies with the process that holds it."""
    with open(path, "ab") as handle:
        if sys.platform == "win32":
            import msvcrt
            with contextlib.suppress(OSError):
                msvcrt.locking(handle.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
