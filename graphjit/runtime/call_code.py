"""The native code of a call, as ``calling`` plans it."""

from __future__ import annotations

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
from graphjit.runtime.call_parts import (
    FAILED,
    copy_bytes,
    count,
    emit_ask,
    emit_give_back,
    emit_point,
    emit_quietly,
    emit_wrap,
    unless,
)
from graphjit.runtime.calling import (
    ARGUMENTS,
    BUFFERS,
    COPY,
    DTYPE,
    FALSE,
    FLOAT,
    FREE,
    HEAD,
    ITEM,
    MAKE,
    MISS,
    N_BUFFERS,
    NBYTES,
    NDARRAY,
    NDIM,
    NEW_ARRAY,
    NONE,
    OUTSIDE,
    PLACE,
    RELEASE,
    RESULTS,
    ROWS,
    SHAPE,
    SINGLE,
    SLOTS,
    SOURCE,
    STATUS,
    TABLE,
    TENSOR,
    TENSOR_VALUE,
    TICKS,
    TRY,
    VALUE_DATA,
    VALUE_REQUIRES_GRAD,
    VALUE_TRACE,
    WORLD,
    WRITTEN,
)

FITS, MISSED, SCATTERED = range(3)  # what ``look`` finds


def emit_call(module: ir.Module, rows: ir.Function) -> ir.Function:
    """PyObject *call(PyObject *plan, PyObject *const *args, Py_ssize_t nargs).

    A tensor, or a list of them; MISS where the plan does not fit, None where an argument is not contiguous.
    """
    look, wrap, point, quietly = (emit(module) for emit in (_emit_look, emit_wrap, emit_point, emit_quietly))
    give_back = emit_give_back(module, quietly)
    ask = emit_ask(module)
    invoke = python(module, "PyObject_CallNoArgs", I64, I64)
    incref, decref = count(module, "Py_IncRef"), count(module, "Py_DecRef")
    function = ir.Function(module, ir.FunctionType(I64, [I64] * 3), "call")
    owner, args, nargs = function.args
    b = ir.IRBuilder(function.append_basic_block("begin"))
    missed, scattered, failed, undone, broken, dropped = (function.append_basic_block(name) for name in (
        "missed", "scattered", "failed", "undone", "broken", "dropped"))
    zero = I64(0)

    def equal(x: Any, y: Any) -> Any:
        return b.icmp_unsigned("==", x, y)

    def some(x: Any) -> Any:
        return b.icmp_unsigned("!=", x, zero)

    plan = word(b, owner, ARRAY_DATA)
    known, n, made = word(b, plan, WORLD), word(b, plan, ARGUMENTS), word(b, plan, RESULTS)
    miss = word(b, plan, MISS)
    first = b.add(plan, I64(8 * HEAD))
    first_result = b.add(first, b.mul(n, I64(8 * ITEM)))
    # the arguments' arrays, of which a reference is held (another thread may assign to a tensor), and the results'
    total = b.add(n, made)
    objects = b.ptrtoint(b.alloca(I64, b.add(total, I64(1))), I64)
    arrays = b.add(objects, b.mul(n, I64(8)))
    sources = b.ptrtoint(b.alloca(I64, b.add(n, I64(1))), I64)
    unless(b, equal(nargs, n), missed)
    found = b.call(look, [plan, args, objects, sources])
    unless(b, b.icmp_unsigned("!=", found, I64(MISSED)), missed)
    unless(b, equal(found, I64(FITS)), scattered)
    with loop(0, Int(b, n)) as i:
        b.call(incref, [word(b, objects, i.value)])

    # new arrays for the results
    new_array = b.inttoptr(word(b, known, NEW_ARRAY), ir.FunctionType(
        I64, [I64, I64, ir.IntType(32), I64, I64, I64, ir.IntType(32), I64]).as_pointer())
    with loop(0, Int(b, made)) as i:
        set_word(b, zero, arrays, i.value)
    with loop(0, Int(b, made)) as i:
        item = b.add(first_result, b.mul(i.value, I64(8 * ITEM)))
        with b.if_then(equal(word(b, item, COPY), zero)):
            make = word(b, item, MAKE)
            with b.if_else(some(make)) as (large, small):
                with large:
                    made_large = b.call(invoke, [make])
                    after_large = b.block
                with small:
                    dtype = word(b, item, DTYPE)
                    b.call(incref, [dtype])  # NumPy takes it over
                    made_small = b.call(new_array, [
                        word(b, known, NDARRAY), dtype, b.trunc(word(b, item, NDIM), ir.IntType(32)),
                        word(b, item, SHAPE), zero, zero, ir.IntType(32)(0), zero])
                    after_small = b.block
            array = b.phi(I64)
            array.add_incoming(made_large, after_large)
            array.add_incoming(made_small, after_small)
            set_word(b, array, arrays, i.value)
            unless(b, some(array), failed)

    # the program's turn: nobody else is in the arena
    answer = b.call(invoke, [word(b, plan, TRY)])
    unless(b, some(answer), failed)
    b.call(decref, [answer])
    unless(b, equal(answer, word(b, plan, FREE)), undone)
    with loop(0, Int(b, n)) as i:
        item = b.add(first, b.mul(i.value, I64(8 * ITEM)))
        place, source = word(b, item, PLACE), word(b, sources, i.value)
        with b.if_else(equal(word(b, item, DTYPE), zero)) as (as_float, as_array):
            with as_float:
                double = b.call(python(module, "PyFloat_AsDouble", ir.DoubleType(), I64), [source])
                b.store(double, b.inttoptr(place, ir.DoubleType().as_pointer()))
            with as_array, b.if_else(some(place)) as (small, large):
                with small:
                    copy_bytes(b, place, source, word(b, item, NBYTES))
                with large:
                    b.call(point, [item, source])
    with loop(0, Int(b, made)) as i:
        item = b.add(first_result, b.mul(i.value, I64(8 * ITEM)))
        with b.if_then(some(word(b, item, SLOTS))):
            b.call(point, [item, word(b, word(b, arrays, i.value), ARRAY_DATA)])
    block = b.call(ask, [plan])
    unless(b, b.icmp_signed("!=", block, I64(FAILED)), broken)
    run = [word(b, plan, TABLE), word(b, plan, ROWS), word(b, plan, STATUS), block]
    with b.if_else(some(word(b, plan, OUTSIDE))) as (without_gil, with_gil):
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
    b.call(give_back, [block])
    finished = equal(stopped, I64(-1))
    with b.if_else(finished) as (well, refused):
        with well, loop(0, Int(b, made)) as i:
            item = b.add(first_result, b.mul(i.value, I64(8 * ITEM)))
            copy, place = word(b, item, COPY), word(b, item, PLACE)
            with b.if_else(some(copy)) as (by_python, in_order):
                with by_python:
                    source = word(b, item, SOURCE)
                    with b.if_else(b.icmp_signed("<", source, zero)) as (of_none, of_one):
                        with of_none:
                            set_word(b, b.call(invoke, [copy]), arrays, i.value)
                        with of_one:
                            invoke_on = python(module, "PyObject_CallOneArg", I64, I64, I64)
                            set_word(b, b.call(invoke_on, [copy, word(b, objects, source)]), arrays, i.value)
                    unless(b, some(word(b, arrays, i.value)), broken)
                with in_order, b.if_then(some(place)):  # else kernels have written it
                    target = word(b, word(b, arrays, i.value), ARRAY_DATA)
                    copy_bytes(b, target, place, word(b, item, NBYTES))
        with refused:  # no state was changed: the long way runs it again, and says what is wrong
            set_word(b, zero, word(b, plan, STATUS), 0)
    b.call(quietly, [word(b, plan, RELEASE)])
    unless(b, finished, undone)
    written = word(b, plan, WRITTEN)
    with b.if_then(some(written)):
        stamp = b.call(python(module, "PyIter_Next", I64, I64), [word(b, known, TICKS)])
        b.call(python(module, "PyList_SetItem", ir.IntType(32), I64, I64, I64), [written, zero, stamp])
    with loop(0, Int(b, n)) as i:
        argument = word(b, objects, i.value)
        set_word(b, zero, objects, i.value)
        b.call(decref, [argument])

    # tensors around the results
    one, several = function.append_basic_block("one"), function.append_basic_block("several")
    b.cbranch(equal(word(b, plan, SINGLE), zero), several, one)
    b.position_at_end(one)
    tensor = b.call(wrap, [known, word(b, arrays, 0)])
    b.ret(tensor)
    b.position_at_end(several)
    out = b.call(python(module, "PyList_New", I64, I64), [made])
    unless(b, some(out), failed)
    with loop(0, Int(b, made)) as i:
        array = word(b, arrays, i.value)
        set_word(b, zero, arrays, i.value)
        tensor = b.call(wrap, [known, array])
        unless(b, some(tensor), dropped)
        b.call(python(module, "PyList_SetItem", ir.IntType(32), I64, I64, I64), [out, i.value, tensor])
    b.ret(out)
    b.position_at_end(dropped)
    b.call(decref, [out])
    b.branch(failed)

    b.position_at_end(missed)
    b.call(incref, [miss])
    b.ret(miss)
    b.position_at_end(scattered)
    none = word(b, known, NONE)
    b.call(incref, [none])
    b.ret(none)
    b.position_at_end(broken)
    b.call(quietly, [word(b, plan, RELEASE)])
    b.branch(failed)
    for end, result in ((undone, miss), (failed, zero)):
        b.position_at_end(end)
        with loop(0, Int(b, total)) as i:
            b.call(decref, [word(b, objects, i.value)])
        b.call(incref, [result])
        b.ret(result)
    return function


def _emit_look(module: ir.Module) -> ir.Function:
    """int64 look(plan, args, PyObject **objects, int64 *sources): whether the arguments are what the plan is for.

    It notes their arrays, 0 for a Python float, and where their numbers are: the addresses of arrays' elements, floats.
    """
    function = ir.Function(module, ir.FunctionType(I64, [I64] * 4), "look")
    plan, args, objects, sources = function.args
    b = ir.IRBuilder(function.append_basic_block("begin"))
    missed, scattered = (function.append_basic_block(name) for name in ("missed", "scattered"))
    known = word(b, plan, WORLD)

    def must_equal(x: Any, y: Any) -> None:
        unless(b, b.icmp_unsigned("==", x, y), missed)

    with loop(0, Int(b, word(b, plan, ARGUMENTS))) as i:
        item = b.add(plan, b.add(b.mul(i.value, I64(8 * ITEM)), I64(8 * HEAD)))
        argument = word(b, args, i.value)
        number = b.icmp_unsigned("==", word(b, item, DTYPE), I64(0))
        with b.if_else(number) as (as_float, as_array):
            with as_float:
                must_equal(word(b, argument, TYPE), word(b, known, FLOAT))
                set_word(b, I64(0), objects, i.value)
                after_float = b.block
            with as_array:
                outside = b.block
                with b.if_then(b.icmp_unsigned("==", word(b, argument, TYPE), word(b, known, TENSOR))):
                    value = word(b, argument, word(b, known, TENSOR_VALUE))
                    must_equal(word(b, value, word(b, known, VALUE_REQUIRES_GRAD)), word(b, known, FALSE))
                    must_equal(word(b, value, word(b, known, VALUE_TRACE)), word(b, known, NONE))
                    inside = word(b, value, word(b, known, VALUE_DATA))
                    after_tensor = b.block
                array = b.phi(I64)
                array.add_incoming(argument, outside)
                array.add_incoming(inside, after_tensor)
                must_equal(word(b, array, TYPE), word(b, known, NDARRAY))
                must_equal(word(b, array, ARRAY_DTYPE), word(b, item, DTYPE))
                axes = word(b, item, NDIM)
                must_equal(b.and_(word(b, array, ARRAY_NDIM), I64(0xFFFFFFFF)), axes)
                lengths, shape = word(b, array, ARRAY_SHAPE), word(b, item, SHAPE)
                with loop(0, Int(b, axes)) as axis:
                    must_equal(word(b, lengths, axis.value), word(b, shape, axis.value))
                with b.if_then(b.icmp_unsigned("==", word(b, item, PLACE), I64(0))):  # one that is not copied
                    buffers = word(b, plan, BUFFERS)
                    with loop(0, Int(b, word(b, plan, N_BUFFERS))) as j:
                        unless(b, b.icmp_unsigned("!=", word(b, buffers, j.value), array), missed)
                flags = b.and_(word(b, array, ARRAY_FLAGS), I64(CONTIGUOUS))
                unless(b, b.icmp_unsigned("==", flags, I64(CONTIGUOUS)), scattered)
                set_word(b, array, objects, i.value)
                data = word(b, array, ARRAY_DATA)
                after_array = b.block
        source = b.phi(I64)
        source.add_incoming(argument, after_float)
        source.add_incoming(data, after_array)
        set_word(b, source, sources, i.value)
    b.ret(I64(FITS))
    for end, found in ((missed, MISSED), (scattered, SCATTERED)):
        b.position_at_end(end)
        b.ret(I64(found))
    return function
