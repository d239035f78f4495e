"""Whether names, cells and containers still hold what they held, all compared in one native call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from graphjit.kernels.emit import Int, loop
from graphjit.op import Array
from graphjit.runtime.builtin import ARRAY_DATA, CELL_CONTENTS, I64, LIST_ITEMS, LIST_SIZE, python, set_word, word

# kinds of checks, and what their three words are
CELL = 0   # a cell, what it held
NAME = 1   # a dict, a key, its value, 0 for none
OTHER = 2  # another mapping, a key, its value, 0 for none
LIST = 3   # a list, how many elements it held, the address of theirs
DICT = 4   # a dict, how many entries it held, the address of their keys' and values'
SET = 5    # a set, how many elements it held, the address of theirs
KINDS: dict[type, int] = {list: LIST, dict: DICT, set: SET}  # of containers
CHECK = 4  # words


def plan_checks(names: Sequence[tuple[Mapping[str, Any], str, object]], cells: Sequence[tuple[Any, object]],
                containers: Sequence[tuple[Any, Any]], empty: object) -> tuple[Array, list[object]]:
    """The checks as words, and what must stay alive with them.

    Args:
        names: mappings, names in them, and what these held.
        cells: cells and what they held.
        containers: of the types in KINDS, with their copies.
        empty: held by a name or cell that held nothing.
    """
    words = [len(names) + len(cells) + len(containers)]
    kept: list[object] = [names, cells, containers]
    for cell, held in cells:
        words += [CELL, id(cell), 0 if held is empty else id(held), 0]
    for mapping, name, held in names:
        words += [NAME if type(mapping) is dict else OTHER, id(mapping), id(name), 0 if held is empty else id(held)]
    for it, copy in containers:
        ids = [id(x) for pair in copy.items() for x in pair] if type(it) is dict else list(map(id, copy))
        elements = np.array(ids, np.int64)
        kept.append(elements)
        words += [KINDS[type(it)], id(it), len(copy), elements.ctypes.data]
    return np.array(words, np.int64), kept


def emit_holds(module: ir.Module) -> ir.Function:
    """PyObject *holds(PyObject *plan, PyObject *const *args, Py_ssize_t nargs): True or False."""
    function = ir.Function(module, ir.FunctionType(I64, [I64] * 3), "holds")
    b = ir.IRBuilder(function.append_basic_block("begin"))
    other = function.append_basic_block("other")
    zero = I64(0)

    def unless(condition: Any) -> None:
        go = b.append_basic_block("go")
        b.cbranch(condition, go, other)
        b.position_at_end(go)

    def equal(x: Any, y: Any) -> Any:
        return b.icmp_unsigned("==", x, y)

    plan = word(b, function.args[0], ARRAY_DATA)
    place = b.alloca(I64, 3)
    position, key, value = (b.ptrtoint(b.gep(place, [I64(i)]), I64) for i in range(3))
    n = word(b, plan, 0)
    with loop(0, Int(b, n)) as i:
        check = b.add(plan, b.add(b.mul(i.value, I64(8 * CHECK)), I64(8)))
        kind, it, first, second = (word(b, check, w) for w in range(CHECK))
        after = b.append_basic_block("after")
        cases = [b.append_basic_block("case") for _ in range(6)]
        switch = b.switch(kind, other)
        for case in range(len(cases)):
            switch.add_case(I64(case), cases[case])

        b.position_at_end(cases[CELL])
        unless(equal(word(b, it, CELL_CONTENTS), first))
        b.branch(after)

        b.position_at_end(cases[NAME])
        unless(equal(b.call(python(module, "PyDict_GetItemWithError", I64, I64, I64), [it, first]), second))
        b.branch(after)

        b.position_at_end(cases[OTHER])
        found = b.call(python(module, "PyObject_GetItem", I64, I64, I64), [it, first])
        b.call(python(module, "Py_DecRef", ir.VoidType(), I64), [found])
        with b.if_then(equal(found, zero)):
            b.call(python(module, "PyErr_Clear", ir.VoidType()), [])
        unless(equal(found, second))
        b.branch(after)

        b.position_at_end(cases[LIST])
        unless(equal(word(b, it, LIST_SIZE), first))
        items = word(b, it, LIST_ITEMS)
        with loop(0, Int(b, first)) as j:
            unless(equal(word(b, items, j.value), word(b, second, j.value)))
        b.branch(after)

        b.position_at_end(cases[DICT])
        unless(equal(b.call(python(module, "PyDict_Size", I64, I64), [it]), first))
        set_word(b, zero, position, 0)
        with loop(0, Int(b, first)) as j:
            b.call(python(module, "PyDict_Next", ir.IntType(32), I64, I64, I64, I64), [it, position, key, value])
            pair = b.add(second, b.mul(j.value, I64(16)))
            unless(b.and_(equal(word(b, key, 0), word(b, pair, 0)), equal(word(b, value, 0), word(b, pair, 1))))
        b.branch(after)

        b.position_at_end(cases[SET])
        unless(equal(b.call(python(module, "PySet_Size", I64, I64), [it]), first))
        with loop(0, Int(b, first)) as j:
            element = word(b, second, j.value)
            inside = b.call(python(module, "PySet_Contains", ir.IntType(32), I64, I64), [it, element])
            with b.if_then(equal(inside, ir.IntType(32)(-1))):
                b.call(python(module, "PyErr_Clear", ir.VoidType()), [])
            unless(equal(inside, ir.IntType(32)(1)))
        b.branch(after)

        b.position_at_end(after)
    truth = python(module, "PyBool_FromLong", I64, I64)
    b.ret(b.call(truth, [I64(1)]))
    b.position_at_end(other)
    b.ret(b.call(truth, [zero]))
    return function
