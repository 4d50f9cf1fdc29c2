"""When a chain first meets a target: probabilities and mean times, without a subtraction.

`f_n`, the probability to arrive at step n exactly, and `s_n`, that of not having arrived, obey
`f_{n+1} = A f_n` and `s_{n+1} = A s_n` with `A` the chain killed on the target, `f_1` its chance to be
killed and `s_0 = 1`. Every number is a sum of products of positive numbers, so that an escape of
probability 1e-21 has as many right digits as one of 0.5; `1 - survival` is never formed, and `I - A` only for
more than 8,192 states.

Where `r_n = f_{n+1} / s_n` is the same everywhere, it stays so: `A` takes means, so that the extremes of
`r_n` over the states enclose all later ones (Collatz and Wielandt). From there the arrival is geometric,
and any number of further steps costs nothing.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from thalweg._progress import Tell, silent

SAME = 1e-11  # relative spread of the rate at which the arrival counts as geometric
MOST_WORK = 6e9  # multiplications spent on steps before a slow chain is solved at once, or given up
MOST_DIRECT = 70_000  # states for which it is solved at once
MOST_DENSE = 8192  # states for which that is done without any subtraction
MOST_STEPS = 100_000  # before a chain whose rate does not settle, such as a cycle, is solved at once
TINY = 1e-280
FEW = 256  # steps that are made without looking whether the rate has settled


class Killed(NamedTuple):
    """A chain that is killed on a target.

    - `stay`: the probabilities among states not killed, a sparse matrix (n, n).
    - `hit`, `leak`: the probabilities that a step meets the target, and that it leaves the grid; (n,).
    """

    stay: Any
    hit: np.ndarray
    leak: np.ndarray


class Passage(NamedTuple):
    """First passage from every state, shape (n,).

    - `arrived`: the probability of arrival within the steps asked for.
    - `time`: the mean of the smaller of arrival time and steps asked for (NaN where they are few).
    - `leaked`: the expected number of times that the grid is left before.
    - `rate`: the probability of arrival a step, once it is the same everywhere; else NaN.
    - `settled`: whether the answer holds for all steps asked for.
    """

    arrived: np.ndarray
    time: np.ndarray
    leaked: np.ndarray
    rate: float
    settled: bool


def passage(killed: Killed, steps: float, reached: np.ndarray | None = None, tell: Tell = silent) -> Passage:
    """First passage within `steps` steps (possibly `math.inf`).

    `reached` masks the states that matter; only over them must the rate agree. `tell` is told of the steps made.
    """
    stay, hit, leak = killed
    n = len(hit)
    reached = np.ones(n, bool) if reached is None else reached
    if steps == 0:
        return Passage(np.zeros(n), np.zeros(n), np.zeros(n), np.nan, True)
    if not np.any(hit[reached]):  # never
        return Passage(np.zeros(n), np.full(n, float(steps)), _visits(stay, leak, steps), 0.0, True)
    if np.mean(reached) < 0.8:  # most of the grid does not matter
        return _embedded(killed, steps, reached, tell)
    if steps <= FEW and not np.any(leak):
        return _few_steps(stay, hit, int(steps))
    survival = np.asarray(stay.sum(axis=1)).reshape(-1)
    columns = np.column_stack([hit, leak, survival])
    arrived, leaked, time = hit.copy(), leak.copy(), np.ones(n)
    most = min(steps, max(1000, MOST_WORK / max(stay.nnz, 1) / 3))
    if math.isinf(steps) and n <= MOST_DIRECT:
        most = min(most, MOST_STEPS)
    k, rate, pause, over = 1, np.nan, 16, False
    while k < most:
        before = columns[:, 2]
        over = not np.any(before[reached] > TINY)
        if over or k % pause == 0:
            rate = _common_rate(columns, reached)
            tell(k, partial(_span, columns, reached))
            if over or not np.isnan(rate):
                break
            pause = max(16, k // 16)
        time += before
        columns = stay @ columns
        arrived += columns[:, 0]
        leaked += columns[:, 1]
        k += 1
    settled = k >= steps or over or not np.isnan(rate)
    if not settled and math.isinf(steps) and n <= MOST_DIRECT:
        return _at_once(killed, reached)
    if not np.isnan(rate) and steps > k:
        left = -np.expm1((steps - k) * np.log1p(-rate)) if rate < 1 else 1.0  # 1 - (1-r)^(steps-k)
        _, lost, survival = columns.T
        arrived = arrived + survival * left
        time = time + survival * left / rate
        leaked = leaked + lost * (1 - rate) * left / rate
    return Passage(arrived, time, leaked, rate, settled)


def _few_steps(stay: Any, hit: np.ndarray, steps: int) -> Passage:
    """Arrival within so few steps that no rate needs to be looked for; the time is not asked for."""
    arrived, now = hit.copy(), hit
    for _ in range(1, steps):
        now = stay @ now
        arrived += now
    return Passage(arrived, np.full(len(hit), np.nan), np.zeros(len(hit)), np.nan, True)


def _embedded(killed: Killed, steps: float, reached: np.ndarray, tell: Tell) -> Passage:
    """The answer among the states that matter, zero elsewhere."""
    some = np.flatnonzero(reached)
    found = passage(Killed(killed.stay[some][:, some], killed.hit[some], killed.leak[some]), steps, tell=tell)

    def whole(part: np.ndarray) -> np.ndarray:
        everywhere = np.zeros(len(reached))
        everywhere[some] = part
        return everywhere

    return Passage(whole(found.arrived), whole(found.time), whole(found.leaked), found.rate, found.settled)


def _common_rate(columns: np.ndarray, reached: np.ndarray) -> float:
    """The rate of arrival, if all states agree on it."""
    f, _, s = columns[reached].T
    alive = s + f > TINY
    if not np.any(s + f > 0):
        return 1.0
    if not np.all(alive[s + f > 0]):
        return np.nan  # nothing is left, and all along the states did not agree, as on a cycle
    rates = f[alive] / (s + f)[alive]
    low, high = rates.min(), rates.max()
    return float((low + high) / 2) if high > 0 and high - low <= SAME * high else np.nan


def _span(columns: np.ndarray, reached: np.ndarray) -> str:
    """How far the states still differ in their rate of arrival, for the progress line."""
    f, _, s = columns[reached].T
    rates = f[s > TINY] / (s + f)[s > TINY]
    return f"rates of arrival from {rates.min():.3g} to {rates.max():.3g}" if rates.size else "all have arrived"


def _at_once(killed: Killed, reached: np.ndarray) -> Passage:
    """The long run by elimination, for chains that relax more slowly than can be waited for."""
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    inside = np.flatnonzero(reached)
    inside = inside[reverse_cuthill_mckee(killed.stay[inside][:, inside].tocsr())]
    stay = killed.stay[inside][:, inside].tocoo()
    reach = int(np.max(np.abs(stay.row - stay.col), initial=0))
    counted = np.column_stack([killed.hit, np.ones(len(reached)), killed.leak])[inside]
    exact = len(inside) <= MOST_DENSE and len(inside) * reach**2 <= MOST_WORK
    found = _one_by_one(stay.toarray(), reach, counted) if exact else _factorised(stay.tocsc(), counted)
    whole = np.zeros((len(reached), 3))
    whole[inside] = found
    # Arrival is certain here, or the answer is lost to rounding.
    certain = bool(np.all(np.abs(found[:, 0] - 1) < 1e-4) and np.all(found[:, 1] > 0) and np.all(np.isfinite(found)))
    arrived, time, leaked = whole.T
    return Passage(arrived, time, leaked, np.nan, certain)


def _one_by_one(stay: np.ndarray, reach: int, counted: np.ndarray) -> np.ndarray:
    """`(I - A)^-1 counted` by taking one state after the other out of the chain (Grassmann, Taksar and Heyman, 1985).

    The chance to leave a state is the sum of the chances of all ways out, the first column of `counted` being that to
    the target, and not `1 - stay`: there is no subtraction, so that a mean time of 1e30 has as many right digits as
    one of 10. A step changes the number of a state by at most `reach`.
    """
    n = len(stay)
    later = [slice(k + 1, min(k + reach + 1, n)) for k in range(n)]
    with np.errstate(all="ignore"):
        for k, rest in enumerate(later):
            ways, into = stay[k, rest], stay[rest, k, None]
            leaves = ways.sum() + counted[k, 0]
            ways /= leaves
            counted[k] /= leaves
            stay[rest, rest] += into * ways
            counted[rest] += into * counted[k]
        for k in reversed(range(n)):
            counted[k] += stay[k, later[k]] @ counted[later[k]]
    return counted


def _factorised(stay: Any, counted: np.ndarray) -> np.ndarray:
    """The same by a sparse factorisation of `I - A`: right while the mean time is well below 1e16."""
    import scipy.sparse
    from scipy.sparse.linalg import splu

    return splu(scipy.sparse.identity(stay.shape[0], format="csc") - stay).solve(counted)


def _visits(stay: Any, leak: np.ndarray, steps: float) -> np.ndarray:
    """The expected number of leaks of a chain that is never killed, over at most a thousand steps."""
    total, now = np.zeros(len(leak)), leak
    for _ in range(int(min(steps, 1000))):
        total, now = total + now, stay @ now
    return total


def reached_from(stay: Any, entry: np.ndarray) -> np.ndarray:
    """Which states can be reached from an entry."""
    return _follow(stay, entry > 0)


def can_hit(killed: Killed) -> np.ndarray:
    """From which states the target can be reached."""
    return _follow(killed.stay.T.tocsr(), killed.hit > 0)


def _follow(links: Any, sources: np.ndarray) -> np.ndarray:
    import scipy.sparse
    from scipy.sparse.csgraph import breadth_first_order

    n = len(sources)
    if not np.any(sources):
        return np.zeros(n, bool)
    source = np.flatnonzero(sources)
    first = scipy.sparse.csr_matrix((np.ones(len(source)), source, [0, len(source)]), shape=(1, n))
    graph = scipy.sparse.bmat(
        [[links > 0, None], [first > 0, scipy.sparse.csr_matrix((1, 1), dtype=bool)]], format="csr"
    )
    order = breadth_first_order(graph, n, return_predecessors=False)
    found = np.zeros(n + 1, bool)
    found[order] = True
    return found[:n]
