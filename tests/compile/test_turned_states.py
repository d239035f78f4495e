"""Weights that a compiled step holds in the order in which products read them."""

import copy
import itertools

import numpy as np
import pytest
from classifying import agree, stepping

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import nn, optim
from graphjit.buffers import order_of

OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "adamw": lambda p: optim.AdamW(p, lr=0.01),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5),
}


def network(sizes=(48, 64, 10), seed=0):
    gj.manual_seed(seed)
    layers = [layer for m, n in itertools.pairwise(sizes) for layer in (nn.Linear(m, n), nn.Tanh())]
    return nn.Sequential(*layers[:-1])


def batch(rows=8, columns=48, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, columns)).astype(np.float32), rng.integers(0, 10, rows)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_training_agrees_with_eager_steps(name, clip):
    a, b = network(), network()
    ours, theirs = OPTIMIZERS[name](a.parameters()), OPTIMIZERS[name](b.parameters())
    fast, slow = gj.compile(stepping(a, ours, clip)), stepping(b, theirs, clip)
    for i in range(5):
        x, y = batch(seed=i)
        np.testing.assert_allclose(fast(x, y).numpy(), slow(x, y).numpy(), 1e-4)
    agree(a, b)
    assert order_of(a[0].weight.numpy()) and not order_of(a[2].weight.numpy())
    for slot, tensor in ours.state.get(a[0].weight, {}).items():
        assert tensor.ndim < 2 or order_of(tensor.numpy()), slot
    assert "held with their axes as products read them: 0.weight (1, 0)" in fast.explain()
    slow_again = stepping(a, ours, clip)  # eager steps go on with what lies so
    for i in range(2):
        x, y = batch(seed=i)
        np.testing.assert_allclose(slow_again(x, y).numpy(), slow(x, y).numpy(), 1e-4)
    agree(a, b)


def test_no_product_turns_an_operand_of_such_a_layer():
    model = network((48, 64))
    step = gj.compile(stepping(model, optim.SGD(model.parameters(), lr=0.1)))
    step(*batch())
    products = [n for n in step.graph.nodes if getattr(getattr(n, "op", None), "name", "") == "matmul"]
    forward, gradient = products
    assert forward.args[1].name == "0.weight.T" and gradient.type.shape == (48, 64)


@pytest.mark.parametrize("sizes", [(48, 10), (48, 17, 10), (48, 16, 10), (2, 1)])
def test_weights_whose_columns_would_fill_vectors_worse_stay(sizes):
    model = network(sizes)
    step = gj.compile(stepping(model, optim.Adam(model.parameters())))
    step(*batch(columns=sizes[0])) if sizes[-1] > 1 else step(batch(columns=2)[0], np.zeros(8, np.int64))
    assert not any(s.order for s in step.latest.states)


def test_a_weight_that_products_read_both_ways_stays():
    model = network((48, 64))
    x = gj.tensor(batch()[0], requires_grad=True)
    weight = gj.tensor(np.ones((64, 64), np.float32), requires_grad=True)

    @gj.compile
    def step():
        h = model(x)
        loss = ((h @ weight.T) @ weight).sum()
        loss.backward()
        with gj.no_grad():
            weight.assign(weight - 0.01 * weight.grad)
            model[0].weight.assign(model[0].weight - 0.01 * model[0].weight.grad)
            x.assign(x - 0.01 * x.grad)
        weight.zero_grad(), model.zero_grad(), x.zero_grad()
        return loss
    step()
    assert not any(s.order for s in step.latest.states)


def test_an_array_that_someone_holds_is_left_where_it_is():
    for hold in (lambda t: t.numpy(), lambda t: t.numpy()[3], lambda t: t.numpy().T[:, ::2], np.asarray):
        model = network()
        held = hold(model[0].weight)
        before = held.copy()
        step = gj.compile(stepping(model, optim.SGD(model.parameters(), lr=0.1)))
        step(*batch())
        assert not order_of(model[0].weight.numpy())
        assert (held != before).any() and np.shares_memory(held, model[0].weight.numpy())


def test_the_callers_own_array_is_not_written():
    model = network()
    array = model[0].weight.numpy().copy()
    before = array.copy()
    model[0].weight.data = array
    step = gj.compile(stepping(model, optim.SGD(model.parameters(), lr=0.1)))
    for _ in range(2):
        step(*batch())
    assert (array == before).all() and order_of(model[0].weight.numpy())
    assert (model[0].weight.numpy() != before).any() and step.trace_count == 1


def test_large_weights_are_turned_too():
    model = network((768, 1024, 10))
    assert model[0].weight.numpy().nbytes > 1 << 21  # on huge pages
    step = gj.compile(stepping(model, optim.SGD(model.parameters(), lr=0.1)))
    step(*batch(columns=768))
    assert order_of(model[0].weight.numpy())


def test_views_of_graphjit_keep_what_they_showed():
    model = network()
    first = model[0].weight.detach()[0]
    before = first.numpy().copy()
    step = gj.compile(stepping(model, optim.SGD(model.parameters(), lr=0.1)))
    for _ in range(2):
        step(*batch())
    assert (first.numpy() == before).all() and (model[0].weight.numpy()[0] != before).any()


def test_other_batches_and_other_functions_take_it_as_it_lies():
    a, b = network(), network()
    fast = gj.compile(stepping(a, optim.Adam(a.parameters())))
    slow = stepping(b, optim.Adam(b.parameters()))
    predict = gj.compile(lambda x: a(x))
    for rows in (8, 5, 8, 5):
        fast(*batch(rows)), slow(*batch(rows))
        with gj.no_grad():
            np.testing.assert_allclose(predict(batch(3)[0]).numpy(), b(batch(3)[0]).numpy(), 1e-3, 1e-5)
    assert fast.trace_count == 2 and predict.trace_count == 1
    assert [s.order for s in predict.latest.states if s.node.name == "0.weight"] == [(1, 0)]
    a.zero_grad(), b.zero_grad()
    loss = predict(gj.tensor(batch(3)[0])).sum()  # differentiable: its reverse program reads the weight too
    loss.backward()
    b(gj.tensor(batch(3)[0])).sum().backward()
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), 1e-3, 1e-5)


def test_a_program_that_was_there_before_is_traced_again_once():
    model = network()
    predict = gj.compile(lambda x: model(x).detach())
    predict(batch()[0])
    model[0].weight.data = model[0].weight.numpy().copy()  # an array of which that program knows nothing yet
    step = gj.compile(stepping(model, optim.SGD(model.parameters(), lr=0.1)))
    for i in range(3):
        step(*batch(seed=i))
        with gj.no_grad(), gj.eager():
            want = model(batch()[0]).numpy()
        np.testing.assert_allclose(predict(batch()[0]).numpy(), want, 1e-4, 1e-6)
    assert step.trace_count == 1 and order_of(model[0].weight.numpy())
    assert predict.reasons[1:] == ["0.weight: its axes lie in another order now, as another compiled function holds it"]


def test_new_arrays_are_turned_again_and_nothing_is_traced():
    a, b = network(), network()
    fast = gj.compile(stepping(a, optim.SGD(a.parameters(), lr=0.1)))
    slow = stepping(b, optim.SGD(b.parameters(), lr=0.1))
    for i in range(3):
        fast(*batch(seed=i)), slow(*batch(seed=i))
        for model in (a, b):
            model[0].weight.data = np.full((64, 48), 0.01 * i, np.float32)
    fast(*batch()), slow(*batch())
    agree(a, b)
    assert fast.trace_count == 1


def test_checkpoints_copies_and_state_dicts_do_not_depend_on_it(tmp_path):
    a = network()
    opt = optim.Adam(a.parameters())
    step = gj.compile(stepping(a, opt))
    step(*batch())
    assert order_of(a[0].weight.numpy())
    gj.save_checkpoint(tmp_path / "a.safetensors", a, opt)
    twin, kept = copy.deepcopy(a), a.state_dict()
    step(*batch(seed=1))
    b = network(seed=3)
    other = optim.Adam(b.parameters())
    gj.load_checkpoint(tmp_path / "a.safetensors", b, other)
    agree(twin, b, 0)
    gj.compile(stepping(b, other))(*batch(seed=1))
    agree(a, b, 1e-6)
    a.load_state_dict(kept)
    agree(a, twin, 0)
    step(*batch(seed=1))
    assert step.trace_count == 1


def test_a_moving_average_and_a_penalty_go_with_the_weight():
    def train(compiled):
        model, ema = network(), network()
        opt = optim.SGD(model.parameters(), lr=0.1)

        def step(x, y):
            opt.zero_grad()
            loss = F.cross_entropy(model(x), y) + 0.01 * sum((p * p).sum() for p in model.parameters())
            loss.backward()
            opt.step()
            with gj.no_grad():
                for p, q in zip(model.parameters(), ema.parameters(), strict=True):
                    q.assign(0.9 * q + 0.1 * p)
            return loss
        run = gj.compile(step) if compiled else step
        losses = [run(*batch(seed=i)).item() for i in range(4)]
        return losses, model, ema
    (fast, a, ours), (slow, b, theirs) = train(True), train(False)
    np.testing.assert_allclose(fast, slow, 1e-4)
    agree(a, b)
    agree(ours, theirs)
    assert order_of(a[0].weight.numpy()) and order_of(ours[0].weight.numpy())


@pytest.mark.parametrize("rows", [64, 48])
def test_square_weights_and_batches_of_their_shape(rows):
    def train(compiled):
        model = network((64, 64, 64, 10))
        opt = optim.Adam(model.parameters(), lr=0.01)
        step = stepping(model, opt)
        run = gj.compile(step) if compiled else step
        for i in range(3):
            run(*batch(rows, 64, seed=i))
        return model
    a, b = train(True), train(False)
    agree(a, b)
    assert [order_of(layer.weight.numpy()) for layer in (a[0], a[2], a[4])] == [(1, 0), (), ()]


def test_a_recurrent_layer_reads_its_weight_at_each_step():
    def train(compiled):
        gj.manual_seed(0)
        into, on = nn.Linear(24, 32), nn.Linear(32, 32)
        opt = optim.SGD([*into.parameters(), *on.parameters()], lr=0.1, momentum=0.5)

        def step(x):
            opt.zero_grad()
            h = gj.zeros((x.shape[0], 32))
            for t in range(4):
                h = gj.tanh(into(x[:, t]) + on(h))
            loss = (h * h).mean()
            loss.backward()
            opt.step()
            return loss
        run = gj.compile(step) if compiled else step
        x = np.random.default_rng(0).standard_normal((6, 4, 24)).astype(np.float32)
        return [run(x).item() for _ in range(4)], into
    (fast, into), (slow, _) = train(True), train(False)
    np.testing.assert_allclose(fast, slow, 1e-4)
    assert order_of(into.weight.numpy())


def test_a_weight_that_is_read_at_many_steps_is_turned_once():
    w = gj.tensor(np.random.default_rng(0).standard_normal((40, 40)).astype(np.float32) / 6)

    def steps(count):
        def run(x):
            for _ in range(count):
                x = gj.tanh(x @ w.T)
            return x
        return run
    x = batch(columns=40)[0]
    for count, turns in ((3, 0), (4, 1), (9, 1)):
        fast = gj.compile(steps(count))
        np.testing.assert_allclose(fast(x).numpy(), steps(count)(gj.tensor(x)).numpy(), 1e-4, 1e-6)
        assert sum(getattr(getattr(n, "op", None), "name", "") == "turn" for n in fast.graph.nodes) == turns


READERS = {
    "take": lambda t: t[gj.tensor(np.array([3, 1, 1, 0]))], "slice": lambda t: t[1:4, ::2] * 2,
    "sort": lambda t: gj.sort(t, axis=0), "cumsum": lambda t: gj.cumsum(t, axis=1),
    "argmax": lambda t: t.argmax(axis=1),
    "sums": lambda t: t * t.sum(0) + t.max(1, keepdims=True), "reshape": lambda t: t.reshape((3, 12)) + 1,
    "product": lambda t: t.T @ t @ t, "solve": lambda t: gj.linalg.solve(t + 6 * gj.eye(6), t[0]),
    "concat": lambda t: gj.concat([t, t.T]), "itself": lambda t: t, "transposed": lambda t: t.T,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_matrices_that_lie_so_already_are_read_in_any_way(name, dtype):
    x = np.random.default_rng(0).standard_normal((6, 6)).astype(dtype)
    t = gj.tensor(x)
    t.data = np.asfortranarray(x)
    f = gj.compile(lambda: READERS[name](t))
    np.testing.assert_allclose(f().numpy(), READERS[name](gj.tensor(x)).numpy(), 1e-4, 1e-5)
    assert [s.order for s in f.latest.states] == [(1, 0)]


def test_integers_that_lie_so_and_are_written():
    x = np.arange(12).reshape(3, 4)
    t = gj.tensor(x)
    t.data = np.asfortranarray(x)
    f = gj.compile(lambda: t.assign(2 * t + t[0]))
    f(), f()
    np.testing.assert_array_equal(t.numpy(), 2 * (2 * x + x[0]) + 3 * x[0])
