"""How many threads a kernel may be split over."""

from __future__ import annotations

import os

from graphjit.errors import ArgumentError

_chosen: list[int] = []


def get_num_threads() -> int:
    """The number of threads kernels may run on: what was set, else ``GRAPHJIT_NUM_THREADS``, else one for
    each CPU this process may use.

    Raises:
        ArgumentError: ``GRAPHJIT_NUM_THREADS`` is not a whole number from 1 up.
    """
    if _chosen:
        return _chosen[0]
    text = os.environ.get("GRAPHJIT_NUM_THREADS", "")
    if text:
        if not text.isdecimal() or int(text) < 1:
            raise ArgumentError(f"GRAPHJIT_NUM_THREADS is a whole number from 1 up, not {text!r}")
        return int(text)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_num_threads(n: int) -> None:
    """Let kernels run on at most this many threads. Results do not depend on it.

    Raises:
        ArgumentError: n is not a whole number from 1 up.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ArgumentError(f"the number of threads is a whole number from 1 up, not {n!r}")
    _chosen[:] = [n]
