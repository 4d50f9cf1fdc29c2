"""What `thalweg energy ground-state` does: a run with a live line, then a table against what is known."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import thalweg
from thalweg._results import Estimate
from thalweg.energy.ground_states._ground_state import GroundState, ground_state
from thalweg.energy.ground_states._known import known_energies
from thalweg.energy.ground_states._noise_free import ClosedForm
from thalweg.energy.ground_states._trap import HarmonicTrap

BELOW = 4  # errors under an exact energy from which something is wrong


class Row(NamedTuple):
    """One line of the table."""

    quantity: str
    value: float
    error: float
    text: str
    method: str
    source: str
    note: str = ""


def ground_state_report(
    particles: str = "2",
    *,
    dimension: int = 2,
    omega: Sequence[float] = (1.0,),
    interaction: bool = True,
    statistics: str = "fermions",
    hidden: int = 2,
    jastrow: bool | None = None,
    sigma: str = "trained",
    tol: float | None = None,
    seed: int = 0,
    table: str = "text",
    out: Path | None = None,
    progress: bool = False,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> str:
    """The ground state of trapped particles, told as the command tells it.

    **Arguments** (the others as `HarmonicTrap` and `ground_state`)

    - `particles`: `"6"`, or `"2,1"` for two electrons with spin up and one with spin down.
    - `omega`: one frequency, or one a direction. - `jastrow`: `None` for "auto".
    - `table`: `"text"`, `"csv"` or `"latex"`. - `out`: a folder for the result, the tables and the figures.
    - `progress`: whether a line on stderr shows how the run is doing. - `checkpoint`, `resume`: the folder that the run
      leaves its checkpoints in, and whether it goes on from there.

    **Raises** `ValueError` for what cannot be, in one sentence.

    >>> from thalweg.energy.ground_states._command import ground_state_report
    >>> print(ground_state_report("2", dimension=3, omega=[0.5], interaction=False, hidden=1))
    2 fermions in 3-D, omega = 0.5, without interaction
    E = 1.5...
    """
    trap = HarmonicTrap(
        _particles(particles),
        dimension,
        omega[0] if len(omega) == 1 else list(omega),
        interaction,
        statistics,
    )
    if resume and checkpoint is None:
        raise ValueError("--resume needs the folder that an earlier run left its checkpoints in: pass --checkpoint too")
    options = thalweg.Options(progress=progress, checkpoint=checkpoint)
    correlated = "auto" if jastrow is None else jastrow
    width = _width(sigma)
    try:
        found = ground_state(trap, hidden, correlated, width, tol, seed, options=options, resume=resume)
    except ValueError as problem:
        raise ValueError(str(problem).replace("pass resume=True", "pass --resume")) from None
    rows = table_of(found)
    written = [] if out is None else _write(found, rows, Path(out), seed)
    if table != "text":
        return {"csv": as_csv, "latex": as_latex}[table](rows).rstrip("\n")
    first = f"E = {found.energy} without sampling" if isinstance(found.measurement, ClosedForm) else str(found)
    return "\n".join([_heading(trap), first, *_warnings(found), "", as_text(rows), *written])


def table_of(found: GroundState) -> list[Row]:
    """The energy with its parts, and what is known of the same trap."""
    method, source = _method(found), f"thalweg {thalweg.__version__}"
    parts = {
        "energy": found.energy,
        "kinetic energy": found.kinetic,
        "trap energy": found.trap_energy,
        "interaction energy": found.interaction_energy,
        "virial ratio": found.virial_ratio,
    }
    rows = [
        Row(name, float(e.value), float(e.error), _printed(e), method, source, "" if e.ok else e.message)
        for name, e in parts.items()
    ]
    for known in known_energies(found.trap):
        rows.append(Row("known energy", known.value, known.error, str(known), known.method, known.source, known.note))
    return rows


def as_text(rows: Sequence[Row]) -> str:
    """The table with its columns aligned, numbers as `20.178(2)`."""
    titles = ("", "value", "method", "source")
    lines = [titles, *((row.quantity, row.text, row.method, row.source) for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(4)]
    notes = ["", *(row.note for row in rows)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(line, widths, strict=True)), note]).rstrip()
        for line, note in zip(lines, notes, strict=True)
    )


def as_csv(rows: Sequence[Row]) -> str:
    """The table with full numbers; an error that was not published is empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("quantity", "value", "error", "printed", "method", "source", "note"))
    for row in rows:
        writer.writerow([*row[:2], "" if np.isnan(row.error) else row.error, *row[3:]])
    return stream.getvalue()


def as_latex(rows: Sequence[Row]) -> str:
    """The table as a LaTeX tabular."""
    lines = [r"\begin{tabular}{llll}", r" & value (hartree) & method & source \\", r"\hline"]
    lines += [" & ".join(map(_escaped, (r.quantity, r.text, r.method, r.source))) + r" \\" for r in rows]
    return "\n".join([*lines, r"\end{tabular}", ""])


def _escaped(text: str) -> str:
    return "".join(f"\\{c}" if c in "&%#_$" else c for c in text)


def _printed(estimate: Estimate) -> str:
    """`20.1773(15)`; at most eight decimals where the error is smaller still."""
    value, error = float(estimate.value), float(estimate.error)
    return f"{value:.8f}" if error < 1e-9 else estimate.short()


def _method(found: GroundState) -> str:
    return "closed form" if isinstance(found.measurement, ClosedForm) else "VMC"


def _heading(trap: HarmonicTrap) -> str:
    up, down = trap.spins
    spins = f" ({up} up, {down} down)" if trap.statistics == "fermions" and up != down else ""
    omega = (
        ", ".join(f"{w:g}" for w in np.unique(np.asarray(trap.frequencies)))
        if np.ndim(trap.omega) == 0
        else (", ".join(f"{w:g}" for w in np.asarray(trap.frequencies)))
    )
    pairs = "1/r" if trap.interaction else "without interaction"
    kind = trap.statistics if trap.particles > 1 else trap.statistics[:-1]
    return f"{trap.particles} {kind}{spins} in {trap.dimension}-D, omega = {omega}, {pairs}"


def _warnings(found: GroundState) -> list[str]:
    """What a reader must know before using the number."""
    lines = [] if found.ok else [f"not to be trusted: {found.message}"]
    if isinstance(found.measurement, ClosedForm) and found.measurement.advice:
        lines.append(f"note: {found.measurement.advice}")
    exact = [row for row in known_energies(found.trap) if row.method == "exact"]
    if exact and float(found.energy.error) > 0:
        below = (exact[0].value - float(found.energy.value)) / float(found.energy.error)
        if below > BELOW:
            lines.append(f"below the exact energy by {below:.1f} of its errors: the error bar is wrong, or the program")
    return lines


def _write(found: GroundState, rows: Sequence[Row], out: Path, seed: int) -> list[str]:
    """The result, both tables and the figures."""
    data = found.to_xarray()
    thalweg.save(data, out / "ground_state.nc", seed=seed)
    (out / "table.csv").write_text(as_csv(rows), encoding="utf-8")
    (out / "table.tex").write_text(as_latex(rows), encoding="utf-8")
    figures = draw(data, out)
    names = ["ground_state.nc", "table.csv", "table.tex", *figures]
    return ["", f"written to {out}: {', '.join(names)}"]


def draw(data: Any, out: Path) -> list[str]:
    """The figures that a result has data for, as PNG files."""
    plot = thalweg.plot
    wanted = {
        "energy": ("energy_by_step", plot.energy_history),
        "density": ("density", plot.radial_density),
        "pairs": ("pair_density", plot.pair_correlation),
        "blocking": ("blocking_error", plot.blocking_curve),
    }
    drawn = []
    for name, (needed, function) in wanted.items():
        if needed in data:
            plot.save_figure(function(data), out / f"{name}.png")
            drawn.append(f"{name}.png")
    return drawn


def _particles(text: str) -> Any:
    try:
        numbers = [int(part) for part in str(text).split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise ValueError(f'particles must be a whole number, or "up,down" such as 2,1, got {text!r}')
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


def _width(text: str) -> Any:
    if text == "trained":
        return text
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"sigma must be trained or a width > 0, got {text!r}") from None
