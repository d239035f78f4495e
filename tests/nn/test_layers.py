"""Layers and functions against formulas, eager and compiled."""

import math

import numpy as np
import pytest

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import nn
from graphjit.errors import ArgumentError, BoundsError, DTypeError, GraphjitError, ShapeError

RNG = np.random.default_rng(0)


def test_linear_starts_as_pytorch_does():
    gj.manual_seed(3)
    layer = nn.Linear(400, 100)
    bound = 1 / math.sqrt(400)
    for t in (layer.weight, layer.bias):
        assert abs(t.data).max() <= bound and t.data.std() == pytest.approx(bound / math.sqrt(3), rel=0.15)
    gj.manual_seed(3)
    np.testing.assert_array_equal(nn.Linear(400, 100).weight.data, layer.weight.data)
    assert nn.Linear(2, 3, dtype="float64").bias.dtype == np.float64
    assert nn.Linear(0, 2)(np.zeros((3, 0), np.float32)).shape == (3, 2)


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4), (0, 4), (1, 4)])
def test_linear(shape, mode):
    layer, x = nn.Linear(4, 2, dtype="float64"), RNG.normal(size=shape)
    out = mode(lambda x: layer(x))(x)
    np.testing.assert_allclose(out.data, x @ layer.weight.data.T + layer.bias.data, rtol=1e-12)


def test_batch_norm_moves_its_statistics(mode):
    x, layer = RNG.normal(2, 3, (8, 3)), nn.BatchNorm1d(3, dtype="float64")
    step = mode(lambda x: layer(x))
    out = step(x).data
    np.testing.assert_allclose(out, (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(layer.running_mean.data, 0.1 * x.mean(0), rtol=1e-9)
    np.testing.assert_allclose(layer.running_var.data, 0.9 + 0.1 * x.var(0, ddof=1), rtol=1e-9)
    assert layer.num_batches_tracked.item() == 1
    layer.eval()
    mean, var = layer.running_mean.data.copy(), layer.running_var.data.copy()
    np.testing.assert_allclose(step(x).data, (x - mean) / np.sqrt(var + 1e-5), rtol=1e-9)
    assert layer.num_batches_tracked.item() == 1


def test_batch_norm_without_momentum_averages_all_batches(mode):
    layer = nn.BatchNorm1d(3, momentum=None, dtype="float64")
    step, xs = mode(lambda x: layer(x)), RNG.normal(size=(4, 5, 3, 2))
    for x in xs:
        step(x)
    means = [x.mean((0, 2)) for x in xs]
    np.testing.assert_allclose(layer.running_mean.data, np.mean(means, 0), rtol=1e-9, atol=1e-12)
    layer.reset_running_stats()
    assert layer.running_var.tolist() == [1.0, 1.0, 1.0] and layer.num_batches_tracked.item() == 0


def test_batch_norm_errors(mode):
    layer = nn.BatchNorm1d(3)
    step = mode(lambda x: layer(x))
    for x in (np.zeros((2, 4), np.float32), np.zeros(3, np.float32), np.zeros((1, 3), np.float32)):
        with pytest.raises(ShapeError):
            step(x)
    with pytest.raises(ArgumentError, match="needs running_mean"):
        mode(lambda x: F.batch_norm(x, None, None))(np.zeros((2, 3), np.float32))
    assert step(np.zeros((2, 3), np.float32)).shape == (2, 3)


def test_layer_norm(mode):
    layer, x = nn.LayerNorm((3, 4), dtype="float64"), RNG.normal(2, 3, (5, 3, 4))
    wanted = (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-5)
    np.testing.assert_allclose(mode(lambda x: layer(x))(x).data, wanted, rtol=1e-9)
    with pytest.raises(ShapeError):
        layer(np.zeros((5, 4)))
    assert list(nn.LayerNorm(4, bias=False).state_dict()) == ["weight"]


def test_dropout_scales_what_it_keeps_and_never_repeats_a_mask(mode):
    layer, x = nn.Dropout(0.25), np.ones((200, 50), np.float32)
    step = mode(lambda x: layer(x))
    a, b = step(x).data, step(x).data
    assert set(np.unique(a)) == {np.float32(0), np.float32(1 / 0.75)} and (a != b).any()
    assert (a == 0).mean() == pytest.approx(0.25, abs=0.02)
    layer.eval()
    np.testing.assert_array_equal(step(x).data, x)
    layer.train()
    layer.p = 1.0
    assert not step(x).data.any()
    layer.p = 0.0
    np.testing.assert_array_equal(step(x).data, x)


def test_dropout_draws_the_same_bits_eager_and_compiled():
    x = np.ones((7, 5), np.float32)
    masks = []
    for wrap in (lambda f: f, gj.compile):
        layer = nn.Dropout(0.5, generator=gj.random.Generator(4))
        step = wrap(lambda x, layer=layer: layer(x))
        masks.append([step(x).data for _ in range(3)])
    np.testing.assert_array_equal(*masks)


@pytest.mark.parametrize("p", [-0.1, 1.1, "a", True, float("nan")])
def test_dropout_refuses_what_is_no_probability(p):
    with pytest.raises(ArgumentError, match="probability"):
        nn.Dropout(p)


def test_dropout_has_the_gradient_of_its_mask(mode):
    x = gj.tensor(np.ones(64, np.float32), requires_grad=True)

    def run(x):
        out = F.dropout(x, 0.5)
        out.sum().backward()
        return out, x.grad
    out, grad = mode(run)(x) if mode is not gj.compile else run(x)
    np.testing.assert_array_equal(out.data, grad.data)


def test_embedding(mode):
    layer = nn.Embedding(5, 3, padding_idx=-1, dtype="float64")
    assert layer.padding_idx == 4 and not layer.weight.data[4].any()
    ids = np.array([[0, 4], [2, 2]])
    np.testing.assert_array_equal(mode(lambda i: layer(i))(ids).data, layer.weight.data[ids])
    layer(ids).sum().backward()
    assert layer.weight.grad.tolist() == [[1.0] * 3, [0.0] * 3, [2.0] * 3, [0.0] * 3, [0.0] * 3]
    for wrong in (-1, 5):
        with pytest.raises(BoundsError):
            mode(lambda i: layer(i))(np.array([wrong]))
    with pytest.raises(DTypeError):
        mode(lambda i: layer(i))(np.array([0.5]))


def test_activations(mode):
    x = np.linspace(-4, 4, 9)
    erf = np.vectorize(math.erf)
    wanted = {
        nn.ReLU: np.maximum(x, 0), nn.Tanh: np.tanh(x), nn.Sigmoid: 1 / (1 + np.exp(-x)),
        nn.GELU: x * 0.5 * (1 + erf(x / math.sqrt(2))),
        lambda: nn.GELU("tanh"): 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        lambda: nn.Softmax(dim=0): np.exp(x) / np.exp(x).sum(),
        lambda: nn.LogSoftmax(dim=-1): x - np.log(np.exp(x).sum()),
        nn.Identity: x,
    }
    for make, expected in wanted.items():
        layer = make()
        out = mode(lambda x, layer=layer: layer(x))(x)
        np.testing.assert_allclose(out.data, expected, rtol=1e-12, atol=1e-15)
    with pytest.raises(ArgumentError, match="approximate"):
        F.gelu(x, approximate="erf")


def test_inplace_is_taken_and_writes_to_no_input(mode):
    x = gj.tensor([-2.0, 0.5, 3.0])
    for make, options in ((nn.ReLU, {}), (nn.SiLU, {}), (nn.LeakyReLU, {"negative_slope": 0.1}), (nn.ELU, {}),
                          (nn.Hardtanh, {}), (nn.Dropout, {"p": 0.0})):
        np.testing.assert_allclose(mode(make(**options, inplace=True))(x).data, make(**options)(x).data, rtol=1e-6)
    assert x.tolist() == [-2.0, 0.5, 3.0]


def test_layers_refuse_arguments_they_do_not_have():
    for make in (lambda: nn.ReLU(slope=1), lambda: nn.Tanh(0.1), lambda: nn.Sigmoid(inplace=True)):
        with pytest.raises(TypeError):
            make()


def test_softmax_needs_its_axis_once():
    x = np.zeros((2, 3), np.float32)
    np.testing.assert_array_equal(F.softmax(x, dim=1).data, F.softmax(x, axis=1).data)
    for wrong in ({}, {"dim": 0, "axis": 0}):
        with pytest.raises(ArgumentError, match="dim="):
            F.log_softmax(x, **wrong)


def test_flatten():
    x = np.zeros((2, 3, 4), np.float32)
    assert nn.Flatten()(x).shape == (2, 12) and nn.Flatten(0, 1)(x).shape == (6, 4)


# ---- losses

def log_softmax(x):
    x = x - x.max(1, keepdims=True)
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def test_cross_entropy_of_labels(mode):
    x, y = RNG.normal(size=(6, 4)) * 10, np.array([0, 3, 1, 1, 2, 0])
    nll = -log_softmax(x)[np.arange(6), y]
    np.testing.assert_allclose(mode(lambda x, y: F.cross_entropy(x, y))(x, y).data, nll.mean(), rtol=1e-12)
    np.testing.assert_allclose(mode(lambda x, y: F.cross_entropy(x, y, reduction="none"))(x, y).data, nll)
    np.testing.assert_allclose(nn.CrossEntropyLoss(reduction="sum")(x, y).data, nll.sum())


def test_cross_entropy_has_the_gradient_softmax_minus_one_hot():
    x = gj.tensor(RNG.normal(size=(6, 4)), requires_grad=True)
    y = np.array([0, 3, 1, 1, -100, 0])
    F.cross_entropy(x, y).backward()
    wanted = np.exp(log_softmax(x.data)) - np.eye(4)[np.where(y < 0, 0, y)]
    wanted[4] = 0
    np.testing.assert_allclose(x.grad.data, wanted / 5, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("label", [-1, 4, -100 + 1, 2**40])
def test_a_label_out_of_range_is_an_error(label, mode):
    step = mode(lambda x, y: F.cross_entropy(x, y))
    x = np.zeros((3, 4), np.float32)
    with pytest.raises(BoundsError):
        step(x, np.array([0, label, 1]))
    assert step(x, np.array([0, -100, 1])).item() == pytest.approx(math.log(4))


def test_wrong_operands_of_losses(mode):
    x = np.zeros((3, 4), np.float32)
    y = np.zeros(3, np.int64)
    for function, args, error in [
        (F.cross_entropy, (x, np.zeros(2, np.int64)), ShapeError),
        (F.cross_entropy, (x, np.zeros((3, 1), np.int64)), ShapeError),
        (F.cross_entropy, (x, np.zeros((3, 5), np.float32)), ShapeError),
        (F.cross_entropy, (x, np.zeros(3, bool)), DTypeError),
        (F.cross_entropy, (y, y), GraphjitError),
        (F.nll_loss, (x, np.zeros(3, np.float32)), DTypeError),
        (F.mse_loss, (x, np.zeros((3, 1), np.float32)), ShapeError),
        (F.l1_loss, (x, np.zeros(4, np.float32)), ShapeError),
    ]:
        with pytest.raises(error):
            mode(lambda *a, function=function: function(*a))(*args)
    with pytest.raises(ShapeError, match="weights"):
        F.cross_entropy(x, y, weight=[1.0, 2.0])
    with pytest.raises(ArgumentError, match="reduction"):
        F.mse_loss(x, x, reduction="average")
    with pytest.raises(ArgumentError, match="reduction"):
        nn.MSELoss(reduction="average")
    with pytest.raises(ArgumentError, match="label_smoothing"):
        F.cross_entropy(x, y, label_smoothing=2)


def test_other_losses(mode):
    a, b = RNG.normal(size=(3, 4)), RNG.uniform(size=(3, 4))
    p = 1 / (1 + np.exp(-a))
    for function, wanted in [
        (F.mse_loss, ((a - b) ** 2).mean()), (F.l1_loss, abs(a - b).mean()),
        (F.binary_cross_entropy_with_logits, -(b * np.log(p) + (1 - b) * np.log(1 - p)).mean()),
        (nn.MSELoss(reduction="sum"), ((a - b) ** 2).sum()), (nn.L1Loss(), abs(a - b).mean()),
    ]:
        np.testing.assert_allclose(mode(lambda x, y, f=function: f(x, y))(a, b).data, wanted, rtol=1e-12)
    huge = F.binary_cross_entropy_with_logits([1000.0, -1000.0], [1.0, 1.0], reduction="none")
    assert huge.tolist() == [0.0, 1000.0]


def test_one_hot():
    assert F.one_hot([1, 0], 3).tolist() == [[0, 1, 0], [1, 0, 0]] and F.one_hot([1, 2]).shape == (2, 3)
    assert F.one_hot([1]).dtype == np.int64
    with pytest.raises(BoundsError):
        F.one_hot([3], 3)


# ---- starting values and clipping

def test_starting_values():
    gj.manual_seed(0)
    w = gj.zeros((300, 200))
    for fill, std in [
        (lambda: nn.init.uniform_(w, -1, 1), 1 / math.sqrt(3)),
        (lambda: nn.init.normal_(w, 0, 2), 2),
        (lambda: nn.init.xavier_uniform_(w), math.sqrt(2 / 500)),
        (lambda: nn.init.xavier_normal_(w, gain=2), 2 * math.sqrt(2 / 500)),
        (lambda: nn.init.kaiming_uniform_(w, nonlinearity="relu"), math.sqrt(2 / 200)),
        (lambda: nn.init.kaiming_normal_(w, mode="fan_out"), math.sqrt(2 / 300)),
    ]:
        assert fill() is w and w.data.std() == pytest.approx(std, rel=0.02)
    assert nn.init.constant_(w, 3).data.min() == 3 and not nn.init.zeros_(w).data.any()
    p = nn.init.ones_(nn.Parameter(np.zeros(3)))
    assert p.tolist() == [1.0] * 3 and p.requires_grad
    with pytest.raises(ShapeError):
        nn.init.xavier_uniform_(gj.zeros(3))
    with pytest.raises(ArgumentError):
        nn.init.kaiming_normal_(w, mode="in")
    with pytest.raises(ArgumentError):
        nn.init.calculate_gain("gelu")


def with_grads(*grads):
    params = [nn.Parameter(np.zeros(np.shape(g))) for g in grads]
    for p, g in zip(params, grads, strict=True):
        p.grad = np.asarray(g, np.float64)
    return params


def test_clip_grad_norm():
    a, b, c = with_grads([3.0, 0.0], [[4.0]], [1.0])
    c.grad = None
    norm = nn.utils.clip_grad_norm_([a, b, c], 1.0)
    assert norm.item() == pytest.approx(5) and c.grad is None
    np.testing.assert_allclose(a.grad.data, [0.6, 0], rtol=1e-6)
    assert nn.utils.clip_grad_norm_([a, b], 10.0).item() == pytest.approx(1)
    np.testing.assert_allclose(b.grad.data, [[0.8]], rtol=1e-6)
    assert nn.utils.clip_grad_norm_(with_grads([3.0], [-4.0]), 1, math.inf).item() == 4
    assert nn.utils.clip_grad_norm_(with_grads([3.0], [-4.0]), 1, 1).item() == 7
    assert nn.utils.clip_grad_norm_([nn.Parameter([1.0])], 1).item() == 0
    with pytest.raises(gj.errors.NumericalError):
        nn.utils.clip_grad_norm_(with_grads([np.nan]), 1, error_if_nonfinite=True)
    (d,) = with_grads([3.0, -0.5, -9.0])
    nn.utils.clip_grad_value_(d, 1)
    assert d.grad.tolist() == [1.0, -0.5, -1.0]


def test_clip_grad_norm_inside_a_compiled_step():
    p = nn.Parameter(np.array([1.0, 2.0]))

    @gj.compile
    def step(x):
        p.grad = None
        (p * x).sum().backward()
        norm = nn.utils.clip_grad_norm_([p], 1.0)
        return norm, p.grad

    norm, grad = step(np.array([3.0, 4.0]))
    assert norm.item() == 5
    np.testing.assert_allclose(grad.data, [0.6, 0.8], rtol=1e-6)


def test_clip_grad_value_inside_a_step(mode):
    p = nn.Parameter(np.array([1.0, 2.0, 3.0]))

    @mode
    def step(x):
        p.grad = None
        (p * x).sum().backward()
        nn.utils.clip_grad_value_([p], 1.0)
        return p.grad

    assert step(np.array([3.0, -0.5, -9.0])).tolist() == [1.0, -0.5, -1.0]
