"""``Neuron``, ``Layer`` and ``MLP``: a multilayer perceptron in three small classes, micrograd's names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeVar, overload

from graphjit.convert import as_tensor
from graphjit.errors import ArgumentError, ShapeError
from graphjit.nn import functional as F
from graphjit.nn import init
from graphjit.nn.container import ModuleList
from graphjit.nn.layers import sizes
from graphjit.nn.module import Module
from graphjit.nn.parameter import Parameter
from graphjit.ops.join import stack
from graphjit.tensor import Tensor, TensorLike

if TYPE_CHECKING:
    from graphjit.training import History

M = TypeVar("M", bound="MLP")
Function = Callable[[Tensor], Tensor]
ACTIVATIONS: dict[str, Function] = {
    "relu": F.relu, "tanh": F.tanh, "sigmoid": F.sigmoid, "leaky_relu": F.leaky_relu, "elu": F.elu,
    "gelu": F.gelu, "silu": F.silu, "softplus": F.softplus,
}
Activation = str | Function | None  # None (or 'linear'): none


def _function(activation: Activation) -> Function | None:
    """The activation of this name.

    Raises:
        ArgumentError: there is none.
    """
    if activation is None or activation == "linear":
        return None
    if callable(activation):
        return activation
    if activation not in ACTIVATIONS:
        raise ArgumentError(f"there is no activation {activation!r}",
                            hint=f"There are linear, {', '.join(ACTIVATIONS)}; or give a function.")
    return ACTIVATIONS[activation]


def _start(weight: Parameter, activation: Activation) -> None:
    """He's starting values before a relu, Glorot's otherwise."""
    if activation in ("relu", "leaky_relu", "elu", "gelu", "silu"):
        init.kaiming_uniform_(weight, nonlinearity="relu")
    else:
        init.xavier_uniform_(weight)


def _inputs(x: TensorLike, n_in: int, name: str) -> Tensor:
    """Inputs (..., n_in); also a list of tensors, one for each feature (or sample)."""
    t = stack([as_tensor(part) for part in x]) if isinstance(x, (list, tuple)) and any(
        isinstance(part, Tensor) for part in x) else as_tensor(x)
    if not t.ndim or t.shape[-1] != n_in:
        raise ShapeError(f"{name} takes inputs (..., {n_in}), not {t._type}")
    return t


class Neuron(Module):
    """``activation(x @ weight + bias)``: one number for n_in.

    Args:
        n_in: inputs.
        activation: a name ('relu', 'tanh', 'sigmoid', 'linear', ...), a function, or None.
        dtype: of the parameters, float32 when not given.

    Attributes:
        weight: (n_in,). bias: scalar, starts at 0.

    Called with (n_in,) or (..., n_in), a list, an array or a tensor (also a list of scalar tensors), it gives a
    scalar or (...).

    >>> from graphjit import nn
    >>> nn.Neuron(3)([1.0, -2.0, 0.5]).shape
    ()
    """

    def __init__(self, n_in: int, activation: Activation = "relu", *, dtype: Any = None) -> None:
        super().__init__()
        self.n_in = sizes("n_in", n_in)
        self.activation = activation
        self._function = _function(activation)
        row = init.empty((1, n_in), dtype)
        _start(row, activation)
        self.weight = Parameter(row.data[0])
        self.bias = init.empty((), dtype)

    def forward(self, x: TensorLike) -> Tensor:
        out = (_inputs(x, self.n_in, "Neuron") * self.weight).sum(axis=-1) + self.bias
        return out if self._function is None else self._function(out)

    def extra_repr(self) -> str:
        return f"{self.n_in}, activation={_shown(self.activation)}"


class Layer(Module):
    """``activation(x @ weight.T + bias)``: n_out neurons on the same inputs.

    Args:
        n_in, n_out: inputs and outputs.
        activation: as that of ``Neuron``.
        dtype: of the parameters, float32 when not given.

    Attributes:
        weight: (n_out, n_in), a row for each neuron. bias: (n_out,), starts at 0.

    Called with (..., n_in) it gives (..., n_out), and (...) where n_out is 1: one neuron gives a number.

    >>> from graphjit import nn
    >>> nn.Layer(2, 3)([1.0, -2.0]).shape, nn.Layer(2, 1)([1.0, -2.0]).shape
    ((3,), ())
    """

    def __init__(self, n_in: int, n_out: int, activation: Activation = "relu", *, dtype: Any = None) -> None:
        super().__init__()
        self.n_in = sizes("n_in", n_in)
        self.n_out = sizes("n_out", n_out)
        self.activation = activation
        self._function = _function(activation)
        self.weight = init.empty((n_out, n_in), dtype)
        self.bias = init.empty((n_out,), dtype)
        _start(self.weight, activation)

    def _all(self, x: Tensor) -> Tensor:
        out = F.linear(x, self.weight, self.bias)
        return out if self._function is None else self._function(out)

    def forward(self, x: TensorLike) -> Tensor:
        out = self._all(_inputs(x, self.n_in, "Layer"))
        return out.squeeze(-1) if self.n_out == 1 else out

    def extra_repr(self) -> str:
        return f"{self.n_in}, {self.n_out}, activation={_shown(self.activation)}"


class MLP(Module):
    """A multilayer perceptron: layers one after the other, the last one linear.

    Args:
        n_in: inputs.
        n_outs: outputs of each layer, as in ``MLP(2, [16, 16, 1])``.
        activation: of all layers but the last, as that of ``Neuron``.
        dtype: of the parameters, float32 when not given.

    Attributes:
        layers: ``Layer``s. A weight starts with He's values before a relu, with Glorot's otherwise.

    Called with a sample (n_in,) or a batch (..., n_in), a list, an array or a tensor, it gives (n_out,) or
    (..., n_out), and a scalar or (...) where the last layer has one neuron.

    >>> import graphjit as gj
    >>> model = gj.nn.MLP(2, [16, 16, 1])
    >>> model([0.5, -1.0]).shape, model(gj.ones((100, 2))).shape
    ((), (100,))
    >>> sum(p.size for p in model.parameters())
    337
    """

    def __init__(self, n_in: int, n_outs: Sequence[int], activation: Activation = "relu", *,
                 dtype: Any = None) -> None:
        super().__init__()
        if isinstance(n_outs, int) or not n_outs:
            raise ArgumentError(f"MLP takes a list of layer sizes, not {n_outs!r}", hint="As in MLP(2, [16, 16, 1]).")
        widths = [n_in, *n_outs]
        last = len(n_outs) - 1
        self.layers = ModuleList(Layer(a, b, None if i == last else activation, dtype=dtype)
                                 for i, (a, b) in enumerate(zip(widths, n_outs, strict=False)))

    def forward(self, x: TensorLike) -> Tensor:
        layers: list[Any] = list(self.layers)
        out = _inputs(x, layers[0].n_in, "MLP")
        for layer in layers[:-1]:
            out = layer._all(out)
        found: Tensor = layers[-1](out)
        return found

    @overload
    def train(self: M, mode: bool = True) -> M: ...
    @overload
    def train(self, loss: Callable[[Tensor, Tensor], Tensor], data: Any, epochs: int, *, lr: float = 0.1,
              schedule: Callable[[int], float] | None = None, batch_size: int = 32, seed: int | None = None,
              metrics: Any = None, eager: bool = False, progress: bool | None = None) -> History: ...

    def train(self: M, *args: Any, **kwargs: Any) -> M | History:
        """``train()``, ``train(False)``: the mode, as of every module. ``train(loss, data, epochs)``: learn.

        It takes plain gradient steps on mini-batches, compiled. ``graphjit.training.fit`` has all choices: other
        optimizers, schedules, validation, checkpoints.

        Args:
            loss: ``loss(output, target)``, a scalar; ``F.hinge_loss``, say.
            data: a tuple (x, y) of all inputs and targets, shuffled anew in each epoch; or a DataLoader.
            epochs: passes over the samples.
            lr: learning rate, where there is no schedule.
            schedule: a function of the epoch, 0, 1, ..., that gives the learning rate.
            batch_size: samples in a step. seed: repeats the orders of the samples.
            metrics, eager, progress: as in ``fit``; accuracy where y holds class numbers, or 1 and -1.

        Returns:
            The module; with a loss, the ``graphjit.training.History``.

        Raises:
            ArgumentError: no data or epochs beside a loss; a schedule that is no function.

        >>> import graphjit as gj
        >>> import graphjit.nn.functional as F
        >>> _ = gj.manual_seed(0)
        >>> x = gj.random.normal((40, 2)).numpy(); y = 2 * (x[:, 0] > x[:, 1]) - 1
        >>> model = gj.nn.MLP(2, [8, 1])
        >>> history = model.train(F.hinge_loss, (x, y), epochs=20, schedule=lambda epoch: 0.5 - 0.02 * epoch, seed=0)
        >>> history["train_accuracy"][-1] > 0.9, round(history["lr"][-1], 2)
        (True, 0.12)
        """
        if not callable(kwargs.get("loss", args[0] if args else None)):
            return super().train(*args, **kwargs)
        from graphjit.training import train_perceptron  # above this room: only who trains imports it
        try:
            signature(train_perceptron).bind(self, *args, **kwargs)
        except TypeError as error:
            raise ArgumentError(f"train(loss, data, epochs): {error}",
                                hint="As in model.train(loss, (x, y), epochs=40, lr=0.1).") from None
        return train_perceptron(self, *args, **kwargs)


def _shown(activation: Activation) -> str:
    return repr(activation) if activation is None or isinstance(activation, str) else getattr(
        activation, "__name__", repr(activation))
