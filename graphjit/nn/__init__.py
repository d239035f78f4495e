"""Layers, losses and the class of all models, with PyTorch's names, arguments and ``state_dict`` keys."""

from graphjit.nn import functional, init, utils
from graphjit.nn.activation import GELU, LogSoftmax, ReLU, Sigmoid, Softmax, Tanh
from graphjit.nn.container import ModuleDict, ModuleList, Sequential
from graphjit.nn.layers import Dropout, Embedding, Flatten, Identity, Linear
from graphjit.nn.loss import BCEWithLogitsLoss, CrossEntropyLoss, L1Loss, MSELoss, NLLLoss
from graphjit.nn.module import Module
from graphjit.nn.normalization import BatchNorm1d, LayerNorm
from graphjit.nn.parameter import Parameter

__all__ = [
    "GELU", "BCEWithLogitsLoss", "BatchNorm1d", "CrossEntropyLoss", "Dropout", "Embedding", "Flatten",
    "Identity", "L1Loss", "LayerNorm", "Linear", "LogSoftmax", "MSELoss", "Module", "ModuleDict",
    "ModuleList", "NLLLoss", "Parameter", "ReLU", "Sequential", "Sigmoid", "Softmax", "Tanh", "functional",
    "init", "utils",
]
