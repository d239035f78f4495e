"""``Module``: parameters, buffers and modules under names, and what is done to all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from graphjit.arrays import lasting_copy, to_array
from graphjit.convert import as_tensor, filled
from graphjit.errors import ArgumentError
from graphjit.leaves import Unavailable
from graphjit.nn.parameter import Parameter
from graphjit.structure import Structured
from graphjit.tape import Value, grad_mode, state
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import FLOAT32, FLOAT64, DType, is_float

M = TypeVar("M", bound="Module")
T = TypeVar("T")
LISTED = 8  # mismatches named in an error; the others are counted


def zero_gradients(tensors: Iterable[Tensor], set_to_none: bool) -> None:
    """Forget these gradients, or set those there are to zero."""
    for t in tensors:
        if set_to_none:
            t.zero_grad()
        elif (state.trace is None and isinstance(t._grad, Unavailable)) or t.grad is not None:
            t.grad = filled(t.shape, 0, t.dtype)


class Keys(NamedTuple):
    """What ``load_state_dict(strict=False)`` passed over."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module(Structured):
    """Base of all layers and models.

    Attributes that are a ``Parameter`` or a ``Module`` are registered by being set; other tensors that belong
    to the state are registered with ``register_buffer``. Names, order and ``state_dict`` keys are PyTorch's.

    >>> import graphjit as gj
    >>> from graphjit import nn
    >>> class Affine(nn.Module):
    ...     def __init__(self, n):
    ...         super().__init__()
    ...         self.scale = nn.Parameter(gj.ones(n))
    ...         self.shift = nn.Parameter(gj.zeros(n))
    ...     def forward(self, x):
    ...         return x * self.scale + self.shift
    >>> model = Affine(3)
    >>> [name for name, p in model.named_parameters()]
    ['scale', 'shift']
    >>> model(gj.ones((2, 3))).shape
    (2, 3)
    """

    training: bool
    _buffer_names: dict[str, bool]  # name -> whether it is part of state_dict

    def __new__(cls, *args: Any, **kwargs: Any) -> Module:
        # here and not in __init__, so that a forgotten super().__init__() does no harm
        self = super().__new__(cls)
        vars(self).update(training=True, _buffer_names={})
        return self

    def __init__(self) -> None:  # with __new__ alone, any argument of a layer without one of its own would be taken
        super().__init__()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; subclasses define it."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._reach()
        return self.forward(*args, **kwargs)

    # ---- registration

    def __setattr__(self, name: str, value: Any) -> None:
        before = vars(self).get(name)
        if isinstance(before, Parameter) and isinstance(value, Tensor) and not isinstance(value, Parameter):
            raise ArgumentError(f"a plain tensor cannot replace the parameter {type(self).__name__}.{name}",
                                hint=f"Use nn.Parameter(...), or write its values: .{name}.assign(x).")
        if name in self._buffer_names and value is not None and not isinstance(value, Tensor):
            raise ArgumentError(f"{value!r:.40} cannot replace the buffer {type(self).__name__}.{name}",
                                hint="Use gj.tensor(...) or None.")
        if (state.trace is not None and name in self._buffer_names and isinstance(before, Tensor)
                and isinstance(value, Tensor) and before.shape == value.shape):
            # a traced tensor does not outlive its trace; the program writes the buffer instead
            before.assign(value)
            return
        super().__setattr__(name, value)
        self._name(name, value)

    def _name(self, name: str, value: Any) -> None:
        """Give the tensors of a new attribute their names as seen from here, unless the user named them."""
        if isinstance(value, Parameter) or (name in self._buffer_names and isinstance(value, Tensor)):
            value.label = value.label or name
        elif isinstance(value, Module):
            for path, t in (*value.named_parameters(), *value.named_buffers()):
                if t.label in ("", path):
                    t.label = f"{name}.{path}"

    def register_buffer(self, name: str, tensor: TensorLike | None, persistent: bool = True) -> None:
        """Make a tensor that is not learned (running statistics, say) part of the module's state.

        Args:
            name: the attribute it is read by.
            tensor: its values, or None for a buffer that is switched off.
            persistent: whether it is part of ``state_dict()``.
        """
        _check_name(self, name)
        self._buffer_names[name] = persistent
        if tensor is not None and not isinstance(tensor, Tensor):
            tensor = Tensor._of(Value(np.array(to_array(tensor))))
        setattr(self, name, tensor)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """``setattr(self, name, param)``, for names made at run time."""
        _check_name(self, name)
        setattr(self, name, param)

    def add_module(self, name: str, module: Module | None) -> None:
        """``setattr(self, name, module)``, for names made at run time."""
        _check_name(self, name)
        setattr(self, name, module)

    # ---- walking

    def named_modules(self, prefix: str = "",
                      memo: set[Module] | None = None) -> Iterator[tuple[str, Module]]:
        """The module itself and all below it with their names, each once, outer before inner."""
        self._reach()
        memo = set() if memo is None else memo
        if self in memo:
            return
        memo.add(self)
        yield prefix, self
        for name, child in own(self, Module):
            yield from child.named_modules(_join(prefix, name), memo)

    def modules(self) -> Iterator[Module]:
        """The module itself and all below it, each once."""
        return (m for _, m in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules that are attributes of this one, with their names, each once."""
        seen: set[Module] = set()
        for name, child in own(self, Module):
            if child not in seen:
                seen.add(child)
                yield name, child

    def children(self) -> Iterator[Module]:
        """The modules that are attributes of this one, each once."""
        return (m for _, m in self.named_children())

    def named_parameters(self, prefix: str = "", recurse: bool = True,
                         remove_duplicate: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Parameters with their names; a shared one once, under its first name, if ``remove_duplicate``."""
        return self._named(_parameters, prefix, recurse, remove_duplicate)

    def named_buffers(self, prefix: str = "", recurse: bool = True,
                      remove_duplicate: bool = True) -> Iterator[tuple[str, Tensor]]:
        """Buffers with their names, persistent or not."""
        return self._named(_buffers, prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters, each once."""
        found: dict[int, Parameter] = {}
        if recurse:
            _find_parameters(self, set(), found)
            return iter(found.values())
        return (p for _, p in self.named_parameters(recurse=False))

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers, each once."""
        return (b for _, b in self.named_buffers(recurse=recurse))

    def _named(self, listed: Callable[[Module], Iterator[tuple[str, Any]]], prefix: str, recurse: bool,
               once: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for path, module in self.named_modules(prefix) if recurse else ((prefix, self),):
            for name, t in listed(module):
                if not (once and id(t) in seen):
                    seen.add(id(t))
                    yield _join(path, name), t

    def apply(self: M, fn: Callable[[Module], object]) -> M:
        """Call ``fn`` with every module below this one, inner before outer, then with itself."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    # ---- modes

    def train(self: M, mode: bool = True) -> M:
        """Switch all modules below to training (dropout drops, batch statistics count); gives itself."""
        for module in self.modules():
            if module.training != bool(mode):
                module.training = bool(mode)
        return self

    def eval(self: M) -> M:
        """Switch to evaluation: ``train(False)``."""
        return self.train(False)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Set ``requires_grad`` of every parameter; gives itself."""
        for p in self.parameters():
            p.requires_grad = requires_grad
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or set those there are to zero."""
        zero_gradients(self.parameters(), set_to_none)

    def double(self: M) -> M:
        """Turn floating parameters and buffers into float64; gives itself."""
        return self._cast(FLOAT64)

    def float(self: M) -> M:
        """Turn floating parameters and buffers into float32; gives itself."""
        return self._cast(FLOAT32)

    def _cast(self: M, dtype: DType) -> M:
        for _, t in (*self.named_parameters(), *self.named_buffers()):
            if is_float(t.dtype) and t.dtype != dtype:
                t.zero_grad()
                t.data = lasting_copy(t.data.astype(dtype))
        return self

    # ---- state

    def state_dict(self, prefix: str = "") -> dict[str, Tensor]:
        """Parameters and persistent buffers by name, as they are now.

        Later training does not change the tensors given: memory is shared only as long as nothing is written.
        """
        return {name: t.detach() for name, t in self._state(prefix)}

    def _state(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        yield from ((prefix + name, p) for name, p in _parameters(self))
        yield from ((prefix + name, b) for name, b in _buffers(self) if self._buffer_names[name])
        for name, child in own(self, Module):
            yield from child._state(f"{prefix}{name}.")

    def load_state_dict(self, state_dict: Mapping[str, TensorLike], strict: bool = True) -> Keys:
        """Copy values into the parameters and buffers of these names, which stay the same tensors.

        Args:
            state_dict: name -> Tensor or array (also PyTorch's tensors); cast to the dtype found here.
            strict: whether names must match exactly; otherwise what does not is passed over and returned.

        Raises:
            ArgumentError: names that do not match, or shapes that differ; it lists them all, and nothing has
                been changed then.
        """
        here = dict(self._state())
        given = {name: value if isinstance(value, Tensor) else as_tensor(np.asarray(value))
                 for name, value in state_dict.items()}
        keys = Keys([n for n in here if n not in given], [n for n in given if n not in here])
        shapes = [f"{name} has shape {given[name].shape} in the state_dict, {t.shape} in the module"
                  for name, t in here.items() if name in given and given[name].shape != t.shape]
        names = [*(f"{n} is missing" for n in keys.missing_keys),
                 *(f"{n} is unexpected" for n in keys.unexpected_keys)] if strict else []
        if wrong := names + shapes:
            more = (f"... and {len(wrong) - LISTED} more",) if len(wrong) > LISTED else ()
            raise ArgumentError(f"a state_dict does not fit {type(self).__name__}",
                                detail=(*wrong[:LISTED], *more),
                                hint="strict=False passes over names that differ." if names else "")
        with grad_mode(False):
            for name, t in here.items():
                if name in given:
                    t.assign(given[name])
        return keys

    # ---- printing

    def extra_repr(self) -> str:
        """What stands between the parentheses of the module's own line."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        children = [f"  ({name}): " + repr(child).replace("\n", "\n  ") for name, child in own(self, Module)]
        if not children:
            return f"{type(self).__name__}({extra})"
        return "\n".join([f"{type(self).__name__}(", *(["  " + extra] if extra else []), *children, ")"])


def own(module: Module, kind: type[T]) -> Iterator[tuple[str, T]]:
    """Attributes of a module that are of this kind, with their names."""
    return ((name, value) for name, value in list(vars(module).items()) if isinstance(value, kind))


def _find_parameters(module: Module, seen: set[Module], found: dict[int, Parameter]) -> None:
    """The parameters of ``named_parameters``, in its order, without their names: people ask for them in each step."""
    if module in seen:
        return
    seen.add(module)
    module._reach()
    children: list[Module] = []
    for value in vars(module).values():
        if isinstance(value, Parameter):
            found.setdefault(id(value), value)
        elif isinstance(value, Module):
            children.append(value)
    for child in children:
        _find_parameters(child, seen, found)


def _parameters(module: Module) -> Iterator[tuple[str, Parameter]]:
    return own(module, Parameter)


def _buffers(module: Module) -> Iterator[tuple[str, Tensor]]:
    return ((name, t) for name, t in own(module, Tensor) if name in module._buffer_names)


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _check_name(module: Module, name: str) -> None:
    if not isinstance(name, str) or not name or "." in name:
        raise ArgumentError(f"{name!r} is not a name of a parameter, buffer or module",
                            hint="It is a string without dots that is not empty.")
    registered = name in module._buffer_names or isinstance(
        vars(module).get(name), (Parameter, Module, type(None)))
    if hasattr(type(module), name) or (name in vars(module) and not registered):
        raise ArgumentError(f"{type(module).__name__} has an attribute {name!r} already")
