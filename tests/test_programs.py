"""Random programs: compiled equals eager, and each stage of the compiler keeps the meaning.

GRAPHJIT_FUZZ=2000 sets the number of programs (about 200 together otherwise), drawn anew each time.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs import SEED, Program, mismatch, programs

import graphjit as gj
from graphjit.ir import interpret, verify
from graphjit.passes.pipeline import PIPELINE
from graphjit.trace import Trace, tracing
from graphjit.tensor import Tensor, _read
from graphjit.types import TensorType
from graphjit.tree import flatten

FUZZ = int(os.environ.get("GRAPHJIT_FUZZ", "0"))


def examples(share: float) -> Any:
    """Settings for a test that takes this share of the programs."""
    return settings(max_examples=max(1, int((FUZZ or 200) * share)), derandomize=not FUZZ, deadline=None,
                    database=None, suppress_health_check=list(HealthCheck))


def arrays(result: Any) -> list[np.ndarray[Any, Any]]:
    return [np.array(t.data) for t in flatten(result)[0]]


def assert_same(what: str, got: list[Any], eager: list[Any], wide: list[Any]) -> None:
    assert len(got) == len(eager) == len(wide)
    wrong = [mismatch(f"{what} {i}", *three) for i, three in enumerate(zip(got, eager, wide, strict=True))]
    assert not any(wrong), "\n".join(filter(None, wrong))


@examples(0.5)
@given(programs())
def test_compiled_equals_eager_with_gradients(program: Program) -> None:
    eager = arrays(program.with_gradients()(*program.arguments()))
    wide = arrays(program.with_gradients(wide=True)(*program.arguments(wide=True)))
    compiled = gj.compile(program.with_gradients())
    assert_same("result", arrays(compiled(*program.arguments())), eager, wide)
