"""What `localize` finds, and its verdict in words."""

from typing import Any

import numpy as np

from thalweg._edge import check_choice
from thalweg._results import Estimate, Status
from thalweg.knowledge._levels import LEVELS

_PLAIN = {"tested": "level", "score": "name"}
LEARNED = 0.75  # the accuracy from which a network counts as trained


class Localization:
    """What `localize` finds: labelled fields (xarray), each led by `seed` where it is one number a network.

    - `accuracy`, `loss`: on the data of the forks. - `trained`: accuracy >= 0.75, and finite.
    - `undefined`: units whose share is 0/0.
    - `r[level]`: correlation of tally share and fork share. Levels: `weights` and `biases` (all of them), `live` and
      `constant` (weights from inputs that vary in the data, or not), `unit` and `pixel` (means over live weights),
      `interaction` (what is left).
    - `variance[side, part]`: what pixels, units and interaction explain of tally and fork share.
    - `p[level]`, `null_sd[level]`: the datum permutation test of each network, at the levels biases, unit and live (a
      random sample of live weights where weights times data exceed 2e7); `p_joint[level]`: of their mean r.
    - `control[name, level]`: the same r with another share in the tally's place: wrong groups; `other_network`, the
      tally against the fork of the next seed; `snapshot`, the gradient at the end of phase 1; `data_only`, the mean
      pixel; `outgoing` weights; `whole_phase`, the tally without a window; `undefined_as_zero`, with 0/0 set to 0 (a
      trap, shown). `control.sel(name="snapshot")` takes one and `control["name"]` lists them: `control.name` is
      xarray's word for what the field itself is called.
    - `partial[given, level]`: r given the `snapshot`, or the `data`.
    - `ablation[name]`: r over units of tally, and of snapshot, with the share of group A in how far ablation moves the
      losses of data; `partial` is that of the tally given the snapshot.
    - `heatmap[pixel]`: r over each input's weights.

    `estimate(level)`: mean over trained networks with its error. `verdict`: in words. `to_xarray()`: all fields.
    """

    def __init__(self, fields: Any):
        self._fields = fields

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._fields.data_vars:
            raise AttributeError(f"Localization has no {name!r}; it has: {', '.join(map(str, self._fields.data_vars))}")
        return self[name]

    def __getitem__(self, name: str) -> Any:
        field = self._fields[name]
        # One Dataset holds a dimension once; by itself a field has the plain names.
        return field.rename({own: plain for own, plain in _PLAIN.items() if own in field.dims})

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *map(str, self._fields.data_vars)]

    def __repr__(self) -> str:
        return f"{self.verdict}\n{self._fields!r}"

    def to_xarray(self) -> Any:
        """All fields, as an xarray Dataset."""
        return self._fields

    def estimate(self, level: str = "unit", what: str = "r", control: str | None = None) -> Estimate:
        """The mean over the networks that learned, with its standard error over them.

        **Arguments**: `level`, as in `r`; `what`, `"r"` or `"R2"` (r squared, network by network); `control`, the name
        of a control to take in place of the tally.

        **Returns** an `Estimate`; its status is `FEW_LEARNED` where some networks did not learn ("3 of 8 runs did not
        learn"), and `UNDEFINED` where r is defined in fewer than two of those that did.
        """
        check_choice(level, "level", LEVELS)
        check_choice(what, "what", ("r", "R2"))
        values = self._fields["r"]
        if control is not None:
            check_choice(control, "control", tuple(map(str, self._fields["name"].values)))
            values = self._fields["control"].sel(name=control)
        return self.mean(values.sel(level=level).values ** (1 if what == "r" else 2))

    def mean(self, values: Any) -> Estimate:
        """The mean of one number a network over those that learned, as `estimate` gives it."""
        trained = self._fields["trained"].values.astype(bool)
        runs, failed = len(trained), int(np.sum(~trained))
        good = np.asarray(values, float)[trained]
        good = good[np.isfinite(good)]
        details = {"runs": runs, "failed": failed, "defined": len(good)}
        if len(good) < 2:
            why = f"{len(good)} of the {runs - failed} runs that learned have a value, and an error needs two"
            value = float(good[0]) if len(good) else float("nan")
            return Estimate(value, float("nan"), Status.UNDEFINED, details | {"why": why})
        status = Status.FEW_LEARNED if failed else Status.OK
        return Estimate(float(good.mean()), float(good.std(ddof=1) / np.sqrt(len(good))), status, details)

    @property
    def verdict(self) -> str:
        """What was found, in words."""
        return verdict(self)


def verdict(found: Localization) -> str:
    """One sentence each on learning, chance, the gradient, and what lies below units."""
    fields = found.to_xarray()
    runs, learned = fields.sizes["seed"], int(fields["trained"].sum())
    if not learned:
        return f"None of {runs} runs learned (accuracy below {LEARNED}): nothing can be said."
    unit, weights, below = found.estimate("unit"), found.estimate("weights"), found.estimate("interaction", "R2")
    said = []
    if learned < runs:
        said.append(f"{runs - learned} of {runs} runs did not learn and are left out.")
    p = float(fields["p_joint"].sel(tested="unit"))
    chance = "chance was not tested" if np.isnan(p) else f"joint p {p:.3g} over {learned} run{'s' * (learned > 1)}"
    if not np.isnan(p) and p <= 0.05 and unit.value > 0:
        said.append(f"Tally and fork agree about units beyond chance: r {_plain(unit)}, {chance}.")
    else:
        said.append(f"No agreement of tally and fork about units beyond chance is shown: r {_plain(unit)}, {chance}.")
    said.append(f"Over all weights r is {_plain(weights)}; below units and pixels R2 is {_plain(below)}.")
    snapshot = found.estimate("unit", control="snapshot")
    partial = found.mean(fields["partial"].sel(given="snapshot", level="unit").values)
    if np.isfinite(snapshot.value) and np.isfinite(partial.value):
        better = np.isfinite(partial.error) and partial.value > 3 * partial.error
        adds = "adds to" if better else "is not shown to add to"
        said.append(
            f"The gradient at the end of phase 1 alone gives {_plain(snapshot)}; the history {adds} it "
            f"(partial r {_plain(partial)})."
        )
    dead = float(fields["undefined"].where(fields["trained"]).mean())
    if dead:
        said.append(f"{dead:.1f} units a run have no share (0/0) and are left out.")
    return " ".join(said)


def _plain(estimate: Estimate) -> str:
    return str(Estimate(estimate.value, estimate.error)) if np.isfinite(estimate.error) else f"{estimate.value:.3g}"
