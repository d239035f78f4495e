"""CPython's side of native code: its C functions, its objects' fields, and builtin functions made of compiled ones."""

from __future__ import annotations

import ctypes
from typing import Any

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
