"""Schedules of the learning rate, with PyTorch's names and arguments.

``scheduler.step()`` stands after ``optimizer.step()``, outside of compiled functions: it writes the learning rates of
the optimizer's groups, which compiled steps read when they run, so that nothing is traced again.
"""

from graphjit.optim.lr_scheduler.base import LRScheduler
from graphjit.optim.lr_scheduler.one_cycle import OneCycleLR
from graphjit.optim.lr_scheduler.plateau import ReduceLROnPlateau
from graphjit.optim.lr_scheduler.schedules import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    StepLR,
)
from graphjit.optim.lr_scheduler.sequential import SequentialLR

__all__ = [
    "CosineAnnealingLR", "ExponentialLR", "LRScheduler", "LambdaLR", "LinearLR", "MultiStepLR", "OneCycleLR",
    "ReduceLROnPlateau", "SequentialLR", "StepLR",
]
