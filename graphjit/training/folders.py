"""Run folders: what a training leaves behind, and how it is read again.

``runs/<dataset>-<model>-<activation>-<seed>-<n>/`` holds ``config.json`` (what was trained), ``history.json`` (one
number an epoch of each metric), ``result.json`` (what came of it), ``model.safetensors`` (weights, and all that is
needed to go on) and ``plots/``. No run overwrites an earlier one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphjit import nn
from graphjit.checkpoint import load_checkpoint
from graphjit.errors import ArgumentError
from graphjit.training.history import History
from graphjit.training.recipe import Settings, build

CONFIG, HISTORY, RESULT, MODEL, PLOTS = "config.json", "history.json", "result.json", "model.safetensors", "plots"


def new_folder(runs: str | Path, name: str) -> Path:
    """A new folder ``<runs>/<name>-<n>`` for the first n that is free."""
    Path(runs).mkdir(parents=True, exist_ok=True)
    n = 1
    while True:
        folder = Path(runs) / f"{name}-{n}"
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            n += 1


def new_file(path: Path) -> Path:
    """The path, or ``<stem>-<n><suffix>`` beside it for the first n from 2 that is free."""
    free, n = path, 1
    while free.exists():
        n += 1
        free = path.with_stem(f"{path.stem}-{n}")
    return free


def newest(runs: str | Path) -> Path:
    """The run whose model was saved last.

    Raises:
        ArgumentError: there is none.
    """
    found = [path for path in Path(runs).glob(f"*/{MODEL}") if (path.parent / CONFIG).is_file()]
    if not found:
        raise ArgumentError(f"there is no trained model in {runs}", hint="Train one with: graphjit train")
    return max(found, key=lambda path: (path.stat().st_mtime_ns, path.parent.name)).parent


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file that people can read."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Run:
    """A run folder that was read: what was trained there.

    Attributes:
        settings: of the training. shape: of one sample. classes: their names. history: empty if it was cut short.
    """

    folder: Path
    settings: Settings
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    history: History

    def model(self) -> nn.Sequential:
        """The trained model, in evaluation mode.

        Raises:
            CheckpointError: the file is damaged or holds another model. ArgumentError: there is none.
        """
        path = self.folder / MODEL
        if not path.is_file():
            raise ArgumentError(f"{self.folder} holds no model: {MODEL} is missing",
                                hint="The training ended before its first epoch did; train again.")
        model = build(self.settings, self.shape, len(self.classes))
        load_checkpoint(path, model)
        return model.eval()


def read_run(folder: str | Path) -> Run:
    """Read a run folder.

    Raises:
        ArgumentError: it is none, or its config is damaged.
    """
    folder = Path(folder)
    path = folder / CONFIG
    if not path.is_file():
        raise ArgumentError(f"{folder} is not a run folder: it holds no {CONFIG}",
                            hint="graphjit train makes such folders, in runs/ by default.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        settings = Settings.of(**config["settings"])
        shape, classes = tuple(int(n) for n in config["shape"]), tuple(str(c) for c in config["classes"])
        path = folder / HISTORY
        history = History.from_json(path) if path.is_file() else History()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArgumentError(f"{path} is damaged: {_first_line(error)}", hint="Train again.") from error
    return Run(folder, settings, shape, classes, history)


def _first_line(error: Exception) -> str:
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"
