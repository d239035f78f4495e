"""What is done to parameters and gradients of a model as a whole."""

from graphjit.nn.utils.clip_grad import clip_grad_norm_, clip_grad_value_

__all__ = ["clip_grad_norm_", "clip_grad_value_"]
