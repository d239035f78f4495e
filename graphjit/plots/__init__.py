"""Pictures of trainings and models, drawn by matplotlib: each function gives a Figure, and writes it if asked to.

The figures are matplotlib's own ``Figure`` objects; pyplot and its settings are not touched.
"""

from graphjit.plots.boundary import decision_boundary
from graphjit.plots.cost import hessian_spectrum, scaling_curve, step_times
from graphjit.plots.curves import (
    accuracy_curves,
    loss_curves,
    lr_schedule,
    overfitting_gap,
    test_accuracy,
    test_loss,
)
from graphjit.plots.samples import sample_grid

__all__ = [
    "accuracy_curves", "decision_boundary", "hessian_spectrum", "loss_curves", "lr_schedule", "overfitting_gap",
    "sample_grid", "scaling_curve", "step_times", "test_accuracy", "test_loss",
]
