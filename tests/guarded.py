"""Memory that notices when it is left."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from typing import Any

import numpy as np

PAGE = mmap.PAGESIZE


def guarded(nbytes: int, at_end: bool) -> np.ndarray[Any, Any]:
    """Bytes between two unreadable pages: they end where the second begins, or begin where the first ends."""
    pages = -(-max(nbytes, 1) // PAGE)
    region = mmap.mmap(-1, (pages + 2) * PAGE)
    whole = np.frombuffer(region, np.uint8)
    if sys.platform == "linux":
        mprotect = ctypes.CDLL(None, use_errno=True).mprotect
        for page in (0, pages + 1):
            address = whole.ctypes.data + page * PAGE
            assert mprotect(ctypes.c_void_p(address), ctypes.c_size_t(PAGE), 0) == 0, os.strerror(ctypes.get_errno())
    start = (pages + 1) * PAGE - nbytes if at_end else PAGE
    return whole[start : start + nbytes]
