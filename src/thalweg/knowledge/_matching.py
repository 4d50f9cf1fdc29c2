"""Matching the hidden units of two networks by their profiles over the same data, and naming one by the other."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from thalweg._edge import is_whole, shown
from thalweg._results import Status
from thalweg.stats._series import as_count, as_numbers, generator


@dataclass(frozen=True)
class Match:
    """What `match_units` finds for networks with units a and b.

    - `similarity`: (units a, units b), correlations of profiles over data; NaN for units without a profile.
    - `best`: (units b,), the unit of a most like each unit of b; -1 where undefined.
    - `assignment`: (k, 2), pairs (a, b), one to one, of the largest total similarity.
    - `score`: the mean similarity of the assignment. - `p`: how often data shuffled in b reach that score; NaN where
      undefined. - `null_mean`: the score of shuffled data. - `undefined`: units of a and of b without a profile.
    """

    similarity: Float[np.ndarray, "a b"]
    best: Int[np.ndarray, " b"]
    assignment: Int[np.ndarray, "k 2"]
    score: float
    p: float
    null_mean: float
    undefined: tuple[int, int]
    status: Status

    def top(self, k: int) -> Int[np.ndarray, "b k"]:
        """The k units of a most like each unit of b, best first; -1 where there are none."""
        if not is_whole(k) or not 1 <= k <= self.similarity.shape[0]:
            raise ValueError(f"k must be a whole number from 1 to {self.similarity.shape[0]}, got {shown(k)}")
        filled = np.where(np.isfinite(self.similarity), self.similarity, -np.inf)
        order = np.argsort(-filled, axis=0, kind="stable")[:k].T
        return np.where(np.take_along_axis(filled.T, order, 1) > -np.inf, order, -1)

    @property
    def ok(self) -> bool:
        """Whether there is an assignment."""
        return self.status == Status.OK

    @property
    def message(self) -> str:
        """The status in words."""
        return self.status.sentence(why="fewer than 1 unit of a network has a profile that varies over the data")


def match_units(a: Any, b: Any, *, permutations: int = 199, key: Any = 0) -> Match:
    """Match the units of two networks, of any sizes, by the correlation of their profiles over the same data.

    **Arguments**

    - `a`: (n, units a), `b`: (n, units b): as `tw.knowledge.profiles` gives them, row i the same datum in both.
    - `permutations`: shuffles of b's data for p (0: none). - `key`: an integer, a JAX key or a NumPy Generator.

    **Returns** a `Match`.

    **When not to trust it.** p tests that the profiles have nothing in common over data at all: classes alone make it
    small. Whether a match means the same knowledge is another question: see `name_units`, and compare kinds of profile.
    A ReLU unit that hardly ever fires has a profile that does not repeat: of planted permutations 93 to 100% of ReLU
    units came back, and all units of smooth activations.

    **Source.** For matching by correlation: Li, Yosinski, Clune, Lipson and Hopcroft, ICLR 2016 (arXiv:1511.07543).

    >>> import numpy as np, thalweg as tw
    >>> a = np.random.default_rng(0).random((50, 4))
    >>> tw.knowledge.match_units(a, a[:, [2, 0, 3, 1]]).best.tolist()
    [2, 0, 3, 1]
    """
    from scipy.optimize import linear_sum_assignment

    a, b = _as_profile(a, "a"), _as_profile(b, "b")
    if len(a) != len(b):
        raise ValueError(f"a and b must have a row for each of the same data, got {len(a)} and {len(b)} rows")
    permutations = as_count(permutations, "permutations", 0)
    (za, good_a), (zb, good_b) = _standardised(a), _standardised(b)
    similarity = np.full((a.shape[1], b.shape[1]), np.nan)
    inner = za.T @ zb
    similarity[np.ix_(good_a, good_b)] = inner
    undefined = (int(np.sum(~good_a)), int(np.sum(~good_b)))
    best = np.full(b.shape[1], -1)
    nan = float("nan")
    if not inner.size:
        return Match(similarity, best, np.zeros((0, 2), int), nan, nan, nan, undefined, Status.UNDEFINED)
    best[good_b] = np.flatnonzero(good_a)[np.argmax(inner, axis=0)]

    def assigned(values: np.ndarray) -> tuple[np.ndarray, float]:
        rows, columns = linear_sum_assignment(-values)
        return np.stack([rows, columns], axis=1), float(values[rows, columns].mean())

    pairs, score = assigned(inner)
    assignment = np.stack([np.flatnonzero(good_a)[pairs[:, 0]], np.flatnonzero(good_b)[pairs[:, 1]]], axis=1)
    rng = generator(key)
    null = np.array([assigned(za.T @ zb[rng.permutation(len(zb))])[1] for _ in range(permutations)])
    p = (1 + int(np.sum(null >= score - 1e-12))) / (1 + permutations) if permutations else nan
    mean = float(null.mean()) if permutations else nan
    return Match(similarity, best, assignment, score, p, mean, undefined, Status.OK)


class Naming(NamedTuple):
    """How well the units of a large network are named by a small one.

    - `named`: (units b,), the names that the matches carry over; -1 where a unit has no match.
    - `truth`: (units b,), their own names. - `top1`: the share of units named right.
    - `chance`: what matches at random would give. - `ceiling`: how often a unit's own name on one half of the data is
      that on the other: names that do not repeat cannot be carried over.
    """

    named: np.ndarray
    truth: np.ndarray
    top1: float
    chance: float
    ceiling: float


def name_units(match: Match, small: Any, large: Any, labels: Any) -> Naming:
    """Give each unit of network b (`large`) the name of its match in network a (`small`), and see whether it is right.

    A unit's name is the class whose loss rises most, on average, when the unit is ablated.

    **Arguments**: `match`, of profiles of `small` (a) and `large` (b); `small`, (n, units a), and `large`,
    (n, units b): `profiles(..., "ablation")` on held-out data; `labels`, (n,) their classes.

    >>> import numpy as np, thalweg as tw
    >>> rises = np.kron(np.eye(3), np.ones((4, 1)))  # unit j serves class j
    >>> match = tw.knowledge.match_units(rises, rises[:, ::-1])
    >>> tw.knowledge.name_units(match, rises, rises[:, ::-1], np.repeat([5, 6, 7], 4)).named.tolist()
    [7, 6, 5]
    """
    if not isinstance(match, Match):
        raise TypeError(f"match must be what match_units gives, got {shown(match)}")
    small, large = _as_profile(small, "small"), _as_profile(large, "large")
    labels = np.asarray(labels)
    for name, value, units in zip(("small", "large"), (small, large), match.similarity.shape, strict=True):
        if value.shape[1] != units:
            raise ValueError(f"{name} must have a column for each of the {units} units matched, got {value.shape[1]}")
        if labels.shape != (len(value),) or labels.dtype.kind not in "iu":
            raise ValueError(f"labels must be {len(value)} whole numbers, one a row of {name}, got {shown(labels)}")
    small_names, truth = names(small, labels), names(large, labels)
    named = np.where(match.best >= 0, small_names[match.best], -1)
    classes = np.unique(labels)
    chance = sum(np.mean(small_names == one) * np.mean(truth == one) for one in classes)
    halves = _halves(labels)
    ceiling = np.mean(names(large[halves], labels[halves]) == names(large[~halves], labels[~halves]))
    return Naming(named, truth, float(np.mean(named == truth)), float(chance), float(ceiling))


def names(rises: Float[np.ndarray, "n units"], labels: Int[np.ndarray, " n"]) -> Int[np.ndarray, " units"]:
    """The class whose mean loss rises most when a unit is ablated."""
    classes = np.unique(labels)
    means = np.array([rises[labels == one].mean(axis=0) for one in classes])
    return classes[np.argmax(means, axis=0)]


def _halves(labels: np.ndarray) -> np.ndarray:
    """A mask of every other datum of each class."""
    mask = np.zeros(len(labels), bool)
    for one in np.unique(labels):
        mask[np.flatnonzero(labels == one)[::2]] = True
    return mask


def _as_profile(values: Any, name: str) -> np.ndarray:
    array = as_numbers(values, name)
    if array.ndim != 2 or len(array) < 3 or not array.size:
        raise ValueError(f"{name} must have shape (data, units), with at least 3 data, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity in it")
    return array


def _standardised(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns of mean 0 and norm 1, and which columns vary at all."""
    centred = values - values.mean(axis=0)
    size = np.linalg.norm(centred, axis=0)
    good = size > 1e-12 * np.maximum(np.abs(values).max(axis=0), 1e-300) * np.sqrt(len(values))
    return centred[:, good] / size[good], good
