"""Checkpoints: the state of a training in one safetensors file, hashed, written atomically, loaded without code."""

from graphjit.checkpoint.state import Checkpoint, load_checkpoint, save_checkpoint

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]
