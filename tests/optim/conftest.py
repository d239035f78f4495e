"""Both modes of a test: the function as it is, and compiled."""

from collections.abc import Callable
from typing import Any

import pytest

import graphjit as gj


@pytest.fixture(params=["eager", "compiled"])
def mode(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Gives a function back as it is, or compiled."""
    return gj.compile if request.param == "compiled" else lambda f: f
