"""Boltzmann machines as scikit-learn estimators, whose score is the log-likelihood."""

import abc
import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from thalweg._edge import is_whole
from thalweg._process import simulate
from thalweg._results import Estimate
from thalweg.energy.boltzmann._fit import fit as fit_machine
from thalweg.energy.boltzmann._gaussian import GaussianRBM
from thalweg.energy.boltzmann._likelihood import log_likelihood
from thalweg.energy.boltzmann._rbm import RBM
from thalweg.energy.boltzmann._training import EXACT_UNITS, training


class _Estimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """What both estimators do; they differ in their machine and in the data they take."""

    _least_rows = 1  # to learn from
    components_: np.ndarray
    intercept_visible_: np.ndarray
    intercept_hidden_: np.ndarray

    def __init__(
        self,
        n_components: int = 256,
        *,
        learning_rate: float | None = None,
        batch_size: int = 50,
        n_iter: int = 200,
        chains: int = 100,
        verbose: int = 0,
        random_state: Any = None,
        check_input: str = "warn",
    ):
        self.n_components = n_components
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.n_iter = n_iter
        self.chains = chains
        self.verbose = verbose
        self.random_state = random_state
        self.check_input = check_input

    @property
    @abc.abstractmethod
    def model_(self) -> Any:
        """The machine."""

    @abc.abstractmethod
    def _start(self, X: np.ndarray, key: int) -> Any:
        """The machine before training."""

    @abc.abstractmethod
    def _in_range(self, X: np.ndarray) -> np.ndarray:
        """Values that the machine can take, with a word where they were others."""

    def fit(self, X: Any, y: Any = None) -> Any:
        """Train the machine on the rows of X."""
        X = self._checked(X, reset=True)
        key = self._key()
        rows, scaling = self._scaled(X, first=True)
        found = fit_machine(
            self._start(rows, key),
            rows,
            epochs=self.n_iter,
            key=key,
            optimizer=self.learning_rate,
            batch_size=min(self.batch_size, len(X)),
            chains=self.chains,
            method=self._method(),
        )
        self.n_iter_, self.passes_ = self.n_iter, self.n_iter
        return self._keep(found.model, found.state, scaling)

    def partial_fit(self, X: Any, y: Any = None) -> Any:
        """One pass over the rows of X at the constant learning rate, from where the machine and its chains are."""
        first = not hasattr(self, "components_")
        X = self._checked(X, reset=first)
        key = self._key()
        rows, scaling = self._scaled(X, first)
        model = self._start(rows, key) if first else self._standard(self.model_, scaling)
        batch_size = min(self.batch_size, len(X))
        process = training(
            model,
            rows,
            self._method(),
            optimizer=self.learning_rate,
            batch_size=batch_size,
            chains=self.chains,
        )
        state = process.init(key)
        passes: int = 0 if first else self.passes_
        if not first and self.chains_.shape == state.chains.shape:
            state = state._replace(chains=jnp.asarray(self.chains_))
        steps = max(1, len(X) // batch_size)
        run = simulate(process, state, steps, key=key, start=passes * steps)
        self.passes_ = passes + 1
        return self._keep(run.state.model, run.state, scaling)

    def transform(self, X: Any) -> np.ndarray:
        """`P(h = 1 | v)` for each row."""
        check_is_fitted(self)
        return np.asarray(self.model_.hidden_mean(self._checked(X, reset=False)))

    def gibbs(self, v: Any) -> np.ndarray:
        """One Gibbs sweep from each row: new visible states."""
        check_is_fitted(self)
        v, model, rng = self._checked(v, reset=False), self.model_, check_random_state(self.random_state)
        h = model.draw_hidden(v, rng.uniform(size=(len(v), model.hidden)))
        noise = rng.normal(size=v.shape) if isinstance(model, GaussianRBM) else rng.uniform(size=v.shape)
        return np.asarray(model.draw_visible(h, noise))

    def log_likelihood(self, X: Any) -> Estimate:
        """The mean log-likelihood of the rows, in nats, with its error and status."""
        check_is_fitted(self)
        return log_likelihood(self.model_, self._sharp(self._checked(X, reset=False)))

    def score(self, X: Any, y: Any = None) -> float:
        """The mean log-likelihood of the rows, in nats (`log_likelihood` tells its error)."""
        found = self.log_likelihood(X)
        if not found.ok:
            warnings.warn(f"the log-likelihood cannot be trusted: {found.message}", stacklevel=2)
        return float(found)

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def _method(self) -> str:
        """How training takes the model's mean."""
        return "pcd"

    def _sharp(self, X: np.ndarray) -> np.ndarray:
        """Rows that have a likelihood."""
        return X

    def _scaled(self, X: np.ndarray, first: bool) -> tuple[np.ndarray, Any]:
        """Rows in the scale that training is done in, and that scale."""
        return X, None

    def _standard(self, model: Any, scaling: Any) -> Any:
        """The machine in the scale that training is done in."""
        return model

    def _keep(self, model: Any, state: Any, scaling: Any) -> Any:
        self.components_ = np.asarray(model.weights).T
        self.intercept_visible_ = np.asarray(model.visible_bias)
        self.intercept_hidden_ = np.asarray(model.hidden_bias)
        self.chains_ = np.asarray(state.chains)
        return self

    def _key(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _checked(self, X: Any, reset: bool) -> np.ndarray:
        if self.check_input not in ("warn", "raise"):
            raise ValueError(f'check_input must be "warn" or "raise", got {self.check_input!r}')
        for name in ("n_components", "batch_size", "n_iter", "chains"):
            value = getattr(self, name)
            if not is_whole(value) or value < 1:
                raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")
        least = self._least_rows if reset else 1
        return self._in_range(validate_data(self, X, reset=reset, dtype=np.float64, ensure_min_samples=least))

    def _say(self, sentence: str) -> None:
        if self.check_input == "raise":
            raise ValueError(sentence.split(": ")[0])
        warnings.warn(sentence, UserWarning, stacklevel=4)


class BernoulliRBM(_Estimator):
    """A restricted Boltzmann machine as a scikit-learn transformer: in place of `sklearn.neural_network.BernoulliRBM`.

    It is trained by persistent contrastive divergence with a centred gradient, a start at the means of the data, and
    a rate that falls linearly to 0. Unlike scikit-learn's, `score` is the mean log-likelihood, not a pseudo-likelihood.

    **Arguments**

    - `n_components`: hidden units. - `learning_rate`: where the rate starts, 0.5 by default.
    - `batch_size`, `n_iter`: data a step, passes over the data. - `chains`: persistent chains.
      The defaults were chosen on a validation part of the digits (`benchmarks/boltzmann_defaults.py`), among settings
      of no more than 6,000 steps there; batches of 25 do a little better in twice the time.
    - `verbose`: taken for compatibility; nothing is printed. - `random_state`: a seed or a `RandomState`.
    - `check_input`: data outside [0, 1] are clipped with a warning (`"warn"`), or refused (`"raise"`).

    **Attributes** after `fit`: `components_` (n_components, n_features), `intercept_hidden_`, `intercept_visible_`,
    `model_`, the same machine as a `tw.energy.RBM`.

    **The cost of `score`**: up to 18 units in the smaller layer it is exact and costs a sum over their states; beyond,
    it is annealed with 200 chains and 1000 steps (seconds) and carries the error that `log_likelihood` tells.

    >>> import numpy as np
    >>> from thalweg.energy import BernoulliRBM
    >>> data = np.array([[0, 0, 0], [1, 1, 1]] * 10)
    >>> rbm = BernoulliRBM(n_components=2, n_iter=500, random_state=0).fit(data)
    >>> rbm.transform(data).shape, bool(rbm.score(data) > -1.2)  # independent units reach -3 ln 2 = -2.079
    ((20, 2), True)
    """

    @property
    def model_(self) -> RBM:
        """The machine."""
        return RBM.from_sklearn(self)

    def _start(self, X: np.ndarray, key: int) -> RBM:
        return RBM.start(X, self.n_components, key)

    def _in_range(self, X: np.ndarray) -> np.ndarray:
        if np.any((X < 0) | (X > 1)):
            self._say(f"X must lie in [0, 1], got values from {X.min():.6g} to {X.max():.6g}: clipped")
            X = np.clip(X, 0, 1)
        return X

    def _sharp(self, X: np.ndarray) -> np.ndarray:
        if not np.all((X == 0) | (X == 1)):
            self._say("X must hold 0 and 1 only to have a likelihood: taken as X >= 0.5")
            X = (X >= 0.5).astype(float)
        return X


class GaussianBernoulliRBM(_Estimator):
    """A Boltzmann machine of real data, with trained variances, as a scikit-learn transformer.

    It is trained on standardised columns, whatever their units, and brought back to the units of X: up to 10 hidden
    units by the exact gradient, beyond by persistent chains. `score` is the mean log-density of the rows, in nats,
    in the units of X.

    **Arguments**

    - `n_components`: hidden units; the marginal is a mixture of 2^n_components Gaussians.
    - `learning_rate`: a learning rate of plain ascent; by default Adam with 0.01, falling linearly to 0 in `fit`.
    - `batch_size`, `n_iter`, `chains`, `random_state`: as of `BernoulliRBM`.
    - `check_input`: constant columns, which have no variance to learn, are given the variance 1 with a warning
      (`"warn"`), or refused (`"raise"`).

    **Attributes** after `fit`: `components_`, `intercept_hidden_`, `intercept_visible_`, `log_variance_` (n_features,),
    `model_`, the same machine as a `tw.energy.GaussianRBM`.

    **The cost of `score`**: as of `BernoulliRBM`; exact up to 18 hidden units.

    >>> import numpy as np
    >>> from thalweg.energy import GaussianBernoulliRBM
    >>> x = np.random.default_rng(0).normal(size=(400, 1)) + np.repeat([[-5.0], [5.0]], 200, axis=0)
    >>> rbm = GaussianBernoulliRBM(n_components=1, n_iter=100, random_state=0).fit(x)
    >>> bool(-2.25 < rbm.score(x) < -2.05)  # ln 2 more than one Gaussian: -(ln 2 + ln(2 pi e) / 2) = -2.112
    True
    """

    _least_rows = 2  # one has no variance

    def __init__(
        self,
        n_components: int = 16,
        *,
        learning_rate: float | None = None,
        batch_size: int = 50,
        n_iter: int = 200,
        chains: int = 100,
        verbose: int = 0,
        random_state: Any = None,
        check_input: str = "warn",
    ):
        super().__init__(
            n_components,
            learning_rate=learning_rate,
            batch_size=batch_size,
            n_iter=n_iter,
            chains=chains,
            verbose=verbose,
            random_state=random_state,
            check_input=check_input,
        )

    @property
    def model_(self) -> GaussianRBM:
        """The machine, in the units of X."""
        check_is_fitted(self)
        return GaussianRBM(
            self.components_.T, self.intercept_visible_, self.intercept_hidden_, np.asarray(self.log_variance_)
        )

    def _start(self, X: np.ndarray, key: int) -> GaussianRBM:
        return GaussianRBM.start(X, self.n_components, key)

    def _in_range(self, X: np.ndarray) -> np.ndarray:
        return X

    def _method(self) -> str:
        return "exact" if self.n_components <= EXACT_UNITS else "pcd"

    def _scaled(self, X: np.ndarray, first: bool) -> tuple[np.ndarray, Any]:
        if first:
            shift, scale = X.mean(axis=0), X.std(axis=0)
            flat = scale <= 1e-12 * np.maximum(1.0, np.abs(shift))
            if np.any(flat):
                self._say(f"X must have no constant column, column {int(np.argmax(flat))} is: given the variance 1")
            self.scaling_ = shift, np.where(flat, 1.0, scale)
            # Around a column that does not vary, small noise of a fixed seed stands for the variance 1.
            self.flat_ = flat
        shift, scale = self.scaling_
        rows = (X - shift) / scale
        if np.any(self.flat_) or np.any(rows.var(axis=0) < 1e-10):
            rng = np.random.default_rng(0)
            rows = rows + np.where(rows.var(axis=0) < 1e-10, rng.normal(size=rows.shape), 0.0)
        return rows, self.scaling_

    def _standard(self, model: GaussianRBM, scaling: Any) -> GaussianRBM:
        shift, scale = scaling
        return model.rescaled(-shift / scale, 1 / scale)

    def _keep(self, model: Any, state: Any, scaling: Any) -> "GaussianBernoulliRBM":
        model = model.rescaled(*scaling)
        self.log_variance_ = np.asarray(model.log_variance)
        super()._keep(model, state, scaling)
        return self
