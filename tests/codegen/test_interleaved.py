"""Transposed convolutions to few channels: neighbours of all kinds in one product."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from agreeing import Array, agree

import graphjit as gj
import graphjit.nn.functional as F
from graphjit.codegen.call import KernelCall
from graphjit.kernels.target import target


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("channels", [1, 2, 3, 5, 8])
def test_transposed_convolutions_to_few_channels_agree(channels: int, dtype: str) -> None:
    rng = np.random.default_rng(channels)
    functions: list[Callable[..., Any]] = []
    arrays: list[list[Array]] = []
    for rank, kernel, stride, padding in [(1, 4, 2, 1), (1, 3, 2, 1), (1, 5, 3, 2), (1, 2, 4, 0), (2, 4, 2, 1),
                                          (2, 3, 2, 0), (2, (4, 3), (2, 3), (1, 0)), (2, (3, 4), (1, 2), (1, 1)),
                                          (2, 2, 2, 0)]:
        f = F.conv_transpose1d if rank == 1 else F.conv_transpose2d
        how = {"stride": stride, "padding": padding}
        functions.append(lambda x, w, f=f, how=how: f(x, w, **how))
        window = (kernel,) * rank if isinstance(kernel, int) else kernel
        arrays.append([rng.normal(size=(2, 4, *(5, 6)[:rank])).astype(dtype),
                       rng.normal(size=(4, channels, *window)).astype(dtype)])
    agree(functions, arrays, 2e-5 if dtype == "float32" else 1e-11)


def test_all_neighbours_of_few_channels_are_one_product() -> None:
    def products(channels: int, stride: int) -> list[str]:
        f = gj.compile(lambda x, w: F.conv_transpose2d(x, w, stride=stride, padding=1))
        f(np.ones((2, 16, 8, 8), np.float32), np.ones((16, channels, 4, 4), np.float32))
        return [s.title for s in f.latest.program.steps if isinstance(s, KernelCall) and "input_grad" in s.title]
    lanes = target().lanes(4)
    assert len(products(lanes // 4, 2)) == 1 and products(lanes // 4, 2)[0].endswith(f"x{lanes}")
    assert len(products(lanes // 2, 2)) == 2 and len(products(lanes, 2)) == 4
