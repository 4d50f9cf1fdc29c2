"""Records that go to disk while the run goes on: zarr or netCDF, readable with xarray at any time."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from thalweg._across import gathered

ROWS = 256  # steps to a chunk of the file


class Store(Protocol):
    """A file that holds arrays with a growing dimension `step`."""

    def rows(self) -> int: ...

    def create(self, shapes: dict[str, tuple[tuple[str, ...], tuple[int, ...], Any]]) -> None: ...

    def grow(self, rows: int) -> None: ...

    def put(self, name: str, rows: slice, axis: int, values: np.ndarray) -> None: ...


class DiskRecord:
    """A record on disk, with the manners of the one in memory.

    - `path`: a folder that ends in `.zarr`, or a file that ends in `.nc`.
    - `row`: the shapes of one chunk of the record, the steps along `axis`.
    - `start`, `every`: which steps the rows stand for.
    """

    value = None  # a checkpoint need not hold what is on disk already

    def __init__(self, path: Any, row: Any, axis: int, copies: str, start: int, every: int):
        self.path, self.axis, self.copies, self.start, self.every = Path(path), axis, copies, start, every
        self.names = {_name(leaf_path): leaf for leaf_path, leaf in jax.tree_util.tree_leaves_with_path(row)}
        self.rows = 0

    def begin(self, rows: int, value: Any) -> None:
        """Make the file for a new run, or cut the file of a resumed run to the rows of its checkpoint."""
        if rows:
            with self._open() as store:
                if store.rows() < rows:
                    raise ValueError(
                        f"{self.path} holds {store.rows()} rows, fewer than the {rows} of the checkpoint: "
                        "it is not the record of this run"
                    )
                store.grow(rows)
        else:
            if self.path.exists():
                raise ValueError(f"{self.path} exists: name another file for the record, or move it away")
            with self._open() as store:
                store.create({name: self._layout(name, leaf) for name, leaf in self.names.items()})
        self.rows = rows

    def add(self, buffer: Any, rows: int) -> Any:
        """Write the rows of one chunk; they are given back, for whoever looks at them."""
        part = first_rows(buffer, rows, self.axis, self.copies)
        if not rows:
            return part
        new = slice(self.rows, self.rows + rows)
        with self._open() as store:
            store.grow(new.stop)
            for name, leaf in zip(self.names, jax.tree.leaves(part), strict=True):
                store.put(name, new, self._lead, leaf[0] if self.copies == "a run" else leaf)
            store.put("step", new, 0, self.start + self.every * (1 + np.arange(new.start, new.stop)))
        self.rows = new.stop
        return part

    def empty(self) -> Any:
        """What a checkpoint holds of it: nothing."""
        return None

    def result(self) -> Any:
        """The record as an xarray Dataset that reads from the file."""
        import xarray

        if self.path.suffix == ".zarr":
            return xarray.open_zarr(self.path, consolidated=False, chunks=None)
        return xarray.open_dataset(self.path, engine="h5netcdf")

    def _layout(self, name: str, leaf: Any) -> tuple[tuple[str, ...], tuple[int, ...], Any]:
        members = () if not self._lead else (1,) if self.copies else leaf.shape[:1]
        rest = leaf.shape[self.axis + 1 :]
        axes = tuple(f"{name}_axis{axis}" for axis in range(len(rest)))
        return ("member",) * self._lead + ("step", *axes), (*members, 1, *rest), leaf.dtype

    @property
    def _lead(self) -> int:
        """How many axes lead for the members in the file."""
        return 0 if self.copies == "a run" else self.axis

    def _open(self) -> Any:
        return _STORES[self.path.suffix](self.path)


def first_rows(buffer: Any, rows: int, axis: int, copies: str) -> Any:
    """The first rows of a chunk on the host; of two copies of one member, the first."""
    cut = (slice(0, 1) if copies else slice(None), slice(0, rows)) if axis else (slice(0, rows),)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[cut], gathered(buffer))


def check_path(path: Any) -> None:
    """Refuse a name that no store has, before anything is run."""
    if not isinstance(path, str | os.PathLike) or Path(path).suffix not in _STORES:
        raise ValueError(f"record_to must be a path that ends in .zarr or .nc, got {path!r}")
    if Path(path).suffix == ".zarr":
        _zarr()


class _Zarr:
    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> Store:
        self.group = _zarr().open_group(str(self.path), mode="a")
        return self

    def __exit__(self, *problem: Any) -> None:
        pass

    def rows(self) -> int:
        return int(self.group["step"].shape[0])

    def create(self, shapes: dict[str, tuple[tuple[str, ...], tuple[int, ...], Any]]) -> None:
        for name, (dimensions, shape, dtype) in (shapes | {"step": (("step",), (1,), np.dtype(np.int64))}).items():
            sizes = tuple(0 if d == "step" else n for d, n in zip(dimensions, shape, strict=True))
            chunks = tuple(ROWS if d == "step" else max(1, n) for d, n in zip(dimensions, shape, strict=True))
            self.group.create_array(name, shape=sizes, chunks=chunks, dtype=dtype, dimension_names=dimensions)

    def grow(self, rows: int) -> None:
        for _, array in self.group.arrays():
            axis = list(array.metadata.dimension_names).index("step")
            array.resize((*array.shape[:axis], rows, *array.shape[axis + 1 :]))

    def put(self, name: str, rows: slice, axis: int, values: np.ndarray) -> None:
        self.group[name][(*[slice(None)] * axis, rows)] = values


class _NetCDF:
    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> Store:
        import h5netcdf

        # No lock, so that a reader in another process does not stop the run.
        try:
            self.file = h5netcdf.File(self.path, "a" if self.path.exists() else "w", locking=False)
        except OSError as problem:
            raise ValueError(
                f"the record {self.path} cannot be written ({problem}): close it where it is open in this process"
            ) from None
        return self

    def __exit__(self, *problem: Any) -> None:
        self.file.close()

    def rows(self) -> int:
        return int(self.file.dimensions["step"].size)

    def create(self, shapes: dict[str, tuple[tuple[str, ...], tuple[int, ...], Any]]) -> None:
        self.file.dimensions["step"] = None
        for name, (dimensions, shape, dtype) in (shapes | {"step": (("step",), (1,), np.dtype(np.int64))}).items():
            for dimension, size in zip(dimensions, shape, strict=True):
                if dimension not in self.file.dimensions:
                    self.file.dimensions[dimension] = size
            chunks = tuple(ROWS if d == "step" else max(1, n) for d, n in zip(dimensions, shape, strict=True))
            self.file.create_variable(name, dimensions, dtype=dtype, chunks=chunks)

    def grow(self, rows: int) -> None:
        self.file.resize_dimension("step", rows)

    def put(self, name: str, rows: slice, axis: int, values: np.ndarray) -> None:
        self.file.variables[name][(*[slice(None)] * axis, rows)] = values


_STORES: dict[str, Callable[[Path], Any]] = {".zarr": _Zarr, ".nc": _NetCDF}


def _zarr() -> Any:
    try:
        import zarr
    except ImportError:
        raise ValueError("record_to a .zarr folder needs zarr: pip install zarr, or name a .nc file") from None
    return zarr


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="_") or "record"
