"""Layers, activations and losses as functions, with PyTorch's names and arguments.

>>> import graphjit as gj
>>> import graphjit.nn.functional as F
>>> F.relu(gj.tensor([-1.0, 2.0])).tolist()
[0.0, 2.0]
"""

from graphjit.nn.functional.activation import gelu, log_softmax, relu, sigmoid, softmax, tanh
from graphjit.nn.functional.layer import (
    batch_norm,
    dropout,
    embedding,
    layer_norm,
    linear,
    one_hot,
)
from graphjit.nn.functional.loss import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    l1_loss,
    mse_loss,
    nll_loss,
)
from graphjit.ops.conv import conv1d, conv2d, conv_transpose1d, conv_transpose2d
from graphjit.ops.pool import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    avg_pool1d,
    avg_pool2d,
    max_pool1d,
    max_pool2d,
)

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "avg_pool1d", "avg_pool2d", "batch_norm",
    "binary_cross_entropy_with_logits", "conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d",
    "cross_entropy", "dropout", "embedding", "gelu", "l1_loss", "layer_norm", "linear", "log_softmax",
    "max_pool1d", "max_pool2d", "mse_loss", "nll_loss", "one_hot", "relu", "sigmoid", "softmax", "tanh",
]
