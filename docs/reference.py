"""Builds the API reference from the docstrings: ``pip install ".[docs]" && python docs/reference.py [FOLDER]``.

It runs pdoc on the public rooms and writes HTML pages to ``docs/reference/``, which git ignores.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import get_type_hints

import pdoc

import graphjit as gj

ROOMS = ("nn", "nn.functional", "nn.init", "nn.utils", "optim", "optim.lr_scheduler", "data", "training", "checkpoint",
         "plots", "linalg", "random", "testing")


def main(folder: str = str(Path(__file__).with_name("reference"))) -> None:
    """Write the pages."""
    for name in gj.__all__:  # pdoc sees what is there: load what is imported when first used
        vars(gj)[name] = getattr(gj, name)
    for kind in map(gj.linalg.__dict__.get, gj.linalg.__all__):
        if hasattr(kind, "_fields"):  # pdoc does not find the types that a named tuple's module imports
            kind.__new__.__annotations__.update(get_type_hints(kind))
    pdoc.render.configure(docformat="google", footer_text=f"graphjit {gj.__version__}", show_source=False)
    others = rf"!^graphjit\.(?!({'|'.join(map(re.escape, ROOMS))})$)"  # what is not public
    pdoc.pdoc("graphjit", others, output_directory=Path(folder))
    print(f"wrote {folder}/index.html")


if __name__ == "__main__":
    main(*sys.argv[1:])
