"""Functions of functions: derivatives, and the modes of the tape."""

from graphjit.transforms.custom import custom_vjp
from graphjit.transforms.forward import hvp, jvp
from graphjit.transforms.jacobian import hessian, jacobian
from graphjit.transforms.modes import enable_grad, no_grad
from graphjit.transforms.reverse import grad, value_and_grad, vjp

__all__ = [
    "custom_vjp", "enable_grad", "grad", "hessian", "hvp", "jacobian", "jvp", "no_grad", "value_and_grad",
    "vjp",
]
