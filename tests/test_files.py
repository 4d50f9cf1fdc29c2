"""Readers of users' files: what they read is exact, and what is wrong is said in one sentence that names the file."""

import gzip
import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from thalweg._files import read_array, read_idx, read_series


def idx(array, code, dtype):
    sizes = b"".join(struct.pack(">I", n) for n in array.shape)
    return bytes([0, 0, code, array.ndim]) + sizes + array.astype(dtype).tobytes()


def refused(file, sentence, read, **how):
    """One sentence that names the file."""
    with pytest.raises(ValueError, match=sentence) as caught:
        read(file, **how)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


IDX_TYPES = [(8, ">u1"), (9, ">i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8")]


@pytest.mark.parametrize(("code", "dtype"), IDX_TYPES)
@pytest.mark.parametrize("zipped", [False, True])
def test_idx_of_every_type_comes_back_equal(tmp_path, code, dtype, zipped):
    array = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    data = idx(array, code, dtype)
    file = tmp_path / "images-idx3"
    file.write_bytes(gzip.compress(data) if zipped else data)
    read = read_idx(file)
    assert read.dtype == np.dtype(dtype).newbyteorder("=") and read.dtype.isnative
    np.testing.assert_array_equal(read, array)
    np.testing.assert_array_equal(read_array(file), array)


GOOD = idx(np.arange(6).reshape(2, 3), 8, "u1")
HUGE = bytes([0, 0, 14, 4]) + struct.pack(">I", 2**10) * 4  # claims 2^40 doubles
BAD_IDX = {
    "not idx": (b"\x01\x02\x03\x04hello", "not an IDX file"),
    "tiny": (b"\0\0", "not an IDX file"),
    "unknown type": (bytes([0, 0, 7, 1]) + struct.pack(">I", 1) + b"x", "unknown IDX type 7"),
    "no dimensions": (bytes([0, 0, 8, 0]) + b"x", "0 dimensions"),
    "cut in the header": (bytes([0, 0, 8, 3]) + b"\0\0\0\1", "truncated inside its header"),
    "cut in the data": (GOOD[:-1], "truncated"),
    "goes on": (GOOD + b"x", "goes on"),
    "no values": (bytes([0, 0, 8, 1]) + struct.pack(">I", 0), "holds no values"),
    "huge": (HUGE + bytes(100), "truncated"),
    "255 dimensions": (bytes([0, 0, 8, 255]) + b"\xff" * 1020, "truncated"),
}


@pytest.mark.parametrize("name", BAD_IDX)
@pytest.mark.parametrize("zipped", [False, True])
def test_bad_idx_is_refused_without_allocating_what_it_claims(tmp_path, name, zipped):
    data, sentence = BAD_IDX[name]
    file = tmp_path / "bad.idx"
    file.write_bytes(gzip.compress(data) if zipped else data)
    tracemalloc.start()
    refused(file, sentence, read_idx)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1 << 22


def test_damaged_gzip_is_refused(tmp_path):
    whole = gzip.compress(idx(np.random.default_rng(0).integers(0, 255, (50, 50)), 8, "u1"))
    file = tmp_path / "bad.gz"
    for data, sentence in [
        (whole[:-200], "truncated"),
        (whole[:5], "truncated"),
        (whole[:100] + b"\xff" * 50 + whole[150:], "damaged"),
        (whole[:-8] + b"\0" * 8, "damaged"),
    ]:
        file.write_bytes(data)
        refused(file, sentence, read_idx)


def test_a_gzip_bomb_stops_at_what_its_header_claims(tmp_path):
    file = tmp_path / "bomb.gz"
    file.write_bytes(gzip.compress(GOOD + bytes(1 << 26)))
    tracemalloc.start()
    refused(file, "goes on", read_idx)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1 << 22


def test_text_by_name_and_number(tmp_path):
    rows = np.random.default_rng(0).normal(size=(20, 3))
    lines = [",".join(map(repr, map(float, row))) for row in rows]
    table = tmp_path / "a.csv"
    table.write_text('step,"local energy",variance\n' + "\n".join(lines) + "\n")
    np.testing.assert_array_equal(read_series(table, column="local energy"), rows[:, 1])
    np.testing.assert_array_equal(read_series(table, column=2), rows[:, 2])
    np.testing.assert_array_equal(read_series(str(table), column="0"), rows[:, 0])
    np.testing.assert_array_equal(read_array(table), rows)

    spaces = tmp_path / "a.txt"
    spaces.write_text("# made by hand\n# step energy variance\n" + "\n".join(lines).replace(",", "  "))
    np.testing.assert_array_equal(read_series(spaces, column="energy"), rows[:, 1])
    semicolons = tmp_path / "a.dat"
    semicolons.write_bytes("\ufeffa;b;c\r\n".encode() + "\r\n".join(lines).replace(",", ";").encode())
    np.testing.assert_array_equal(read_series(semicolons, column="c"), rows[:, 2])


def test_text_of_one_column_or_one_line(tmp_path):
    file = tmp_path / "losses"
    file.write_text("\n1.5\n\n2.5  # a remark\n-3e-2\n")
    np.testing.assert_array_equal(read_series(file), [1.5, 2.5, -0.03])
    file.write_text("loss\n1\n2\n")
    np.testing.assert_array_equal(read_series(file), [1, 2])
    file.write_text("1 2 3 4 5\n")
    np.testing.assert_array_equal(read_series(file), [1, 2, 3, 4, 5])


BAD_TEXT = {
    "a word": ("1\n2\nthree\n", None, "'three' in line 3"),
    "a ragged row": ("a,b\n1,2\n3\n", 1, "1 columns in line 3, wanted 2"),
    "a hole": ("a,b\n1,2\n,3\n", 0, "'' in line 3"),
    "a decimal comma": ("1,5;2,5\n", 0, "holds no numbers"),
    "words only": ("hello world\nbye\n", None, "holds no numbers, its first line reads 'hello world'"),
    "remarks only": ("# nothing\n\n", None, "holds no numbers"),
    "header of another width": ("a,b,c\n1,2\n", 0, "3 names in its header but 2 columns"),
    "which column": ("a,b\n1,2\n3,4\n", None, r"2 columns \(a, b\): say which"),
    "no such column": ("a,b\n1,2\n", "c", "which has a, b, got 'c'"),
    "column out of range": ("a,b\n1,2\n", 2, "from 0 to 1"),
    "zero bytes": ("1\0002\n", None, "zero bytes"),
}


@pytest.mark.parametrize("name", BAD_TEXT)
def test_bad_text_is_refused(tmp_path, name):
    text, column, sentence = BAD_TEXT[name]
    file = tmp_path / "bad.csv"
    file.write_text(text)
    refused(file, sentence, read_series, column=column)


def test_binary_called_text_is_refused(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"\xff\xfe\xc3\x28" * 100)
    refused(file, "not text in UTF-8", read_series)


def test_npy_and_npz(tmp_path):
    a = np.random.default_rng(0).normal(size=(3, 40))
    np.save(tmp_path / "a.npy", np.asfortranarray(a))
    np.testing.assert_array_equal(read_array(tmp_path / "a.npy"), a)
    np.testing.assert_array_equal(read_series(tmp_path / "a.npy"), a)
    np.testing.assert_array_equal(read_series(tmp_path / "a.npy", column=7), a[:, 7])
    np.savez_compressed(tmp_path / "one.npz", energy=a[0])
    np.testing.assert_array_equal(read_series(tmp_path / "one.npz"), a[0])
    two = tmp_path / "two.npz"
    np.savez(two, energy=a[0], loss=a[1])
    np.testing.assert_array_equal(read_series(two, dataset="loss"), a[1])
    np.testing.assert_array_equal(read_series(f"{two}:loss"), a[1])
    refused(two, "several arrays, energy, loss: say which", read_series)
    refused(two, "no array 'x', it has energy, loss", read_series, dataset="x")
    table = np.array([(1, 2.5), (2, 3.5)], dtype=[("step", "i4"), ("energy", "f8")])
    np.save(tmp_path / "table.npy", table)
    np.testing.assert_array_equal(read_series(tmp_path / "table.npy", column="energy"), [2.5, 3.5])


def npy(shape, descr="<f8", data=b""):
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}}}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def pickled():
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    return buffer.getvalue()


BAD_NPY = {
    "huge": (npy((2**40,), data=bytes(800)), "claims shape"),
    "overflowing": (npy((2**40, 2**40), data=bytes(800)), "claims shape"),
    "negative": (npy((-1,), data=bytes(8)), "claims shape"),
    "truncated": (npy((100,), data=bytes(799)), "claims shape"),
    "goes on": (npy((100,), data=bytes(801)), "claims shape"),
    "empty array": (npy((0,)), "holds no values"),
    "text": (npy((2,), "<U1", bytes(8)), "wanted numbers"),
    "objects": (pickled(), "never read"),
    "not npy": (b"hello world, this is no array", "not a readable .npy"),
    "cut header": (npy((100,))[:20], "not a readable .npy"),
    "code in the header": (
        b"\x93NUMPY\x01\x00\x20\x00" + b"__import__('os').abort()".ljust(32),
        "not a readable .npy",
    ),
}


@pytest.mark.parametrize("name", BAD_NPY)
@pytest.mark.parametrize("in_npz", [False, True])
def test_bad_npy_is_refused(tmp_path, name, in_npz):
    data, sentence = BAD_NPY[name]
    file = tmp_path / ("bad.npz" if in_npz else "bad.npy")
    if in_npz:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("x.npy", data)
    else:
        file.write_bytes(data)
    refused(file, sentence, read_array)
    refused(file, sentence, read_series)


def test_a_zip_that_lies_about_its_size_is_refused(tmp_path):
    file = tmp_path / "bomb.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy((100,), data=bytes(800)))
    data = bytearray(file.read_bytes())
    at = data.index(b"PK\x01\x02") + 24  # the uncompressed size in the central directory
    data[at : at + 4] = struct.pack("<I", 2**31)
    file.write_bytes(data)
    refused(file, "more than is possible", read_array)
    file.write_bytes(bytes(data[:-30]))
    refused(file, "not a readable .npz", read_array)


def test_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    a = np.random.default_rng(0).normal(size=100)
    file = tmp_path / "run.h5"
    with h5py.File(file, "w") as f:
        f["measure/energy"] = a
        f["label"] = "a word"
    np.testing.assert_array_equal(read_series(file), a)  # the only numbers in it
    np.testing.assert_array_equal(read_series(f"{file}:/measure/energy"), a)
    np.testing.assert_array_equal(read_series(file, dataset="measure/energy"), a)
    with h5py.File(file, "a") as f:
        f.create_dataset("loss", data=np.stack([a, a]), compression="gzip")
        f.create_dataset("claims", shape=(2**40,), dtype="f8", chunks=(1024,))
        f.create_dataset("nothing", shape=(0,), dtype="f8")
        f["away"] = h5py.ExternalLink("other.h5", "/x")
        f.create_dataset("raw", shape=(10,), dtype="f8", external=[(str(tmp_path / "raw.bin"), 0, 80)])
    np.testing.assert_array_equal(read_series(f"{file}:loss"), np.stack([a, a]))
    for dataset, sentence in {
        None: "several arrays",
        "claims": "0 are stored",
        "nothing": "holds no values",
        "label": "wanted numbers",
        "measure": "is a group that holds energy",
        "absent": "no dataset 'absent', it has",
        "away": "a link into another file",
        "raw": "keeps its data in other files",
    }.items():
        refused(file, sentence, read_series, dataset=dataset)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    refused(file, "cannot be read as HDF5", read_series, dataset="loss")
    file.write_bytes(b"hello")
    refused(file, "cannot be read as HDF5", read_series)


@pytest.mark.parametrize("read", [read_series, read_array, read_idx])
def test_no_file_at_all(tmp_path, read):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read(tmp_path / "absent.csv")
    empty = tmp_path / "empty.csv"
    empty.touch()
    refused(tmp_path, "is a directory", read)
    refused(empty, "is empty", read)
    refused("/dev/null", "not a regular file", read)
    for name, sentence in [("a\0b", "zero byte"), ("x" * 5000, "cannot be read")]:
        with pytest.raises(ValueError, match=sentence):
            read(name)
    for wrong in (3, None, b"a.npy"):
        with pytest.raises(TypeError, match="path must be a file name"):
            read(wrong)


def test_random_bytes_never_escape_as_another_error(tmp_path):
    rng = np.random.default_rng(0)
    starts = [
        b"",
        b"\x93NUMPY\x01\x00",
        b"PK\x03\x04",
        b"\x89HDF\r\n\x1a\n",
        b"\x1f\x8b\x08\x00",
        b"\0\0\x08\x01",
        b"1,2\n",
    ]
    for i in range(210):
        suffix = ["", ".npy", ".npz", ".h5", ".gz", ".idx", ".csv"][i % 7]
        file = tmp_path / f"fuzz{suffix}"
        file.write_bytes(starts[(i // 7) % 7] + rng.bytes(int(rng.integers(1, 200))))
        try:
            read_series(file)
        except ValueError as error:
            assert "\n" not in str(error) and str(file) in str(error)
