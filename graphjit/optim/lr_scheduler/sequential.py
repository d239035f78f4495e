"""Several schedules one after the other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from graphjit.errors import ArgumentError
from graphjit.optim.group import INITIAL
from graphjit.optim.lr_scheduler.base import LRScheduler
from graphjit.optim.lr_scheduler.plateau import ReduceLROnPlateau
from graphjit.optim.optimizer import Optimizer


class SequentialLR(LRScheduler):
    """One schedule up to each milestone, then the next one from its beginning.

    Args:
        optimizer: that of all schedules.
        schedulers: the schedules. milestones: the epochs at which the next one takes over, one less.

    >>> import graphjit as gj
    >>> from graphjit.optim import lr_scheduler
    >>> opt = gj.optim.SGD([gj.nn.Parameter([1.0])], lr=0.5)
    >>> warm = lr_scheduler.LinearLR(opt, start_factor=0.5, total_iters=2)
    >>> decay = lr_scheduler.ExponentialLR(opt, gamma=0.5)
    >>> scheduler = lr_scheduler.SequentialLR(opt, [warm, decay], milestones=[3])
    >>> rates = [opt.lr]
    >>> for epoch in range(4):
    ...     scheduler.step(); rates.append(opt.lr)
    >>> rates
    [0.25, 0.375, 0.5, 0.5, 0.25]
    """

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int]) -> None:
        schedulers, milestones = list(schedulers), list(milestones)
        if not schedulers or len(milestones) != len(schedulers) - 1:
            raise ArgumentError(f"SequentialLR takes a milestone between each two of its schedules, not "
                                f"{len(milestones)} for {len(schedulers)}")
        if any(not isinstance(s, LRScheduler) or isinstance(s, ReduceLROnPlateau) or s.optimizer is not optimizer
               for s in schedulers):
            raise ArgumentError("SequentialLR takes schedules of its own optimizer that ask for no metric")
        if milestones != sorted(milestones):
            raise ArgumentError(f"SequentialLR: the milestones {milestones} do not rise")
        self._schedulers = schedulers
        self._milestones = milestones
        super().__init__(optimizer)

    def _begin(self) -> None:
        self._write([group[INITIAL] for group in self.optimizer.param_groups])  # undo what making them did
        self._restart()

    def _restart(self) -> None:
        self.last_epoch = 0
        self._take_over(self._schedulers[bisect_right(self._milestones, 0)])

    def _take_over(self, scheduler: LRScheduler) -> None:
        scheduler._restart()
        self._last_lr = scheduler.get_last_lr()

    def step(self) -> None:
        """One epoch further, in the schedule whose turn it is."""
        place = bisect_right(self._milestones, self.last_epoch + 1)
        scheduler = self._schedulers[place]
        if place and self._milestones[place - 1] == self.last_epoch + 1:
            self._take_over(scheduler)
        else:
            scheduler.step()
        self.last_epoch += 1
        self._last_lr = scheduler.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """As that of every schedule, with those of the parts in a list."""
        return {**super().state_dict(), "_schedulers": [s.state_dict() for s in self._schedulers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what ``state_dict()`` gave, in all parts.

        Raises:
            ArgumentError: another number of parts, or one that does not fit.
        """
        parts = state_dict.get("_schedulers", ())
        if len(parts) != len(self._schedulers):
            raise ArgumentError(f"a state_dict of {len(parts)} schedules does not fit {len(self._schedulers)}")
        schedulers = self._schedulers
        for scheduler, part in zip(schedulers, parts, strict=True):
            scheduler.load_state_dict(part)
        super().load_state_dict({**state_dict, "_schedulers": schedulers})
