"""The frameworks that programs run in: each has a room, a namespace of array functions under the same names.

A room ``<name>_.py`` imports its framework when it is imported itself. Its ``__all__`` is what programs call, each
function written as the framework's users would write it; its ``calls`` gives what computes value and gradient.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Framework:
    """A framework: ``package`` has to be installed, ``room`` is its module of this folder."""

    name: str
    title: str
    package: str
    room: str

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None

    def load(self) -> Any:
        """Its room; imports the framework."""
        return importlib.import_module(f"benchmarks.programs.{self.room}")


FRAMEWORKS: dict[str, Framework] = {f.name: f for f in (
    Framework("graphjit", "graphjit", "graphjit", "graphjit_"),
    Framework("jax", "JAX", "jax", "jax_"),
    Framework("torch", "PyTorch", "torch", "torch_"),
)}


def choose(names: Sequence[str]) -> list[Framework]:
    """Frameworks by name; all without names.

    Raises:
        KeyError: nothing has that name.
    """
    return [FRAMEWORKS[name] for name in names] or list(FRAMEWORKS.values())
