"""Layers, activations and losses as functions, with PyTorch's names and arguments.

>>> import graphjit as gj
>>> import graphjit.nn.functional as F
>>> F.relu(gj.tensor([-1.0, 2.0])).tolist()
[0.0, 2.0]
"""

from graphjit.nn.functional.activation import (
    elu,
    gelu,
    hardtanh,
    leaky_relu,
    log_softmax,
    relu,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)
from graphjit.nn.functional.attention import scaled_dot_product_attention
from graphjit.nn.functional.cross_entropy import cross_entropy, nll_loss
from graphjit.nn.functional.layer import bilinear, dropout, embedding, linear, one_hot
from graphjit.nn.functional.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    smooth_l1_loss,
)
from graphjit.nn.functional.margin import (
    cosine_embedding_loss,
    hinge_embedding_loss,
    hinge_loss,
    multi_margin_loss,
)
from graphjit.nn.functional.normalization import batch_norm, group_norm, layer_norm, rms_norm
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
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "avg_pool1d", "avg_pool2d", "batch_norm", "bilinear",
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "conv1d", "conv2d", "conv_transpose1d",
    "conv_transpose2d", "cosine_embedding_loss", "cross_entropy", "dropout", "elu", "embedding", "gelu",
    "group_norm", "hardtanh", "hinge_embedding_loss", "hinge_loss", "huber_loss", "kl_div", "l1_loss",
    "layer_norm", "leaky_relu", "linear", "log_softmax", "max_pool1d", "max_pool2d", "mse_loss",
    "multi_margin_loss", "nll_loss", "one_hot", "relu", "rms_norm", "scaled_dot_product_attention", "sigmoid",
    "silu", "smooth_l1_loss", "softmax", "softplus", "tanh",
]
