"""Histories, early stopping, the best model, periodic checkpoints."""

import json
import math

import numpy as np
import pytest

import graphjit as gj
from graphjit import nn, optim, training
from graphjit.training import History


def run(losses, callbacks, epochs=None, **kwargs):
    """A training whose losses are given: the model is one number, the loss what is asked for."""
    model = nn.Linear(1, 1, dtype="float64")
    table = {"epoch": 0}

    class Next(training.Callback):
        def on_epoch_end(self, state):
            table["epoch"] = state.epoch
            model.bias.assign(float(state.epoch))

    def loss(out, target):
        return (out * 0).sum() + losses[min(table["epoch"], len(losses) - 1)]
    opt = optim.SGD(model.parameters(), lr=0.0)
    batches = [(np.ones((1, 1)), np.ones((1, 1)))]
    with gj.eager():
        history = training.fit(model, loss, opt, (batches, batches), len(losses) if epochs is None else epochs,
                               callbacks=[*callbacks, Next()], eager=True, **kwargs)
    return history, model


def test_early_stopping_waits_for_its_patience():
    history, _ = run([5, 4, 4, 4.5, 3, 6, 6, 6, 1], [training.EarlyStopping(patience=3)])
    assert history["val_loss"] == [5, 4, 4, 4.5, 3, 6, 6, 6]
    assert history.stopped == "val_loss has not become better since epoch 5"
    assert run([3, 2.95, 2.9, 2.85], [training.EarlyStopping(patience=2, min_delta=0.2)])[0].epochs == 3
    assert run([1, 2, 3], [training.EarlyStopping(patience=1, mode="max")])[0].epochs == 3
    assert run([1, 2, 3], [training.EarlyStopping("lr", patience=5)])[0].stopped == ""


def test_the_best_model_is_kept(tmp_path):
    path = tmp_path / "new" / "best.safetensors"
    history, model = run([5, 3, 3, 4], [training.BestModel(path)])
    found = gj.load_checkpoint(path, model)
    # the bias is the number of epochs before: what the second epoch was evaluated with
    assert found.epoch == 2 and model.bias.item() == 1.0 and history.best("val_loss") == (2, 3.0)
    assert found.history["val_loss"] == [5, 3]


def test_checkpoints_every_few_epochs(tmp_path):
    run([3, 3, 3, 3, 3], [training.Checkpoint(tmp_path / "at-{epoch}.safetensors", every=2)])
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"at-{n}.safetensors" for n in (2, 4, 5)]


def test_callbacks_look_back_past_a_resume(tmp_path):
    path, early = tmp_path / "x", training.EarlyStopping(patience=3)
    run([1, 2], [training.Checkpoint(path), early])
    history, _ = run([2, 2, 2, 2], [early, training.BestModel(tmp_path / "best")], epochs=9, resume=path)
    assert history.epochs == 4 and "since epoch 1" in history.stopped
    assert not (tmp_path / "best").exists()  # the best one was before


def test_bad_choices_are_known_before_the_first_epoch(tmp_path):
    (tmp_path / "file").write_text("")
    for make in (lambda: training.EarlyStopping(patience=0), lambda: training.Checkpoint("x", every=0),
                 lambda: training.BestModel("x", mode="best")):
        with pytest.raises(gj.ArgumentError):
            make()
    for callback in (training.BestModel(tmp_path / "x", "val_luck"), training.Checkpoint(tmp_path / "file" / "x")):
        with pytest.raises(gj.ArgumentError, match=r"no 'val_luck'|cannot be written"):
            run([1, 2], [callback])


def test_histories():
    history = History({"val_accuracy": [0.5, 0.75, 0.75], "train_loss": [2, math.nan, 1]})
    assert history.epochs == 3 and history.best("val_accuracy") == (2, 0.75) and history.best("train_loss") == (3, 1.0)
    assert history.best("val_accuracy", "min") == (1, 0.5)
    assert json.loads(history.to_json())["train_loss"] == [2, None, 1]
    again = History.from_json(history.to_json())
    np.testing.assert_equal(again.asdict(), history.asdict())
    history.append({"train_loss": 0.5, "new": 1.0})
    np.testing.assert_equal(history.asdict(), {"val_accuracy": [0.5, 0.75, 0.75, math.nan],
                                               "train_loss": [2, math.nan, 1, 0.5], "new": [math.nan] * 3 + [1.0]})
    assert "4 epochs" in repr(history) and repr(History()) == "History(0 epochs)"
    copy = history.asdict()
    copy["new"].clear()
    assert len(history["new"]) == 4
    with pytest.raises(gj.ArgumentError, match="each epoch"):
        History({"a": [1], "b": []})
    for name in ("val_loss", "nothing"):
        with pytest.raises(gj.ArgumentError, match="There are val_accuracy"):
            history.best(name)


def test_histories_in_files(tmp_path):
    path = tmp_path / "history.json"
    History({"train_loss": [1.5]}).to_json(path)
    assert History.from_json(path) == History.from_json(str(path)) == {"train_loss": [1.5]}
    for bad in ("[1]", '{"a": 1}', '{"a": ["x"]}', "{"):
        path.write_text(bad)
        with pytest.raises(gj.ArgumentError, match="no history in"):
            History.from_json(path)
    with pytest.raises(gj.ArgumentError, match="no history in"):
        History.from_json(tmp_path / "none.json")
