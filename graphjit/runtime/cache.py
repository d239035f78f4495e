"""The kernel cache on disk: machine code by content, private, never an exception, never a wrong answer.

One file holds a *batch*: object files and the names of the kernels in them. Each
kernel's key is a file name, a hard link to its batch, so that a later program finds the kernels it wants
whatever else was compiled beside them.

A file is: magic, SHA-256 of the rest, length of the metadata, metadata (JSON), object files. Nothing in it is
used before the hash is right, and nothing in it is code that Python would run. Whatever is wrong with a file
(cut off, altered, swapped with another, owned by somebody else), it counts as absent: the kernel is compiled
again and the file replaced.

Environment: `GRAPHJIT_CACHE_DIR` (a directory; empty: no disk cache) and `GRAPHJIT_CACHE_SIZE` (its bound in
MB, default 256).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import os
import secrets
import shutil
import stat
import struct
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FORMAT = 2
MAGIC = b"graphjit kernels %d\n" % FORMAT
SUFFIX = ".kernels"
DEFAULT_SIZE_MB = 256.0
DAY = 86_400.0  # seconds between two touches of a file that is in use
STALE = 3_600.0  # seconds after which an unfinished file was left behind by a dead process

_HASHED_FROM = len(MAGIC) + hashlib.sha256().digest_size
_LENGTH = struct.Struct("<Q")
_BINARY = getattr(os, "O_BINARY", 0)  # Windows only; the two below everywhere else
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | _BINARY
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY


class CacheWarning(RuntimeWarning):
    """Something about the disk cache that only its user can put right. Results are not affected."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Kernels compiled together.

    Args:
        symbols: kernel key -> symbol of its entry.
        externals: symbols the code needs from the process (libm and the like).
        objects: the machine code: object files.
    """

    symbols: dict[str, str]
    externals: tuple[str, ...]
    objects: tuple[bytes, ...]


def encode(batch: Batch) -> bytes:
    """A batch as the bytes of its file."""
    meta = json.dumps({"symbols": batch.symbols, "externals": batch.externals,
                       "sizes": list(map(len, batch.objects))}, sort_keys=True).encode()
    body = _LENGTH.pack(len(meta)) + meta + b"".join(batch.objects)
    return MAGIC + hashlib.sha256(body).digest() + body


def decode(blob: bytes) -> Batch | None:
    """The batch in a file's bytes; None when they are not exactly what `encode` made."""
    body = memoryview(blob)[_HASHED_FROM:]
    if blob[:_HASHED_FROM] != MAGIC + hashlib.sha256(body).digest():
        return None
    try:
        code_at = _LENGTH.size + _LENGTH.unpack_from(body)[0]
        meta = json.loads(bytes(body[_LENGTH.size : code_at]))
        ends = list(itertools.accumulate(meta["sizes"], initial=code_at))
        objects = tuple(bytes(body[start:end]) for start, end in itertools.pairwise(ends))
        return Batch(dict(meta["symbols"]), tuple(meta["externals"]), objects)
    except (ValueError, TypeError, KeyError, struct.error):  # whole, but not of our making
        return None


def directory() -> Path | None:
    """Where kernels are kept, made if need be; None when the disk cache is off or cannot be had."""
    chosen = os.environ.get("GRAPHJIT_CACHE_DIR")
    return None if chosen == "" else _prepare(chosen)


def load(key: str) -> Batch | None:
    """The batch that holds the kernel `key`; None when there is none to be trusted."""
    folder = directory()
    if folder is None:
        return None
    path = folder / (key + SUFFIX)
    try:
        with open(os.open(path, _READ), "rb") as file:
            info = os.fstat(file.fileno())
            if not (stat.S_ISREG(info.st_mode) and _private(info)):
                return None
            blob = file.read()
    except OSError:
        return None
    batch = decode(blob)
    if batch is None or key not in batch.symbols:
        return None
    if time.time() - info.st_mtime > DAY:
        with contextlib.suppress(OSError):
            os.utime(path)
    return batch


def store(batch: Batch) -> None:
    """Keep a batch under the key of each of its kernels. Readers see each file whole or not at all."""
    folder, bound, blob = directory(), _bound(), encode(batch)
    if folder is None or len(blob) > bound:
        return
    try:
        _publish(folder, batch, blob)
    except FileNotFoundError:  # the directory was removed under us
        _prepare.cache_clear()
        folder = directory()
        if folder is None:
            return
        try:
            _publish(folder, batch, blob)
        except OSError as error:
            _warn_unusable(folder, error)
    except OSError as error:
        _warn_unusable(folder, error)
    else:
        _keep_bound(folder, len(blob), bound)


def _publish(folder: Path, batch: Batch, blob: bytes) -> None:
    """Write the file once, then give it the name of each key: it is whole before it has a name."""
    temporary = folder / f".{os.getpid()}-{secrets.token_hex(4)}.tmp"
    failure: OSError | None = None
    try:
        with open(os.open(temporary, _CREATE, 0o600), "wb") as file:
            file.write(blob)
        for key in batch.symbols:
            link = temporary.with_suffix(".link.tmp")
            try:
                _link_or_copy(temporary, link)
                _put_in_place(link, folder / (key + SUFFIX))
            except OSError as error:
                failure = error  # one name that cannot be had does not cost the others
            finally:
                link.unlink(missing_ok=True)
    finally:
        temporary.unlink(missing_ok=True)
    if failure is not None:
        raise failure


def _link_or_copy(source: Path, link: Path) -> None:
    """A hard link, or a copy on file systems without links."""
    try:
        os.link(source, link)
    except (OSError, AttributeError):
        shutil.copyfile(source, link)
        os.chmod(link, 0o600)


def _put_in_place(source: Path, destination: Path) -> None:
    try:
        os.replace(source, destination)
    except (IsADirectoryError, PermissionError, NotADirectoryError):
        os.rmdir(destination)  # an empty directory where a file belongs; a full one is the user's and stays
        os.replace(source, destination)


@functools.lru_cache(maxsize=8)
def _prepare(chosen: str | None) -> Path | None:
    """The kernels' own folder inside the chosen directory (or the platform's), private to this user.

    It is a folder of our own because its permissions are ours to set; those of the chosen directory are not.
    """
    try:
        folder = (Path(chosen).expanduser().absolute() if chosen else _user_cache()) / "kernels"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = folder.lstat()
        if not stat.S_ISDIR(info.st_mode) or not _owned(info):
            raise PermissionError(f"{folder} is not a directory of this user")
        if not _private(info):
            folder.chmod(0o700)
        return folder
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home directory
        _warn_unusable(chosen or "the user's cache directory", error)
        return None


def _user_cache() -> Path:
    import platformdirs  # only wanted without GRAPHJIT_CACHE_DIR

    return platformdirs.user_cache_path("graphjit", appauthor=False)


def _owned(info: os.stat_result) -> bool:
    """Made by this user, or by root, who could do anything anyway."""
    return os.name == "nt" or info.st_uid in (0, os.geteuid())


def _private(info: os.stat_result) -> bool:
    """Only this user (or root) can have written it."""
    return os.name == "nt" or (_owned(info) and not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _bound() -> int:
    """The size bound in bytes."""
    text = os.environ.get("GRAPHJIT_CACHE_SIZE", "")
    try:
        return int(float(text or DEFAULT_SIZE_MB) * 1e6)
    except (ValueError, OverflowError):
        _warn(f"GRAPHJIT_CACHE_SIZE is {text!r}, not a number of MB; using {DEFAULT_SIZE_MB:.0f}")
        return int(DEFAULT_SIZE_MB * 1e6)


_unseen = float("inf")  # bytes this process has written since it last looked through the folder


def _keep_bound(folder: Path, added: int, bound: int) -> None:
    """Trim the folder when it may have outgrown its bound, without looking through it after every file."""
    global _unseen
    _unseen += added
    if _unseen > bound / 16:
        with contextlib.suppress(OSError):
            trim(folder, bound)
        _unseen = 0.0


def trim(folder: Path, bound: int) -> None:
    """If the bound is exceeded, remove the least recently used batches down to three quarters of it."""
    batches: dict[int, tuple[float, int, list[str]]] = {}
    total = 0
    for path, info in _files(folder):
        if path.endswith(".tmp"):
            if time.time() - info.st_mtime > STALE:
                _remove(path)
            continue
        if info.st_ino not in batches:
            occupied = max(info.st_size, 512 * getattr(info, "st_blocks", 0))
            batches[info.st_ino] = info.st_mtime, occupied, []
            total += occupied
        batches[info.st_ino][2].append(path)
    if total <= bound:
        return
    for _, size, paths in sorted(batches.values()):
        for path in paths:
            _remove(path)
        total -= size
        if total <= bound * 3 // 4:
            break


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith((SUFFIX, ".tmp")):
                with contextlib.suppress(OSError):  # another process removed it meanwhile
                    yield entry.path, os.stat(entry.path, follow_symlinks=False)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _warn_unusable(where: Path | str, error: Exception) -> None:
    _warn(
        f"compiled kernels are not kept on disk ({where}: {error}); every process compiles them anew. "
        "Set GRAPHJIT_CACHE_DIR to a directory you can write to, or to nothing to switch the disk cache off."
    )


_warned = False


def _warn(message: str) -> None:
    """Say it, once in a process: the first reason is enough to act on."""
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(message, CacheWarning, stacklevel=2)
