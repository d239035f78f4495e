"""How the units of one row are shared out among threads.

The control block is some int64 words, each group on cache lines of its own:

    OPEN...    the job on offer, on one line: its number, and entry, slots, start, stop, grain, slots stride, and
               threads with the caller's floating-point mode above
    STOPPED    whether workers are to end
    LIMIT...   words of the program that uses the pool, and of who wants it: see ``threads.Pool``; how many workers
               sleep
    PART...    for each thread, on a line of its own, how far its part of the job is: the job's number << 16, how many
               chunks no one has claimed << 8, WAITED if the caller sleeps, how many are not done; how the thread sleeps

The units are cut into chunks of ``grain``, and these into one part for each thread: the same places of arrays go to the
same core, row after row, and so stay in its cache. A thread takes its own part's chunks, then what others have left.
A part of an older job counts as untouched. The caller goes on when all parts say that nothing of this job is left or
open. It never waits for a thread that has not begun: a worker that is not scheduled costs nothing, and cannot deadlock.

It does wait for a chunk that a worker has begun, and where other processes want the cores, that worker may have lost
its own for some ms. So who waits for much longer than its own share took sleeps, and leaves its core; the worker that
is late wakes it, and rests (``working``).

A worker that comes late can do no harm: it claims by comparing and swapping a part's word, and when a job is over
every part bears its number, with nothing left. The number is 0 while the words of a job change, so that what a worker
read between two looks at the same number is one job's.
"""

from __future__ import annotations

from llvmlite import ir

from graphjit.runtime.denormal import read_mode
from graphjit.runtime.spin import I64, free, pause, place, take, ticks

ENTRY = ir.FunctionType(ir.VoidType(), [I64.as_pointer(), I64, I64])

LINE = 16  # words between groups: two cache lines, as they are fetched in pairs
OPEN, STOPPED, LIMIT, PART = (i * LINE for i in range(4))
JOB = range(OPEN + 1, OPEN + 8)
THREADS, OWNER, TRY, RELEASE, ASLEEP, CALLER, TIMES = range(LIMIT + 1, LIMIT + 8)
SLEEPS, LOCK, SINCE, REST = range(1, 5)  # behind each part
WAITED = 128
MODE = 16      # bits of the number of threads, below the mode
LOOKS = 512    # at a word, 5 to 25 us, before anything slower
PATIENCE = 2   # times as long as on its own share the caller looks before it sleeps: cores may not be equally fast


def words(threads: int) -> int:
    """The length of a control block."""
    return PART + threads * LINE


def emit_claim(module: ir.Module) -> ir.Function:
    """int64 claim(int64 *pool, thread, number, entry, slots, start, stop, grain, stride, threads): run chunks of a job
    until none is left, one's own first.

    How long the caller may have slept for one of them, in ticks; 0 if it did not.
    """
    function = ir.Function(module, ir.FunctionType(I64, [I64.as_pointer()] + [I64] * 9), "claim")
    pool, thread, number, entry, slots, start, stop, grain, stride, threads = function.args
    begin, part, look, old, new, swap, body, run, after, done = (function.append_basic_block(name) for name in (
        "begin", "part", "look", "old", "new", "swap", "body", "run", "after", "done"))
    b = ir.IRBuilder(begin)
    own = b.inttoptr(b.add(slots, b.mul(thread, stride)), I64.as_pointer())
    kernel = b.inttoptr(entry, ENTRY.as_pointer())
    chunks = b.udiv(b.add(b.sub(stop, start), b.sub(grain, I64(1))), grain)
    late = b.alloca(I64)
    b.store(I64(0), late)
    b.branch(part)

    b.position_at_end(part)
    turn = b.phi(I64)
    turn.add_incoming(I64(0), begin)
    owner = b.add(thread, turn)
    owner = b.select(b.icmp_signed(">=", owner, threads), b.sub(owner, threads), owner)
    first, last = (b.udiv(b.mul(b.add(owner, I64(i)), chunks), threads) for i in range(2))
    size = b.sub(last, first)
    word = place(b, pool, b.add(I64(PART), b.mul(owner, I64(LINE))))
    b.branch(look)

    b.position_at_end(look)
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
    b.cbranch(b.extract_value(claimed, 1), body, look)

    b.position_at_end(body)  # a part may have no chunks
    b.cbranch(some, run, after)

    b.position_at_end(run)
    unit = b.add(start, b.mul(b.sub(last, rest), grain))
    end = b.add(unit, grain)
    begun = ticks(b)
    b.call(kernel, [own, unit, b.select(b.icmp_signed("<", end, stop), end, stop)])
    before = b.atomic_rmw("sub", word, I64(1), "acq_rel")
    with b.if_then(b.icmp_signed("==", b.and_(before, I64(255)), I64(WAITED | 1)), likely=False):
        b.store(b.or_(b.sub(ticks(b), begun), I64(1)), late)
        free(b, b.load(place(b, pool, CALLER)))
    b.branch(look)

    b.position_at_end(after)
    following = b.add(turn, I64(1))
    turn.add_incoming(following, after)
    b.cbranch(b.icmp_signed("<", following, threads), part, done)

    b.position_at_end(done)
    b.ret(b.load(late))
    return function


def emit_share(module: ir.Module, claim: ir.Function, wake: ir.Function) -> ir.Function:
    """void share(int64 pool, entry, slots, start, stop, grain, stride): run one row with the pool's help.

    A negative grain says that the last unit is for the caller, when all others are done.
    """
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * 7), "share")
    address, entry, slots, start, stop, grain, stride = function.args
    begin, part, wait, sleep, following, done = (function.append_basic_block(name) for name in (
        "begin", "part", "wait", "sleep", "following", "done"))
    b = ir.IRBuilder(begin)
    pool = b.inttoptr(address, I64.as_pointer())
    opened = ticks(b)
    threads = b.load(place(b, pool, LIMIT))
    run, own = b.inttoptr(entry, ENTRY.as_pointer()), b.inttoptr(slots, I64.as_pointer())
    asleep = place(b, pool, ASLEEP)
    with b.if_then(b.icmp_signed("!=", b.load_atomic(asleep, "monotonic", 8), I64(0)), likely=False):
        awake = b.call(wake, [pool, opened])
        alone = b.icmp_signed("==", awake, I64(0))
        with b.if_then(alone):  # in one piece that is faster
            b.call(run, [own, start, stop])
            b.ret_void()
    tail = b.icmp_signed("<", grain, I64(0))
    grain = b.select(tail, b.neg(grain), grain)
    end = b.sub(stop, b.zext(tail, I64))
    number = b.add(b.load(place(b, pool, OPEN)), I64(1))
    job = (entry, slots, start, end, grain, stride)
    how = b.or_(threads, b.shl(read_mode(b), I64(MODE)))
    for word, value in zip((OPEN, *JOB), (I64(0), *job, how), strict=True):
        b.store_atomic(value, place(b, pool, word), "release", 8)
    b.atomic_rmw("xchg", place(b, pool, OPEN), number, "seq_cst")  # who does not see it is counted as asleep
    with b.if_then(b.icmp_signed("!=", b.load_atomic(asleep, "seq_cst", 8), I64(0)), likely=False):
        b.call(wake, [pool, opened])
    b.call(claim, [pool, I64(0), number, *job, threads])
    over, before = b.shl(number, I64(16)), b.block
    b.branch(part)

    b.position_at_end(part)
    turn = b.phi(I64)
    turn.add_incoming(I64(0), before)
    where = place(b, pool, b.add(I64(PART), b.mul(turn, I64(LINE))))
    waiting = ticks(b)
    b.cbranch(b.icmp_signed("==", b.load_atomic(where, "acquire", 8), over), following, wait)

    b.position_at_end(wait)
    looks = b.phi(I64)
    looks.add_incoming(I64(0), part)
    pause(b)
    with b.if_then(b.icmp_signed("==", b.load_atomic(where, "acquire", 8), over)):
        b.branch(following)
    more = b.add(looks, I64(1))
    looks.add_incoming(more, b.block)
    long = b.icmp_unsigned(">=", b.sub(ticks(b), waiting), b.mul(b.sub(waiting, opened), I64(PATIENCE)))
    b.cbranch(b.and_(long, b.icmp_signed(">=", more, I64(LOOKS))), sleep, wait)

    b.position_at_end(sleep)  # if something is open still: who finishes it, and sees this, wakes the caller
    state = b.atomic_rmw("or", where, I64(WAITED), "acq_rel")
    with b.if_then(b.icmp_signed("!=", b.and_(state, I64(WAITED - 1)), I64(0))):
        take(b, b.load(place(b, pool, CALLER)))
    b.branch(following)

    b.position_at_end(following)
    others = b.add(turn, I64(1))
    turn.add_incoming(others, following)
    b.cbranch(b.icmp_signed("<", others, threads), part, done)

    b.position_at_end(done)
    with b.if_then(tail):
        b.call(run, [own, end, stop])
    b.ret_void()
    return function
