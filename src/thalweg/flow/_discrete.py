"""Processes on finitely many states: the transfer operator is a table, and answers are exact."""

import math
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from thalweg._edge import check_steps, is_whole
from thalweg._loop import apply_step
from thalweg._process import Process
from thalweg._progress import Tell, steps_on
from thalweg._results import Estimate, Status
from thalweg.flow._chart import Predicate
from thalweg.flow._conditioned import conditioned_chain
from thalweg.flow._first_passage import Killed, can_hit, passage, reached_from
from thalweg.flow._limit import limit
from thalweg.flow._space import States
from thalweg.flow._spectrum import Modes, eigenvalues, modes, relaxation_times

ROUNDING = 1e-12


class StatesLevel:
    """The row-stochastic table of a process on a list of states."""

    def __init__(self, process: Process, space: States):
        self.space = space
        states = jnp.asarray(space.array)
        images, chances = _rows(process, states)
        n = space.size
        chances = np.asarray(chances, dtype=float)
        index = space.find(np.asarray(images).reshape(chances.size, *space.array.shape[1:])).reshape(chances.shape)
        lost = (index < 0) & (chances > 0)
        if np.any(lost):
            row = int(np.flatnonzero(lost.any(axis=1))[0])
            raise ValueError(
                f"a step from state {space.array[row].tolist()} leads to "
                f"{np.asarray(images)[row][np.flatnonzero(lost[row])[0]].tolist()}, which is not among the States: "
                "list every state that can be reached"
            )
        data = np.where(index < 0, 0.0, chances).reshape(-1)
        rows = np.arange(n + 1) * chances.shape[1]
        matrix = scipy.sparse.csr_matrix((data, np.maximum(index, 0).reshape(-1), rows), shape=(n, n))
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        sums = np.asarray(matrix.sum(axis=1)).reshape(-1)
        if np.any(np.abs(sums - 1) > 1e-9):
            raise ValueError(f"transition must give probabilities that sum to 1, got a sum of {sums.min():.12g}")
        self.matrix = matrix

    def holds(self, target: Predicate, name: str = "target") -> np.ndarray:
        if not callable(target):
            raise TypeError(f"{name} must be a predicate of one state, such as lambda s: s == 2, got {target!r}")
        met = np.array([bool(target(state)) for state in jnp.asarray(self.space.array)])
        if not met.any():
            raise ValueError(f"{name} must hold at some of the States, and holds at none")
        return met


def _rows(process: Process, states: Any) -> tuple[Any, Any]:
    """The outcomes of each state, (n, outcomes, ...), and their probabilities, (n, outcomes)."""
    if process.transition is not None:
        return jax.vmap(process.transition)(states)
    draws, chances = process.noise.atoms()
    zero = jnp.asarray(0, jnp.result_type(int))
    if not jax.tree.leaves(draws):
        images = jax.vmap(lambda s: apply_step(process.step, s, None, zero))(states)[:, None]
    else:
        images = jax.vmap(lambda s: jax.vmap(lambda w: apply_step(process.step, s, w, zero))(draws))(states)
    return images, jnp.broadcast_to(chances, (len(states), len(chances)))


class StatesOperator:
    """What `transfer_operator` gives back for `States`: exact to rounding. One unit of time is one step.

    - `space`: the states. - `matrix`: row-stochastic, sparse, (n, n).
    """

    def __init__(self, table: StatesLevel, progress: bool = False):
        self.space, self.matrix, self._table, self.progress = table.space, table.matrix, table, progress

    def push(self, density: Any, steps: int) -> Estimate:
        """The probabilities of the states after `steps` steps."""
        mass, backward = self.space.check_density(getattr(density, "value", density)), self.matrix.T.tocsr()
        steps = check_steps(steps)
        with self._telling(steps) as tell:
            for step in range(steps):
                mass = backward @ mass
                tell(step + 1)
        return self._exact(mass)

    def stationary_density(self) -> Estimate:
        """The probabilities that a step leaves as they are (by elimination without subtractions)."""
        reached = [reached_from(self.matrix, np.eye(1, self.space.size, i)[0]) for i in (0, self.space.size - 1)]
        if not all(mask.all() for mask in reached):
            values = eigenvalues(self.matrix, min(2, self.space.size))
            if len(values) > 1 and abs(values[1] - 1) < 1e-12:
                return Estimate(
                    np.full(self.space.size, np.nan),
                    np.full(self.space.size, np.inf),
                    Status.UNDEFINED,
                    {"why": "the states fall into several closed classes, each with a stationary law of its own"},
                )
        return self._exact(stationary(self.matrix.toarray()))

    def escape_probability(self, start: Any, target: Predicate, steps: int) -> Estimate:
        """The probability to be in the target at one of the steps 1, ..., `steps`."""
        killed, begin = self._killed(start, target)
        steps = check_steps(steps)
        with self._telling(steps) as tell:
            found = passage(killed, steps, reached_from(killed.stay, begin), tell)
        return self._exact(float(begin @ found.arrived))

    def mean_first_passage_time(self, start: Any, target: Predicate) -> Estimate:
        """The mean number of steps until the target is first met; infinite where it may never be."""
        killed, begin = self._killed(start, target)
        reached = reached_from(killed.stay, begin)
        if not np.all(can_hit(killed)[reached]):
            why = "the target is not reached from everywhere that the start leads to, so the mean is infinite"
            return Estimate(math.inf, math.inf, Status.UNDEFINED, {"why": why})
        with self._telling() as tell:
            found = passage(killed, math.inf, reached, tell)
        if not found.settled:
            return Estimate(
                float(begin @ found.time), math.inf, Status.NOT_CONVERGED, {"iterations": "the allowed number of"}
            )
        return self._exact(float(begin @ found.time))

    def escape_rate(self, start: Any, target: Predicate) -> Estimate:
        """The probability a step to meet the target, in the long run, of what has not met it yet."""
        killed, begin = self._killed(start, target)
        reached = reached_from(killed.stay, begin)
        if not np.any(killed.hit[reached]):
            return self._exact(0.0)
        with self._telling() as tell:
            rate = passage(killed, math.inf, reached, tell).rate
        if np.isfinite(rate):
            return self._exact(rate)
        mass, settled = limit(killed.stay.T.tocsr(), begin)  # a cycle, whose rate never settles
        status = Status.OK if settled else Status.NOT_CONVERGED
        rate = float(mass @ killed.hit)
        return Estimate(rate, ROUNDING * rate, status, {"space": self.space, "iterations": "the allowed number of"})

    def quasi_stationary_density(self, start: Any, target: Predicate) -> Estimate:
        """The probabilities, after a long time, of what has not yet met the target; zero inside it."""
        killed, begin = self._killed(start, target)
        mass, settled = limit(killed.stay.T.tocsr(), begin)
        status = Status.OK if settled else Status.NOT_CONVERGED
        return Estimate(mass, 1e-10 * mass, status, {"space": self.space, "iterations": "the allowed number of"})

    def committor(self, a: Predicate, b: Predicate) -> Estimate:
        """The probability, from every state, to meet `b` before `a`."""
        in_a, in_b = self._apart(a, b, "a", "b")
        return self._exact(np.where(in_b, 1.0, np.where(in_a, 0.0, self._before(in_a, in_b))))

    def conditioned(self, target: Predicate, *, avoiding: Predicate | None = None, steps: int | None = None) -> Process:
        """The process given that it meets `target` before `avoiding`, or within `steps` steps (Doob's transform).

        As that of a `TransferOperator`: with `steps` the state carries the number of steps left (`Waiting`).
        """
        if (avoiding is None) == (steps is None):
            raise ValueError("conditioned needs either avoiding= (a predicate) or steps= (a number), and not both")
        if avoiding is not None:
            lost, met = self._apart(avoiding, target, "avoiding", "target")
            h = np.where(met, 1.0, np.where(lost, 0.0, self._before(lost, met)))
            return conditioned_chain(self.space.array, self.matrix.toarray(), h, None)
        met = self._table.holds(target)
        rows = [met.astype(float)]
        for _ in range(check_steps(steps)):
            rows.append(np.where(met, 1.0, self.matrix @ rows[-1]))
        return conditioned_chain(self.space.array, self.matrix.toarray(), np.array(rows), steps)

    def _apart(self, a: Predicate, b: Predicate, *names: str) -> tuple[np.ndarray, np.ndarray]:
        in_a, in_b = self._table.holds(a, names[0]), self._table.holds(b, names[1])
        if np.any(in_a & in_b):
            raise ValueError(f"{names[0]} and {names[1]} must not overlap, and both hold at some state")
        return in_a, in_b

    def _before(self, in_a: np.ndarray, in_b: np.ndarray) -> np.ndarray:
        """The probability to meet b before a at a later step, from every state."""
        killed = self._split(in_a | in_b)
        to_b = self.matrix @ in_b.astype(float)
        found = passage(Killed(killed.stay, killed.hit, to_b), math.inf, can_hit(killed) & ~(in_a | in_b))
        return found.leaked

    def relaxation_times(self, k: int) -> Estimate:
        """The `k` longest times in which a perturbation dies out: `-1 / log|eigenvalue|`, in steps."""
        if not is_whole(k) or not 1 <= k < self.space.size:
            raise ValueError(f"k must be a whole number from 1 to one less than the states, got {k!r}")
        return self._exact(relaxation_times(eigenvalues(self.matrix, k + 1)))

    def modes(self, k: int) -> Modes:
        """The `k` slowest modes, the stationary one first."""
        return modes(self.matrix, k)

    def current(self, density: Any) -> Estimate:
        """The net probability that moves from state i to state j in a step: antisymmetric, shape (n, n)."""
        mass = self.space.check_density(getattr(density, "value", density))
        flow = self.matrix.multiply(mass[:, None]).toarray()
        return self._exact(np.asarray(flow - flow.T))

    def _killed(self, start: Any, target: Predicate) -> tuple[Killed, np.ndarray]:
        met = self._table.holds(target)
        index = int(self.space.find(np.asarray(start)[None])[0])
        if index < 0:
            raise ValueError(f"start must be one of the States, got {start!r}")
        if met[index]:
            raise ValueError(f"start must lie outside the target, got {start!r}, where the target holds already")
        return self._split(met), np.eye(1, self.space.size, index)[0]

    def _split(self, met: np.ndarray) -> Killed:
        keep = scipy.sparse.diags((~met).astype(float))
        return Killed((self.matrix @ keep).tocsr(), self.matrix @ met.astype(float), np.zeros(self.space.size))

    def _telling(self, steps: float = math.inf) -> AbstractContextManager[Tell]:
        return steps_on(self.progress, self.space.shape, steps, "states")

    def _exact(self, value: Any) -> Estimate:
        return Estimate(value, ROUNDING * np.abs(value), Status.OK, {"space": self.space})


def stationary(table: np.ndarray) -> np.ndarray:
    """The stationary law of a dense table by Grassmann, Taksar and Heyman's elimination (1985): nothing is
    subtracted, so that the rarest state has as many right digits as the commonest."""
    p, n = np.array(table), len(table)
    for k in range(n - 1, 0, -1):
        leaving = p[k, :k].sum()
        p[:k, k] /= leaving if leaving > 0 else np.inf
        p[:k, :k] += np.outer(p[:k, k], p[k, :k])
    law = np.ones(n)
    for k in range(1, n):
        law[k] = law[:k] @ p[:k, k]
    return law / law.sum()
