"""ECG5000 in the UCR archive's formats, and its copy in CSV."""

import numpy as np
import pytest
from true_formats import ecg_rows, ecg_ts, ecg_txt, zipped

from graphjit import data
from graphjit.errors import DataError

TRAIN, TEST = ecg_rows(10, 0), ecg_rows(25, 1)
TXT = {"ECG5000_TRAIN.txt": ecg_txt(*TRAIN), "ECG5000_TEST.txt": ecg_txt(*TEST)}
TS = {"ECG5000_TRAIN.ts": ecg_ts(*TRAIN), "ECG5000_TEST.ts": ecg_ts(*TEST)}
TSV = {name.replace("txt", "tsv"): "\n".join("\t".join(line.split()) for line in text.splitlines())
       for name, text in TXT.items()}
ZIP = {"ECG5000.zip": zipped({"ECG5000.txt": "a description", **TXT, **TS})}
DEEP = {"ECG5000.zip": zipped({f"../../ECG5000/{name}": text for name, text in TS.items()})}


def write(folder, files):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize("layout", ["", "ECG5000"])
@pytest.mark.parametrize("files", [TXT, TS, TSV, ZIP, DEEP], ids=["txt", "ts", "tsv", "zip", "deep"])
def test_ecg5000(tmp_path, files, layout):
    write(tmp_path / layout, files)
    before = set(tmp_path.parent.rglob("*"))
    table = data.load("ecg5000", folder=tmp_path)
    assert (len(table), len(table.test), table.shape, len(table.classes)) == (10, 25, (1, 140), 5)
    for part, (labels, values) in ((table, TRAIN), (table.test, TEST)):
        np.testing.assert_array_equal(part.x, values.astype(np.float32))
        np.testing.assert_array_equal(part.y, labels - 1)
    assert table.images().shape == (10, 1, 140)
    assert set(tmp_path.parent.rglob("*")) == before  # nothing was unpacked


def test_the_copy_in_csv_is_a_data_set_of_its_own(tmp_path):
    labels, values = TRAIN
    lines = [",".join(map(str, [*x.tolist(), float(y == 1)])) for y, x in zip(labels, values, strict=True)]
    write(tmp_path, {"ecg.csv": "\n".join(lines) + "\n"})
    table = data.load("ecg5000-binary", folder=tmp_path)
    assert table.shape == (1, 140) and table.classes == ("abnormal", "normal") and table.test is None
    np.testing.assert_array_equal(table.x, values.astype(np.float32))
    np.testing.assert_array_equal(table.y, labels == 1)
    assert not data.status("ecg5000", tmp_path)
    write(tmp_path, {"ecg.csv": lines[0].replace(",", ";")})
    with pytest.raises(DataError, match=r"ecg\.csv"):
        data.load("ecg5000-binary", folder=tmp_path)


LINE = ecg_txt(TRAIN[0][:1], TRAIN[1][:1])


@pytest.mark.parametrize("name, content, problem", [
    ("ECG5000_TEST.txt", "", "is empty"),
    ("ECG5000_TEST.txt", LINE + LINE[:200], "cannot be read"),
    ("ECG5000_TEST.txt", " ".join(LINE.split()[:12]), "lines of 12 numbers"),
    ("ECG5000_TEST.txt", LINE.replace("1.0000000e+00", "6.0000000e+00", 1), "none of its 5 classes"),
    ("ECG5000_TEST.txt", LINE.replace("1.0000000e+00", "1.5000000e+00", 1), "none of its 5 classes"),
    ("ECG5000_TEST.txt", "1 nan" + " 0" * 139, "no finite numbers"),
    ("ECG5000_TEST.txt", "<!DOCTYPE html>", "cannot be read"),
    ("ECG5000_TEST.txt", b"\xff\xfe\x00", "cannot be read"),
    ("ECG5000_TEST.txt", ecg_ts(*TEST)[:100], "no @data line"),
    ("ECG5000_TEST.txt", ecg_ts(*TEST)[:-30], "cannot be read"),
    ("ECG5000_TEST.txt", ecg_ts(*TEST).replace("true 1 2", "false 1 2"), "does not say that it has class labels"),
    ("ECG5000_TEST.txt", ecg_ts(*TEST).replace(",", ":", 1), "more than one dimension"),
])
def test_damaged_texts(tmp_path, name, content, problem):
    write(tmp_path, {**TXT, name: content})
    with pytest.raises(DataError, match=problem) as caught:
        data.load("ecg5000", folder=tmp_path)
    assert caught.value.path == str(tmp_path / name) and str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("content, problem", [
    (b"PK", "cannot be read"), (ZIP["ECG5000.zip"][:-40], "cannot be read"), (zipped({}), "lacks ECG5000_TRAIN.txt"),
    (zipped({"ECG5000_TRAIN.ts": TS["ECG5000_TRAIN.ts"]}), "lacks ECG5000_TEST.txt"),
    (ZIP["ECG5000.zip"][:3000] + b"\xff" * 30 + ZIP["ECG5000.zip"][3030:], "cannot be read"),
])
def test_damaged_archives(tmp_path, content, problem):
    write(tmp_path, {"ECG5000.zip": content})
    with pytest.raises(DataError, match=problem):
        data.load("ecg5000", folder=tmp_path)


def test_members_larger_than_any_such_file(tmp_path, monkeypatch):
    monkeypatch.setattr("graphjit.data.series.TEXT_LIMIT", 1000)
    write(tmp_path, ZIP)
    with pytest.raises(DataError, match="of more than 1000 bytes"):
        data.load("ecg5000", folder=tmp_path)
    write(tmp_path, TXT)
    with pytest.raises(DataError, match="has more than 1000 bytes"):
        data.load("ecg5000", folder=tmp_path)
