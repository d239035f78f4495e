"""How many threads a kernel may be split over, and the pool of workers."""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import threading
from pathlib import Path

import numpy as np

from graphjit.errors import ArgumentError
from graphjit.runtime.driver import worker
from graphjit.runtime.sharing import (
    CALLER,
    LIMIT,
    LINE,
    LOCK,
    OWNER,
    PART,
    RELEASE,
    STOPPED,
    THREADS,
    TIMES,
    TRY,
    words,
)

_chosen: list[int] = []


def get_num_threads() -> int:
    """The number of threads kernels may run on: what was set, else ``GRAPHJIT_NUM_THREADS``, else one for
    each CPU this process may use, by its affinity mask and by the limit of its container.

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
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(found, container_cpus(Path("/sys/fs/cgroup")) or found)


@functools.cache
def container_cpus(root: Path) -> int:
    """How many CPUs' time the control group at ``root`` may take, at least 1; 0 without a limit.

    Threads beyond it would use up its time in a part of each period, and stand still for the rest.
    """
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return max(1, int(quota) // int(period)) if int(quota) > 0 else 0
    except (OSError, ValueError, ZeroDivisionError):  # "max"; another system
        return 0


def set_num_threads(n: int) -> None:
    """Let kernels run on at most this many threads. Results do not depend on it.

    Raises:
        ArgumentError: n is not a whole number from 1 up.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ArgumentError(f"the number of threads is a whole number from 1 up, not {n!r}")
    _chosen[:] = [n]
    look_again()


class Pool:
    """Worker threads that help one program at a time.

    They run native code, without the GIL (see ``working``). A program never waits for one that has not begun.
    """

    PATIENCE = 50_000  # looks of 10 to 50 ns: a pause is longer on some CPUs
    TIMES = 4          # as long as what it lost a worker rests at least, see ``working``

    def __init__(self, threads: int) -> None:
        self.threads = threads
        memory = np.zeros(words(threads) + LINE, np.int64)
        self.block = memory[-memory.ctypes.data // 8 % LINE:][:words(threads)]  # from the start of a line
        self.address: int = self.block.ctypes.data
        self.free = threading.Lock()    # held by the program that uses the pool
        # what native code asks by (see ``call_parts``): these objects live as long as the pool
        self._asked = functools.partial(self.free.acquire, False), self.free.release
        for at, it in zip((OWNER, TRY, RELEASE), (self, *self._asked), strict=True):
            self.block[at] = id(it)
        self.block[THREADS], self.block[TIMES] = threads, self.TIMES
        self._locks = [_lock() for _ in range(threads)]
        self.block[CALLER], self.block[PART + LOCK::LINE] = self._locks[0], self._locks
        self._workers = [threading.Thread(target=self._work, args=(i,), daemon=True, name=f"graphjit-{i}")
                         for i in range(1, threads)]
        for w in self._workers:
            w.start()

    def _work(self, number: int) -> None:
        worker()(self.address, number, self.PATIENCE, 0)

    def ask(self, limit: int) -> int:
        """The address of the control block for one program, whose threads are numbered below ``limit``.

        0 if the pool is in use. Give it back with ``free.release()``.
        """
        if not self.free.acquire(blocking=False):
            return 0
        self.block[LIMIT] = min(limit, self.threads)
        return self.address

    def stop(self) -> None:
        """End the workers."""
        self.block[STOPPED] = 1
        for lock in self._locks[1:]:
            ctypes.pythonapi.PyThread_release_lock(ctypes.c_void_p(lock))
        for w in self._workers:
            w.join(timeout=1.0)

    def __del__(self) -> None:  # no worker runs any more: it would hold a reference
        for lock in self._locks:
            ctypes.pythonapi.PyThread_free_lock(ctypes.c_void_p(lock))


def _lock() -> int:
    """A lock of CPython's, which native code takes and gives back without the GIL; it is taken."""
    make = ctypes.pythonapi.PyThread_allocate_lock
    make.restype = ctypes.c_void_p
    lock: int = make()
    ctypes.pythonapi.PyThread_acquire_lock(ctypes.c_void_p(lock), 1)
    return lock


_pools: list[Pool] = []      # one at most
_making = threading.RLock()  # held while it is found; a signal's handler may ask for it, too
desk = np.zeros(1, np.int64)  # where native code finds its control block; 0: pool() has to look which it is


def pool() -> Pool | None:
    """The pool of this process for the number of threads wanted now; None for one thread.

    What the environment and the system say of that number is looked at when programs are made, not for each call.
    """
    with _making:
        if not desk[0]:
            wanted = get_num_threads()
            if wanted == 1:
                return None
            if not _pools or _pools[0].threads != wanted:
                _stop_all()
                _pools.append(Pool(wanted))
            desk[0] = _pools[0].address
        return _pools[0]


def look_again() -> None:
    """The number of threads may have changed."""
    with _making:
        desk[0] = 0


def _stop_all() -> None:
    with _making:
        desk[0] = 0
        for p in _pools:
            p.stop()
        _pools.clear()


def _forget() -> None:
    """In a forked child: its parent's workers do not exist here."""
    global _making
    _making = threading.RLock()
    desk[0] = 0
    _pools.clear()


atexit.register(_stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
