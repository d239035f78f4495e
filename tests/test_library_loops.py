"""Loop templates of the library ops, run as plain Python: the eager rule's result, however the loop is split.

(That they compile, and give the same compiled, is tested by ``test_table.py``.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphjit.codegen.axis_loops import AXIS_BUILDERS
from graphjit.codegen.channel_loops import CHANNEL_BUILDERS
from graphjit.codegen.library_loops import BUILDERS, build
from graphjit.codegen.region_loops import REGION_BUILDERS
from graphjit.codegen.window_loops import WINDOW_BUILDERS
from graphjit.kernels.scalar import PYTHON_NAMESPACE
from graphjit.op import TABLE
from graphjit.types import TensorType

DTYPES = ("int8", "int64", "uint8", "uint64", "float32", "float64")


def some(dtype: str, *shape: int) -> Any:
    rng = np.random.default_rng(len(shape) + sum(shape))
    if dtype.startswith("float"):
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(0 if dtype[0] == "u" else -9, 9, shape).astype(dtype)


def places(n: int, count: int) -> Any:
    return np.random.default_rng(n).integers(0, n, count)


def cases(dtype: str) -> list[tuple[str, list[Any], dict[str, Any]]]:
    x = some(dtype, 3, 4, 70)
    ties = some(dtype, 3, 4, 70) // 3
    if dtype.startswith("float"):
        ties[0, 1, 3] = ties[0, 2, 3] = ties[2, 3, 60] = np.nan
    out: list[tuple[str, list[Any], dict[str, Any]]] = [
        ("matmul", [some(dtype, 3, 4), some(dtype, 4, 5)], {}),
        ("matmul", [some(dtype, 2, 1, 3, 4), some(dtype, 2, 4, 5)], {}),
        ("matmul", [some(dtype, 3, 0), some(dtype, 0, 2)], {}),
    ]
    for axis in range(3):
        i = places(x.shape[axis], 9)
        src = some(dtype, *(9 if k == axis else n for k, n in enumerate(x.shape)))
        out += [("scatter_add", [x, i, src], {"axis": axis}), ("scatter_set", [x, i, src], {"axis": axis}),
                ("take_grad", [i, src], {"axis": axis, "size": x.shape[axis]}),
                ("take_grads", [i, src, i[::-1].copy(), src], {"axis": axis, "size": x.shape[axis]}),
                ("argmax", [ties], {"axis": axis, "keepdims": False}),
                ("argmin", [ties], {"axis": axis, "keepdims": True}),
                ("largest", [ties], {"axis": axis, "k": 3}), ("cumsum", [x], {"axis": axis}),
                ("cumsum", [x], {"axis": axis, "reverse": True}),
                ("cumprod", [x], {"axis": axis})]
    for shape in ((6, 3), (6,), (6, 2, 50), (6, 70)):
        weights = [some(dtype, 9)] * dtype.startswith("float")
        out += [("added_rows", [places(4, 9), some(dtype, *shape), places(6, 9)], {"size": 4}),
                ("added_rows", [places(4, 9), some(dtype, *shape), places(6, 9), *weights], {"size": 4})]
    if dtype.startswith("float"):
        parts = [some(dtype, 5, 9), some(dtype, 4, 3), some(dtype, 7, 8)]
        out.append(("add_regions", parts, {"size": (7, 9), "starts": ((1, 0), (3, 5), (0, 1)),
                                           "factors": (1.0, -1.0, 2.5)}))
        out.append(("add_regions", [some(dtype, 9000), some(dtype, 50)], {"size": (9001,), "starts": ((1,), (4070,)),
                                                                           "factors": (-2.0, 1.0)}))
    if not dtype.startswith("float"):
        out.append(("check_index", [some(dtype, 3, 4)], {"size": 9}))
    how: dict[str, Any]
    for size, kernel, how in (
        ((9,), (3,), {"stride": (1,), "padding": ((0, 0),), "dilation": (1,), "groups": 1}),
        ((9,), (3,), {"stride": (3,), "padding": ((4, 2),), "dilation": (2,), "groups": 2}),
        ((7, 8), (3, 2), {"stride": (2, 1), "padding": ((1, 1), (0, 3)), "dilation": (1, 2), "groups": 2}),
    ):
        image, weight = some(dtype, 2, 4, *size), some(dtype, 6, 4 // how["groups"], *kernel)
        g = some(dtype, *TABLE["conv"].eager(image, weight, **how).shape)
        out += [("conv", [image, weight], how), ("conv_input_grad", [g, weight], {"size": size, **how}),
                ("conv_weight_grad", [g, image], {"kernel": kernel, **how})]
    for size, how in (
        ((9,), {"kernel": (2,), "stride": (2,), "padding": ((0, 0),), "dilation": (1,)}),
        ((7, 8), {"kernel": (3, 2), "stride": (2, 1), "padding": ((1, 1), (1, 2)), "dilation": (1, 1)}),
        ((7, 8), {"kernel": (2, 3), "stride": (1, 2), "padding": ((1, 1), (2, 0)), "dilation": (2, 2)}),
    ):
        image = some(dtype, 2, 3, *size) // 3
        if dtype.startswith("float"):
            image[0, 0, 0], image[1, 1] = np.nan, -np.inf
        g = some(dtype, *TABLE["max_pool"].eager(image, **how).shape)
        plain = {k: v for k, v in how.items() if k != "dilation"}
        h = some(dtype, *TABLE["sum_pool"].eager(some(dtype, 2, 3, *size), **plain).shape)
        pools = [("max_pool", [image], how), ("max_pool_grad", [image, g], how),
                ("max_pool_pick", [image, some(dtype, *image.shape)], how),
                ("sum_pool", [some(dtype, *image.shape)], plain), ("sum_pool_grad", [h], {"size": size, **plain})]
        out += pools
        if dtype.startswith("float"):
            folded = {"size": size, **how}
            out.append(("overlap_add_last", [some(dtype, 2, *g.shape[2:], *how["kernel"], 3)], folded))
        out += [(f"{op}_last", [np.ascontiguousarray(np.moveaxis(a, 1, -1)) for a in arrays], params)
                for op, arrays, params in pools]
    return out


def run(op: str, arrays: list[Any], params: dict[str, Any], split: bool) -> tuple[Any, int]:
    """The result of the loop, and the status word."""
    found = TABLE[op].infer(*(TensorType(a.shape, a.dtype) for a in arrays), **params)
    call = build(op, tuple(TensorType(a.shape, a.dtype) for a in arrays), found, params)
    assert call is not None
    assert len(call.args) == len(call.values)
    out, status = np.full(found.shape, 77, found.dtype), np.zeros(1, np.int64)
    buffers = {f"in{i}": np.ascontiguousarray(a).reshape(-1) for i, a in enumerate(arrays)}
    buffers |= {"out": out.reshape(-1), "status": status}
    if call.room:
        buffers["room"] = np.full(call.room // 8, np.nan).view(call.args[call.values.index("room")][1:])
    for code, value in zip(call.args, call.values, strict=True):
        assert code == (f"*{buffers[value].dtype.name}" if isinstance(value, str) else "int64"
                        if isinstance(value, int) else found.dtype.name)
    namespace = dict(PYTHON_NAMESPACE)
    exec(call.source, namespace)
    values = [buffers[v] if isinstance(v, str) else v for v in call.values]
    with np.errstate(all="ignore"):
        for i in range(call.extent) if split else (0,):
            namespace[call.name](*values, i, i + 1 if split else call.extent)  # type: ignore[operator]
    return out, int(status[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_loops_give_what_the_eager_rules_give(dtype: str) -> None:
    seen = set()
    for op, arrays, params in cases(dtype):
        with np.errstate(all="ignore"):
            wanted = TABLE[op].eager(*arrays, **params)
        whole, status = run(op, arrays, params, split=False)
        parts, _ = run(op, arrays, params, split=True)
        np.testing.assert_allclose(whole, wanted, rtol=2e-5, atol=2e-5 if dtype == "float32" else 1e-12)
        np.testing.assert_array_equal(parts, whole, err_msg=op)
        assert status == 0
        seen.add(op)
    floats = dtype.startswith("float")
    every = {*BUILDERS, *REGION_BUILDERS, *AXIS_BUILDERS, *WINDOW_BUILDERS, *CHANNEL_BUILDERS}
    assert seen == every - ({"check_index"} if floats else {"overlap_add_last", "add_regions"})


@pytest.mark.parametrize(("dtype", "index", "size", "bad"), [
    ("int64", 5, 5, True), ("int64", -6, 5, True), ("int64", -5, 5, False), ("int64", -2**63, 5, True),
    ("uint64", 2**64 - 1, 5, True), ("uint64", 4, 5, False), ("int8", -128, 128, False), ("uint8", 255, 255, True),
    ("int32", 0, 0, True)])
def test_check_index_reports(dtype: str, index: int, size: int, bad: bool) -> None:
    out, status = run("check_index", [np.array([index], dtype)], {"size": size}, split=False)
    assert status == bad
    assert out[0] == (0 if bad else index % size)


def test_another_batch_is_the_same_kernel() -> None:
    def sources(n: int) -> list[str]:
        out = []
        for op, arrays, params in cases("float32"):
            if op in ("conv", "max_pool", "sum_pool", "matmul"):
                arrays = [np.repeat(arrays[0], n, 0), *arrays[1:]]
                kinds = tuple(TensorType(a.shape, a.dtype) for a in arrays)
                if op == "matmul" and arrays[0].ndim > 2:
                    continue
                call = build(op, kinds, TABLE[op].infer(*kinds, **params), params)
                assert call is not None
                out.append(call.source)
        return out

    assert sources(1) == sources(3)


def test_an_op_without_a_loop_has_none() -> None:
    kind = TensorType((2, 2), np.dtype("float32"))
    assert build("inv", (kind,), kind, {}) is None

