"""The steps random programs are made of: each rule draws one expression, or None where nothing fits."""

from __future__ import annotations

from collections.abc import Callable

from programs import Draw, Known, Made, Rule

RULES: list[Rule] = []


def rule(weight: int = 1) -> Callable[[Rule], Rule]:
    def add(function: Rule) -> Rule:
        RULES.extend([function] * weight)
        return function
    return add


def fits(v: Known, w: Known) -> bool:
    """Whether two shapes broadcast."""
    return all(n == m or 1 in (n, m) for n, m in zip(v.shape[::-1], w.shape[::-1], strict=False))


def pair(d: Draw, kinds: str) -> tuple[Known, Known] | None:
    v = d.value(kinds)
    w = d.value(kinds, lambda w: fits(v, w)) if v is not None else None
    return (v, w) if v is not None and w is not None else None


# ---- element-wise

@rule(6)
def arithmetic(d: Draw) -> Made:
    found = pair(d, "fi")
    if found is None:
        return None
    v, w = found
    op = d.one(["+", "-", "*", "/ (1 + gj.square({1}))"])
    return (f"{v.name} {op}".format("", w.name)) if "{" in op else f"{v.name} {op} {w.name}"


@rule(2)
def with_number(d: Draw) -> Made:
    v = d.value("fi")
    assert v is not None
    number = d.one(["2", "0.5", "3", "1"] if v.kind == "f" else ["2", "-3", "1"])
    return d.one(["{0} * {1}", "{0} + {1}", "{1} - {0}", "{1} * {0}"]).format(v.name, number)


@rule(4)
def smooth(d: Draw) -> Made:
    v = d.value("f", lambda v: v.largest <= 6)
    if v is None:
        return None
    return d.one(["gj.exp({0})", "gj.tanh({0})", "gj.sigmoid({0})", "gj.sin({0})", "gj.cos({0})", "gj.softplus({0})",
                  "gj.erf({0})", "gj.square({0})", "gj.log(gj.square({0}) + 1)", "gj.sqrt(gj.square({0}) + 0.5)",
                  "gj.rsqrt(gj.square({0}) + 1)", "gj.reciprocal({0} * {0} + 1)", "gj.log1p({0} * {0})", "{0} ** 2",
                  "{0} ** 3", "(gj.square({0}) + 0.5) ** 1.5", "gj.expm1({0} * 0.25)", "gj.atan({0})",
                  "gj.atan2({0}, gj.square({0}) + 1)", "(-{0})", "gj.asinh({0})", "gj.exp2({0})", "gj.erfc({0})",
                  "gj.lgamma(gj.square({0}) + 1)", "gj.digamma(gj.square({0}) + 0.5)", "gj.log10({0} * {0} + 1)",
                  "gj.hypot({0}, 1.0)", "gj.logaddexp({0}, -0.5)"]).format(v.name)


@rule(3)
def kinked(d: Draw) -> Made:
    v = d.value("x")
    if v is None:
        return None
    return d.one(["gj.relu({0})", "gj.abs({0})", "gj.clip({0}, -0.5, 1.25)", "gj.sign({0})", "gj.floor({0})",
                  "gj.round({0})", "gj.ceil({0} * 0.5)", "gj.trunc({0})", "-{0}", "gj.floor_divide({0}, 0.75)",
                  "gj.remainder({0}, 1.5)"]).format(v.name)


@rule(2)
def choice(d: Draw) -> Made:
    found = pair(d, "xi")
    if found is None:
        return None
    return d.one(["gj.maximum({0}, {1})", "gj.minimum({0}, {1})"]).format(*(v.name for v in found))


@rule(2)
def compare(d: Draw) -> Made:
    found = pair(d, "xi")
    if found is None:
        return None
    return f"{found[0].name} {d.one(['<', '<=', '>', '>=', '==', '!='])} {found[1].name}"


@rule(2)
def where(d: Draw) -> Made:
    c = d.value("b")
    v = d.value("fi", lambda v: c is not None and fits(c, v))
    w = d.value("fi", lambda w: v is not None and fits(v, w) and fits(c, w)) if v is not None else None
    if c is None or v is None or w is None:
        return None
    return d.one(["gj.where({0}, {1}, {2})", "gj.where({0}, {1}, 0.5)", "gj.masked_fill({1}, {0}, 2)"]).format(
        c.name, v.name, w.name) if len(c.shape) <= len(v.shape) else f"gj.where({c.name}, {v.name}, {w.name})"


@rule()
def logic(d: Draw) -> Made:
    found = pair(d, "b")
    if found is None:
        return None
    return d.one(["{0} & {1}", "{0} | {1}", "{0} ^ {1}", "~{0}", "gj.logical_and({0}, {1})"]).format(
        *(v.name for v in found))


@rule(2)
def integers(d: Draw) -> Made:
    found = pair(d, "i")
    if found is None:
        return None
    return d.one(["{0} // 3", "{0} % 5", "{0} // (gj.abs({1}) + 1)", "{0} % -4", "{0} & {1}", "{0} ^ {1}", "~{0}",
                  "{0} << 3", "{0} >> 1", "gj.square({0}) * {1}", "-{0}", "{0} ** 2",
                  "{0} * (123456789 if {0}.dtype.itemsize > 1 else 123)"]).format(
        *(v.name for v in found))


@rule(2)
def cast(d: Draw) -> Made:
    v = d.value("xib", lambda v: v.largest < 100)
    if v is None:
        return None
    return f"gj.astype({v.name}, {d.one(['F32', 'np.float64', 'np.int64', 'np.int32', 'np.bool_', 'np.uint8'])})" \
        if v.kind == "b" or float(v.narrow.min(initial=0)) >= 0 else \
        f"gj.astype({v.name}, {d.one(['F32', 'np.float64', 'np.int64', 'np.int32', 'np.bool_', 'np.int8'])})"


@rule()
def widened(d: Draw) -> Made:
    v = d.value("f")
    assert v is not None
    return f"gj.astype({v.name}, {d.one(['np.float64', 'F32'])})"


# ---- reductions

@rule(4)
def fold(d: Draw) -> Made:
    v = d.value("fi")
    assert v is not None
    return f"gj.{d.one(['sum', 'sum', 'mean'])}({v.name}, axis={d.axes(v)}, keepdims={d.flag()})"


@rule(2)
def extreme(d: Draw) -> Made:
    v = d.value("xib", lambda v: v.narrow.size > 0)
    if v is None:
        return None
    return f"gj.{d.one(['max', 'min'])}({v.name}, axis={d.axes(v)}, keepdims={d.flag()})"


@rule()
def truth(d: Draw) -> Made:
    v = d.value("b")
    if v is None:
        return None
    return f"gj.{d.one(['any', 'all', 'count_nonzero'])}({v.name}, axis={d.axes(v)}, keepdims={d.flag()})"


@rule(3)
def statistic(d: Draw) -> Made:
    v = d.value("f", lambda v: v.narrow.size > 0)
    if v is None:
        return None
    axis = d.axis(v) if v.shape else None
    if axis is None or d.flag():
        kind = d.one(["var", "logsumexp"])
        return f"gj.{kind}({v.name}, axis={d.axes(v) or None}, keepdims={d.flag()})"
    centred = f"({v.name} - gj.mean({v.name}, {axis}, keepdims=True))"
    return d.one([f"gj.softmax({v.name}, {axis})", f"gj.log_softmax({v.name}, {axis})",
                  f"{centred} * gj.rsqrt(gj.var({v.name}, {axis}, keepdims=True) + 0.1)"])


@rule()
def product(d: Draw) -> Made:
    v = d.value("fi", lambda v: v.largest <= 2 and v.narrow.size <= 64)
    return None if v is None else f"gj.prod({v.name}, axis={d.axes(v)}, keepdims={d.flag()})"


@rule()
def position(d: Draw) -> Made:
    v = d.value("xib", lambda v: v.narrow.size > 0)
    if v is None:
        return None
    return f"gj.{d.one(['argmax', 'argmin'])}({v.name}, axis={d.axis(v) if v.shape and d.flag() else None})"


@rule()
def running(d: Draw) -> Made:
    v = d.value("fi", lambda v: len(v.shape) > 0)
    if v is None:
        return None
    kind = d.one(["cumsum", "cumprod"]) if v.largest <= 2 and v.narrow.size <= 64 else "cumsum"
    return f"gj.{kind}({v.name}, {d.axis(v)})"


# ---- movement

def any_value(d: Draw, low: int = 0) -> Known | None:
    return d.value("fib", lambda v: len(v.shape) >= low)


@rule(3)
def reshape(d: Draw) -> Made:
    v = any_value(d)
    if v is None:
        return None
    shape = list(v.shape)
    for _ in range(d.int(1, 2)):
        at = d.int(0, len(shape))
        splits = [(i, k) for i, n in enumerate(shape) for k in (2, 3, 4) if n and n % k == 0]
        match d.one(["one", "merge", "merge", "split"]):
            case "merge" if len(shape) > 1:
                at = min(at, len(shape) - 2)
                shape[at:at + 2] = [shape[at] * shape[at + 1]]
            case "split" if splits:
                i, k = d.one(splits)
                shape[i:i + 1] = d.one([[k, shape[i] // k], [shape[i] // k, k]])
            case _:
                shape.insert(at, 1)
    if shape and v.narrow.size and d.flag():
        shape[d.int(0, len(shape) - 1)] = -1
    return f"gj.reshape({v.name}, {tuple(shape)})"


@rule(3)
def permute(d: Draw) -> Made:
    v = any_value(d, 2)
    if v is None:
        return None
    axes = d.choose(_permutations(len(v.shape)))
    return d.one([f"gj.permute_dims({v.name}, {tuple(axes)})", f"{v.name}.T", f"{v.name}.mT"])


def _permutations(n: int):  # type: ignore[no-untyped-def]
    from hypothesis import strategies as st
    return st.permutations(range(n))


@rule(3)
def slices(d: Draw) -> Made:
    v = any_value(d, 1)
    return None if v is None else f"{v.name}[{index(d, v)}]"


def index(d: Draw, v: Known) -> str:
    """A basic index."""
    parts: list[str] = []
    for n in v.shape:
        kinds = [":", "1:", "::2", "::-1", "-2:", f"{n // 2}:{n}:{d.int(1, 3)}", ":-1", "-1:0:-2", "None, :"]
        parts.append(d.one([*kinds, "0", "-1"] if n else kinds))
    if d.int(0, 3) == 0:
        parts = ["..."] + parts[-1:]
    return ", ".join(parts)


@rule(2)
def turned(d: Draw) -> Made:
    v = any_value(d, 1)
    if v is None:
        return None
    axis, apart = d.axis(v), "^" if v.kind == "b" else "-"
    return d.one([f"gj.flip({v.name}, {axis})", f"gj.flip({v.name})", f"gj.roll({v.name}, 2, {axis})",
                  f"gj.roll({v.name}, -1, {axis})", f"({v.name} {apart} gj.roll({v.name}, (1, -1), ({axis}, -1)))",
                  f"gj.repeat({v.name}, 2, {axis})", f"gj.tile({v.name}, (2, 1))",
                  f"gj.expand_dims({v.name}, {axis})", f"gj.squeeze({v.name})"])


@rule(2)
def stretch(d: Draw) -> Made:
    v = any_value(d)
    if v is None:
        return None
    shape = tuple(d.one(d.sizes) if n == 1 else n for n in v.shape)
    return f"gj.broadcast_to({v.name}, {(*d.shape(0, 1), *shape)})"


@rule(3)
def join(d: Draw) -> Made:
    v = any_value(d, 1)
    if v is None:
        return None
    axis = d.axis(v)
    rest = [n for i, n in enumerate(v.shape) if i != axis % len(v.shape)]
    w = d.value("fib", lambda w: len(w.shape) == len(v.shape) and rest == [
        n for i, n in enumerate(w.shape) if i != axis % len(v.shape)])
    assert w is not None  # v itself fits
    if w.shape == v.shape and d.flag():
        return f"gj.stack([{v.name}, {w.name}], {axis})"
    part = ", ".join([":"] * (axis % len(v.shape)) + ["1:"])
    third = d.one(["", f", {w.name}[{part}]", f", {v.name}[{part}]"])
    return f"gj.concat([{v.name}, {w.name}{third}], {axis})"


@rule()
def padded(d: Draw) -> Made:
    v = any_value(d, 1)
    if v is None:
        return None
    widths = tuple((d.int(0, 2), d.int(0, 2)) for _ in v.shape)
    return f"gj.pad({v.name}, {widths}, {d.one(['0', '1'])})"


@rule()
def triangle(d: Draw) -> Made:
    v = any_value(d, 2)
    if v is None:
        return None
    square = d.value("fi", lambda v: len(v.shape) == 2)
    if square is not None and d.flag():
        return f"gj.diag({square.name}, {d.int(-1, 1)})"
    return f"gj.{d.one(['tril', 'triu'])}({v.name}, {d.int(-1, 1)})"


# ---- contraction

@rule(5)
def matmul(d: Draw) -> Made:
    v = d.value("fi", lambda v: len(v.shape) >= 1)
    if v is None:
        return None
    inner = v.shape[-1]
    if len(v.shape) >= 2 and d.int(0, 2) == 0:
        return f"{v.name} @ {v.name}.mT" if d.flag() else f"{v.name}.mT @ {v.name}"
    w = d.value("fi", lambda w: len(w.shape) >= 1 and inner in (w.shape[-2:] or w.shape))
    if w is None or not v.narrow.size or w.kind != v.kind:
        return f"{v.name} @ {v.name}" if len(v.shape) == 1 else f"{v.name} @ {v.name}.mT"
    other = w.name if w.shape[max(len(w.shape) - 2, 0)] == inner else f"{w.name}.mT"
    if len(v.shape) > 2 and len(w.shape) > 2 and v.shape[:-2] != w.shape[:-2]:
        w_batch = w.shape[:-2]
        if not all(n == m or 1 in (n, m) for n, m in zip(v.shape[-3::-1], w_batch[::-1], strict=False)):
            other = other.replace(w.name, f"{w.name}[{', '.join(['0'] * len(w_batch))}]") if w.narrow.size else v.name
            if other == v.name:
                return f"{v.name} @ {v.name}.mT"
    return f"{v.name} @ {other}"


@rule()
def einsum(d: Draw) -> Made:
    v = d.value("f", lambda v: len(v.shape) == 2)
    if v is None:
        return None
    return d.one(["gj.einsum('ij,kj->ik', {0}, {0})", "gj.einsum('ij,ij->j', {0}, {0})",
                  "gj.einsum('ij->ji', {0})", "gj.outer({0}[0], {0}[-1])" if v.narrow.size else "{0} * {0}"]
                 ).format(v.name)


# ---- indices

@rule(3)
def gather(d: Draw) -> Made:
    v = d.value("fib", lambda v: len(v.shape) >= 1 and v.narrow.size > 0)
    if v is None:
        return None
    axis = d.axis(v)
    n = v.shape[axis]
    i = d.value("i", lambda i: len(i.shape) <= 2)
    if i is None:
        i = d.give(d.shape(0, 2), "i")
    before = ", ".join([":"] * (axis % len(v.shape)) + [""])
    return d.one([f"gj.take({v.name}, {i.name} % {n}, {axis})", f"gj.take({v.name}, {i.name} % {n} - {n}, {axis})",
                  f"{v.name}[{before}{i.name} % {n}]", f"gj.take({v.name}, [0, {n - 1}, -1], {axis})",
                  f"gj.one_hot({i.name} % {n}, {n})"])


@rule()
def gather_several(d: Draw) -> Made:
    v = d.value("fib", lambda v: len(v.shape) >= 2 and v.narrow.size > 0)
    i = d.value("i", lambda i: len(i.shape) <= 2)
    if v is None or i is None:
        return None
    n, m = v.shape[0], v.shape[-1]
    return d.one([f"{v.name}[{i.name} % {n}, ..., {i.name} % {m}]", f"{v.name}[{i.name} % {n}, 0]",
                  f"{v.name}[0, {i.name} % {v.shape[1]}]",
                  f"gj.take_along_axis({v.name}, gj.argmax({v.name} * 1, 1, keepdims=True), 1)" if v.exact else
                  f"{v.name}[[0, -1], [0, {v.shape[1] - 1}]]"])


@rule()
def scatter(d: Draw) -> Made:
    v = d.value("fi", lambda v: len(v.shape) >= 1 and v.narrow.size > 0)
    i = d.value("i", lambda i: len(i.shape) == 1)
    if v is None or i is None:
        return None
    n = v.shape[0]
    return f"gj.scatter_add({v.name}, {i.name} % {n}, gj.take({v.name} * 2, {i.name} % {n}, 0))"


@rule(2)
def written(d: Draw) -> Made:
    v = d.value("fi", lambda v: len(v.shape) >= 1)
    if v is None:
        return None
    at = index(d, v).replace("None, ", "")
    w = d.one(["2", f"{v.name}[{at}] * 3", f"gj.sum({v.name})"])
    return f"w = {v.name} + 0", f"w[{at}] = {w}", "w * 1"


@rule()
def ordered(d: Draw) -> Made:
    v = d.value("x", lambda v: len(v.shape) >= 1)
    if v is None:
        return None
    kind = d.one(["sort", "argsort", "diff", "median"])
    return f"gj.{kind}({v.name}, axis={d.axis(v)})"


# ---- from nothing

@rule()
def made(d: Draw) -> Made:
    n = d.one([m for m in d.sizes if m] or [2])
    v = any_value(d)
    assert v is not None
    return d.one([f"gj.arange({n})", f"gj.arange({n}).astype(F32) * 0.25", f"gj.eye({n}, dtype=F32)",
                  f"gj.full({d.shape(0, 2)}, 0.75, dtype=F32)", f"gj.zeros_like({v.name})",
                  f"gj.arange({v.name}.shape[0])" if v.shape else "gj.ones((2,), dtype=F32)"])


@rule(2)
def random(d: Draw) -> Made:
    v = d.value("f")
    assert v is not None
    return d.one([f"gj.bernoulli(0.5, {v.name}.shape, generator=rng).astype({v.name}.dtype) * {v.name}",
                  f"gj.uniform({v.name}.shape, generator=rng).astype(F32)",
                  f"gj.bernoulli(0.25, {d.shape(0, 2)}, generator=rng)",
                  f"gj.randint(-3, 9, {d.shape(0, 2)}, generator=rng)",
                  f"{v.name} + gj.normal({v.name}.shape[-1:], generator=rng).astype(F32)"])
