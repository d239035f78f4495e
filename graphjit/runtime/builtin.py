"""CPython's side of native code: its C functions, its objects' fields, and builtin functions made of compiled ones."""

from __future__ import annotations

import ctypes
import functools
import sys
import sysconfig
from typing import Any

import numpy as np
from llvmlite import ir

I64 = ir.IntType(64)

METH_FASTCALL = 0x0080

# words of objects, as the macros of CPython's and NumPy's headers compile them into every extension module
TYPE = 1                           # PyObject: what it is an instance of
CELL_CONTENTS = 2                  # PyCellObject
LIST_SIZE, LIST_ITEMS = 2, 3       # PyListObject
ARRAY_DATA, ARRAY_NDIM, ARRAY_SHAPE, ARRAY_DTYPE, ARRAY_FLAGS = 2, 3, 4, 7, 8  # PyArrayObject_fields
CONTIGUOUS = 1                     # NPY_ARRAY_C_CONTIGUOUS
NEW_FROM_DESCR = 94                # of NumPy's table of C functions: PyArray_NewFromDescr


class _MethodDef(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = (("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int),
                ("doc", ctypes.c_char_p))


_method_defs: dict[int, _MethodDef] = {}  # by the function's address: builtin functions point into these for ever


@functools.cache
def fields_are_known() -> bool:
    """Whether the fields of objects lie where the words above say: in CPython with its lock, on 64 bits; tried out,
    too. Where they do not, calls go their way through Python."""
    if sys.implementation.name != "cpython" or sys.maxsize < 2**32 or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return False
    element = object()
    elements, array = [element], np.zeros((3, 5), np.float32)
    [cell] = (lambda: elements).__closure__ or ()

    def words(address: int, count: int) -> list[int]:
        return list((ctypes.c_int64 * count).from_address(address))

    fields, of_cell, of_array = (words(id(it), n) for it, n in ((elements, 4), (cell, 3), (array, 9)))
    return (fields[TYPE] == id(list) and fields[LIST_SIZE] == 1 and words(fields[LIST_ITEMS], 1) == [id(element)]
            and of_cell[CELL_CONTENTS] == id(elements)
            and of_array[ARRAY_DATA] == array.ctypes.data and of_array[ARRAY_NDIM] & 0xFFFFFFFF == array.ndim
            and words(of_array[ARRAY_SHAPE], 2) == [3, 5] and of_array[ARRAY_DTYPE] == id(array.dtype)
            and of_array[ARRAY_FLAGS] & CONTIGUOUS == CONTIGUOUS)


def builtin(address: int, name: str, doc: str = "", owner: object = None) -> Any:
    """A builtin function of native code ``PyObject *f(PyObject *owner, PyObject *const *args, Py_ssize_t nargs)``."""
    method = _method_defs.setdefault(address, _MethodDef(name.encode(), address, METH_FASTCALL, doc.encode()))
    new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)(
        ("PyCFunction_NewEx", ctypes.pythonapi))
    return new(ctypes.addressof(method), owner, None)


def python(module: ir.Module, name: str, result: ir.Type, *args: ir.Type) -> ir.Function:
    """A function of CPython's C API."""
    return module.globals.get(name) or ir.Function(module, ir.FunctionType(result, args), name)


def word(b: ir.IRBuilder, address: ir.Value, index: ir.Value | int) -> ir.Value:
    """The int64 at an address, ``index`` words on."""
    return b.load(_place(b, address, index))


def set_word(b: ir.IRBuilder, value: ir.Value, address: ir.Value, index: ir.Value | int) -> None:
    """Store an int64 there."""
    b.store(value, _place(b, address, index))


def _place(b: ir.IRBuilder, address: ir.Value, index: ir.Value | int) -> ir.Value:
    return b.gep(b.inttoptr(address, I64.as_pointer()), [I64(index) if isinstance(index, int) else index])
