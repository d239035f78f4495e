"""What a worker thread does: take part in jobs, sleep when there are none, rest where it is not wanted.

A worker looks for jobs for about a millisecond after the last one, then sleeps until a caller wakes it. Where other
processes want the cores as well, sharing can cost more than it saves: a worker that has begun something and loses its
core keeps the caller waiting, or it takes the core the caller would run on. A worker notices: the caller slept until it
was done, or it let others have its core and came back late. Then it sleeps at once, and if that happens often, it
is left to rest for some times as long as what was lost, and for twice as long each time that it goes wrong again.
"""

from __future__ import annotations

from llvmlite import ir

from graphjit.kernels.emit import Int, loop
from graphjit.runtime.denormal import read_mode, write_mode
from graphjit.runtime.sharing import (
    ASLEEP,
    JOB,
    LIMIT,
    LINE,
    LOCK,
    LOOKS,
    MODE,
    OPEN,
    PART,
    REST,
    SINCE,
    SLEEPS,
    STOPPED,
    TIMES,
)
from graphjit.runtime.spin import I64, free, give_way, pause, place, take, ticks

MOST = 64  # times as long as what was lost a worker rests at most


def emit_wake(module: ir.Module) -> ir.Function:
    """int64 wake(int64 *pool, now): wake the workers that sleep and need not rest any more; how many are awake."""
    function = ir.Function(module, ir.FunctionType(I64, [I64.as_pointer(), I64]), "wake")
    pool, now = function.args
    b = ir.IRBuilder(function.append_basic_block("begin"))
    awake = b.alloca(I64)
    b.store(I64(0), awake)
    with loop(1, Int(b, b.load(place(b, pool, LIMIT)))) as thread:
        own = place(b, pool, PART, b.mul(thread.value, I64(LINE)))
        sleeps = b.icmp_signed("!=", b.load_atomic(place(b, own, SLEEPS), "acquire", 8), I64(0))
        rested = b.icmp_unsigned(">=", b.sub(now, b.load(place(b, own, SINCE))), b.load(place(b, own, REST)))
        with b.if_then(b.and_(sleeps, rested)):
            _rouse(b, pool, own)
        b.store(b.add(b.load(awake), b.zext(b.or_(b.not_(sleeps), rested), I64)), awake)
    b.ret(b.load(awake))
    return function


def _rouse(b: ir.IRBuilder, pool: ir.Value, own: ir.Value) -> None:
    """End a worker's sleep, unless someone else has just done so."""
    slept = b.atomic_rmw("xchg", place(b, own, SLEEPS), I64(0), "acq_rel")
    with b.if_then(b.icmp_signed("!=", slept, I64(0))):
        b.atomic_rmw("sub", place(b, pool, ASLEEP), I64(1), "acq_rel")
        free(b, b.load(place(b, own, LOCK)))


def _emit_rest(module: ir.Module) -> ir.Function:
    """void rest(int64 *own, lost, times): note in a worker's line how long it has to rest for these ticks lost.

    Not at all if nothing was lost for so many times as long.
    """
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64.as_pointer(), I64, I64]), "rest")
    own, lost, times = function.args
    b = ir.IRBuilder(function.append_basic_block("begin"))

    def larger(x: ir.Value, y: ir.Value) -> ir.Value:
        return b.select(b.icmp_unsigned(">", x, y), x, y)

    def smaller(x: ir.Value, y: ir.Value) -> ir.Value:
        return b.select(b.icmp_unsigned("<", x, y), x, y)
    now, last = ticks(b), b.load(place(b, own, REST))
    well = b.sub(b.sub(now, lost), b.add(b.load(place(b, own, SINCE)), last))  # since the end of the last rest
    again = b.select(b.icmp_unsigned("<", well, last), b.shl(last, I64(1)), I64(0))
    much = b.mul(lost, times)
    length = smaller(larger(much, again), b.mul(lost, I64(MOST)))
    b.store(b.select(b.icmp_unsigned(">", well, much), I64(0), length), place(b, own, REST))
    b.store(now, place(b, own, SINCE))
    b.ret_void()
    return function


def emit_work(module: ir.Module, claim: ir.Function) -> ir.Function:
    """int64 work(int64 pool, int64 thread, int64 patience, int64 unused): take part until the pool is stopped."""
    rest = _emit_rest(module)
    function = ir.Function(module, ir.FunctionType(I64, [I64] * 4), "work")
    address, thread, patience, _ = function.args
    b = ir.IRBuilder(function.append_basic_block("begin"))
    look, enter, idle, way, sleep, done = (function.append_basic_block(name) for name in (
        "look", "enter", "idle", "way", "sleep", "done"))
    pool = b.inttoptr(address, I64.as_pointer())
    own = place(b, pool, PART, b.mul(thread, I64(LINE)))
    # looks in vain, the last job's number, a time before all looks, the floating-point mode
    looks, last, since, mode = (b.alloca(I64) for _ in range(4))
    b.store(I64(0), last)
    b.store(read_mode(b), mode)

    def look_anew() -> None:
        b.store(I64(0), looks)
        b.store(ticks(b), since)
        b.branch(look)

    def offered() -> tuple[ir.Value, ir.Value]:
        number = b.load_atomic(place(b, pool, OPEN), "seq_cst", 8)
        return number, b.and_(b.icmp_signed("!=", number, I64(0)), b.icmp_signed("!=", number, b.load(last)))
    look_anew()

    b.position_at_end(look)
    number, fresh = offered()
    b.cbranch(fresh, enter, idle)

    b.position_at_end(enter)
    *job, how = (b.load_atomic(place(b, pool, word), "acquire", 8) for word in JOB)
    with b.if_then(b.icmp_signed("!=", b.load_atomic(place(b, pool, OPEN), "acquire", 8), number), likely=False):
        b.branch(look)
    b.store(number, last)
    threads, wanted = b.and_(how, I64((1 << MODE) - 1)), b.lshr(how, I64(MODE))
    with b.if_then(b.icmp_signed("<", thread, threads)):
        with b.if_then(b.icmp_signed("!=", wanted, b.load(mode)), likely=False):
            b.store(wanted, mode)
            write_mode(b, wanted)
        late = b.call(claim, [pool, thread, number, *job, threads])
        with b.if_then(b.icmp_signed("!=", late, I64(0)), likely=False):
            b.call(rest, [own, late, b.load(place(b, pool, TIMES))])
            b.branch(sleep)
    look_anew()

    b.position_at_end(idle)
    pause(b)
    more = b.add(b.load(looks), I64(1))
    b.store(more, looks)
    stopped = b.icmp_signed("!=", b.load_atomic(place(b, pool, STOPPED), "monotonic", 8), I64(0))
    with b.if_then(stopped, likely=False):
        b.branch(done)
    b.cbranch(b.icmp_signed("==", b.urem(more, I64(LOOKS)), I64(0)), way, look)

    b.position_at_end(way)
    with b.if_then(b.icmp_signed(">=", more, patience), likely=False):
        b.branch(sleep)
    before = ticks(b)
    give_way(b)
    after = ticks(b)
    away = b.sub(after, before)
    with b.if_then(b.icmp_unsigned(">", away, b.sub(before, b.load(since))), likely=False):
        b.call(rest, [own, away, b.load(place(b, pool, TIMES))])
        b.branch(sleep)
    b.store(after, since)
    b.branch(look)

    b.position_at_end(sleep)
    b.atomic_rmw("xchg", place(b, own, SLEEPS), I64(1), "seq_cst")
    b.atomic_rmw("add", place(b, pool, ASLEEP), I64(1), "seq_cst")
    _, fresh = offered()  # by a caller who may not have seen this: or else it sees it now
    with b.if_then(b.and_(fresh, b.icmp_signed("==", b.load(place(b, own, REST)), I64(0)))):
        _rouse(b, pool, own)
    take(b, b.load(place(b, own, LOCK)))
    look_anew()

    b.position_at_end(done)
    b.ret(I64(0))
    return function
