"""Matrix products against the FMA peak of one core, OpenBLAS and np.matmul, all timed in turn in the same run.

    OPENBLAS_NUM_THREADS=1 taskset -c 1 python -m benchmarks.gemm            the shapes we have targets for
    ... python -m benchmarks.gemm sweep                                       many sizes, the ratio to OpenBLAS
    ... python -m benchmarks.gemm 64x784x128 256x2048x2048/T/float64          m x k x n [/B form][/dtype]

"% of FMA" is the share of the peak of fused multiply-adds; products on a tile unit can do better than that.
Times are the best of many short bursts, ratios medians over bursts side by side; the sweep measures what comes out
slower twice more, and takes the median. B's form is N (rows contiguous) or T (transposed); A's likewise, as in
784x64x128/TN.
"""

import ctypes
import gc
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir

from graphjit.kernels.emit import F32, F64, I32, I64, Int, loop
from graphjit.kernels.gemm import plan
from graphjit.kernels.target import target
from graphjit.runtime.compiler import IRKernel, compile_kernels
from graphjit.runtime.roofline import fma_kernel

SLOWER = 0.95  # speed over OpenBLAS of what the sweep names
ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


@dataclass(frozen=True)
class Case:
    m: int
    k: int
    n: int
    forms: str = "NN"
    dtype: Any = np.float32
    batch: int = 0
    epilogue: str = "store"

    @property
    def name(self) -> str:
        batch = f"{self.batch} x " if self.batch else ""
        forms = "" if self.forms == "NN" else f" {self.forms}"
        dtype = "" if self.dtype == np.float32 else " f64"
        epilogue = "" if self.epilogue == "store" else f" {self.epilogue}"
        return f"{batch}{self.m}x{self.k}x{self.n}{forms}{dtype}{epilogue}"

    @property
    def flops(self) -> int:
        return 2 * self.m * self.n * self.k * max(self.batch, 1)


TARGETS = [
    Case(64, 784, 128), Case(784, 64, 128, "TN"), Case(64, 128, 784, "NT"), Case(256, 256, 256),
    Case(1024, 1024, 1024), Case(64, 32, 64, batch=32), Case(256, 2048, 2048), Case(2048, 256, 2048),
    Case(2048, 2048, 2048), Case(64, 128, 128), Case(64, 128, 10), Case(128, 64, 10, "TN"), Case(32, 64, 10),
    Case(64, 10, 128, "NT"), Case(100, 2, 16), Case(37, 53, 29), Case(64, 784, 128, epilogue="bias_relu"),
    Case(1, 784, 128), Case(1, 128, 784, "NT"), Case(784, 128, 1), Case(1000, 1000, 1), Case(1000, 1000, 1, "TN"),
    Case(256, 256, 256, "NT"), Case(256, 256, 256, "TN"), Case(1024, 1024, 1024, "NT"), Case(1024, 1024, 1024, "TN"),
    Case(256, 256, 256, dtype=np.float64), Case(1024, 1024, 1024, dtype=np.float64),
]  # fmt: skip


def aligned(nbytes: int) -> np.ndarray:
    raw = np.zeros(nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + nbytes]


def operand(batch: int, rows: int, cols: int, form: str, dtype: Any) -> np.ndarray:
    shape = (batch, rows, cols) if form == "N" else (batch, cols, rows)
    x = aligned(int(np.prod(shape)) * np.dtype(dtype).itemsize).view(dtype).reshape(shape)
    x[...] = np.random.default_rng(0).standard_normal(shape)
    return x if form == "N" else x.swapaxes(1, 2)


# ---- the three in a loop of machine code --------------------------------------------------------------------


def repeated(kernel: IRKernel, values: Sequence[int], extent: int, keep: Any = ()) -> Callable[[int], None]:
    """run(n): n calls of a kernel, without Python between them."""
    address, again = compile_kernels([kernel, _AGAIN])
    slots = np.array(values, np.int64)
    outer = np.array([address, slots.ctypes.data, extent], np.int64)
    call, at = ENTRY(again), outer.ctypes.data

    def run(count: int, _keep: Any = (slots, outer, keep)) -> None:
        call(at, 0, count)

    return run


def _emit_again(b: Any, values: Sequence[Any]) -> None:
    address, slots, extent, start, stop = values
    kind = ir.FunctionType(ir.VoidType(), [I64, I64, I64])
    with loop(Int(b, start), Int(b, stop)):
        b.call(b.inttoptr(address, kind.as_pointer()), [slots, I64(0), extent])


_AGAIN = IRKernel("again", ("benchmark",), 3, _emit_again)


def graphjit_runner(case: Case, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> Callable[[int], None]:
    batch, size = max(case.batch, 1), a.itemsize
    strides = [tuple(stride // size for stride in x.strides) for x in (a, b, c)]
    (az, am, ak), (bz, bk, bn), (cz, cm, cn) = strides
    gemm = plan(case.m, case.n, case.k, case.dtype, (am, ak), (bk, bn), (cm, cn), (batch,), (az,), (bz,), (cz,),
                epilogue=case.epilogue)
    workspace, bias = aligned(gemm.workspace), np.zeros(case.n, case.dtype)
    named = {"a": a, "b": b, "c": c, "workspace": workspace, "e0": bias}
    values = [named[slot].ctypes.data if isinstance(slot, str) else slot for slot in gemm.slots]
    return repeated(gemm.kernel, values, gemm.extent, (workspace, bias))


def blas_runner(case: Case, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> Callable[[int], None] | None:
    """cblas_?gemm of the OpenBLAS that NumPy brings along, called without NumPy's overhead."""
    libraries = list(Path(np.__file__).parent.parent.glob("numpy.libs/libscipy_openblas64_*"))
    if not libraries:
        return None
    number = F32 if case.dtype == np.float32 else F64
    letter = "s" if case.dtype == np.float32 else "d"
    gemm = getattr(ctypes.CDLL(str(libraries[0])), f"scipy_cblas_{letter}gemm64_")

    def emit(builder: Any, values: Sequence[Any]) -> None:
        kind = ir.FunctionType(ir.VoidType(), [I32] * 3 + [I64] * 3 + [number] + [I64] * 4 + [number] + [I64] * 2)
        address, ta, tb, m, n, k, lda, ldb, ldc, x, y, z, step_x, step_y, step_z, start, stop = values
        function = builder.inttoptr(address, kind.as_pointer())
        with loop(Int(builder, start), Int(builder, stop)) as i:
            at_x, at_y, at_z = (Int(builder, p) + Int(builder, step) * i
                                for p, step in ((x, step_x), (y, step_y), (z, step_z)))
            ta32, tb32 = (builder.trunc(t, I32) for t in (ta, tb))
            builder.call(function, [I32(101), ta32, tb32, m, n, k, number(1.0), at_x.value, lda, at_y.value, ldb,
                                    number(0.0), at_z.value, ldc])

    kernel = IRKernel(f"{letter}gemm", ("benchmark",), 15, emit)
    leading = [max(x.strides[1], x.strides[2]) // x.itemsize for x in (a, b, c)]
    values = [ctypes.cast(gemm, ctypes.c_void_p).value, *(111 if form == "N" else 112 for form in case.forms),
              case.m, case.n, case.k, *leading, *(x.ctypes.data for x in (a, b, c)), *(x.strides[0] for x in (a, b, c))]
    return repeated(kernel, values, max(case.batch, 1))


def peak_runner(dtype: Any) -> tuple[Callable[[int], None], int]:
    """Chains of multiply-adds in registers, and the operations of one call."""
    out = aligned(target().vector)
    kernel, flops = fma_kernel(np.dtype(dtype).itemsize)
    return repeated(kernel, [out.ctypes.data], 1, out), flops


# ---- timing -------------------------------------------------------------------------------------------------


def race(runners: Sequence[Callable[[int], None]], burst: float = 1.5e-4,
         budget: float = 0.3) -> tuple[float, list[float]]:
    """Best seconds of the first, and how many times longer each other one takes.

    They run in short bursts in turn, and the ratios are medians over bursts that are neighbours in time: the clock
    of a shared machine drifts by 10 % within seconds. Time is the thread's own, without that of others on its core.
    """

    def once(i: int) -> float:
        start = time.thread_time()
        runners[i](counts[i])
        return (time.thread_time() - start) / counts[i]

    counts = [1] * len(runners)
    for i in range(len(runners)):
        once(i)
        for _ in range(3):  # the first look is at one call through Python
            counts[i] = max(1, int(burst / max(once(i), 1e-9)))
    times: list[list[float]] = []
    gc.disable()
    end = time.perf_counter() + budget * len(runners)
    while time.perf_counter() < end or len(times) < 7:
        times.append([once(i) for i in range(len(runners))])
    gc.enable()
    table = np.array([row for row in times if all(row)])  # the clock of a thread may stand still for a moment
    return float(table[:, 0].min()), [float(np.median(column / table[:, 0])) for column in table[:, 1:].T]


@dataclass(frozen=True)
class Result:
    seconds: float
    peak: float  # share of the FMA peak
    blas: float  # time of OpenBLAS over ours
    numpy: float  # time of np.matmul over ours


def measure(case: Case, budget: float = 0.4) -> Result:
    batch = max(case.batch, 1)
    a = operand(batch, case.m, case.k, case.forms[0], case.dtype)
    b = operand(batch, case.k, case.n, case.forms[1], case.dtype)
    c = operand(batch, case.m, case.n, "N", case.dtype)
    ours, theirs = graphjit_runner(case, a, b, c), blas_runner(case, a, b, c)
    spare, x, y, z = np.empty_like(c), a, b, c
    if not case.batch:
        x, y, z, spare = a[0], b[0], c[0], spare[0]

    def matmul(count: int) -> None:
        for _ in range(count):
            np.matmul(x, y, out=spare)

    ours(1)
    matmul(1)
    if case.epilogue == "store":
        tolerance = 1e-5 if case.dtype == np.float32 else 1e-13
        np.testing.assert_allclose(z, spare, rtol=tolerance, atol=10 * tolerance * case.k**0.5)
    peak, flops = peak_runner(case.dtype)
    own, (limit, numpy, *blas) = race([ours, peak, matmul, *([theirs] if theirs else [])], budget=budget)
    return Result(own, case.flops / flops * limit, blas[0] if blas else float("nan"), numpy)


def parse(text: str) -> Case:
    shape, *rest = text.split("/")
    m, k, n = map(int, shape.split("x"))
    forms = next((part for part in rest if set(part) <= set("NT")), "NN")
    dtype = next((np.dtype(p).type for p in rest if p.startswith("float")), np.float32)
    return Case(m, k, n, forms.rjust(2, "N"), dtype)


def table(cases: Sequence[Case]) -> None:
    print(f"{'m x k x n':28} {'us':>9} {'GF/s':>7} {'% of FMA':>9} {'OpenBLAS':>9} {'np.matmul':>9}"
          "   (their time / ours)")
    for case in cases:
        r = measure(case)
        print(f"{case.name:28} {r.seconds * 1e6:9.2f} {case.flops / r.seconds / 1e9:7.1f} {100 * r.peak:8.1f}% "
              f"{r.blas:8.2f}x {r.numpy:8.2f}x", flush=True)


def sweep() -> None:
    sizes = [1, 2, 3, 4, 5, 7, 8, 10, 13, 16, 17, 24, 31, 32, 33, 48, 50, 64, 65, 96, 100, 127, 128, 150, 192, 200,
             255, 256, 257, 300]  # fmt: skip
    large = [64, 100, 128, 256, 500, 512, 784, 1000, 1024, 2048]
    rng = np.random.default_rng(1)
    slower = []
    for forms in ("NN", "TN", "NT"):
        cases = [Case(size, size, size, forms) for size in sizes]
        cases += [Case(*(int(x) for x in rng.choice(sizes, 3)), forms) for _ in range(40)]
        oblong = [Case(*(int(x) for x in rng.choice(large, 3)), forms) for _ in range(30)]
        cases += [case for case in oblong if case.flops < 1 << 31]
        cases += [Case(512, 512, 512, forms), Case(2048, 2048, 2048, forms)]
        ratios = []
        for case in cases:
            ratio = measure(case, budget=0.06).blas
            if ratio < SLOWER:  # or something else computed meanwhile, or operands lay badly: the median of three
                ratio = float(np.median([ratio, *(measure(case, budget=0.2).blas for _ in range(2))]))
            ratios.append(ratio)
            if ratio < SLOWER:
                slower.append((ratio, case.name))
        mean = np.exp(np.mean(np.log(ratios)))
        print(f"{forms}: {len(cases)} shapes, speed over OpenBLAS: geometric mean {mean:.2f}, "
              f"lowest {min(ratios):.2f}, median {np.median(ratios):.2f}", flush=True)
    for ratio, name in sorted(slower):
        print(f"  slower: {name:20} {ratio:.2f}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            table(TARGETS)
        case ["sweep"]:
            sweep()
        case names:
            table([parse(name) for name in names])
