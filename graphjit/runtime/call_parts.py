"""Native code of a call's parts: who runs the rows with it, where kernels find arrays, tensors around results."""

from __future__ import annotations

import functools

from llvmlite import ir

from graphjit.kernels.emit import Int, loop
from graphjit.runtime import sharing
from graphjit.runtime.builtin import I64, TYPE, python, set_word, word
from graphjit.runtime.calling import (
    DESK,
    FALSE,
    NEW_TENSOR,
    NEW_VALUE,
    POINTED,
    POOL,
    SLOTS,
    TENSOR_VALUE,
    TENSOR_WORDS,
    THREADS,
    TICKS,
    VALUE_DATA,
    VALUE_STAMP,
    VALUE_WORDS,
    WORLD,
)

FAILED = -1  # what ``ask`` gives with a Python error


def emit_ask(module: ir.Module) -> ir.Function:
    """int64 ask(plan): the control block of the pool, which is this program's now; 0 for none (see ``Pool.ask``)."""
    function = ir.Function(module, ir.FunctionType(I64, [I64]), "ask")
    [plan] = function.args
    b = ir.IRBuilder(function.append_basic_block("begin"))
    alone, failed = (function.append_basic_block(name) for name in ("alone", "failed"))
    invoke, zero = python(module, "PyObject_CallNoArgs", I64, I64), I64(0)
    desk = word(b, plan, DESK)
    unless(b, b.icmp_unsigned("!=", desk, zero), alone)
    with b.if_then(b.icmp_unsigned("==", word(b, desk, 0), zero)):
        found = b.call(invoke, [word(b, plan, POOL)])
        unless(b, b.icmp_unsigned("!=", found, zero), failed)
        b.call(count(module, "Py_DecRef"), [found])
    block = word(b, desk, 0)
    unless(b, b.icmp_unsigned("!=", block, zero), alone)
    free = b.call(invoke, [word(b, block, sharing.TRY)])
    unless(b, b.icmp_unsigned("!=", free, zero), failed)
    b.call(count(module, "Py_DecRef"), [free])
    unless(b, b.icmp_unsigned("!=", free, word(b, word(b, plan, WORLD), FALSE)), alone)
    b.call(count(module, "Py_IncRef"), [word(b, block, sharing.OWNER)])  # it may be stopped meanwhile
    limit, threads = word(b, plan, THREADS), word(b, block, sharing.THREADS)
    set_word(b, b.select(b.icmp_signed("<", limit, threads), limit, threads), block, sharing.LIMIT)
    b.ret(block)
    b.position_at_end(alone)
    b.ret(zero)
    b.position_at_end(failed)
    b.ret(I64(FAILED))
    return function


def emit_give_back(module: ir.Module, quietly: ir.Function) -> ir.Function:
    """void give_back(block): end of the program's use of the pool; there may be none."""
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64]), "give_back")
    [block] = function.args
    b = ir.IRBuilder(function.append_basic_block("begin"))
    with b.if_then(b.icmp_unsigned("!=", block, I64(0))):
        b.call(quietly, [word(b, block, sharing.RELEASE)])
        b.call(count(module, "Py_DecRef"), [word(b, block, sharing.OWNER)])
    b.ret_void()
    return function


def emit_quietly(module: ir.Module) -> ir.Function:
    """void quietly(PyObject *release): call it, unless it is null, and leave an error that there is as it is."""
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64]), "quietly")
    [release] = function.args
    b = ir.IRBuilder(function.append_basic_block("begin"))
    place = b.alloca(I64, 3)
    error = [b.ptrtoint(b.gep(place, [I64(i)]), I64) for i in range(3)]
    with b.if_then(b.icmp_unsigned("!=", release, I64(0))):
        b.call(python(module, "PyErr_Fetch", ir.VoidType(), I64, I64, I64), error)
        b.call(count(module, "Py_DecRef"), [b.call(python(module, "PyObject_CallNoArgs", I64, I64), [release])])
        b.call(python(module, "PyErr_Restore", ir.VoidType(), I64, I64, I64), [word(b, it, 0) for it in error])
    b.ret_void()
    return function


def emit_point(module: ir.Module) -> ir.Function:
    """void point(item, data): let kernels use the array of an argument or a result at this address."""
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * 2), "point")
    item, data = function.args
    b = ir.IRBuilder(function.append_basic_block("begin"))
    done = function.append_basic_block("done")
    slots, pairs = word(b, item, SLOTS), word(b, item, POINTED)
    unless(b, b.icmp_unsigned("!=", slots, I64(0)), done)
    there = b.icmp_unsigned("==", word(b, word(b, pairs, 0), 0), b.add(data, word(b, pairs, 1)))
    unless(b, b.not_(there), done)  # one points there: all do. To write would take the slots from other cores' caches
    with loop(0, Int(b, slots)) as i:
        pair = b.add(pairs, b.mul(i.value, I64(16)))
        set_word(b, b.add(data, word(b, pair, 1)), word(b, pair, 0), 0)
    b.branch(done)
    b.position_at_end(done)
    b.ret_void()
    return function


def unless(b: ir.IRBuilder, condition: ir.Value, otherwise: ir.Block) -> None:
    """Go on where the condition holds, else there."""
    go = b.append_basic_block("go")
    b.cbranch(condition, go, otherwise)
    b.position_at_end(go)


def emit_wrap(module: ir.Module) -> ir.Function:
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
        b.call(count(module, "Py_DecRef"), [before])
    b.ret(tensor)
    b.position_at_end(failed)
    for it in (array, value, tensor, stamp):
        b.call(count(module, "Py_DecRef"), [it])
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
        b.call(count(module, "Py_IncRef"), [held])
        set_word(b, held, out, i.value)
    b.ret(out)
    return function


def count(module: ir.Module, name: str) -> ir.Function:
    """Py_IncRef or Py_DecRef, which take no object as well."""
    return python(module, name, ir.VoidType(), I64)


def copy_bytes(b: ir.IRBuilder, target: ir.Value, source: ir.Value, nbytes: ir.Value) -> None:
    kind = ir.IntType(8).as_pointer()
    made = python(b.module, "memcpy", kind, kind, kind, I64)
    b.call(made, [b.inttoptr(target, kind), b.inttoptr(source, kind), nbytes])
