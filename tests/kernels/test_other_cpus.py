"""Matrix products and elementary functions as they are made for other CPUs than this one."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest

ROOT = Path(__file__).resolve().parents[2]


PRODUCTS = ["tests/kernels/test_gemm.py", "tests/kernels/test_segments.py", "-k", "not any_product"]
FUNCTIONS = ["tests/kernels/test_vmath.py", "-k", "edges or (wherever and not gamma)"]


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the CPUs named are x86")
@pytest.mark.parametrize("chosen", [PRODUCTS, FUNCTIONS], ids=["products", "functions"])
@pytest.mark.parametrize(("cpu", "needs"), [("nehalem", "sse4.2"), ("haswell", "avx2"), ("skylake-avx512", "avx512vl")])
def test_kernels_for_another_cpu(cpu: str, needs: str, chosen: list[str], tmp_path: Path) -> None:
    if not llvm.get_host_cpu_features().get(needs):
        pytest.skip(f"this CPU has no {needs}")
    run = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *chosen],
                         cwd=ROOT, capture_output=True, text=True, check=False,
                         env={**os.environ, "NUMBA_CPU_NAME": cpu, "GRAPHJIT_CACHE_DIR": str(tmp_path)})  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
