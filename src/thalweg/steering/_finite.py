"""Finite systems of several parts: how much more order a step makes of correlated parts than of independent ones."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from thalweg._edge import is_whole, shown
from thalweg.stats._series import generator
from thalweg.steering._entropy import NATS_PER_BIT, check_probabilities, divergence, nats, one_chance

MOST_STATES = 2**24  # joint states of an exact system
MOST_MAPS = 10**7
MEASURES = ("optimizing_strength", "adjusted_optimizing_strength", "total_correlation")


class BesideNull(NamedTuple):
    """A measure beside what random maps give for the same distribution.

    - `value`: of the system, in bits. - `null`: one value a random map.
    - `quantile`: the share of random maps below the system (ties count half).
    """

    value: float
    null: np.ndarray
    quantile: float

    def __str__(self) -> str:
        return (
            f"{self.value:.6g} bits; random maps {self.null.mean():.4g} with standard deviation "
            f"{self.null.std(ddof=1):.2g}, {100 * self.quantile:.0f}% of them below"
        )


class FiniteSystem:
    """A system of finite parts that all step at once, and its measures of optimization, in bits.

    A distribution P of joint states optimizes if, one step later, the product P' of its marginals has more
    entropy than P itself: `strength = S(F#P') - S(F#P)`, of which decorrelation alone gives the total
    correlation `TC = S(P') - S(P)`; `adjusted = strength - TC`. Both can be negative.

    **Arguments**

    - `table`: next states: whole numbers of shape (*sizes, number of parts); or probabilities of shape (*sizes,
      *sizes), next given now; or a mapping from label tuples to label tuples, or to mappings of label tuples to
      probabilities.
    - `parts`: a mapping from each part's name to its labels in order (or to how many there are). May be left out
      where `table` carries them, as `tw.systems.thermostat_table` does.

    Every measure takes `p`, probabilities of shape `sizes` or a mapping from label tuples to them, and `parts`:
    what is decorrelated. `None`: all parts from one another; a name: that part from the rest; two
    names: these two from each other, given the rest.

    **Raises** `ValueError` in one sentence for a table whose rows do not sum to 1, that leaves states or labels
    out, or that does not fit the parts.

    Exact up to 2^24 joint states; beyond, `tw.steering.sampled_strength`.

    From J. Bostock's posts on optimization, parts 1 and 2.

    >>> import thalweg as tw
    >>> smart = tw.steering.FiniteSystem(tw.systems.thermostat_table("smart"))
    >>> p = {("high", "cold"): 1 / 3, ("low", "warm"): 1 / 3, ("off", "hot"): 1 / 3}
    >>> round(smart.optimizing_strength(p), 5), round(smart.adjusted_optimizing_strength(p), 5)
    (2.19716, 0.6122)
    """

    def __init__(self, table: Any, parts: Any = None):
        self.parts = _check_parts(getattr(table, "parts", None) if parts is None else parts)
        self.sizes = tuple(len(labels) for labels in self.parts.values())
        self.states = math.prod(self.sizes)
        if self.states > MOST_STATES:
            raise ValueError(
                f"the parts have {self.states} joint states, wanted at most {MOST_STATES}: "
                "use tw.steering.sampled_strength"
            )
        if isinstance(table, Mapping):
            table = self._from_labels(table)
        self._next, self._chances = self._check_table(np.asarray(table))

    @property
    def names(self) -> tuple[str, ...]:
        """The parts in order."""
        return tuple(self.parts)

    def distribution(self, p: Any) -> np.ndarray:
        """`p` as an array of shape `sizes`, from such an array or from a mapping of label tuples."""
        if isinstance(p, Mapping):
            array = np.zeros(self.sizes)
            for labels, chance in p.items():
                array[self._index(labels, "p")] += one_chance(chance, "p")
            p = array
        return check_probabilities(p, "p", self.sizes)

    def push(self, p: Any) -> np.ndarray:
        """The distribution one step later, `F#P`."""
        return self._push(self.distribution(p))

    def marginal(self, p: Any, *names: str) -> np.ndarray:
        """The distribution of the named parts alone, in the order of the system."""
        kept = self._axes(names)
        return self.distribution(p).sum(axis=tuple(a for a in range(len(self.sizes)) if a not in kept))

    def entropy(self, p: Any, *names: str) -> float:
        """The joint entropy, or that of the named parts, in bits."""
        return float(nats(self.marginal(p, *names) if names else self.distribution(p)) / NATS_PER_BIT)

    def decorrelate(self, p: Any, parts: Any = None) -> np.ndarray:
        """P': the parts made independent, as `parts` says."""
        return self._decorrelate(self.distribution(p), parts)

    def total_correlation(self, p: Any, parts: Any = None) -> float:
        """`TC = S(P') - S(P)`, in bits: what decorrelation alone adds. Never negative."""
        p = self.distribution(p)
        return float(divergence(p, self._decorrelate(p, parts)) / NATS_PER_BIT)

    def optimizing_strength(self, p: Any, parts: Any = None) -> float:
        """`S(F#P') - S(F#P)`, in bits: how much more order a step makes of P than of its decorrelated twin."""
        p = self.distribution(p)
        return float((nats(self._push(self._decorrelate(p, parts))) - nats(self._push(p))) / NATS_PER_BIT)

    def adjusted_optimizing_strength(self, p: Any, parts: Any = None) -> float:
        """The strength less the total correlation, in bits.

        For a deterministic table: what the step forgets under P, less what it forgets under P'. 0 for a bijection.
        """
        p = self.distribution(p)
        q = self._decorrelate(p, parts)
        if self._next is not None:
            return float((self._forgotten(p) - self._forgotten(q)) / NATS_PER_BIT)
        return float((nats(self._push(q)) - nats(self._push(p)) - divergence(p, q)) / NATS_PER_BIT)

    def beside_null(
        self, p: Any, measure: str = "optimizing_strength", parts: Any = None, *, maps: int = 1000, key: int = 0
    ) -> BesideNull:
        """A measure beside that of random maps of the same size, for the same distribution.

        A random map sends every joint state to one drawn evenly (a stochastic table has its rows dealt to the
        states anew). `maps`: how many; `key`: seed.

        >>> import numpy as np, thalweg as tw
        >>> dumb = tw.steering.FiniteSystem(tw.systems.thermostat_table("dumb"))
        >>> found = dumb.beside_null(np.eye(3)[::-1] / 3)
        >>> round(found.value, 5), 0.6 < found.quantile < 0.75  # many a map does as well
        (1.14052, True)
        """
        if not isinstance(measure, str) or measure not in MEASURES:
            raise ValueError(f"measure must be one of {', '.join(MEASURES)}, got {shown(measure)}")
        if not is_whole(maps) or not 2 <= maps <= MOST_MAPS:
            raise ValueError(f"maps must be a whole number from 2 to {MOST_MAPS}, got {shown(maps)}")
        draws = generator(key)
        p = self.distribution(p)
        value = getattr(self, measure)(p, parts)
        if measure == "total_correlation":
            null = np.full(maps, value)  # it does not depend on the map
        else:
            null = self._null(p, self._decorrelate(p, parts), measure, maps, draws)
        quantile = float(np.mean(null < value) + np.mean(null == value) / 2)
        return BesideNull(value, null, quantile)

    def table_of_measures(self, p: Any, *, maps: int = 1000, key: int = 0) -> dict[str, dict[str, BesideNull]]:
        """Every measure for all parts together, each part and each pair, each beside its null.

        >>> import numpy as np, thalweg as tw
        >>> dumb = tw.steering.FiniteSystem(tw.systems.thermostat_table("dumb"))
        >>> list(dumb.table_of_measures(np.full((3, 3), 1 / 9), maps=10))
        ['all', 'thermostat', 'room', 'thermostat, room']
        """
        names = self.names
        pairs = [(a, b) for k, a in enumerate(names) for b in names[k + 1 :]]
        rows: list[Any] = [None, *(names if len(names) > 1 else ()), *pairs]
        return {
            "all" if row is None else row if isinstance(row, str) else ", ".join(row): {
                measure: self.beside_null(p, measure, row, maps=maps, key=key) for measure in MEASURES
            }
            for row in rows
        }

    # ----------------------------------------------------------------------------------------------

    def _push(self, p: np.ndarray) -> np.ndarray:
        flat = p.reshape(-1)
        if self._next is None:
            return (flat @ self._chances).reshape(self.sizes)
        return np.bincount(self._next, flat, minlength=self.states).reshape(self.sizes)

    def _decorrelate(self, p: np.ndarray, parts: Any) -> np.ndarray:
        axes = range(len(self.sizes))
        if parts is None:
            product = np.ones(())
            for axis in axes:
                marginal = p.sum(axis=tuple(a for a in axes if a != axis))
                product = np.multiply.outer(product, marginal)
            return product
        if not isinstance(parts, str | tuple | list):
            raise TypeError(f"parts must be None, one part or a pair of parts, got {shown(parts)}")
        chosen = self._axes((parts,) if isinstance(parts, str) else tuple(parts))
        if len(chosen) == 1:
            rest = p.sum(axis=chosen, keepdims=True)
            return rest * p.sum(axis=tuple(a for a in axes if a not in chosen), keepdims=True)
        if len(chosen) != 2:
            raise ValueError(f"parts must be None, one part or a pair of parts, got {shown(parts)}")
        a, b = chosen
        given = p.sum(axis=(a, b), keepdims=True)
        both = p.sum(axis=a, keepdims=True) * p.sum(axis=b, keepdims=True)
        return np.where(given > 0, both / np.where(given > 0, given, 1.0), 0.0)

    def _forgotten(self, p: np.ndarray) -> float:
        """`H(s | s+)` in nats, a sum of terms that are never negative: `sum p log(1 + others / p)`, where `others`
        is what comes from elsewhere into the same next state."""
        into: Any = self._next
        flat, after = p.reshape(-1), self._push(p).reshape(-1)[into]
        dominant = flat > after / 2
        without = np.bincount(into, np.where(dominant, 0.0, flat), minlength=self.states)[into]
        others = np.where(dominant, without, after - flat)
        here = flat > 0
        return float(np.sum(flat[here] * np.log1p(others[here] / flat[here])))

    def _null(self, p: np.ndarray, q: np.ndarray, measure: str, maps: int, draws: Any) -> np.ndarray:
        flat_p, flat_q, out = p.reshape(-1), q.reshape(-1), np.empty(maps)
        for m in range(maps):
            if self._next is not None:
                table = draws.integers(self.states, size=self.states)
                after_p, after_q = (np.bincount(table, flat, minlength=self.states) for flat in (flat_p, flat_q))
            else:
                rows = self._chances[draws.permutation(self.states)]
                after_p, after_q = flat_p @ rows, flat_q @ rows
            out[m] = nats(after_q) - nats(after_p)
        if measure == "adjusted_optimizing_strength":
            out -= divergence(p, q)
        return out / NATS_PER_BIT

    def _axes(self, names: tuple[str, ...]) -> tuple[int, ...]:
        for name in names:
            if not isinstance(name, str) or name not in self.parts:
                raise ValueError(f"no part is called {shown(name)}; the parts are {', '.join(map(repr, self.parts))}")
        if len(set(names)) != len(names):
            raise ValueError(f"parts must differ, got {names}")
        return tuple(sorted(self.names.index(name) for name in names))

    def _index(self, labels: Any, what: str) -> tuple[int, ...]:
        labels = labels if isinstance(labels, tuple) else (labels,)
        if len(labels) != len(self.sizes):
            raise ValueError(f"{what} must name one label a part, {self.names}, got {labels!r}")
        for label, (name, known) in zip(labels, self.parts.items(), strict=True):
            if label not in known:
                raise ValueError(f"{what} names {label!r}, but {name!r} has the labels {', '.join(map(repr, known))}")
        return tuple(known.index(label) for label, known in zip(labels, self.parts.values(), strict=True))

    def _from_labels(self, table: Mapping) -> np.ndarray:
        if len(table) != self.states:
            raise ValueError(f"table must have a row for each of the {self.states} joint states, got {len(table)}")
        rows = {self._index(labels, "table"): after for labels, after in table.items()}
        if not any(isinstance(after, Mapping) for after in rows.values()):
            out = np.zeros((*self.sizes, len(self.sizes)), dtype=int)
            for at, after in rows.items():
                out[at] = self._index(after, "table")
            return out
        chances = np.zeros((*self.sizes, *self.sizes))
        for at, after in rows.items():
            for labels, chance in after.items() if isinstance(after, Mapping) else ((after, 1.0),):
                chances[at + self._index(labels, "table")] += one_chance(chance, "table")
        return chances

    def _check_table(self, table: np.ndarray) -> tuple[np.ndarray | None, Any]:
        if table.shape == (*self.sizes, len(self.sizes)) and table.dtype.kind in "iu":
            if np.any(table < 0) or np.any(table >= np.array(self.sizes)):
                raise ValueError(f"next states in table must be below the sizes {self.sizes} of the parts, and >= 0")
            return np.ravel_multi_index(tuple(np.moveaxis(table, -1, 0)), self.sizes).reshape(-1), None
        if table.shape != (*self.sizes, *self.sizes) or table.dtype.kind not in "fiub":
            raise ValueError(
                f"table must be whole numbers of shape {(*self.sizes, len(self.sizes))} or probabilities of shape "
                f"{(*self.sizes, *self.sizes)}, as parts has the sizes {self.sizes}; "
                f"got {table.dtype} of shape {table.shape}"
            )
        rows = table.reshape(self.states, self.states).astype(float)
        sums = rows.sum(axis=1)
        bad = np.flatnonzero(~(np.all(rows >= 0, axis=1) & (np.abs(sums - 1) < 1e-9)))
        if bad.size:
            at = tuple(int(i) for i in np.unravel_index(bad[0], self.sizes))
            labels = tuple(known[i] for i, known in zip(at, self.parts.values(), strict=True))
            raise ValueError(
                f"row {labels} of table must be probabilities (>= 0, sum 1), got a sum of {sums[bad[0]]:.12g}"
            )
        return None, rows


def _check_parts(parts: Any) -> dict[str, tuple]:
    if not isinstance(parts, Mapping) or not parts:
        raise TypeError(
            f'parts must map each part\'s name to its labels, such as {{"room": ["hot", "cold"]}}, got {shown(parts)}'
        )
    out = {}
    for name, labels in parts.items():
        if is_whole(labels) and labels > MOST_STATES:
            raise ValueError(
                f"parts: {name!r} has {labels} states, wanted at most {MOST_STATES}: use tw.steering.sampled_strength"
            )
        try:
            known = tuple(range(labels)) if is_whole(labels) else tuple(labels)
            different = len(set(known)) == len(known)
        except TypeError:
            known, different = (), False
        if not known or not different:
            raise ValueError(
                f"parts: {name!r} must have at least one label, all different, or be how many there are, "
                f"got {shown(labels)}"
            )
        out[name] = known
    return out
