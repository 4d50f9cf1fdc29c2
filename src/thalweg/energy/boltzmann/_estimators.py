"""The machine of two-valued units as a scikit-learn estimator, whose score is the log-likelihood."""

import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from thalweg._edge import is_whole
from thalweg._process import simulate
from thalweg._results import Estimate
from thalweg.energy.boltzmann._fit import fit as fit_machine
from thalweg.energy.boltzmann._likelihood import log_likelihood
from thalweg.energy.boltzmann._rbm import RBM
from thalweg.energy.boltzmann._training import training


class BernoulliRBM(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A restricted Boltzmann machine as a scikit-learn transformer: in place of `sklearn.neural_network.BernoulliRBM`.

    It is trained by persistent contrastive divergence with a centred gradient, a start at the means of the data, and
    a rate that falls linearly to 0. Unlike scikit-learn's, `score` is the mean log-likelihood, not a pseudo-likelihood.

    **Arguments**

    - `n_components`: hidden units. - `learning_rate`: where the rate starts. - `batch_size`, `n_iter`: data a step,
      passes over the data. - `chains`: persistent chains.
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

    def __init__(
        self,
        n_components: int = 256,
        *,
        learning_rate: float = 0.3,
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

    def fit(self, X: Any, y: Any = None) -> "BernoulliRBM":
        """Train the machine on the rows of X."""
        X = self._checked(X, reset=True)
        key = self._key()
        start = RBM.start(X, self.n_components, key)
        found = fit_machine(
            start,
            X,
            epochs=self.n_iter,
            key=key,
            optimizer=self.learning_rate,
            batch_size=min(self.batch_size, len(X)),
            chains=self.chains,
        )
        self.n_iter_, self.passes_ = self.n_iter, self.n_iter
        return self._keep(found.model, found.state)

    def partial_fit(self, X: Any, y: Any = None) -> "BernoulliRBM":
        """One pass over the rows of X at the constant learning rate, from where the machine and its chains are."""
        first = not hasattr(self, "components_")
        X = self._checked(X, reset=first)
        key = self._key()
        model = RBM.start(X, self.n_components, key) if first else self.model_
        batch_size = min(self.batch_size, len(X))
        process = training(model, X, optimizer=self.learning_rate, batch_size=batch_size, chains=self.chains)
        state = process.init(key)
        passes: int = 0 if first else self.passes_
        if not first and self.chains_.shape == state.chains.shape:
            state = state._replace(chains=jnp.asarray(self.chains_))
        steps = max(1, len(X) // batch_size)
        run = simulate(process, state, steps, key=key, start=passes * steps)
        self.passes_ = passes + 1
        return self._keep(run.state.model, run.state)

    def transform(self, X: Any) -> np.ndarray:
        """`P(h = 1 | v)` for each row."""
        check_is_fitted(self)
        X = self._checked(X, reset=False)
        return expit(X @ self.components_.T + self.intercept_hidden_)

    def gibbs(self, v: Any) -> np.ndarray:
        """One Gibbs sweep from each row: new visible states."""
        check_is_fitted(self)
        v = self._checked(v, reset=False)
        rng = check_random_state(self.random_state)
        h = rng.uniform(size=(len(v), len(self.components_))) < expit(v @ self.components_.T + self.intercept_hidden_)
        return (rng.uniform(size=v.shape) < expit(h @ self.components_ + self.intercept_visible_)).astype(float)

    def log_likelihood(self, X: Any) -> Estimate:
        """The mean log-likelihood of the rows, in nats, with its error and status."""
        check_is_fitted(self)
        X = self._checked(X, reset=False)
        if not np.all((X == 0) | (X == 1)):
            self._say("X must hold 0 and 1 only to have a likelihood: taken as X >= 0.5")
            X = (X >= 0.5).astype(float)
        return log_likelihood(self.model_, X)

    def score(self, X: Any, y: Any = None) -> float:
        """The mean log-likelihood of the rows, in nats (`log_likelihood` tells its error)."""
        found = self.log_likelihood(X)
        if not found.ok:
            warnings.warn(f"the log-likelihood cannot be trusted: {found.message}", stacklevel=2)
        return float(found)

    @property
    def model_(self) -> RBM:
        """The machine."""
        return RBM.from_sklearn(self)

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def _keep(self, model: Any, state: Any) -> "BernoulliRBM":
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
        X = validate_data(self, X, reset=reset, dtype=np.float64)
        if np.any((X < 0) | (X > 1)):
            self._say(f"X must lie in [0, 1], got values from {X.min():.6g} to {X.max():.6g}: clipped")
            X = np.clip(X, 0, 1)
        return X

    def _say(self, sentence: str) -> None:
        if self.check_input == "raise":
            raise ValueError(sentence.split(": ")[0])
        warnings.warn(sentence, UserWarning, stacklevel=3)
