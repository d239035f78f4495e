"""Checkpoints: what comes back, what is refused, what the disk may do."""

import os
import stat

import numpy as np
import pytest
from checkpoints import bits, build, tensors

import graphjit as gj
from graphjit import data, nn, optim
from graphjit.optim import lr_scheduler as lrs

# ---- there and back

def test_everything_comes_back(tmp_path):
    kept = build(0)
    kept[1].param_groups[0]["lr"] = 0.375
    loader = data.DataLoader(data.TensorDataset(np.arange(9)), 2, shuffle=True, seed=4)
    list(loader)
    wanted = bits(*kept)
    path = gj.save_checkpoint(tmp_path / "sub" / "a.safetensors", *kept, epoch=7, extra={"name": "a", "n": [1, 2.5]},
                              history={"train_loss": [2, 1.5]}, loaders={"train": loader})
    other, again = build(1), data.DataLoader(data.TensorDataset(np.arange(9)), 2, shuffle=True, seed=8)
    assert bits(*other) != wanted
    found = gj.load_checkpoint(path, *other, loaders={"train": again})
    assert bits(*other) == wanted
    assert (found.epoch, found.extra, found.history) == (7, {"name": "a", "n": [1, 2.5]}, {"train_loss": [2.0, 1.5]})
    assert found.path == path and set(found.tensors) == set(kept[0].state_dict())
    assert [b[0].tolist() for b in again] == [b[0].tolist() for b in loader]


def test_parts_can_be_loaded_alone(tmp_path):
    kept = build(0)
    path = gj.save_checkpoint(tmp_path / "a", *kept)
    wanted = bits(*kept)
    model, opt, scheduler = build(1)
    before = bits(model, opt, scheduler)
    gj.load_checkpoint(path, model)
    now = bits(model, opt, scheduler)
    weights = set(model.state_dict())
    assert {n: now[n] for n in weights} == {n: wanted[n] for n in weights}
    assert {n: now[n] for n in now.keys() - weights} == {n: before[n] for n in now.keys() - weights}
    gj.load_checkpoint(path, model, random_state=True)
    assert bits(model, opt, scheduler)["default"] == wanted["default"]
    gj.load_checkpoint(path, optimizer=opt, random_state=False)
    assert tensors(model, opt) == tensors(*kept[:2]) and opt.param_groups[0]["lr"] == 0.125
    assert gj.load_checkpoint(path).epoch == 0


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
                                   "float32", "float64"])
def test_all_dtypes_and_layouts(dtype, tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (8, 6)).astype(dtype)
    values = values[::2, ::-1].T  # neither contiguous nor in order
    if dtype.startswith("float"):
        values = np.where(values > 100, np.nan, values).astype(dtype)
    model = nn.Module()
    model.register_buffer("a", gj.tensor(values))
    model.register_buffer("b", gj.tensor(values)[0, 0])
    found = gj.load_checkpoint(gj.save_checkpoint(tmp_path / "x", model)).tensors
    np.testing.assert_array_equal(found["a"], values)
    assert found["a"].dtype == dtype and found["b"].shape == ()


def test_other_programs_read_the_weights(tmp_path):
    from safetensors.numpy import load_file, save_file
    model, opt, _ = build(0)
    read = load_file(gj.save_checkpoint(tmp_path / "a.safetensors", model, opt))
    for name, t in model.state_dict().items():
        np.testing.assert_array_equal(read[name], t.data)
    save_file({"weight": np.ones(2)}, tmp_path / "b.safetensors")
    with pytest.raises(gj.CheckpointError, match="load_file"):
        gj.load_checkpoint(tmp_path / "b.safetensors")


def test_an_optimizer_that_keeps_vectors_of_all_parameters(tmp_path):
    def fitted(steps):
        gj.manual_seed(0)
        model = nn.Linear(3, 1, dtype="float64")
        opt = optim.LBFGS(model.parameters(), max_iter=3, line_search_fn="strong_wolfe")

        def closure():
            opt.zero_grad()
            loss = ((model(np.eye(3)) - [[1.0], [2.0], [3.0]]) ** 4).sum()
            loss.backward()
            return loss
        for _ in range(steps):
            opt.step(closure)
        return model, opt, closure
    model, opt, closure = fitted(2)
    path = gj.save_checkpoint(tmp_path / "x", model, opt)
    again, second, closure2 = fitted(0)
    gj.load_checkpoint(path, again, second)
    for _ in range(2):
        opt.step(closure)
        second.step(closure2)
    assert again.weight.tolist() == model.weight.tolist()
    gj.save_checkpoint(path, nn.Linear(2, 1), optim.LBFGS(nn.Linear(2, 1).parameters()))
    with pytest.raises(gj.CheckpointError):
        gj.load_checkpoint(path, again, second)


# ---- what does not fit

def test_all_mismatches_at_once_and_nothing_changed(tmp_path):
    path = gj.save_checkpoint(tmp_path / "a", *build(0))
    gj.manual_seed(3)
    model = nn.Sequential(nn.Linear(2, 5), nn.Linear(5, 1))
    opt = optim.Adam([{"params": model[0].parameters()}, {"params": model[1].parameters()}])
    scheduler = lrs.StepLR(opt, 2)
    loader = data.DataLoader(range(3), seed=1)
    before = {name: t.tolist() for name, t in model.state_dict().items()}
    with pytest.raises(gj.CheckpointError, match="does not fit") as caught:
        gj.load_checkpoint(path, model, opt, scheduler, loaders={"train": loader})
    lines = caught.value.mismatches
    for line in ("mask is unexpected", "3.weight is unexpected",
                 "1.weight is float32[3] in the file, float32[1, 5] here",
                 "0.weight is float32[3, 2] in the file, float32[5, 2] here", "loaders.train is missing in the file",
                 "optimizer/0.exp_avg is float32[3, 2] in the file, float32[5, 2] here",
                 "optimizer/2.exp_avg_sq is float64[1, 3] in the file, float32[1, 5] here",
                 "scheduler: the file holds ReduceLROnPlateau, here is StepLR"):
        assert line in lines
    assert len(str(caught.value).splitlines()) <= 15 and "more (in .mismatches)" in str(caught.value)
    assert {name: t.tolist() for name, t in model.state_dict().items()} == before and opt.state_dict()["state"] == {}


@pytest.mark.parametrize("make, message", [
    (lambda ps: optim.AdamW(ps), "holds Adam, here is AdamW"),
    (lambda ps: optim.Adam([{"params": list(ps)}]), "2 parameter groups in the file, 1 here")])
def test_other_optimizers(make, message, tmp_path):
    path = gj.save_checkpoint(tmp_path / "a", *build(0))
    model = build(1)[0]
    with pytest.raises(gj.CheckpointError, match=message):
        gj.load_checkpoint(path, optimizer=make(model.parameters()))
    path = gj.save_checkpoint(tmp_path / "b", model)
    with pytest.raises(gj.CheckpointError, match="holds none, here is"):
        gj.load_checkpoint(path, optimizer=make(model.parameters()))


def test_a_class_that_refuses_while_loading_changes_nothing(tmp_path):
    class Picky(nn.Linear):
        def load_state_dict(self, state_dict, strict=True):
            super().load_state_dict(state_dict, strict)
            if np.asarray(state_dict["bias"]).item() == 1.0:
                raise RuntimeError("not this one")
    model = Picky(2, 1)
    opt = optim.SGD(model.parameters(), lr=0.5)
    model.bias.assign([1.0])
    path = gj.save_checkpoint(tmp_path / "a", model, opt)
    model.bias.assign([2.0])
    opt.lr = 0.25
    with pytest.raises(gj.CheckpointError, match="not this one"):
        gj.load_checkpoint(path, model, opt)
    assert model.bias.tolist() == [2.0] and opt.lr == 0.25


# ---- the disk

def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    model = nn.Linear(2, 1)
    path = gj.save_checkpoint(tmp_path / "a", model, epoch=1)

    def full(*args):
        raise OSError(28, "No space left on device")
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(gj.CheckpointError, match="cannot be written") as caught:
                gj.save_checkpoint(path, model, epoch=2)
            assert "No space left" in str(caught.value)
    assert gj.load_checkpoint(path, model).epoch == 1 and os.listdir(tmp_path) == ["a"]


def test_a_file_has_the_modes_of_any_other(tmp_path):
    (tmp_path / "other").touch()
    path = gj.save_checkpoint(tmp_path / "a", nn.Linear(2, 1))
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


def test_what_cannot_be_saved_or_read(tmp_path):
    model = nn.Linear(2, 1)
    for extra in ({"a": object()}, {1: {2, 3}}):
        with pytest.raises(gj.ArgumentError, match="numbers, strings"):
            gj.save_checkpoint(tmp_path / "a", model, extra=extra)
    odd = nn.Module()
    odd.register_buffer("random/default", np.ones(1))
    with pytest.raises(gj.ArgumentError, match="cannot be called"):
        gj.save_checkpoint(tmp_path / "a", odd)
    assert os.listdir(tmp_path) == []
    for path in (tmp_path / "none", tmp_path, "/dev/zero"):
        with pytest.raises(gj.CheckpointError, match="there is no checkpoint"):
            gj.load_checkpoint(path, model)
    (tmp_path / "file").touch()
    with pytest.raises(gj.CheckpointError, match="cannot be written"):
        gj.save_checkpoint(tmp_path / "file" / "a", model)
