"""Never stale: whatever a compiled function depends on is changed, and the next call is right.

Each test compares the compiled function with the function itself, before the change and after it.
"""

from __future__ import annotations

import numpy as np

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


def agree(compiled, *args):
    """Call the function compiled and as it is; both must give the same. For functions without state."""
    found = np.asarray(compiled(*args))
    want = np.asarray(compiled.function(*args))
    np.testing.assert_allclose(found, want, rtol=1e-6, atol=1e-6)
    return found


def changes(compiled, change, *args):
    """The result follows a change, and follows it back to where nothing changes any more."""
    before = agree(compiled, *args)
    change()
    after = agree(compiled, *args)
    assert before.shape != after.shape or not np.allclose(before, after), "the change should show"
    traces = compiled.trace_count
    agree(compiled, *args)
    assert compiled.trace_count == traces, "a third call traces nothing"
    return traces
