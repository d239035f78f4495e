"""Training of whole models: what ``graphjit train`` runs."""

from graphjit.training.classify import Epoch, Result, Settings, mlp, train

__all__ = ["Epoch", "Result", "Settings", "mlp", "train"]
