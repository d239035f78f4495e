"""Schedules: nothing is traced again, they can be saved, chained and put one after the other."""

import copy
import json

import numpy as np
import pytest

import graphjit as gj
from graphjit import nn, optim
from graphjit.errors import ArgumentError, TraceError
from graphjit.optim import lr_scheduler as lrs
from graphjit.tape import clock


def make(name="SGD", **options):
    return getattr(optim, name)([nn.Parameter(np.ones(2))], lr=0.5, **options)


def sequential(opt):
    return lrs.SequentialLR(opt, [lrs.LinearLR(opt, 0.5, total_iters=3), lrs.ExponentialLR(opt, 0.9),
                                  lrs.StepLR(opt, 2)], [3, 8])


SCHEDULES = {
    "step": lambda o: lrs.StepLR(o, 3), "multi": lambda o: lrs.MultiStepLR(o, [2, 5]),
    "exponential": lambda o: lrs.ExponentialLR(o, 0.9), "cosine": lambda o: lrs.CosineAnnealingLR(o, 6, 0.01),
    "linear": lambda o: lrs.LinearLR(o), "sequential": sequential,
    "lambda": lambda o: lrs.LambdaLR(o, lambda e: 0.5 ** e),
    "one cycle": lambda o: lrs.OneCycleLR(o, 1.0, total_steps=20, cycle_momentum="betas" in o.defaults),
    "plateau": lambda o: lrs.ReduceLROnPlateau(o, patience=1, cooldown=1),
}


def advance(schedule, epoch):
    """A step of any schedule; a metric that rises and falls for the one that looks at it."""
    if isinstance(schedule, lrs.ReduceLROnPlateau):
        schedule.step(gj.tensor(1.0 + (epoch % 3)))
    else:
        schedule.step()


@pytest.mark.parametrize("build", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_a_schedule_causes_no_trace(build, name):
    def rates(wrap):
        opt = make(name)
        p = opt.param_groups[0]["params"][0]

        @wrap
        def step():
            opt.zero_grad()
            (p * p).sum().backward()
            opt.step()
        step()  # traced before there is a schedule
        tick = clock.structure
        schedule = build(opt)
        found = []
        for epoch in range(12):
            step()
            advance(schedule, epoch)
            assert schedule.get_last_lr() == [opt.lr]
            found.append((opt.lr, p.tolist()))
        assert getattr(step, "trace_count", 1) == 1
        assert wrap is gj.compile or clock.structure == tick
        return found
    eager, compiled = rates(lambda f: f), rates(gj.compile)
    assert [rate for rate, _ in eager] == [rate for rate, _ in compiled] and len({rate for rate, _ in eager}) > 2
    np.testing.assert_allclose([p for _, p in compiled], [p for _, p in eager], rtol=1e-12)


@pytest.mark.parametrize("build", SCHEDULES.values(), ids=SCHEDULES)
def test_a_saved_schedule_goes_on_as_if_nothing_had_happened(build):
    opt = make("Adam")
    schedule, later = build(opt), []
    for epoch in range(5):
        advance(schedule, epoch)
    saved = json.loads(json.dumps(schedule.state_dict()))
    state = copy.deepcopy(opt.state_dict())
    for epoch in range(5, 12):
        advance(schedule, epoch)
        later.append((opt.lr, opt.betas))
    fresh = make("Adam")
    again = build(fresh)
    fresh.load_state_dict(state)
    again.load_state_dict(saved)
    found = []
    for epoch in range(5, 12):
        advance(again, epoch)
        found.append((fresh.lr, fresh.betas))
    assert found == later and again.last_epoch == schedule.last_epoch == 12


def test_a_schedule_goes_on_from_the_state_of_its_optimizer():
    opt, whole = make(), []
    schedule = lrs.StepLR(opt, 3, 0.5)
    for _ in range(4):
        schedule.step()
    state = opt.state_dict()
    assert state["param_groups"][0]["initial_lr"] == 0.5
    for _ in range(5):
        schedule.step()
        whole.append(opt.lr)
    fresh = make()
    fresh.load_state_dict(state)
    again, found = lrs.StepLR(fresh, 3, 0.5, last_epoch=3), []
    for _ in range(5):
        again.step()
        found.append(fresh.lr)
    assert found == pytest.approx(whole)
    with pytest.raises(ArgumentError, match="initial_lr"):
        lrs.StepLR(make(), 3, last_epoch=3)


def test_schedules_multiply():
    opt = make()
    parts = [lrs.StepLR(opt, 2, 0.1), lrs.LinearLR(opt, 0.5, total_iters=2), lrs.MultiStepLR(opt, [3], 0.5)]
    rates = [opt.lr]
    for _ in range(3):
        for part in parts:
            part.step()
        rates.append(opt.lr)
    assert rates == pytest.approx([0.25, 0.375, 0.05, 0.025])
    assert parts[1].base_lrs == [0.5]


def test_a_rate_of_the_users_is_kept():
    opt = make()
    schedule = lrs.ExponentialLR(opt, 0.5)
    opt.lr = 8.0
    schedule.step()
    assert opt.lr == 4.0


def test_groups_keep_their_ratio():
    opt = optim.SGD([{"params": [nn.Parameter([1.0])], "lr": 1.0}, {"params": [nn.Parameter([1.0])], "lr": 0.1}])
    schedule = lrs.CosineAnnealingLR(opt, 4)
    for _ in range(2):
        schedule.step()
    assert schedule.get_last_lr() == pytest.approx([0.5, 0.05])
    cycle = lrs.OneCycleLR(opt, [1.0, 2.0], total_steps=5, cycle_momentum=False)
    assert cycle.get_last_lr() == pytest.approx([0.04, 0.08])
    each = lrs.LambdaLR(opt, [lambda e: 1.0, lambda e: 3.0])
    assert each.get_last_lr() == pytest.approx([0.04, 0.24])


def test_a_schedule_of_the_users():
    class Sawtooth(lrs.LRScheduler):
        def get_lr(self):
            return [base * (1 + self.last_epoch % 2) for base in self.base_lrs]
    opt = make()
    schedule = Sawtooth(opt)
    rates = [opt.lr]
    for _ in range(3):
        schedule.step()
        rates.append(opt.lr)
    assert rates == [0.5, 1.0, 0.5, 1.0] and "last_epoch=3" in repr(schedule)


def test_schedules_stay_outside_of_compiled_functions():
    opt = make()
    schedule, plateau = lrs.StepLR(opt, 2), lrs.ReduceLROnPlateau(opt)
    for inside in (lambda x: schedule.step(), lambda x: schedule.get_last_lr(), lambda x: lrs.StepLR(opt, 2),
                   lambda x: plateau.step(x.sum()), lambda x: lrs.OneCycleLR(opt, 1.0, 5)):
        with pytest.raises(TraceError, match="inside a compiled function"):
            gj.compile(inside)(np.ones(2))
    assert opt.lr == 0.5 and schedule.last_epoch == 0


def test_what_schedules_refuse():
    opt, other = make(), make()
    plateau = lrs.ReduceLROnPlateau(opt)
    for wrong in (lambda: lrs.StepLR(opt, 0), lambda: lrs.StepLR(None, 1), lambda: lrs.LinearLR(opt, 0.0),
                  lambda: lrs.LinearLR(opt, 0.5, 1.5), lambda: lrs.CosineAnnealingLR(opt, 0),
                  lambda: lrs.LambdaLR(opt, [abs, abs]), lambda: lrs.OneCycleLR(opt, 1.0),
                  lambda: lrs.OneCycleLR(opt, 1.0, 5, pct_start=2.0), lambda: lrs.OneCycleLR(opt, [1.0, 2.0], 5),
                  lambda: lrs.OneCycleLR(make("Adagrad"), 1.0, 5),
                  lambda: lrs.OneCycleLR(opt, 1.0, 5, anneal_strategy="x"),
                  lambda: lrs.ReduceLROnPlateau(opt, "smallest"), lambda: lrs.ReduceLROnPlateau(opt, factor=1.0),
                  lambda: lrs.ReduceLROnPlateau(opt, min_lr=[0.0, 0.0]), lambda: plateau.step(),
                  lambda: lrs.SequentialLR(opt, [], []), lambda: lrs.SequentialLR(opt, [lrs.StepLR(opt, 1)], [1]),
                  lambda: lrs.SequentialLR(opt, [lrs.StepLR(other, 1)], []),
                  lambda: lrs.SequentialLR(opt, [plateau], []),
                  lambda: lrs.StepLR(opt, 2).load_state_dict({"last_epoch": 3}),
                  lambda: sequential(opt).load_state_dict({"_schedulers": []})):
        with pytest.raises(ArgumentError):
            wrong()
    cycle = lrs.OneCycleLR(other, 1.0, total_steps=2, cycle_momentum=False)
    cycle.step()
    cycle.step()
    with pytest.raises(ArgumentError, match="a cycle of 2"):
        cycle.step()
