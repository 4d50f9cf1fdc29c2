"""Readers of users' files: they believe nothing a header claims before the size of the file bears it out."""

import csv
import gzip
import io
import math
import os
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

MOST_BYTES = 1 << 32  # what a compressed file may grow to
DEFLATE = 1032  # no byte of deflated data makes more than this many bytes

_SUFFIXES = {
    ".txt": "text",
    ".dat": "text",
    ".csv": "text",
    ".tsv": "text",
    ".npy": "npy",
    ".npz": "npz",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".hdf": "hdf5",
    ".nc": "hdf5",
    ".gz": "idx",
    ".idx": "idx",
}
_MAGIC = {
    b"\x93NUMPY": "npy",
    b"PK\x03\x04": "npz",
    b"\x89HDF\r\n\x1a\n": "hdf5",
    b"\x1f\x8b": "idx",
    b"\0\0": "idx",
}
_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_series(path: str | os.PathLike, column: str | int | None = None, dataset: str | None = None) -> np.ndarray:
    """One series of numbers from a user's file, as float64.

    **Arguments**

    - `path`: text with columns (.txt, .dat, .csv), .npy, .npz, HDF5 (.h5, .hdf5, .nc; also written
      `file.h5:/dataset`) or IDX. A file with another ending is known by its first bytes.
    - `column`: its name in the header, or its number from 0. Needed where text has several columns; for a
      two-dimensional array it picks array[:, column], and without it the array is read as (chains, n).
    - `dataset`: the name of the array in an .npz or HDF5 file; needed where there are several.

    **Returns** an array of shape (n,), or (chains, n).

    **Raises** `FileNotFoundError` for a missing file; `ValueError` with one sentence for everything else that
    is wrong.

    **When not to trust it.** Text is taken as it stands: units, missing rows and restarts in the middle are
    not seen.

    **Example**

    >>> import pathlib, tempfile
    >>> from thalweg._files import read_series
    >>> file = pathlib.Path(tempfile.mkdtemp(), "run.csv")
    >>> _ = file.write_text("step,energy\\n0,2.5\\n1,2.25\\n")
    >>> read_series(file, column="energy")
    array([2.5 , 2.25])
    """
    path, dataset = _split(path, dataset)
    kind = _kind(path)
    if kind == "text":
        return _read_column(path, column)
    array = _read(path, kind, dataset)
    if array.dtype.names:
        array = _field(path, array, column)
    elif column is not None:
        array = _array_column(path, array, column)
    array = np.squeeze(array)
    if array.ndim not in (1, 2):
        raise ValueError(
            f"{path} holds an array of shape {array.shape}, wanted (n,) or (chains, n): save one quantity by itself"
        )
    return _as_float(path, array)


def read_array(path: str | os.PathLike, dataset: str | None = None) -> np.ndarray:
    """The array in a user's file, in its own shape and type; text gives float64 of shape (rows, columns) or
    (rows,).

    **Arguments**

    - `path`: as for `read_series`.
    - `dataset`: the name of the array in an .npz or HDF5 file; needed where there are several.

    **Returns** a NumPy array of numbers.

    **Raises** `FileNotFoundError` for a missing file; `ValueError` with one sentence for everything else that
    is wrong.

    **When not to trust it.** Pickled objects are never read, nor data that an HDF5 file keeps in other files.

    **Example**

    >>> import pathlib, tempfile
    >>> from thalweg._files import read_array
    >>> file = pathlib.Path(tempfile.mkdtemp(), "a.npy")
    >>> np.save(file, np.arange(3))
    >>> read_array(file)
    array([0, 1, 2])
    """
    path, dataset = _split(path, dataset)
    kind = _kind(path)
    if kind == "text":
        table = _read_table(path, None)
        return table[:, 0] if table.shape[1] == 1 else table
    return _read(path, kind, dataset)


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """The array in an IDX file, the format of MNIST, plain or gzipped.

    Bytes: 0, 0, type, number of dimensions; the sizes as big-endian 32-bit integers; the data in C order,
    big-endian.

    **Arguments**

    - `path`: the file; whether it is gzipped is read from its first bytes.

    **Returns** an array with the byte order of the machine: uint8 for type 8, int8 9, int16 11, int32 12,
    float32 13, float64 14.

    **Raises** `FileNotFoundError` for a missing file; `ValueError` with one sentence for a wrong magic
    number, an unknown type, sizes that the file does not bear out, a truncated file, bytes after the end.

    **When not to trust it.** The format has no checksum; a gzipped file has one.

    **Source.** Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits", file formats.

    **Example**

    >>> import pathlib, tempfile
    >>> from thalweg._files import read_idx
    >>> file = pathlib.Path(tempfile.mkdtemp(), "labels-idx1-ubyte")
    >>> _ = file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    >>> read_idx(file)
    array([7, 2, 1], dtype=uint8)
    """
    path = _existing(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not zipped:
            return _idx(path, file, size, exact=True)
        try:
            with gzip.GzipFile(fileobj=file) as unzipped:
                return _idx(path, unzipped, min(size * DEFLATE, MOST_BYTES), exact=False)
        except EOFError:
            raise ValueError(f"{path} is a truncated gzip file: fetch it again") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path} is a damaged gzip file ({error}): fetch it again") from None


def _idx(path: Path, file: Any, room: int, exact: bool) -> np.ndarray:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0":
        raise ValueError(
            f"{path} is not an IDX file: it must begin with the bytes 0, 0, type, dimensions, got {list(head)}"
        )
    code, dimensions = head[2], head[3]
    if code not in _IDX_TYPES:
        raise ValueError(f"{path} has the unknown IDX type {code}, wanted 8, 9, 11, 12, 13 or 14: is it an IDX file?")
    if dimensions == 0:
        raise ValueError(f"{path} is an IDX file of 0 dimensions, wanted 1 or more: is it damaged?")
    sizes = file.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise ValueError(f"{path} is truncated inside its header: fetch it again")
    shape = tuple(int(n) for n in np.frombuffer(sizes, ">u4"))
    dtype = np.dtype(_IDX_TYPES[code])
    claimed = math.prod(shape) * dtype.itemsize
    if claimed == 0:
        raise ValueError(f"{path} is an IDX file of shape {shape}, which holds no values: is it the right file?")
    room -= 4 + len(sizes)
    if claimed > room:
        there = f"holds {room}" if exact else f"can hold at most {room}"
        raise ValueError(
            f"{path} is truncated: its header claims {claimed} bytes of data, the file {there}: fetch it again"
        )
    data = file.read(claimed)
    if len(data) < claimed:
        raise ValueError(
            f"{path} is truncated: its header claims {claimed} bytes of data, the file "
            f"holds {len(data)}: fetch it again"
        )
    if file.read(1):
        raise ValueError(f"{path} goes on after the {claimed} bytes that its header claims: is it damaged?")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))


# What kind of file it is


def _split(path: str | os.PathLike, dataset: str | None) -> tuple[Path, str | None]:
    """`file.h5:/dataset` is a file and a name in it, unless a file of that very name exists."""
    if dataset is not None and not isinstance(dataset, str):
        raise TypeError(f"dataset must be a name, got {dataset!r}: pass dataset='energy'")
    if isinstance(path, str) and dataset is None:
        match = re.fullmatch(r"(.+\.(?:h5|hdf5|hdf|nc|npz)):(.+)", path)
        if match and not Path(path).exists():
            return _existing(match[1]), match[2]
    return _existing(path), dataset


def _existing(path: str | os.PathLike) -> Path:
    if not isinstance(path, str | os.PathLike) or isinstance(path, bytes):
        raise TypeError(f"path must be a file name, got {type(path).__name__}: pass 'series.csv'")
    if "\0" in os.fspath(path):
        raise ValueError(f"path must be a file name, got {os.fspath(path)!r} with a zero byte in it: check the name")
    path = Path(path)
    try:
        if path.is_dir():
            raise ValueError(f"{path} is a directory, wanted a file: name the file in it")
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: check the name (now in {Path.cwd()})")
        if not path.is_file():
            raise ValueError(f"{path} is not a regular file: save the data to one first")
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror or error}): check the name and its permissions"
        ) from None
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty: was the run that wrote it stopped early?")
    return path


def _kind(path: Path) -> str:
    kind = _SUFFIXES.get(path.suffix.lower())
    if kind:
        return kind
    with path.open("rb") as file:
        start = file.read(8)
    for magic, name in _MAGIC.items():
        if start.startswith(magic):
            return name
    return "text"


def _read(path: Path, kind: str, dataset: str | None) -> np.ndarray:
    if dataset is not None and kind not in ("npz", "hdf5"):
        raise ValueError(f"dataset must be left out for {path}, which holds one array, got {dataset!r}: drop it")
    if kind == "npz":
        return _read_npz(path, dataset)
    if kind == "hdf5":
        return _read_hdf5(path, dataset)
    if kind == "npy":
        with path.open("rb") as file:
            return _npy(str(path), file, path.stat().st_size)
    return read_idx(path)


# NumPy's own formats


def _npy(name: str, file: BinaryIO, size: int) -> np.ndarray:
    """An .npy stream of known size: the header is read alone, and nothing is allocated that is not there."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except Exception as error:  # the header is a Python literal: a hostile one can fail in many ways
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise ValueError(f"{name} is not a readable .npy file ({reason}): save it again with numpy.save") from None
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects (pickle), which are never read: save numbers with numpy.save")
    _numbers(name, dtype)
    claimed, held = math.prod(shape) * dtype.itemsize, size - file.tell()
    if any(n < 0 for n in shape) or claimed != held:
        raise ValueError(
            f"{name} claims shape {shape} of {dtype}, {claimed} bytes, but holds {held}: it is truncated or damaged"
        )
    if claimed == 0:
        raise ValueError(f"{name} has shape {shape}, which holds no values: was the run that wrote it stopped early?")
    array = np.frombuffer(file.read(claimed), dtype)
    return array.reshape(shape, order="F" if fortran else "C")


def _read_npz(path: Path, dataset: str | None) -> np.ndarray:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
            name = _choose(path, names, dataset)
            info = archive.getinfo(name + ".npy")
            stored = info.compress_type == zipfile.ZIP_STORED  # nothing is made larger than the file itself
            most = path.stat().st_size if stored else min(MOST_BYTES, DEFLATE * info.compress_size + 64)
            if info.file_size > most:
                raise ValueError(
                    f"{path} claims {info.file_size} bytes for {name!r} from "
                    f"{info.compress_size} compressed ones, "
                    f"more than is possible or allowed ({MOST_BYTES}): save it again, or uncompressed as .npy"
                )
            with archive.open(info) as member:
                data = member.read(info.file_size + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise ValueError(f"{path} is not a readable .npz file ({error}): save it again with numpy.savez") from None
    return _npy(f"{path}:{name}", io.BytesIO(data), len(data))


# HDF5


def _read_hdf5(path: Path, dataset: str | None) -> np.ndarray:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            found = _dataset(path, file, dataset)
            _numbers(f"{path}:{found.name}", found.dtype)
            _bear_out(path, file, found)
            return np.asarray(found[()])
    except (OSError, RuntimeError, KeyError, MemoryError) as error:
        reason = str(error).strip("'\"").splitlines()[0][:160]
        raise ValueError(f"{path} cannot be read as HDF5 ({reason}): is it complete?") from None


def _dataset(path: Path, file: Any, dataset: str | None) -> Any:
    import h5py

    if dataset is None:
        names: list[str] = []

        def note(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.dtype.kind in "biuf" and item.size:
                names.append(name)

        file.visititems(note)  # follows no link into another file
        return file[_choose(path, names, None)]
    try:
        link = file.get(dataset, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise ValueError(f"{path}:{dataset} is a link into another file: open that file")
        found = file[dataset]
    except KeyError:
        raise ValueError(f"{path} has no dataset {dataset!r}, it has {_listed(list(file))}: name one of them") from None
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"{path}:{dataset} is a group that holds {_listed(list(found))}: name a dataset in it")
    return found


def _bear_out(path: Path, file: Any, found: Any) -> None:
    name = f"{path}:{found.name}"
    if found.file.filename != file.filename or found.is_virtual or found.external:
        raise ValueError(f"{name} keeps its data in other files, which are not opened: copy them into one file")
    if found.shape is None or found.size == 0:
        raise ValueError(f"{name} holds no values: was the run that wrote it stopped early?")
    claimed, stored = found.size * found.dtype.itemsize, found.id.get_storage_size()
    # Filters other than deflate can do better on constant data, hence the generous factor.
    if claimed > MOST_BYTES + stored or claimed > 8 * DEFLATE * stored:
        raise ValueError(
            f"{name} claims shape {found.shape}, {claimed} bytes, but {stored} are stored: it is truncated or damaged"
        )


# Text


def _read_column(path: Path, column: str | int | None) -> np.ndarray:
    names, width = _layout(path)[:2]
    if column is None:
        if width > 1:
            table = _read_table(path, None)
            if len(table) == 1 and not names:
                return table[0]  # one long line of numbers
            shown = _listed(names) if names else f"numbers 0 to {width - 1}"
            raise ValueError(
                f"{path} has {width} columns ({shown}): say which, as in column={names[-1] if names else 0!r}"
            )
        column = 0
    index = _index(path, column, names, width)
    return _read_table(path, index)[:, 0]


def _index(path: Path, column: str | int, names: list[str], width: int) -> int:
    if isinstance(column, str) and column in names:
        return names.index(column)
    if isinstance(column, str) and re.fullmatch(r"-?\d+", column):
        column = int(column)  # a number as a command line hands it in
    if isinstance(column, bool) or not isinstance(column, str | int | np.integer):
        raise TypeError(f"column must be a name or a number from 0, got {column!r}: pass column=0")
    if isinstance(column, str):
        shown = _listed(names) if names else f"no header, {width} columns"
        raise ValueError(f"column must be one of {path}, which has {shown}, got {column!r}: pass its name or number")
    if not 0 <= column < width:
        raise ValueError(f"column must be from 0 to {width - 1} in {path}, got {column}: columns count from 0")
    return int(column)


def _layout(path: Path) -> tuple[list[str], int, str | None, int]:
    """The names of the columns (if any), their number, what separates them, and how many lines come before the data."""
    comment: list[str] = []
    header: list[str] | None = None
    for number, line in enumerate(_lines(path)):
        text = line.split("#", 1)[0].strip()
        if not text:
            if line.strip():
                comment = line.strip().lstrip("#").replace(",", " ").split()
            continue
        separator = ";" if ";" in text else "," if "," in text else None
        fields = [f.strip() for f in (next(csv.reader([text], delimiter=separator)) if separator else text.split())]
        numeric = [_is_number(field) for field in fields]
        if not any(numeric):
            if header is not None:
                break
            header = fields
            continue
        if header is not None and len(header) != len(fields):
            raise ValueError(
                f"{path} has {len(header)} names in its header but {len(fields)} columns in "
                f"line {number + 1}: make them agree"
            )
        names = header or (comment if len(comment) == len(fields) and not any(map(_is_number, comment)) else [])
        return names, len(fields), separator, number
    if header is not None:
        raise ValueError(
            f"{path} holds no numbers, its first line reads {_short(' '.join(header))!r}: is it the right file?"
        )
    raise ValueError(f"{path} holds no numbers: is it the right file?")


def _read_table(path: Path, column: int | None) -> np.ndarray:
    _, width, separator, skip = _layout(path)
    try:
        return np.loadtxt(
            path,
            delimiter=separator,
            skiprows=skip,
            usecols=column,
            ndmin=2,
            encoding="utf-8-sig",
            quotechar='"' if separator else None,
        ).reshape(-1, 1 if column is not None else width)
    except (ValueError, UnicodeDecodeError):
        raise ValueError(_first_fault(path, width, separator, skip, column)) from None


def _first_fault(path: Path, width: int, separator: str | None, skip: int, column: int | None) -> str:
    """The line that stopped the fast reader."""
    for number, line in enumerate(_lines(path)):
        text = line.split("#", 1)[0].strip()
        if number < skip or not text:
            continue
        fields = next(csv.reader([text], delimiter=separator)) if separator else text.split()
        if len(fields) != width and (column is None or len(fields) <= column):
            return (
                f"{path} has {len(fields)} columns in line {number + 1}, wanted {width}: complete or remove that line"
            )
        for field in fields if column is None else [fields[column]]:
            if not _is_number(field.strip()):
                return (
                    f"{path} has {_short(field)!r} in line {number + 1}, wanted a number: correct or remove that line"
                )
    return f"{path} cannot be read as columns of numbers: write it as plain text, one row a line"


def _lines(path: Path) -> Any:
    try:
        with path.open(encoding="utf-8-sig", newline=None) as file:
            while line := file.readline(1 << 24):
                if "\0" in line:
                    raise ValueError(
                        f"{path} is not text (it has zero bytes): use its true ending, such as .npy or .h5"
                    )
                yield line
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not text in UTF-8: use its true ending, such as .npy or .h5") from None


def _is_number(field: str) -> bool:
    if "_" in field:  # Python reads 1_000, the fast reader does not
        return False
    try:
        float(field)
    except ValueError:
        return False
    return True


# What the formats share


def _choose(path: Path, names: list[str], dataset: str | None) -> str:
    if dataset is None:
        if len(names) == 1:
            return names[0]
        if not names:
            raise ValueError(f"{path} holds no array of numbers: is it the right file?")
        raise ValueError(f"{path} holds several arrays, {_listed(names)}: say which, as in dataset={names[0]!r}")
    if dataset.strip("/") not in names:
        raise ValueError(f"{path} has no array {dataset!r}, it has {_listed(names)}: name one of them")
    return dataset.strip("/")


def _listed(names: list[str]) -> str:
    shown = ", ".join(_short(name) for name in names[:12])
    return (shown or "none") + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."


def _numbers(name: str, dtype: np.dtype) -> None:
    kinds = [dtype[field].kind for field in dtype.names] if dtype.names else [dtype.kind]
    if any(kind not in "biufc" for kind in kinds):
        raise ValueError(f"{name} holds values of type {dtype}, wanted numbers: save it as floats")


def _field(path: Path, array: np.ndarray, column: str | int | None) -> np.ndarray:
    names = list(array.dtype.names or ())
    if column is None:
        raise ValueError(f"{path} has the columns {_listed(names)}: say which, as in column={names[0]!r}")
    return array[names[_index(path, column, names, len(names))]]


def _array_column(path: Path, array: np.ndarray, column: str | int) -> np.ndarray:
    if array.ndim != 2:
        raise ValueError(f"column must be left out for {path}, which has shape {array.shape}, got {column!r}: drop it")
    return array[:, _index(path, column, [], array.shape[1])]


def _as_float(path: Path, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "c":
        raise ValueError(f"{path} holds complex numbers, wanted real ones: save the real part")
    return array.astype(np.float64)
