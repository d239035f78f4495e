"""Writers of small files in the true formats, apart from the readers."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np

IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CIFAR = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")


def idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def mnist_arrays(seed: int = 0, training: int = 12, test: int = 5) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (training, 28, 28)), rng.integers(0, 10, training),
            rng.integers(0, 256, (test, 28, 28)), rng.integers(0, 10, test)]


def write_mnist(folder: Path, arrays: list[np.ndarray], zipped: bool = False, dotted: bool = False) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, array in zip(IDX, arrays, strict=True):
        name = name.replace("-idx", ".idx") if dotted else name
        path = folder / (f"{name}.gz" if zipped else name)
        path.write_bytes(gzip.compress(idx(array)) if zipped else idx(array))
        paths.append(path)
    return paths


def cifar_arrays(each: int = 3) -> list[tuple[np.ndarray, np.ndarray]]:
    """Labels and (each, 3, 32, 32) pixels of the six batches."""
    rng = np.random.default_rng(1)
    return [(rng.integers(0, 10, each), rng.integers(0, 256, (each, 3, 32, 32))) for _ in CIFAR]


def cifar_batch(labels: np.ndarray, pixels: np.ndarray) -> bytes:
    return b"".join(bytes([int(y)]) + x.astype(np.uint8).tobytes() for y, x in zip(labels, pixels, strict=True))


def tar_gz(members: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in members.items():
            if isinstance(data, tarfile.TarInfo):
                archive.addfile(data)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def cifar_archive(arrays: list[tuple[np.ndarray, np.ndarray]]) -> bytes:
    folder = "cifar-10-batches-bin"
    members = {f"{folder}/{name}": cifar_batch(*a) for name, a in zip(CIFAR, arrays, strict=True)}
    return tar_gz({f"{folder}/batches.meta.txt": b"airplane\n", f"{folder}/readme.html": b"<html>", **members})


def ecg_rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.arange(n) % 5 + 1, rng.normal(size=(n, 140)).round(7)


def ecg_txt(labels: np.ndarray, values: np.ndarray) -> str:
    return "".join("  " + "   ".join(f"{v:.7e}" for v in (y, *x)) + "\n" for y, x in zip(labels, values, strict=True))


def ecg_ts(labels: np.ndarray, values: np.ndarray) -> str:
    head = ("#Electrocardiograms\n@problemName ECG5000\n@timeStamps false\n@missing false\n@univariate true\n"
            "@equalLength true\n@seriesLength 140\n@classLabel true 1 2 3 4 5\n@data\n")
    return head + "".join(",".join(map(str, x)) + f":{y}\n" for y, x in zip(labels, values, strict=True))


def zipped(members: dict[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()
