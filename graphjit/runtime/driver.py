"""The driver: runs a whole program, a table of kernel calls, in one Python call.

A program is an int64 table of rows (entry, slots address, start, stop). The driver calls
`entry(slots, start, stop)` of each row in order, and looks after each at a status word that a kernel sets to
stop the program.

It is itself an IR kernel, compiled once on a machine and kept in the kernel cache. Called once, that kernel
hands out the addresses of two functions with CPython's own calling convention (METH_FASTCALL, of the stable
ABI), which become builtin functions. Measured: a call costs 45-75 ns; through ctypes 400; through a Numba
dispatcher 200, and half a second to make it.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

from llvmlite import ir

from graphjit.runtime.compiler import ENTRY_TYPE, IRKernel, compile_kernels

Runner = Callable[[int, int, int], int]

I32, I64 = ir.IntType(32), ir.IntType(64)
POINTER = ir.IntType(8).as_pointer()
ROW = 4  # words of a row: entry, slots, start, stop
FINISHED = -1

METH_FASTCALL = 0x0080


def run(table_address: int, n: int, status_address: int) -> int:
    """Run the first n rows of a program, with the GIL released.

    Args:
        table_address: of the int64[n, 4] table of (entry, slots address, start, stop).
        n: number of rows.
        status_address: of an int64 that is 0 as long as all is well.

    Returns:
        -1 when all rows ran; else the index of the row after which the status was not 0.
    """
    return runner()(table_address, n, status_address)


@functools.cache
def runner(release_gil: bool = True) -> Runner:
    """The compiled function behind `run`, for those who call it often.

    Args:
        release_gil: let other Python threads run meanwhile. Programs of some microseconds should not: taking
            the GIL back from a busy thread can cost its whole switch interval (5 ms).
    """
    return _runners()[0 if release_gil else 1]


class _MethodDef(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = (("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int),
                ("doc", ctypes.c_char_p))


_method_defs: list[_MethodDef] = []  # builtin functions point into these for ever


@functools.cache
def _runners() -> tuple[Runner, Runner]:
    """The two builtin functions: one that releases the GIL, one that keeps it."""
    [entry] = compile_kernels([IRKernel("driver", ("driver",), 1, _emit)])
    addresses = (ctypes.c_int64 * 2)()
    slots = (ctypes.c_int64 * 1)(ctypes.addressof(addresses))
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(entry)
    call(ctypes.addressof(slots), 0, 0)
    new_builtin = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(
        ("PyCFunction_NewEx", ctypes.pythonapi))
    doc = (run.__doc__ or "").encode()
    methods = [_MethodDef(b"run", address, METH_FASTCALL, doc) for address in addresses]
    _method_defs.extend(methods)
    releasing, keeping = (new_builtin(ctypes.addressof(method), None, None) for method in methods)
    return releasing, keeping


# ---- the code ---------------------------------------------------------------------------------------------


def _emit(builder: ir.IRBuilder, values: list[ir.Value]) -> None:
    """The driver kernel: stores the addresses of both functions where its slot points."""
    out = builder.inttoptr(values[0], I64.as_pointer())
    rows = _emit_rows(builder.module)
    for i, release_gil in enumerate((True, False)):
        function = _emit_builtin(builder.module, rows, release_gil)
        builder.store(builder.ptrtoint(function, I64), builder.gep(out, [I64(i)]))


def _emit_rows(module: ir.Module) -> ir.Function:
    """int64 rows(int64 *table, int64 n, int64 *status): call each row, look at the status."""
    function = ir.Function(module, ir.FunctionType(I64, [I64.as_pointer(), I64, I64.as_pointer()]), "rows")
    function.attributes.add("nounwind")
    table, n, status = function.args
    begin, head, body, after, done = (function.append_basic_block(name)
                                      for name in ("begin", "head", "body", "after", "done"))
    ir.IRBuilder(begin).branch(head)

    builder = ir.IRBuilder(head)
    i = builder.phi(I64)
    i.add_incoming(I64(0), begin)
    builder.cbranch(builder.icmp_signed("<", i, n), body, done)

    builder.position_at_end(body)
    first = builder.mul(i, I64(ROW))
    row = [builder.load(builder.gep(table, [builder.add(first, I64(word))])) for word in range(ROW)]
    _emit_call(builder, *row)
    builder.cbranch(builder.icmp_signed("==", builder.load(status), I64(0)), after, done)

    builder.position_at_end(after)
    i.add_incoming(builder.add(i, I64(1)), after)
    builder.branch(head)

    builder.position_at_end(done)
    result = builder.phi(I64)
    result.add_incoming(I64(FINISHED), head)
    result.add_incoming(i, body)
    builder.ret(result)
    return function


def _emit_call(builder: ir.IRBuilder, entry: ir.Value, slots: ir.Value, start: ir.Value,
               stop: ir.Value) -> None:
    """One kernel call. All rows pass here: this is where [start, stop) is to be split over threads."""
    builder.call(builder.inttoptr(entry, ENTRY_TYPE.as_pointer()),
                 [builder.inttoptr(slots, I64.as_pointer()), start, stop])


def _emit_builtin(module: ir.Module, rows: ir.Function, release_gil: bool) -> ir.Function:
    """PyObject *run(PyObject *self, PyObject *const *args, Py_ssize_t nargs): three ints for rows."""
    name = "run_without_gil" if release_gil else "run_with_gil"
    function = ir.Function(module, ir.FunctionType(POINTER, [POINTER, POINTER.as_pointer(), I64]), name)
    _, args, nargs = function.args
    unpack, suspect, go, wrong, failed = (function.append_basic_block(name)
                                          for name in ("unpack", "suspect", "go", "wrong", "failed"))
    begin = function.insert_basic_block(0, "begin")
    builder = ir.IRBuilder(begin)
    builder.cbranch(builder.icmp_signed("==", nargs, I64(3)), unpack, wrong)

    builder.position_at_end(unpack)
    as_int = _python(module, "PyLong_AsLongLong", I64, POINTER)
    numbers = [builder.call(as_int, [builder.load(builder.gep(args, [I64(i)]))]) for i in range(3)]
    minus_one = [builder.icmp_signed("==", number, I64(-1)) for number in numbers]
    builder.cbranch(functools.reduce(builder.or_, minus_one), suspect, go)

    builder.position_at_end(suspect)  # -1 is an error or a number
    error = builder.call(_python(module, "PyErr_Occurred", POINTER), [])
    builder.cbranch(builder.icmp_unsigned("==", error, POINTER(None)), go, failed)

    builder.position_at_end(go)
    table, n, status = numbers
    if release_gil:
        thread = builder.call(_python(module, "PyEval_SaveThread", POINTER), [])
    result = builder.call(rows, [builder.inttoptr(table, I64.as_pointer()), n,
                                 builder.inttoptr(status, I64.as_pointer())])
    if release_gil:
        builder.call(_python(module, "PyEval_RestoreThread", ir.VoidType(), POINTER), [thread])
    builder.ret(builder.call(_python(module, "PyLong_FromLongLong", POINTER, I64), [result]))

    builder.position_at_end(wrong)
    builder.call(_python(module, "PyErr_BadArgument", I32), [])
    builder.branch(failed)

    builder.position_at_end(failed)
    builder.ret(POINTER(None))
    return function


def _python(module: ir.Module, name: str, result: ir.Type, *args: ir.Type) -> ir.Function:
    """A function of CPython's C API."""
    if name in module.globals:
        return module.globals[name]
    return ir.Function(module, ir.FunctionType(result, args), name)
