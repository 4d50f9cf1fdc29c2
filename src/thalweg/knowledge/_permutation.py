"""Chance, honestly: labels are shuffled over data, because data are what was drawn."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float

from thalweg._edge import check_choice, shown
from thalweg._results import Status
from thalweg.stats._series import as_count, as_numbers, generator

CHUNK = 1 << 23  # numbers held at once
SLACK = 1e-10  # equal sums added up in another order differ by rounding; they count as equal
FLAT = 1e-14  # the variance over units below which shares count as one number


@dataclass(frozen=True)
class DatumPermutation:
    """What `datum_permutation_test` finds.

    - `statistic`: of the labels as they are. - `p`: how often shuffled labels reach it, two-sided; NaN where the status
      says that there is none. - `error`: the sampling error of p (0 where every shuffle was tried).
    - `null_mean`, `null_sd`: of the statistic under shuffling; exact for the covariance.
    - `permutations`: how many shuffles were tried. - `undefined`: units left out, since no datum moved them or their
      target is NaN (a number a network). - `status`, `message`: whether there is a p, and if not, why.
    """

    statistic: float
    p: float
    error: float
    null_mean: float
    null_sd: float
    permutations: int
    undefined: Any
    status: Status
    why: str = ""

    @property
    def ok(self) -> bool:
        """Whether there is a p."""
        return self.status == Status.OK

    @property
    def message(self) -> str:
        """The status in words."""
        return self.status.sentence(why=self.why)


def datum_permutation_test(
    C: Any,
    labels: Any,
    target: Any,
    statistic: str = "correlation",
    permutations: int = 999,
    *,
    key: Any = 0,
    data: Any = None,
) -> DatumPermutation:
    """Whether the shares of two groups in the updates of K units go with a target beyond chance.

    ```
    c_nk = C_nk / sum_n C_nk,   S_k = sum_n g_n c_nk   (the share of the data labelled 1)
    covariance   s = sum_k (F_k - mean F) S_k          correlation   s = Pearson's r of S and F over the units
    p = (1 + #{|s'| >= |s|}) / (1 + permutations),     s' with the labels shuffled over the data
    ```

    Units of one network share their data, so their shares go up and down together: r over 100 units has a null
    spread of about .4, not .1, and a t-test over units or weights finds significance in noise. Of the covariance
    the null variance is exact: `n_A n_B / (N (N - 1)) sum_n (w_n - mean w)^2` with `w_n = sum_k c_nk (F_k - mean F)`.

    **Arguments**

    - `C`: (n, K), >= 0: how far each datum moved each unit (or weight), summed over its visits.
    - `labels`: (n,) of 0 and 1. - `target`: (K,), such as the fork share.
    - `statistic`: `"correlation"` or `"covariance"`. - `permutations`: where no more ways than these exist to
      share out the labels, each is tried once and p is exact (the count over all, the labels as they are included).
    - `key`: an integer, a JAX key or a NumPy Generator.
    - Several networks: lists of `C`, `labels` and `target`, and `data`: for each, the names (whole numbers) of the data
      that its rows stand for. One shuffle serves all networks and the statistic is their mean, because the p of
      networks with common data must not be combined. Without `data`, row i is the same datum in all.

    **Returns** a `DatumPermutation`. Where the statistic is not defined (one label only, fewer than 3 units that
    moved, a constant target or constant shares) the status is `UNDEFINED` and p is NaN: never a small p. A shuffle that
    leaves it undefined, as where all data of one network get the same label, counts as one that reaches it.

    **Raises** `ValueError` or `TypeError` for bad arguments.

    **When not to trust it.** It speaks of these networks and this target; more networks, not more units, are more
    evidence. In the joint test the number of ones in one network varies with the shuffle where it saw only some data.

    **Source.** Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9, 39 (2010), for the 1 + in p.

    >>> import numpy as np, thalweg as tw
    >>> C = np.array([[1, 2, 0], [3, 1, 1], [2, 2, 4], [4, 5, 1], [0, 1, 2]])
    >>> t = tw.knowledge.datum_permutation_test(C, [1, 1, 0, 0, 0], [0.2, 0.7, 0.4], key=0)
    >>> round(t.statistic, 6), t.p  # all 10 ways to share out two ones
    (-0.357623, 0.7)
    """
    check_choice(statistic, "statistic", ("correlation", "covariance"))
    permutations = as_count(permutations, "permutations", 1)
    networks, g = _networks(C, labels, target, data, permutations)
    return shuffle_labels(networks, g, statistic, permutations, generator(key))


def shuffle_labels(
    networks: list["Network"], g: np.ndarray, statistic: str, permutations: int, rng: np.random.Generator
) -> DatumPermutation:
    """The test on networks that are prepared, `g` being the labels of all data."""
    undefined: Any = [network.undefined for network in networks]
    undefined = undefined[0] if len(undefined) == 1 else undefined
    nan = float("nan")
    reason = _degenerate(networks, g)
    if reason:
        return DatumPermutation(nan, nan, nan, nan, nan, 0, undefined, Status.UNDEFINED, reason)

    def score(g: np.ndarray) -> np.ndarray:
        return np.mean([getattr(one, statistic)(g[:, one.rows]) for one in networks], axis=0)

    seen, ones = float(score(g[None].astype(float))[0]), int(g.sum())
    ways = math.comb(len(g), ones)
    exact = ways <= permutations
    null = _every_way(score, len(g), ones) if exact else _shuffled(score, g, permutations, rng)
    if statistic == "covariance":
        weight = _pooled(networks, len(g))
        mean = float(weight.sum() * ones / len(g))
        variance = ones * (len(g) - ones) / (len(g) * (len(g) - 1)) * np.sum((weight - weight.mean()) ** 2)
        spread = float(np.sqrt(variance))
    else:
        defined = null[np.isfinite(null)]
        mean, spread = (float(defined.mean()), float(defined.std())) if len(defined) else (nan, nan)
    if not np.isfinite(seen) or not spread > SLACK * max(abs(seen), abs(mean)):
        why = "shuffled labels leave the statistic undefined or unchanged"
        return DatumPermutation(seen, nan, nan, mean, spread, len(null), undefined, Status.UNDEFINED, why)
    # A shuffle that leaves it undefined (one network may get one label only) counts as one that reaches it.
    beyond = int(np.sum(~(np.abs(null) < abs(seen) * (1 - SLACK) - 1e-300)))
    p = beyond / ways if exact else (1 + beyond) / (1 + permutations)
    error = 0.0 if exact else float(np.sqrt(p * (1 - p) / permutations))
    return DatumPermutation(seen, p, error, mean, spread, len(null), undefined, Status.OK)


class Network:
    """One network made ready: its statistics are products of labellings with one matrix over its data.

    `|S - mean S|^2 = g^T (c c^T) g`: with many weights, a matrix over the data serves all shuffles.
    """

    def __init__(self, C: np.ndarray, target: np.ndarray, permutations: int, rows: np.ndarray | None = None):
        sums = C.sum(axis=0)
        kept = (sums > 0) & np.isfinite(target)
        n, self.units = len(C), int(kept.sum())
        self.rows = np.arange(n) if rows is None else rows
        self.undefined = int(np.sum(~kept))
        chosen = target[kept]
        self.constant = self.units > 0 and bool(np.ptp(chosen) <= 1e-13 * max(1e-300, np.abs(chosen).max()))
        if not self.units:
            return
        c = (C if kept.all() else C[:, kept]) / sums[kept]
        chosen = chosen - chosen.mean()
        self.w, self.norm = c @ chosen, float(np.linalg.norm(chosen))
        c -= c.mean(axis=1, keepdims=True)
        self.shared = n * self.units + permutations * n < permutations * self.units
        self.matrix = c @ c.T if self.shared else c

    def covariance(self, g: Float[np.ndarray, "p n"]) -> Float[np.ndarray, " p"]:
        return g @ self.w

    def squared(self, g: Float[np.ndarray, "p n"]) -> Float[np.ndarray, " p"]:
        """How far the shares spread over the units."""
        product = g @ self.matrix
        return np.einsum("pn,pn->p", product, g if self.shared else product)

    def correlation(self, g: Float[np.ndarray, "p n"]) -> Float[np.ndarray, " p"]:
        size = self.squared(g)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(size > FLAT * self.units, (g @ self.w) / (self.norm * np.sqrt(np.maximum(size, 0))), np.nan)


# --------------------------------------------------------------------------------------------------


def _networks(C: Any, labels: Any, target: Any, data: Any, permutations: int) -> tuple[list[Network], np.ndarray]:
    """Every network, and the labels of all data."""
    several = isinstance(C, list | tuple) and len(C) > 0 and all(np.ndim(one) == 2 for one in C)
    if several:
        count = len(C)
        for name, value in (("labels", labels), ("target", target)):
            if not isinstance(value, Sequence) or len(value) != count:
                raise ValueError(f"{name} must be a list of {count}, one a network, got {shown(value)}")
        if data is not None and (not isinstance(data, Sequence) or len(data) != count):
            raise ValueError(
                f"data must be a list of {count} arrays of whole numbers, one a network, got {shown(data)}"
            )
    else:
        if data is not None:
            raise ValueError("data names the rows of several networks: give C, labels and target as lists, or no data")
        C, labels, target = [C], [labels], [target]
    tables = [_as_table(one) for one in C]
    gs = [_as_labels(one, len(table)) for one, table in zip(labels, tables, strict=True)]
    targets = [_as_target(one, table.shape[1]) for one, table in zip(target, tables, strict=True)]
    names = _as_names(data, [len(table) for table in tables])
    everyone, where = np.unique(np.concatenate(names), return_inverse=True)
    g = np.full(len(everyone), -1)
    rows = np.split(where, np.cumsum([len(one) for one in names])[:-1])
    for at, own in zip(rows, gs, strict=True):
        if np.any((g[at] >= 0) & (g[at] != own)):
            raise ValueError("labels must agree about a datum in all networks, got one that is 0 here and 1 there")
        g[at] = own
    ready = [Network(table, one, permutations, at) for at, table, one in zip(rows, tables, targets, strict=True)]
    return ready, g


def _degenerate(networks: list[Network], g: np.ndarray) -> str:
    if not 0 < g.sum() < len(g):
        return f"all {len(g)} labels are {int(g[0])}"
    for network in networks:
        if network.units < 3:
            return f"only {network.units} units were moved and have a target, at least 3 are needed"
        if network.constant:
            return "the target is the same for every unit"
        if float(network.squared(g[None, network.rows].astype(float))[0]) <= FLAT * network.units:
            return "the share is the same for every unit"
    return ""


def _pooled(networks: list[Network], n: int) -> Float[np.ndarray, " n"]:
    """The weight that each datum has in the mean covariance over networks."""
    weight = np.zeros(n)
    for network in networks:
        np.add.at(weight, network.rows, network.w / len(networks))
    return weight


def _shuffled(score: Any, g: np.ndarray, permutations: int, rng: np.random.Generator) -> np.ndarray:
    rows = max(1, CHUNK // (8 * len(g)))
    found = []
    for done in range(0, permutations, rows):
        many = np.tile(g.astype(np.int8), (min(rows, permutations - done), 1))
        found.append(score(rng.permuted(many, axis=1).astype(float)))
    return np.concatenate(found)


def _every_way(score: Any, n: int, ones: int) -> np.ndarray:
    at = np.array(list(combinations(range(n), ones)))
    many = np.zeros((len(at), n))
    np.put_along_axis(many, at, 1.0, axis=1)
    return score(many)


def _as_table(C: Any) -> np.ndarray:
    table = as_numbers(C, "C")
    if table.ndim != 2 or 0 in table.shape:
        raise ValueError(f"C must have shape (data, units), at least one of each, got {table.shape}")
    if not np.isfinite(table).all() or table.min() < 0:
        raise ValueError("C must be finite and >= 0, as sums of sizes of updates are: pass absolute values")
    return table


def _as_labels(labels: Any, n: int) -> np.ndarray:
    g = as_numbers(labels, "labels")
    if g.shape != (n,):
        raise ValueError(f"labels must have shape ({n},), one a row of C, got {g.shape}")
    if not np.isin(g, (0, 1)).all():
        raise ValueError(f"labels must be 0 or 1, got {shown(np.unique(g)[:5].tolist())}: leave data of no group out")
    return g.astype(int)


def _as_target(target: Any, units: int) -> np.ndarray:
    values = as_numbers(target, "target")
    if values.shape != (units,):
        raise ValueError(f"target must have shape ({units},), one a column of C, got {values.shape}")
    if np.isinf(values).any():
        raise ValueError("target must not be infinite: where it is undefined, pass NaN")
    return values


def _as_names(data: Any, counts: list[int]) -> list[np.ndarray]:
    if data is None:
        if len(set(counts)) > 1:
            raise ValueError(f"networks with {counts} rows need data: for each, which datum every row is")
        return [np.arange(n) for n in counts]
    names = [np.asarray(one) for one in data]
    for one, n in zip(names, counts, strict=True):
        if one.shape != (n,) or one.dtype.kind not in "iu":
            raise ValueError(f"data must be whole numbers, one a row of C ({n}), got {shown(one)}")
        if len(np.unique(one)) < n:
            raise ValueError("data must name every row of a network once, got the same datum twice")
    return names
