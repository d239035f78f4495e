"""Batches made ahead of their use by a background thread."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from queue import Empty, Queue
from typing import Any

from graphjit.errors import GraphjitError, user_line


class Prefetched(Iterator[Any]):
    """The items of an iterator, up to ``depth`` of them made ahead by a thread, in the same order.

    What the iterator raises is raised by ``next`` in its place. The thread starts with the first ``next`` and ends
    with the last item, an error, ``close()``, when the iterator is let go of (leaving a loop early does that), or
    when the program ends.
    """

    def __init__(self, items: Iterator[Any], depth: int) -> None:
        self._queue: Queue[tuple[Any, BaseException | None]] = Queue(depth)
        stop = threading.Event()
        # daemon: a program whose main thread died does not wait for it. It holds no reference to this object.
        self._thread = threading.Thread(target=_produce, args=(items, self._queue, stop), daemon=True,
                                        name="graphjit prefetch")
        self._started = False
        # called once: by close(), when this object is collected, or at the end of the program
        self._end = weakref.finalize(self, _end, self._queue, stop, self._thread)

    def __next__(self) -> Any:
        if not self._end.alive:
            raise StopIteration
        if not self._started:
            self._started = True
            self._thread.start()
        item, error = self._queue.get()
        if error is None:
            return item
        self.close()
        if isinstance(error, GraphjitError) and error.where and error.where.file == threading.__file__:
            error.where = user_line()  # the background thread has no line of the user's program
        raise error

    def close(self) -> None:
        """End the thread; there are no further items."""
        self._end()


def _produce(items: Iterator[Any], queue: Queue[tuple[Any, BaseException | None]], stop: threading.Event) -> None:
    try:
        for item in items:
            queue.put((item, None))
            if stop.is_set():
                return
    except BaseException as error:
        queue.put((None, error))
    else:
        queue.put((None, StopIteration()))


def _end(queue: Queue[Any], stop: threading.Event, thread: threading.Thread) -> None:
    stop.set()
    try:
        while True:  # room for the one item the thread may be waiting to hand over
            queue.get_nowait()
    except Empty:
        pass
    # collected by the thread itself, when that happens to run the garbage collector
    if thread.is_alive() and thread is not threading.current_thread():
        thread.join()
