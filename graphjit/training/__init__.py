"""Training of whole models: ``fit``, its history and callbacks, and what ``graphjit train`` runs."""

from graphjit.training.callbacks import BestModel, Callback, Checkpoint, EarlyStopping, State
from graphjit.training.evaluation import evaluate, predict
from graphjit.training.history import History
from graphjit.training.loop import fit
from graphjit.training.metrics import accuracy
from graphjit.training.perceptron import train_perceptron
from graphjit.training.progress import ProgressBar
from graphjit.training.recipe import Settings
from graphjit.training.study import Result, train

__all__ = [
    "BestModel", "Callback", "Checkpoint", "EarlyStopping", "History", "ProgressBar", "Result", "Settings",
    "State", "accuracy", "evaluate", "fit", "predict", "train", "train_perceptron",
]
