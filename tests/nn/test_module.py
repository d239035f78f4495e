"""Module: registration, walking, state, printing, and what compiled programs watch."""

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest

import graphjit as gj
from graphjit import nn
from graphjit.errors import ArgumentError, BoundsError, TraceError
from graphjit.tape import clock


class Net(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.first = nn.Linear(2, width)
        self.scale = nn.Parameter(np.ones(width, np.float32))
        self.register_buffer("seen", np.zeros((), np.int64))
        self.register_buffer("scratch", gj.tensor([1.0, 2.0]), persistent=False)
        self.body = nn.Sequential(nn.ReLU(), nn.Linear(width, 1))
        self.note = "plain"

    def forward(self, x):
        return self.body(self.first(x) * self.scale)


NAMES = ["scale", "first.weight", "first.bias", "body.1.weight", "body.1.bias"]


def test_parameters_buffers_and_modules_are_registered_by_being_set():
    net = Net()
    assert [n for n, _ in net.named_parameters()] == NAMES
    assert [n for n, _ in net.named_buffers()] == ["seen", "scratch"]
    assert [n for n, _ in net.named_modules()] == ["", "first", "body", "body.0", "body.1"]
    assert [n for n, _ in net.named_children()] == ["first", "body"]
    assert list(net.children()) == [net.first, net.body]
    assert len(list(net.modules())) == 5
    assert [n for n, _ in net.named_parameters(recurse=False)] == ["scale"]
    assert next(n for n, _ in net.named_parameters(prefix="net")) == "net.scale"
    assert list(net.state_dict()) == ["scale", "seen", *NAMES[1:]]
    assert [p.label for p in net.parameters()] == NAMES
    assert net.seen.label == "seen"


def test_parameters_and_states_begin_at_a_line_of_the_cache_large_ones_apart_within_a_page():
    net = nn.Linear(96, 97)
    opt = gj.optim.Adam(net.parameters())
    net(np.ones((2, 96), np.float32)).sum().backward()
    opt.step()
    states = [t for slots in opt.state.values() for t in slots.values() if t.ndim]
    twins = [*copy.deepcopy(net).parameters(), *pickle.loads(pickle.dumps(net)).parameters()]
    assert len(states) == 4
    assert all(t.data.ctypes.data % 64 == 0 for t in (*net.parameters(), *states, *twins))
    large = [t.data.ctypes.data % 4096 for t in (net.weight, *states) if t.ndim == 2]
    assert len(set(large)) == 3
    for side in (96, 1000):  # wherever the system's memory begins, below a huge page and above
        more = [nn.Linear(side, side).weight.data.ctypes.data % 4096 for _ in range(9)]
        assert len(set(more)) == 9 and all(place % 64 == 0 for place in more)


def test_a_forgotten_super_init_does_no_harm():
    class Bare(nn.Module):
        def __init__(self):
            self.weight = nn.Parameter([1.0])

    bare = Bare()
    assert bare.training and [n for n, _ in bare.named_parameters()] == ["weight"]


def test_a_shared_parameter_counts_once_but_stands_under_both_names_in_the_state():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    assert [n for n, _ in net.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    assert len(list(net.named_parameters(remove_duplicate=False))) == 4
    assert list(net.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    again = nn.Sequential(net[0], net[0])
    assert len(list(again.modules())) == 2 and len(list(again.children())) == 1


def test_parameters_and_buffers_can_be_none_and_come_back():
    layer = nn.Linear(2, 3, bias=False)
    assert layer.bias is None and list(layer.state_dict()) == ["weight"]
    layer.bias = nn.Parameter(np.zeros(3))
    assert list(layer.state_dict()) == ["weight", "bias"]
    del layer.bias
    assert list(layer.state_dict()) == ["weight"]


def test_wrong_registrations_are_refused():
    net = Net()
    with pytest.raises(ArgumentError, match=r"cannot replace the parameter Net\.scale"):
        net.scale = gj.tensor([1.0])
    with pytest.raises(ArgumentError, match=r"cannot replace the buffer Net\.seen"):
        net.seen = 3
    with pytest.raises(ArgumentError, match="without dots"):
        net.add_module("a.b", nn.ReLU())
    with pytest.raises(ArgumentError, match="already"):
        net.register_buffer("forward", gj.tensor(1.0))
    with pytest.raises(ArgumentError, match="already"):
        net.register_parameter("note", nn.Parameter([1.0]))
    with pytest.raises(ArgumentError, match="holds modules"):
        nn.Sequential(nn.ReLU(), lambda x: x)
    with pytest.raises(NotImplementedError, match="Module does not define forward"):
        nn.Module()(1)


def test_train_and_eval_reach_every_module():
    net = Net()
    assert net.eval() is net and not any(m.training for m in net.modules())
    net.train()
    assert all(m.training for m in net.modules())


def test_apply_visits_inner_modules_first():
    order = []
    net = Net()
    assert net.apply(lambda m: order.append(type(m).__name__)) is net
    assert order == ["Linear", "ReLU", "Linear", "Sequential", "Net"]


def test_requires_grad_and_zero_grad():
    net = Net()
    net(np.ones((4, 2), np.float32)).sum().backward()
    assert net.scale.grad is not None
    net.zero_grad(set_to_none=False)
    assert not net.scale.grad.numpy().any()
    net.zero_grad()
    assert net.scale.grad is None
    net.requires_grad_(False)
    assert not net(np.ones((4, 2), np.float32)).requires_grad


def test_double_and_float_change_parameters_and_floating_buffers():
    net = Net()
    weight = net.first.weight
    assert net.double() is net
    assert {t.dtype.name for t in net.parameters()} == {"float64"} and weight is net.first.weight
    assert net.seen.dtype == np.int64 and net.scratch.dtype == np.float64
    net(np.ones((4, 2))).sum().backward()
    assert net.scale.grad.dtype == np.float64
    assert net.float()(np.ones((4, 2), np.float32)).dtype == np.float32


def test_state_dict_round_trip_keeps_the_tensors_and_casts():
    net, other = Net(), Net()
    weight = net.first.weight
    state = other.double().state_dict()
    assert net.load_state_dict(state) == ([], [])
    assert net.first.weight is weight and weight.dtype == np.float32 and weight.requires_grad
    np.testing.assert_array_equal(weight.data, other.first.weight.data.astype(np.float32))
    assert not any(t.requires_grad for t in net.state_dict().values())
    net.load_state_dict({name: t.numpy() for name, t in state.items()})
    net.load_state_dict(net.state_dict())


def test_a_state_dict_is_what_the_module_held_then():
    net = Net()
    before = net.state_dict()
    kept = copy.deepcopy(before)
    net.scale.assign(7)
    assert before["scale"].tolist() == kept["scale"].tolist() == [1.0, 1.0, 1.0]


def test_all_mismatches_of_a_state_dict_are_listed_and_nothing_is_changed():
    net = Net()
    state = Net(width=4).state_dict()
    state["extra"] = state.pop("seen")
    before = net.first.bias.data.copy()
    with pytest.raises(ArgumentError) as caught:
        net.load_state_dict(state)
    text = str(caught.value)
    for part in ("seen is missing", "extra is unexpected", "scale has shape (4,) in the state_dict, (3,)",
                 "first.weight", "body.1.weight"):
        assert part in text
    assert len(text.splitlines()) <= 15
    np.testing.assert_array_equal(net.first.bias.data, before)
    with pytest.raises(ArgumentError, match="does not fit"):
        net.load_state_dict(state, strict=False)
    state = {"scale": np.full(3, 5.0), "extra": np.zeros(1)}
    keys = net.load_state_dict(state, strict=False)
    assert keys.unexpected_keys == ["extra"] and "seen" in keys.missing_keys
    assert net.scale.tolist() == [5.0, 5.0, 5.0]


def test_deep_copies_and_pickles_are_independent():
    net = Net()
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert isinstance(twin.scale, nn.Parameter) and twin.scale.requires_grad
        assert twin.first.weight.label == "first.weight"
        twin.scale.assign(9)
        assert net.scale.tolist() == [1.0, 1.0, 1.0]
        x = np.ones((2, 2), np.float32)
        assert twin(x).shape == (2, 1)


def test_repr_shows_the_tree():
    assert repr(Net()) == """Net(
  (first): Linear(in_features=2, out_features=3, bias=True)
  (body): Sequential(
    (0): ReLU()
    (1): Linear(in_features=3, out_features=1, bias=True)
  )
)"""


def test_sequential_is_a_sequence():
    a, b, c = nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)
    net = nn.Sequential(a, b)
    assert net.append(c) is net and len(net) == 3 and list(net) == [a, b, c]
    assert net[0] is a and net[-1] is c and list(net[1:]) == [b, c] and isinstance(net[1:], nn.Sequential)
    assert [n for n, _ in net[1:].named_children()] == ["1", "2"]
    with pytest.raises(BoundsError, match="no module 3 in a Sequential of 3"):
        net[3]
    net[1] = nn.Tanh()
    assert isinstance(net[1], nn.Tanh) and list(net)[2] is c
    del net[1]
    assert [n for n, _ in net.named_children()] == ["0", "1"] and net[1] is c
    named = nn.Sequential(OrderedDict(fc=a, act=b))
    assert list(named.state_dict()) == ["fc.weight", "fc.bias"]
    assert [n for n, _ in named.insert(1, c).named_children()] == ["fc", "1", "act"]


def test_modules_are_put_in_and_taken_out():
    a, b, c, d = nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1), nn.Tanh()
    layers = nn.ModuleList([a, c])
    assert layers.insert(1, b) is layers and list(layers) == [a, b, c]
    assert list(layers.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert list(layers.insert(-1, d)) == [a, b, d, c]
    assert layers.pop(2) is d and layers.pop() is c and list(layers) == [a, b]
    with pytest.raises(ArgumentError, match="holds modules"):
        layers.insert(0, len)
    assert [n for n, _ in layers.named_children()] == ["0", "1"]
    tail = nn.Sequential(a, b, c)[1:]
    assert list(tail.append(d)) == [b, c, d]  # under a name that is free
    heads = nn.ModuleDict({"a": a, "b": b})
    assert heads.pop("a") is a and list(heads) == ["b"]


def test_module_list_and_dict_register():
    layers = nn.ModuleList([nn.Linear(2, 2)])
    layers.append(nn.Linear(2, 2)).extend([nn.ReLU()])
    assert len(layers) == 3 and len(layers[:2]) == 2 and len(list(layers.parameters())) == 4
    heads = nn.ModuleDict({"a": nn.Linear(2, 1)})
    heads["b"] = nn.ReLU()
    assert list(heads) == ["a", "b"] and "a" in heads and "c" not in heads and len(heads.items()) == 2
    del heads["a"]
    assert list(heads.keys()) == ["b"]
    with pytest.raises(KeyError):
        heads["a"]


def test_names_given_by_the_user_stay():
    p = nn.Parameter([1.0], label="temperature")
    outer = nn.Module()
    outer.inner = nn.Module()
    outer.inner.t = p
    assert p.label == "temperature"


def test_setting_an_attribute_moves_the_clock_and_the_signature():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.2))
    signature = net._static_signature()
    assert signature == net._static_signature() and hash(signature) == hash(net._static_signature())

    def changes(act) -> bool:
        before, tick = net._static_signature(), clock.structure
        act()
        assert clock.structure > tick
        return before != net._static_signature()

    assert changes(lambda: setattr(net[2], "p", 0.3))
    assert not changes(lambda: setattr(net[2], "p", 0.3))
    assert changes(net.eval)
    assert changes(lambda: net.__setitem__(0, nn.Linear(2, 2)))
    assert changes(lambda: setattr(net[0], "bias", None))
    assert changes(lambda: net.append(nn.ReLU()))
    assert changes(lambda: setattr(net, "sizes", [1, {"a": 2.0}]))
    assert changes(lambda: setattr(net, "sizes", [1, {"a": 2}]))
    assert changes(lambda: net[0].weight.requires_grad_(False))
    assert changes(net.double)
    assert changes(lambda: delattr(net, "sizes"))


def test_a_forward_pass_does_not_move_the_clock():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, momentum=None), nn.Dropout(0.2))
    net(np.ones((4, 2), np.float32))
    tick = clock.structure
    net(np.ones((4, 2), np.float32))
    assert clock.structure == tick


def test_a_module_that_knows_its_owner_has_a_signature():
    outer = nn.Sequential(nn.ReLU())
    outer[0].notes = {"owner": outer}
    assert outer._static_signature() == outer._static_signature()


def test_parameter_copies_and_refuses_what_cannot_be_learned():
    array = np.ones(3)
    p = nn.Parameter(array)
    array[0] = 5
    assert p.tolist() == [1.0, 1.0, 1.0] and p.dtype == np.float64 and isinstance(p, gj.Tensor)
    with pytest.raises(gj.errors.DTypeError):
        nn.Parameter([1, 2])
    assert nn.Parameter([1, 2], requires_grad=False).dtype == np.int64


def test_parameters_and_buffers_inside_a_compiled_function():
    @gj.compile
    def make(x):
        return nn.Parameter(np.ones(2)) * x

    with pytest.raises(TraceError, match="inside a compiled function"):
        make(np.ones(2))

    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", np.zeros((), np.float32))

        def forward(self, x):
            self.count = self.count + x.sum()
            return self.count * 2

    model = Counter()
    step = gj.compile(lambda x: model(x))
    assert step(gj.ones(3)).item() == 6 and step(gj.ones(3)).item() == 12
    assert model.count.item() == 6 and step.trace_count == 1
