"""Ten epochs are the same bits as five, a stop, and five more; whatever the optimizer and the schedule."""

import numpy as np
import pytest

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import data, nn, optim, training
from graphjit.optim import lr_scheduler as lrs

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 50)

SETUPS = {
    "adam, step": (lambda ps: optim.Adam(ps, lr=0.01, amsgrad=True), lambda o: lrs.StepLR(o, 2, gamma=0.7)),
    "adamw, cosine": (lambda ps: optim.AdamW(ps, lr=0.01), lambda o: lrs.CosineAnnealingLR(o, T_max=7)),
    "sgd, one cycle": (lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9, nesterov=True),
                       lambda o: lrs.OneCycleLR(o, max_lr=0.2, epochs=6, steps_per_epoch=3)),
    "rmsprop, plateau": (lambda ps: optim.RMSprop(ps, lr=0.01, momentum=0.5, centered=True),
                         lambda o: lrs.ReduceLROnPlateau(o, factor=0.5, patience=0)),
    "adagrad, sequence": (lambda ps: optim.Adagrad(ps, lr=0.05),
                          lambda o: lrs.SequentialLR(o, [lrs.LinearLR(o, 0.5, total_iters=2),
                                                         lrs.ExponentialLR(o, 0.8)], [3])),
    "dampened sgd, none": (lambda ps: optim.SGD(ps, lr=0.05, momentum=0.9, dampening=0.3), lambda o: None),
}


class Setup:
    """All that is needed for a training, made anew as a script would after a stop."""

    def __init__(self, name, seed=0):
        gj.manual_seed(seed)
        own = gj.Generator(seed + 1)
        self.model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 8),
                                   nn.Tanh(), nn.Dropout(0.2, generator=own), nn.Linear(8, 3))
        make, schedule = SETUPS[name]
        self.optimizer = make(self.model.parameters())
        self.scheduler = schedule(self.optimizer)
        train, val = data.TensorDataset(X[:40], Y[:40]), data.TensorDataset(X[40:], Y[40:])
        self.loaders = (data.DataLoader(train, 15, shuffle=True, seed=seed),
                        data.DataLoader(val, 4, shuffle=True))  # its orders come from the default generator

    def fit(self, epochs, **kwargs):
        return training.fit(self.model, F.cross_entropy, self.optimizer, self.loaders, epochs,
                            scheduler=self.scheduler, progress=False, **kwargs)

    def bits(self):
        tensors = {**self.model.state_dict(), **{f"{i}.{name}": t for i, slots in
                                                 self.optimizer.state_dict()["state"].items()
                                                 for name, t in slots.items()}}
        return {name: t.data.tobytes() for name, t in tensors.items()}


def timeless(history):
    return {name: values for name, values in history.items() if "seconds" not in name}


@pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])
@pytest.mark.parametrize("name", SETUPS)
def test_a_resumed_training_gives_the_same_bits(name, eager, tmp_path):
    path = tmp_path / "last.safetensors"
    whole = Setup(name)
    whole_history = whole.fit(6, eager=eager)
    after = gj.random.default_generator().state

    first = Setup(name)
    first.fit(3, eager=eager, callbacks=[training.Checkpoint(path, every=3)])
    second = Setup(name, seed=99)  # other weights, other random numbers, other orders
    assert second.bits() != first.bits()
    history = second.fit(6, eager=eager, resume=path)

    assert timeless(history) == timeless(whole_history) and history.epochs == 6
    assert second.bits() == whole.bits()
    np.testing.assert_array_equal(gj.random.default_generator().state, after)
    np.testing.assert_array_equal(second.model[6].generator.state, whole.model[6].generator.state)
    if whole.scheduler is not None:
        assert second.scheduler.state_dict() == whole.scheduler.state_dict()


def test_ten_epochs_and_five_and_five(tmp_path):
    path = tmp_path / "last.safetensors"
    whole, first, second = (Setup("adam, step", seed) for seed in (0, 0, 0))
    gj.manual_seed(5)
    whole.fit(10)
    after = gj.random.default_generator().state
    gj.manual_seed(5)
    first.fit(5, callbacks=[training.Checkpoint(path)])
    gj.manual_seed(6)
    second.fit(10, resume=path)
    assert second.bits() == whole.bits()
    np.testing.assert_array_equal(gj.random.default_generator().state, after)


def test_by_hand_as_well(tmp_path):
    def epoch(setup, step):
        for x, y in setup.loaders[0]:
            step(x, y)
        setup.scheduler.step()

    def stepping(setup):
        @gj.compile
        def step(x, y):
            setup.optimizer.zero_grad()
            loss = F.cross_entropy(setup.model(x), y)
            loss.backward()
            setup.optimizer.step()
            return loss
        return step
    whole = Setup("adam, step")
    step = stepping(whole)
    for number in range(4):
        epoch(whole, step)
        if number == 1:
            gj.save_checkpoint(tmp_path / "x", whole.model, whole.optimizer, whole.scheduler, epoch=2,
                               loaders={"train": whole.loaders[0]})
    again = Setup("adam, step", seed=7)
    found = gj.load_checkpoint(tmp_path / "x", again.model, again.optimizer, again.scheduler,
                               loaders={"train": again.loaders[0]})
    step = stepping(again)
    for _ in range(found.epoch, 4):
        epoch(again, step)
    assert again.bits() == whole.bits()


def test_nothing_is_left_to_do(tmp_path):
    setup = Setup("adam, step")
    setup.fit(2, callbacks=[training.Checkpoint(tmp_path / "x")])
    again = Setup("adam, step", seed=3)
    history = again.fit(2, resume=tmp_path / "x")
    assert history.epochs == 2 and again.bits() == setup.bits()


def test_a_checkpoint_that_does_not_fit_changes_nothing(tmp_path):
    Setup("adam, step").fit(1, callbacks=[training.Checkpoint(tmp_path / "x")])
    other = Setup("sgd, one cycle")
    before = other.bits()
    with pytest.raises(gj.CheckpointError, match="does not fit") as caught:
        other.fit(2, resume=tmp_path / "x")
    assert other.bits() == before
    assert {line.partition(":")[0] for line in caught.value.mismatches} == {"optimizer", "scheduler"}
    with pytest.raises(gj.CheckpointError, match="there is no checkpoint"):
        other.fit(2, resume=tmp_path / "y")


def test_a_checkpoint_without_a_history_can_be_resumed(tmp_path):
    setup = Setup("dampened sgd, none")
    gj.save_checkpoint(tmp_path / "x", setup.model, setup.optimizer, epoch=2,
                       loaders=dict(zip(("train", "val"), setup.loaders, strict=True)))
    history = setup.fit(3, resume=tmp_path / "x")
    assert history.epochs == 3 and np.isnan(history["train_loss"][:2]).all() and history["train_loss"][2] > 0
