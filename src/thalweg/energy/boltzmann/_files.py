"""Machines to files and back, and machines that other packages saved."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

import thalweg

_FIELDS = ("weights", "visible_bias", "hidden_bias", "log_variance")
_FOREIGN = (  # what others call weights, visible and hidden biases; weights of scikit-learn lead with the hidden units
    ("weights", "visible_bias", "hidden_bias"),
    ("components_", "intercept_visible_", "intercept_hidden_"),
    ("weight_matrix", "vbias", "hbias"),
    ("W", "vbias", "hbias"),
    ("W", "a", "b"),
)
_RBMS = {"BBRBM": "RBM", "PBRBM": "CategoricalRBM"}


def save(machine: Any, path: Any) -> Path:
    """Write a machine to an .npz file; the file appears whole or not at all."""
    path = Path(path)
    path = path.with_name(f"{path.name}.npz") if path.suffix != ".npz" else path
    arrays: dict[str, Any] = {name: np.asarray(getattr(machine, name)) for name in _FIELDS if hasattr(machine, name)}
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(draft, "wb") as file:
            np.savez(
                file, kind=type(machine).__name__, units=machine.units, thalweg_version=thalweg.__version__, **arrays
            )
        draft.replace(path)
    except OSError as problem:
        raise ValueError(f"cannot write {path}: {problem.strerror or problem}") from None
    finally:
        draft.unlink(missing_ok=True)
    return path


def load(kind: type, path: Any) -> Any:
    """Read a machine of this kind that `save` wrote."""
    found, fields, units = _read(path)
    if found != kind.__name__:
        raise ValueError(f"{path} holds a {found}, not a {kind.__name__}: read it with tw.energy.{found}.load")
    return kind(**fields, units=units)


def load_any(path: Any) -> Any:
    """Read a machine of any kind: one that `save` wrote, the last update of a file of the package rbms, or an .npz file
    of weights and biases under the names of scikit-learn or other usual ones."""
    from thalweg import energy

    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}")
    with open(path, "rb") as file:
        head = file.read(8)
    if head == b"\x89HDF\r\n\x1a\n":
        with _open_hdf5(path) as file:
            name = _RBMS.get(_model_type(path, file))
        if name is None:
            raise ValueError(f"{path} holds a machine of a kind that is not known here: wanted {' or '.join(_RBMS)}")
        return getattr(energy, name).from_rbms(path)
    if head[:1] == b"\x80":
        raise ValueError(
            f"{path} is a pickle, which can run any code when it is read: save arrays in its place, such as "
            "np.savez(file, components_=rbm.components_, intercept_visible_=..., intercept_hidden_=...)"
        )
    foreign = _foreign(path)
    if foreign is not None:
        return energy.RBM.from_arrays(*foreign)
    found, fields, units = _read(path)
    return getattr(energy, found)(**fields, units=units)


def _foreign(path: Any) -> tuple[np.ndarray, ...] | None:
    """(weights, visible_bias, hidden_bias) of an .npz file that does not say its kind, if it has their names."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            for names in () if "kind" in arrays.files else _FOREIGN:
                if set(names) <= set(arrays.files):
                    weights, visible, hidden = (arrays[name] for name in names)
                    return (weights.T if names[0] == "components_" else weights), visible, hidden
    except Exception:  # not an archive at all, or a broken one: `_read` says so
        return None
    return None


def read_rbms(path: Any, update: int | None, model_type: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(weights, visible_bias, hidden_bias) of a saved update of the package rbms.

    Its HDF5 file holds a group `update_N` for each saved update, with the arrays in `update_N/params`, and the
    kind of machine in `model_type`.
    """
    with _open_hdf5(path) as file:
        updates = sorted(int(found[1]) for name in file if (found := re.fullmatch(r"update_(\d+)", name)))
        if not updates:
            raise ValueError(f"{path} is not a file of the package rbms: it holds no group update_N")
        kind = _model_type(path, file)
        if kind != model_type:
            reader = f": read it with tw.energy.{_RBMS[kind]}.from_rbms" if kind in _RBMS else ""
            raise ValueError(f"{path} holds a machine of type {kind}, wanted {model_type}{reader}")
        update = updates[-1] if update is None else update
        if update not in updates:
            listed = ", ".join(map(str, updates)) if len(updates) <= 12 else f"{updates[0]} to {updates[-1]}"
            raise ValueError(f"update must be one that {path} holds ({listed}), got {update}")
        group = file[f"update_{update}"]
        group = group.get("params", group)  # older files keep the arrays beside each other
        missing = [name for name in ("weight_matrix", "vbias", "hbias") if name not in group]
        if missing:
            raise ValueError(f"update {update} of {path} lacks {', '.join(missing)}: the file is not whole")
        weights, visible_bias, hidden_bias = (
            np.asarray(group[name][()], dtype=float) for name in ("weight_matrix", "vbias", "hbias")
        )
    return weights, visible_bias, hidden_bias


def _model_type(path: Any, file: Any) -> str:
    if "model_type" not in file:
        return "BBRBM" if any(name.startswith("update_") for name in file) else "unknown"
    kind = file["model_type"][()]
    return kind.decode() if isinstance(kind, bytes) else str(kind)


def _open_hdf5(path: Any) -> Any:
    import h5py

    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}")
    try:
        return h5py.File(path, "r")
    except OSError:
        raise ValueError(f"{path} is not a whole HDF5 file, as the package rbms writes") from None


def _read(path: Any) -> tuple[str, dict[str, np.ndarray], Any]:
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            held = {name: arrays[name] for name in arrays.files}
        kind = str(held["kind"])
        fields = {name: held[name] for name in _FIELDS if name in held}
        units = tuple(int(value) for value in held["units"])
    except Exception:  # whatever a broken archive breaks in, it is one thing to the reader
        raise ValueError(
            f"{path} is not a machine that thalweg saved (an .npz file with kind and weights), nor "
            "has the weights and biases of another library under their usual names"
        ) from None
    if kind not in ("RBM", "GaussianRBM", "CategoricalRBM"):
        raise ValueError(f"{path} holds a {kind[:40]!r}, wanted an RBM, a GaussianRBM or a CategoricalRBM")
    return kind, fields, units
