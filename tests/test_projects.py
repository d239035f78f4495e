"""What the five reference projects do, written as their users write it, eager and compiled."""

import numpy as np
import pytest

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import data, nn, optim
from graphjit.nn import MLP, Layer, Neuron
from graphjit.nn.utils import clip_grad_norm_, clip_grad_value_
from graphjit.optim.lr_scheduler import ExponentialLR

MODES = {"eager": lambda f: f, "compiled": gj.compile}


@pytest.fixture(params=MODES.values(), ids=MODES)
def mode(request):
    return request.param


def trained(mode, build, loss, optimizer, x, y, epochs=3, batch=8, schedule=None):
    """Losses of a training written by hand; a compiled step is traced once for each size of a batch."""
    gj.manual_seed(0)
    model = build()
    opt = optimizer(model.parameters())
    plan = schedule and schedule(opt)

    @mode
    def step(x, y):
        opt.zero_grad()
        found = loss(model(x), y)
        found.backward()
        opt.step()
        return found
    loader = data.DataLoader(data.TensorDataset(x, y), batch_size=batch, shuffle=True, seed=0)
    losses = []
    for _ in range(epochs):
        losses += [step(*rows).item() for rows in loader]
        if plan:
            plan.step()
    assert getattr(step, "trace_count", 0) <= 2
    return losses


def same_in_both_modes(*args, **options):
    eager, compiled = (trained(mode, *args, **options) for mode in MODES.values())
    np.testing.assert_allclose(compiled, eager, rtol=1e-4)
    assert np.mean(eager[-3:]) < np.mean(eager[:3])


def signals(n, length, classes, seed=0):
    """Waves, a frequency for each class, in float32."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    x = np.sin(np.outer(1 + y, np.linspace(0, 6, length))) + rng.normal(0, 0.1, (n, length))
    return x.astype(np.float32), y


# ---- project 0: modules, a 1-d CNN on ECG signals, MSE and cross-entropy, SGD and Adam

class HeartNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv1d(1, 4, kernel_size=7, stride=2, padding=3)
        self.conv2 = nn.Conv1d(4, 4, kernel_size=5, stride=2, padding=2)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(4 * 35, 5)

    def forward(self, x):
        x = self.relu(self.conv2(self.relu(self.conv1(x))))
        return self.fc(x.reshape(x.shape[0], -1))


@pytest.mark.parametrize("optimizer", [lambda ps: optim.Adam(ps, lr=0.01), lambda ps: optim.SGD(ps, lr=0.1)],
                         ids=["Adam", "SGD"])
def test_a_cnn_on_signals(optimizer):
    x, y = signals(30, 140, 5)
    assert [name for name, _ in HeartNet().named_children()] == ["conv1", "conv2", "relu", "fc"]
    same_in_both_modes(HeartNet, nn.CrossEntropyLoss(), optimizer, x[:, None], y)


def test_a_line_by_mean_squares_and_its_checkpoint(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    same_in_both_modes(lambda: nn.Linear(3, 1), nn.MSELoss(), lambda ps: optim.SGD(ps, lr=0.1), x,
                       x @ np.array([[1.0], [-2.0], [0.5]], np.float32))
    first, second = nn.Linear(3, 1), nn.Linear(3, 1)
    second.load_state_dict(gj.load_checkpoint(gj.save_checkpoint(tmp_path / "line", first), second).tensors)
    assert second(x).tolist() == first(x).tolist()


# ---- project 1: dropout, batch normalisation, softmax, momentum, weight decay

@pytest.mark.parametrize("optimizer", [
    lambda ps: optim.SGD(ps, lr=0.05, momentum=0.9, weight_decay=1e-3),
    lambda ps: optim.Adam(ps, lr=0.01, weight_decay=1e-3)], ids=["SGD", "Adam"])
def test_a_perceptron_with_dropout_and_batch_normalisation(optimizer):
    def build():
        return nn.Sequential(nn.Linear(16, 12, bias=False), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.2),
                             nn.Linear(12, 4))
    x, y = signals(32, 16, 4)
    same_in_both_modes(build, nn.CrossEntropyLoss(), optimizer, x, y)


def test_digits_by_its_protocol_in_eager_mode():
    """500 samples, 10 epochs: nine of ten at least; compiled in test_study.py and test_examples.py."""
    pytest.importorskip("sklearn")
    from graphjit.training import Settings, train
    result = train(Settings.of(train_samples=500, epochs=10, eager=True))
    assert result.traces == 0 and result.history["val_accuracy"][-1] >= 0.9


# ---- project 2: operations on arrays, items, clipping, containers

def test_its_operations_and_their_gradients(mode):
    hidden = np.array([[False, True, False], [False, False, True]])

    def f(a, b):
        c = a.T.reshape(2, 3).broadcast_to((2, 2, 3))
        d = gj.concat([c[0], c[1, :, ::-1] * b], axis=0)
        d[1, 1:] = b[0, 1:].exp()
        d[0] = a[1]
        e = (d[:2] ** 2 + 1).log().clip(0.1, 2.0).masked_fill(hidden, 0.5)
        return (e * d[2:]).sum()
    a, b = np.random.default_rng(0).normal(size=(2, 2, 3))
    gj.testing.check_grads(mode(f), (a, b))
    plain, found = (wrap(gj.grad(f, (0, 1)))(gj.tensor(a), gj.tensor(b)) for wrap in (lambda g: g, mode))
    for want, got in zip(plain, found, strict=True):
        np.testing.assert_allclose(got.data, want.data, rtol=1e-12)


def test_clipping_inside_the_step(mode):
    p, q = nn.Parameter(np.array([3.0, -4.0])), nn.Parameter(np.array([0.5, 9.0]))
    opt = optim.SGD([p, q], lr=1.0)

    @mode
    def step():
        opt.zero_grad()
        ((p * p).sum() / 2 + (q * q).sum() / 2).backward()
        clip_grad_value_([q], 2.0)
        norm = clip_grad_norm_([p], max_norm=1.0)
        opt.step()
        return norm
    assert step().item() == pytest.approx(5.0)
    np.testing.assert_allclose(p.data, [2.4, -3.2], rtol=1e-6)
    assert q.tolist() == [0.0, 7.0]


class Containers(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
        self.heads = nn.ModuleDict({"mean": nn.Linear(3, 1), "spread": nn.Sequential(nn.Linear(3, 1), nn.Softplus())})
        self.drop = nn.Dropout(0.5)

    def forward(self, x, head):
        for layer in self.body:
            x = self.drop(gj.relu(layer(x)))
        return self.heads[head](x)


def test_its_containers_and_module_methods(mode):
    model = Containers()
    assert len(list(model.parameters())) == 8
    assert list(model.state_dict())[-2:] == ["heads.spread.0.weight", "heads.spread.0.bias"]
    run, x = mode(lambda x, head: model(x, head).sum()), np.ones((4, 3), np.float32)
    model.eval()
    assert run(x, "mean").item() == run(x, "mean").item() != run(x, "spread").item()
    model.train()
    assert len({run(x, "mean").item() for _ in range(20)}) > 1
    run(x, "mean").backward()
    assert model.heads["mean"].bias.grad.tolist() == [4.0] and model.heads["spread"][0].bias.grad is None
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


# ---- project 3: scalars

def test_scalars_with_labels(mode):
    @mode
    def f(a, b):
        c = a + b
        d = a * b + b ** 3
        c = c + c + 1
        c = c + 1 + c - a
        d = d + d * 2 + (b + a).relu()
        d = d + 3 * d + (b - a).relu() + (a / 10).tanh()
        e = c - d
        g = e ** 2
        return g / 2.0 + 10.0 / g - -a
    a = gj.tensor(-4.0, label="a")
    b = gj.tensor(2.0, label="b")
    e = f(a, b)
    e.backward()

    def plain(a, b):
        return f(gj.tensor(a, dtype="float64"), gj.tensor(b, dtype="float64")).item()
    h = 1e-5
    assert e.item() == pytest.approx(plain(-4.0, 2.0), rel=1e-5)
    assert float(a.grad) == pytest.approx((plain(-4 + h, 2.0) - plain(-4 - h, 2.0)) / (2 * h), rel=1e-4)
    assert float(b.grad) == pytest.approx((plain(-4.0, 2 + h) - plain(-4.0, 2 - h)) / (2 * h), rel=1e-4)
    text = str(gj.draw_dot(e))
    assert "{ a | data -4.0000 | grad" in text and "{ b | data 2.0000 | grad" in text


def test_a_neuron_by_hand_and_by_name(mode):
    neuron, layer, model = Neuron(2, "tanh"), Layer(2, 3), MLP(2, [16, 16, 1])
    x = [gj.tensor(2.0, label="x1"), gj.tensor(-1.0, label="x2")]
    w, b = neuron.weight, neuron.bias
    by_hand = mode(lambda x1, x2: (x1 * w[0] + x2 * w[1] + b).tanh())(*x)
    assert mode(neuron)(x).item() == pytest.approx(by_hand.item(), rel=1e-5)
    by_hand.backward()
    slope = 1 - by_hand.item() ** 2
    assert [float(t.grad) for t in x] == pytest.approx([slope * v for v in w.tolist()], rel=1e-4)
    assert mode(layer)(x).shape == (3,) and mode(model)(x).shape == ()


# ---- project 4: the study network

@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_the_study_network(activation):
    def build():
        model = nn.Sequential(nn.Linear(784, 128), activation(), nn.Linear(128, 128), activation(),
                              nn.Linear(128, 128), activation(), nn.Linear(128, 10))
        for layer in model[::2]:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        assert sum(p.size for p in model.parameters()) == 134_794
        return model
    x, y = signals(48, 784, 10)
    same_in_both_modes(build, F.cross_entropy, lambda ps: optim.SGD(ps, lr=0.01, momentum=0.9), x, y, batch=16,
                       schedule=lambda opt: ExponentialLR(opt, gamma=0.95))
