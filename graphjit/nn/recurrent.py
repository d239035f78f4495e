"""Recurrent layers: ``RNN``, ``LSTM``, ``GRU``. The loop over time is Python's: a trace unrolls it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from graphjit.apply import with_rules
from graphjit.convert import as_tensor, filled
from graphjit.errors import ArgumentError, ShapeError
from graphjit.nn import functional as F
from graphjit.nn import init
from graphjit.nn.functional.layer import probability
from graphjit.nn.layers import sizes
from graphjit.nn.module import Module
from graphjit.nn.parameter import Parameter
from graphjit.ops.elementwise import relu
from graphjit.ops.join import concat, stack, unstack
from graphjit.ops.random import Generator
from graphjit.ops.transcendental import sigmoid, tanh
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import promote

States = tuple[Tensor, ...]  # what a cell keeps from step to step: (h,), or (h, c)


def steps(x: Tensor) -> list[Tensor]:
    """What x holds of each step."""
    # the plain rule would make an array of x's size for each step, and add them all
    return with_rules("steps", unstack(x), x, _together)


def _together(*g: Tensor) -> Tensor:
    return stack(g)


class Recurrent(Module):
    """What the recurrent layers share: parameters, layers, directions and the loop over time.

    A subclass says how many gates its weights hold and computes one step.
    """

    gates: ClassVar[int]
    kept: ClassVar[int] = 1  # tensors a cell keeps from step to step

    def __init__(self, input_size: int, hidden_size: int, num_layers: int, bias: bool, batch_first: bool,
                 dropout: float, bidirectional: bool, generator: Generator | None, dtype: Any) -> None:
        super().__init__()
        self.input_size = sizes("input_size", input_size)
        self.hidden_size = sizes("hidden_size", hidden_size)
        self.num_layers = sizes("num_layers", num_layers)
        if not num_layers or not hidden_size:
            raise ArgumentError(f"{type(self).__name__} needs at least one layer and one unit")
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = probability(dropout)
        self.bidirectional = bidirectional
        self.generator = generator
        for layer in range(num_layers):
            width = input_size if layer == 0 else hidden_size * (1 + bidirectional)
            for suffix in self._suffixes(layer):
                shapes = {"weight_ih": (width,), "weight_hh": (hidden_size,), **({"bias_ih": (), "bias_hh": ()}
                                                                                if bias else {})}
                for name, shape in shapes.items():
                    self.register_parameter(name + suffix, init.empty((self.gates * hidden_size, *shape), dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the starting values anew: uniform in +-1/sqrt(hidden_size)."""
        bound = 1 / math.sqrt(self.hidden_size)
        for p in self.parameters():
            init.uniform_(p, -bound, bound)

    def _suffixes(self, layer: int) -> list[str]:
        """What the names of a layer's parameters end in, a suffix for each direction."""
        return [f"_l{layer}", f"_l{layer}_reverse"][:1 + self.bidirectional]

    def _parameter(self, name: str) -> Parameter:
        found: Parameter = vars(self)[name]
        return found

    # ---- a step, defined by the subclasses

    def _input_bias(self, b_ih: Tensor, b_hh: Tensor) -> Tensor:
        """What is added to the input's part of the gates."""
        return b_ih + b_hh

    def _step(self, x: Tensor, states: States, w_hh: Tensor, b_hh: Tensor | None) -> States:
        """The next states from the input's part of the gates, (N, gates * hidden_size)."""
        raise NotImplementedError

    # ---- all steps

    def _run(self, x: TensorLike, given: Sequence[TensorLike] | None) -> tuple[Tensor, States]:
        """The outputs, and the final states (layers * directions, N, hidden_size), shaped as x is."""
        t = as_tensor(x)
        name = type(self).__name__
        if t.ndim not in (2, 3) or t.shape[-1] != self.input_size:
            order = "N, T" if self.batch_first else "T, N"
            raise ShapeError(f"{name} takes ({order}, {self.input_size}) or (T, {self.input_size}), not {t._type}")
        single = t.ndim == 2
        if single:
            t = t.expand_dims(1)
        elif self.batch_first:
            t = t.swapaxes(0, 1)
        if t.shape[0] == 0:
            raise ShapeError(f"{name} of a sequence without steps: {t._type}")
        starts = self._starts(t, given, single)
        inputs: Tensor | Sequence[Tensor] = t
        finals: list[States] = []
        for layer in range(self.num_layers):
            if layer and self.dropout and self.training:
                inputs = F.dropout(inputs if isinstance(inputs, Tensor) else stack(inputs), self.dropout,
                                   generator=self.generator)
            passes: list[list[Tensor]] = []
            for suffix in self._suffixes(layer):
                outputs, final = self._pass(inputs, suffix, starts[len(finals)])
                passes.append(outputs)
                finals.append(final)
            inputs = passes[0] if len(passes) == 1 else [concat(pair, axis=-1) for pair in zip(*passes, strict=True)]
        out = stack(inputs)  # type: ignore[arg-type]  # a list after the first layer
        states = tuple(stack(parts) for parts in zip(*finals, strict=True))
        if single:
            return out.squeeze(1), tuple(s.squeeze(1) for s in states)
        return (out.swapaxes(0, 1) if self.batch_first else out), states

    def _pass(self, inputs: Tensor | Sequence[Tensor], suffix: str, states: States) -> tuple[list[Tensor], States]:
        """One layer in one direction: the outputs step by step, and the final states."""
        w_ih, w_hh = self._parameter("weight_ih" + suffix), self._parameter("weight_hh" + suffix).T
        b_hh = self._parameter("bias_hh" + suffix) if self.bias else None
        b_ih = None if b_hh is None else self._input_bias(self._parameter("bias_ih" + suffix), b_hh)
        # the inputs of all steps in one product
        gates = steps(F.linear(inputs if isinstance(inputs, Tensor) else stack(inputs), w_ih, b_ih))
        reverse = suffix.endswith("reverse")
        outputs = []
        for x in reversed(gates) if reverse else gates:
            states = self._step(x, states, w_hh, b_hh)
            outputs.append(states[0])
        return (outputs[::-1] if reverse else outputs), states

    def _starts(self, t: Tensor, given: Sequence[TensorLike] | None, single: bool) -> list[States]:
        """The states each layer and direction starts from, those of all layers given together or 0."""
        count = self.num_layers * (1 + self.bidirectional)
        dtype = promote(t.dtype, self._parameter("weight_ih_l0").dtype)
        shape = (t.shape[1], self.hidden_size)
        if given is None:
            zero = filled(shape, 0, dtype)
            return [(zero,) * self.kept] * count
        found = []
        for state in given:
            s = as_tensor(state)
            wanted = (count, *shape[single:])
            if s.shape != wanted:
                raise ShapeError(f"{type(self).__name__} starts from states of shape {tuple(map(int, wanted))}, "
                                 f"not {s._type}", detail=(f"input: {t._type}",))
            found.append(unstack(s.expand_dims(1) if single else s))
        return list(zip(*found, strict=True))

    def extra_repr(self) -> str:
        options: dict[str, object] = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0,
                                      "bidirectional": False}
        return ", ".join([f"{self.input_size}, {self.hidden_size}",
                          *(f"{k}={vars(self)[k]}" for k, plain in options.items() if vars(self)[k] != plain)])


class RNN(Recurrent):
    """``h = tanh(x @ W_ih.T + b_ih + h @ W_hh.T + b_hh)`` at each step (Elman, 1990).

    Args:
        input_size: features of the input. hidden_size: of the output.
        num_layers: each runs over the outputs of the one before.
        nonlinearity: 'tanh' or 'relu'.
        bias: whether there are biases.
        batch_first: inputs and outputs are (N, T, ...), not (T, N, ...). States never are.
        dropout: probability that an output of a layer is dropped before the next, in training.
        bidirectional: a second pass from the end; outputs of both side by side.
        generator: of dropout's random bits. dtype: of the parameters, float32 when not given.

    Attributes:
        weight_ih_l0 (hidden, input), weight_hh_l0 (hidden, hidden), bias_ih_l0, bias_hh_l0 (hidden,); likewise
        ``_l1``, ..., and ``_l0_reverse``, ... for the second pass. They start uniform in +-1/sqrt(hidden_size).

    Call it with x (T, N, input) or (T, input) and, if wanted, a first state h (layers * directions, N, hidden);
    it gives the outputs (T, N, directions * hidden) and the final state.

    >>> import graphjit as gj
    >>> out, h = gj.nn.RNN(3, 4, num_layers=2)(gj.ones((5, 2, 3)))
    >>> out.shape, h.shape
    ((5, 2, 4), (2, 2, 4))
    """

    gates = 1

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh",
                 bias: bool = True, batch_first: bool = False, dropout: float = 0.0,
                 bidirectional: bool = False, *, generator: Generator | None = None, dtype: Any = None) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ArgumentError(f"nonlinearity is 'tanh' or 'relu', not {nonlinearity!r}")
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, generator,
                         dtype)
        self.nonlinearity = nonlinearity

    def _step(self, x: Tensor, states: States, w_hh: Tensor, b_hh: Tensor | None) -> States:
        return ((relu if self.nonlinearity == "relu" else tanh)(x + states[0] @ w_hh),)

    def forward(self, x: TensorLike, hx: TensorLike | None = None) -> tuple[Tensor, Tensor]:
        out, (final,) = self._run(x, None if hx is None else [hx])
        return out, final


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997): gates i, f, o and a candidate g, each
    of ``x @ W_ih.T + b_ih + h @ W_hh.T + b_hh``; ``c = f * c + i * g``, ``h = o * tanh(c)``.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, generator, dtype: as
            those of ``RNN``.

    Attributes:
        weight_ih_l0 (4 * hidden, input), weight_hh_l0 (4 * hidden, hidden), bias_ih_l0, bias_hh_l0
        (4 * hidden,), in the order i, f, g, o; further layers and directions as in ``RNN``.

    Call it with x and, if wanted, first states ``hx``, the pair ``(h, c)``, each (layers * directions, N, hidden);
    it gives the outputs and the final states ``(h, c)``.

    >>> import graphjit as gj
    >>> out, (h, c) = gj.nn.LSTM(3, 4, bidirectional=True, batch_first=True)(gj.ones((2, 5, 3)))
    >>> out.shape, h.shape, c.shape
    ((2, 5, 8), (2, 2, 4), (2, 2, 4))
    """

    gates = 4
    kept = 2

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, *,
                 generator: Generator | None = None, dtype: Any = None) -> None:
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, generator,
                         dtype)

    def _step(self, x: Tensor, states: States, w_hh: Tensor, b_hh: Tensor | None) -> States:
        h, c = states
        i, f, g, o = (x + h @ w_hh).split(4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        return sigmoid(o) * tanh(c), c

    def forward(self, x: TensorLike, hx: tuple[TensorLike, TensorLike] | None = None,
                ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if hx is not None and (not isinstance(hx, (tuple, list)) or len(hx) != 2):
            raise ArgumentError("LSTM takes its first states as a pair (h, c)")
        out, (h, c) = self._run(x, hx)
        return out, (h, c)


class GRU(Recurrent):
    """Gated recurrent unit (Cho et al., 2014): gates r, z of ``x @ W_ih.T + b_ih + h @ W_hh.T + b_hh``, a
    candidate ``n = tanh(x @ W_in.T + b_in + r * (h @ W_hn.T + b_hn))``; ``h = (1 - z) * n + z * h``.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, generator, dtype: as
            those of ``RNN``.

    Attributes:
        weight_ih_l0 (3 * hidden, input), weight_hh_l0 (3 * hidden, hidden), bias_ih_l0, bias_hh_l0
        (3 * hidden,), in the order r, z, n; further layers and directions as in ``RNN``.

    Called like ``RNN``.

    >>> import graphjit as gj
    >>> out, h = gj.nn.GRU(3, 4)(gj.ones((5, 3)))
    >>> out.shape, h.shape
    ((5, 4), (1, 4))
    """

    gates = 3

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, *,
                 generator: Generator | None = None, dtype: Any = None) -> None:
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, generator,
                         dtype)

    def _input_bias(self, b_ih: Tensor, b_hh: Tensor) -> Tensor:
        return b_ih  # that of h goes through the gate r

    def _step(self, x: Tensor, states: States, w_hh: Tensor, b_hh: Tensor | None) -> States:
        (h,) = states
        of_h = h @ w_hh
        xr, xz, xn = x.split(3, axis=-1)
        hr, hz, hn = (of_h if b_hh is None else of_h + b_hh).split(3, axis=-1)
        z = sigmoid(xz + hz)
        n = tanh(xn + sigmoid(xr + hr) * hn)
        return (n + z * (h - n),)

    def forward(self, x: TensorLike, hx: TensorLike | None = None) -> tuple[Tensor, Tensor]:
        out, (final,) = self._run(x, None if hx is None else [hx])
        return out, final
