"""Optimizers and learning-rate schedules, with PyTorch's names, arguments and ``state_dict`` layout."""

from graphjit.optim import lr_scheduler
from graphjit.optim.adagrad import Adagrad
from graphjit.optim.adam import Adam, AdamW
from graphjit.optim.group import ParamGroup
from graphjit.optim.lbfgs import LBFGS
from graphjit.optim.optimizer import Optimizer
from graphjit.optim.rmsprop import RMSprop
from graphjit.optim.sgd import SGD

__all__ = ["LBFGS", "SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "ParamGroup", "RMSprop", "lr_scheduler"]
