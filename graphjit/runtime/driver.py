"""The driver: runs a whole program, a table of kernel calls, in one Python call.

A program is an int64 table of rows (entry, slots address, start, stop, grain, slots stride). The driver calls
`entry(slots, start, stop)` of each row in order, and looks after each at a status word that a kernel sets to
stop the program. A row with a grain is offered to a pool of worker threads in chunks of that many units; each
thread uses its own copy of the slots, `stride` bytes apart, so that it has its own scratch memory.

It is itself an IR kernel, compiled once on a machine and kept in the kernel cache. Called once, that kernel
hands out the addresses of functions with CPython's own calling convention (METH_FASTCALL, of the stable
ABI), which become builtin functions: a call costs some 50 ns, through ctypes it would cost 400.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

from llvmlite import ir

from graphjit.op import Array
from graphjit.runtime.builtin import builtin, python
from graphjit.runtime.call_code import emit_call
from graphjit.runtime.compiler import IRKernel, compile_kernels
from graphjit.runtime.holding import emit_holds
from graphjit.runtime.machine import ENTRY_TYPE
from graphjit.runtime.sharing import emit_claim, emit_share
from graphjit.runtime.strips import HEAD, MOVE, WORDS, emit_strips
from graphjit.runtime.working import emit_wake, emit_work

Runner = Callable[[int, int, int, int], int]

I32, I64 = ir.IntType(32), ir.IntType(64)
POINTER = ir.IntType(8).as_pointer()
ROW = 6  # words of a row: entry, slots, start, stop, grain, slots stride
FINISHED = -1


def run(table_address: int, n: int, status_address: int, pool_address: int = 0) -> int:
    """Run the first n rows of a program, with the GIL released.

    Args:
        table_address: of the int64[n, 6] table of rows.
        n: number of rows.
        status_address: of an int64 that is 0 as long as all is well.
        pool_address: of the control block of a pool that no one else uses now; 0 for none.

    Returns:
        -1 when all rows ran; else the index of the row after which the status was not 0.
    """
    return runner()(table_address, n, status_address, pool_address)


def runner(release_gil: bool = True) -> Runner:
    """The compiled function behind `run`, for those who call it often.

    Args:
        release_gil: let other Python threads run meanwhile. Programs of some microseconds should not: taking
            the GIL back from a busy thread can cost its whole switch interval (5 ms).
    """
    return _runners()[0 if release_gil else 1]


def worker() -> Runner:
    """What a worker thread runs, with the GIL released: ``work(pool address, its number, patience, 0)``.

    It takes part in what the pool is offered, and returns when nothing was offered for ``patience`` looks.
    """
    return _runners()[2]


def strips_entry() -> int:
    """The address of the entry that runs a group of kernels strip by strip, see `strips`."""
    return _addresses()[5]


def kernel() -> IRKernel:
    """What has to be compiled for all this."""
    return IRKernel("driver", ("driver", ROW, HEAD, WORDS, MOVE), 1, _emit)


def caller(plan: Array) -> Callable[..., Any]:
    """The builtin function that runs a program for a call's arguments by this plan (see ``calling``)."""
    made: Callable[..., Any] = builtin(_addresses()[3], "call", owner=plan)
    return made


def holder(plan: Array) -> Callable[[], bool]:
    """The builtin function that makes these checks (see ``holding``)."""
    made: Callable[[], bool] = builtin(_addresses()[4], "holds", owner=plan)
    return made


@functools.cache
def _runners() -> tuple[Runner, Runner, Runner]:
    """The builtin functions: run without the GIL, run with it, work."""
    releasing, keeping, working = (builtin(address, "run", run.__doc__ or "") for address in _addresses()[:3])
    return releasing, keeping, working


@functools.cache
def _addresses() -> list[int]:
    """Of the native functions."""
    [entry] = compile_kernels([kernel()])
    addresses = (ctypes.c_int64 * 6)()
    slots = (ctypes.c_int64 * 1)(ctypes.addressof(addresses))
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(entry)
    call(ctypes.addressof(slots), 0, 0)
    return list(addresses)


# ---- the code ---------------------------------------------------------------------------------------------


def _emit(builder: ir.IRBuilder, values: list[ir.Value]) -> None:
    """The driver kernel: stores the addresses of the functions where its slot points."""
    out = builder.inttoptr(values[0], I64.as_pointer())
    module = builder.module
    claim = emit_claim(module)
    rows = _emit_rows(module, emit_share(module, claim, emit_wake(module)))
    functions = [_emit_builtin(module, rows, "run_without_gil", True),
                 _emit_builtin(module, rows, "run_with_gil", False),
                 _emit_builtin(module, emit_work(module, claim), "work_without_gil", True),
                 emit_call(module, rows), emit_holds(module), emit_strips(module)]
    for i, function in enumerate(functions):
        builder.store(builder.ptrtoint(function, I64), builder.gep(out, [I64(i)]))


def _emit_rows(module: ir.Module, share: ir.Function) -> ir.Function:
    """int64 rows(int64 table, int64 n, int64 status, int64 pool): run each row, look at the status."""
    function = ir.Function(module, ir.FunctionType(I64, [I64] * 4), "rows")
    function.attributes.add("nounwind")
    *numbers, pool = function.args
    begin, head, body, alone, together, look, after, done = (function.append_basic_block(name) for name in (
        "begin", "head", "body", "alone", "together", "look", "after", "done"))
    builder = ir.IRBuilder(begin)
    table, status = (builder.inttoptr(numbers[i], I64.as_pointer()) for i in (0, 2))
    n = numbers[1]
    builder.branch(head)

    builder.position_at_end(head)
    i = builder.phi(I64)
    i.add_incoming(I64(0), begin)
    builder.cbranch(builder.icmp_signed("<", i, n), body, done)

    builder.position_at_end(body)
    first = builder.mul(i, I64(ROW))
    row = [builder.load(builder.gep(table, [builder.add(first, I64(word))])) for word in range(ROW)]
    entry, slots, start, stop, grain, _ = row
    shared = builder.and_(builder.icmp_signed("!=", grain, I64(0)), builder.icmp_signed("!=", pool, I64(0)))
    builder.cbranch(shared, together, alone)

    builder.position_at_end(alone)
    builder.call(builder.inttoptr(entry, ENTRY_TYPE.as_pointer()),
                 [builder.inttoptr(slots, I64.as_pointer()), start, stop])
    builder.branch(look)

    builder.position_at_end(together)
    builder.call(share, [pool, *row])
    builder.branch(look)

    builder.position_at_end(look)
    builder.cbranch(builder.icmp_signed("==", builder.load(status), I64(0)), after, done)

    builder.position_at_end(after)
    i.add_incoming(builder.add(i, I64(1)), after)
    builder.branch(head)

    builder.position_at_end(done)
    result = builder.phi(I64)
    result.add_incoming(I64(FINISHED), head)
    result.add_incoming(i, look)
    builder.ret(result)
    return function


def _emit_builtin(module: ir.Module, target: ir.Function, name: str, release_gil: bool) -> ir.Function:
    """PyObject *run(PyObject *self, PyObject *const *args, Py_ssize_t nargs): four ints for the target."""
    function = ir.Function(module, ir.FunctionType(POINTER, [POINTER, POINTER.as_pointer(), I64]), name)
    _, args, nargs = function.args
    unpack, suspect, go, wrong, failed = (function.append_basic_block(name)
                                          for name in ("unpack", "suspect", "go", "wrong", "failed"))
    begin = function.insert_basic_block(0, "begin")
    builder = ir.IRBuilder(begin)
    builder.cbranch(builder.icmp_signed("==", nargs, I64(4)), unpack, wrong)

    builder.position_at_end(unpack)
    as_int = python(module, "PyLong_AsLongLong", I64, POINTER)
    numbers = [builder.call(as_int, [builder.load(builder.gep(args, [I64(i)]))]) for i in range(4)]
    minus_one = [builder.icmp_signed("==", number, I64(-1)) for number in numbers]
    builder.cbranch(functools.reduce(builder.or_, minus_one), suspect, go)

    builder.position_at_end(suspect)  # -1 is an error or a number
    error = builder.call(python(module, "PyErr_Occurred", POINTER), [])
    builder.cbranch(builder.icmp_unsigned("==", error, POINTER(None)), go, failed)

    builder.position_at_end(go)
    if release_gil:
        thread = builder.call(python(module, "PyEval_SaveThread", POINTER), [])
    result = builder.call(target, numbers)
    if release_gil:
        builder.call(python(module, "PyEval_RestoreThread", ir.VoidType(), POINTER), [thread])
    builder.ret(builder.call(python(module, "PyLong_FromLongLong", POINTER, I64), [result]))

    builder.position_at_end(wrong)
    builder.call(python(module, "PyErr_BadArgument", I32), [])
    builder.branch(failed)

    builder.position_at_end(failed)
    builder.ret(POINTER(None))
    return function
