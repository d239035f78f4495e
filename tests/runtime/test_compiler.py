"""Kernels are found by what they compute, compiled together, and give the same numbers however they came."""

import ctypes
import os
import subprocess
import sys
import threading
import types as python_types
from pathlib import Path

import numpy as np
import pytest
from llvmlite import ir

from graphjit.runtime import compiler, machine
from graphjit.runtime.compiler import (
    IRKernel,
    LoopKernel,
    compile_count,
    compile_kernels,
    load_count,
    pack_args,
)

ROOT = Path(__file__).resolve().parents[2]

AXPY = """
def {name}(x, y, a, start, stop):
    for i in range(start, stop):
        y[i] += a * x[i]
"""
AXPY_ARGS = ("*float32", "*float32", "float32")


@pytest.fixture(autouse=True, scope="module")
def no_disk():
    """These tests look at what is compiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHJIT_CACHE_DIR", "")
        yield


def loop(source, *args, name="f"):
    return LoopKernel(name, source, args)


def call(entry, values, codes, start, stop):
    slots = pack_args([v.ctypes.data if isinstance(v, np.ndarray) else v for v in values], codes)
    entry_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    entry_type(entry)(slots.ctypes.data, start, stop)


def axpy(name="axpy"):
    return LoopKernel(name, AXPY.format(name=name), AXPY_ARGS)


def python(script, **env):
    """Run a script in a new process; its output."""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60,
                            env={**os.environ, "PYTHONPATH": str(ROOT), **env})
    assert result.returncode == 0, result.stderr
    return result.stdout


# ---- what a kernel computes


def test_a_kernel_works_on_its_share_of_the_range():
    x, y = np.random.default_rng(0).standard_normal((2, 100), np.float32)
    want = y.copy()
    want[10:90] += np.float32(1.5) * x[10:90]
    call(*compile_kernels([axpy()]), (x, y, 1.5), AXPY_ARGS, 10, 90)
    np.testing.assert_allclose(y, want, atol=1e-6)  # multiplies and adds in one rounding


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
                                   "float32", "float64", "bool"])
def test_every_dtype_goes_through_memory_and_slots(dtype):
    kernel = loop("def f(x, y, a, start, stop):\n    for i in range(start, stop):\n"
                  "        y[2 * i] = x[i]\n        y[2 * i + 1] = a", f"*{dtype}", f"*{dtype}", dtype)
    big = {"b": True, "f": -1.5}.get(np.dtype(dtype).kind) or np.iinfo(dtype).min or np.iinfo(dtype).max
    x, y = np.array([big, 1, 0], dtype), np.empty(6, dtype)
    call(*compile_kernels([kernel]), (x, y, big), kernel.args, 0, 3)
    np.testing.assert_array_equal(y, np.array([big, big, 1, big, 0, big], dtype))


def test_nan_and_infinity_keep_their_meaning():
    kernel = loop("def f(x, y, start, stop):\n    for i in range(start, stop):\n"
                  "        y[i] = where(x[i] == x[i], x[i] - x[i], 7.0)", "*float64", "*float64")
    x, y = np.array([np.nan, np.inf, 1.0]), np.empty(3)
    call(*compile_kernels([kernel]), (x, y), kernel.args, 0, 3)
    np.testing.assert_array_equal(y, [7.0, np.nan, 0.0])


def test_division_by_zero_follows_numpy():
    kernel = loop("def f(x, y, start, stop):\n    for i in range(start, stop):\n"
                  "        y[i] = x[i] / y[i]", "*float64", "*float64")
    x, y = np.array([1.0, 0.0]), np.zeros(2)
    call(*compile_kernels([kernel]), (x, y), kernel.args, 0, 2)
    np.testing.assert_array_equal(y, [np.inf, np.nan])


def test_pack_args():
    values = [1 << 40, np.float32(1.5), -2.5, np.int8(-1), True, 7]
    slots = pack_args(values, ("*float32", "float32", "float64", "int8", "bool", "int64"))
    assert slots.dtype == np.int64
    assert slots[0] == 1 << 40 and slots[1] == 0x3FC00000 and slots[5] == 7
    assert slots.view(np.float64)[2] == -2.5 and slots[3] & 0xFF == 0xFF and slots[4] == 1
    assert pack_args((), ()).size == 1
    with pytest.raises(ValueError):
        pack_args([1], ())


# ---- identity


def test_equal_loops_are_one_kernel():
    commented = "# made for layer 3\n" + AXPY.format(name="layer3")
    commented = commented.replace("y[i] +=", "# train.py:14\n\n        y[i] +=")
    commented = commented.replace("x[i]\n", "x[i]  # model(x)\n")
    kernels = [axpy(), LoopKernel("layer3", commented, AXPY_ARGS), axpy("other")]
    first, second, third = compile_kernels(kernels)
    assert first == second == third


def test_different_loops_are_different_kernels():
    source = AXPY.format(name="axpy")
    kernels = [axpy(), LoopKernel("axpy", source, ("*float64", "*float64", "float64")),
               LoopKernel("axpy", source.replace("+=", "-="), AXPY_ARGS),
               LoopKernel("axpy", source.replace("range(start", "range(0"), AXPY_ARGS)]
    assert len(set(compile_kernels(kernels))) == 4


def test_what_is_known_is_not_compiled_again():
    kernels = [loop(f"def f(x, start, stop):\n    x[0] = {i}.5", "*float64") for i in (1, 2, 2)]
    before, loaded = compile_count(), load_count()
    first = compile_kernels(kernels)
    assert compile_count() == before + 2 and load_count() == loaded
    assert compile_kernels(kernels[::-1]) == first[::-1] and compile_count() == before + 2


def constant(value, name="constant"):
    """An IR kernel that stores a number where its slot points, through a helper function."""
    def emit(builder, values):
        helper = ir.Function(builder.module, ir.FunctionType(machine.I64, []), "helper")
        ir.IRBuilder(helper.append_basic_block()).ret(machine.I64(value))
        out, _, _ = values
        builder.store(builder.call(helper, []), builder.inttoptr(out, machine.I64.as_pointer()))

    return IRKernel(name, (value,), 1, emit)


def test_ir_kernels_may_name_their_helpers_alike():
    out = np.zeros(1, np.int64)
    for value, entry in zip((11, 12), compile_kernels([constant(11), constant(12)]), strict=True):
        call(entry, (out,), ("*int64",), 0, 0)
        assert out[0] == value


def test_threads_share_what_they_compile():
    kernels = [loop(f"def f(x, start, stop):\n    x[0] = {i}.25", "*float64") for i in range(3)]
    before, found = compile_count(), []
    threads = [threading.Thread(target=lambda: found.append(compile_kernels(kernels)))
               for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(each == found[0] for each in found) and compile_count() == before + 3


# ---- errors


@pytest.fixture
def internal_error(monkeypatch):
    """The error of graphjit.errors, or one like it."""
    try:
        from graphjit.errors import InternalCompilerError
    except ImportError:
        InternalCompilerError = type("InternalCompilerError", (Exception,), {})
        stub = python_types.ModuleType("graphjit.errors")
        stub.InternalCompilerError = InternalCompilerError
        monkeypatch.setitem(sys.modules, "graphjit.errors", stub)
    return InternalCompilerError


@pytest.mark.parametrize("kernel", [
    loop("def broken(x, start, stop):\n    x[0] = no_such_name", "*float64", name="broken"),
    loop("def broken(x, start, stop):\n    x[0] = [1.0] + x", "*float64", name="broken"),
    loop("def broken(x, start stop):", "*float64", name="broken"),
    IRKernel("broken", (), 1, lambda builder, values: builder.ret(values[0])),
    IRKernel("broken", (), 1, lambda builder, values: 1 / 0),
], ids=["name", "type", "syntax", "ir", "emitter"])
def test_a_kernel_that_does_not_compile_is_one_short_error(kernel, internal_error, monkeypatch, tmp_path):
    monkeypatch.setenv("GRAPHJIT_CACHE_DIR", str(tmp_path))
    before = compile_count()
    with pytest.raises(internal_error, match="broken") as caught:
        compile_kernels([kernel])
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert len(str(caught.value).splitlines()) <= 3 and compile_count() == before
    (path,) = tmp_path.glob("kernels/failed-broken-*.py")
    assert str(path) in str(caught.value) and "Traceback" in path.read_text()
    compile(path.read_text(), path, "exec")


def test_the_reproducer_reproduces(monkeypatch, tmp_path):
    monkeypatch.setenv("GRAPHJIT_CACHE_DIR", str(tmp_path))
    kernel = loop("def broken(x, start, stop):\n    x[0] = f32('''a\\n''')", "*float32", name="broken")
    path = Path(compiler._save_reproducer(kernel, ValueError("first\nsecond")))
    made = []
    monkeypatch.setattr(compiler, "compile_kernels", made.extend)
    exec(path.read_text(), {})
    assert made == [kernel]


def test_an_unknown_symbol_is_an_error_not_the_end_of_the_process(internal_error):
    def emit(builder, values):
        unknown = ir.Function(builder.module, ir.FunctionType(ir.VoidType(), []), "graphjit_no_such_function")
        builder.call(unknown, [])

    with pytest.raises(internal_error, match="graphjit_no_such_function"):
        compile_kernels([IRKernel("dangling", (), 0, emit)])


# ---- other processes

SCRIPT = """
import ctypes, sys
import numpy as np
from llvmlite import ir
from graphjit.runtime import compiler, machine

SOURCE = '''
def f(x, y, start, stop):
    for i in range(start, stop):
        y[4 * i + 1] = pow_(x[i], x[i])
'''

def emit_fmod(builder, values):
    x, y, start, _ = values
    double = ir.DoubleType().as_pointer()
    x, y = (builder.gep(builder.inttoptr(p, double), [start]) for p in (x, y))
    builder.store(builder.frem(builder.load(x), ir.DoubleType()(0.3)), y)


entry, fmod = compiler.compile_kernels([compiler.LoopKernel("f", SOURCE, ("*float64", "*float64")),
                                        compiler.IRKernel("fmod", (), 2, emit_fmod)])
x = np.array([0.5, 1.75, 3.0])
y = np.zeros(12)
slots = np.array([x.ctypes.data, y.ctypes.data])
c_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
c_type(entry)(slots.ctypes.data, 0, 3)
c_type(fmod)(slots.ctypes.data, 0, 1)
print(compiler.compile_count(), compiler.load_count(), "numba" in sys.modules)
print(y.tobytes().hex())
"""


def test_libm_is_found_by_compiled_and_by_loaded_code(tmp_path):
    compiled, loaded = (python(SCRIPT, GRAPHJIT_CACHE_DIR=str(tmp_path)).splitlines() for _ in range(2))
    assert compiled[0] == "2 0 True" and loaded[0] == "0 2 False"  # nothing to compile: Numba is not imported
    assert compiled[1] == loaded[1]
    x = np.array([0.5, 1.75, 3.0])
    y = np.frombuffer(bytes.fromhex(loaded[1])).reshape(3, 4)
    np.testing.assert_allclose(y[0, 0], np.fmod(0.5, 0.3), rtol=1e-12)
    np.testing.assert_allclose(y[:, 1], x**x, rtol=1e-12)


def test_another_cpu_has_kernels_of_its_own(tmp_path):
    for cpu, counts in (("haswell", "2 0"), ("haswell", "0 2"), ("nehalem", "2 0")):
        script = SCRIPT.partition("x = np.array")[0]
        script += "print(compiler.compile_count(), compiler.load_count())"
        assert python(script, GRAPHJIT_CACHE_DIR=str(tmp_path), NUMBA_CPU_NAME=cpu).strip() == counts


FORK = """
import os, sys, threading
from graphjit.runtime.compiler import LoopKernel, compile_kernels

def kernel(i):
    return LoopKernel("f", f"def f(x, start, stop):\\n    x[0] = {i}.5", ("*float64",))

compile_kernels([kernel(0)])
thread = threading.Thread(target=lambda: [compile_kernels([kernel(i)]) for i in range(1, 8)])
thread.start()
children = []
for i in range(4):
    child = os.fork()
    if child == 0:
        compile_kernels([kernel(i)])
        os._exit(0)
    children.append(child)
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
thread.join()
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_compiles_while_its_parent_does():
    assert python(FORK, GRAPHJIT_CACHE_DIR="") == "done\n"
