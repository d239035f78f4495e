"""Every layer and loss against PyTorch's, in float64 at 1e-10: values, gradients, buffers, state dicts both ways."""

import numpy as np
import pytest

import graphjit as gj
from graphjit import nn

torch = pytest.importorskip("torch")
from benchmarks.parity import LIMIT, layer_difference  # noqa: E402  # needs torch
from benchmarks.parity_cases import LAYERS, LOSSES  # noqa: E402


def first_of_each(cases):
    """The first case of each class: one is enough to see that it compiles to the same."""
    return list({case.name: case for case in reversed(cases)}.values())


@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_layer(case):
    assert layer_difference(case) <= LIMIT


@pytest.mark.parametrize("case", first_of_each(LAYERS), ids=str)
def test_compiled_layer(case):
    assert layer_difference(case, gj.compile) <= LIMIT


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")  # PyTorch's, of its own kl_div
@pytest.mark.parametrize("case", LOSSES, ids=str)
def test_loss(case):
    assert layer_difference(case) <= LIMIT


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize("case", first_of_each(LOSSES), ids=str)
def test_compiled_loss(case):
    assert layer_difference(case, gj.compile) <= LIMIT


def test_every_layer_and_loss_has_a_case():
    modules = {name for name in nn.__all__ if isinstance(getattr(nn, name), type)
               and issubclass(getattr(nn, name), nn.Module)}
    ours = {"Module", "Sequential", "ModuleList", "ModuleDict", "ParameterList", "Identity", "Dropout",
            "Neuron", "Layer", "MLP", "HingeLoss"}  # containers, random, or without a counterpart there
    assert modules - ours == {case.name for case in (*LAYERS, *LOSSES)}


@pytest.mark.parametrize("masked", [False, True])
def test_scaled_dot_product_attention(masked):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s) for s in ((2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 7))]
    mask = rng.random((2, 1, 5, 6)) < 0.7
    f = torch.nn.functional.scaled_dot_product_attention
    variants = ([{"attn_mask": mask}, {"attn_mask": rng.normal(size=(5, 6)), "scale": 0.3}] if masked
                else [{}, {"is_causal": True}])
    for options in variants:
        xs, ts = ([make(a) for a in arrays] for make in (
            lambda a: gj.tensor(a, requires_grad=True), lambda a: torch.tensor(a, requires_grad=True)))
        out = nn.functional.scaled_dot_product_attention(*xs, **options)
        wanted = f(*ts, **{k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()})
        (out * out).sum().backward()
        (wanted * wanted).sum().backward()
        np.testing.assert_allclose(out.data, wanted.detach().numpy(), rtol=1e-10, atol=1e-12)
        for x, t in zip(xs, ts, strict=True):
            np.testing.assert_allclose(x.grad.data, t.grad.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["orthogonal_", "trunc_normal_", "xavier_uniform_", "kaiming_normal_"])
def test_starting_values_are_distributed_alike(name):
    gj.manual_seed(0)
    torch.manual_seed(0)
    mine, its = nn.Parameter(np.zeros((60, 200), np.float32)), torch.zeros(60, 200)
    getattr(nn.init, name)(mine)
    getattr(torch.nn.init, name)(its)
    shares = np.linspace(0.02, 0.98, 9)
    apart = np.quantile(mine.data, shares) - np.quantile(its.numpy(), shares)
    assert np.abs(apart).max() < 0.1 * its.numpy().std()


def test_gains():
    for kind in ("linear", "conv2d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"):
        assert nn.init.calculate_gain(kind) == torch.nn.init.calculate_gain(kind)
    assert nn.init.calculate_gain("leaky_relu", 0.3) == torch.nn.init.calculate_gain("leaky_relu", 0.3)
