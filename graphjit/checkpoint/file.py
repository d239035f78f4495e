"""The file: tensors as safetensors, and in its metadata a JSON document with a hash over each of them.

The metadata holds ``format``, ``document`` (JSON: ``tensors``, a table name -> dtype, shape, sha256; and ``state``)
and ``sha256``, of the document. So every byte that matters is under a hash, and nothing in a file is ever run.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from graphjit.errors import ArgumentError, CheckpointError
from graphjit.op import Array
from graphjit.types import BOOL, DTYPES

FORMAT = "graphjit checkpoint 1"
NAMES = {"BOOL": "bool", **{f"{t.kind.upper()}{8 * t.itemsize}": t.name for t in DTYPES if t != BOOL}}


def write(path: Path, tensors: Mapping[str, Array], state: Mapping[str, Any]) -> None:
    """Write a file in one step: it is there whole and on the disk, or what was there before stays.

    Raises:
        ArgumentError: a state that JSON does not hold. CheckpointError: the disk refuses.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    arrays = {name: np.asarray(a, a.dtype.newbyteorder("<"), order="C") for name, a in tensors.items()}
    table = {name: {"dtype": a.dtype.name, "shape": list(a.shape), "sha256": _hash(_bytes(a))}
             for name, a in arrays.items()}
    try:
        document = json.dumps({"tensors": table, "state": state}, default=_number)
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError(f"a checkpoint holds numbers, strings, lists and dicts of them: {error}") from None
    metadata = {"format": FORMAT, "document": document, "sha256": _hash(document.encode())}
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode  # what the user's umask gives; save_file makes a private file
        save_file(arrays, temporary, metadata)
        temporary.chmod(mode)
        _to_disk(temporary)
        os.replace(temporary, path)
        if sys.platform != "win32":
            _to_disk(path.parent)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"the checkpoint {path} cannot be written", detail=(str(error),),
                              hint="What was there before is unchanged.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def read(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Tensors and state of a file, all hashes checked.

    Raises:
        CheckpointError: no such file, not a checkpoint, or damage; it lists every tensor that is damaged.
    """
    from safetensors import SafetensorError, deserialize

    if not path.is_file():  # a device or a pipe would be read without end
        raise CheckpointError(f"there is no checkpoint {path}")
    try:
        data = path.read_bytes()
    except (OSError, MemoryError) as error:
        raise CheckpointError(f"the checkpoint {path} cannot be read", detail=(str(error),)) from error
    try:
        # this checks lengths, offsets and shapes against the size of the file
        parts = dict(deserialize(data))  # type: ignore[no-untyped-call]  # the library's function has no types
        header = _parse(data[8:8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a safetensors file, or damaged", detail=(str(error)[:200],)) from error
    document = _document(path, header.get("__metadata__") or {})
    table = document["tensors"]
    wrong = [*(f"{name} is missing" for name in table.keys() - parts.keys()),
             *(f"{name} is not in the table" for name in parts.keys() - table.keys())]
    tensors = {}
    for name, entry in table.items():
        if name in parts:
            array = _array(parts[name], entry)
            if array is None:
                wrong.append(f"{name} is damaged")
            else:
                tensors[name] = array
    if wrong:
        raise CheckpointError(f"the checkpoint {path} is damaged", mismatches=tuple(sorted(wrong)),
                              hint="Take another one; nothing has been loaded.")
    return tensors, document["state"]


def _document(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The document in the metadata, once its hash and its outline are found right."""
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a {FORMAT!r} file",
                              hint="Weights alone: model.load_state_dict(safetensors.numpy.load_file(path)).")
    text = metadata.get("document", "")
    try:
        if _hash(text.encode()) != metadata.get("sha256"):
            raise ValueError("its hash is another one")
        document = _parse(text)
        if not all(isinstance(document.get(part), dict) for part in ("tensors", "state")) or not all(
                isinstance(entry, dict) for entry in document["tensors"].values()):
            raise ValueError("it lacks a part")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"the document in {path} is damaged", detail=(str(error)[:200],),
                              hint="Take another checkpoint; nothing has been loaded.") from error
    return document


def _array(part: Mapping[str, Any], entry: Mapping[str, Any]) -> Array | None:
    """The array of a part of the file; None where it is not what the table says."""
    dtype, shape, data = NAMES.get(part["dtype"]), part["shape"], part["data"]
    if entry != {"dtype": dtype, "shape": shape, "sha256": _hash(data)}:
        return None
    array = np.frombuffer(data, np.uint8)
    if dtype == BOOL.name and array.size and array.max() > 1:
        return None  # a bool is 0 or 1; kernels rely on it
    try:
        array = array.view(np.dtype(dtype).newbyteorder("<")).reshape(shape)
    except (ValueError, OverflowError):
        return None  # an empty array with an axis that is too long
    return array.astype(dtype, copy=False)


def _parse(text: str | bytes) -> dict[str, Any]:
    """A JSON object in which no name occurs twice."""
    found = json.loads(text, object_pairs_hook=_once)
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _number(value: Any) -> Any:
    """What JSON holds of a NumPy number."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"not a {type(value).__name__}")


def _bytes(array: Array) -> memoryview:
    """The bytes of a contiguous array, little-endian as in the file."""
    return array.reshape(-1).view(np.uint8).data


def _hash(data: bytes | bytearray | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def _to_disk(path: Path) -> None:
    """Wait until the disk holds a file, or the names in a directory."""
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
