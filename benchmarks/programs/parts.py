"""Parts that several programs are made of, in any namespace ``xp``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.programs.program import Random, Tree, normal, ones, zeros


def mlp(xp: Any, activation: Callable[[Any], Any], layers: Tree, x: Any) -> Any:
    """Dense layers with an activation between them."""
    *hidden, last = layers
    for layer in hidden:
        x = activation(xp.linear(x, *layer))
    return xp.linear(x, *last)


def transformer_params(rng: Random, blocks: int, width: int) -> Tree:
    """Parameters of blocks of attention and an MLP that is four times as wide."""
    return [{
        "norm1": (ones(width), zeros(width)),
        "qkv": normal(rng, width, 3 * width, scale=0.05),
        "project": normal(rng, width, width, scale=0.05),
        "norm2": (ones(width), zeros(width)),
        "up": normal(rng, width, 4 * width, scale=0.05),
        "down": normal(rng, 4 * width, width, scale=0.05),
    } for _ in range(blocks)]


def transformer(xp: Any, blocks: Tree, x: Any, heads: int, causal: bool = False) -> Any:
    """(batch, time, width) to the same, normalised before each part."""
    batch, time, width = x.shape
    for p in blocks:
        qkv = xp.layer_norm(x, *p["norm1"]) @ p["qkv"]
        by_head = xp.permute_dims(qkv.reshape(batch, time, 3, heads, width // heads), (2, 0, 3, 1, 4))
        mixed = xp.attention(by_head[0], by_head[1], by_head[2], causal)
        x = x + xp.swapaxes(mixed, 1, 2).reshape(batch, time, width) @ p["project"]
        x = x + xp.gelu(xp.layer_norm(x, *p["norm2"]) @ p["up"]) @ p["down"]
    return x


def lstm_cell(xp: Any, hidden: Any, state: Any, pulse: Any) -> Any:
    """The next h and c; ``pulse`` is what comes in, times its weights. Gates in PyTorch's order."""
    h, c = state
    width = hidden.shape[0]
    gates = pulse + h @ hidden
    take_in, keep = xp.sigmoid(gates[:, :width]), xp.sigmoid(gates[:, width:2 * width])
    new, give_out = xp.tanh(gates[:, 2 * width:3 * width]), xp.sigmoid(gates[:, 3 * width:])
    c = keep * c + take_in * new
    return give_out * xp.tanh(c), c


def gru_cell(xp: Any, hidden: Any, bias: Any, h: Any, pulse: Any) -> Any:
    """The next h, as ``lstm_cell``."""
    width = hidden.shape[0]
    inner = h @ hidden + bias
    reset = xp.sigmoid(pulse[:, :width] + inner[:, :width])
    keep = xp.sigmoid(pulse[:, width:2 * width] + inner[:, width:2 * width])
    new = xp.tanh(pulse[:, 2 * width:] + reset * inner[:, 2 * width:])
    return (1 - keep) * new + keep * h
