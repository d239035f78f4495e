"""Weights of convolutions, which a compiled step holds in the order in which products read them."""

import copy

import numpy as np
import pytest
from classifying import agree, stepping

import graphjit as gj
from graphjit import nn, optim
from graphjit.buffers import order_of, turn

BY_TAPS, BY_ROWS = (2, 3, 1, 0), (0, 2, 3, 1)
OPTIMIZERS = {
    "momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "adam": lambda p: optim.Adam(p, lr=0.003),
    "adamw": lambda p: optim.AdamW(p, lr=0.003),
}
# layers, the shape of an image, and in which order their weights come to lie
NETWORKS = {
    "one channel": (lambda: [nn.Conv2d(1, 8, 3, padding=1)], (1, 6, 7), [(1, 2, 3, 0)]),
    "two layers": (lambda: [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2, padding=1)], (3, 9, 9),
                   [BY_TAPS, BY_TAPS]),
    "1-d": (lambda: [nn.Conv1d(2, 16, 5, padding=2), nn.Tanh(), nn.Conv1d(16, 17, 3, dilation=2)], (2, 20),
            [(2, 1, 0), (2, 1, 0)]),
    "few places": (lambda: [nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1)], (16, 1, 2),
                   [BY_TAPS, BY_ROWS]),
    "normalized": (lambda: [nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
                            nn.Conv2d(8, 8, 1)], (3, 8, 8), [BY_TAPS, (2, 3, 1, 0)]),
    "in groups": (lambda: [nn.Conv2d(4, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8)], (4, 8, 8),
                  [(), (1, 2, 3, 0)]),
}


def network(name, seed=0):
    gj.manual_seed(seed)
    layers, shape, _ = NETWORKS[name]
    body = layers()
    probe = nn.Sequential(*body)(gj.zeros((2, *shape)))
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(probe.size // 2, 5))


def filters(model):
    return [m.weight for m in model.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d))]


def batch(name, rows=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, *NETWORKS[name][1])).astype(np.float32), rng.integers(0, 5, rows)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_training_agrees_with_eager_steps(name, optimizer, clip):
    a, b = network(name), network(name)
    ours, theirs = OPTIMIZERS[optimizer](a.parameters()), OPTIMIZERS[optimizer](b.parameters())
    fast, slow = gj.compile(stepping(a, ours, clip)), stepping(b, theirs, clip)
    for i in range(4):
        np.testing.assert_allclose(fast(*batch(name, seed=i)).numpy(), slow(*batch(name, seed=i)).numpy(), 2e-4)
    agree(a, b)
    orders = NETWORKS[name][2]
    assert [order_of(w.numpy()) for w in filters(a)] == orders
    for w, order in zip(filters(a), orders, strict=True):
        for slot, tensor in ours.state[w].items():
            assert tensor.ndim < 2 or order_of(tensor.numpy()) == order, slot
    slow_again = stepping(a, ours, clip)  # eager steps go on with what lies so
    for i in range(2):
        np.testing.assert_allclose(slow_again(*batch(name, seed=i)).numpy(), slow(*batch(name, seed=i)).numpy(), 2e-4)
    agree(a, b)


@pytest.mark.parametrize("name", ["two layers", "few places"])
def test_only_gradients_by_inputs_have_weights_copied(name):
    model = network(name)
    step = gj.compile(stepping(model, optim.Adam(model.parameters())))
    step(*batch(name))
    held = {s.held for s in step.latest.states if s.order}
    copies = [n for n in step.graph.nodes if getattr(getattr(n, "op", None), "name", "") == "copy"
              and (n.args[0] in held or getattr(n.args[0], "args", (None,))[0] in held)]
    assert len(copies) == (1 if name == "two layers" else 0)
    assert "held with their axes as products read them: 0.weight (2, 3, 1, 0)" in step.explain()


def test_an_array_that_someone_holds_is_left_where_it_is():
    model = network("two layers")
    held = model[0].weight.numpy()
    before = held.copy()
    step = gj.compile(stepping(model, optim.SGD(model.parameters(), lr=0.1)))
    step(*batch("two layers"))
    assert [order_of(w.numpy()) for w in filters(model)] == [(), BY_TAPS]
    assert (held != before).any() and np.shares_memory(held, model[0].weight.numpy())


def test_other_batches_and_other_functions_take_them_as_they_lie():
    name = "two layers"
    a, b = network(name), network(name)
    fast, slow = (run(stepping(m, optim.Adam(m.parameters()))) for run, m in ((gj.compile, a), (lambda f: f, b)))
    predict = gj.compile(lambda x: a(x))
    for rows in (4, 3, 4, 3):
        fast(*batch(name, rows)), slow(*batch(name, rows))
        with gj.no_grad():
            np.testing.assert_allclose(predict(batch(name, 2)[0]).numpy(), b(batch(name, 2)[0]).numpy(), 1e-3, 1e-4)
    assert fast.trace_count == 2 and predict.trace_count == 1
    a.zero_grad(), b.zero_grad()
    predict(gj.tensor(batch(name)[0])).sum().backward()  # its reverse program reads the weights too
    b(gj.tensor(batch(name)[0])).sum().backward()
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), 2e-3, 1e-4)


def test_functions_that_want_another_order_take_the_first_ones():
    """Images of few places want weights by rows, larger ones by taps."""
    gj.manual_seed(0)
    conv = nn.Conv2d(32, 64, 3, padding=1)
    twin = copy.deepcopy(conv)

    def training(layer):
        def step(x):
            layer.zero_grad()
            loss = (layer(x) ** 2).mean()
            loss.backward()
            with gj.no_grad():
                layer.weight.assign(layer.weight - 0.1 * layer.weight.grad)
            return loss
        return step
    small, large = (np.random.default_rng(0).standard_normal((2, 32, 2 * n, n)).astype(np.float32) for n in (1, 5))
    on_small, on_large, eager = gj.compile(training(conv)), gj.compile(training(conv)), training(twin)

    def both(fast, x):
        np.testing.assert_allclose(fast(x).numpy(), eager(x).numpy(), 1e-4)

    both(on_small, small)
    assert order_of(conv.weight.numpy()) == BY_ROWS
    for _ in range(2):
        both(on_large, large), both(on_small, small)
    assert order_of(conv.weight.numpy()) == BY_ROWS and (on_small.trace_count, on_large.trace_count) == (1, 1)

    on_large = gj.compile(training(conv))  # and the other way around, with a new array
    conv.weight.data = conv.weight.numpy().copy(order="C")
    for _ in range(2):
        both(on_large, large), both(on_small, small)
    assert order_of(conv.weight.numpy()) == BY_TAPS and (on_small.trace_count, on_large.trace_count) == (2, 1)
    assert "weight: its axes lie in another order now, as another compiled function holds it" in on_small.reasons[-1]
    np.testing.assert_allclose(conv.weight.numpy(), twin.weight.numpy(), 1e-3, 1e-5)


def test_new_arrays_are_put_in_order_again_and_nothing_is_traced():
    name = "two layers"
    a, b = network(name), network(name)
    fast, slow = (run(stepping(m, optim.SGD(m.parameters(), lr=0.1))) for run, m in ((gj.compile, a), (lambda f: f, b)))
    for i in range(3):
        fast(*batch(name, seed=i)), slow(*batch(name, seed=i))
        for model in (a, b):
            model[0].weight.data = np.full((8, 3, 3, 3), 0.01 * i, np.float32)
    fast(*batch(name)), slow(*batch(name))
    agree(a, b)
    assert fast.trace_count == 1 and order_of(a[0].weight.numpy()) == BY_TAPS


def test_checkpoints_and_copies_do_not_depend_on_it(tmp_path):
    name = "two layers"
    a = network(name)
    opt = optim.Adam(a.parameters())
    step = gj.compile(stepping(a, opt))
    step(*batch(name))
    gj.save_checkpoint(tmp_path / "a.safetensors", a, opt)
    twin = copy.deepcopy(a)
    step(*batch(name, seed=1))
    b = network(name, seed=3)
    other = optim.Adam(b.parameters())
    gj.load_checkpoint(tmp_path / "a.safetensors", b, other)
    agree(twin, b, 0, 0)
    gj.compile(stepping(b, other))(*batch(name, seed=1))
    agree(a, b, 1e-5, 1e-6)


@pytest.fixture
def threads():
    before = gj.get_num_threads()
    yield gj.set_num_threads
    gj.set_num_threads(before)


def test_threads_change_no_bit(threads):
    name = "two layers"
    found = []
    for count in (1, 2, 3):
        threads(count)
        model = network(name)
        step = gj.compile(stepping(model, optim.Adam(model.parameters())))
        losses = [step(*batch(name, 256, seed=i)).item() for i in range(3)]
        assert step.latest.program.table[:, 4].any() == (count > 1)  # some kernel is shared
        found.append((losses, model))
    for losses, model in found[1:]:
        assert losses == found[0][0]
        agree(model, found[0][1], 0, 0)


READERS = {
    "take": lambda t: t[gj.tensor(np.array([1, 1, 0]))], "slice": lambda t: t[:1, ::2, 1:] * 2,
    "sort": lambda t: gj.sort(t, axis=0), "cumsum": lambda t: gj.cumsum(t, axis=1),
    "argmax": lambda t: t.argmax(axis=2), "whole": lambda t: t.sum() + t.max(),
    "sums": lambda t: t * t.sum(0) + t.max(1, keepdims=True), "reshape": lambda t: t.reshape((4, 6)) + 1,
    "products": lambda t: t @ t.mT, "flip": lambda t: gj.flip(t, axis=1), "pad": lambda t: gj.pad(t, 1),
    "concat": lambda t: gj.concat([t, t]), "itself": lambda t: t,
    "permuted": lambda t: gj.permute_dims(t, (1, 2, 0)), "by rows": lambda t: gj.permute_dims(t, (2, 0, 1)) - 1,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("order", [(2, 1, 0), (0, 2, 1), (1, 2, 0), (2, 0, 1)])
def test_arrays_that_lie_so_already_are_read_in_any_way(name, order):
    x = np.random.default_rng(0).standard_normal((2, 3, 4))
    t = gj.tensor(x)
    writes = gj.compile(lambda: t.assign(t * 1))
    writes()  # what a compiled function writes is taken as it lies
    turn(t._value, order)
    f = gj.compile(lambda: READERS[name](t))
    np.testing.assert_allclose(f().numpy(), READERS[name](gj.tensor(x)).numpy(), 1e-12, 1e-12)
    assert [s.order for s in f.latest.states] == [order]


def test_data_that_nothing_writes_are_put_in_order_once():
    x = np.random.default_rng(0).standard_normal((5, 4, 4, 3))
    t = gj.tensor(x).permute_dims((0, 3, 1, 2))
    f = gj.compile(lambda: t.reshape((5, -1)) * 2)
    for _ in range(2):
        np.testing.assert_array_equal(f().numpy(), 2 * x.transpose(0, 3, 1, 2).reshape(5, -1))
    assert [s.order for s in f.latest.states] == [()] and t.numpy().flags.c_contiguous and f.trace_count == 1


@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_arrays_that_lie_so_and_are_written(dtype):
    x = np.arange(24).astype(dtype).reshape(2, 3, 4)
    t = gj.tensor(x)
    t.data = np.ascontiguousarray(x.transpose(1, 2, 0)).transpose(2, 0, 1)
    f = gj.compile(lambda: t.assign(2 * t + t[0]))
    f(), f()
    np.testing.assert_array_equal(t.numpy(), 2 * (2 * x + x[0]) + 3 * x[0])


def test_orders_of_arrays():
    x = np.zeros((4, 1, 3, 2), np.float32)
    assert order_of(x) == order_of(x[:, :, ::2]) == order_of(np.broadcast_to(x[:1], (4, 1, 3, 2))) == ()
    assert order_of(x.transpose(3, 2, 1, 0)) == (2, 3, 1, 0)
    assert order_of(x.transpose(2, 1, 3, 0)) == (1, 3, 0, 2)
    assert order_of(x[::-1].T) == () == order_of(x.astype(">f4").T)
