"""What the programs of one compiled function share."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from graphjit.runtime.compiler import compile_count, load_count


@dataclass(slots=True)
class Kernels:
    """How many kernels were compiled and taken from the disk, and the seconds that making programs of them took."""

    compiled: int = 0
    loaded: int = 0
    seconds: float = 0.0

    def add(self, more: Kernels) -> None:
        self.compiled += more.compiled
        self.loaded += more.loaded
        self.seconds += more.seconds


class Shared:
    """What they share.

    Attributes:
        keep_grads: whether gradients left by the function are results.
        written: holds when it last wrote its states (see ``Value.writers``).
        lock: held by the program that runs, where there is state.
        kernels: those its programs asked for that were new to the process.
    """

    def __init__(self, keep_grads: bool) -> None:
        self.keep_grads = keep_grads
        self.written = [0]
        self.lock = threading.Lock()
        self.kernels = Kernels()

    @contextmanager
    def counting(self) -> Iterator[Kernels]:
        """Count the kernels that are made inside."""
        found = Kernels()
        compiled, loaded, begin = compile_count(), load_count(), time.perf_counter()
        try:
            yield found
        finally:
            found.compiled, found.loaded = compile_count() - compiled, load_count() - loaded
            found.seconds = time.perf_counter() - begin
            self.kernels.add(found)
