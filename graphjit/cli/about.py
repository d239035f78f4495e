"""``graphjit datasets`` and ``graphjit doctor``."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from graphjit import __version__
from graphjit.cli.options import JsonPath
from graphjit.cli.screen import plain_table, screen, write_results
from graphjit.data import SOURCES, status
from graphjit.data.sources import cache_folder

PACKAGES = ("numpy", "numba", "llvmlite", "scipy", "scikit-learn", "matplotlib")
FEATURES = ("sse4.2", "avx", "avx2", "fma", "avx512f", "avx512vl", "avx512bw", "neon", "sve")


def doctor(json_path: JsonPath = None) -> None:
    """Show versions, what the CPU can do, the kernel cache and the threads."""
    from graphjit.kernels.target import target
    from graphjit.runtime import cache
    from graphjit.runtime.machine import target_cpu
    from graphjit.runtime.threads import get_num_threads

    name, features = target_cpu()
    machine = target()
    found: dict[str, Any] = {"graphjit": __version__, **{package: _version(package) for package in PACKAGES}}
    found["python"] = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    found["cpu"] = f"{name}: " + " ".join(f for f in FEATURES if f"+{f}" in features.split(","))
    found["vector width"] = f"{machine.vector * 8} bits, {machine.lanes(4)} float32"
    found["tile unit"] = "used for float32 products and convolutions" if machine.tile_unit else "none, or turned off"
    found["data caches"] = f"{machine.l1 // 1024} kB, {machine.l2 // 1024} kB"
    folder = cache.directory()
    if folder is None:
        found["kernel cache"] = "off"
    else:
        # a batch of kernels is one file under several names: hard links count once
        files = [path.stat() for path in folder.glob(f"*{cache.SUFFIX}")]
        size = sum({info.st_ino: info.st_size for info in files}.values())
        found["kernel cache"] = f"{folder}: {len(files)} kernels, {size / 1e6:.1f} MB"
    found["threads"] = str(get_num_threads())
    console = screen(json_path)
    table = Table(show_header=False, box=None)
    for row in found.items():
        table.add_row(*row)
    console.print(table)
    write_results(json_path, found, console)


def datasets(
    folder: Annotated[Path | None, typer.Option(metavar="DIR", file_okay=False, exists=True,
                                                help="Look there first.", show_default="the usual places")] = None,
    json_path: JsonPath = None,
) -> None:
    """List the data sets: which are at hand, and of the others the files and where to put them.

    Those that are not at hand are fetched when they are first used, if there is a network.
    """
    console = screen(json_path)
    table = plain_table("name", "at hand", "training", "test", "shape", "classes")
    table.add_column("")
    content: dict[str, dict[str, Any]] = {}
    for name, source in SOURCES.items():
        here, (training, test) = status(name, folder), source.samples
        size = sum(file.size for file in source.downloads)
        place = str(cache_folder(name)) if source.downloads else ""
        table.add_row(name, "yes" if here else "no", str(training), str(test) if test else "", _times(source.shape),
                      str(len(source.classes)), source.title)
        content[name] = {"at_hand": here, "title": source.title, "training": training, "test": test,
                         "shape": list(source.shape), "classes": list(source.classes), "folder": place, "bytes": size,
                         "files": [{"name": file.name, "urls": list(file.urls)} for file in source.downloads]}
    console.print(table)
    for name, entry in content.items():
        if entry["at_hand"]:
            continue
        if not entry["files"]:
            console.print(f"\n{name} comes with scikit-learn: pip install 'graphjit[data]'", markup=False)
            continue
        amount = f" ({entry['bytes'] / 1e6:.0f} MB)" if entry["bytes"] else ""
        bases = dict.fromkeys(url.rpartition("/")[0] + "/" for file in entry["files"] for url in file["urls"])
        console.print(f"\n{name} is not at hand. Files to put into {entry['folder']}, or into the folder that --folder "
                      f"names{amount}:", markup=False)
        for file in entry["files"]:
            console.print(f"  {file['name']}", markup=False)
        console.print(f"  from {' or '.join(bases)}", markup=False)
    write_results(json_path, content, console)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
