"""The options that describe a training, shared by the commands that train."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from graphjit.data import SOURCES
from graphjit.training.recipe import ACTIVATIONS, DECAYS, INITS, MODELS, PRESETS, RATES, Settings

FILES = (".csv", ".npz")  # data of the user's own
DATA, MODEL, TRAINING = "Data", "Model", "Training"


def listed(text: str) -> list[str]:
    """The parts of a comma-separated list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def check_dataset(name: str | None) -> str | None:
    """Raise a usage error for what is neither a data set nor a file."""
    if name is None or name in SOURCES:
        return name
    if Path(name).suffix.lower() in FILES:
        if Path(name).is_file():
            return name
        raise typer.BadParameter(f"there is no file {name}")
    near = difflib.get_close_matches(name, SOURCES, 1)
    raise typer.BadParameter(f"there is no data set {name!r}; "
                             + (f"did you mean {near[0]!r}? " if near else "")
                             + f"there are {', '.join(SOURCES)}, and CSV and NPZ files by their path")


def check_widths(text: str | None) -> str | None:
    """Raise a usage error for what is no list of layer widths."""
    if text is not None and not (listed(text) and all(p.isdecimal() and int(p) > 0 for p in listed(text))):
        raise typer.BadParameter(f"{text!r} is not a list of layer widths such as 128,64")
    return text


def check_positive(value: float | None) -> float | None:
    """Raise a usage error for what is no positive finite number."""
    if value is not None and not 0 < value < float("inf"):
        raise typer.BadParameter(f"{value} is not a positive number")
    return value


def check_json(path: str | None) -> str | None:
    """Raise a usage error for a file in a directory that there is not."""
    if path is not None and path != "-" and (Path(path).is_dir() or not Path(path).absolute().parent.is_dir()):
        raise typer.BadParameter(f"there is no directory {Path(path).parent}" if not Path(path).is_dir()
                                 else f"{path} is a directory")
    return path


def one_of(known: Any) -> Callable[[str | None], str | None]:
    """A check that a name is one of those known."""
    def check(name: str | None) -> str | None:
        if name is not None and name not in known:
            raise typer.BadParameter(f"{name!r} is not one of {', '.join(known)}")
        return name
    return check


def _name(known: Any, text: str, panel: str, default: str) -> Any:
    return Annotated[str | None, typer.Option(callback=one_of(known), metavar="NAME", show_default=default,
                                              rich_help_panel=panel, help=f"{text}: {', '.join(known)}.")]


def _number(kind: type, text: str, panel: str, default: Any, **limits: Any) -> Any:
    return Annotated[kind | None, typer.Option(help=text, rich_help_panel=panel, show_default=str(default), **limits)]


JsonPath = Annotated[str | None, typer.Option("--json", callback=check_json, metavar="PATH", show_default=False,
                                              help="Write the results there as JSON; - is the standard output.")]
Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Folder of all runs.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", file_okay=False,
                                   help="Where the new run folder is made; earlier ones stay as they are.")]
Offline = Annotated[bool, typer.Option("--offline", rich_help_panel=DATA, help="Never fetch a data set.")]
Threads = Annotated[int | None, typer.Option(min=1, show_default="those of the machine",
                                             help="Threads of the kernels.")]


def described_by(preset: str) -> dict[str, Any]:
    """The options for the fields of ``Settings`` and the preset itself, in the order of the help page."""
    usual = Settings.of(preset)
    return {
        "dataset": Annotated[str | None, typer.Option(
            callback=check_dataset, metavar="NAME", show_default=usual.dataset, rich_help_panel=DATA,
            help=f"{', '.join(SOURCES)}; or a CSV or NPZ file.")],
        "folder": Annotated[Path | None, typer.Option(
            metavar="DIR", file_okay=False, exists=True, rich_help_panel=DATA, show_default="the usual places",
            help="Where the files of the data set lie.")],
        "grey": Annotated[bool | None, typer.Option(
            "--grey/--colour", rich_help_panel=DATA, show_default="--grey" if usual.grey else "--colour",
            help="Turn colour images to grey.")],
        "train_samples": _number(int, "Train on so many samples only.", DATA, "all there are", min=1),
        "model": _name(MODELS, "Which network", MODEL, usual.model),
        "activation": _name(ACTIVATIONS, "Behind each hidden layer", MODEL, usual.activation),
        "hidden": Annotated[str | None, typer.Option(
            callback=check_widths, metavar="WIDTHS", show_default=",".join(map(str, usual.hidden)),
            rich_help_panel=MODEL, help="Widths of the hidden layers.")],
        "norm": Annotated[bool | None, typer.Option(
            "--norm/--no-norm", rich_help_panel=MODEL, show_default="--norm" if usual.norm else "--no-norm",
            help="Batch normalisation.")],
        "dropout": _number(float, "Share of activations dropped.", MODEL, usual.dropout, min=0.0, max=0.99),
        "init": _name(INITS, "Starting values of the weights", MODEL, usual.init),
        "epochs": _number(int, "Passes over the training samples.", TRAINING, usual.epochs, min=1),
        "batch_size": _number(int, "Samples in a step.", TRAINING, usual.batch_size, min=2),
        "optimizer": _name(RATES, "How the weights are updated", TRAINING, usual.optimizer),
        "lr": Annotated[float | None, typer.Option(
            callback=check_positive, rich_help_panel=TRAINING, help="Learning rate.",
            show_default=", ".join(f"{name} {rate:g}" for name, rate in RATES.items()))],
        "momentum": _number(float, "Of sgd.", TRAINING, usual.momentum, min=0.0, max=1.0),
        "weight_decay": _number(float, "Pull of the weights towards 0.", TRAINING, usual.weight_decay, min=0.0),
        "schedule": _name(DECAYS, "Learning rate over the epochs", TRAINING, usual.schedule),
        "decay": _number(
            float, "Factor of the schedule: for each epoch (exponential), each third of them (step), each pause of the "
            "validation loss (plateau), all (linear).", TRAINING,
            ", ".join(f"{name} {DECAYS[name]:g}" for name in ("exponential", "step", "plateau", "linear")),
            min=0.0, max=1.0),
        "patience": _number(int, "Stop after so many epochs without a better validation loss.", TRAINING, "never",
                            min=1),
        "seed": _number(int, "Repeats everything.", TRAINING, usual.seed, min=0),
        "eager": Annotated[bool | None, typer.Option(
            "--eager", rich_help_panel=TRAINING, show_default=False, help="Run the very same code uncompiled.")],
        "preset": _name(PRESETS, "Defaults to begin from; study is three layers of 128, Xavier, SGD with momentum 0.9 "
                        "and a falling learning rate", TRAINING, preset),
    }


def takes_settings(preset: str, *without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command, a function of ``settings`` and options of its own, the options that describe a training.

    Args:
        preset: the one it begins from; ``--preset`` names another. without: fields it does not take.
    """
    kinds = {name: kind for name, kind in described_by(preset).items() if name not in without}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def with_options(**options: Any) -> None:
            given = {name: options.pop(name) for name in kinds}
            if given["hidden"] is not None:
                given["hidden"] = tuple(int(width) for width in listed(given["hidden"]))
            for name in ("folder", "dataset"):  # a run folder is read from elsewhere, too
                if given[name] is not None and given[name] not in SOURCES:
                    given[name] = str(Path(given[name]).absolute())
            command(settings=Settings.of(given.pop("preset") or preset, **given), **options)

        # typer reads options from a signature
        own = inspect.signature(command, eval_str=True).parameters.values()
        shared = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
                  for name, kind in kinds.items()]
        parameters = [*shared, *(p.replace(kind=p.KEYWORD_ONLY) for p in own if p.name != "settings")]
        with_options.__name__, with_options.__doc__ = command.__name__, command.__doc__
        with_options.__annotations__ = {p.name: p.annotation for p in parameters}
        with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # as PEP 362 has it
        return with_options
    return decorate
