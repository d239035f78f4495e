"""How the units of one row are shared out among threads.

The control block is some int64 words, each group on cache lines of its own:

    OPEN     number of the job on offer, 0 for none; every job has another number
    NEXT     the first unit that no one has claimed
    INSIDE   workers that may be reading the job's description
    ...      the job: entry, slots, stop, grain, slots stride, how many threads may take part

The caller describes a job, opens it, and claims chunks itself until none is left; then it closes the job and
waits for the workers that are still inside. So it never waits for a thread that has not begun: a worker that is
not scheduled costs nothing, and cannot deadlock. A worker first steps inside, then looks whether the job is still
the one it saw; the caller describes the next job only when it has closed this one and seen no one inside.
"""

from __future__ import annotations

import platform

from llvmlite import ir

I64 = ir.IntType(64)
ENTRY = ir.FunctionType(ir.VoidType(), [I64.as_pointer(), I64, I64])

LINE = 16  # words between groups: two cache lines, as they are fetched in pairs
OPEN, NEXT, INSIDE, STOPPED, JOB = (i * LINE for i in range(5))
ENTRY_WORD, SLOTS, STOP, GRAIN, STRIDE, LIMIT, NUMBER = range(JOB, JOB + 7)
WORDS = 6 * LINE


def emit_claim(module: ir.Module) -> ir.Function:
    """void claim(int64 *pool, int64 thread): run chunks of the open job until none is left."""
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64.as_pointer(), I64]), "claim")
    pool, thread = function.args
    begin, head, body, done = (function.append_basic_block(name) for name in ("begin", "head", "body", "done"))
    b = ir.IRBuilder(begin)
    entry, slots, stop, grain, stride = (b.load(_word(b, pool, w)) for w in (ENTRY_WORD, SLOTS, STOP, GRAIN, STRIDE))
    own = b.inttoptr(b.add(slots, b.mul(thread, stride)), I64.as_pointer())
    kernel = b.inttoptr(entry, ENTRY.as_pointer())
    b.branch(head)
    b.position_at_end(head)
    first = b.atomic_rmw("add", _word(b, pool, NEXT), grain, "seq_cst")
    b.cbranch(b.icmp_signed("<", first, stop), body, done)
    b.position_at_end(body)
    end = b.add(first, grain)
    b.call(kernel, [own, first, b.select(b.icmp_signed("<", end, stop), end, stop)])
    b.branch(head)
    b.position_at_end(done)
    b.ret_void()
    return function


def emit_share(module: ir.Module, claim: ir.Function) -> ir.Function:
    """void share(int64 pool, entry, slots, start, stop, grain, stride): run one row with the pool's help.

    A negative grain says that the last unit is for the caller, when all others are done.
    """
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * 7), "share")
    address, entry, slots, start, stop, grain, stride = function.args
    b = ir.IRBuilder(function.append_basic_block("begin"))
    pool = b.inttoptr(address, I64.as_pointer())
    tail = b.icmp_signed("<", grain, I64(0))
    grain = b.select(tail, b.neg(grain), grain)
    end = b.sub(stop, b.zext(tail, I64))
    for word, value in ((ENTRY_WORD, entry), (SLOTS, slots), (STOP, end), (GRAIN, grain), (STRIDE, stride)):
        b.store(value, _word(b, pool, word))
    b.store_atomic(start, _word(b, pool, NEXT), "seq_cst", 8)
    number = b.add(b.load(_word(b, pool, NUMBER)), I64(1))
    b.store(number, _word(b, pool, NUMBER))
    b.store_atomic(number, _word(b, pool, OPEN), "seq_cst", 8)
    b.call(claim, [pool, I64(0)])
    b.store_atomic(I64(0), _word(b, pool, OPEN), "seq_cst", 8)
    wait, done = function.append_basic_block("wait"), function.append_basic_block("done")
    b.branch(wait)
    b.position_at_end(wait)
    _pause(b)
    inside = b.load_atomic(_word(b, pool, INSIDE), "seq_cst", 8)
    b.cbranch(b.icmp_signed("==", inside, I64(0)), done, wait)
    b.position_at_end(done)
    with b.if_then(tail):
        b.call(b.inttoptr(entry, ENTRY.as_pointer()), [b.inttoptr(slots, I64.as_pointer()), end, stop])
    b.ret_void()
    return function


def emit_work(module: ir.Module, claim: ir.Function) -> ir.Function:
    """int64 work(int64 pool, int64 thread, int64 patience, int64 unused): take part until all is quiet."""
    function = ir.Function(module, ir.FunctionType(I64, [I64] * 4), "work")
    address, thread, patience, _ = function.args
    begin, head, idle, enter, take, leave, done = (function.append_basic_block(name) for name in (
        "begin", "head", "idle", "enter", "take", "leave", "done"))
    b = ir.IRBuilder(begin)
    pool = b.inttoptr(address, I64.as_pointer())
    b.branch(head)

    b.position_at_end(head)
    looks, last = b.phi(I64), b.phi(I64)
    looks.add_incoming(I64(0), begin)
    last.add_incoming(I64(0), begin)
    number = b.load_atomic(_word(b, pool, OPEN), "seq_cst", 8)
    fresh = b.and_(b.icmp_signed("!=", number, I64(0)), b.icmp_signed("!=", number, last))
    b.cbranch(fresh, enter, idle)

    b.position_at_end(idle)
    _pause(b)
    more = b.add(looks, I64(1))
    looks.add_incoming(more, idle)
    last.add_incoming(last, idle)
    stopped = b.load_atomic(_word(b, pool, STOPPED), "monotonic", 8)
    quiet = b.or_(b.icmp_signed(">=", more, patience), b.icmp_signed("!=", stopped, I64(0)))
    b.cbranch(quiet, done, head)

    b.position_at_end(enter)
    b.atomic_rmw("add", _word(b, pool, INSIDE), I64(1), "seq_cst")
    still = b.icmp_signed("==", b.load_atomic(_word(b, pool, OPEN), "seq_cst", 8), number)
    b.cbranch(still, take, leave)

    b.position_at_end(take)
    allowed = b.icmp_signed("<", thread, b.load(_word(b, pool, LIMIT)))
    with b.if_then(allowed):
        b.call(claim, [pool, thread])
    taken = b.block
    b.branch(leave)

    b.position_at_end(leave)
    seen = b.phi(I64)
    seen.add_incoming(last, enter)
    seen.add_incoming(number, taken)
    b.atomic_rmw("sub", _word(b, pool, INSIDE), I64(1), "seq_cst")
    looks.add_incoming(I64(0), leave)
    last.add_incoming(seen, leave)
    b.branch(head)

    b.position_at_end(done)
    b.ret(I64(0))
    return function


def _word(b: ir.IRBuilder, pool: ir.Value, word: int) -> ir.Value:
    return b.gep(pool, [I64(word)])


def _pause(b: ir.IRBuilder) -> None:
    """Tell the core that this loop is waiting."""
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64", "i686"):
        b.call(_intrinsic(b.module, "llvm.x86.sse2.pause"), [])
    elif machine in ("aarch64", "arm64"):
        b.call(_intrinsic(b.module, "llvm.aarch64.hint", ir.IntType(32)), [ir.IntType(32)(1)])


def _intrinsic(module: ir.Module, name: str, *args: ir.Type) -> ir.Function:
    if name in module.globals:
        return module.globals[name]
    return ir.Function(module, ir.FunctionType(ir.VoidType(), args), name)
