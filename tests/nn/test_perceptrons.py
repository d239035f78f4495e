"""Neuron, Layer, MLP and ParameterList; starting values; convolutional models; docstrings that run."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import nn, optim
from graphjit.errors import ArgumentError, BoundsError, DTypeError, ShapeError


def test_a_neuron_takes_lists_arrays_and_tensors(mode):
    neuron = nn.Neuron(3, "tanh")
    x = np.array([1.0, -2.0, 0.5], np.float32)
    wanted = np.tanh(x @ neuron.weight.data + neuron.bias.data)
    for given in (x.tolist(), x, gj.tensor(x), [gj.tensor(v) for v in x]):
        out = neuron(given)
        assert out.shape == () and out.item() == pytest.approx(wanted)
    np.testing.assert_allclose(mode(neuron)(np.stack([x, x])).data, [wanted] * 2, rtol=1e-6)


def test_scalars_flow_through_an_mlp():
    a, b = gj.tensor(0.5, requires_grad=True, label="a"), gj.tensor(-1.0, requires_grad=True)
    model = nn.MLP(2, [4, 1], "tanh")
    model([a, b]).backward()
    assert a.grad.shape == () and all(p.grad is not None for p in model.parameters())


def test_shapes_and_counts():
    model = nn.MLP(2, [16, 16, 1])
    assert sum(p.size for p in model.parameters()) == 337
    assert sum(p.size for p in nn.MLP(784, [128, 128, 128, 10]).parameters()) == 134_794
    assert model([1.0, 2.0]).shape == () and model(np.ones((7, 2))).shape == (7,)
    assert nn.MLP(2, [3])(np.ones((4, 5, 2))).shape == (4, 5, 3)
    assert nn.Layer(2, 1)(np.ones((4, 2))).shape == (4,)
    assert [layer.activation for layer in model.layers] == ["relu", "relu", None]
    assert list(model.state_dict())[:2] == ["layers.0.weight", "layers.0.bias"]
    assert "Layer(2, 16, activation='relu')" in repr(model) and repr(nn.Neuron(2, F.silu)).endswith("=silu)")
    assert nn.MLP(3, [2], dtype="float64")([1, 2, 3]).dtype == np.float64


@pytest.mark.parametrize("activation", ["relu", "tanh", F.softplus])
def test_an_mlp_learns_alike_in_both_modes(activation):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2)).astype(np.float32)
    y = np.where((x ** 2).sum(axis=1) > 1.4, 1, -1)

    def losses(wrap):
        gj.manual_seed(0)
        model = nn.MLP(2, [8, 8, 1], activation)
        opt = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)  # Adam would blow up the rounding of a gradient 0
        schedule = optim.lr_scheduler.ExponentialLR(opt, 0.99)

        @wrap
        def step(x, y):
            opt.zero_grad()
            loss = F.hinge_loss(model(x), y)
            loss.backward()
            opt.step()
            return loss
        found = []
        for _ in range(20):
            found.append(step(x, y).item())
            schedule.step()
        assert getattr(step, "trace_count", 1) == 1
        return found
    eager, compiled = losses(lambda f: f), losses(gj.compile)
    np.testing.assert_allclose(compiled, eager, rtol=1e-3, atol=1e-5)
    assert eager[-1] < eager[0]


def test_what_perceptrons_refuse(mode):
    model = nn.MLP(2, [3, 1])
    with pytest.raises(ShapeError, match=r"MLP takes inputs \(..., 2\)"):
        mode(model)(np.ones((4, 3)))
    with pytest.raises(ShapeError, match="Neuron takes"):
        nn.Neuron(2)(1.0)
    for args in ((2, []), (2, 16), (2, [4, 1], "sine"), (-1, [2])):
        with pytest.raises(ArgumentError):
            nn.MLP(*args)


def test_parameter_lists(mode):
    scales = nn.ParameterList([np.ones(2), nn.Parameter(np.full(2, 3.0))])
    scales.append(gj.tensor(np.full(2, 2.0)))
    assert [n for n, _ in scales.named_parameters()] == ["0", "1", "2"] and len(scales) == 3
    assert isinstance(scales[-1], nn.Parameter) and len(scales[1:]) == 2 and scales[1:][0] is scales[1]

    @mode
    def product(x):
        for p in scales:
            x = x * p
        return x
    assert product(np.ones(2)).tolist() == [6.0, 6.0]
    scales[0] = np.full(2, 5.0)
    assert product(np.ones(2)).tolist() == [30.0, 30.0]
    with pytest.raises(BoundsError):
        scales[3]
    with pytest.raises(ArgumentError):
        scales["0"]


# ---- learning in one call

def moons():
    """Two half circles that reach into each other, as scikit-learn's make_moons; targets 1 and -1."""
    rng, angle = np.random.default_rng(0), np.linspace(0, np.pi, 50)
    upper, lower = (np.cos(angle), np.sin(angle)), (1 - np.cos(angle), 0.5 - np.sin(angle))
    x = np.concatenate([np.stack(upper, axis=1), np.stack(lower, axis=1)]) + rng.normal(0, 0.1, (100, 2))
    return x.astype(np.float32), np.repeat([1, -1], 50)


@pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])
def test_moons_are_learned_by_the_largest_margin(eager):
    gj.manual_seed(0)
    model, (x, y) = nn.MLP(2, [16, 16, 1]), moons()
    history = model.train(F.hinge_loss, (x, y), 40, schedule=lambda epoch: 1.0 - 0.9 * epoch / 40, batch_size=16,
                          seed=0, eager=eager)
    assert ((model(x).numpy() > 0) == (y > 0)).all() and history["train_accuracy"][-1] > 0.98
    np.testing.assert_allclose(history["lr"], 1.0 - 0.9 * np.arange(40) / 40)


def test_train_is_a_mode_too():
    model = nn.MLP(2, [3, 1])
    assert model.train(False) is model and not any(m.training for m in model.modules())
    assert model.train() is model and model.eval() is model and model.train(mode=True) is model
    assert all(m.training for m in model.modules())


def test_train_takes_loaders_and_plain_rates():
    x, y = moons()
    model = nn.MLP(2, [4, 1])
    loader = gj.data.DataLoader(gj.data.TensorDataset(x, y), 50)
    history = model.train(F.hinge_loss, loader, 2, lr=0.25, eager=True)
    assert history["lr"] == [0.25, 0.25] and "train_accuracy" not in history
    measured = model.train(loss=F.mse_loss, data=(x, x[:, 0]), epochs=1, eager=True)
    assert "train_accuracy" not in measured and measured.epochs == 1
    with pytest.raises(ArgumentError, match="a function of the epoch"):
        model.train(F.hinge_loss, (x, y), 2, schedule=0.1)
    for call in (lambda: model.train(F.hinge_loss, 2), lambda: model.train(F.hinge_loss, epochs=2),
                 lambda: model.train(F.hinge_loss, x, y, epochs=2),
                 lambda: model.train(F.hinge_loss, (x, y), 2, rate=1)):
        with pytest.raises(ArgumentError, match=r"train\(loss, data, epochs\): .*argument"):
            call()


# ---- starting values

@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4), (4, 2, 3)])
def test_orthogonal(shape):
    w = nn.init.orthogonal_(nn.Parameter(np.zeros(shape)), gain=2.0).data.reshape(shape[0], -1)
    small = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(small, 4 * np.eye(len(small)), atol=1e-12)


def test_truncated_normal_and_seeds():
    assert nn.init.orthogonal_(nn.Parameter(np.zeros((0, 3)))).shape == (0, 3)
    p = nn.init.trunc_normal_(nn.Parameter(np.zeros(2000)), mean=1.0, std=3.0, a=0.0, b=2.0)
    assert p.data.min() >= 0 and p.data.max() <= 2 and abs(p.data.mean() - 1) < 0.1
    fills = (nn.init.orthogonal_, nn.init.trunc_normal_, nn.init.xavier_normal_, nn.init.kaiming_uniform_)
    for fill in fills:
        first, second = (fill(nn.Parameter(np.zeros((3, 4))), generator=gj.Generator(5)).data for _ in range(2))
        np.testing.assert_array_equal(first, second)
    assert nn.init.constant_(nn.Parameter(np.zeros(2)), 3.0).tolist() == [3.0, 3.0]
    for wrong in (lambda: nn.init.orthogonal_(p), lambda: nn.init.xavier_uniform_(p)):
        with pytest.raises(ShapeError):
            wrong()
    for wrong in (lambda: nn.init.trunc_normal_(p, std=0.0), lambda: nn.init.calculate_gain("sine")):
        with pytest.raises(ArgumentError):
            wrong()


# ---- models of images

def test_a_small_convolutional_model_trains_alike_in_both_modes():
    x = np.random.default_rng(0).normal(size=(4, 1, 8, 8)).astype(np.float32)
    y = np.array([0, 1, 2, 1])

    def losses(wrap):
        gj.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
                              nn.MaxPool2d(2), nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Linear(8, 3))
        opt = optim.SGD(model.parameters(), lr=0.1)

        @wrap
        def step(x, y):
            opt.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            opt.step()
            return loss
        return [step(x[:n], y[:n]).item() for n in (4, 3, 4)]
    np.testing.assert_allclose(losses(gj.compile), losses(lambda f: f), rtol=1e-4)


def test_what_layers_refuse(mode):
    image = np.ones((2, 3, 4, 4), np.float32)
    for layer, x in ((nn.Conv2d(4, 2, 3), image), (nn.Conv2d(3, 2, 5), image), (nn.BatchNorm2d(3), image[0]),
                     (nn.BatchNorm1d(3), image), (nn.GroupNorm(2, 4), image), (nn.RMSNorm(5), image),
                     (nn.AvgPool1d(2), image), (nn.ConvTranspose1d(3, 2, 3), image[0])):
        with pytest.raises(ShapeError):
            mode(layer)(x)
    with pytest.raises(ShapeError, match="bilinear takes"):
        mode(nn.Bilinear(3, 4, 2))(np.ones((2, 3)), np.ones((3, 4)))
    with pytest.raises(DTypeError):
        mode(lambda x: F.rms_norm(x, 4))(image.astype(int))
    for make in (lambda: nn.Conv1d(3, 4, 3, groups=2), lambda: nn.GroupNorm(3, 4), lambda: nn.Conv2d(1, 2, 0),
                 lambda: nn.Conv2d(1, 2, (3, 3, 3)), lambda: nn.Conv1d(1, 2, 3, padding="full"),
                 lambda: F.hardtanh(image, 1.0, -1.0)):
        with pytest.raises(ArgumentError):
            make()


def test_how_layers_print():
    assert repr(nn.Conv2d(1, 2, 3, stride=2, padding="same", bias=False)) == (
        "Conv2d(1, 2, kernel_size=(3, 3), stride=(2, 2), padding=same, bias=False)")
    assert repr(nn.Conv1d(4, 2, 3, groups=2)) == "Conv1d(4, 2, kernel_size=(3,), stride=(1,), groups=2)"
    for layer in (nn.MaxPool1d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool1d(3), nn.GroupNorm(1, 2), nn.RMSNorm(3),
                  nn.BatchNorm2d(3), nn.Bilinear(1, 2, 3), nn.ELU(), nn.Softplus(), nn.Hardtanh(), nn.LeakyReLU(),
                  nn.MultiheadAttention(4, 2), nn.ParameterList([np.ones(2)])):
        assert repr(layer).startswith(type(layer).__name__ + "(") and len(repr(layer)) > 12


def test_layers_in_single_precision_stay_there(mode):
    x = np.ones((2, 4, 6), np.float32)
    for layer in (nn.GroupNorm(2, 4), nn.RMSNorm(6), nn.Softplus(), nn.ELU(), nn.Hardtanh(), nn.SiLU(),
                  nn.AvgPool1d(3, padding=1), nn.AdaptiveAvgPool1d(4), nn.Conv1d(4, 2, 3), nn.MLP(6, [3])):
        assert mode(layer)(x).dtype == np.float32, layer


@pytest.mark.parametrize("name", [m.name for part in ("nn", "optim") for m in pkgutil.walk_packages(
    importlib.import_module(f"graphjit.{part}").__path__, f"graphjit.{part}.")])
def test_docstrings_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
