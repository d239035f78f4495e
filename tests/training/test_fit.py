"""``fit``: what it computes, eagerly and compiled; what it refuses; how it ends."""

import math

import numpy as np
import pytest

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import data, nn, optim, training
from graphjit.optim import lr_scheduler as lrs

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4)).astype(np.float32)
Y = (X[:, 0] > X[:, 1]).astype(np.int64)


def loaders(**kwargs):
    return (data.DataLoader(data.TensorDataset(X[:40], Y[:40]), 16, shuffle=True, seed=0, **kwargs),
            data.DataLoader(data.TensorDataset(X[40:], Y[40:]), 8))


def classifier(seed=0, dropout=0.2):
    gj.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 2))


def by_hand(model, optimizer, pair, epochs):
    """The loop that ``fit`` stands for, written out."""
    rows = []
    for _ in range(epochs):
        losses, right, sizes = [], [], []
        for x, y in pair[0]:
            optimizer.zero_grad()
            out = model(x)
            loss = F.cross_entropy(out, y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            right.append((out.numpy().argmax(1) == y).sum())
            sizes.append(len(y))
        model.eval()
        with gj.no_grad():
            held = [(F.cross_entropy(model(x), y).item(), (model(x).numpy().argmax(1) == y).mean(), len(y))
                    for x, y in pair[1]]
        model.train()
        rows.append((np.average(losses, weights=sizes), sum(right) / sum(sizes),
                     np.average([h[0] for h in held], weights=[h[2] for h in held]),
                     np.average([h[1] for h in held], weights=[h[2] for h in held])))
    return np.array(rows)


@pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])
def test_it_is_the_loop_written_out(eager):
    model = classifier()
    wanted = by_hand(model, optim.Adam(model.parameters(), lr=0.02), loaders(), 4)
    model = classifier()
    history = training.fit(model, F.cross_entropy, optim.Adam(model.parameters(), lr=0.02), loaders(), 4, eager=eager)
    names = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
    found = np.array([history[name] for name in names]).T
    np.testing.assert_allclose(found, wanted, rtol=0 if eager else 1e-4, atol=1e-12 if eager else 1e-6)
    assert set(history) == {*names, "lr", "seconds", "step_seconds"} and history.stopped == ""
    assert all(v > 0 for v in (*history["seconds"], *history["step_seconds"])) and history["lr"] == [0.02] * 4


def test_modes_are_kept():
    model, seen = classifier(), []
    model[2].eval()  # frozen by the user

    class Watch(training.Callback):
        def on_step(self, state):
            seen.append([m.training for m in model])
    args = (F.cross_entropy, optim.SGD(model.parameters(), lr=0.1), loaders(), 1)
    training.fit(model, *args, eager=True, callbacks=[Watch()])
    assert seen[0] == [True, True, False, True] and model.training and not model[2].training
    model.eval()
    training.fit(model, *args, eager=True, callbacks=[Watch()])
    assert seen[-1] == [True] * 4 and not any(m.training for m in model.modules())


def test_loaders_of_three_kinds_and_several_inputs():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter([0.0])

        def forward(self, a, b):
            return (a + b) * self.scale
    a, b = RNG.normal(size=(2, 12)).astype(np.float32)
    batches = [(a[:6], b[:6], 2 * (a + b)[:6]), (a[6:], b[6:], 2 * (a + b)[6:])]
    model = Sum()
    history = training.fit(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1),
                           {"train": batches, "test": batches[:1]}, 30,
                           metrics={"off": lambda out, target: (out - target).abs().mean()})
    assert model.scale.item() == pytest.approx(2, abs=1e-2) and history["test_off"][-1] < 0.02
    assert set(history) == {"train_loss", "train_off", "test_loss", "test_off", "lr", "seconds", "step_seconds"}
    three = training.fit(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1), (batches, batches, batches), 1)
    assert {"train_loss", "val_loss", "test_loss"} < set(three) and "train_accuracy" not in three


@pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])
def test_gradients_can_be_bound(eager):
    model = nn.Linear(4, 1)
    before = model.weight.numpy().copy()
    batch = [(X, 1e3 * np.ones((60, 1), np.float32))]
    training.fit(model, F.mse_loss, optim.SGD(model.parameters(), lr=1.0), batch, 1, clip_norm=0.5, eager=eager)
    assert 0 < np.linalg.norm(model.weight.numpy() - before) < 0.51


def test_an_optimizer_that_searches():
    model = nn.Linear(4, 1).double()
    x = X.astype(np.float64)
    y = x @ [[1.0], [2.0], [3.0], [4.0]]
    opt = optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe")
    history = training.fit(model, F.mse_loss, opt, [(x, y)], 3)
    assert history["train_loss"][-1] < 1e-8 < history["train_loss"][0]


# ---- schedules

def rates(make, epochs=4, **kwargs):
    model, seen = nn.Linear(4, 2), []

    class Watch(training.Callback):
        def on_step(self, state):
            seen.append(state.optimizer.lr)
    opt = optim.SGD(model.parameters(), lr=0.4, momentum=0.5)
    history = training.fit(model, F.cross_entropy, opt, loaders(), epochs, scheduler=make(opt), callbacks=[Watch()],
                           eager=True, **kwargs)
    return history["lr"], seen


def test_schedules_move_by_epochs_or_by_steps():
    by_epoch, _ = rates(lambda opt: lrs.ExponentialLR(opt, 0.5))
    assert by_epoch == [0.4, 0.2, 0.1, 0.05]
    _, by_step = rates(lambda opt: lrs.LinearLR(opt, 0.25, total_iters=3), 2, schedule_by="step")
    np.testing.assert_allclose(by_step, [0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    _, cycle = rates(lambda opt: lrs.OneCycleLR(opt, max_lr=1.0, total_steps=12, pct_start=0.5))
    assert max(cycle) == pytest.approx(1.0) and cycle.index(max(cycle)) == 5 and cycle[-1] < 1e-5


def test_a_plateau_is_looked_at_where_the_user_says():
    assert rates(lambda opt: lrs.ReduceLROnPlateau(opt, mode="max", factor=0.5, patience=0, threshold=10.0))[0] == [
        0.4, 0.4, 0.2, 0.1]  # no loss is ever larger enough
    assert rates(lambda opt: lrs.ReduceLROnPlateau(opt, patience=0), monitor="train_loss")[0] == [0.4] * 4
    with pytest.raises(gj.ArgumentError, match="no 'val_speed'"):
        rates(lambda opt: lrs.ReduceLROnPlateau(opt), monitor="val_speed")


def test_a_schedule_never_traces_again():
    model, counts = classifier(), []

    class Watch(training.Callback):
        def on_end(self, state):
            counts.append((state.train_step.trace_count, state.eval_step.trace_count))
    opt = optim.Adam(model.parameters(), lr=0.01)
    training.fit(model, F.cross_entropy, opt, loaders(), 4, callbacks=[Watch()],
                 scheduler=lrs.CosineAnnealingLR(opt, 4))
    assert counts == [(2, 2)]  # a whole batch and an odd last one


# ---- how it ends

def test_a_loss_that_is_not_finite_ends_it_with_the_history(tmp_path):
    model = nn.Linear(4, 1)
    x = X.copy()
    opt, sound = optim.SGD(model.parameters(), lr=0.01), [(x[:20], X[:20, :1]), (x[20:40], X[20:40, :1])]
    sound[1][0][:] = X[20:40]

    class Spoil(training.Callback):
        def on_epoch_end(self, state):
            if state.epoch == 2:
                sound[1][0][3, 1] = np.nan
    path = tmp_path / "last.safetensors"
    with pytest.raises(gj.TrainingDiverged, match="the training loss is nan at step 2 of epoch 3") as caught:
        training.fit(model, F.mse_loss, opt, sound, 5, callbacks=[training.Checkpoint(path), Spoil()])
    error = caught.value
    assert (error.epoch, error.step, error.history.epochs) == (3, 2, 2) and str(path) in str(error)
    assert "clip_norm" in str(error) and isinstance(error, ArithmeticError)
    found = gj.load_checkpoint(path, model)
    assert found.epoch == 2 and np.isfinite(model.weight.numpy()).all()


def test_a_validation_loss_that_is_not_finite_too():
    model = nn.Linear(4, 1)
    bad = [(np.full((3, 4), np.inf, np.float32), np.ones((3, 1), np.float32))]
    with pytest.raises(gj.TrainingDiverged, match=r"loss of the val samples is (inf|nan) at the end of epoch 1"):
        training.fit(model, F.mse_loss, optim.SGD(model.parameters(), lr=0.1), ([(X, X[:, :1])], bad), 2, eager=True)
    assert model.training


def test_ctrl_c_keeps_what_there_is():
    ended = []

    class Interrupt(training.Callback):
        def on_step(self, state):
            if state.epoch == 3:
                raise KeyboardInterrupt

        def on_end(self, state):
            ended.append(state.epoch)
    model = classifier()
    history = training.fit(model, F.cross_entropy, optim.SGD(model.parameters(), lr=0.1), loaders(), 9, eager=True,
                           callbacks=[Interrupt()])
    assert history.epochs == 2 and history.stopped == "interrupted" and ended == [2] and model.training


def test_what_it_refuses():
    model = classifier()
    opt = optim.SGD(model.parameters(), lr=0.1)

    def fit(given, **kwargs):
        training.fit(model, F.cross_entropy, opt, given, 1, eager=True, **kwargs)
    for given, message in (
            (data.TensorDataset(X, Y), "DataLoader"), (3, "gives no batches"), (iter([(X, Y)]), "only once"),
            ([], "the train loader gave no batch"), ([(X,)], "not 1 array"), ([X], "not a ndarray"),
            (([(X, Y)], []), "the val loader gave no batch"), ({"val": [(X, Y)]}, "'train', 'val', 'test'"),
            (([], [], [], []), "not 4 of them")):
        with pytest.raises(gj.ArgumentError, match=message):
            fit(given)
    for kwargs, message in (
            ({"schedule_by": "batch"}, "'epoch' or 'step'"),
            ({"schedule_by": "step", "scheduler": lrs.ReduceLROnPlateau(opt)}, "after an epoch"),
            ({"callbacks": [training.EarlyStopping()]}, "no 'val_loss'")):
        with pytest.raises(gj.ArgumentError, match=message):
            fit([(X, Y)], **kwargs)


def test_evaluate_and_predict_agree_and_leave_no_trace():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    before = {name: t.tolist() for name, t in model.state_dict().items()}
    for eager in (False, True):
        out = training.predict(model, X, batch_size=7, eager=eager)
        found = training.evaluate(model, F.cross_entropy, loaders()[1], eager=eager)
        assert out.shape == (60, 2)
        assert found["loss"] == pytest.approx(F.cross_entropy(out[40:], Y[40:]).item(), rel=1e-5)
        assert found["accuracy"] == pytest.approx((out[40:].argmax(1) == Y[40:]).mean())
        np.testing.assert_allclose(training.predict(model, loaders()[1], eager=eager), out[40:], rtol=1e-5, atol=1e-6)
    assert model.training and {name: t.tolist() for name, t in model.state_dict().items()} == before
    with pytest.raises(gj.ArgumentError, match="no samples"):
        training.predict(model, X[:0])


def test_accuracy():
    assert training.accuracy(np.eye(3), [0, 1, 0]).item() == pytest.approx(2 / 3)
    assert training.accuracy(np.array([[[1.0, 0.0], [0.0, 1.0]]]), [[0, 0]]).item() == 0.5
    assert training.accuracy([0.5, -0.5, 2.0], [1, 0, -1]).item() == pytest.approx(2 / 3)
    with pytest.raises(gj.ShapeError):
        training.accuracy(np.eye(3), [0, 1])


def test_progress_shows_a_line_for_each_epoch(capsys):
    model = classifier()
    history = training.fit(model, F.cross_entropy, optim.SGD(model.parameters(), lr=0.1), loaders(), 3, progress=True,
                           eager=True, callbacks=[training.EarlyStopping("lr", patience=1)])
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and history.epochs == 2 and math.isclose(history["lr"][0], 0.1)
    assert lines[0].split() == ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "ms/step"]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "stopped:"]
    assert float(lines[1].split()[1]) == pytest.approx(history["train_loss"][0], rel=1e-3)
    training.fit(model, F.cross_entropy, optim.SGD(model.parameters(), lr=0.1), loaders(), 1, eager=True)
    assert capsys.readouterr() == ("", "")  # not a terminal
