"""Layers, losses and the class of all models, with PyTorch's names, arguments and ``state_dict`` keys."""

from graphjit.nn import functional, init, utils
from graphjit.nn.activation import (
    ELU,
    GELU,
    Hardtanh,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from graphjit.nn.attention import MultiheadAttention, TransformerEncoderLayer
from graphjit.nn.container import ModuleDict, ModuleList, ParameterList, Sequential
from graphjit.nn.convolution import Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d
from graphjit.nn.layers import Bilinear, Dropout, Embedding, Flatten, Identity, Linear
from graphjit.nn.loss import (
    BCELoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    MSELoss,
    NLLLoss,
    SmoothL1Loss,
)
from graphjit.nn.margin import CosineEmbeddingLoss, HingeEmbeddingLoss, HingeLoss, MultiMarginLoss
from graphjit.nn.mlp import MLP, Layer, Neuron
from graphjit.nn.module import Module
from graphjit.nn.normalization import BatchNorm1d, BatchNorm2d, GroupNorm, LayerNorm, RMSNorm
from graphjit.nn.parameter import Parameter
from graphjit.nn.pooling import AdaptiveAvgPool1d, AdaptiveAvgPool2d, AvgPool1d, AvgPool2d, MaxPool1d, MaxPool2d
from graphjit.nn.recurrent import GRU, LSTM, RNN

__all__ = [
    "ELU", "GELU", "GRU", "LSTM", "MLP", "RNN", "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AvgPool1d",
    "AvgPool2d", "BCELoss", "BCEWithLogitsLoss", "BatchNorm1d", "BatchNorm2d", "Bilinear", "Conv1d", "Conv2d",
    "ConvTranspose1d", "ConvTranspose2d", "CosineEmbeddingLoss", "CrossEntropyLoss", "Dropout", "Embedding",
    "Flatten", "GroupNorm", "Hardtanh", "HingeEmbeddingLoss", "HingeLoss", "HuberLoss", "Identity",
    "KLDivLoss", "L1Loss", "Layer", "LayerNorm", "LeakyReLU", "Linear", "LogSoftmax", "MSELoss", "MaxPool1d",
    "MaxPool2d", "Module", "ModuleDict", "ModuleList", "MultiMarginLoss", "MultiheadAttention", "NLLLoss",
    "Neuron", "Parameter", "ParameterList", "RMSNorm", "ReLU", "Sequential", "SiLU", "Sigmoid", "SmoothL1Loss",
    "Softmax", "Softplus", "Tanh", "TransformerEncoderLayer", "functional", "init", "utils",
]
