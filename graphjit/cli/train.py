"""``graphjit train`` and ``graphjit compare``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from graphjit.cli.options import JsonPath, Offline, Out, Threads, listed, takes_settings
from graphjit.cli.screen import (
    downloading,
    draw_if_possible,
    epoch_lines,
    microseconds,
    plain_table,
    screen,
    write_results,
)
from graphjit.errors import ArgumentError
from graphjit.training import folders, study
from graphjit.training.recipe import ACTIVATIONS, Parts, Settings, file_name, prepare

INTERRUPTED = 130  # the exit code of what the user stopped


def use_threads(threads: int | None) -> None:
    """Take so many threads from here on."""
    if threads is not None:
        from graphjit.runtime.threads import set_num_threads
        set_num_threads(threads)


@takes_settings("default")
def train(settings: Settings, offline: Offline = False, threads: Threads = None, out: Out = Path("runs"),
          json_path: JsonPath = None) -> None:
    """Train a classifier, the whole step compiled, and keep it in a new run folder.

    A run folder is runs/DATASET-MODEL-ACTIVATION-SEED-N, with config.json, history.json, result.json,
    model.safetensors and plots/.

    Examples:

    graphjit train --dataset digits

    graphjit train --dataset digits --train-samples 500 --epochs 10

    graphjit train --dataset mnist --preset study --activation tanh
    """
    console = screen(json_path)
    use_threads(threads)
    result = run(settings, fetched(settings, offline, console), out, console)
    summary(result, console)
    if result.history.epochs and result.folder is not None:
        plots = result.folder / folders.PLOTS
        name = f"{Path(settings.dataset).name}, {settings.model}, {settings.activation}"
        draw_if_possible(console, lambda: study.draw(result.history, plots, name))
    console.print(f"run folder    {result.folder}")
    write_results(json_path, result.asdict(), console)
    if result.history.stopped == "interrupted":
        raise typer.Exit(INTERRUPTED)


def fetched(settings: Settings, offline: bool, console: Console) -> Parts:
    """The data, with a bar where files must be fetched."""
    with downloading(console) as progress:
        return prepare(settings, download=not offline, progress=progress)


def run(settings: Settings, parts: Parts, out: Path, console: Console) -> study.Result:
    """Train with a line for each epoch."""
    mode = "eager" if settings.eager else "compiled"
    console.print(f"[bold]{Path(settings.dataset).name}[/]  {settings.model}, {settings.activation}, {mode}, "
                  f"seed {settings.seed}")
    with epoch_lines(console) as lines:
        return study.train(settings, out, [lines], parts)


def summary(result: study.Result, console: Console) -> None:
    """The numbers at the end of a training."""
    training, validation, test = result.samples
    console.print(f"samples       {training} training, {validation} validation, {test} test")
    console.print(f"parameters    {result.parameters}")
    if result.history.stopped:
        console.print(f"stopped       {result.history.stopped}")
    if not result.history.epochs:
        return
    if not result.settings.eager:
        console.print(f"compile time  {result.compile_seconds:.2f} s: {result.traces} traces, "
                      f"{result.kernels} kernels compiled")
    console.print(f"time per step {microseconds(result.history['step_seconds'][-1])}, "
                  f"all in all {result.seconds:.1f} s")
    console.print(f"[bold]test accuracy {result.test_accuracy:.2%}[/]")


def _activations(text: str) -> str:
    names = listed(text)
    if unknown := [name for name in names if name not in ACTIVATIONS]:
        raise typer.BadParameter(f"{unknown[0]!r} is not one of {', '.join(ACTIVATIONS)}")
    if len(names) < 2 or len(set(names)) < len(names):
        raise typer.BadParameter(f"{text!r} does not name two different activations")
    return text


@takes_settings("study", "activation")
def compare(
    settings: Settings,
    runs: Annotated[list[Path] | None, typer.Argument(
        metavar="RUN...", help="Run folders to compare, instead of training.", show_default=False)] = None,
    activations: Annotated[str, typer.Option(callback=_activations, metavar="NAMES",
                                             help="One training for each, all else alike.")] = "relu,tanh",
    offline: Offline = False, threads: Threads = None, out: Out = Path("runs"), json_path: JsonPath = None,
) -> None:
    """Train with one activation after the other, same seed, and draw all curves into the same pictures.

    Each training has its run folder; the pictures and results.json go to a folder of the comparison.

    Examples:

    graphjit compare --dataset digits

    graphjit compare runs/digits-mlp-relu-0-1 runs/digits-mlp-relu-1-1
    """
    console = screen(json_path)
    use_threads(threads)
    if runs:
        compared = _read(runs)
        folder = folders.new_folder(out, "compare")
    else:
        names, parts = listed(activations), fetched(settings, offline, console)
        compared = {}
        for name in names:
            result = run(replace(settings, activation=name), parts, out, console)
            if result.history.stopped == "interrupted":
                raise typer.Exit(INTERRUPTED)
            assert result.folder is not None  # out is given
            compared[name] = folders.read_run(result.folder)
        folder = folders.new_folder(out, "-".join((file_name(settings.dataset), "compare", *names,
                                                 str(settings.seed))))
    results = {label: {"folder": str(found.folder), "settings": found.settings.asdict(),
                       "history": json.loads(found.history.to_json())} for label, found in compared.items()}
    table = plain_table("", "train loss", "val acc", "test loss", "test acc", "time/step")
    for label, found in compared.items():
        last = {name: values[-1] for name, values in found.history.items()}
        table.add_row(label, f"{last['train_loss']:.4f}", f"{last['val_accuracy']:.2%}", f"{last['test_loss']:.4f}",
                      f"{last['test_accuracy']:.2%}", microseconds(last["step_seconds"]))
    console.print(table)
    folders.write_json(folder / "results.json", results)
    title = f"{Path(settings.dataset).name}, {settings.model}" if not runs else "comparison"
    draw_if_possible(console, lambda: study.draw({label: r.history for label, r in compared.items()},
                                                 folder / folders.PLOTS, title))
    console.print(f"comparison    {folder}")
    write_results(json_path, results, console)


def _read(given: list[Path]) -> dict[str, folders.Run]:
    """Finished runs by the names of their folders."""
    found = [folders.read_run(folder) for folder in given]
    for run in found:
        if not run.history.epochs:
            raise ArgumentError(f"{run.folder} holds no history to compare", hint="Its training was cut short.")
    labels = {run.folder.resolve().name: run for run in found}
    if len(labels) < 2:
        raise ArgumentError("a comparison takes at least two runs of different names")
    return labels
