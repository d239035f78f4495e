"""Programs on relations: recommenders, graphs, sets of points, pairs of views, decisions."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.programs.parts import mlp
from benchmarks.programs.program import Case, Random, Tree, dense, normal, program, zeros

NODES, EDGES = 2000, 10000  # of the graphs


@program
def matfac(rng: Random) -> Case:
    """Matrix factorisation with biases: 2000 users, 1000 things, 32 factors, 1024 ratings."""
    params = {"user": normal(rng, 2000, 32, scale=0.1), "thing": normal(rng, 1000, 32, scale=0.1),
              "user_bias": zeros(2000), "thing_bias": zeros(1000)}

    def loss(xp: Any, p: Tree, users: Any, things: Any, ratings: Any) -> Any:
        match = (xp.take(p["user"], users) * xp.take(p["thing"], things)).sum(-1)
        error = match + xp.take(p["user_bias"], users) + xp.take(p["thing_bias"], things) - ratings
        return (error * error).mean()

    return Case(loss, params, (rng.integers(0, 2000, 1024), rng.integers(0, 1000, 1024), normal(rng, 1024)))


@program
def dlrm(rng: Random) -> Case:
    """A recommender of 8 tables of 1000 x 16, an MLP for 13 numbers, products of all pairs; 256 rows."""
    params = {"tables": [normal(rng, 1000, 16, scale=0.1) for _ in range(8)], "bottom": dense(rng, 13, 64, 16),
              "top": dense(rng, 52, 64, 1)}
    first, second = np.triu_indices(9, 1)

    def loss(xp: Any, p: Tree, x: Any, ids: Any, y: Any) -> Any:
        dense_part = xp.relu(mlp(xp, xp.relu, p["bottom"], x))
        vectors = xp.stack([dense_part, *(xp.take(table, ids[:, i]) for i, table in enumerate(p["tables"]))], 1)
        products = vectors @ xp.swapaxes(vectors, 1, 2)
        features = xp.concat([dense_part, products[:, first, second]], 1)
        logits = mlp(xp, xp.relu, p["top"], features)[:, 0]
        return (xp.softplus(logits) - logits * y).mean()

    return Case(loss, params, (normal(rng, 256, 13), rng.integers(0, 1000, (256, 8)),
                               (normal(rng, 256) > 0).astype(np.float32)))


@program
def bigsoftmax(rng: Random) -> Case:
    """A softmax over 10,000 classes of 64 rows of 128 numbers, by a table of which is the right one."""
    def loss(xp: Any, p: Tree, x: Any, y: Any) -> Any:
        logits = xp.linear(x, p["w"], p["b"])
        return xp.logsumexp(logits, -1).mean() - (logits * y).sum() / x.shape[0]

    right = zeros(64, 10000)
    right[np.arange(64), rng.integers(0, 10000, 64)] = 1
    params = {"w": normal(rng, 128, 10000, scale=0.05), "b": zeros(10000)}
    return Case(loss, params, (normal(rng, 64, 128), right))


@program
def gcn(rng: Random) -> Case:
    """A graph convolution net 32-64-7 on a graph of 2000 nodes and 10,000 edges."""
    def loss(xp: Any, p: Tree, x: Any, source: Any, target: Any, y: Any) -> Any:
        def gathered(h: Any) -> Any:
            return xp.segment_sum(xp.take(h, source), target, NODES)

        return xp.cross_entropy(gathered(xp.relu(gathered(x @ p["first"])) @ p["second"]), y)

    params = {"first": normal(rng, 32, 64, scale=0.1), "second": normal(rng, 64, 7, scale=0.1)}
    return Case(loss, params, (normal(rng, NODES, 32), rng.integers(0, NODES, EDGES), rng.integers(0, NODES, EDGES),
                               rng.integers(0, 7, NODES)))


@program
def gat(rng: Random) -> Case:
    """Attention of 32 channels over the neighbours in a graph of 2000 nodes and 10,000 edges."""
    def loss(xp: Any, p: Tree, x: Any, source: Any, target: Any, y: Any) -> Any:
        h = x @ p["w"]
        score = xp.take(h @ p["by_source"], source) + xp.take(h @ p["by_target"], target)
        weight = xp.exp(xp.leaky_relu(score, 0.2))
        total = xp.segment_sum(weight, target, NODES)
        mixed = xp.segment_sum(xp.take(h, source) * weight[:, None], target, NODES)
        return xp.cross_entropy((mixed / (total[:, None] + 1e-9))[:, :7], y)

    params = {"w": normal(rng, 32, 32, scale=0.1), "by_source": normal(rng, 32, scale=0.1),
              "by_target": normal(rng, 32, scale=0.1)}
    return Case(loss, params, (normal(rng, NODES, 32), rng.integers(0, NODES, EDGES), rng.integers(0, NODES, EDGES),
                               rng.integers(0, 7, NODES)))


@program
def pointnet(rng: Random) -> Case:
    """A set function: an MLP 3-64-128 for each of 256 points, their maximum, an MLP 128-64-10; 16 clouds."""
    params = {"point": dense(rng, 3, 64, 128), "cloud": dense(rng, 128, 64, 10)}

    def loss(xp: Any, p: Tree, x: Any, y: Any) -> Any:
        features = xp.max(mlp(xp, xp.relu, p["point"], x), 1)
        return xp.cross_entropy(mlp(xp, xp.relu, p["cloud"], features), y)

    return Case(loss, params, (normal(rng, 16, 256, 3), rng.integers(0, 10, 16)))


@program
def infonce(rng: Random) -> Case:
    """Contrast of 256 pairs of views, encoded to 64 numbers of norm 1, in both directions, with a temperature."""
    params = {"encoder": dense(rng, 128, 128, 64), "log_scale": np.full((), 2, np.float32)}

    def loss(xp: Any, p: Tree, first: Any, second: Any, own: Any) -> Any:
        def encoded(x: Any) -> Any:
            h = mlp(xp, xp.relu, p["encoder"], x)
            return h / xp.sqrt((h * h).sum(-1) + 1e-12)[:, None]

        logits = xp.exp(p["log_scale"]) * (encoded(first) @ encoded(second).T)
        return 0.5 * (xp.cross_entropy(logits, own) + xp.cross_entropy(logits.T, own))

    view = normal(rng, 256, 128)
    return Case(loss, params, (view, view + normal(rng, 256, 128, scale=0.5), np.arange(256)))


@program
def moe(rng: Random) -> Case:
    """A mixture of 4 experts 64-128-64, all of them weighted by a gate, with a penalty for imbalance; 512 rows."""
    params = {"gate": normal(rng, 64, 4, scale=0.1), "up": normal(rng, 4, 64, 128, scale=0.1),
              "down": normal(rng, 4, 128, 64, scale=0.1)}

    def loss(xp: Any, p: Tree, x: Any, y: Any) -> Any:
        gate = xp.softmax(x @ p["gate"], -1)
        hidden = xp.relu(xp.einsum("nd,edh->enh", x, p["up"]))
        found = xp.einsum("ne,end->nd", gate, hidden @ p["down"])
        return ((found - y) ** 2).mean() + 0.01 * 4 * (gate.mean(0) ** 2).sum()

    return Case(loss, params, (normal(rng, 512, 64), normal(rng, 512, 64)))


@program
def wgangp(rng: Random) -> Case:
    """A critic 16-128-128-1 with a penalty on its gradient's norm (a derivative of a derivative); 64 rows."""
    def loss(xp: Any, layers: Tree, real: Any, made: Any, share: Any) -> Any:
        def critic(x: Any) -> Any:
            return mlp(xp, lambda h: xp.leaky_relu(h, 0.2), layers, x)[:, 0]

        between = share[:, None] * real + (1 - share[:, None]) * made
        slope = xp.grad(lambda x: critic(x).sum())(between)
        penalty = ((xp.sqrt((slope * slope).sum(-1) + 1e-9) - 1) ** 2).mean()
        return critic(made).mean() - critic(real).mean() + 10 * penalty

    return Case(loss, dense(rng, 16, 128, 128, 1),
                (normal(rng, 64, 16), normal(rng, 64, 16), rng.random(64).astype(np.float32)))


@program
def ppo(rng: Random) -> Case:
    """A step of a clipped policy gradient: an MLP 8-64-64 with 6 actions and a value, entropy bonus, 512 moments."""
    params = {"body": dense(rng, 8, 64, 64), "policy": dense(rng, 64, 6), "value": dense(rng, 64, 1)}

    def loss(xp: Any, p: Tree, seen: Any, actions: Any, before: Any, advantage: Any, returns: Any) -> Any:
        h = xp.tanh(mlp(xp, xp.tanh, p["body"], seen))
        log_p = xp.log_softmax(mlp(xp, xp.tanh, p["policy"], h), -1)
        ratio = xp.exp(xp.take_along_axis(log_p, actions[:, None], 1)[:, 0] - before)
        gain = xp.minimum(ratio * advantage, xp.clip(ratio, 0.8, 1.2) * advantage).mean()
        entropy = -(xp.exp(log_p) * log_p).sum(-1).mean()
        value_error = ((mlp(xp, xp.tanh, p["value"], h)[:, 0] - returns) ** 2).mean()
        return 0.5 * value_error - gain - 0.01 * entropy

    return Case(loss, params, (normal(rng, 512, 8), rng.integers(0, 6, 512), normal(rng, 512, scale=0.1) - 1.8,
                               normal(rng, 512), normal(rng, 512)))
