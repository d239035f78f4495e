"""The command line: ``graphjit train``, ``compare``, ``predict``, ``analyze``, ``datasets``, ``doctor``.

Exit codes: 0 done; 1 an error of graphjit or of the files; 2 wrong usage; 3 a data set that is not at hand;
130 interrupted.
"""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from graphjit.cli.about import datasets, doctor
from graphjit.cli.look import analyze, predict
from graphjit.cli.screen import error_text
from graphjit.cli.train import compare, train
from graphjit.errors import DatasetUnavailable, GraphjitError

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False,
                  rich_markup_mode="rich", help="Differentiate and train on the CPU.",
                  epilog="Exit codes: 0 done, 1 an error, 2 wrong usage, 3 a data set that is not at hand.")
for command in (train, compare, predict, analyze, datasets, doctor):
    app.command()(command)


def main() -> None:
    """Run the command line."""
    try:
        app(prog_name="graphjit")
    except GraphjitError as error:
        _say(error_text(error))
        sys.exit(3 if isinstance(error, DatasetUnavailable) else 1)
    except OSError as error:
        _say(f"Error: {error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
        sys.exit(1)


def _say(text: str) -> None:
    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(text)
