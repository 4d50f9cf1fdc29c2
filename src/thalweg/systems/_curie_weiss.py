"""The Curie-Weiss magnet: every spin sees every other, and everything about it is a sum over n + 1 states."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit, gammaln, logsumexp

from thalweg._edge import check_number, is_whole
from thalweg._noise import Choice, Uniform
from thalweg._process import Process


class CurieWeiss(eqx.Module):
    """The Curie-Weiss magnet with its exact facts; made by `curie_weiss`.

    - `spins`: n. - `beta`: the inverse temperature.
    - `process`: heat bath, one random spin a step, as a `Process` on `k`, the number of spins that are up; it carries
      its exact `transition`. - `spin_process`: the same on the spins, a state of shape (n,) of -1 and +1.
    """

    spins: int = eqx.field(static=True)
    beta: float = eqx.field(static=True)

    @property
    def magnetisation(self) -> np.ndarray:
        """`m = (2k - n) / n` for `k = 0..n`."""
        return (2 * np.arange(self.spins + 1) - self.spins) / self.spins

    @property
    def log_weights(self) -> np.ndarray:
        """`log (n choose k) + beta n m^2 / 2` for `k = 0..n`."""
        n, k = self.spins, np.arange(self.spins + 1)
        choose = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
        return choose + self.beta * n * self.magnetisation**2 / 2

    @property
    def log_partition(self) -> float:
        """`log Z`."""
        return float(logsumexp(self.log_weights))

    @property
    def distribution(self) -> np.ndarray:
        """The law of `k`, shape (n + 1,)."""
        return np.exp(self.log_weights - self.log_partition)

    @property
    def mean_abs(self) -> float:
        """`<|m|>`."""
        return float(self.distribution @ np.abs(self.magnetisation))

    @property
    def mean_square(self) -> float:
        """`<m^2>`."""
        return float(self.distribution @ self.magnetisation**2)

    def log_density(self, spins: Any) -> Any:
        """`beta n m^2 / 2` of spins of shape (n,): the log density, up to `log Z`."""
        return self.beta * jnp.sum(spins) ** 2 / (2 * self.spins)

    @property
    def modes(self) -> tuple[int, int]:
        """The two most likely `k`: the lower one and its mirror."""
        lower = int(np.argmax(self.log_weights[: self.spins // 2 + 1]))
        return lower, self.spins - lower

    def mean_passage_steps(self, start: int | None = None, target: int | None = None) -> float:
        """The mean steps from `k = start` to `target > start` (by default from the lower mode to its mirror), exactly.

        `sum_{j=start}^{target-1} (sum_{i<=j} pi_i) / (pi_j up_j)`, as for every birth-death chain.
        Divide by `spins` for sweeps.
        """
        low, high = self.modes
        start, target = low if start is None else start, high if target is None else target
        for name, value in (("start", start), ("target", target)):
            if not is_whole(value) or not 0 <= value <= self.spins:
                raise ValueError(f"{name} must be a whole number from 0 to {self.spins}, got {value!r}")
        if not start < target:
            raise ValueError(f"target must lie above start, got start={start} and target={target}")
        pi, (up, _) = self.distribution, self.rates()
        j = np.arange(start, target)
        return float(np.sum(np.cumsum(pi)[j] / (pi[j] * up[j])))

    def rates(self) -> tuple[np.ndarray, np.ndarray]:
        """The probabilities of `k -> k + 1` and `k -> k - 1` in a step, each of shape (n + 1,)."""
        n, k, m = self.spins, np.arange(self.spins + 1), self.magnetisation
        return (1 - k / n) * expit(2 * self.beta * (m + 1 / n)), k / n * expit(-2 * self.beta * (m - 1 / n))

    @property
    def process(self) -> Process:
        step = _Counted(*(jnp.asarray(rate) for rate in self.rates()))
        return Process(step, Uniform(), _count, transition=step.transition, smooth=False)

    @property
    def spin_process(self) -> Process:
        step = _HeatBath(jnp.asarray(self.beta))
        return Process(step, {"site": Choice(self.spins), "up": Uniform()}, smooth=False)


def curie_weiss(spins: int, beta: float) -> CurieWeiss:
    """The Curie-Weiss magnet: `n` spins of +-1, `p ~ exp(beta n m^2 / 2)`, m their mean; two modes for `beta > 1`.

    **Exact facts**: `log_partition`, `mean_abs`, `mean_square`, `distribution`, and `mean_passage_steps` from one mode
    to the other under heat-bath dynamics.

    **Arguments**: `spins` >= 2, `beta` >= 0.

    >>> import thalweg as tw
    >>> magnet = tw.systems.curie_weiss(20, 1.5)
    >>> round(magnet.log_partition, 6), round(magnet.mean_abs, 6), round(magnet.mean_passage_steps() / 20, 4)
    (17.190061, 0.784501, 143.2869)
    """
    if not is_whole(spins) or not 2 <= spins <= 10**6:
        raise ValueError(f"spins must be a whole number from 2 to 1,000,000, got {spins!r}")
    return CurieWeiss(int(spins), float(check_number(beta, "beta", least=0)))


def _count(k: Any) -> Any:
    return jnp.asarray(k, dtype=float)


class _Counted(eqx.Module):
    up: Any
    down: Any

    def __call__(self, k: Any, w: Any) -> Any:
        at = jnp.asarray(k).astype(int)
        return k + jnp.where(w < self.up[at], 1.0, jnp.where(w >= 1 - self.down[at], -1.0, 0.0))

    def transition(self, k: Any) -> tuple[Any, Any]:
        at = jnp.asarray(k).astype(int)
        up, down = self.up[at], self.down[at]
        reached = jnp.clip(jnp.asarray(k, float) + jnp.array([1.0, -1.0, 0.0]), 0, len(self.up) - 1)
        return reached, jnp.stack([up, down, 1 - up - down])


class _HeatBath(eqx.Module):
    beta: Any

    def __call__(self, spins: Any, w: Any) -> Any:
        others = jnp.sum(spins) - spins[w["site"]]
        up = jax.nn.sigmoid(2 * self.beta * others / len(spins))
        return spins.at[w["site"]].set(jnp.where(w["up"] < up, 1.0, -1.0))
