"""Makes the pictures of the README anew: ``python docs/pictures.py`` writes ``docs/pictures/*.png``.

It runs what the README shows: two examples, and the command line on the digits.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = (
    (str(ROOT / "examples" / "scalars.py"),),
    (str(ROOT / "examples" / "moons_svm.py"),),
    ("-m", "graphjit", "compare", "--dataset", "digits", "--epochs", "20"),
    ("-m", "graphjit", "predict", "--show-examples", "20"),
    ("-m", "graphjit", "analyze", "--type", "hessian"),
)
PICTURES = {  # name in docs/pictures: what makes it
    "graph": "runs/scalars/graph.png",
    "boundary": "runs/moons/boundary.png",
    "loss": "runs/digits-compare-relu-tanh-0-1/plots/loss_curves.png",
    "predictions": "runs/digits-mlp-tanh-0-1/predictions.png",
    "hessian": "runs/digits-mlp-tanh-0-1/analysis-hessian.png",
}


def main(folder: Path = ROOT / "docs" / "pictures") -> None:
    """Run the commands in a folder of their own, and take the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as scratch:
        for command in COMMANDS:
            subprocess.run([sys.executable, *command], cwd=scratch, env=env, check=True)
        for name, made in PICTURES.items():
            shutil.copy(Path(scratch) / made, folder / f"{name}.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
