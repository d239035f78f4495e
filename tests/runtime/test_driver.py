"""The driver runs the rows of a table in order and stops where the status says so."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from llvmlite import ir

from graphjit.runtime import driver
from graphjit.runtime.compiler import IRKernel, compile_kernels
from graphjit.runtime.machine import I64

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True, scope="module")
def kernels_on_disk(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHJIT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


def emit_append(builder, values):
    """log[n++] = start * 100 + stop."""
    log, start, stop = values
    log = builder.inttoptr(log, I64.as_pointer())
    n = builder.add(builder.load(log), I64(1))
    builder.store(n, log)
    builder.store(builder.add(builder.mul(start, I64(100)), stop), builder.gep(log, [n]))


def emit_fail(builder, values):
    """*status = 5."""
    builder.store(I64(5), builder.inttoptr(values[0], I64.as_pointer()))


class Program:
    """Rows that log their ranges; a row given as None sets the status."""

    def __init__(self, rows):
        append, fail = compile_kernels([IRKernel("append", (), 1, emit_append),
                                        IRKernel("fail", (), 1, emit_fail)])
        self.log, self.status = np.zeros(64, np.int64), np.zeros(1, np.int64)
        self.slots = np.array([self.log.ctypes.data, self.status.ctypes.data])
        table = [(fail, self.slots[1:].ctypes.data, 0, 0, 0, 0) if row is None
                 else (append, self.slots.ctypes.data, *row, 0, 0) for row in rows]
        self.table = np.array(table, np.int64).reshape(-1, driver.ROW)

    def run(self, run=driver.run):
        return run(self.table.ctypes.data, len(self.table), self.status.ctypes.data, 0)

    @property
    def logged(self):
        return self.log[1 : 1 + self.log[0]].tolist()


VARIANTS = pytest.mark.parametrize("run", [driver.run, lambda *args: driver.runner()(*args),
                                           lambda *args: driver.runner(release_gil=False)(*args)],
                                   ids=["run", "releasing", "keeping"])


@VARIANTS
def test_rows_run_in_order(run):
    program = Program([(i, i + 1) for i in range(10)])
    assert program.run(run) == driver.FINISHED
    assert program.logged == [101 * i + 1 for i in range(10)]


@VARIANTS
@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_status_stops_the_program_after_its_row(run, at):
    rows = [(i, i) for i in range(3)]
    program = Program([*rows[:at], None, *rows[at:], None])
    assert program.run(run) == at
    assert program.logged == [101 * i for i in range(at)] and program.status[0] == 5


def test_no_rows():
    assert Program([]).run() == driver.FINISHED


@VARIANTS
@pytest.mark.parametrize("args, error", [((), TypeError), ((1, 2), TypeError), ((1, 2, 3, 4, 5), TypeError),
                                         (("table", 0, 0, 0), TypeError), ((0, None, 0, 0), TypeError),
                                         ((0, 0, 1 << 64, 0), OverflowError)])
def test_wrong_arguments_are_python_errors(run, args, error):
    with pytest.raises(error):
        run(*args)


def test_minus_one_is_a_number_like_others():
    assert driver.runner()(-1, 0, -1, 0) == driver.FINISHED
    assert driver.runner()(0, -1, 0, 0) == driver.FINISHED


def test_other_threads_run_meanwhile():
    """A kernel that waits for another Python thread only ends when the GIL is free."""
    def emit_wait(builder, values):
        flag = builder.inttoptr(values[0], I64.as_pointer())
        loop, done = builder.append_basic_block("loop"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        seen = builder.load_atomic(flag, "acquire", 8)
        builder.cbranch(builder.icmp_signed("==", seen, ir.Constant(I64, 0)), loop, done)
        builder.position_at_end(done)

    [wait] = compile_kernels([IRKernel("wait", (), 1, emit_wait)])
    flag, status = np.zeros(1, np.int64), np.zeros(1, np.int64)
    slots = np.array([flag.ctypes.data])
    table = np.array([[wait, slots.ctypes.data, 0, 0, 0, 0]])

    def release():
        time.sleep(0.01)
        flag[0] = 1

    thread = threading.Thread(target=release)
    thread.start()
    assert driver.run(table.ctypes.data, 1, status.ctypes.data) == driver.FINISHED
    thread.join()


def test_threads_run_the_driver_at_once():
    programs = [Program([(i, i) for i in range(50)]) for _ in range(4)]
    threads = [threading.Thread(target=program.run) for program in programs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(program.logged) == 50 for program in programs)


def test_a_warm_start_loads_the_driver_and_no_numba(tmp_path):
    script = ("import sys\nfrom graphjit.runtime import compiler, driver\ndriver.run(0, 0, 0)\n"
              "print(compiler.compile_count(), compiler.load_count(), 'numba' in sys.modules)")
    for expected in ("1 0 False", "0 1 False"):
        result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60,
                                env={"PYTHONPATH": str(ROOT), "GRAPHJIT_CACHE_DIR": str(tmp_path)})
        assert result.stdout.strip() == expected, result.stderr
