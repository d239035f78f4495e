"""Recurrent layers and attention: formulas, both modes, dropout, masks, errors."""

import numpy as np
import pytest

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import nn, optim
from graphjit.errors import ArgumentError, DTypeError, ShapeError
from graphjit.runtime.compiler import compile_count

RNG = np.random.default_rng(0)


def logistic(x):
    return 1 / (1 + np.exp(-x))


def test_lstm_by_its_formula():
    model = nn.LSTM(3, 2).double()
    x, h, c = RNG.normal(size=(4, 1, 3)), np.zeros(2), np.zeros(2)
    w_ih, w_hh, b_ih, b_hh = (p.data for p in model.parameters())
    out, (last, cell) = model(x)
    for t in range(4):
        i, f, g, o = np.split(w_ih @ x[t, 0] + b_ih + w_hh @ h + b_hh, 4)
        c = logistic(f) * c + logistic(i) * np.tanh(g)
        h = logistic(o) * np.tanh(c)
        np.testing.assert_allclose(out.data[t, 0], h, rtol=1e-12)
    np.testing.assert_allclose(last.data[0, 0], h, rtol=1e-12)
    np.testing.assert_allclose(cell.data[0, 0], c, rtol=1e-12)


def test_names_of_the_parameters():
    assert list(nn.GRU(2, 3, num_layers=2, bidirectional=True, bias=False).state_dict()) == [
        "weight_ih_l0", "weight_hh_l0", "weight_ih_l0_reverse", "weight_hh_l0_reverse",
        "weight_ih_l1", "weight_hh_l1", "weight_ih_l1_reverse", "weight_hh_l1_reverse"]
    assert list(nn.TransformerEncoderLayer(4, 2, 8).state_dict())[:4] == [
        "self_attn.in_proj_weight", "self_attn.in_proj_bias", "self_attn.out_proj.weight",
        "self_attn.out_proj.bias"]


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_training_with_dropout_is_the_same_in_both_modes(kind):
    def losses(wrap):
        gj.manual_seed(0)
        model = getattr(nn, kind)(3, 4, num_layers=2, dropout=0.5, batch_first=True, generator=gj.Generator(1))
        opt = optim.SGD(model.parameters(), lr=0.5)

        @wrap
        def step(x):
            opt.zero_grad()
            out, _ = model(x)
            loss = (out * out).mean()
            loss.backward()
            opt.step()
            return loss
        x = np.random.default_rng(1).normal(size=(2, 2, 3)).astype(np.float32)
        found = [step(x).item() for _ in range(3)]
        model.eval()
        np.testing.assert_array_equal(model(x)[0].data, model(x)[0].data)
        return found
    eager, compiled = losses(lambda f: f), losses(gj.compile)
    np.testing.assert_allclose(compiled, eager, rtol=1e-5)
    assert len({round(v, 6) for v in eager}) == 3


def test_a_longer_batch_shares_its_kernels_and_a_longer_sequence_is_traced():
    model = nn.GRU(3, 4)
    run = gj.compile(lambda x: model(x)[0].sum())
    run(np.ones((3, 4, 3), np.float32))
    kernels = run.compile_count
    for n in (2, 7):
        run(np.ones((3, n, 3), np.float32))
    assert run.compile_count == kernels
    run(np.ones((4, 4, 3), np.float32))
    assert run.trace_count == 4


def test_recurrent_layers_differentiate_twice():
    model = nn.GRU(2, 2).double()
    gj.testing.check_grads(lambda x: model(x)[0].sum(), (RNG.normal(size=(3, 1, 2)),), order=2)


def test_one_step_one_unit_and_no_sequence():
    out, h = nn.RNN(1, 1)(np.ones((1, 1, 1), np.float32))
    assert out.shape == h.shape == (1, 1, 1)
    assert nn.RNN(2, 3)(np.ones((4, 0, 2), np.float32))[0].shape == (4, 0, 3)
    for run in (nn.LSTM(2, 3), gj.compile(nn.LSTM(2, 3))):
        with pytest.raises(ShapeError, match="without steps"):
            run(np.ones((0, 2, 2), np.float32))
        with pytest.raises(ShapeError, match="takes"):
            run(np.ones((4, 2, 3), np.float32))
        state = (np.ones((1, 2, 3), np.float32), np.ones((1, 1, 3), np.float32))
        with pytest.raises(ShapeError, match="starts from states"):
            run(np.ones((4, 2, 2), np.float32), state)
        with pytest.raises(ArgumentError, match=r"pair \(h, c\)"):
            run(np.ones((4, 2, 2), np.float32), state[0])


def test_what_recurrent_layers_refuse():
    for args in ((2, 0), (2, 3, 0), (-1, 3)):
        with pytest.raises(ArgumentError):
            nn.RNN(*args)
    with pytest.raises(ArgumentError, match="nonlinearity"):
        nn.RNN(2, 3, nonlinearity="sine")
    assert repr(nn.LSTM(2, 3, num_layers=2, dropout=0.5)) == "LSTM(2, 3, num_layers=2, dropout=0.5)"


# ---- attention

X = RNG.normal(size=(2, 4, 6))


def test_a_query_that_sees_nothing_gets_zero_and_finite_gradients(mode):
    hidden = np.zeros((2, 4), bool)
    hidden[1] = True
    model = nn.MultiheadAttention(6, 2, batch_first=True).double()

    @mode
    def run(x):
        x = gj.tensor(x, requires_grad=True)
        out, weights = model(x, x, x, key_padding_mask=hidden)
        out.sum().backward()
        return weights, x.grad
    weights, grad = run(X)
    assert not weights.data[1].any() and np.isfinite(grad.data).all()
    np.testing.assert_allclose(weights.data[0].sum(axis=-1), 1)


def test_causal_attention_is_a_mask(mode):
    model = nn.MultiheadAttention(6, 3, batch_first=True).double()
    later = np.triu(np.ones((4, 4), bool), 1)
    a, _ = mode(lambda x: model(x, x, x, is_causal=True))(X)
    b, weights = mode(lambda x: model(x, x, x, attn_mask=later))(X)
    np.testing.assert_array_equal(a.data, b.data)
    assert not weights.data[:, later].any()
    for mask in (np.broadcast_to(later, (6, 4, 4)), np.where(later, -np.inf, 0.0)):
        np.testing.assert_allclose(model(X, X, X, attn_mask=np.array(mask))[0].data, a.data)


@pytest.mark.parametrize(("queries", "keys"), [(65, 65), (130, 130), (300, 200), (200, 600), (129, 1), (1, 129)])
def test_long_causal_attention_goes_by_blocks_and_is_a_mask_as_well(mode, queries, keys):
    q, k, v = (RNG.normal(size=(2, n, 3)) for n in (queries, keys, keys))
    seen = np.arange(queries)[:, None] >= np.arange(keys)

    def gradients(**options):
        def loss(q, k, v):
            return (F.scaled_dot_product_attention(q, k, v, **options) ** 3).sum()
        value, found = mode(gj.value_and_grad(loss, argnums=(0, 1, 2)))(q, k, v)
        return [value.data, *[g.data for g in found]]
    for a, b in zip(gradients(is_causal=True), gradients(attn_mask=seen), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_blocks_of_causal_attention_save_work_and_another_length_compiles_nothing():
    def flops(n, **options):
        run = gj.compile(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **options))
        run(*(np.ones((2, n, 8), np.float32) for _ in range(3)))
        return sum(step.flops for step in run.latest.program.steps)
    for n in (512, 1024):
        before = compile_count()
        assert flops(n, is_causal=True) < 0.6 * flops(n, attn_mask=np.ones((1, 1), bool))
    assert compile_count() == before


def test_what_is_padded_stays_hidden_in_blocks(mode):
    model = nn.MultiheadAttention(4, 2, batch_first=True).double()
    x, hidden = RNG.normal(size=(3, 150, 4)), np.arange(150) >= np.array([[150], [70], [1]])
    parts, none = mode(lambda x: model(x, x, x, hidden, need_weights=False, is_causal=True))(x)
    whole, weights = mode(lambda x: model(x, x, x, hidden, is_causal=True))(x)
    assert none is None and weights.shape == (3, 150, 150)
    np.testing.assert_allclose(parts.data, whole.data, rtol=1e-12)


def test_an_encoder_layer_trains_alike_in_both_modes():
    def losses(wrap):
        gj.manual_seed(0)
        model = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.2, batch_first=True, activation=F.silu,
                                           generator=gj.Generator(3)).double()
        opt = optim.SGD(model.parameters(), lr=0.1)

        @wrap
        def step(x):
            opt.zero_grad()
            loss = (model(x, is_causal=True) ** 3).mean()
            loss.backward()
            opt.step()
            return loss
        return [step(X).item() for _ in range(3)]
    np.testing.assert_allclose(losses(gj.compile), losses(lambda f: f), rtol=1e-10)


def test_what_attention_refuses(mode):
    model = nn.MultiheadAttention(6, 2, batch_first=True).double()
    run = mode(model)
    with pytest.raises(ShapeError, match="features of queries"):
        run(X, X[..., :5], X)
    with pytest.raises(ShapeError, match="3 dimensions"):
        run(X, X[0], X)
    with pytest.raises(ShapeError, match="attn_mask is of shape"):
        run(X, X, X, attn_mask=np.zeros((3, 4), bool))
    with pytest.raises(ShapeError, match="key_padding_mask is of shape"):
        run(X, X, X, key_padding_mask=np.zeros((2, 3), bool))
    with pytest.raises(DTypeError, match="a mask is of bools or floating"):
        run(X, X, X, attn_mask=np.zeros((4, 4), int))
    with pytest.raises(ArgumentError, match="either"):
        mode(lambda x: F.scaled_dot_product_attention(x, x, x, np.ones((4, 4), bool), is_causal=True))(X)
    with pytest.raises(ShapeError, match="attention takes"):
        mode(F.scaled_dot_product_attention)(X, X[..., :5], X)
    with pytest.raises(ArgumentError, match="heads do not divide"):
        nn.MultiheadAttention(6, 4)
    with pytest.raises(ArgumentError, match="activation"):
        nn.TransformerEncoderLayer(6, 2, activation="sine")
