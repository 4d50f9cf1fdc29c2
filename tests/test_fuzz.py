"""Thousands of generated command lines and files: a sentence or an answer, never a traceback, a hang or a NaN."""

import gzip
import io
import random
import re
import struct
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

import thalweg as tw
from thalweg.cli import main

pytestmark = pytest.mark.usefixtures("as_installed")

TOY = str(Path(__file__).parent / "studies" / "toy.py")
LONGEST = 30.0  # seconds for one answer, on a busy machine

WORDS = [
    "",
    "-",
    "--",
    "nan",
    "inf",
    "-inf",
    "1e999",
    "0",
    "-1",
    "1",
    "2.5",
    "0x10",
    "1_000",
    "None",
    "true",
    "é",
    "\u202e",
    "a" * 300,
    "../..",
    "/",
    ".",
    "x=y",
    "steps=5",
    "fail=maybe",
    "pit",
    "lorenz",
    "no:such",
    "os:getcwd",
    "numpy:nan",
    "json:dumps",
    "1,2,3",
    ">= 1",
    "<= -0.5",
    "1..2",
    ">=",
    "nan..1",
    "quick",
    "full",
    "huge",
    "9" * 40,
    "%s",
    "{}",
    "[red]",
    "'; drop",
    "\t",
    "step",
    "energy",
    "-h",
    "--help",
    "--debug-not",
    "--version",
]
OPTIONS = [
    "--size",
    "--set",
    "--out",
    "--column",
    "--dataset",
    "--plot",
    "--learning-rate",
    "--start",
    "--target",
    "--steps",
    "--key",
    "--nonsense",
    "-x",
    "--size=",
    "--steps=nan",
]
PLACES = [
    "stats",
    "show",
    "run",
    "flow",
    "flow escape",
    "list",
    "report",
    "energy",
    "energy score",
    "energy train",
    "energy ground-state",
    "nonsense",
    "",
    "stat",
]


def hostile_files(folder):
    """Files that lie, in every format that thalweg reads."""
    chance = np.random.default_rng(0)
    content: dict[str, bytes] = {
        "empty.npy": b"",
        "empty.csv": b"",
        "text.csv": b"step,energy\n0,1\n1,2\n2,oops\n",
        "ragged.csv": b"1,2\n3\n4,5,6\n",
        "nan.txt": b"nan\nnan\n1\n",
        "inf.txt": b"inf\n1\n2\n",
        "words.txt": b"hello\nworld\n",
        "one.txt": b"1\n",
        "huge.txt": b"1e308\n1e308\n-1e308\n" * 9,
        "constant.txt": b"2\n" * 50,
        "binary.dat": chance.bytes(500),
        "zeros.dat": bytes(2000),
        "utf16.csv": "a,b\n1,2\n".encode("utf-16"),
        "bom.csv": b"\xef\xbb\xbfa,b\n1,2\n3,4\n",
        "long.csv": b"1," * 50_000,
        "idx.idx": struct.pack(">HBBIII", 0, 8, 3, 2**31, 2**31, 2**31) + b"abc",
        "idx0.idx": struct.pack(">HBB", 0, 8, 0),
        "magic.gz": gzip.compress(struct.pack(">HBBI", 0, 8, 1, 2**32 - 1)),
        "torn.gz": gzip.compress(bytes(9999))[:40],
        "not.gz": b"plain",
        "fake.h5": b"\x89HDF\r\n\x1a\n" + chance.bytes(200),
        "fake.nc": chance.bytes(100),
        "fake.npz": b"PK\x03\x04" + chance.bytes(100),
        "script.py": b"raise SystemExit(3)\n",
        "syntax.py": b"def (\n",
        "noroom.py": b"def run(size):\n    pass\n",
        "latin.csv": "zähler\n1\n2\n".encode("latin-1"),
    }

    def npy(header):
        text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text

    content["liar.npy"] = npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }")
    content["negative.npy"] = npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-5,), }") + bytes(40)
    content["code.npy"] = npy("__import__('os').system('true')")
    content["deep.npy"] = npy("(" * 500)
    content["pickle.npy"] = (
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }") + b"cos\nsystem\n(S'true'\ntR."
    )
    for name, array in {
        "good": chance.normal(size=300),
        "wide": chance.normal(size=(2, 40)),
        "nans": np.full(60, np.nan),
        "cube": np.zeros((2, 2, 2)),
        "words": np.array(["a", "b"]),
        "complex": np.ones(30) * 1j,
    }.items():
        file = io.BytesIO()
        np.save(file, array)
        content[f"{name}.npy"], content[f"torn-{name}.npy"] = (
            file.getvalue(),
            file.getvalue()[: len(file.getvalue()) // 2],
        )
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", content["liar.npy"] + bytes(10**6))
        archive.writestr("../evil.npy", content["good.npy"])
    content["bomb.npz"], content["torn.npz"] = bomb.getvalue(), bomb.getvalue()[:200]
    paths = []
    for name, data in content.items():
        (folder / name).write_bytes(data)
        paths.append(str(folder / name))
    tw.save(tw.Estimate(1.0, np.nan), folder / "estimate.nc")
    whole = (folder / "estimate.nc").read_bytes()
    (folder / "torn.nc").write_bytes(whole[: len(whole) // 2])
    return [*paths, str(folder / "estimate.nc"), str(folder / "torn.nc"), str(folder), str(folder / "missing.npy"), TOY]


def command_line(chance, files):
    """Tokens as a hurried, confused or hostile user types them; never a job that is valid and long."""
    place = chance.choice(PLACES)
    if place == "report":  # a valid one runs every study
        return ["report", "--size", chance.choice(["huge", "", "nan"])]
    anything = [*WORDS, *files, *files]
    tokens = place.split() + [chance.choice(anything) for _ in range(chance.choice([0, 1, 1, 1, 2]))]
    for _ in range(chance.choice([0, 0, 1, 2, 3])):
        tokens += [chance.choice(OPTIONS)] + [chance.choice(anything) for _ in range(chance.choice([0, 1, 1]))]
    if place in ("run", "flow escape", "energy train", "energy score", "energy ground-state"):
        tokens += [chance.choice(["--steps", "--size", "--nonsense"]), chance.choice(["nan", "-3", "huge", "x"])]
    return tokens


def throw(count, seed, folder, capsys, monkeypatch):
    """Give the command so many generated lines; what it did to each that it should not have done."""
    monkeypatch.chdir(folder)
    files, chance, wrong, codes = hostile_files(folder), random.Random(seed), [], {}
    for _ in range(count):
        tokens, began = command_line(chance, files), time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                main(tokens)
        except SystemExit as left:
            code = left.code
        except BaseException as escaped:
            wrong.append(f"{tokens}: {type(escaped).__name__} came out: {escaped}")
            capsys.readouterr()
            continue
        out, err = capsys.readouterr()
        codes[code] = codes.get(code, 0) + 1
        if time.perf_counter() - began > LONGEST:
            wrong.append(f"{tokens}: took {time.perf_counter() - began:.0f} s")
        if code not in (0, 1, 2):
            wrong.append(f"{tokens}: status {code}")
        if code and not (err.startswith("thalweg: ") and err.count("\n") == 1 and len(err) < 1000):
            wrong.append(f"{tokens}: no single sentence: {err[:300]!r}")
        if "Traceback" in out + err:
            wrong.append(f"{tokens}: a traceback")
        if (
            code == 0
            and re.search(r"(?<![\w/.-])nan(?![\w/.])", out, re.IGNORECASE)
            and "estimate.nc" not in " ".join(tokens)
        ):
            wrong.append(f"{tokens}: NaN as a success: {out[:300]!r}")
    return wrong, codes


def test_generated_command_lines_end_in_an_answer_or_a_sentence(tmp_path, capsys, monkeypatch):
    wrong, codes = throw(2000, 1, tmp_path, capsys, monkeypatch)
    assert not wrong, "\n".join([f"{len(wrong)}:", *wrong[:20]])
    assert codes[0] > 50 and codes[2] > 1000  # both kinds were met


@pytest.mark.slow
def test_many_more_command_lines(tmp_path, capsys, monkeypatch):
    wrong, _ = throw(10_000, 2, tmp_path, capsys, monkeypatch)
    assert not wrong, "\n".join([f"{len(wrong)}:", *wrong[:20]])
