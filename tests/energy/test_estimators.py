"""The scikit-learn estimator: scikit-learn's own checks, its conventions, and what its score means."""

import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

import thalweg as tw
from thalweg.energy import BernoulliRBM, GaussianBernoulliRBM


def _data(n=200, seed=0):
    rng = np.random.default_rng(seed)
    prototypes = rng.random((3, 12)) < 0.5
    labels = rng.integers(0, 3, n)
    return (prototypes[labels] ^ (rng.random((n, 12)) < 0.1)).astype(float), labels


X, LABELS = _data()
FITTED = BernoulliRBM(4, n_iter=100, random_state=0).fit(X)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [BernoulliRBM, GaussianBernoulliRBM])
def test_scikit_learns_own_checks(kind):
    check_estimator(kind(2, n_iter=2, random_state=0), on_skip=None)


def test_a_gaussian_machine_does_not_mind_units():
    x = tw.systems.gaussian_mixture().draw(300, 0)
    plain = GaussianBernoulliRBM(2, n_iter=200, random_state=0).fit(x)
    scale, shift = np.array([1000.0, 0.01]), np.array([5e4, -3.0])
    other = GaussianBernoulliRBM(2, n_iter=200, random_state=0).fit(x * scale + shift)
    assert other.score(x * scale + shift) == pytest.approx(plain.score(x) - np.log(scale).sum(), abs=1e-6)
    np.testing.assert_allclose(other.transform(x * scale + shift), plain.transform(x), atol=1e-7)
    alone = np.mean(np.sum(-((x - x.mean(0)) ** 2) / (2 * x.var(0)) - np.log(2 * np.pi * x.var(0)) / 2, axis=1))
    assert plain.score(x) > alone + 0.2
    again = plain.log_likelihood(x)
    assert again.error == 0 and float(again) == plain.score(x)
    with pytest.raises(ValueError, match="X must have no constant column, column 1 is"):
        GaussianBernoulliRBM(2, check_input="raise").fit(np.c_[x[:, 0], np.ones(300)])


def test_the_score_is_the_exact_log_likelihood():
    wanted = tw.energy.log_likelihood(tw.energy.RBM(FITTED.components_.T, FITTED.intercept_visible_,
                                                    FITTED.intercept_hidden_), X, "exact")  # fmt: skip
    assert FITTED.score(X) == pytest.approx(float(wanted), abs=1e-12)
    independent = np.mean(X, axis=0)
    baseline = np.mean(np.sum(X * np.log(independent) + (1 - X) * np.log1p(-independent), axis=1))
    assert FITTED.score(X) > baseline + 0.3


def test_conventions():
    assert FITTED.components_.shape == (4, 12)
    assert FITTED.transform(X).shape == (200, 4)
    assert list(FITTED.get_feature_names_out())[:2] == ["bernoullirbm0", "bernoullirbm1"]
    again = clone(FITTED).fit(X)
    np.testing.assert_array_equal(again.components_, FITTED.components_)
    np.testing.assert_allclose(FITTED.transform(X), FITTED.model_.hidden_mean(X), rtol=1e-12)
    assert set(np.unique(FITTED.gibbs(X))) == {0.0, 1.0}
    pipeline = make_pipeline(BernoulliRBM(4, n_iter=100, random_state=0), LogisticRegression())
    assert pipeline.fit(X, LABELS).score(X, LABELS) > 0.7


def test_partial_fit_goes_on():
    rbm = BernoulliRBM(4, batch_size=5, random_state=0)
    scores = []
    for _ in range(30):
        rbm.partial_fit(X)
        scores.append(rbm.score(X))
    assert scores[-1] > scores[0] + 0.1


def test_bad_input():
    with pytest.warns(UserWarning, match=r"X must lie in \[0, 1\], got values from -1 to 2: clipped"):
        FITTED.transform(np.where(X > 0, 2.0, -1.0))
    with pytest.warns(UserWarning, match="X must hold 0 and 1 only"):
        FITTED.score(0.5 * X)
    strict = BernoulliRBM(4, check_input="raise")
    with pytest.raises(ValueError, match=r"X must lie in \[0, 1\]"):
        strict.fit(3 * X)
    with pytest.raises(ValueError, match='check_input must be "warn" or "raise"'):
        BernoulliRBM(4, check_input="quiet").fit(X)
    with pytest.raises(ValueError, match="n_components must be a whole number >= 1, got 0"):
        BernoulliRBM(0).fit(X)
    with pytest.raises(ValueError, match="1 sample"):
        GaussianBernoulliRBM(2).fit(X[:1])
    with warnings.catch_warnings(), pytest.raises(ValueError, match="NaN"):
        strict.fit(np.full((3, 3), np.nan))
