"""Are these samples of this law? Kernel Stein tests, plain and after jumps, and a two-sample test."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thalweg._edge import check_choice, check_function, is_whole, shown
from thalweg._results import Estimate
from thalweg.energy.boltzmann import _enumeration, _stein
from thalweg.energy.boltzmann._categorical import CategoricalRBM
from thalweg.energy.boltzmann._gaussian import GaussianRBM
from thalweg.energy.boltzmann._machine import Machine, check_count, one_key
from thalweg.energy.boltzmann._rbm import RBM
from thalweg.stats._series import generator

SCALES = (0.25, 0.5, 0.75, 0.9, 1.1, 1.3)  # default jumps, in units of the distance that 95 of 100 pairs keep within
JUMPS = 3  # jumps of a sample before it is tested
REFERENCE_STATES = 2**18  # a machine is drawn from exactly up to so many states of its smaller layer


class SampleTest(NamedTuple):
    """What `test_samples` found.

    - `p_value`: how often chance alone makes right samples look as wrong in at least one test: the least p of all tests
      times their number (Bonferroni), at most 1; an `Estimate` with its error from the finite number of random signs.
    - `tests`: name -> `Estimate` of p of each test alone.
    - `samples`: how many were used. - `thinned`: one in so many of those given.
    """

    p_value: Estimate
    tests: dict[str, Estimate]
    samples: int
    thinned: int

    @property
    def worst(self) -> str:
        """The name of the test that objects most."""
        return min(self.tests, key=lambda name: float(self.tests[name]))

    def rejected(self, level: float = 0.05) -> bool:
        """Whether the samples are wrong at this level: right ones are called wrong at most so often."""
        return float(self.p_value) < level

    def __str__(self) -> str:
        told = ", ".join(f"{name} p = {float(p):.3g}" for name, p in self.tests.items())
        return f"p = {float(self.p_value):.3g} over {len(self.tests)} tests of {self.samples} samples ({told})"


def test_samples(
    samples: Any,
    score: Any = None,
    *,
    log_density: Callable[[Any], Any] | None = None,
    units: Any = None,
    reference: Any = None,
    jumps: Sequence[Any] | str = "auto",
    thin: int | str = "auto",
    most: int = 1000,
    draws: int = 2000,
    key: Any = 0,
) -> SampleTest:
    """Test whether samples come from a law that is known up to its normalisation.

    A kernel Stein test needs no `log Z` and no draws of the law. It looks at slopes, so by itself it hardly sees two
    modes in the wrong proportion. So it is repeated after each sample has made a few random jumps of one length that
    keep the law: wrong proportions then show as wrong shapes. A jump of just the distance of two modes hides the
    fault; hence several lengths.

    **Arguments**

    - `samples`: shape (n, d), n >= 20: independent, or a chain in order (see `thin`).
    - `score`: the law: a machine (`RBM`, `GaussianRBM`), or the score `d log p / dx` as a function of one state of
      shape (d,). - `log_density`: in its place, `log p(x)` up to a constant, written in JAX.
    - `units`: `(0, 1)` or `(-1, 1)` where `log_density` is of units of two values.
    - `reference`: draws of the law from a source that is trusted, shape (m, d), for a two-sample test; for a machine
      whose smaller layer can be summed exact draws are made.
    - `jumps`: lengths of jumps (numbers of flipped units where units have two values); `"auto"`: 0.25 to 1.3 times the
      distance that 95 of 100 pairs of samples keep within (an eighth to all of the units); `()` for none.
    - `thin`: use one sample in so many; `"auto"`: two autocorrelation times, from a chain whose samples are correlated.
    - `most`: samples used, at most. - `draws`: random signs behind each p. - `key`: a key or seed.

    **Returns** a `SampleTest`. **Raises** `ValueError` for samples that are not finite or not of the law's shape.

    **When not to trust it.** A large p says only that these tests saw nothing: a mode that no sample and no jump
    reaches is not missed. A jump with only `score` given takes `log p` ratios from an integral along a straight line.

    Source: Liu, Lee and Jordan (2016); Chwialkowski, Strathmann and Gretton (2016); Gorham and Mackey (2017).

    >>> import numpy as np, thalweg as tw
    >>> x = np.random.default_rng(0).normal(size=(300, 2))
    >>> right, wrong = tw.energy.test_samples(x, lambda x: -x), tw.energy.test_samples(1.3 * x, lambda x: -x)
    >>> right.rejected(), wrong.rejected()
    (False, True)
    """
    law = _law(score, log_density, units)
    array = _array(samples, "samples", law)
    if len(array) < 20:
        raise ValueError(f"samples must be at least 20, got {len(array)}: draw more")
    for name, value, least in (("most", most, 20), ("draws", draws, 100)):
        check_count(value, name, least)
    step = _thinning(array, thin)
    used = array[::step][:: -(-len(array[::step]) // most)]
    key, rng = one_key(key), generator(key)
    statistics = {"Stein": _stein.p_value(law.kernel(used), rng, draws)}
    for number, length in enumerate(_lengths(jumps, law, used)):
        moved = np.asarray(law.jump(used, length, jax.random.fold_in(key, number)))
        statistics[f"Stein after jumps of {float(length):.4g}"] = _stein.p_value(law.kernel(moved), rng, draws)
    other = law.draws(len(used), jax.random.fold_in(key, 10**6)) if reference is None else reference
    if other is not None:
        trusted = _array(other, "reference", law)[:most]
        statistics["two samples"] = _stein.two_sample(used, trusted, rng, draws)
    tests = {
        name: Estimate(p, float(np.sqrt(p * (1 - p) / draws)), details={"statistic": statistic})
        for name, (statistic, p) in statistics.items()
    }
    best, count = min(tests.values(), key=float), len(tests)
    return SampleTest(
        Estimate(min(1.0, count * float(best)), count * float(best.error), details={"tests": count}),
        tests,
        len(used),
        step,
    )


class _Real(NamedTuple):
    """A law of real numbers."""

    score: Callable[[Any], Any]
    log_density: Callable[[Any], Any] | None
    machine: Machine | None

    def kernel(self, x: np.ndarray) -> np.ndarray:
        slopes = _finite(jax.vmap(lambda one: jnp.asarray(self.score(one), float))(jnp.asarray(x)), "score")
        if slopes.shape != x.shape:
            raise ValueError(f"score must give the shape of a state, {x.shape[1:]}, got {slopes.shape[1:]}")
        return _stein.continuous(x, slopes)

    def jump(self, x: Any, length: Any, key: Any) -> Any:
        # Directions follow the spread of the samples: there the modes are that a jump may reach.
        x, root = (
            jnp.asarray(x),
            jnp.linalg.cholesky(jnp.cov(x.T).reshape(x.shape[1], -1) + 1e-12 * jnp.eye(x.shape[1])),
        )
        for number in range(JUMPS):
            way, accept = jax.random.split(jax.random.fold_in(key, number))
            direction = jax.random.normal(way, x.shape) @ root.T
            y = x + length * direction / jnp.linalg.norm(direction, axis=1, keepdims=True)
            if self.log_density is None:
                gain = _stein.gain_along(self.score, x, y)
            else:
                value = jax.vmap(self.log_density)
                gain = value(y) - value(x)
            yes = jnp.log(jax.random.uniform(accept, (len(x),))) < gain
            x = jnp.where(yes[:, None], y, x)
        return x

    def draws(self, n: int, key: Any) -> Any:
        return None if self.machine is None else exact_draws(self.machine, n, key)

    def lengths(self, x: Any) -> Any:
        far = np.quantile(_stein.distances2(x)[np.triu_indices(len(x), 1)], 0.95)
        return np.asarray(SCALES) * np.sqrt(far if far > 0 else 1.0)

    def check(self, array: np.ndarray, name: str) -> None:
        if self.machine is not None:
            self.machine.check_data(array, name)


class _Units(NamedTuple):
    """A law of units of two values."""

    log_density: Callable[[Any], Any]
    units: tuple[int, int]
    machine: Machine | None

    def _gains(self, x: Any) -> Any:
        """log p of every state with one unit flipped, minus log p of the state, shape (n, d)."""
        total, value = sum(self.units), jax.vmap(self.log_density)
        now = value(x)
        flip = lambda i: value(x.at[:, i].set(total - x[:, i])) - now  # noqa: E731
        return jax.lax.map(flip, jnp.arange(x.shape[1])).T

    def kernel(self, x: np.ndarray) -> np.ndarray:
        low, high = self.units
        rates = 1 / (1 + np.exp(-_finite(self._gains(jnp.asarray(x)), "log_density")))
        return _stein.discrete((2 * x - low - high) / (high - low), rates)

    def jump(self, x: Any, length: Any, key: Any) -> Any:
        x, total, value = jnp.asarray(x), sum(self.units), jax.vmap(self.log_density)
        for number in range(JUMPS):
            way, accept = jax.random.split(jax.random.fold_in(key, number))
            order = jnp.argsort(jax.random.uniform(way, x.shape), axis=1)
            y = jnp.where(order < length, total - x, x)
            yes = jnp.log(jax.random.uniform(accept, (len(x),))) < value(y) - value(x)
            x = jnp.where(yes[:, None], y, x)
        return x

    def draws(self, n: int, key: Any) -> Any:
        return None if self.machine is None else exact_draws(self.machine, n, key)

    def lengths(self, x: Any) -> Any:
        d = x.shape[1]
        return np.unique(np.maximum(1, np.round(d * np.array([1 / 8, 1 / 4, 1 / 2, 3 / 4, 1]))))

    def check(self, array: np.ndarray, name: str) -> None:
        if not np.all(np.isin(array, self.units)):
            raise ValueError(f"{name} must hold {self.units[0]} and {self.units[1]} only, got other numbers")


def exact_draws(machine: Machine, n: int, key: Any) -> Any:
    """Independent draws of a machine, or `None` where its smaller layer has too many states to sum."""
    layer, count = _enumeration.smaller_layer(machine)
    if count > REFERENCE_STATES:
        return None
    for_state, for_rest = jax.random.split(key)
    numbers = jnp.arange(count)
    if layer == "visible":
        logs = machine.log_unnormalized(machine.visible_states(numbers))
        return machine.visible_states(jax.random.categorical(for_state, logs, shape=(n,)))
    logs = machine.log_unnormalized_hidden(machine.hidden_states(numbers))
    h = machine.hidden_states(jax.random.categorical(for_state, logs, shape=(n,)))
    return machine.draw_visible(h, machine.visible_noise((n,)).sample(for_rest, 0))


def _law(score: Any, log_density: Any, units: Any) -> Any:
    if (score is None) == (log_density is None):
        raise ValueError("score must be given, or log_density, and not both: either is the law to test against")
    if isinstance(score, CategoricalRBM):
        raise TypeError("score must be a machine of two-valued or real units, a CategoricalRBM cannot be tested here")
    if isinstance(score, Machine):
        if isinstance(score, RBM):
            return _Units(score.log_unnormalized, score.units, score)
        assert isinstance(score, GaussianRBM)
        return _Real(jax.grad(score.log_unnormalized), score.log_unnormalized, score)
    if score is not None:
        check_function(score, "score", "x")
        if units is not None:
            raise ValueError("units must be left out with a score, which units of two values do not have")
        return _Real(score, None, None)
    check_function(log_density, "log_density", "x")
    if units is not None:
        from thalweg.energy.boltzmann._units import check_units

        return _Units(log_density, check_units(units), None)
    return _Real(jax.grad(lambda x: jnp.asarray(log_density(x), float)), log_density, None)


def _array(value: Any, name: str, law: Any) -> np.ndarray:
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be an array of numbers of shape (n, d), got {shown(value)}") from None
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} must have shape (n, d), a row a sample, got {array.shape}")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name} must be finite, got NaN or infinity in them")
    law.check(array, name)
    return array


def _finite(values: Any, name: str) -> np.ndarray:
    values = np.asarray(values)
    if not np.all(np.isfinite(values)):
        raise ValueError(f"{name} must be finite at every sample, got NaN or infinity: are samples outside the law?")
    return values


def _thinning(array: np.ndarray, thin: Any) -> int:
    """One sample in so many: twice the longest autocorrelation time of any column, if the order matters at all."""
    if thin != "auto":
        if not is_whole(thin) or not 1 <= thin <= len(array) // 20:
            raise ValueError(
                f'thin must be "auto" or a whole number that leaves 20 samples (1 to {len(array) // 20}), '
                f"got {shown(thin)}"
            )
        return int(thin)
    from thalweg.stats import autocorrelation_time

    times = [
        found
        for column in (array - array.mean(axis=0)).T
        if column.std() > 0
        for found in (autocorrelation_time(column), autocorrelation_time(np.abs(column)))
    ]
    certain = [float(tau) for tau in times if float(tau) - 2 * float(tau.error) > 1]
    longest = max(certain, default=1.0)
    return 1 if longest < 1.2 else min(int(np.ceil(2 * longest)), len(array) // 20)


def _lengths(jumps: Any, law: Any, used: Any) -> np.ndarray:
    if isinstance(jumps, str):
        check_choice(jumps, "jumps", ("auto", "none"))
        return law.lengths(used) if jumps == "auto" else np.array([])
    try:
        lengths = np.asarray(jumps, dtype=float)
    except (TypeError, ValueError):
        raise TypeError(f'jumps must be "auto" or lengths > 0, got {shown(jumps)}') from None
    whole = isinstance(law, _Real) or np.all((lengths == np.round(lengths)) & (lengths <= used.shape[1]))
    if lengths.ndim != 1 or not np.all(np.isfinite(lengths)) or np.any(lengths <= 0) or not whole:
        wanted = "lengths > 0" if isinstance(law, _Real) else f"numbers of units from 1 to {used.shape[1]}"
        raise ValueError(f'jumps must be "auto" or {wanted}, got {shown(jumps)}')
    return lengths
