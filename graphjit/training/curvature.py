"""How a loss curves: the largest eigenvalues of its Hessian, by Hessian-vector products and Lanczos' method."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from graphjit.errors import ArgumentError, NumericalError
from graphjit.jit import compile
from graphjit.nn.module import Module, own
from graphjit.nn.parameter import Parameter
from graphjit.op import Array
from graphjit.tensor import Tensor
from graphjit.training.steps import Loss
from graphjit.transforms import hvp, no_grad


@dataclass(frozen=True)
class Spectrum:
    """The eigenvalues of largest magnitude of a loss's Hessian by the parameters.

    Attributes:
        eigenvalues: the largest magnitude first.
        bounds: for each, how far at most the nearest true eigenvalue lies.
        converged: whether all bounds are within the tolerance.
        products: how many Hessian-vector products it took. product_seconds: median time of one.
        loss: its value there. parameters, samples: how many.
    """

    eigenvalues: tuple[float, ...]
    bounds: tuple[float, ...]
    converged: bool
    products: int
    product_seconds: float
    loss: float
    parameters: int
    samples: int

    def asdict(self) -> dict[str, Any]:
        """As nested dicts and lists, for JSON."""
        return asdict(self)


def hessian_eigenvalues(model: Module, loss: Loss, x: Array, y: Array, k: int = 10, *, tolerance: float = 1e-6,
                        limit: int | None = None, seed: int = 0, eager: bool = False,
                        on_product: Callable[[], object] = lambda: None) -> Spectrum:
    """The k eigenvalues of largest magnitude of the Hessian of ``loss(model(x), y)`` by the model's parameters.

    The Hessian itself is never formed: ``lanczos`` asks for its products with vectors, each one call of a compiled
    ``gj.hvp``. The model is copied, turned to evaluation mode (so that the loss is one function) and to float64.

    Args:
        model: its parameters that require gradients count.
        loss: of the output and ``y``, one floating number.
        x: samples, first axis counts them. y: their targets.
        k: how many; all there are if the model has fewer parameters.
        tolerance: error allowed, as a share of the largest magnitude.
        limit: most products to compute; ``max(100, 20 * k)`` by default.
        seed: of the vector to begin with. eager: do not compile. on_product: called after each product.

    Raises:
        ArgumentError: a model without parameters, or k below 1.
        NumericalError: the loss or its Hessian is not finite.

    >>> import graphjit as gj
    >>> from graphjit.training.curvature import hessian_eigenvalues
    >>> found = hessian_eigenvalues(gj.nn.Linear(1, 1, bias=False), gj.nn.functional.mse_loss, np.ones((4, 1)),
    ...                             np.zeros((4, 1)))
    >>> round(found.eigenvalues[0], 9)
    2.0
    """
    model = copy.deepcopy(model).double().eval()
    inputs = x.astype(np.float64) if x.dtype.kind == "f" else x
    at = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    if not at:
        raise ArgumentError("a model without parameters has no Hessian")

    def objective(parameters: dict[str, Tensor]) -> Any:
        with _holding(model, parameters):
            return loss(model(inputs), y)

    def product(parameters: dict[str, Tensor], direction: dict[str, Array]) -> Any:
        return hvp(objective, parameters, direction)

    run = product if eager else compile(product)
    names, ends = list(at), np.cumsum([t.size for t in at.values()])
    times: list[float] = []

    def flat(vector: Array) -> Array:
        begin = time.perf_counter()
        parts = np.split(vector, ends[:-1])
        found = run(at, {n: part.reshape(at[n].shape) for n, part in zip(names, parts, strict=True)})
        out = np.concatenate([found[n].numpy().ravel() for n in names])
        times.append(time.perf_counter() - begin)
        on_product()
        return out

    with no_grad():
        value = float(objective(at).item())
    if not np.isfinite(value):
        raise NumericalError(f"the loss is {value}, its Hessian has no eigenvalues",
                             hint="Train with a smaller learning rate.")
    n = int(ends[-1])
    values, bounds = lanczos(flat, n, k, tolerance=tolerance, limit=limit, seed=seed)
    close = bool((bounds <= tolerance * np.abs(values).max()).all())
    return Spectrum(tuple(values.tolist()), tuple(bounds.tolist()), close, len(times), statistics.median(times), value,
                    n, len(x))


def lanczos(product: Callable[[Array], Array], n: int, k: int, *, tolerance: float = 1e-6, limit: int | None = None,
            seed: int = 0) -> tuple[Array, Array]:
    """The k eigenvalues of largest magnitude of a symmetric matrix that is known by its products with vectors.

    Lanczos' method with full reorthogonalisation, each new vector twice (B. N. Parlett, The Symmetric Eigenvalue
    Problem, 1998, chapters 6.9 and 13).

    Args:
        product: gives the matrix times a vector (n,), float64.
        n: rows of the matrix. k: how many eigenvalues, at most n.
        tolerance: error allowed, as a share of the largest magnitude.
        limit: most products to compute; ``max(100, 20 * k)`` by default. seed: of the first vector.

    Returns:
        Eigenvalues (k,), the largest magnitude first, and for each how far at most the nearest true eigenvalue lies.

    Raises:
        ArgumentError: k or the limit below 1. NumericalError: a product is not finite.

    >>> from graphjit.training.curvature import lanczos
    >>> values, bounds = lanczos(lambda v: v * np.array([1.0, -5.0, 3.0]), n=3, k=2)
    >>> values.round(9).tolist()
    [-5.0, 3.0]
    """
    from scipy.linalg import eigh_tridiagonal

    if k < 1 or (limit is not None and limit < 1):
        raise ArgumentError(f"lanczos finds at least one eigenvalue by at least one product, not {k} by {limit}")
    rng = np.random.default_rng(seed)
    limit = min(n, max(100, 20 * k) if limit is None else limit)
    basis = np.empty((limit, n))  # memory is taken only for the rows that are written
    diagonal, beside = np.empty(limit), np.empty(limit)
    row = rng.normal(size=n)
    for m in range(1, limit + 1):
        basis[m - 1] = row / np.linalg.norm(row)
        row = np.array(product(basis[m - 1]), np.float64)
        if not np.isfinite(row).all():
            raise NumericalError("a product of the matrix with a vector is not finite")
        diagonal[m - 1] = basis[m - 1] @ row
        row = _orthogonal(row, basis[:m])
        beside[m - 1] = np.linalg.norm(row)
        values, vectors = eigh_tridiagonal(diagonal[:m], beside[:m - 1])
        first = np.argsort(-np.abs(values), kind="stable")[:k]
        largest = np.abs(values).max()
        bounds = np.maximum(beside[m - 1] * np.abs(vectors[-1, first]), np.finfo(np.float64).eps * largest)
        if beside[m - 1] <= 1e-13 * largest or largest == 0:
            # nothing new grows from these vectors; eigenvalues may be left, equal to those found for one thing
            beside[m - 1] = 0.0
            row = _orthogonal(rng.normal(size=n), basis[:m])
        elif len(first) == min(k, n) and (bounds <= tolerance * largest).all():
            break
    return values[first], bounds


def _orthogonal(row: Array, basis: Array) -> Array:
    for _ in range(2):  # twice is enough
        row = row - basis.T @ (basis @ row)
    return row


@contextmanager
def _holding(model: Module, tensors: dict[str, Tensor]) -> Iterator[None]:
    """The model with other tensors in the place of its parameters, shared ones in all their places."""
    names = {p: name for name, p in model.named_parameters()}
    places = [(vars(module), name, p) for module in model.modules() for name, p in own(module, Parameter)
              if names[p] in tensors]
    try:
        for attributes, name, p in places:
            attributes[name] = tensors[names[p]]  # not by setattr: the model is as before when this is over
        yield
    finally:
        for attributes, name, p in places:
            attributes[name] = p
