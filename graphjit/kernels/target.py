"""What the machine that kernels are compiled for can hold: vector width, vector registers, caches."""

import ctypes
import functools
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llvmlite import ir

from graphjit.kernels.emit import F32, F64
from graphjit.runtime.machine import target_cpu

_AVX512 = ("skylake-avx512", "cascadelake", "cooperlake", "cannonlake", "icelake", "tigerlake", "rocketlake",
           "sapphirerapids", "emeraldrapids", "graniterapids", "znver4", "znver5", "x86-64-v4")
_AVX2 = ("haswell", "broadwell", "skylake", "alderlake", "raptorlake", "znver", "x86-64-v3")


@dataclass(frozen=True)
class Target:
    """Widths in bytes; `masks`: there are instructions for masked stores; `assembly`: there are tiles in assembly;
    `tile_unit`: there is a unit that multiplies tiles of bfloat16 numbers (AMX), and this process may use it;
    `avx512`: instructions of AVX-512 may be used."""

    vector: int
    registers: int
    masks: bool
    assembly: bool
    tile_unit: bool
    avx512: bool
    l1: int
    l2: int

    def lanes(self, itemsize: int) -> int:
        return self.vector // itemsize


@dataclass(frozen=True)
class Element:
    """A floating type as LLVM knows it, and the vector of it that fills a register."""

    name: str
    size: int
    lanes: int

    @property
    def type(self) -> Any:
        return F32 if self.size == 4 else F64

    @property
    def vector(self) -> Any:
        return ir.VectorType(self.type, self.lanes)

    @property
    def suffix(self) -> str:
        """How names of intrinsics end that work on this vector."""
        return f"v{self.lanes}f{8 * self.size}"


@functools.cache
def target() -> Target:
    """The machine that kernels are compiled for."""
    features = _features()
    if features.get("avx512f"):
        vector, registers = 64, 32
    elif features.get("avx2"):
        vector, registers = 32, 16
    else:
        vector, registers = 16, 32 if platform.machine() in ("aarch64", "arm64") else 16
    # symbols are spelled otherwise on macOS
    assembly = vector == 64 and bool(features.get("avx512vl")) and platform.system() in ("Linux", "Windows")
    tile_unit = vector == 64 and bool(features.get("amx-bf16") and features.get("amx-tile")) and _tile_unit_is_ours()
    caches = _cache_size(1, 32 << 10), _cache_size(2, 512 << 10)
    return Target(vector, registers, vector > 16, assembly, tile_unit, vector == 64, *caches)


def _features() -> dict[str, bool]:
    name, features = target_cpu()
    if features:
        return {feature[1:]: feature[0] == "+" for feature in features.split(",") if feature}
    # LLVM does not tell what a CPU given by name alone can do
    wide = name.startswith(_AVX512)
    return {"avx512f": wide, "avx512vl": wide, "avx2": name.startswith(_AVX2)}


def _tile_unit_is_ours() -> bool:
    """Ask Linux for the tile unit, whose registers it keeps for those processes only that want them.

    `GRAPHJIT_TILE_UNIT=0` in the environment leaves it alone.
    """
    if os.environ.get("GRAPHJIT_TILE_UNIT") == "0" or sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    syscall: Any = ctypes.CDLL(None, use_errno=True).syscall
    return int(syscall(arch_prctl, request_permission, tile_data)) == 0


def _cache_size(level: int, default: int) -> int:
    """Bytes of the data cache of this level, as Linux tells it."""
    for entry in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            kind = (entry / "type").read_text().strip()
            if int((entry / "level").read_text()) == level and kind in ("Data", "Unified"):
                return int((entry / "size").read_text().strip().removesuffix("K")) << 10
        except (OSError, ValueError):
            continue
    return default
