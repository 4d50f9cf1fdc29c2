"""What `thalweg energy train` and `thalweg energy score` do and print."""

import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from thalweg._edge import is_whole
from thalweg._results import Status
from thalweg.energy.boltzmann import _annealing
from thalweg.energy.boltzmann._files import load_any
from thalweg.energy.boltzmann._fit import Fit, fit
from thalweg.energy.boltzmann._gaussian import GaussianRBM
from thalweg.energy.boltzmann._likelihood import log_likelihood, pseudo_log_likelihood
from thalweg.energy.boltzmann._machine import Machine
from thalweg.energy.boltzmann._rbm import RBM
from thalweg.energy.boltzmann._rows import read_rows
from thalweg.energy.boltzmann._training import EXACT_UNITS

SHOWN = 64  # samples and filters in a picture
SWEEPS = 1000  # Gibbs sweeps, from data, behind a sample that is shown


class Trained(NamedTuple):
    """What was learned: in words, the machine, and labelled pictures of its samples and filters."""

    text: str
    model: Machine
    pictures: dict[str, Any]


def train_report(
    data: str,
    *,
    hidden: int = 64,
    kind: str = "auto",
    epochs: int | None = None,
    learning_rate: float | None = None,
    validation: float = 0.2,
    threshold: float | None = None,
    dataset: str | None = None,
    seed: int = 0,
    out: Path = Path("boltzmann"),
    progress: bool | None = None,
) -> Trained:
    """Train a machine on a user's file; write it to `out/model.npz`; tell its likelihood.

    The arguments are those of the command. **Raises** `ValueError` in one sentence for what cannot be used.
    """
    if not (math.isfinite(validation) and 0 < validation < 1):
        raise ValueError(f"validation must be the share that is held out, a number between 0 and 1, got {validation}")
    for name, value, least in (("hidden", hidden, 1), ("seed", seed, 0)):
        if not is_whole(value) or value < least:
            raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")
    rows = read_rows(data, dataset, kind, threshold)
    held_out_count = round(validation * len(rows.values))
    if held_out_count < 2 or len(rows.values) - held_out_count < 2:
        raise ValueError(
            f"{data} has {len(rows.values)} rows: too few to hold out a share of {validation:g} of them; bring more"
        )
    order = np.random.default_rng(seed).permutation(len(rows.values))
    held_out, train = rows.values[order[:held_out_count]], rows.values[order[held_out_count:]]
    flat = np.flatnonzero(train.std(axis=0) == 0)
    if flat.size and not rows.binary:
        raise ValueError(f"column {flat[0]} of {data} is constant, so that it has no variance to learn: drop it")
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"out must be a folder, but {out} is a file")
    shown = sys.stderr.isatty() if progress is None else progress
    settings = {} if learning_rate is None else {"optimizer": learning_rate}
    if epochs is not None:
        settings["epochs"] = epochs
    found = _trained(train, held_out, rows.binary, hidden, seed, shown, settings)
    saved = found.model.save(out / "model.npz")
    lines = [
        f"{_told(found.model)}, trained on {len(train)} rows of {data}; {held_out_count} are held out",
        *([f"  ({rows.note})"] if rows.note else []),
        *([f"  ({flat.size} columns are constant in the training rows)"] if flat.size else []),
        f"  {found.steps} steps; the best machine on the held-out rows was that of step {_best_step(found)}",
        *(["  interrupted: this is what was learned until then"] if found.status == Status.INTERRUPTED else []),
        *_likelihoods(found.model, held_out, train, "the training rows", "held-out rows"),
        f"the machine is {saved}",
    ]
    return Trained("\n".join(lines), found.model, _pictures(found.model, train, rows.picture, seed))


def score_report(
    model: str,
    data: str,
    *,
    train: str | None = None,
    threshold: float | None = None,
    dataset: str | None = None,
    chains: int = 200,
    steps: int = 1000,
    seed: int = 0,
) -> str:
    """How good a machine is on data: its likelihood with an error, independent units, pseudo-likelihood beside it.

    The arguments are those of the command. **Raises** `ValueError` in one sentence for what cannot be used.
    """
    machine = load_any(model)
    kind = "binary" if isinstance(machine, RBM) else "real"
    rows = read_rows(data, dataset, kind, threshold)
    values = _in_units(machine, rows.values)
    reference = values if train is None else _in_units(machine, read_rows(train, dataset, kind, threshold).values)
    of = "these rows themselves" if train is None else train
    if reference.shape[1] != values.shape[1]:
        raise ValueError(f"{train} has {reference.shape[1]} columns and {data} has {values.shape[1]}: they must agree")
    settings = {"chains": chains, "steps": steps, "key": seed}
    lines = [
        f"{_told(machine)} of {model}, on {len(values)} rows of {data}",
        *([f"  ({rows.note})"] if rows.note else []),
        *_likelihoods(machine, values, reference, of, "rows", **settings),
    ]
    return "\n".join(lines)


def _trained(
    train: np.ndarray, held_out: np.ndarray, binary: bool, hidden: int, seed: int, progress: bool, settings: dict
) -> Fit:
    if binary:
        start: Machine = RBM.start(train, hidden, seed)
        return fit(start, train, validation=held_out, key=seed, progress=progress, **settings)
    # Real columns are learned on their standard scale; the machine is brought back to their own units.
    shift, scale = train.mean(axis=0), train.std(axis=0)
    rows, kept = (train - shift) / scale, (held_out - shift) / scale
    method = "exact" if hidden <= EXACT_UNITS else "pcd"
    real = GaussianRBM.start(rows, hidden, seed)
    found = fit(real, rows, method, validation=kept, key=seed, progress=progress, **settings)
    history = {**found.history, "log_likelihood": found.history["log_likelihood"] - np.sum(np.log(scale))}
    learned: Any = found.model
    return Fit(learned.rescaled(shift, scale), None, history, None, found.steps, found.status)


def _best_step(found: Fit) -> int:
    return int(found.history["step"][np.argmax(found.history["log_likelihood"])])


def _told(machine: Machine) -> str:
    return f"{type(machine).__name__} with {machine.visible} visible and {machine.hidden} hidden units"


def _in_units(machine: Machine, values: np.ndarray) -> np.ndarray:
    """Zeros and ones as the two values of the machine's units."""
    if isinstance(machine, RBM):
        low, high = machine.units
        values = low + (high - low) * values
    return machine.check_data(values)


def _likelihoods(
    machine: Machine, values: np.ndarray, reference: np.ndarray, of: str, what: str, **settings: Any
) -> list[str]:
    found = log_likelihood(machine, values, **settings)
    method = found.details["method"]
    how = "exact" if method == "exact" else f"annealed, {found.details['chains']} chains"
    error = "" if method == "exact" else f" ± {float(found.error):.2g}"
    spread = found.details["spread"]
    baseline = _independent(machine, values, reference)
    lines = [
        f"  log-likelihood      {float(found):10.4f}{error} nats a row ({how}; the mean over {what} has a standard "
        f"error of {spread:.2g})",
        f"  independent units   {baseline:10.4f} nats a row (with the means of {of})",
    ]
    if isinstance(machine, RBM):
        lines.append(
            f"  pseudo-likelihood   {pseudo_log_likelihood(machine, values):10.4f} nats a row, which is no likelihood "
            "and may rise as that falls"
        )
    if not found.ok:
        return [*lines, f"  do not trust the likelihood: {found.message}"]
    gain = float(found) - baseline
    return [
        *lines,
        f"  the machine is {'better' if gain > 0 else 'worse'} than independent units by {abs(gain):.4g} nats",
    ]


def _independent(machine: Machine, values: np.ndarray, reference: np.ndarray) -> float:
    """The likelihood of `values` under independent units that have the means (and variances) of `reference`."""
    if isinstance(machine, GaussianRBM):
        mean, variance = reference.mean(axis=0), np.maximum(reference.var(axis=0), 1e-300)
        logs = -((values - mean) ** 2) / (2 * variance) - np.log(2 * np.pi * variance) / 2
        return float(np.mean(np.sum(logs, axis=1)))
    alone = machine.independent(reference)
    return float(np.mean(np.asarray(alone.log_unnormalized(values))) - float(alone.log_partition_independent()))


def _pictures(machine: Machine, train: np.ndarray, shape: tuple[int, int] | None, seed: int) -> dict[str, Any]:
    """Samples and filters as labelled pictures, for `tw.plot.pictures`."""
    import jax
    import xarray

    starts = train[np.random.default_rng(seed).integers(0, len(train), SHOWN)]
    samples = _annealing.sweeps(machine, jax.numpy.asarray(starts), jax.random.key(seed), SWEEPS)
    weights = np.asarray(machine.weights).T
    strongest = np.argsort(-np.linalg.norm(weights, axis=1))[:SHOWN]
    made = {"samples": (samples, f"samples, {SWEEPS} sweeps from data"), "filters": (weights[strongest], "weights")}
    return {
        name: xarray.DataArray(
            np.asarray(values).reshape(-1, *(shape or (1, machine.visible))),
            dims=("picture", "row", "column"),
            name=name,
            attrs={"long_name": title},
        )
        for name, (values, title) in made.items()
    }
