"""Labels, ``prev`` and ``op``, cycles, and the pictures of graphs."""

from __future__ import annotations

import re
import struct
import sys
import weakref
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest

import graphjit as gj
from graphjit import ArgumentError, GradientError, TraceError, nn
from graphjit.drawing import Drawing
from graphjit.drawing.layout import layout
from graphjit.drawing.picture import columns, cycle
from graphjit.drawing.shapes import Box, Words
from graphjit.ir import Apply, Graph, Input, apply_op, interpret, verify
from graphjit.op import TABLE
from graphjit.trail import LONGEST, TRAILS
from graphjit.types import TensorType

HOSTILE = ['<script>alert("x")</script>', "a & b; &lt; ]]>", "quote\" back\\slash\\", "{x|y}<z>", "two\nlines\r\n",
           "\x00\x07\ud800", "$\\frac{1}{$", "ﬁ 漢字 é \u202e", "_under", "x" * 500]


def scalar(value: float, label: str = "") -> gj.Tensor:
    return gj.tensor(value, requires_grad=True, label=label)


LEAVES = [scalar(2.0, "x1"), scalar(0.0, "x2"), scalar(-3.0, "w1"), scalar(1.0, "w2"),
          scalar(6.8813735870195432, "b")]


def neuron() -> gj.Tensor:
    """micrograd's example."""
    x1, x2, w1, w2, b = LEAVES
    for leaf in LEAVES:
        leaf.zero_grad()
    n = x1 * w1 + x2 * w2 + b
    n.label = "n"
    o = n.tanh()
    o.label = "o"
    return o


def cells(drawing: Drawing) -> list[tuple[str, ...]]:
    return [node.cells for node in drawing._picture.nodes]


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [e.text or "" for e in root.iter("{http://www.w3.org/2000/svg}text")]


def png_size(content: bytes) -> tuple[int, int]:
    """Width and height of a PNG all of whose parts are whole."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    at, size, kinds, pixels = 8, (0, 0), [], b""
    while at < len(content):
        length, kind = struct.unpack(">I4s", content[at:at + 8])
        body = content[at + 8:at + 8 + length]
        assert zlib.crc32(kind + body) == struct.unpack(">I", content[at + 8 + length:at + 12 + length])[0]
        kinds.append(kind)
        if kind == b"IHDR":
            size = struct.unpack(">II", body[:8])
        if kind == b"IDAT":
            pixels += body
        at += 12 + length
    assert kinds[-1] == b"IEND" and len(zlib.decompress(pixels)) == size[1] * (4 * size[0] + 1)
    return size


# ---- labels, prev, op

def test_prev_and_op_say_how_a_value_came_about():
    a, b = scalar(2.0, "a"), gj.tensor([1.0, 2.0], label="b")
    c = a * b
    c.label = "c"
    d = c.sum()
    assert (d.op, c.op, a.op) == ("sum", "mul", "")
    assert a.prev == () and c.prev[0] is a
    assert [t.label for t in c.prev] == ["a", "b"] and d.prev[0].label == "c"
    assert d.prev[0].tolist() == [2.0, 4.0]


def test_prev_of_a_zero_leaf_is_the_leaf():
    a = scalar(0.0)
    assert (a + 1.0).prev[0] is a


def test_prev_of_a_compiled_functions_results_are_its_arguments():
    @gj.compile
    def both(x):
        return x * 2, x + 1
    a = gj.tensor([1.0, 2.0], requires_grad=True, label="a")
    first, second = both(a)
    assert first.op.endswith("both") and first.prev[0] is a and second.prev[0] is a


def test_a_label_can_be_taken_back():
    a = scalar(1.0, "a")
    b = a * 2
    a.label = ""
    assert a.label == "" and b.prev[0].label == ""


# ---- cycles

def cyclic_tape() -> gj.Tensor:
    a = scalar(1.0)
    b = a * 2
    c = b + 1
    d = c * c
    b._value.inputs = (a._value, c._value)
    return d


def cyclic_graph() -> Graph:
    x = Input(TensorType((), np.dtype("float32")), "x")
    a = apply_op(TABLE["add"], [x, x], {})
    b = apply_op(TABLE["mul"], [a, x], {})
    object.__setattr__(a, "args", (x, b))
    return Graph((x,), (b,))


def test_backward_and_drawing_detect_a_cycle_on_the_tape():
    d = cyclic_tape()
    with pytest.raises(GradientError, match="cycle of 2 steps") as caught:
        d.backward()
    assert "add from mul from add" in str(caught.value)
    with pytest.raises(GradientError, match="cycle of 2 steps"):
        gj.draw_dot(d)


def test_a_value_computed_from_itself_is_a_cycle():
    a = scalar(1.0)
    b = a * 2
    b._value.inputs = (b._value, a._value)
    with pytest.raises(GradientError, match="cycle of 1 step: "):
        b.backward()
    assert a.grad is None


@pytest.mark.parametrize("use", [verify, lambda g: g.nodes, str, lambda g: g.to_dot(), gj.draw_dot,
                                 lambda g: interpret(g, [np.float32(1)])],
                         ids=["verify", "nodes", "str", "to_dot", "draw_dot", "interpret"])
def test_a_graph_made_by_hand_with_a_cycle_is_refused(use):
    with pytest.raises(ArgumentError, match="cycle"):
        use(cyclic_graph())


def test_a_cycle_is_named_without_what_hangs_on_it():
    assert cycle(5, [(0, 1), (1, 2), (2, 1), (2, 3)]) in ([1, 2], [2, 1])
    assert cycle(4, [(0, 1), (1, 2), (0, 2), (2, 3)]) == []


# ---- what a picture shows

def test_values_and_ops_before_backward():
    drawn = cells(gj.draw_dot(neuron()))
    assert ("o", "data 0.7071") in drawn and ("x1", "data 2.0000") in drawn and ("data -6.0000",) in drawn
    assert sorted(c for c in drawn if len(c) == 1 and "data" not in c[0]) == [
        ("add",), ("add",), ("mul",), ("mul",), ("tanh",)]


@pytest.mark.parametrize("retain", [False, True])
def test_gradients_of_all_values_after_backward(retain):
    o = neuron()
    o.backward(retain_graph=retain)
    drawn = cells(gj.draw_dot(o))
    for cell in [("o", "data 0.7071", "grad 1.0000"), ("n", "data 0.8814", "grad 0.5000"),
                 ("data -6.0000", "grad 0.5000"), ("x2", "data 0.0000", "grad 0.5000"),
                 ("w1", "data -3.0000", "grad 1.0000"), ("b", "data 6.8814", "grad 0.5000")]:
        assert cell in drawn
    assert len(gj.draw_dot(o)._picture.edges) == 14


def test_a_leafs_gradient_is_what_grad_holds():
    a = scalar(3.0, "a")
    b = a * a
    b.backward(retain_graph=True)
    b.backward()
    assert ("a", "data 3.0000", "grad 12.0000") in cells(gj.draw_dot(b))
    a.zero_grad()
    assert ("a", "data 3.0000") in cells(gj.draw_dot(b))


def test_part_of_a_walked_graph_can_be_drawn():
    a = scalar(3.0, "a")
    b = a * a
    c = b * 2.0
    c.backward()
    assert ("data 9.0000", "grad 2.0000") in cells(gj.draw_dot(b)) and len(cells(gj.draw_dot(b))) == 3


def test_what_is_built_on_a_walked_graph_shows_all_of_it():
    a = scalar(3.0, "a")
    b = a * a
    b.backward()
    drawn = cells(gj.draw_dot(b * 2.0))
    assert ("a", "data 3.0000", "grad 6.0000") in drawn and ("data 18.0000",) in drawn


def test_a_tensor_used_twice_is_drawn_once_and_a_number_at_each_use():
    a = scalar(3.0, "a")
    drawn = cells(gj.draw_dot((a * 2.0) + (a ** 2.0)))
    assert drawn.count(("a", "data 3.0000")) == 1 and drawn.count(("data 2.0000",)) == 2


def test_larger_tensors_are_shown_by_their_type():
    w = gj.tensor([[3.0], [4.0]], requires_grad=True, label="w")
    loss = (gj.tensor(np.ones((5, 2)), label="x") @ w.astype("float64")).sum()
    loss.backward()
    drawn = cells(gj.draw_dot(loss))
    assert ("w", "float32[2, 1]", f"|grad| {np.hypot(5, 5):.4f}") in drawn
    assert ("x", "float64[5, 2]") in drawn and ("data 35.0000", "grad 1.0000") in drawn


def test_a_leaf_alone():
    assert cells(gj.draw_dot(gj.tensor([1.0, 2.0], label="alone"))) == [("alone", "float32[2]")]


def test_several_results_of_one_step_share_its_op():
    @gj.compile
    def both(x):
        return x * 2, x + 1
    a = scalar(2.0, "a")
    first, second = both(a)
    total = first * second
    total.backward()
    drawing = gj.draw_dot(total)
    ops = [n.cells[0] for n in drawing._picture.nodes if n.kind == "op"]
    assert len(ops) == 2 and sum(op.startswith("test_several_results") for op in ops) == 1
    assert ("a", "data 2.0000", "grad 10.0000") in cells(drawing)


def test_the_graph_of_a_compiled_step():
    model = nn.Linear(3, 1)

    @gj.compile
    def f(x):
        return gj.tanh(model(x)) * 2.0
    f(np.ones((4, 3), np.float32))
    drawing = gj.draw_dot(f.graph)
    drawn = cells(drawing)
    assert ("x", "float32[4, 3]") in drawn and ("tanh", "float32[4, 1]") in drawn and ("output 0",) in drawn
    assert ("2", "float32[]") in drawn
    ElementTree.fromstring(drawing.svg)
    about = next(n.about for n in drawing._picture.nodes if n.cells[0] == "tanh")
    assert "test_draw.py" in about


def test_moons_loss_is_a_small_picture():
    gj.manual_seed(0)
    model = nn.MLP(2, [16, 16, 1])
    x, y = np.random.default_rng(0).standard_normal((100, 2)), np.where(np.arange(100) % 2, 1.0, -1.0)
    loss = (1.0 - gj.tensor(y) * model(x)).relu().mean()
    loss.label = "loss"
    loss.backward()
    drawing = gj.draw_dot(loss)
    assert 20 < len(drawing._picture.nodes) < 60 and not drawing._picture.caption
    assert "layers.0.weight" in texts(drawing.svg) and max(drawing._sheet[:2]) < 2500


# ---- bounds

def test_a_long_graph_is_drawn_in_part():
    x = scalar(1.0, "x")
    y = x
    for _ in range(3000):
        y = y * x
    drawing = gj.draw_dot(y)
    assert len(drawing._picture.nodes) < 450
    assert drawing._picture.caption == "the 200 values nearest to the result; 2,801 more are not drawn"
    assert drawing._picture.caption in texts(drawing.svg) and ("…",) in cells(drawing)
    assert len(gj.draw_dot(y, limit=3)._picture.nodes) < 10
    assert max(png_size(gj.draw_dot(y).png())) <= 20_000


def test_a_large_compiled_graph_is_drawn_in_part():
    @gj.compile
    def f(x):
        for i in range(300):
            x = gj.sin(x) * float(i)
        return x
    f(np.ones(2, np.float32))
    drawing = gj.draw_dot(f.graph, limit=50)
    assert len(drawing._picture.nodes) < 110 and drawing._picture.caption.startswith("the 50 nodes")


@pytest.mark.parametrize("limit", [0, -1, 2.5, "all"])
def test_a_limit_is_a_number_of_values(limit):
    with pytest.raises(ArgumentError, match="limit"):
        gj.draw_dot(neuron(), limit=limit)


def test_a_tape_walked_long_ago_says_so():
    a = scalar(1.0, "a")
    old = a * a
    old.backward()
    for _ in range(TRAILS.maxlen or 0):
        (a * 2).backward()
    with pytest.raises(GradientError, match="released the graph"):
        gj.draw_dot(old)
    drawn = cells(gj.draw_dot(old * 3))
    assert ("…",) in drawn and ("data 3.0000",) in drawn


def test_a_tape_too_long_to_keep_says_so():
    y = scalar(1.0)
    for _ in range(LONGEST + 1):
        y = y * 1.0
    y.backward(retain_graph=True)
    assert gj.draw_dot(y)._picture.caption
    y.backward()
    with pytest.raises(GradientError, match="4,000 values"):
        gj.draw_dot(y)


def test_what_is_kept_of_a_walked_tape_holds_no_array():
    x = gj.tensor(np.ones(1000), requires_grad=True)
    y = x * 2
    z = y[3]  # one number, perhaps a view of many
    arrays = [weakref.ref(y.data), weakref.ref(z.data)]
    loss = z * z
    del y, z
    loss.backward()
    assert [a() for a in arrays] == [None, None]
    assert ("data 4.0000", "grad 1.0000") in cells(gj.draw_dot(loss))


def test_what_is_kept_of_a_walked_tape_frees_the_residuals_of_a_step():
    def pull(g):
        return [g[0]]
    from graphjit.tape import Value, note_call
    x = scalar(1.0)
    result = Value(np.ones(()))
    note_call("step", [x._value], [result], pull)
    kept = weakref.ref(pull)
    del pull
    t = gj.Tensor._of(result) * 1.0
    t.backward(retain_graph=True)
    del t, result
    assert kept() is None


# ---- formats

@pytest.mark.parametrize("label", HOSTILE)
def test_hostile_labels_are_escaped(label):
    a = scalar(1.0, label)
    b = a * 2
    b.label = label
    drawing = gj.draw_dot(b)
    assert "script" not in {e.tag.split("}")[1] for e in ElementTree.fromstring(drawing.svg).iter()}
    shown = drawing._picture.nodes[0].cells[0]
    assert shown in texts(drawing.svg) and len(shown) <= 40 and shown.isprintable()
    lines = drawing.dot.splitlines()
    assert lines[0] == "digraph graph_ {" and lines[-1] == "}"
    string = r'"(?:[^"\\]|\\.)*"'
    for line in lines[1:-1]:
        assert re.fullmatch(rf"  (?:rankdir=\w\w|\w+ \[\w+=(?:{string}|[\w.]+)(?:, \w+=(?:{string}|[\w.]+))*\]|"
                            r"n\d+ -> n\d+);", line), line
    png_size(drawing.png())


def test_hostile_names_in_a_compiled_graph():
    w = gj.tensor([1.0, 2.0], label='w" ]; evil [label="x')
    f = gj.compile(lambda x: x * w)
    f(np.ones(2, np.float32))
    assert '\\" ]; evil' in f.graph.to_dot() and '\\" ]; evil' in gj.draw_dot(f.graph).dot


def test_a_dot_label_keeps_its_fields():
    b = scalar(1.0, "{x|y}") * 2
    assert 'label="{ \\{x\\|y\\} | data 1.0000 }"' in gj.draw_dot(b).dot
    assert str(gj.draw_dot(b)) == gj.draw_dot(b).dot
    assert 'label="\\{x\\|y\\} | data 1.0000"' in gj.draw_dot(b, rankdir="TB").dot


@pytest.mark.parametrize("name, starts", [("a.svg", b"<svg "), ("a.SVG", b"<svg "), ("a.png", b"\x89PNG"),
                                          ("a.dot", b"digraph"), ("a.gv", b"digraph"), ("deep/er/a", b"<svg ")])
def test_files_without_the_graphviz_program(tmp_path, monkeypatch, name, starts):
    monkeypatch.setenv("PATH", "")
    o = neuron()
    o.backward()
    gj.draw_dot(o, tmp_path / name)
    content = (tmp_path / name).read_bytes()
    assert content.startswith(starts)
    if starts == b"\x89PNG":
        width, height = png_size(content)
        assert width > 1000 and height > 200


def test_the_format_can_be_said(tmp_path):
    drawing = gj.draw_dot(neuron(), tmp_path / "graph", format="png")
    assert (tmp_path / "graph").read_bytes()[:4] == b"\x89PNG"
    assert drawing.save(tmp_path / "other").read_bytes()[:4] == b"\x89PNG"
    assert drawing.save(str(tmp_path / "third.png"), format="dot").read_text().startswith("digraph")


def test_a_drawing_shows_itself_in_notebooks():
    drawing = gj.draw_dot(neuron())
    assert drawing._repr_svg_() == drawing.svg and "16 nodes" not in drawing.svg
    assert repr(drawing) == "<graph of 15 nodes; save('graph.svg') writes it>"


def test_the_picture_is_the_same_each_time():
    o = neuron()
    assert gj.draw_dot(o).svg == gj.draw_dot(o).svg


@pytest.mark.parametrize("draw", [lambda o, p: gj.draw_dot(o, p / "a.jpeg"),
                                  lambda o, p: gj.draw_dot(o, format="gif"),
                                  lambda o, p: gj.draw_dot(o).save(p / "a.svg", format="pdf")])
def test_another_format_is_refused(tmp_path, draw):
    with pytest.raises(ArgumentError, match="no picture format") as caught:
        draw(neuron(), tmp_path)
    assert "svg, png, dot" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ArgumentError, match="cannot be written"):
        gj.draw_dot(neuron(), tmp_path / "file" / "a.svg")
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(ArgumentError, match="cannot be written"):
        gj.draw_dot(neuron(), tmp_path / "folder.svg")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.svg"]
    assert (tmp_path / "file").read_text() == "mine"


def test_without_matplotlib_only_png_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    drawing = gj.draw_dot(neuron(), tmp_path / "a.svg")
    assert drawing.dot and (tmp_path / "a.svg").exists()
    with pytest.raises(ArgumentError, match="matplotlib") as caught:
        drawing.save(tmp_path / "a.png")
    assert "graphjit[plots]" in str(caught.value) and not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("what", [3.0, "graph", None, neuron])
def test_other_things_cannot_be_drawn(what):
    with pytest.raises(ArgumentError, match="draws a tensor or a graph") as caught:
        gj.draw_dot(what)
    assert "f.graph" in str(caught.value)


def test_drawing_in_a_compiled_function_is_refused():
    with pytest.raises(TraceError, match="draw_dot inside"):
        gj.compile(lambda x: gj.draw_dot(x * 2))(np.ones(2))
    a = scalar(1.0)
    with pytest.raises(TraceError, match="draw_dot inside"):
        gj.compile(lambda x: gj.draw_dot(a))(np.ones(2))


# ---- layout

@pytest.mark.parametrize("rankdir", [None, "LR", "TB"])
def test_boxes_do_not_overlap_and_hold_their_words(rankdir):
    a, b = scalar(-4.0, "a"), scalar(2.0, "b")
    c, d = a + b, a * b + b ** 3
    c = c + c + 1
    d = d + d * 2 + (b + a).relu()
    e = (c - d + a) ** 2
    found = gj.draw_dot(e / 2.0 + 10.0 / e, rankdir=rankdir)._sheet
    boxes = [s for s in found.shapes if isinstance(s, Box)]
    for i, p in enumerate(boxes):
        assert p.x >= 0 and p.y >= 0 and p.x + p.width <= found.width and p.y + p.height <= found.height
        for q in boxes[i + 1:]:
            assert (p.x + p.width <= q.x or q.x + q.width <= p.x or p.y + p.height <= q.y + 1e-6
                    or q.y + q.height <= p.y + 1e-6)
    for words in (s for s in found.shapes if isinstance(s, Words)):
        half = columns(words.text) * 3.6
        assert any(p.x <= words.x - half and words.x + half <= p.x + p.width and p.y < words.y < p.y + p.height
                   for p in boxes)


def test_arrows_of_a_tree_need_not_cross():
    # a complete binary tree whose leaves are listed in a tangled order
    edges = [(i, 8 + i % 4) for i in range(8)] + [(8 + i, 12 + i % 2) for i in range(4)] + [(12, 14), (13, 14)]
    placed = layout([(10.0, 10.0)] * 15, edges)
    at = placed.centers
    for a, b in edges:
        for c, d in edges:
            if placed.spans[a][0] == placed.spans[c][0]:
                assert (at[a] - at[c]) * (at[b] - at[d]) >= 0


def test_a_wrong_direction_is_refused():
    with pytest.raises(ArgumentError, match="rankdir"):
        gj.draw_dot(neuron(), rankdir="BT")


def test_wide_characters_take_two_columns():
    assert columns("ab") == 2 and columns("漢字") == 4 and columns("e\u0301") == 1


def test_a_const_is_drawn_as_its_value():
    x = Input(TensorType((), np.dtype("float32")), "x")
    graph = Graph((x,), (x,))
    assert cells(gj.draw_dot(graph)) == [("x", "float32[]"), ("output 0",)]
    assert isinstance(apply_op(TABLE["add"], [x, x], {}), Apply)
