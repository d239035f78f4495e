"""Programs of physics and engineering: differential equations, particles, tensor networks, paths of prices."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.programs.parts import mlp
from benchmarks.programs.program import Case, Random, Tree, dense, normal, program


@program
def pinn(rng: Random) -> Case:
    """A physics-informed net 2-32-32-32-1 for Burgers' equation: derivatives to second order at 1000 points."""
    def loss(xp: Any, layers: Tree, x: Any, t: Any, start: Any, value: Any) -> Any:
        def u(x: Any, t: Any) -> Any:
            return mlp(xp, xp.tanh, layers, xp.stack([x, t], -1))[:, 0]

        by_t = xp.grad(lambda t: u(x, t).sum())(t)
        by_x = xp.grad(lambda x: u(x, t).sum())
        by_xx = xp.grad(lambda x: by_x(x).sum())(x)
        residual = by_t + u(x, t) * by_x(x) - 0.01 * by_xx
        return (residual**2).mean() + ((u(start, start * 0) - value) ** 2).mean()

    return Case(loss, dense(rng, 2, 32, 32, 32, 1),
                (normal(rng, 1000), normal(rng, 1000), normal(rng, 100), normal(rng, 100)))


@program
def neuralode(rng: Random) -> Case:
    """A neural differential equation of 2 numbers, 50 units, 20 steps of Runge and Kutta; 100 paths."""
    step = 0.05

    def loss(xp: Any, layers: Tree, start: Any, y: Any) -> Any:
        def slope(x: Any) -> Any:
            return mlp(xp, xp.tanh, layers, x**3)

        def runge_kutta(state: Any, y: Any) -> Any:
            x, total = state
            k1 = slope(x)
            k2 = slope(x + step / 2 * k1)
            k3 = slope(x + step / 2 * k2)
            k4 = slope(x + step * k3)
            x = x + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            return x, total + ((x - y) ** 2).mean()

        return xp.fold(runge_kutta, (start, xp.zeros((), dtype=start.dtype)), y)[1]

    layers = [(normal(rng, 2, 50, scale=0.5), np.zeros(50, np.float32)),
              (normal(rng, 50, 2, scale=0.1), np.zeros(2, np.float32))]
    return Case(loss, layers, (normal(rng, 100, 2), normal(rng, 20, 100, 2)))


@program
def nbody(rng: Random) -> Case:
    """The energy of 300 bodies that attract each other, and the forces on them."""
    def loss(xp: Any, x: Any, mass: Any) -> Any:
        apart = x[:, None, :] - x
        squared = (apart * apart).sum(-1) + 0.01
        return -(mass[:, None] * mass / xp.sqrt(squared)).sum()

    return Case(loss, normal(rng, 300, 3), (abs(normal(rng, 300)),))


@program
def heat(rng: Random) -> Case:
    """Heat that spreads on a torus of 128 x 128 for 20 steps; which start ends like this?"""
    def loss(xp: Any, u: Any, y: Any) -> Any:
        def step(u: Any) -> Any:
            around = xp.roll(u, 1, 0) + xp.roll(u, -1, 0) + xp.roll(u, 1, 1) + xp.roll(u, -1, 1)
            return u + 0.1 * (around - 4 * u)

        return ((xp.iterate(step, u, 20) - y) ** 2).sum()

    return Case(loss, normal(rng, 128, 128), (normal(rng, 128, 128),))


@program
def wave(rng: Random) -> Case:
    """Waves on a square of 128 x 128 with a fixed border for 10 steps, by their speed at each place."""
    def loss(xp: Any, speed: Any, start: Any, y: Any) -> Any:
        u, v = start, start * 0
        for _ in range(10):
            around = u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2]
            v = v + xp.pad(speed * (around - 4 * u[1:-1, 1:-1]), 1)
            u = u + 0.1 * v
        return ((u - y) ** 2).sum()

    return Case(loss, abs(normal(rng, 126, 126, scale=0.1)), (normal(rng, 128, 128), normal(rng, 128, 128)))


@program
def kepler(rng: Random) -> Case:
    """Orbits of 8 bodies for 50 symplectic steps in float64: the strength of the attraction, of their places."""
    def loss(xp: Any, strength: Any, x: Any, v: Any, y: Any) -> Any:
        def step(state: Any, y: Any) -> Any:
            x, v, total = state
            distance = xp.sqrt((x * x).sum(-1) + 1e-6)
            v = v - 0.01 * strength * x / (distance**3)[:, None]
            x = x + 0.01 * v
            return x, v, total + ((x - y) ** 2).sum()

        return xp.fold(step, (x, v, xp.zeros((), dtype=x.dtype)), y)[2]

    return Case(loss, np.array(1.0),
                (rng.standard_normal((8, 2)), rng.standard_normal((8, 2)), rng.standard_normal((50, 8, 2))))


@program
def tensornet(rng: Random) -> Case:
    """A matrix product state: 6 tensors of 16 x 8 x 16, contracted with 64 inputs by ``einsum``."""
    def loss(xp: Any, cores: Tree, x: Any) -> Any:
        v = xp.einsum("bi,lir->blr", x[:, 0], cores[0])[:, 0]
        for i, core in enumerate(cores[1:], start=1):
            v = xp.einsum("bl,bi,lir->br", v, x[:, i], core)
        return (v.sum(-1) ** 2).mean()

    return Case(loss, [normal(rng, 16, 8, 16, scale=0.2) for _ in range(6)], (normal(rng, 64, 6, 8),))


@program
def fourier(rng: Random) -> Case:
    """A series of 64 sines and cosines through 1000 points."""
    def loss(xp: Any, p: Tree, x: Any, y: Any, k: Any) -> Any:
        angle = x[:, None] * k
        found = (xp.sin(angle) * p["sine"] + xp.cos(angle) * p["cosine"]).sum(-1)
        return ((found - y) ** 2).mean()

    params = {"sine": normal(rng, 64, scale=0.1), "cosine": normal(rng, 64, scale=0.1)}
    return Case(loss, params, (normal(rng, 1000), normal(rng, 1000), np.arange(64, dtype=np.float32)))


@program
def option(rng: Random) -> Case:
    """The price of an Asian option in Heston's model, float64, and its sensitivities: 2000 paths of 50 steps."""
    step = 0.02
    params = {name: np.array(value) for name, value in (
        ("spot", 1.0), ("strike", 1.0), ("rate", 0.02), ("variance", 0.04), ("kappa", 2.0), ("theta", 0.04),
        ("xi", 0.3), ("rho", -0.6))}

    def loss(xp: Any, p: Tree, shocks: Any) -> Any:
        def move(state: Any, shock: Any) -> Any:
            price, variance, total = state
            known = xp.clip(variance, 1e-6, None)
            deviation = xp.sqrt(known * step)
            both = p["rho"] * shock[0] + xp.sqrt(1 - p["rho"] ** 2) * shock[1]
            price = price * xp.exp((p["rate"] - 0.5 * known) * step + deviation * shock[0])
            variance = variance + p["kappa"] * (p["theta"] - known) * step + p["xi"] * deviation * both
            return price, variance, total + price

        none = 0 * shocks[0, 0]
        _, _, total = xp.fold(move, (none + p["spot"], none + p["variance"], none), shocks)
        return (xp.relu(total / shocks.shape[0] - p["strike"]) * xp.exp(-p["rate"])).mean()

    return Case(loss, params, (rng.standard_normal((50, 2, 2000)),))
