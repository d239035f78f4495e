"""A small training, and everything of it that a checkpoint holds: for the tests of checkpoints."""

import numpy as np

import graphjit as gj
from graphjit import nn, optim
from graphjit.optim import lr_scheduler as lrs


def build(seed=0, width=3):
    """A small model with all that there is to keep, some steps into its training."""
    gj.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width),
                          nn.Dropout(0.5, generator=gj.Generator(seed)), nn.Linear(width, 1, dtype="float64"))
    model.register_buffer("mask", np.array([True, False]))
    model.register_buffer("none", np.zeros((0, 4), np.uint8))
    opt = optim.Adam([{"params": model[0].parameters(), "lr": 0.125}, {"params": model[3].parameters()}])
    scheduler = lrs.ReduceLROnPlateau(opt, patience=1)
    for _ in range(seed + 1):
        learn(model, opt, scheduler)
    return model, opt, scheduler


def learn(model, opt, scheduler):
    opt.zero_grad()
    model(np.array([[1.0, 2.0], [3.0, -4.0], [5.0, 6.5]])).sum().backward()
    opt.step()
    scheduler.step(1.5)


def bits(model, opt, scheduler):
    """Everything that loading could change, comparable."""
    return {**tensors(model, opt), "groups": repr([g.options() for g in opt.param_groups]),
            "scheduler": scheduler.state_dict(), "generator": model[2].generator.state.tolist(),
            "default": gj.random.default_generator().state.tolist()}


def tensors(model, opt):
    slots = {f"{i}.{name}": t for i, s in opt.state_dict()["state"].items() for name, t in s.items()}
    return {name: (t.dtype, t.shape, t.data.tobytes()) for name, t in {**model.state_dict(), **slots}.items()}
