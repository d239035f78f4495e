"""The native code of a call, as ``calling`` plans it."""

from __future__ import annotations

import functools
from typing import Any

from llvmlite import ir

from graphjit.kernels.emit import Int, loop
from graphjit.runtime.builtin import (
    ARRAY_DATA,
    ARRAY_DTYPE,
    ARRAY_FLAGS,
    ARRAY_NDIM,
    ARRAY_SHAPE,
    CONTIGUOUS,
    I64,
    TYPE,
    python,
    set_word,
    word,
)
from graphjit.runtime.calling import (
    ARGUMENTS,
    COPY,
    DTYPE,
    FALSE,
    FLOAT,
    FREE,
    HEAD,
    ITEM,
    MISS,
    NBYTES,
    NDARRAY,
    NDIM,
    NEW_ARRAY,
    NEW_TENSOR,
    NEW_VALUE,
    NONE,
    OUTSIDE,
    PLACE,
    RELEASE,
    RESULTS,
    ROWS,
    SHAPE,
    SINGLE,
    STATUS,
    TABLE,
    TENSOR,
    TENSOR_VALUE,
    TENSOR_WORDS,
    TICKS,
    TRY,
    VALUE_DATA,
    VALUE_REQUIRES_GRAD,
    VALUE_STAMP,
    VALUE_TRACE,
    VALUE_WORDS,
    WORLD,
    WRITTEN,
)


def emit_call(module: ir.Module, rows: ir.Function) -> ir.Function:
    """PyObject *call(PyObject *plan, PyObject *const *args, Py_ssize_t nargs).

    A tensor, or a list of them; MISS where the plan does not fit, None where an argument is not contiguous.
    """
    wrap = _emit_wrap(module)
    function = ir.Function(module, ir.FunctionType(I64, [I64] * 3), "call")
    owner, args, nargs = function.args
    b = ir.IRBuilder(function.append_basic_block("begin"))
    missed, scattered, failed, undone, dropped = (function.append_basic_block(name) for name in (
        "missed", "scattered", "failed", "undone", "dropped"))

    def unless(condition: Any, otherwise: Any = missed) -> None:
        go = b.append_basic_block("go")
        b.cbranch(condition, go, otherwise)
        b.position_at_end(go)

    def equal(x: Any, y: Any) -> Any:
        return b.icmp_unsigned("==", x, y)

    plan = word(b, owner, ARRAY_DATA)
    known, n, made = word(b, plan, WORLD), word(b, plan, ARGUMENTS), word(b, plan, RESULTS)
    miss = word(b, plan, MISS)
    first = b.add(plan, I64(8 * HEAD))
    first_result = b.add(first, b.mul(n, I64(8 * ITEM)))
    arrays = b.ptrtoint(b.alloca(I64, b.add(made, I64(1))), I64)
    sources = b.ptrtoint(b.alloca(I64, b.add(n, I64(1))), I64)
    unless(equal(nargs, n))

    # the arguments are what the plan is for
    with loop(0, Int(b, n)) as i:
        item = b.add(first, b.mul(i.value, I64(8 * ITEM)))
        argument = word(b, args, i.value)
        number = equal(word(b, item, DTYPE), I64(0))
        with b.if_else(number) as (as_float, as_array):
            with as_float:
                unless(equal(word(b, argument, TYPE), word(b, known, FLOAT)))
                after_float = b.block
            with as_array:
                outside = b.block
                with b.if_then(equal(word(b, argument, TYPE), word(b, known, TENSOR))):
                    value = word(b, argument, word(b, known, TENSOR_VALUE))
                    unless(equal(word(b, value, word(b, known, VALUE_REQUIRES_GRAD)), word(b, known, FALSE)))
                    unless(equal(word(b, value, word(b, known, VALUE_TRACE)), word(b, known, NONE)))
                    inside = word(b, value, word(b, known, VALUE_DATA))
                    after_tensor = b.block
                array = b.phi(I64)
                array.add_incoming(argument, outside)
                array.add_incoming(inside, after_tensor)
                unless(equal(word(b, array, TYPE), word(b, known, NDARRAY)))
                unless(equal(word(b, array, ARRAY_DTYPE), word(b, item, DTYPE)))
                axes = word(b, item, NDIM)
                unless(equal(b.and_(word(b, array, ARRAY_NDIM), I64(0xFFFFFFFF)), axes))
                lengths, shape = word(b, array, ARRAY_SHAPE), word(b, item, SHAPE)
                with loop(0, Int(b, axes)) as axis:
                    unless(equal(word(b, lengths, axis.value), word(b, shape, axis.value)))
                flags = b.and_(word(b, array, ARRAY_FLAGS), I64(CONTIGUOUS))
                unless(equal(flags, I64(CONTIGUOUS)), scattered)
                data = word(b, array, ARRAY_DATA)
                after_array = b.block
        source = b.phi(I64)
        source.add_incoming(argument, after_float)
        source.add_incoming(data, after_array)
        set_word(b, source, sources, i.value)

    # new arrays for the results
    new_array = b.inttoptr(word(b, known, NEW_ARRAY), ir.FunctionType(
        I64, [I64, I64, ir.IntType(32), I64, I64, I64, ir.IntType(32), I64]).as_pointer())
    zero = I64(0)
    with loop(0, Int(b, made)) as i:
        set_word(b, zero, arrays, i.value)
    with loop(0, Int(b, made)) as i:
        item = b.add(first_result, b.mul(i.value, I64(8 * ITEM)))
        with b.if_then(equal(word(b, item, COPY), zero)):
            dtype = word(b, item, DTYPE)
            b.call(_count(module, "Py_IncRef"), [dtype])  # NumPy takes it over
            array = b.call(new_array, [word(b, known, NDARRAY), dtype, b.trunc(word(b, item, NDIM), ir.IntType(32)),
                                       word(b, item, SHAPE), zero, zero, ir.IntType(32)(0), zero])
            set_word(b, array, arrays, i.value)
            unless(b.icmp_unsigned("!=", array, zero), failed)

    # the program's turn: nobody else is in the arena
    invoke = python(module, "PyObject_CallNoArgs", I64, I64)
    decref = _count(module, "Py_DecRef")
    answer = b.call(invoke, [word(b, plan, TRY)])
    unless(b.icmp_unsigned("!=", answer, zero), failed)
    b.call(decref, [answer])
    unless(equal(answer, word(b, plan, FREE)), undone)
    with loop(0, Int(b, n)) as i:
        item = b.add(first, b.mul(i.value, I64(8 * ITEM)))
        place, source = word(b, item, PLACE), word(b, sources, i.value)
        with b.if_else(equal(word(b, item, DTYPE), zero)) as (as_float, as_array):
            with as_float:
                double = b.call(python(module, "PyFloat_AsDouble", ir.DoubleType(), I64), [source])
                b.store(double, b.inttoptr(place, ir.DoubleType().as_pointer()))
            with as_array:
                _copy(b, place, source, word(b, item, NBYTES))
    run = [word(b, plan, TABLE), word(b, plan, ROWS), word(b, plan, STATUS), zero]
    with b.if_else(b.icmp_unsigned("!=", word(b, plan, OUTSIDE), zero)) as (without_gil, with_gil):
        with without_gil:
            thread = b.call(python(module, "PyEval_SaveThread", ir.IntType(8).as_pointer()), [])
            stopped_outside = b.call(rows, run)
            b.call(python(module, "PyEval_RestoreThread", ir.VoidType(), ir.IntType(8).as_pointer()), [thread])
            after_outside = b.block
        with with_gil:
            stopped_inside = b.call(rows, run)
            after_inside = b.block
    stopped = b.phi(I64)
    stopped.add_incoming(stopped_outside, after_outside)
    stopped.add_incoming(stopped_inside, after_inside)
    finished = equal(stopped, I64(-1))
    with b.if_else(finished) as (well, refused):
        with well, loop(0, Int(b, made)) as i:
            item = b.add(first_result, b.mul(i.value, I64(8 * ITEM)))
            copy = word(b, item, COPY)
            with b.if_else(equal(copy, zero)) as (in_order, scattered_result):
                with in_order:
                    target = word(b, word(b, arrays, i.value), ARRAY_DATA)
                    _copy(b, target, word(b, item, PLACE), word(b, item, NBYTES))
                with scattered_result:
                    set_word(b, b.call(invoke, [copy]), arrays, i.value)
        with refused:  # no state was changed: the long way runs it again, and says what is wrong
            set_word(b, zero, word(b, plan, STATUS), 0)
    release = word(b, plan, RELEASE)
    with b.if_then(b.icmp_unsigned("!=", release, zero)):
        b.call(decref, [b.call(invoke, [release])])
    unless(finished, undone)
    with loop(0, Int(b, made)) as i:
        unless(b.icmp_unsigned("!=", word(b, arrays, i.value), zero), failed)
    written = word(b, plan, WRITTEN)
    with b.if_then(b.icmp_unsigned("!=", written, zero)):
        stamp = b.call(python(module, "PyIter_Next", I64, I64), [word(b, known, TICKS)])
        b.call(python(module, "PyList_SetItem", ir.IntType(32), I64, I64, I64), [written, zero, stamp])

    # tensors around them
    one, several = function.append_basic_block("one"), function.append_basic_block("several")
    b.cbranch(equal(word(b, plan, SINGLE), zero), several, one)
    b.position_at_end(one)
    tensor = b.call(wrap, [known, word(b, arrays, 0)])
    b.ret(tensor)
    b.position_at_end(several)
    out = b.call(python(module, "PyList_New", I64, I64), [made])
    unless(b.icmp_unsigned("!=", out, zero), failed)
    with loop(0, Int(b, made)) as i:
        array = word(b, arrays, i.value)
        set_word(b, zero, arrays, i.value)
        tensor = b.call(wrap, [known, array])
        unless(b.icmp_unsigned("!=", tensor, zero), dropped)
        b.call(python(module, "PyList_SetItem", ir.IntType(32), I64, I64, I64), [out, i.value, tensor])
    b.ret(out)
    b.position_at_end(dropped)
    b.call(decref, [out])
    b.branch(failed)

    b.position_at_end(missed)
    b.call(_count(module, "Py_IncRef"), [miss])
    b.ret(miss)
    b.position_at_end(scattered)
    none = word(b, known, NONE)
    b.call(_count(module, "Py_IncRef"), [none])
    b.ret(none)
    for block, result in ((undone, miss), (failed, zero)):
        b.position_at_end(block)
        with loop(0, Int(b, made)) as i:
            b.call(decref, [word(b, arrays, i.value)])
        b.call(_count(module, "Py_IncRef"), [result])
        b.ret(result)
    return function


def _emit_wrap(module: ir.Module) -> ir.Function:
    """PyObject *wrap(world, PyObject *array): a tensor of a new value; it takes the array over."""
    function = ir.Function(module, ir.FunctionType(I64, [I64] * 2), "wrap")
    known, array = function.args
    b = ir.IRBuilder(function.append_basic_block("begin"))
    clone = _emit_clone(module)
    failed = function.append_basic_block("failed")
    value = b.call(clone, [word(b, known, NEW_VALUE), word(b, known, VALUE_WORDS)])
    tensor = b.call(clone, [word(b, known, NEW_TENSOR), word(b, known, TENSOR_WORDS)])
    stamp = b.call(python(module, "PyIter_Next", I64, I64), [word(b, known, TICKS)])
    zero, go = I64(0), function.append_basic_block("go")
    missing = functools.reduce(b.or_, (b.icmp_unsigned("==", x, zero) for x in (value, tensor, stamp)))
    b.cbranch(missing, failed, go)
    b.position_at_end(go)
    for it, at, new in ((value, VALUE_DATA, array), (value, VALUE_STAMP, stamp), (tensor, TENSOR_VALUE, value)):
        index = word(b, known, at)
        before = word(b, it, index)
        set_word(b, new, it, index)
        b.call(_count(module, "Py_DecRef"), [before])
    b.ret(tensor)
    b.position_at_end(failed)
    for it in (array, value, tensor, stamp):
        b.call(_count(module, "Py_DecRef"), [it])
    b.ret(zero)
    return function


def _emit_clone(module: ir.Module) -> ir.Function:
    """PyObject *clone(PyObject *it, words): another with the same slots."""
    function = ir.Function(module, ir.FunctionType(I64, [I64] * 2), "clone")
    it, words = function.args
    b = ir.IRBuilder(function.append_basic_block("begin"))
    out = b.call(python(module, "PyType_GenericAlloc", I64, I64, I64), [word(b, it, TYPE), I64(0)])
    with b.if_then(b.icmp_unsigned("!=", out, I64(0))), loop(TYPE + 1, Int(b, words)) as i:
        held = word(b, it, i.value)
        b.call(_count(module, "Py_IncRef"), [held])
        set_word(b, held, out, i.value)
    b.ret(out)
    return function


def _count(module: ir.Module, name: str) -> ir.Function:
    """Py_IncRef or Py_DecRef, which take no object as well."""
    return python(module, name, ir.VoidType(), I64)


def _copy(b: ir.IRBuilder, target: ir.Value, source: ir.Value, nbytes: ir.Value) -> None:
    kind = ir.IntType(8).as_pointer()
    made = python(b.module, "memcpy", kind, kind, kind, I64)
    b.call(made, [b.inttoptr(target, kind), b.inttoptr(source, kind), nbytes])
