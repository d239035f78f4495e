"""How the units of one row are shared out among threads.

The control block is some int64 words, each group on cache lines of its own:

    OPEN...    the job on offer, on one line: its number, and entry, slots, start, stop, grain, slots stride, threads
    STOPPED    whether workers are to end
    LIMIT...   words of the program that uses the pool, and of who wants it: see ``threads.Pool``
    PART       for each thread, on a line of its own, how far its part of the job is: the job's number << 16, how many
               chunks no one has claimed << 8, how many are not done

The units are cut into chunks of ``grain``, and these into one part for each thread: the same places of arrays go to the
same core, row after row, and so stay in its cache. A thread takes its own part's chunks, then what others have left.
A part of an older job counts as untouched. The caller goes on when all parts say that nothing of this job is left or
open. It never waits for a thread that has not begun: a worker that is not scheduled costs nothing, and cannot deadlock.

A worker that comes late can do no harm: it claims by comparing and swapping a part's word, and when a job is over
every part bears its number, with nothing left. The number is 0 while the words of a job change, so that what a worker
read between two looks at the same number is one job's.
"""

from __future__ import annotations

import platform

from llvmlite import ir

from graphjit.kernels.emit import Int, loop
from graphjit.runtime.builtin import python

I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
ENTRY = ir.FunctionType(ir.VoidType(), [I64.as_pointer(), I64, I64])

LINE = 16  # words between groups: two cache lines, as they are fetched in pairs
OPEN, STOPPED, LIMIT, PART = (i * LINE for i in range(4))
JOB = range(OPEN + 1, OPEN + 8)
THREADS, OWNER, TRY, RELEASE, ASLEEP, CROWDED, PAUSED, PAUSE, REST = range(LIMIT + 1, LIMIT + 10)
SLEEPS, LOCK = 1, 2  # words of a thread's line, behind its part
WAITED = 128  # added to a part's word: the caller sleeps until it is done
LOOKS = 512
TIMES = 16
MOST = 64


def words(threads: int) -> int:
    """The length of a control block."""
    return PART + threads * LINE


def emit_claim(module: ir.Module) -> ir.Function:
    """int1 claim(int64 *pool, thread, number, entry, slots, start, stop, grain, stride, threads): run chunks of a job
    until none is left, one's own first. Whether the caller slept until one was done."""
    function = ir.Function(module, ir.FunctionType(I1, [I64.as_pointer()] + [I64] * 9), "claim")
    pool, thread, number, entry, slots, start, stop, grain, stride, threads = function.args
    begin, part, look, old, new, swap, body, run, after, done = (function.append_basic_block(name) for name in (
        "begin", "part", "look", "old", "new", "swap", "body", "run", "after", "done"))
    b = ir.IRBuilder(begin)
    own = b.inttoptr(b.add(slots, b.mul(thread, stride)), I64.as_pointer())
    kernel = b.inttoptr(entry, ENTRY.as_pointer())
    chunks = b.udiv(b.add(b.sub(stop, start), b.sub(grain, I64(1))), grain)
    b.branch(part)

    b.position_at_end(part)
    turn = b.phi(I64)
    turn.add_incoming(I64(0), begin)
    late = b.phi(I1)
    late.add_incoming(I1(0), begin)
    owner = b.add(thread, turn)
    owner = b.select(b.icmp_signed(">=", owner, threads), b.sub(owner, threads), owner)
    first, last = (b.udiv(b.mul(b.add(owner, I64(i)), chunks), threads) for i in range(2))
    size = b.sub(last, first)
    word = _word(b, pool, b.add(I64(PART), b.mul(owner, I64(LINE))))
    b.branch(look)

    b.position_at_end(look)
    later = b.phi(I1)
    later.add_incoming(late, part)
    seen = b.load_atomic(word, "acquire", 8)
    b.cbranch(b.icmp_signed("<", b.ashr(seen, I64(16)), number), new, old)

    b.position_at_end(old)  # of this job, or of a later one, when this is over
    left = b.and_(b.ashr(seen, I64(8)), I64(255))
    mine = b.icmp_signed("==", b.ashr(seen, I64(16)), number)
    b.cbranch(b.and_(mine, b.icmp_signed("!=", left, I64(0))), swap, after)

    b.position_at_end(new)
    untouched = b.or_(b.shl(number, I64(16)), b.mul(size, I64(257)))
    b.branch(swap)

    b.position_at_end(swap)
    state = b.phi(I64)
    state.add_incoming(seen, old)
    state.add_incoming(untouched, new)
    rest = b.and_(b.ashr(state, I64(8)), I64(255))
    some = b.icmp_signed("!=", rest, I64(0))
    claimed = b.cmpxchg(word, seen, b.select(some, b.sub(state, I64(256)), state), "acq_rel", "acquire")
    later.add_incoming(later, swap)
    b.cbranch(b.extract_value(claimed, 1), body, look)

    b.position_at_end(body)  # a part may have no chunks
    b.cbranch(some, run, after)

    b.position_at_end(run)
    unit = b.add(start, b.mul(b.sub(last, rest), grain))
    end = b.add(unit, grain)
    b.call(kernel, [own, unit, b.select(b.icmp_signed("<", end, stop), end, stop)])
    before = b.atomic_rmw("sub", word, I64(1), "acq_rel")
    waited = b.icmp_signed("==", b.and_(before, I64(255)), I64(WAITED | 1))
    with b.if_then(waited, likely=False):
        b.call(_release(module), [b.load(_word(b, pool, REST))])
    later.add_incoming(b.or_(later, waited), b.block)
    b.branch(look)

    b.position_at_end(after)
    latest = b.phi(I1)
    for block in (old, body):
        latest.add_incoming(later, block)
    following = b.add(turn, I64(1))
    turn.add_incoming(following, after)
    late.add_incoming(latest, after)
    b.cbranch(b.icmp_signed("<", following, threads), part, done)

    b.position_at_end(done)
    b.ret(latest)
    return function


def emit_share(module: ir.Module, claim: ir.Function, wake: ir.Function, rest: ir.Function) -> ir.Function:
    """void share(int64 pool, entry, slots, start, stop, grain, stride): run one row with the pool's help.

    A negative grain says that the last unit is for the caller, when all others are done.
    """
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * 7), "share")
    address, entry, slots, start, stop, grain, stride = function.args
    begin, alone, fork, part, wait, tired, sleep, slept, following, done = (function.append_basic_block(name) for name in (
        "begin", "alone", "fork", "part", "wait", "tired", "sleep", "slept", "following", "done"))
    b = ir.IRBuilder(begin)
    pool = b.inttoptr(address, I64.as_pointer())
    run, own = b.inttoptr(entry, ENTRY.as_pointer()), b.inttoptr(slots, I64.as_pointer())
    threads = b.load(_word(b, pool, LIMIT))
    opened = _ticks(b)
    pause = b.load(_word(b, pool, PAUSE))
    b.cbranch(b.icmp_unsigned("<", b.sub(opened, b.load(_word(b, pool, PAUSED))), pause), alone, fork)

    b.position_at_end(alone)
    b.call(run, [own, start, stop])
    b.ret_void()

    b.position_at_end(fork)
    with b.if_then(b.icmp_signed("!=", b.load_atomic(_word(b, pool, ASLEEP), "monotonic", 8), I64(0)), likely=False):
        crowded = b.atomic_rmw("xchg", _word(b, pool, CROWDED), I64(0), "monotonic")
        with b.if_else(b.icmp_signed("==", crowded, I64(0))) as (calm, busy):
            with calm:
                b.call(wake, [pool])
            with busy:
                b.call(rest, [pool, opened, crowded])
    tail = b.icmp_signed("<", grain, I64(0))
    grain = b.select(tail, b.neg(grain), grain)
    end = b.sub(stop, b.zext(tail, I64))
    number = b.add(b.load(_word(b, pool, OPEN)), I64(1))
    job = (entry, slots, start, end, grain, stride, threads)
    for word, value in zip((OPEN, *JOB, OPEN), (I64(0), *job, number), strict=True):
        b.store_atomic(value, _word(b, pool, word), "release", 8)
    b.call(claim, [pool, I64(0), number, *job])
    over = b.shl(number, I64(16))
    ready = b.block
    b.branch(part)

    b.position_at_end(part)
    turn = b.phi(I64)
    turn.add_incoming(I64(0), ready)
    where = _word(b, pool, b.add(I64(PART), b.mul(turn, I64(LINE))))
    waiting = _ticks(b)
    b.cbranch(b.icmp_signed("==", b.load_atomic(where, "acquire", 8), over), following, wait)

    b.position_at_end(wait)
    looks = b.phi(I64)
    looks.add_incoming(I64(0), part)
    _pause(b)
    more = b.add(looks, I64(1))
    looks.add_incoming(more, tired)
    b.cbranch(b.icmp_signed("==", b.load_atomic(where, "acquire", 8), over), following, tired)

    b.position_at_end(tired)
    long = b.icmp_unsigned(">", b.sub(_ticks(b), waiting), b.sub(waiting, opened))
    b.cbranch(b.and_(long, b.icmp_signed(">", more, I64(LOOKS))), sleep, wait)

    b.position_at_end(sleep)
    state = b.atomic_rmw("or", where, I64(WAITED), "acq_rel")
    b.cbranch(b.icmp_signed("==", b.and_(state, I64(WAITED - 1)), I64(0)), following, slept)

    b.position_at_end(slept)
    b.call(_acquire(module), [b.load(_word(b, pool, REST)), I32(1)])
    b.call(rest, [pool, opened, b.sub(_ticks(b), waiting)])
    b.branch(following)

    b.position_at_end(following)
    more = b.add(turn, I64(1))
    turn.add_incoming(more, following)
    b.cbranch(b.icmp_signed("<", more, threads), part, done)

    b.position_at_end(done)
    with b.if_then(tail):
        b.call(run, [own, end, stop])
    b.ret_void()
    return function


def emit_rest(module: ir.Module) -> ir.Function:
    """void rest(int64 *pool, opened, lost): what sharing has cost just now says how long to leave it."""
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64.as_pointer(), I64, I64]), "rest")
    pool, opened, lost = function.args
    b = ir.IRBuilder(function.append_basic_block("begin"))
    pause = b.load(_word(b, pool, PAUSE))
    much = b.mul(lost, I64(TIMES))
    well = b.sub(opened, b.add(b.load(_word(b, pool, PAUSED)), pause))
    longer = b.select(b.icmp_unsigned("<", well, pause), b.shl(pause, I64(1)), I64(0))
    longer = b.select(b.icmp_unsigned(">", longer, much), longer, much)
    most = b.mul(lost, I64(MOST))
    longer = b.select(b.icmp_unsigned("<", longer, most), longer, most)
    b.store(_ticks(b), _word(b, pool, PAUSED))
    b.store(b.select(b.icmp_unsigned(">", well, much), I64(0), longer), _word(b, pool, PAUSE))
    b.ret_void()
    return function


def emit_wake(module: ir.Module) -> ir.Function:
    """void wake(int64 *pool): have the workers that sleep look for jobs."""
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64.as_pointer()]), "wake")
    [pool] = function.args
    b = ir.IRBuilder(function.append_basic_block("begin"))
    with loop(1, Int(b, b.load(_word(b, pool, LIMIT)))) as thread:
        line = b.add(I64(PART), b.mul(thread.value, I64(LINE)))
        slept = b.atomic_rmw("xchg", _word(b, pool, b.add(line, I64(SLEEPS))), I64(0), "acq_rel")
        with b.if_then(b.icmp_signed("!=", slept, I64(0))):
            b.atomic_rmw("sub", _word(b, pool, ASLEEP), I64(1), "acq_rel")
            b.call(_release(module), [b.load(_word(b, pool, b.add(line, I64(LOCK))))])
    b.ret_void()
    return function


def emit_work(module: ir.Module, claim: ir.Function) -> ir.Function:
    """int64 work(int64 pool, int64 thread, int64 patience, int64 unused): take part until all is quiet."""
    function = ir.Function(module, ir.FunctionType(I64, [I64] * 4), "work")
    address, thread, patience, _ = function.args
    begin, head, idle, let, crowd, patient, enter, take, rest, asleep, done = (
        function.append_basic_block(name) for name in (
            "begin", "head", "idle", "let", "crowd", "patient", "enter", "take", "rest", "asleep", "done"))
    b = ir.IRBuilder(begin)
    pool = b.inttoptr(address, I64.as_pointer())
    line = b.add(I64(PART), b.mul(thread, I64(LINE)))
    b.position_at_end(head)
    looks, last, since = (b.phi(I64) for _ in range(3))

    def again(n: ir.Value, number: ir.Value, time: ir.Value) -> None:
        for phi, value in zip((looks, last, since), (n, number, time), strict=True):
            phi.add_incoming(value, b.block)
        b.branch(head)

    b.position_at_end(begin)
    again(I64(0), I64(0), _ticks(b))

    b.position_at_end(head)
    number = b.load_atomic(_word(b, pool, OPEN), "acquire", 8)
    fresh = b.and_(b.icmp_signed("!=", number, I64(0)), b.icmp_signed("!=", number, last))
    b.cbranch(fresh, enter, idle)

    b.position_at_end(idle)
    _pause(b)
    more = b.add(looks, I64(1))
    b.cbranch(b.icmp_signed("==", b.and_(more, I64(LOOKS - 1)), I64(0)), let, patient)

    b.position_at_end(let)
    before = _ticks(b)
    b.call(python(module, "sched_yield", I32), [])
    after = _ticks(b)
    away = b.sub(after, before)
    b.cbranch(b.icmp_unsigned(">", away, b.sub(before, since)), crowd, patient)

    b.position_at_end(patient)
    now = b.phi(I64)
    now.add_incoming(since, idle)
    now.add_incoming(after, let)
    stopped = b.load_atomic(_word(b, pool, STOPPED), "monotonic", 8)
    quiet = b.or_(b.icmp_signed(">=", more, patience), b.icmp_signed("!=", stopped, I64(0)))
    with b.if_then(quiet, likely=False):
        b.branch(rest)
    again(more, last, now)

    b.position_at_end(crowd)
    b.store_atomic(away, _word(b, pool, CROWDED), "monotonic", 8)
    b.branch(rest)

    b.position_at_end(enter)
    job = [b.load_atomic(_word(b, pool, word), "acquire", 8) for word in JOB]
    still = b.icmp_signed("==", b.load_atomic(_word(b, pool, OPEN), "acquire", 8), number)
    with b.if_then(still):
        b.branch(take)
    again(I64(0), last, since)

    b.position_at_end(take)
    with b.if_then(b.icmp_signed("<", thread, job[-1])):
        late = b.call(claim, [pool, thread, number, *job])
        with b.if_then(late, likely=False):
            b.branch(rest)
    again(I64(0), number, _ticks(b))

    b.position_at_end(rest)
    b.cbranch(b.icmp_signed("==", b.load_atomic(_word(b, pool, STOPPED), "acquire", 8), I64(0)), asleep, done)

    b.position_at_end(asleep)
    b.atomic_rmw("xchg", _word(b, pool, b.add(line, I64(SLEEPS))), I64(1), "acq_rel")
    b.atomic_rmw("add", _word(b, pool, ASLEEP), I64(1), "acq_rel")
    b.call(_acquire(module), [b.load(_word(b, pool, b.add(line, I64(LOCK)))), I32(1)])
    again(I64(0), I64(0), _ticks(b))

    b.position_at_end(done)
    b.ret(I64(0))
    return function


def _acquire(module: ir.Module) -> ir.Function:
    return python(module, "PyThread_acquire_lock", I32, I64, I32)


def _release(module: ir.Module) -> ir.Function:
    return python(module, "PyThread_release_lock", ir.VoidType(), I64)


def _ticks(b: ir.IRBuilder) -> ir.Value:
    """Of some clock; 0 where none can be read for nothing."""
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64", "i686"):
        return b.call(_intrinsic(b.module, "llvm.readcyclecounter", result=I64), [])
    if machine in ("aarch64", "arm64"):
        return b.asm(ir.FunctionType(I64, []), "mrs $0, cntvct_el0", "=r", [], True)
    return I64(0)


def _word(b: ir.IRBuilder, pool: ir.Value, word: int | ir.Value) -> ir.Value:
    return b.gep(pool, [I64(word) if isinstance(word, int) else word])


def _pause(b: ir.IRBuilder) -> None:
    """Tell the core that this loop is waiting."""
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64", "i686"):
        b.call(_intrinsic(b.module, "llvm.x86.sse2.pause"), [])
    elif machine in ("aarch64", "arm64"):
        b.call(_intrinsic(b.module, "llvm.aarch64.hint", ir.IntType(32)), [ir.IntType(32)(1)])


def _intrinsic(module: ir.Module, name: str, *args: ir.Type, result: ir.Type = ir.VoidType()) -> ir.Function:
    if name in module.globals:
        return module.globals[name]
    return ir.Function(module, ir.FunctionType(result, args), name)
