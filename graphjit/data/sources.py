"""``load``: a table by the name of a data set or of a file, from where it is or from where it can be had."""

from __future__ import annotations

import difflib
import importlib.util
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from graphjit.data.catalog import SOURCES, Source
from graphjit.data.files import read_csv, read_npz
from graphjit.data.images import read_cifar10, read_mnist
from graphjit.data.offline import load_offline
from graphjit.data.reading import reading
from graphjit.data.series import read_ecg5000, read_ecg_csv
from graphjit.data.table import Table
from graphjit.errors import ArgumentError, DatasetUnavailable

if TYPE_CHECKING:
    from graphjit.data.download import Progress

FOLDER_VARIABLE = "GRAPHJIT_DATA"
SUFFIXES = (".csv", ".npz")
PICKLES = {"cifar10": ("cifar-10-batches-py", "cifar-10-python.tar.gz")}


def load(name: str | os.PathLike[str], *, folder: str | os.PathLike[str] | None = None, samples: int = 1000,
         noise: float = 0.1, seed: int = 0, grey: bool = False, label: str | int | None = None,
         download: bool = True, progress: Progress | None = None) -> Table:
    """A table by the name of a data set, or of a ``.csv`` or ``.npz`` file.

    Held or made by scikit-learn (``pip install graphjit[data]``): 'breast_cancer', 'digits', 'iris', 'wine', 'blobs',
    'circles', 'moons'. Read from files: 'mnist', 'fashion-mnist', 'cifar10', 'ecg5000', and 'ecg5000-binary', a copy
    in CSV whose classes are abnormal and normal. ``SOURCES`` tells about each.

    Files are looked for in ``folder``, in the folder the environment variable GRAPHJIT_DATA names, and in the user's
    cache, as they are published or unpacked, also in the places other libraries keep them (``MNIST/raw``,
    ``FashionMNIST/raw``, ``cifar-10-batches-bin``). Those that are nowhere are fetched into the cache and checked by
    their hashes. No other data ever takes the place of those asked for, and nothing in a file is run.

    Args:
        name: see above; a file relative to the working directory or to one of the folders. The conventions of files:
            ``graphjit.data.files.read_csv`` and ``read_npz``.
        folder: where to look first.
        samples, noise, seed: of those that are made: how many points, the standard deviation of what is added
            to them, and what repeats them.
        grey: of colour images: their luma (ITU-R BT.601) instead.
        label: of a CSV file: name or place of the column of labels; the last one if None.
        download: False: use what is here, or fail.
        progress: called during a download with a file's name, the bytes that are there and how many there will be.

    Raises:
        ArgumentError: an unknown name, no such folder or column.
        DatasetUnavailable: its files are not here and cannot be fetched, or scikit-learn is missing; the message
            says where to put which files.
        DataError: a damaged file.

    >>> from graphjit import data
    >>> data.load("iris")
    Table('iris': 150 samples of shape (4,), 3 classes)
    """
    folders = _folders(folder)
    if path := _file(name):
        return _load_file(path, folders, label)
    source = _source(name)
    if label is not None:
        raise ArgumentError(f"label= chooses a column of a CSV file; {source.name!r} is none")
    if not source.downloads:
        return load_offline(source, samples, noise, seed)
    return _load_source(source, folders, grey, download, progress)


def status(name: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None) -> bool:
    """Whether ``load`` finds a data set, or a file, without a network.

    Raises:
        ArgumentError: an unknown name, or no such folder.
    """
    folders = _folders(folder)
    if path := _file(name):
        return any((place / path).is_file() for place in (Path(), *folders))
    source = _source(name)
    if not source.downloads:
        return importlib.util.find_spec("sklearn") is not None
    return any(_locate(source, place) for place in (*folders, cache_folder(source.name)))


def cache_folder(name: str) -> Path:
    """Where the files of a data set are kept once fetched; GRAPHJIT_CACHE_DIR moves it."""
    chosen = os.environ.get("GRAPHJIT_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser().absolute() / "data" / name
    import platformdirs

    return platformdirs.user_cache_path("graphjit", appauthor=False) / "data" / name


def _file(name: str | os.PathLike[str]) -> Path | None:
    """The path, if it is that of a file rather than a name."""
    if isinstance(name, (str, os.PathLike)) and os.fspath(name).lower().endswith(SUFFIXES):
        return Path(name).expanduser()
    return None


def _source(name: str | os.PathLike[str]) -> Source:
    if isinstance(name, str) and name in SOURCES:
        return SOURCES[name]
    near = difflib.get_close_matches(str(name).lower().replace("_", "-"), SOURCES, n=1)
    raise ArgumentError(f"there is no data set {str(name)!r}",
                        detail=(f"there are {', '.join(SOURCES)}, and any file.csv or file.npz",),
                        hint=f"Did you mean {near[0]!r}?" if near else "")


def _folders(folder: str | os.PathLike[str] | None) -> list[Path]:
    """The folders the user names, in order."""
    if folder is not None and not Path(folder).expanduser().is_dir():
        raise ArgumentError(f"there is no folder {os.fspath(folder)!r}")
    named = [folder, os.environ.get(FOLDER_VARIABLE)]
    return [Path(place).expanduser() for place in named if place]


def _load_file(path: Path, folders: list[Path], label: str | int | None) -> Table:
    csv = path.suffix.lower() == ".csv"
    if label is not None and not csv:
        raise ArgumentError(f"label= chooses a column of a CSV file; {path} is none")
    for place in (Path(), *folders):
        if (place / path).is_file():
            return read_csv(place / path, label) if csv else read_npz(place / path)
    looked = ", ".join(str(place.absolute()) for place in (Path(), *folders))
    raise DatasetUnavailable(f"there is no file {path}", files=(str(path),), folder=str(Path().absolute()),
                             detail=(f"looked in {looked}",))


def _read(source: Source, grey: bool, paths: Sequence[Path]) -> Table:
    if source.name == "cifar10":
        return read_cifar10(source, paths, grey)
    readers = {"mnist": read_mnist, "fashion-mnist": read_mnist, "ecg5000": read_ecg5000,
               "ecg5000-binary": read_ecg_csv}
    return readers[source.name](source, paths)


def _locate(source: Source, folder: Path) -> list[Path]:
    """The files of a data set in a folder, all of them from one place; [] if some are lacking."""
    for layout in source.layouts:
        for form in source.forms:
            found = [next((path for name in names if (path := folder / layout / name).is_file()), None)
                     for names in form]
            if all(found):
                return [path for path in found if path is not None]
    return []


def _load_source(source: Source, folders: list[Path], grey: bool, download: bool, progress: Progress | None) -> Table:
    for folder in folders:
        if paths := _locate(source, folder):
            return _read(source, grey, paths)
    from graphjit.data.download import Unreachable, fetch, genuine

    cache = cache_folder(source.name)
    reasons = []
    known = {file.name: file for file in source.downloads}
    for path in _locate(source, cache):
        if path.name in known and not genuine(path, known[path.name]):
            aside = path.with_name(f"{path.name}.damaged")
            with reading(path):  # where it cannot be moved it must not be read either
                path.replace(aside)
            reasons.append(f"{path} is not what was fetched: kept aside as {aside.name}")
    paths = _locate(source, cache)
    if not paths and download:
        try:
            check = partial(_check, source)
            paths = [fetch(file, cache, check, progress) for file in source.downloads]
        except Unreachable as error:
            reasons += error.reasons
    if not paths:
        raise _unavailable(source, [*folders, cache], reasons)
    return _read(source, grey, paths)


def _check(source: Source, path: Path) -> None:
    """Read a file that is the whole data set."""
    _read(source, False, [path])


def _unavailable(source: Source, looked: Sequence[Path], reasons: Sequence[str]) -> DatasetUnavailable:
    files = source.downloads
    bases = [url.rpartition("/")[0] + "/" for url in files[0].urls]
    size = sum(file.size for file in files)
    amount = f" ({size / 1e6:.0f} MB)" if size else ""
    detail = (*(f"file    {file.name}" for file in files),
              *(f"from    {base}{amount if i == 0 else ''}" for i, base in enumerate(bases)),
              f"looked  in {', '.join(map(str, looked))}", *(f"tried   {reason}" for reason in reasons))
    refused = [folder / name for folder in looked for name in PICKLES.get(source.name, ()) if (folder / name).exists()]
    detail += tuple(f"unread  {path}: pickles, which can run any code; the binary version is read" for path in refused)
    where = looked[-1]
    return DatasetUnavailable(
        f"the data set {source.name!r} is not on this machine" + (" and could not be fetched" if reasons else ""),
        files=tuple(file.name for file in files), urls=tuple(url for file in files for url in file.urls),
        folder=str(where), detail=detail,
        hint=f"Put the files into {where}, or name their folder by folder= or {FOLDER_VARIABLE}.\n"
             f"  Offline there is {source.alternative}.")
