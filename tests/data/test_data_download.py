"""Fetching over real connections to a server in a thread: cut, resumed, wrong, missing."""

import dataclasses
import hashlib
import multiprocessing
import socket
import threading

import numpy as np
import pytest
from local_server import Page, Server
from true_formats import IDX, cifar_archive, cifar_arrays, ecg_rows, ecg_txt, idx, mnist_arrays, write_mnist, zipped

from graphjit import data
from graphjit.data.catalog import File
from graphjit.data.download import Unreachable, _alone, fetch, genuine
from graphjit.errors import DataError, DatasetUnavailable

BODY = np.random.default_rng(0).bytes(300_000)
WRONG = BODY[:-1] + b"?"


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


def sha(body):
    return hashlib.sha256(body).hexdigest()


def file_of(server, *paths, body=BODY, **known):
    return File("f.bin", tuple(server.base + p for p in paths), **({"sha256": sha(body)} | known))


def never(path):
    raise AssertionError("a file whose hash is known is not read to check it")


def names(folder):
    return sorted(p.name for p in folder.iterdir() if p.name != ".lock")


@pytest.mark.parametrize("known", [{}, {"sha256": "", "md5": hashlib.md5(BODY).hexdigest()}, {"size": len(BODY)}])
def test_a_whole_file(server, tmp_path, known):
    server.pages["/a"] = Page(BODY)
    seen = []
    path = fetch(file_of(server, "a", **known), tmp_path / "x" / "y", never, lambda *args: seen.append(args))
    assert path == tmp_path / "x" / "y" / "f.bin" and path.read_bytes() == BODY and names(path.parent) == ["f.bin"]
    assert seen[-1] == ("f.bin", len(BODY), len(BODY)) and [s[1] for s in seen] == sorted({s[1] for s in seen})
    assert fetch(file_of(server, "a", **known), path.parent, never) == path and len(server.asked) == 1


def test_a_connection_that_breaks_off_is_taken_up_again(server, tmp_path):
    server.pages["/a"] = Page(BODY, cuts=[100_000, 250_000])
    assert fetch(file_of(server, "a"), tmp_path, never).read_bytes() == BODY
    assert [r for _, r, _ in server.asked] == [None, "bytes=100000-", "bytes=250000-"]


def test_a_connection_that_gives_nothing_is_given_up(server, tmp_path):
    server.pages["/a"] = Page(BODY, cuts=[1000] * 50)
    server.pages["/b"] = Page(BODY)
    assert fetch(file_of(server, "a", "b"), tmp_path, never).read_bytes() == BODY
    assert [(p, r) for p, r, _ in server.asked] == [("/a", None), ("/a", "bytes=1000-"), ("/b", "bytes=1000-")]


def test_what_has_arrived_serves_the_next_program(server, tmp_path):
    server.pages["/a"] = Page(BODY, cuts=[200_000, 200_000])
    with pytest.raises(Unreachable, match="broke off after 200000 of 300000 bytes"):
        fetch(file_of(server, "a"), tmp_path, never)
    assert names(tmp_path) == ["f.bin.part"] and (tmp_path / "f.bin.part").read_bytes() == BODY[:200_000]
    assert fetch(file_of(server, "a"), tmp_path, never).read_bytes() == BODY
    assert server.asked[-1][1] == "bytes=200000-" and names(tmp_path) == ["f.bin"]


@pytest.mark.parametrize("part, ranges, requests", [
    (BODY, True, 0), (WRONG, True, 1), (b"?" * 1000, True, 2), (BODY[:1000], False, 1), (BODY + b"?", True, 1)])
def test_what_an_earlier_program_left(server, tmp_path, part, ranges, requests):
    server.pages["/a"] = Page(BODY, ranges=ranges)
    (tmp_path / "f.bin.part").write_bytes(part)
    assert fetch(file_of(server, "a", size=len(BODY)), tmp_path, never).read_bytes() == BODY
    assert len(server.asked) == requests and names(tmp_path) == ["f.bin"]


def test_more_than_the_whole_file_was_left_and_its_size_is_not_known(server, tmp_path):
    server.pages["/a"] = Page(BODY)
    (tmp_path / "f.bin.part").write_bytes(BODY + BODY)
    assert fetch(file_of(server, "a"), tmp_path, never).read_bytes() == BODY
    assert [r for _, r, _ in server.asked] == ["bytes=600000-", None]


@pytest.mark.parametrize("bad, reason", [
    (Page(status=404), "HTTP 404"), (Page(status=503), "HTTP 503"), (Page(WRONG), "has sha256"),
    (Page(b""), "has sha256"), (Page(BODY + b"more"), "sent more than 300000 bytes"), (Page(BODY[:9]), "has sha256"),
    (Page(BODY, cuts=[0, 0]), "broke off after 0 of 300000"), (Page(WRONG, length=False), "has sha256")])
def test_the_next_mirror_is_tried(server, tmp_path, bad, reason):
    server.pages["/bad"] = bad
    server.pages["/good"] = Page(BODY)
    with pytest.raises(Unreachable, match=reason) as caught:
        fetch(file_of(server, "bad", size=len(BODY)), tmp_path, never)
    assert len(caught.value.reasons) == 1 and caught.value.reasons[0].startswith(server.base + "bad: ")
    assert "f.bin" not in names(tmp_path) and WRONG not in [p.read_bytes() for p in tmp_path.iterdir()]
    assert fetch(file_of(server, "bad", "good", size=len(BODY)), tmp_path, never).read_bytes() == BODY
    assert names(tmp_path) == ["f.bin"]


def test_what_sends_without_end_is_left_soon(server, tmp_path):
    server.pages["/a"] = Page(BODY + bytes(8_000_000), length=False)
    seen = []
    with pytest.raises(Unreachable, match="sent more than 300000 bytes"):
        fetch(file_of(server, "a", size=len(BODY)), tmp_path, never, lambda name, done, total: seen.append(done))
    assert max(seen) < 1_000_000 and names(tmp_path) == []


def test_another_part_than_was_asked_for_is_not_appended(server, tmp_path):
    (tmp_path / "f.bin.part").write_bytes(BODY[:1000])
    server.pages["/a"] = Page(BODY, shift=5)
    with pytest.raises(Unreachable, match="asked for the bytes from 1000 on, it sent those from 1005 on"):
        fetch(file_of(server, "a"), tmp_path, never)
    assert (tmp_path / "f.bin.part").read_bytes() == BODY[:1000]


def test_nobody_answers(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a"
    with pytest.raises(Unreachable, match="refused"):
        fetch(File("f.bin", (url, url), sha(BODY)), tmp_path, never)


def test_a_server_that_falls_silent(tmp_path, monkeypatch):
    monkeypatch.setattr("graphjit.data.download.TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a"
        with pytest.raises(Unreachable, match="timed out"):
            fetch(File("f.bin", (url,), sha(BODY)), tmp_path, never)


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unreachable, match="cannot be written"):
        fetch(file_of(server, "a"), tmp_path / "file" / "x", never)


def test_a_file_of_unknown_hash_is_read_and_remembered(server, tmp_path):
    def check(path):
        if path.read_bytes()[:1] == b"<":
            raise DataError(f"{path} is a web page", path=str(path))

    server.pages |= {"/a": Page(b"<html>log in first</html>"), "/b": Page(BODY)}
    file = file_of(server, "a", "b", sha256="")
    with pytest.raises(Unreachable, match="a: what came is a web page"):
        fetch(file_of(server, "a", sha256=""), tmp_path, check)
    assert names(tmp_path) == []
    path = fetch(file, tmp_path, check)
    assert path.read_bytes() == BODY and names(tmp_path) == ["f.bin", "f.bin.sha256"]
    assert (tmp_path / "f.bin.sha256").read_text() == f"{sha(BODY)}  f.bin\n"
    assert genuine(path, file)
    path.write_bytes(WRONG)
    assert not genuine(path, file)
    (tmp_path / "f.bin.sha256").unlink()
    assert genuine(path, file)  # put there by hand: nothing is known


def test_a_file_of_unknown_hash_is_never_put_together_of_two(server, tmp_path):
    (tmp_path / "f.bin.part").write_bytes(b"?" * 1000)
    server.pages["/a"] = Page(BODY, cuts=[100_000], etag='"one"')
    server.pages["/b"] = Page(BODY, cuts=[100_000])  # nothing would tell that it changed meanwhile
    file = file_of(server, "a", sha256="")
    assert fetch(file, tmp_path, lambda path: None).read_bytes() == BODY
    assert server.asked == [("/a", None, None), ("/a", "bytes=100000-", '"one"')]
    (tmp_path / "f.bin").unlink()
    assert fetch(file_of(server, "b", sha256=""), tmp_path, lambda path: None).read_bytes() == BODY
    assert server.asked[2:] == [("/b", None, None), ("/b", None, None)]


def test_a_file_that_changed_meanwhile_is_fetched_anew(server, tmp_path):
    page = server.pages["/a"] = Page(BODY, cuts=[100_000], etag='"one"')

    def progress(name, done, total):
        if done == 100_000:
            page.body, page.etag = WRONG, '"two"'

    assert fetch(file_of(server, "a", sha256=""), tmp_path, lambda path: None, progress).read_bytes() == WRONG
    assert len(server.asked) == 2


def _fetch_in_a_process(file, folder):
    fetch(file, folder, never)


def test_two_processes_fetch_one_file_once(server, tmp_path):
    server.pages["/a"] = Page(BODY)
    context = multiprocessing.get_context("spawn")
    file = file_of(server, "a")
    both = [context.Process(target=_fetch_in_a_process, args=(file, tmp_path)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [p.exitcode for p in both] == [0, 0] and (tmp_path / "f.bin").read_bytes() == BODY
    assert len(server.asked) == 1


def test_a_fetch_waits_for_the_one_at_work(server, tmp_path):
    server.pages["/a"] = Page(BODY)
    done = threading.Event()

    def other():
        fetch(file_of(server, "a"), tmp_path, never)
        done.set()

    with _alone(tmp_path / ".lock"):
        thread = threading.Thread(target=other)
        thread.start()
        assert not done.wait(0.2) and server.asked == []
        (tmp_path / "f.bin").write_bytes(BODY)
    thread.join(60)
    assert done.is_set() and server.asked == []


def serve(server, monkeypatch, name, bodies, known=True):
    """Let a data set have these files, at two addresses of which the first knows nothing."""
    files = []
    for file_name, body in bodies.items():
        server.pages[f"/good/{file_name}"] = Page(body)
        urls = tuple(f"{server.base}{place}/{file_name}" for place in ("gone", "good"))
        files.append(File(file_name, urls, sha(body) if known else "", size=len(body) if known else 0))
    source = dataclasses.replace(data.SOURCES[name], downloads=tuple(files))
    monkeypatch.setitem(data.SOURCES, name, source)
    return source


def test_mnist_from_the_server_to_the_cache(server, tmp_path, monkeypatch, own_cache):
    paths = write_mnist(tmp_path / "made", mnist_arrays(), zipped=True)
    serve(server, monkeypatch, "mnist", {p.name: p.read_bytes() for p in paths})
    assert not data.status("mnist")
    with pytest.raises(DatasetUnavailable):
        data.load("mnist", download=False)
    assert server.asked == []
    seen = []
    table = data.load("mnist", progress=lambda *args: seen.append(args))
    assert table.y.tolist() == mnist_arrays()[1].tolist() and len(server.asked) == 8
    assert sorted({name for name, _, _ in seen}) == sorted(f"{name}.gz" for name in IDX)
    assert data.status("mnist") and sorted(p.name for p in (own_cache / "mnist").glob("*.gz")) == sorted(
        f"{name}.gz" for name in IDX)
    assert data.load("mnist", download=False).x.tobytes() == table.x.tobytes() and len(server.asked) == 8

    damaged = own_cache / "mnist" / f"{IDX[0]}.gz"
    damaged.write_bytes(paths[0].read_bytes()[:-1])
    with pytest.raises(DatasetUnavailable, match=r"is not what was fetched: kept aside as .*\.damaged"):
        data.load("mnist", download=False)
    assert not data.status("mnist")
    assert data.load("mnist").x.tobytes() == table.x.tobytes() and len(server.asked) == 10
    assert damaged.read_bytes() == paths[0].read_bytes()


def test_a_wrong_file_is_never_used(server, tmp_path, monkeypatch, own_cache):
    paths = write_mnist(tmp_path / "made", mnist_arrays(), zipped=True)
    serve(server, monkeypatch, "mnist", {p.name: p.read_bytes() for p in paths})
    other = write_mnist(tmp_path / "other", mnist_arrays(5), zipped=True)
    server.pages[f"/good/{IDX[1]}.gz"] = Page(other[1].read_bytes())
    with pytest.raises(DatasetUnavailable, match=r"has sha256|sent more than") as caught:
        data.load("mnist")
    error = caught.value
    assert error.files == tuple(f"{name}.gz" for name in IDX) and error.folder == str(own_cache / "mnist")
    assert len(error.urls) == 8 and server.base + f"good/{IDX[3]}.gz" in error.urls
    text = str(error)
    for part in (*error.files, server.base + "good/", server.base + "gone/", error.folder, "folder=", "GRAPHJIT_DATA",
                 "gj.data.load('digits')", "HTTP 404"):
        assert part in text
    assert len(text.splitlines()) <= 15 and not (own_cache / "mnist" / f"{IDX[1]}.gz").exists()


def test_cifar10_and_ecg5000_from_the_server(server, monkeypatch, own_cache):
    archive = cifar_archive(cifar_arrays())
    serve(server, monkeypatch, "cifar10", {"cifar-10-binary.tar.gz": archive})
    assert len(data.load("cifar10")) == 15 and data.status("cifar10")

    texts = {f"ECG5000_{part}.txt": ecg_txt(*ecg_rows(10, i)) for i, part in enumerate(("TRAIN", "TEST"))}
    serve(server, monkeypatch, "ecg5000", {"ECG5000.zip": zipped(texts)}, known=False)
    assert len(data.load("ecg5000").test) == 10 and data.status("ecg5000")
    path = own_cache / "ecg5000" / "ECG5000.zip"
    path.write_bytes(zipped({**texts, "ECG5000_TRAIN.txt": ecg_txt(*ecg_rows(9, 7))}))
    with pytest.raises(DatasetUnavailable, match="not what was fetched"):
        data.load("ecg5000", download=False)

    serve(server, monkeypatch, "ecg5000", {"ECG5000.zip": b"<html>no such page</html>"}, known=False)
    with pytest.raises(DatasetUnavailable, match="what came cannot be read: File is not a zip file"):
        data.load("ecg5000")
    assert not path.exists() and not data.status("ecg5000")


def test_files_of_the_user_come_first(server, tmp_path, monkeypatch, own_cache):
    paths = write_mnist(tmp_path / "made", mnist_arrays(0), zipped=True)
    serve(server, monkeypatch, "mnist", {p.name: p.read_bytes() for p in paths})
    write_mnist(tmp_path / "named", mnist_arrays(1))
    write_mnist(tmp_path / "env" / "MNIST" / "raw", mnist_arrays(2))
    write_mnist(own_cache / "mnist", mnist_arrays(3))  # unpacked there by hand
    monkeypatch.setenv("GRAPHJIT_DATA", str(tmp_path / "env"))
    assert data.load("mnist", folder=tmp_path / "named").y.tolist() == mnist_arrays(1)[1].tolist()
    assert data.load("mnist").y.tolist() == mnist_arrays(2)[1].tolist()
    assert data.load("mnist", folder=tmp_path / "made" / "..").y.tolist() == mnist_arrays(2)[1].tolist()
    monkeypatch.delenv("GRAPHJIT_DATA")
    assert data.load("mnist").y.tolist() == mnist_arrays(3)[1].tolist() and server.asked == []
    (tmp_path / "named" / IDX[0]).write_bytes(idx(mnist_arrays(1)[0])[:-7])
    with pytest.raises(DataError, match="is cut off"):  # not passed over in favour of another copy
        data.load("mnist", folder=tmp_path / "named")
