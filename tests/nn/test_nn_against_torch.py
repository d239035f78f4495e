"""Layers, losses and their gradients against PyTorch's, in float64."""

import itertools

import numpy as np
import pytest

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import nn

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(0)


def check(ours, theirs, *arrays, rtol=1e-10):
    """Equal values, and equal gradients of a random projection with respect to every floating array."""
    xs = [gj.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    ts = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    out, wanted = ours(*xs), theirs(*ts)
    np.testing.assert_allclose(out.data, wanted.detach().numpy(), rtol=rtol, atol=1e-13)
    if not wanted.requires_grad:
        return
    g = np.random.default_rng(1).normal(size=out.shape)
    (out * g).sum().backward()
    (wanted * torch.tensor(g)).sum().backward()
    for x, t in zip(xs, ts, strict=True):
        if t.grad is not None:
            np.testing.assert_allclose(x.grad.data, t.grad.numpy(), rtol=rtol, atol=1e-12)


def same_state(ours, theirs):
    """A PyTorch module's state in ours; and the names are the same."""
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.double().load_state_dict(theirs.double().state_dict())
    return ours, theirs


LAYERS = [
    ("Linear", (4, 3), {}, (5, 4)), ("Linear", (4, 3), {"bias": False}, (2, 5, 4)),
    ("BatchNorm1d", (4,), {}, (6, 4)), ("BatchNorm1d", (4,), {"momentum": None, "eps": 0.1}, (6, 4, 3)),
    ("BatchNorm1d", (4,), {"affine": False}, (6, 4)),
    ("BatchNorm1d", (4,), {"track_running_stats": False}, (6, 4)),
    ("LayerNorm", (4,), {}, (6, 4)), ("LayerNorm", ((3, 4),), {"bias": False}, (2, 3, 4)),
    ("LayerNorm", (4,), {"elementwise_affine": False, "eps": 0.1}, (6, 4)),
    ("GELU", (), {}, (3, 4)), ("GELU", ("tanh",), {}, (3, 4)), ("ReLU", (), {}, (3, 4)),
    ("Tanh", (), {}, (3, 4)), ("Sigmoid", (), {}, (3, 4)), ("Softmax", (), {"dim": 1}, (3, 4)),
    ("LogSoftmax", (0,), {}, (3, 4)), ("Flatten", (), {}, (2, 3, 4)), ("Identity", (), {}, (2, 3)),
]


@pytest.mark.parametrize("name, args, options, shape", LAYERS, ids=lambda v: str(v))
def test_layers(name, args, options, shape):
    ours, theirs = same_state(getattr(nn, name)(*args, **options), getattr(torch.nn, name)(*args, **options))
    for mode in (True, True, False):  # twice in training, then with the statistics that left
        ours.train(mode)
        theirs.train(mode)
        ours.zero_grad()
        theirs.zero_grad()
        check(ours, theirs, RNG.normal(1, 2, shape))
        for (key, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
            np.testing.assert_allclose(a.data, b.numpy(), rtol=1e-12, err_msg=key)
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            if q.grad is not None:
                np.testing.assert_allclose(p.grad.data, q.grad.numpy(), rtol=1e-10, atol=1e-12)


def test_embedding():
    ours, theirs = same_state(nn.Embedding(7, 3, padding_idx=2), torch.nn.Embedding(7, 3, padding_idx=2))
    ids = np.array([[0, 2, 6], [2, 5, 5]])
    check(ours, theirs, ids)
    ours(ids).square().sum().backward()
    theirs(torch.tensor(ids)).square().sum().backward()
    np.testing.assert_allclose(ours.weight.grad.data, theirs.weight.grad.numpy())


def test_a_model_of_pytorch_is_taken_over():
    def build(n):
        return n.Sequential(n.Linear(4, 8), n.BatchNorm1d(8), n.ReLU(), n.Dropout(0.5), n.Linear(8, 2)).eval()
    ours, theirs = same_state(build(nn), build(torch.nn))
    check(ours, theirs, RNG.normal(size=(3, 4)))


WEIGHTS = np.array([0.5, 1.0, 2.0, 0.1])
OPTIONS = list(itertools.product(("mean", "sum", "none"), (0.0, 0.3), (False, True)))


@pytest.mark.parametrize("reduction, smoothing, weighted", OPTIONS)
@pytest.mark.parametrize("shape", [(6, 4), (4,), (3, 4, 2)])
def test_cross_entropy(shape, reduction, smoothing, weighted):
    options = {"reduction": reduction, "label_smoothing": smoothing}
    f = torch.nn.functional
    w = WEIGHTS if weighted else None
    tw = None if w is None else torch.tensor(w)
    axis = 0 if len(shape) == 1 else 1
    labels = RNG.integers(0, 4, shape[:axis] + shape[axis + 1:])
    soft = RNG.dirichlet(np.ones(4), shape[:axis] + shape[axis + 1:])
    soft = np.ascontiguousarray(np.moveaxis(soft, -1, axis))
    x = RNG.normal(size=shape)
    for target in (labels, soft):
        check(lambda x, t: F.cross_entropy(x, t, weight=w, **options),
              lambda x, t: f.cross_entropy(x, t, weight=tw, **options), x, np.array(target))
    if labels.ndim:
        labels[0] = 3
        check(lambda x, t: F.cross_entropy(x, t, weight=w, ignore_index=3, **options),
              lambda x, t: f.cross_entropy(x, t, weight=tw, ignore_index=3, **options), x, labels)
    if not smoothing:
        check(lambda x, t: F.nll_loss(x, t, weight=w, reduction=reduction),
              lambda x, t: f.nll_loss(x, t, weight=tw, reduction=reduction), x, np.array(labels))


def test_cross_entropy_of_huge_scores():
    x = np.array([[1e4, -1e4, 0.0], [1e30, 0.0, -1e30]])
    check(F.cross_entropy, torch.nn.functional.cross_entropy, x, np.array([1, 0]))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_other_losses(reduction):
    f, o = torch.nn.functional, {"reduction": reduction}
    a, b = RNG.normal(size=(3, 4)), RNG.uniform(size=(3, 4))
    check(lambda x, y: F.mse_loss(x, y, **o), lambda x, y: f.mse_loss(x, y, **o), a, b)
    check(lambda x, y: F.l1_loss(x, y, **o), lambda x, y: f.l1_loss(x, y, **o), a, b)
    name = "binary_cross_entropy_with_logits"
    ours, theirs = getattr(F, name), getattr(f, name)
    check(lambda x, y: ours(x, y, **o), lambda x, y: theirs(x, y, **o), a, b)
    check(lambda x, y: ours(x, y, weight=b, pos_weight=WEIGHTS, **o),
          lambda x, y: theirs(x, y, weight=torch.tensor(b), pos_weight=torch.tensor(WEIGHTS), **o), a, b)


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.0, float("inf")])
@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clip_grad_norm(norm_type, max_norm):
    grads = [RNG.normal(size=(3, 2)), RNG.normal(size=4)]
    ours, theirs = [nn.Parameter(g) for g in grads], [torch.nn.Parameter(torch.tensor(g)) for g in grads]
    for p, q, g in zip(ours, theirs, grads, strict=True):
        p.grad, q.grad = g, torch.tensor(g)
    norm = nn.utils.clip_grad_norm_(ours, max_norm, norm_type)
    wanted = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    np.testing.assert_allclose(norm.data, wanted.numpy(), rtol=1e-12)
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.grad.data, q.grad.numpy(), rtol=1e-12)


def test_second_derivatives_of_batch_norm():
    x, w = RNG.normal(size=(5, 3)), RNG.normal(size=(5, 3))
    a = gj.tensor(x, requires_grad=True)
    y = (F.batch_norm(a, None, None, training=True) * w).tanh().sum()
    y.backward(create_graph=True)
    g, a.grad = a.grad, None
    (g * g).sum().backward()
    b = torch.tensor(x, requires_grad=True)
    y = (torch.nn.functional.batch_norm(b, None, None, training=True) * torch.tensor(w)).tanh().sum()
    (h,) = torch.autograd.grad(y, b, create_graph=True)
    (h * h).sum().backward()
    np.testing.assert_allclose(a.grad.data, b.grad.numpy(), rtol=1e-7, atol=1e-9)
