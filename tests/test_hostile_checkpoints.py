"""What files that are damaged, or made to do harm, can do: nothing."""

import hashlib
import json

import numpy as np
from checkpoints import bits, build, learn, tensors

import graphjit as gj
from graphjit import nn
from graphjit.checkpoint import file

MUTATIONS = 1000


def parts(blob):
    """Header and data of a file, and the document in its metadata."""
    size = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8:8 + size])
    return header, blob[8 + size:], json.loads(header["__metadata__"]["document"])


def joined(header, body):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def signed(blob, document):
    """The file with another document, its hash made right: what someone who knows the format would write."""
    header, body, _ = parts(blob)
    text = document if isinstance(document, str) else json.dumps(document)
    header["__metadata__"].update(document=text, sha256=hashlib.sha256(text.encode()).hexdigest())
    return joined(header, body)


def flipped(rng, blob):
    changed = bytearray(blob)
    for _ in range(rng.integers(1, 9)):
        changed[rng.integers(len(blob))] ^= 1 << rng.integers(8)
    return bytes(changed)


def cut(rng, blob):
    at = int(rng.integers(len(blob)))
    return [blob[:at], blob[at:], blob + rng.bytes(at % 64 + 1), blob[:at] + rng.bytes(8) + blob[at:]][rng.integers(4)]


def overwritten(rng, blob):
    at, n = int(rng.integers(len(blob))), int(rng.integers(1, 200))
    return (blob[:at] + (rng.bytes(n) if rng.random() < 0.5 else bytes(n)) + blob[at + n:])[:len(blob)]


def swapped(rng, blob):
    a, b = sorted(int(n) for n in rng.integers(8, len(blob) - 16, 2))
    return blob[:a] + blob[b:b + 16] + blob[a + 16:b] + blob[a:a + 16] + blob[b + 16:] if b - a > 16 else blob[::-1]


def lengths(rng, blob):
    size = int.from_bytes(blob[:8], "little")
    told = [0, 1, size - 1, size + 1, len(blob), len(blob) - 8, 2**31, 2**63, 2**64 - 1][rng.integers(9)]
    return told.to_bytes(8, "little") + blob[8:]


HUGE = [-1, 0, 1, 2**31, 2**63, 2**64, 10**30, 1.5, float("nan"), float("inf"), None, "3", [], {}, True, "\ud800"]


def any_value(rng):
    return HUGE[rng.integers(len(HUGE))]


def entries(rng, blob):
    """The library's own header: shapes, offsets, dtypes, names, metadata."""
    header, body, _ = parts(blob)
    names = [n for n in header if n != "__metadata__"]
    name = names[rng.integers(len(names))]
    entry, other = header[name], header[names[rng.integers(len(names))]]
    match rng.integers(9):
        case 0:
            entry["shape"] = [2**40, 2**40] if rng.random() < 0.5 else [any_value(rng), *entry["shape"]]
        case 1:
            entry["data_offsets"][rng.integers(2)] = any_value(rng)
        case 2:
            entry["dtype"] = ["F32", "I64", "U8", "BOOL", "BF16", "F8_E5M2", "X", 3][rng.integers(8)]
        case 3:
            entry["data_offsets"], other["data_offsets"] = other["data_offsets"], entry["data_offsets"]
        case 4:
            del header[name if rng.random() < 0.5 else "__metadata__"]
        case 5:
            header["__metadata__"] = [None, [], {}, {"format": file.FORMAT}, {"format": 1}, 3][rng.integers(6)]
        case 6:
            header["__metadata__"][["format", "document", "sha256"][rng.integers(3)]] = any_value(rng)
        case 7:
            header[name + "x"] = entry
        case 8:
            text = json.dumps(header).encode()
            return joined(text[:-1] + b"," + json.dumps({name: other}).encode()[1:], body)
    return joined(header, body)


def deep(rng, blob):
    n = int(rng.choice([10, 200, 900, 5000, 200_000]))
    text = "[" * n + "]" * n if rng.random() < 0.7 else '{"a":' * n + "1" + "}" * n
    _, body, document = parts(blob)
    match rng.integers(4):
        case 0:
            return joined(text.encode(), body)
        case 1:
            return signed(blob, text)
        case 2:
            return signed(blob, json.dumps({**document, "more": "@"}).replace('"@"', text))
        case _:
            document["state"][["extra", "optimizer", "scheduler", "history", "epoch"][rng.integers(5)]] = "@"
            return signed(blob, json.dumps(document).replace('"@"', text))


def documents(rng, blob):
    """The document, with its hash made right: any value of it replaced, removed, or named twice."""
    document = parts(blob)[2]
    at = document if rng.random() < 0.1 else document["tensors" if rng.random() < 0.3 else "state"]
    while True:
        keys = list(at) if isinstance(at, dict) else range(len(at))
        key = keys[rng.integers(len(keys))]
        if not (isinstance(at[key], (dict, list)) and at[key]) or rng.random() < 0.2:
            break
        at = at[key]
    match rng.integers(4):
        case 0:
            del at[key]
        case 1 if isinstance(at, dict):
            text = json.dumps(document)
            return signed(blob, text.replace(f'"{key}":', f'"{key}": 0, "{key}":', 1))
        case _:
            at[key] = any_value(rng)
    return signed(blob, document)


def garbage(rng, blob):
    return [b"", b"\0" * 8, b"\xff" * 64, rng.bytes(300), joined(b"{}", b""), joined(b"[]", b""), joined(b"", b"")][
        rng.integers(7)]


KINDS = (flipped, flipped, cut, overwritten, swapped, lengths, entries, entries, deep, documents, documents, garbage)


def test_a_thousand_mutated_files(tmp_path):
    kept = build(0)
    wanted, everything = tensors(*kept[:2]), bits(*kept)
    path = gj.save_checkpoint(tmp_path / "a", *kept, epoch=3, extra={"note": "ä", "deep": [[1.5]]},
                              history={"train_loss": [1.0, 0.5, 0.25]})
    blob, hostile, target = path.read_bytes(), tmp_path / "hostile", build(1)
    before, counts = bits(*target), {"caught": 0, "equal": 0, "other settings": 0}
    for seed in range(MUTATIONS):
        rng = np.random.default_rng(seed)
        kind = KINDS[seed % len(KINDS)]
        hostile.write_bytes(kind(rng, blob))
        try:
            found = gj.load_checkpoint(hostile, *target)
        except gj.CheckpointError as error:
            assert len(str(error).splitlines()) <= 15
            assert bits(*target) == before, f"seed {seed}: an error, and yet something has changed"
            counts["caught"] += 1
            continue
        assert tensors(*target[:2]) == wanted, f"seed {seed}: another tensor"
        if kind in (deep, documents):  # signed anew: other settings are what the file says
            assert isinstance(found.epoch, int) and all(0 <= g["lr"] < np.inf for g in target[1].param_groups)
            learn(*target)  # and nothing in it goes off later
            counts["other settings"] += 1
        else:
            assert bits(*target) == everything and found.epoch == 3, f"seed {seed}: another result"
            counts["equal"] += 1
        target = build(1)
        assert bits(*target) == before
    print(counts)  # pytest -s shows it
    assert counts["caught"] > 0.9 * MUTATIONS and sum(counts.values()) == MUTATIONS, counts


def test_every_flipped_bit_of_a_small_file_is_found(tmp_path):
    model = nn.Module()
    model.register_buffer("a", np.array([1, 2], np.int16))
    path = gj.save_checkpoint(tmp_path / "a", model)
    blob, found = path.read_bytes(), 0
    for at in range(len(blob)):
        path.write_bytes(blob[:at] + bytes([blob[at] ^ (1 << at % 8)]) + blob[at + 1:])
        try:
            np.testing.assert_array_equal(gj.load_checkpoint(path).tensors["a"], [1, 2])
        except gj.CheckpointError:
            found += 1
    assert found > 0.95 * len(blob)  # what is left is blanks at the end of the header
