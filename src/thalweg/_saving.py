"""Results to files and back: labelled data as netCDF that says what it is and how it was made."""

import datetime
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import thalweg

if TYPE_CHECKING:
    import xarray

    from thalweg._results import Estimate

# Attributes of a file that thalweg itself writes; the rest are the user's own.
_OWN = ("thalweg_version", "created", "kind", "provenance", "details", "call", "versions")


def save(result: Any, path: str | os.PathLike, **provenance: Any) -> Path:
    """Save a result as a netCDF file that knows how it was made.

    **Arguments**

    - `result`: an xarray Dataset or DataArray, an `Estimate`, or anything with a method `to_xarray()`.
    - `path`: the file; `.nc` is added if it has no suffix.
    - `provenance`: how it was made, by name: `learning_rate=0.02, key=0, study="pit"`.

    The command that runs, the versions of thalweg, Python, JAX and NumPy, and the time are added; a `Run` adds its key,
    its steps and the settings of its process. The file appears whole or not at all. Returned: its path.

    **Raises** `TypeError` for a result that has no labels, `ValueError` for a path that cannot be written.

    **Example**

    >>> import tempfile, pathlib, thalweg as tw
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "energy.nc"
    >>> _ = tw.save(tw.Estimate(3.00002, 0.00004), file, particles=2)
    >>> print(tw.load(file))
    3.000020 ± 0.000040
    """
    dataset, kind, details = _labelled(result)
    path = _path(path)
    path = path.with_suffix(".nc") if not path.suffix else path
    dataset = dataset.assign_attrs(
        thalweg_version=thalweg.__version__,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        kind=kind,
        provenance=_to_json(getattr(result, "provenance", {}) | provenance),
        call=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
        if sys.argv and sys.argv[0]
        else "an interactive session",
        versions=_to_json(versions()),
        **({"details": _to_json(details)} if details else {}),
    )
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset.to_netcdf(draft, engine="h5netcdf")
        draft.replace(path)
    except OSError as problem:
        raise ValueError(f"cannot write {path}: {problem.strerror or problem}") from None
    finally:
        if draft.exists():
            draft.unlink()
    return path


def load(path: str | os.PathLike) -> "xarray.Dataset | xarray.DataArray | Estimate":
    """Load what `save` wrote: a Dataset, a DataArray or an `Estimate`, as it was.

    Labelled data carry how they were made in `attrs["provenance"]` (JSON). Any other netCDF file comes as a
    Dataset.

    **Raises** `ValueError` for a file that is missing, cut short, or not netCDF.
    """
    dataset = read(path)
    kind = dataset.attrs.get("kind")
    if kind == "Estimate":
        from thalweg._results import Estimate

        value, error, status = (dataset[name].values[()] for name in ("value", "error", "status"))
        return Estimate(value, error, status, json.loads(dataset.attrs.get("details", "{}")))
    if kind == "DataArray":
        (name,) = dataset.data_vars
        made = {key: dataset.attrs[key] for key in _OWN if key in dataset.attrs and key not in ("kind", "details")}
        return dataset[name].rename(None if name == "values" else name).assign_attrs(made)
    return dataset


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    packages = ("jax", "jaxlib", "equinox", "optax", "numpy", "scipy")
    return {"thalweg": thalweg.__version__, "python": platform.python_version()} | {
        package: importlib.metadata.version(package) for package in packages
    }


def show(path: str | os.PathLike) -> str:
    """What a saved result, or a checkpoint, is and how it was made, in lines for a reader."""
    if _path(path).suffix == ".npz":
        from thalweg._checkpoints import describe

        return describe(path)
    dataset = read(path)
    attributes = dict(dataset.attrs)
    if "thalweg_version" in attributes:
        head = f"{path}: {attributes.get('kind', 'a result')}, made by thalweg {attributes['thalweg_version']}"
        lines = [f"{head} on {attributes.get('created', 'an unknown day')}"]
        if "call" in attributes:
            lines.append(f"by: {_short(attributes['call'])}")
        if "versions" in attributes:
            found = json.loads(attributes["versions"])
            lines.append(f"with: {', '.join(f'{name} {version}' for name, version in found.items())}")
    else:
        lines = [f"{path}: a netCDF file, not made by thalweg"]
    provenance = json.loads(attributes.get("provenance", "{}"))
    if provenance:
        lines.append("how it was made:")
        lines += [f"  {name} = {_short(value)}" for name, value in provenance.items()]
    if attributes.get("kind") == "Estimate":
        return "\n".join([*lines, f"value: {load(path)}"])
    lines.append("what it holds:")
    for name, array in dataset.variables.items():
        sizes = ", ".join(f"{dimension} {size}" for dimension, size in array.sizes.items())
        words = [f"({sizes})" if sizes else f"= {array.values[()]}", array.attrs.get("long_name", "")]
        words.append(f"[{array.attrs['units']}]" if "units" in array.attrs else "")
        role = "coordinate" if name in dataset.coords else "variable"
        lines.append(f"  {role} {name} " + " ".join(word for word in words if word))
    rest = {name: value for name, value in attributes.items() if name not in _OWN}
    if rest:
        lines.append("notes:")
        lines += [f"  {name}: {value}" for name, value in rest.items()]
    return "\n".join(lines)


def read(path: str | os.PathLike) -> "xarray.Dataset":
    """The Dataset in a netCDF file, in memory, with one sentence for every file that is not one."""
    import xarray

    if not _path(path).is_file():
        raise ValueError(f"there is no file {path}: check its path")
    try:
        with xarray.open_dataset(path, engine="h5netcdf") as dataset:
            return dataset.load()
    except (OSError, ValueError, KeyError) as problem:
        reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise ValueError(f"{path} is not a whole netCDF file: {reason}; check its path") from None


def _path(path: Any) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a file name, got {type(path).__name__}: pass 'result.nc'")
    return Path(path)


def _labelled(result: Any) -> tuple["xarray.Dataset", str, dict[str, Any]]:
    """A result as a Dataset, what it was, and what does not fit into labelled arrays."""
    import xarray

    if isinstance(result, xarray.Dataset):
        return result, "Dataset", {}
    if isinstance(result, xarray.DataArray):
        return result.to_dataset(name=result.name or "values"), "DataArray", {}
    if hasattr(result, "to_xarray"):
        return _labelled(result.to_xarray())
    if hasattr(result, "value") and hasattr(result, "error") and hasattr(result, "status"):
        value = np.asarray(result.value)
        dimensions = tuple(f"axis_{axis}" for axis in range(value.ndim))
        parts = {"value": value, "error": np.asarray(result.error), "status": np.asarray(result.status)}
        whole = {name: (dimensions, np.broadcast_to(part, value.shape)) for name, part in parts.items()}
        return xarray.Dataset(whole), "Estimate", dict(result.details)
    raise TypeError(
        f"result must be an xarray Dataset or DataArray, an Estimate, or have a method to_xarray(), "
        f"got {type(result).__name__}; put plain arrays into an xarray.Dataset with named dimensions"
    )


def _to_json(value: Any) -> str:
    return json.dumps(value, default=lambda item: item.tolist() if hasattr(item, "tolist") else str(item))


def _short(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, str) else value
    return text if len(text) <= 200 else f"{text[:197]}..."
