"""Programs on images: classification, segmentation, generation, rendering."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.programs.parts import mlp, transformer, transformer_params
from benchmarks.programs.program import Case, Random, Tree, dense, normal, ones, program, zeros


def convolution(rng: Random, into: int, out: int, size: int, scale: float = 0.1, groups: int = 1) -> Tree:
    """Windows, and scale and shift of the normalisation behind them."""
    return normal(rng, out, into // groups, size, size, scale=scale), ones(out), zeros(out)


def normalised(xp: Any, layer: Tree, x: Any, stride: int = 1, groups: int = 1) -> Any:
    """A convolution that keeps the size (but for the stride), and batch normalisation."""
    windows, scale, shift = layer
    x = xp.conv2d(x, windows, stride=stride, padding=windows.shape[-1] // 2, groups=groups)
    return xp.batch_norm(x, scale, shift)


@program
def resnet(rng: Random) -> Case:
    """A residual net with batch normalisation, stages of 16, 32 and 64 channels; 32 images of 3 x 32 x 32."""
    def block(into: int, out: int) -> Tree:
        layers = {"first": convolution(rng, into, out, 3), "second": convolution(rng, out, out, 3)}
        return layers if into == out else {**layers, "short": convolution(rng, into, out, 1)}

    params = {"stem": convolution(rng, 3, 16, 3), "blocks": [block(16, 16), block(16, 32), block(32, 64)],
              "out": normal(rng, 64, 10, scale=0.1)}

    def loss(xp: Any, p: Tree, x: Any, y: Any) -> Any:
        h = xp.relu(normalised(xp, p["stem"], x))
        for block in p["blocks"]:
            stride = 2 if "short" in block else 1
            short = normalised(xp, block["short"], h, stride) if "short" in block else h
            h = xp.relu(normalised(xp, block["first"], h, stride))
            h = xp.relu(short + normalised(xp, block["second"], h))
        return xp.cross_entropy(h.mean((2, 3)) @ p["out"], y)

    return Case(loss, params, (normal(rng, 32, 3, 32, 32), rng.integers(0, 10, 32)))


@program
def mobilenet(rng: Random) -> Case:
    """An inverted residual block, 16 channels, depthwise on 32, normalised; 16 images of 32 x 32, squared error."""
    params = {"up": convolution(rng, 16, 32, 1, 0.2), "depth": convolution(rng, 32, 32, 3, 0.2, groups=32),
              "down": convolution(rng, 32, 16, 1, 0.2)}

    def loss(xp: Any, p: Tree, x: Any, y: Any) -> Any:
        h = xp.relu(normalised(xp, p["up"], x))
        h = xp.relu(normalised(xp, p["depth"], h, groups=32))
        return ((x + normalised(xp, p["down"], h) - y) ** 2).mean()

    return Case(loss, params, (normal(rng, 16, 16, 32, 32), normal(rng, 16, 16, 32, 32)))


@program
def smallconv(rng: Random) -> Case:
    """LeNet with tanh and max-pooling; 32 images of 28 x 28, 10 classes."""
    params = {"first": normal(rng, 6, 1, 5, 5, scale=0.2), "second": normal(rng, 16, 6, 5, 5, scale=0.1),
              "dense": dense(rng, 256, 120, 84, 10)}

    def loss(xp: Any, p: Tree, x: Any, y: Any) -> Any:
        h = xp.max_pool2d(xp.tanh(xp.conv2d(x, p["first"])))
        h = xp.max_pool2d(xp.tanh(xp.conv2d(h, p["second"])))
        return xp.cross_entropy(mlp(xp, xp.tanh, p["dense"], h.reshape(-1, 256)), y)

    return Case(loss, params, (normal(rng, 32, 1, 28, 28), rng.integers(0, 10, 32)))


@program
def unet(rng: Random) -> Case:
    """A U-Net of three levels, 8 to 32 channels, without normalisation; 8 images of 64 x 64, squared error."""
    sizes = {"in": (1, 8), "down1": (8, 16), "down2": (16, 32), "up1": (48, 16), "up2": (24, 8), "out": (8, 1)}
    params = {name: normal(rng, out, into, 3, 3, scale=0.1) for name, (into, out) in sizes.items()}

    def loss(xp: Any, w: Tree, x: Any, y: Any) -> Any:
        large = xp.relu(xp.conv2d(x, w["in"], padding=1))
        middle = xp.relu(xp.conv2d(xp.max_pool2d(large), w["down1"], padding=1))
        h = xp.relu(xp.conv2d(xp.max_pool2d(middle), w["down2"], padding=1))
        h = xp.relu(xp.conv2d(xp.concat([xp.upsample2d(h), middle], 1), w["up1"], padding=1))
        h = xp.relu(xp.conv2d(xp.concat([xp.upsample2d(h), large], 1), w["up2"], padding=1))
        return ((xp.conv2d(h, w["out"], padding=1) - y) ** 2).mean()

    return Case(loss, params, (normal(rng, 8, 1, 64, 64), normal(rng, 8, 1, 64, 64)))


@program
def convvae(rng: Random) -> Case:
    """A variational autoencoder of convolutions and their transposes, 8 latent numbers; 64 images of 28 x 28."""
    params = {
        "first": normal(rng, 16, 1, 4, 4, scale=0.1),
        "second": normal(rng, 32, 16, 4, 4, scale=0.1),
        "latent": normal(rng, 32 * 49, 16, scale=0.02),
        "from_latent": normal(rng, 8, 32 * 49, scale=0.1),
        "third": normal(rng, 32, 16, 4, 4, scale=0.1),
        "fourth": normal(rng, 16, 1, 4, 4, scale=0.1),
    }

    def loss(xp: Any, w: Tree, x: Any, noise: Any) -> Any:
        h = xp.relu(xp.conv2d(x, w["first"], stride=2, padding=1))
        h = xp.relu(xp.conv2d(h, w["second"], stride=2, padding=1))
        latent = h.reshape(-1, 32 * 49) @ w["latent"]
        mean, log_var = latent[:, :8], latent[:, 8:]
        z = mean + xp.exp(0.5 * log_var) * noise
        h = xp.relu(z @ w["from_latent"]).reshape(-1, 32, 7, 7)
        h = xp.relu(xp.conv_transpose2d(h, w["third"], stride=2, padding=1))
        logits = xp.conv_transpose2d(h, w["fourth"], stride=2, padding=1)
        reconstruction = (xp.softplus(logits) - logits * x).sum()
        divergence = -0.5 * (1 + log_var - mean * mean - xp.exp(log_var)).sum()
        return (reconstruction + divergence) / x.shape[0]

    return Case(loss, params, (abs(normal(rng, 64, 1, 28, 28)).clip(0, 1), normal(rng, 64, 8)))


@program
def vit(rng: Random) -> Case:
    """A transformer of 4 blocks, 64 wide, 4 heads, on 50 patches of 16 numbers; 16 images, 10 classes."""
    params = {"in": normal(rng, 16, 64, scale=0.1), "blocks": transformer_params(rng, 4, 64),
              "out": normal(rng, 64, 10, scale=0.1)}

    def loss(xp: Any, p: Tree, x: Any, y: Any) -> Any:
        h = transformer(xp, p["blocks"], x @ p["in"], heads=4)
        return xp.cross_entropy(h.mean(1) @ p["out"], y)

    return Case(loss, params, (normal(rng, 16, 50, 16), rng.integers(0, 10, 16)))


@program
def mixer(rng: Random) -> Case:
    """An MLP-Mixer of 3 blocks, 49 patches of 64 channels; 32 images, 10 classes."""
    blocks = [{
        "norm1": (ones(64), zeros(64)),
        "patches": (normal(rng, 49, 96, scale=0.1), normal(rng, 96, 49, scale=0.1)),
        "norm2": (ones(64), zeros(64)),
        "channels": (normal(rng, 64, 256, scale=0.1), normal(rng, 256, 64, scale=0.1)),
    } for _ in range(3)]
    params = {"in": normal(rng, 48, 64, scale=0.1), "blocks": blocks, "out": normal(rng, 64, 10, scale=0.1)}

    def loss(xp: Any, p: Tree, x: Any, y: Any) -> Any:
        h = x @ p["in"]
        for block in p["blocks"]:
            up, down = block["patches"]
            mixed = xp.gelu(xp.swapaxes(xp.layer_norm(h, *block["norm1"]), 1, 2) @ up) @ down
            h = h + xp.swapaxes(mixed, 1, 2)
            up, down = block["channels"]
            h = h + xp.gelu(xp.layer_norm(h, *block["norm2"]) @ up) @ down
        return xp.cross_entropy(h.mean(1) @ p["out"], y)

    return Case(loss, params, (normal(rng, 32, 49, 48), rng.integers(0, 10, 32)))


@program
def ae(rng: Random) -> Case:
    """An autoencoder 784-256-64-256-784 with ReLU and a sigmoid; 100 images, squared error."""
    def loss(xp: Any, layers: Tree, x: Any) -> Any:
        return ((xp.sigmoid(mlp(xp, xp.relu, layers, x)) - x) ** 2).mean()

    return Case(loss, dense(rng, 784, 256, 64, 256, 784), (rng.random((100, 784)).astype(np.float32),))


@program
def nerf(rng: Random) -> Case:
    """A radiance field: positions in 6 frequencies, an MLP of 64, colours added up along 64 rays of 32 points."""
    frequencies = (2.0 ** np.arange(6)).astype(np.float32)
    step = 0.1

    def loss(xp: Any, layers: Tree, points: Any, frequencies: Any, colours: Any) -> Any:
        rays, places = points.shape[:2]
        angles = (points[..., None] * frequencies).reshape(rays * places, -1)
        waves = xp.concat([xp.sin(angles), xp.cos(angles)], 1)
        field = mlp(xp, xp.relu, layers, waves).reshape(rays, places, 4)
        depth = xp.softplus(field[..., 0]) * step
        light = xp.exp(depth - xp.cumsum(depth, 1))  # what comes through all points before
        weights = light * (1 - xp.exp(-depth))
        found = (weights[..., None] * xp.sigmoid(field[..., 1:])).sum(1)
        return ((found - colours) ** 2).mean()

    colours = rng.random((64, 3)).astype(np.float32)
    return Case(loss, dense(rng, 36, 64, 64, 4), (normal(rng, 64, 32, 3), frequencies, colours))
