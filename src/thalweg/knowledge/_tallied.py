"""What a tally found: arrays by group, with labels. It needs NumPy only, so that the door for PyTorch can use it."""

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray

RESOLUTIONS = ("parameter", "unit", "module")
KINDS = ("absolute", "signed")
TRUSTED = "the result can be trusted"


@dataclasses.dataclass(frozen=True)
class Tallied:
    """How far each group of data moved each parameter.

    - `absolute`: sums of `|change|`, `signed`: sums of changes; as the parameters, with a leading axis of G + 1: the
      groups, then "other" (data in no group, decay, momentum older than the tally). `None` if not tallied.
    - `counts`: visits of data, by group (G,); `steps`: steps tallied.
    - `conservation`: the largest `|sum of the parts - change| / sum of |parts|` of any parameter in any step, beyond
      the rounding of the parameter and of the gradient. It should be near the rounding error.
    - `cancellation`: the largest `sum of |parts| / |change|` of any step, both at their maximum over parameters. (Both
      over a few steps at once, and the first on a part of the inputs, for large dense layers.) Where it is large the
      parts are far larger than what they add up to.
    - `resolution`: `"parameter"`, `"unit"` or `"module"`; `units`: the axis of units in a weight (-1; 0 in PyTorch),
      one for all or by name.
    - `tolerance`: the `conservation` up to which the tally is trusted. - `note`: what else is to be said.

    In an ensemble every array leads with the members.
    """

    absolute: Any
    signed: Any
    counts: Any
    steps: Any
    conservation: Any
    cancellation: Any
    resolution: str = "parameter"
    units: Any = -1
    tolerance: float | None = None
    note: str = ""

    @property
    def groups(self) -> int:
        """G, the number of groups."""
        return int(np.shape(self.counts)[-1])

    def share(self, a: Any, b: Any) -> Any:
        """`a / (a + b)` of the absolute tallies, as the parameters: the first's part of what the two groups moved.

        `a`, `b`: groups (G is "other"), or tuples of groups. NaN where neither moved the parameter.

        >>> import numpy as np
        >>> moved = {"W": np.array([[3.0, 0.0], [1.0, 0.0], [0.0, 1.0]])}  # two groups and "other", two parameters
        >>> Tallied(moved, None, np.ones(2), 1, 0.0, 1.0).share(0, 1)["W"]
        array([0.75,  nan])
        """
        if self.absolute is None:
            raise ValueError('a share needs the absolute tally: make it with kinds=("absolute",) or both')
        rows_a, rows_b = self._rows(a, "a"), self._rows(b, "b")
        for name, rows, given in (("a", rows_a, a), ("b", rows_b, b)):
            if len(set(rows)) < len(rows):
                raise ValueError(f"{name} must name each group once, got {given!r}")
        if set(rows_a) & set(rows_b):
            raise ValueError(f"a and b must have no group in common, got {a!r} and {b!r}")
        at = (slice(None),) * (np.ndim(self.counts) - 1)

        def one(leaf: Any) -> Any:
            first, second = (sum(leaf[(*at, row)] for row in rows) for rows in (rows_a, rows_b))
            with np.errstate(invalid="ignore", divide="ignore"):
                return first / (first + second)

        return mapped(one, self.absolute)

    def per(self, resolution: str) -> "Tallied":
        """These tallies summed: `"unit"` over the inputs of each unit, `"module"` over each module's parameters.

        Parameters of one module are those whose names differ in the last part only; in a flat dict each is its own.

        >>> import numpy as np
        >>> moved = {"a.W": np.ones((3, 5, 2)), "a.b": np.ones((3, 2))}  # two groups and "other"; 5 inputs, 2 units
        >>> tallied = Tallied(moved, None, np.ones(2), 1, 0.0, 1.0)
        >>> tallied.per("unit").absolute["a.W"][0], tallied.per("module").absolute["a"]
        (array([5., 5.]), array([12., 12., 12.]))
        """
        if not isinstance(resolution, str) or resolution not in RESOLUTIONS:
            raise ValueError(f'resolution must be "parameter", "unit" or "module", got {resolution!r}')
        if RESOLUTIONS.index(resolution) < RESOLUTIONS.index(self.resolution):
            raise ValueError(
                f"resolution must be {self.resolution!r} or coarser, since that is what was tallied, got {resolution!r}"
            )
        if resolution == self.resolution:
            return self
        coarser = self._units_summed if resolution == "unit" else self._modules_summed
        coarse: dict[str, Any] = {kind: coarser(tree) for kind in KINDS if (tree := getattr(self, kind)) is not None}
        return dataclasses.replace(self, **coarse, resolution=resolution)

    def _units_summed(self, tree: Any) -> Any:
        lead = np.ndim(self.counts)
        if isinstance(self.units, dict):
            return {name: summed(leaf, "unit", lead, self.units[name]) for name, leaf in tree.items()}
        return mapped(lambda leaf: summed(leaf, "unit", lead, self.units), tree)

    def _modules_summed(self, tree: Any) -> dict[str, Any]:
        modules: dict[str, Any] = {}
        for name, leaf in named(tree).items():
            module = name.rpartition(".")[0] or name
            total = summed(leaf, "module", np.ndim(self.counts), 0)
            modules[module] = modules[module] + total if module in modules else total
        return modules

    @property
    def ok(self) -> bool:
        """Whether the tally can be trusted."""
        return self.message.startswith(TRUSTED)

    @property
    def message(self) -> str:
        """What is to be said about this tally, in words."""
        steps, counts = np.min(np.asarray(self.steps)), np.asarray(self.counts)
        digits = _precision(self.absolute if self.absolute is not None else self.signed)
        off, cancelling = float(np.max(np.asarray(self.conservation))), float(np.max(np.asarray(self.cancellation)))
        if steps == 0:
            return "undefined: no step was tallied (see window and every)"
        if not off <= (1e4 * digits if self.tolerance is None else self.tolerance):
            return (
                f"undefined: the groups' parts miss the change of the parameters by {off:.1e} of their size: the run "
                "is not one of the tally's process (another optimizer, a clamp, other data)"
            )
        never = np.argwhere(counts == 0)
        if len(never):
            group = int(never[0][-1])
            return f"undefined: group {group} was never drawn in the {steps} steps tallied, so that it has no share"
        if cancelling * digits > 1e-3:
            return (
                f"the answer is lost to rounding (condition {cancelling:.1e}): the groups' parts cancel almost wholly; "
                "train in double precision, or compare absolute tallies only"
            )
        return f"{TRUSTED} ({self.note})" if self.note else TRUSTED

    def to_xarray(self) -> "xarray.Dataset":
        """The tallies as an `xarray.Dataset`: `absolute.NAME` and `signed.NAME` by group, the numbers as attributes."""
        import xarray

        lead = ("member",) * (np.ndim(self.counts) - 1)
        variables: dict[str, Any] = {"counts": ((*lead, "data_group"), np.asarray(self.counts))}
        for kind in KINDS:
            for name, leaf in named(getattr(self, kind)).items():
                array = np.asarray(leaf)
                axes = [f"{name}.{axis}" for axis in range(array.ndim - len(lead) - 1)]
                variables[f"{kind}.{name}"] = ((*lead, "group", *axes), array)
        labels = [*map(str, range(self.groups)), "other"]
        numbers = {name: _plain(getattr(self, name)) for name in ("steps", "conservation", "cancellation")}
        return xarray.Dataset(
            variables,
            coords={"group": labels, "data_group": labels[:-1]},
            attrs={**numbers, "resolution": self.resolution, "status": self.message},
        )

    def _rows(self, rows: Any, name: str) -> tuple[int, ...]:
        chosen = rows if isinstance(rows, tuple | list) else (rows,)
        whole = all(isinstance(row, int | np.integer) and not isinstance(row, bool) for row in chosen)
        if not chosen or not whole or not all(0 <= row <= self.groups for row in chosen):
            raise ValueError(
                f"{name} must be a group from 0 to {self.groups - 1} ({self.groups} is other), or a tuple of them, "
                f"got {rows!r}"
            )
        return tuple(int(row) for row in chosen)


def summed(leaf: Any, resolution: str, lead: int, units: int) -> Any:
    """An array summed over the inputs of each unit, or wholly; the first `lead` axes stay."""
    inner = leaf.ndim - lead
    if resolution == "parameter" or inner == 0:
        return leaf
    keep = units % inner if resolution == "unit" else -1
    axes = tuple(lead + axis for axis in range(inner) if axis != keep)
    return leaf.sum(axes) if axes else leaf


def mapped(f: Callable[[Any], Any], tree: Any) -> Any:
    """`f` of every array of the parameters: a dict of them, or (with JAX) any pytree."""
    if isinstance(tree, dict) and not any(isinstance(leaf, dict | list | tuple) for leaf in tree.values()):
        return {name: f(leaf) for name, leaf in tree.items()}
    import jax

    return jax.tree.map(f, tree)


def named(tree: Any) -> dict[str, Any]:
    """The arrays of the parameters by name."""
    if tree is None:
        return {}
    if isinstance(tree, dict) and all(hasattr(leaf, "shape") for leaf in tree.values()):
        return dict(tree)
    import jax

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator=".") or "params": leaf for path, leaf in leaves}


def _precision(tree: Any) -> float:
    """The rounding error of the tallied numbers."""
    sizes = [leaf.dtype.itemsize for leaf in named(tree).values()]
    return math.ldexp(1.0, -52 if min(sizes, default=8) >= 8 else -23)


def _plain(value: Any) -> Any:
    array = np.asarray(value)
    return array.item() if array.ndim == 0 else array
