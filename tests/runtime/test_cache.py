"""Whatever happens to the files of the kernel cache, kernels compute the right thing."""

import ctypes
import errno
import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from graphjit.runtime import cache, compiler, machine
from graphjit.runtime.cache import Batch, CacheWarning, decode, encode
from graphjit.runtime.kernel import identity

ROOT = Path(__file__).resolve().parents[2]
AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
POSIX = pytest.mark.skipif(os.name != "posix", reason="permissions and links of POSIX")


@pytest.fixture
def new_process(monkeypatch):
    """Forget what this process has compiled, loaded and found out, as if it had just started."""
    def forget():
        monkeypatch.setattr(compiler, "_addresses", {})
        monkeypatch.setattr(compiler, "_resident", {})
        monkeypatch.setattr(compiler, "_counts", {"compiled": 0, "loaded": 0})
        monkeypatch.setattr(cache, "_warned", False)
        monkeypatch.setattr(cache, "_unseen", float("inf"))
        machine._engine.cache_clear()
        cache._prepare.cache_clear()

    forget()
    yield forget
    cache._prepare.cache_clear()


@pytest.fixture
def folder(tmp_path, monkeypatch, new_process):
    monkeypatch.setenv("GRAPHJIT_CACHE_DIR", str(tmp_path))
    return tmp_path / "kernels"


def kernel(value):
    def emit(builder, values):
        builder.store(machine.I64(value), builder.inttoptr(values[0], machine.I64.as_pointer()))

    return compiler.IRKernel("constant", (value,), 1, emit)


def use(*values):
    """Get the kernels of these constants and check what they compute; (compiled, loaded) so far."""
    out = np.zeros(1, np.int64)
    slots = np.array([out.ctypes.data])
    addresses = compiler.compile_kernels([kernel(value) for value in values])
    for value, entry in zip(values, map(ENTRY, addresses), strict=True):
        entry(slots.ctypes.data, 0, 0)
        assert out[0] == value
    return compiler.compile_count(), compiler.load_count()


def entry_of(folder, value):
    return folder / (identity(kernel(value)) + cache.SUFFIX)


def entries(folder):
    return sorted(folder.glob("*" + cache.SUFFIX))


# ---- the file


BATCH = Batch({"a" * 64: "add_1", "b" * 64: "mul_2"}, ("pow",), (bytes(range(100)), b"second"))


def test_a_batch_survives_its_file():
    assert decode(encode(BATCH)) == BATCH


def test_no_damage_to_a_file_goes_unseen():
    blob = encode(BATCH)
    assert all(decode(blob[:n]) is None for n in range(len(blob)))
    assert decode(blob + b"\0") is None and decode(bytes(len(blob))) is None
    for at in range(len(blob)):
        assert decode(blob[:at] + bytes([blob[at] ^ 1 << at % 8]) + blob[at + 1 :]) is None


def test_a_whole_file_not_of_our_making_is_no_batch():
    import hashlib

    two = b"\2" + bytes(7)
    for body in (b"", b"\xff" * 8, two + b"[]", two + b"{}", two + b"\xff\xff"):
        assert decode(cache.MAGIC + hashlib.sha256(body).digest() + body) is None


# ---- finding kernels again


def test_another_process_loads_what_one_compiled(folder, new_process):
    assert use(1, 2, 3) == (3, 0)
    new_process()
    assert use(1, 2, 3) == (0, 3)


@POSIX
def test_a_batch_is_one_file_with_many_names(folder):
    use(1, 2, 3)
    assert len(entries(folder)) == 3 and len({path.stat().st_ino for path in entries(folder)}) == 1
    assert not list(folder.glob(".*"))


def test_programs_share_kernels_whatever_was_compiled_beside_them(folder, new_process):
    use(1, 2)
    new_process()
    assert use(2, 3) == (1, 1)
    new_process()
    assert use(3, 1) == (0, 2)


def test_without_hard_links_names_are_copies(folder, new_process, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    use(1, 2)
    assert len({path.stat().st_ino for path in entries(folder)}) == 2
    new_process()
    assert use(2, 1) == (0, 2)


def test_an_empty_setting_switches_the_disk_cache_off(folder, new_process, monkeypatch):
    monkeypatch.setenv("GRAPHJIT_CACHE_DIR", "")
    assert cache.directory() is None
    for _ in range(2):
        new_process()
        assert use(1) == (1, 0)


def test_without_a_setting_the_cache_is_where_the_platform_wants_it(new_process, monkeypatch, tmp_path):
    import platformdirs

    monkeypatch.delenv("GRAPHJIT_CACHE_DIR", raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *args, **kwargs: tmp_path / "user")
    assert cache.directory() == tmp_path / "user" / "kernels"


# ---- damage


def truncate(path, other):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path, other):
    blob = bytearray(path.read_bytes())
    blob[-20] ^= 0x10
    path.write_bytes(blob)


def empty(path, other):
    path.write_bytes(b"")


def replace_by_noise(path, other):
    path.write_bytes(os.urandom(5000))


def swap(path, other):
    path.unlink()
    other.rename(path)


def replace_by_directory(path, other):
    path.unlink()
    path.mkdir()


def replace_by_symlink(path, other):
    path.unlink()
    path.symlink_to(other)


def replace_by_fifo(path, other):
    path.unlink()
    os.mkfifo(path)


def open_to_all(path, other):
    path.chmod(0o666)


def make_unreadable(path, other):
    if AS_ROOT:
        pytest.skip("root reads everything")
    path.chmod(0)


def give_away(path, other):
    if not AS_ROOT:
        pytest.skip("only root can give files away")
    os.chown(path, 12345, 12345)


@POSIX
@pytest.mark.parametrize("damage", [
    truncate, flip, empty, replace_by_noise, swap, replace_by_directory, replace_by_symlink, replace_by_fifo,
    open_to_all, make_unreadable, give_away,
])
def test_a_damaged_entry_is_compiled_again_and_replaced(damage, folder, new_process):
    use(1)
    use(2)
    damage(entry_of(folder, 1), entry_of(folder, 2))
    new_process()
    assert use(1) == (1, 0)
    new_process()
    assert use(1) == (0, 1)


@POSIX
def test_a_full_directory_in_the_place_of_an_entry_stays(folder, new_process):
    (entry_of(folder, 1) / "precious").mkdir(parents=True)
    folder.chmod(0o700)
    with pytest.warns(CacheWarning, match=entry_of(folder, 1).name):
        assert use(1, 2) == (2, 0)
    assert (entry_of(folder, 1) / "precious").exists()
    new_process()
    assert use(1, 2) == (0, 2)  # both are in the file of the second
    new_process()
    with pytest.warns(CacheWarning):
        assert use(1) == (1, 0)


# ---- directories that will not do


def warned_once(*values):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        counts = [use(value) for value in values]
    assert [warning.category for warning in caught] == [CacheWarning]
    assert "GRAPHJIT_CACHE_DIR" in str(caught[0].message)
    return counts[-1]


def test_a_file_in_the_place_of_the_directory(folder):
    folder.write_text("not a directory")
    assert warned_once(1, 2) == (2, 0)


def test_a_directory_that_cannot_be_made(folder, monkeypatch):
    (folder.parent / "file").write_text("")
    monkeypatch.setenv("GRAPHJIT_CACHE_DIR", str(folder.parent / "file" / "below"))
    assert warned_once(1, 2) == (2, 0)


@POSIX
@pytest.mark.skipif(AS_ROOT, reason="root writes everywhere")
def test_an_unwritable_directory(folder, new_process):
    use(1)
    folder.chmod(0o500)
    new_process()
    assert use(1) == (0, 1)
    assert warned_once(2, 3) == (2, 1)
    folder.chmod(0o700)


@POSIX
@pytest.mark.skipif(not AS_ROOT, reason="only root can give directories away")
def test_a_directory_of_somebody_else(folder):
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)
    assert warned_once(1, 2) == (2, 0) and not entries(folder)


@POSIX
def test_the_directory_is_private(folder, new_process):
    folder.parent.chmod(0o755)  # the directory that the user named is left as it is
    use(1)
    assert folder.parent.stat().st_mode & 0o777 == 0o755
    assert folder.stat().st_mode & 0o777 == 0o700 and entries(folder)[0].stat().st_mode & 0o777 == 0o600
    folder.chmod(0o777)
    new_process()
    use(1)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_directory_that_disappears_is_made_again(folder, new_process):
    use(1)
    shutil.rmtree(folder)
    assert use(2) == (2, 0)
    new_process()
    assert use(2, 1) == (1, 1)


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_full_disk(reason, folder, monkeypatch):
    def failing_open(descriptor, mode):
        if "w" not in mode:
            return open(descriptor, mode)
        with open(descriptor, mode) as file:
            file.write(b"half of it")
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(cache, "open", failing_open, raising=False)
    assert warned_once(1, 2) == (2, 0)
    assert not list(folder.iterdir())


# ---- the bound


def age(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2)


def test_the_least_recently_used_batches_go_first(folder, new_process, monkeypatch):
    for value in range(8):
        use(value)
        age(entry_of(folder, value), 1000 - value)
    age(entry_of(folder, 0), 1)
    size = max(path.stat().st_size for path in entries(folder))
    occupied = max(size, 512 * getattr(entries(folder)[0].stat(), "st_blocks", 0))
    monkeypatch.setenv("GRAPHJIT_CACHE_SIZE", str(8.5 * occupied / 1e6))
    new_process()
    use(100)
    left = {value for value in (*range(8), 100) if entry_of(folder, value).exists()}
    assert left == {0, 5, 6, 7, 100} | ({4} if len(left) == 6 else set())
    assert sum(1 for _ in entries(folder)) * occupied <= 8.5 * occupied


def test_the_bound_holds_within_a_process(folder, monkeypatch):
    monkeypatch.setenv("GRAPHJIT_CACHE_SIZE", "0.04")
    for value in range(40):
        use(value)
    assert sum(path.stat().st_size for path in entries(folder)) < 0.05e6


@pytest.mark.parametrize("size", ["0", "0.0001"])
def test_what_is_larger_than_the_bound_is_not_kept(folder, monkeypatch, size):
    monkeypatch.setenv("GRAPHJIT_CACHE_SIZE", size)
    assert use(1) == (1, 0) and not entries(folder)


@pytest.mark.parametrize("size", ["much", "nan", "inf"])
def test_a_bound_that_is_no_number(folder, monkeypatch, size):
    monkeypatch.setenv("GRAPHJIT_CACHE_SIZE", size)
    with pytest.warns(CacheWarning, match="GRAPHJIT_CACHE_SIZE"):
        use(1)
    assert entries(folder)


def test_use_makes_an_entry_young_at_most_once_a_day(folder, new_process):
    use(1)
    path = entry_of(folder, 1)
    for old, touched in ((3600, False), (90_000, True)):
        age(path, old)
        before = path.stat().st_mtime
        new_process()
        use(1)
        assert (path.stat().st_mtime > before + 1) == touched


def test_what_a_dead_process_left_is_cleared_away(folder):
    folder.mkdir(mode=0o700)
    old, young = folder / ".1-dead.tmp", folder / ".2-alive.tmp"
    for path in (old, young):
        path.write_bytes(b"half")
    age(old, 2 * cache.STALE)
    use(1)
    assert not old.exists() and young.exists()


# ---- other processes

SCRIPT = """
import ctypes, os, signal, sys, warnings
warnings.simplefilter("error")
from graphjit.runtime import cache, compiler, machine

def kernel(value):
    def emit(builder, values):
        builder.store(machine.I64(value), builder.inttoptr(values[0], machine.I64.as_pointer()))
    return compiler.IRKernel("constant", (value,), 1, emit)

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def half(descriptor, mode):
    file = open(descriptor, mode)
    if "w" in mode:
        file.write(b"half a file")
        file.flush()
        die()
    return file

match sys.argv[1]:
    case "write":
        cache.open = half
    case "link":
        cache._put_in_place = die
    case "second":
        put = cache._put_in_place
        cache._put_in_place = lambda *names: (put(*names), setattr(cache, "_put_in_place", die))

entry_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
out = ctypes.c_int64()
slots = (ctypes.c_int64 * 1)(ctypes.addressof(out))
values = [int(value) for value in sys.argv[2:]]
for value, entry in zip(values, compiler.compile_kernels([kernel(value) for value in values])):
    entry_type(entry)(ctypes.addressof(slots), 0, 0)
    assert out.value == value
print(compiler.compile_count(), compiler.load_count())
"""


def start(mode, *values):
    return subprocess.Popen([sys.executable, "-c", SCRIPT, mode, *map(str, values)],
                            env={**os.environ, "PYTHONPATH": str(ROOT)},
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    out, error = process.communicate(timeout=60)
    return process.returncode, out.strip(), error


@POSIX
@pytest.mark.parametrize("when", ["write", "link", "second"])
def test_a_process_killed_while_writing_spoils_nothing(when, folder):
    code, _, error = finish(start(when, 1, 2))
    assert code < 0, error
    assert finish(start("", 2, 1)) == (0, "0 2" if when == "second" else "2 0", "")
    assert finish(start("", 1, 2)) == (0, "0 2", "")


def test_eight_processes_at_once(folder):
    processes = [start("", *(1 + (i + k) % 4 for k in range(3))) for i in range(8)]
    for process in processes:
        code, out, error = finish(process)
        assert code == 0 and sum(map(int, out.split())) == 3 and not error
    assert finish(start("", 1, 2, 3, 4)) == (0, "0 4", "")
    assert not list(folder.glob(".*"))
