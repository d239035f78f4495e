"""Optimizers, with PyTorch's names, arguments and ``state_dict`` layout."""

from graphjit.optim.adam import Adam, AdamW
from graphjit.optim.group import ParamGroup
from graphjit.optim.optimizer import Optimizer
from graphjit.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "ParamGroup"]
