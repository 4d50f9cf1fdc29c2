"""Error bars: they cover as often as they say, and what cannot be trusted says so."""

import math

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.special import ndtri
from scipy.stats import kstest, pearsonr, rankdata

import thalweg as tw
from thalweg import Status
from thalweg.stats._autocorrelation import autocovariance


def autoregression(rng, coefficient, shape):
    """Unit variance, stationary from the first value; tau = (1 + a)/(1 - a)."""
    noise = rng.normal(size=shape)
    noise[..., 1:] *= np.sqrt(1 - coefficient**2)
    return lfilter([1], [1, -coefficient], noise)


def times(coefficient):
    return (1 + coefficient) / (1 - coefficient)


# Error bars cover


COVERAGE = {
    "independent": (lambda rng: rng.normal(size=1000), 0.0),
    "exponential": (lambda rng: rng.exponential(size=1000), 1.0),
    "autoregression .9": (lambda rng: autoregression(rng, 0.9, 5000), 0.0),
    "autoregression -.5": (lambda rng: autoregression(rng, -0.5, 1000), 0.0),
    "log-normal and correlated": (lambda rng: np.exp(0.5 * autoregression(rng, 0.8, 4000)), math.exp(0.125)),
    "four chains": (lambda rng: autoregression(rng, 0.9, (4, 1500)), 0.0),
    "forty short chains": (lambda rng: autoregression(rng, 0.8, (40, 100)), 0.0),
}


def scores(name, runs, seed):
    make, truth = COVERAGE[name]
    rng = np.random.default_rng(seed)
    results = [tw.stats.analyse(make(rng)) for _ in range(runs)]
    return np.array([(r.value - truth) / r.error for r in results]), results


@pytest.mark.parametrize("name", COVERAGE)
def test_the_interval_covers_as_often_as_it_says(name):
    z, results = scores(name, 400, seed=1)
    assert 0.63 <= np.mean(np.abs(z) < 1) <= 0.73
    assert abs(z.mean()) < 4 / np.sqrt(400) and np.abs(z).max() < 4.5
    # Square root of the mean of 400 squares: its own error is 1/sqrt(800) = .035.
    assert abs(np.sqrt(np.mean(z**2)) - 1) < 0.12
    assert np.mean([r.ok for r in results]) > 0.93


@pytest.mark.slow
@pytest.mark.parametrize("name", COVERAGE)
def test_the_interval_covers_over_many_runs(name):
    z, _ = scores(name, 4000, seed=2)
    assert 0.655 <= np.mean(np.abs(z) < 1) <= 0.715
    assert abs(np.sqrt(np.mean(z**2)) - 1) < 0.06


@pytest.mark.parametrize("correlated", [False, True])
def test_weighted_means_cover(correlated):
    """Samples of N(0, 1) weighted to N(1/2, 1): the mean is 1/2."""
    rng = np.random.default_rng(3)
    z = []
    for _ in range(1000):
        x = autoregression(rng, 0.7, 4000) if correlated else rng.normal(size=1000)
        result = tw.stats.analyse(x, weights=np.exp(x / 2))
        z.append((result.value - 0.5) / result.error)
        assert 0.6 < result.effective_fraction < 0.95  # exp(-1/4) = .78 for long series
    assert 0.63 <= np.mean(np.abs(z) < 1) <= 0.73


def test_weights_give_the_textbook_error_and_equal_weights_change_nothing():
    rng = np.random.default_rng(4)
    x, w = rng.normal(size=2000), rng.uniform(0.1, 1.0, size=2000)
    result = tw.stats.analyse(x, weights=w)
    mean = np.sum(w * x) / np.sum(w)
    textbook = np.sqrt(np.sum(w**2 * (x - mean) ** 2)) / np.sum(w)
    assert result.value == pytest.approx(mean, rel=1e-12)
    assert result.error == pytest.approx(textbook * np.sqrt(result.autocorrelation_time.value), rel=2e-3)
    assert result.effective_fraction == pytest.approx(w.sum() ** 2 / (2000 * (w**2).sum()), rel=1e-12)
    equal, plain = tw.stats.analyse(x, weights=np.full(2000, 7.0)), tw.stats.analyse(x)
    assert equal.value == pytest.approx(plain.value, abs=1e-15)
    assert equal.error == pytest.approx(plain.error, rel=1e-12)
    assert equal.effective_sample_size.value == pytest.approx(plain.effective_sample_size.value, rel=1e-3)


# Autocorrelation time and blocking


@pytest.mark.parametrize("coefficient", [0.0, 0.5, 0.9, 0.99, -0.5])
def test_autocorrelation_time_of_an_autoregression(coefficient):
    rng = np.random.default_rng(5)
    n = 200_000
    found = [tw.stats.autocorrelation_time(autoregression(rng, coefficient, n)) for _ in range(10)]
    truth = times(coefficient)
    z = np.array([(tau.value - truth) / tau.error for tau in found])
    assert np.abs(z).max() < 3
    assert np.mean([tau.value for tau in found]) == pytest.approx(truth, rel=0.05)


def test_the_error_of_the_autocorrelation_time_is_right():
    rng = np.random.default_rng(6)
    found = [tw.stats.autocorrelation_time(autoregression(rng, 0.9, 10_000)) for _ in range(300)]
    spread = np.std([tau.value for tau in found])
    assert 0.75 < spread / np.mean([tau.error for tau in found]) < 1.1


def test_momentum_makes_correlations_swing_and_the_sum_goes_on():
    """Second order with poles r exp(+-i theta): tau is the spectrum at frequency 0 over the variance."""
    r, theta = 0.95, 2 * np.pi / 20
    a, b = 2 * r * np.cos(theta), -(r**2)
    truth = (1 / (1 - a - b) ** 2) / ((1 - b) / ((1 + b) * ((1 - b) ** 2 - a**2)))
    rng = np.random.default_rng(7)
    found = [tw.stats.analyse(lfilter([1], [1, -a, -b], rng.normal(size=41_000))[1000:]) for _ in range(40)]
    assert np.mean([r.autocorrelation_time.value for r in found]) == pytest.approx(truth, rel=0.1)
    assert 0.5 < np.mean([abs(r.value) < r.error for r in found]) < 0.85


def test_a_long_memory_is_found_through_block_means():
    result = tw.stats.analyse(autoregression(np.random.default_rng(8), 0.9999, (4, 2_000_000)))
    tau = result.autocorrelation_time
    assert result.lags[1] == 64 and abs(tau.value - 19999) < 2 * tau.error < 0.5 * 19999
    rho = np.interp(10_000, result.lags, result.autocorrelation)
    assert rho == pytest.approx(np.exp(-1), abs=0.15)


@pytest.mark.parametrize(("chains", "n", "lags"), [(1, 100, 99), (3, 1000, 40), (1, 100_000, 300), (300, 5000, 10)])
def test_autocovariance_is_the_mean_of_lagged_products(chains, n, lags):
    d = np.random.default_rng(9).normal(size=(chains, n))
    found = autocovariance(d, lags)
    for k in (0, 1, lags // 2, lags):
        assert found[k] == pytest.approx(np.mean(d[:, : n - k] * d[:, k:]), abs=1e-12)


def test_blocking_finds_the_error_of_an_autoregression():
    rng = np.random.default_rng(10)
    n, truth = 100_000, np.sqrt(19 / 100_000)
    curves = [tw.stats.blocking(autoregression(rng, 0.9, n)) for _ in range(40)]
    plateau = np.array([c.error.value for c in curves])
    assert np.mean(plateau) == pytest.approx(truth, rel=0.03)
    assert 0.6 < plateau.std() / np.mean([c.error.error for c in curves]) < 1.4
    assert curves[0].errors[0] == pytest.approx(1 / np.sqrt(n), rel=0.02)
    assert 100 < curves[0].block_size < 1000


def test_blocks_do_not_cross_chains():
    x = np.random.default_rng(11).normal(size=(10, 100))
    curve = tw.stats.blocking(x)
    assert curve.block_sizes.tolist() == [1, 2, 4, 8, 16, 32, 64, 100]
    assert curve.errors[-1] == pytest.approx(x.mean(axis=1).std(ddof=1) / np.sqrt(10), rel=1e-12)
    assert curve.errors[1] == pytest.approx(x.reshape(10, 50, 2).mean(axis=2).std(ddof=1) / np.sqrt(500), rel=1e-12)


# Chains


def test_r_hat_is_the_published_formula():
    x = np.random.default_rng(12).normal(size=(3, 101)) + np.array([[0], [0.3], [0]])
    halves = np.concatenate([x[:, :50], x[:, 51:]])

    def published(values):
        z = ndtri((rankdata(values) - 0.375) / (values.size + 0.25)).reshape(values.shape)
        within, between = z.var(axis=1, ddof=1).mean(), 50 * z.mean(axis=1).var(ddof=1)
        return np.sqrt((49 / 50 * within + between / 50) / within)

    expected = max(published(halves), published(np.abs(halves - np.median(halves))))
    assert tw.stats.r_hat(x) == pytest.approx(expected, rel=1e-12)


def test_r_hat_sees_places_spreads_and_drifts():
    rng = np.random.default_rng(13)
    x = rng.normal(size=(4, 2000))
    assert tw.stats.r_hat(x) < 1.005
    assert tw.stats.r_hat(rng.standard_cauchy(size=(4, 2000))) < 1.005
    assert tw.stats.r_hat(x * [[1], [1], [1], [3]]) > 1.05
    assert tw.stats.r_hat(x[0] + np.linspace(0, 2, 2000)) > 1.1
    assert tw.stats.r_hat(np.ones((2, 10))) == 1
    assert tw.stats.r_hat(np.repeat([[0.0], [1.0]], 10, axis=1)) == math.inf


def test_effective_sample_size_adds_over_chains():
    ess = tw.stats.effective_sample_size(autoregression(np.random.default_rng(14), 0.8, (8, 10_000)))
    assert abs(ess.value - 80_000 / 9) < 3 * ess.error and ess.error < 0.15 * ess.value


# Heavy tails


def inverse_distance(rng, n):
    return 1 / np.hypot(*rng.normal(size=(2, n)))


INFINITE = {
    "1/r in the plane, tail index exactly 2": inverse_distance,
    "a local energy with 1/r in it": lambda rng, n: 3 + rng.normal(size=n) - inverse_distance(rng, n),
    "Student 1.5": lambda rng, n: rng.standard_t(1.5, size=n),
    "Student 2": lambda rng, n: rng.standard_t(2, size=n),
    "Pareto 1.5": lambda rng, n: rng.pareto(1.5, size=n),
    "Cauchy": lambda rng, n: rng.standard_cauchy(size=n),
}
FINITE = {
    "Gaussian": lambda rng, n: rng.normal(size=n),
    "uniform": lambda rng, n: rng.random(n),
    "exponential": lambda rng, n: rng.exponential(size=n),
    "Laplace": lambda rng, n: rng.laplace(size=n),
    "Poisson": lambda rng, n: rng.poisson(3.0, size=n),
    "coin": lambda rng, n: rng.integers(2, size=n),
    "chi squared": lambda rng, n: rng.normal(size=n) ** 2,
    "log-normal .5": lambda rng, n: rng.lognormal(0, 0.5, size=n),
    "autoregression": lambda rng, n: autoregression(rng, 0.9, n),
}


def share_heavy(make, n, runs, seed=15):
    rng = np.random.default_rng(seed)
    return np.mean([tw.stats.heavy_tails(make(rng, n)).heavy for _ in range(runs)])


@pytest.mark.parametrize("n", [1000, 10_000])
@pytest.mark.parametrize("name", INFINITE)
def test_an_infinite_variance_is_flagged(name, n):
    assert share_heavy(INFINITE[name], n, 200) >= 0.95


@pytest.mark.parametrize("n", [300, 1000, 10_000])
@pytest.mark.parametrize("name", FINITE)
def test_a_finite_variance_is_not_flagged(name, n):
    # Short series of broad laws are the hard case: 300 values of chi squared are called heavy in .16.
    bound = 0.2 if n == 300 and name not in ("Gaussian", "uniform", "Poisson", "coin", "autoregression") else 0.05
    assert share_heavy(FINITE[name], n, 200) <= bound


@pytest.mark.slow
@pytest.mark.parametrize("n", [1000, 3000, 10_000, 100_000])
def test_the_verdict_over_many_runs(n):
    runs = 1000 if n < 100_000 else 300
    for make in INFINITE.values():
        assert share_heavy(make, n, runs, seed=16) >= 0.95
    assert share_heavy(FINITE["Gaussian"], n, runs, seed=16) <= 0.01
    if n >= 10_000:
        assert share_heavy(lambda rng, n: rng.standard_t(5, size=n), n, runs, seed=16) <= 0.02


def test_correlated_series_are_judged_by_their_independent_values():
    rng = np.random.default_rng(17)
    repeated = [tw.stats.heavy_tails(np.repeat(inverse_distance(rng, 5000), 8)) for _ in range(50)]
    assert np.mean([t.heavy for t in repeated]) > 0.9
    alone = tw.stats.heavy_tails(inverse_distance(rng, 5000))
    assert repeated[0].exceedances == pytest.approx(alone.exceedances, rel=0.2)
    filtered = [tw.stats.heavy_tails(lfilter([1], [1, -0.9], rng.pareto(1.5, 20_000))).heavy for _ in range(50)]
    assert np.mean(filtered) > 0.95
    short = tw.stats.heavy_tails(autoregression(rng, 0.9, 300))
    assert short.verdict == "undecided" and not short.heavy and short.shape.status == Status.TOO_SHORT


def test_the_tail_index_is_right_within_its_error():
    rng = np.random.default_rng(18)
    shapes = [tw.stats.heavy_tails(rng.pareto(1.5, size=20_000)).shape for _ in range(100)]
    z = np.array([(k.value - 1 / 1.5) / k.error for k in shapes])
    assert abs(z.mean()) < 0.4 and 0.8 < z.std() < 1.2
    tails = tw.stats.heavy_tails(-rng.pareto(1.5, size=20_000))
    assert tails.side == "lower" and tails.tail_index == pytest.approx(1.5, rel=0.2)
    assert tw.stats.heavy_tails(rng.random(1000)).tail_index == math.inf


def test_absurdly_heavy_tails_are_heavy_and_finite():
    rng = np.random.default_rng(33)
    with np.errstate(over="ignore"):
        for spread in (20, 100, 200):
            tails = tw.stats.heavy_tails(np.exp(np.clip(spread * rng.normal(size=2000), -700, 700)))
            assert tails.heavy and np.isfinite([tails.shape.value, tails.shape.error]).all()
    lonely = np.zeros(2000)
    lonely[::100] = np.exp(np.arange(0.0, 700.0, 35.0))
    assert tw.stats.heavy_tails(lonely).heavy


# Statuses


def test_too_short_says_how_much_longer_and_that_is_enough():
    rng = np.random.default_rng(19)
    enough = []
    for _ in range(30):
        result = tw.stats.analyse(autoregression(rng, 0.98, 2000))
        assert result.status == Status.TOO_SHORT
        factor = result.mean.details["factor"]
        assert factor == max(2, math.ceil(50 * result.autocorrelation_time.value / 2000))
        assert f"shorter than 50 autocorrelation times: run {factor}x longer" in result.message
        longer = tw.stats.autocorrelation_time(autoregression(rng, 0.98, 2000 * factor))
        enough.append(longer.details.get("factor", 1) <= 2)
    assert np.mean(enough) > 0.9


def test_each_status_is_reached():
    rng = np.random.default_rng(20)
    x = rng.normal(size=(4, 5000))
    swing = lfilter([1], [1, -2 * 0.995 * np.cos(0.3), 0.995**2], rng.normal(size=20_000))
    for series, status in [
        (x, Status.OK),
        (np.full(100, 0.1), Status.CONSTANT),
        (np.zeros((3, 100)), Status.CONSTANT),
        (rng.standard_cauchy(size=5000), Status.HEAVY_TAILS),
        (x + np.array([[0], [0], [0], [0.5]]), Status.CHAINS_DISAGREE),
        (x[0] + 0.4 * (np.arange(5000) > 2500), Status.DRIFTS),
        (np.cumsum(x[0]), Status.TOO_SHORT),
        (swing, Status.ERRORS_DISAGREE),
    ]:
        result = tw.stats.analyse(series)
        assert status in (result.problems or (Status.OK,)), (status, result.problems)
        assert result.ok == (status == Status.OK)
        assert "..." not in result.message and "\n" not in result.message
        assert np.isfinite([result.value, result.error]).all()
    few = tw.stats.analyse(x[0], weights=np.exp(4 * x[0]))
    assert Status.FEW_WEIGHTS in few.problems or few.heavy_tails
    alone = tw.stats.analyse(x[0], weights=np.eye(1, 5000)[0])
    assert alone.status == Status.FEW_WEIGHTS and alone.value == x[0, 0] and alone.error == math.inf
    assert alone.message == "few values carry the weight (1 of 5000): bring the samples nearer to the target"


def test_a_stuck_chain_is_worth_one_value():
    result = tw.stats.analyse(np.full(100, 3.0))
    assert (result.value, result.error) == (3.0, 0.0)
    assert result.effective_sample_size.value == 1 and result.autocorrelation_time.value == 100
    assert tw.stats.autocorrelation_time(np.full(100, 3.0)).status == Status.CONSTANT
    assert tw.stats.blocking(np.full(100, 3.0)).error.value == 0


# Laws


@pytest.mark.parametrize("scale", [1e-300, 1e-30, -2.0, 1e30, 1e300])
def test_units_do_not_matter(scale):
    x = autoregression(np.random.default_rng(21), 0.8, 3000)
    one, other = tw.stats.analyse(x), tw.stats.analyse(scale * x)
    assert other.value == pytest.approx(scale * one.value, rel=1e-6)
    assert other.error == pytest.approx(abs(scale) * one.error, rel=1e-6)
    assert other.autocorrelation_time.value == pytest.approx(one.autocorrelation_time.value, rel=1e-6)
    assert other.tails.shape.value == pytest.approx(one.tails.shape.value, rel=1e-4)


def test_an_offset_does_not_matter():
    x = autoregression(np.random.default_rng(22), 0.8, 3000)
    assert tw.stats.mean(x + 1e6).error == pytest.approx(tw.stats.mean(x).error, rel=1e-6)


def test_every_way_to_hold_numbers_gives_the_same():
    import jax.numpy as jnp
    import xarray

    x = autoregression(np.random.default_rng(23), 0.5, (2, 500))
    expected = tw.stats.mean(x)
    for same in (
        x.tolist(),
        jnp.asarray(x),
        x[::-1],
        xarray.DataArray(x, dims=("chain", "draw")),
        xarray.DataArray(x.T, dims=("draw", "chain")),
        np.asfortranarray(x),
        np.ma.masked_array(x),
    ):
        found = tw.stats.mean(same)
        assert float(found.error) == pytest.approx(float(expected.error), rel=1e-9)
    assert tw.stats.mean(x[0]).error == tw.stats.mean(x[:1]).error
    assert tw.stats.mean([True, False] * 50).value == 0.5
    assert tw.stats.mean(x.astype(np.float32)).error == pytest.approx(float(expected.error), rel=1e-5)
    before = x.copy()
    tw.stats.analyse(x, weights=np.ones_like(x))
    assert (x == before).all()


def test_the_report_and_the_dataset_hold_the_numbers(tmp_path):
    result = tw.stats.analyse(autoregression(np.random.default_rng(24), 0.9, 20_000))
    text = str(result)
    for word in ("mean", "±", "autocorrelation time", "R-hat", "tails", "the result can be trusted"):
        assert word in text
    data = result.to_xarray()
    assert set(data.data_vars) == {"blocking_error", "blocking_error_error", "blocks", "autocorrelation"}
    assert data.attrs["error"] == result.error and data.autocorrelation[0] == 1
    pytest.importorskip("h5py")
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    for odd in (np.ones(10), np.arange(10.0), np.random.default_rng(0).standard_cauchy(10)):
        other = tw.stats.analyse(odd)
        other.to_xarray().to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
        assert "nan" not in str(other)


@pytest.mark.slow
def test_ten_million_numbers_take_seconds_and_little_memory():
    import time
    import tracemalloc

    x = autoregression(np.random.default_rng(25), 0.99, 10_000_000)
    start = time.perf_counter()
    assert tw.stats.analyse(x).ok
    assert time.perf_counter() - start < 20
    tracemalloc.start()
    tw.stats.analyse(x)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 6 * x.nbytes


# Bootstrap and permutations


def test_bootstrap_gives_known_errors():
    rng = np.random.default_rng(26)
    x = rng.normal(size=4000)
    mean = tw.stats.bootstrap(x, key=0)
    assert mean.value == x.mean() and mean.error == pytest.approx(x.std() / np.sqrt(4000), rel=0.1)
    low, high = mean.details["interval"]
    assert high - low == pytest.approx(2 * mean.error, rel=0.1) and mean.ok
    both = tw.stats.bootstrap(x, lambda v: np.array([v.mean(), v.var()]), key=0, resamples=400)
    assert both.error[1] == pytest.approx(np.sqrt(2 / 4000), rel=0.15)


def test_block_bootstrap_keeps_correlations():
    rng = np.random.default_rng(27)
    errors = [tw.stats.bootstrap(autoregression(rng, 0.9, 20_000), key=i, resamples=200).error for i in range(20)]
    assert np.mean(errors) == pytest.approx(np.sqrt(19 / 20_000), rel=0.1)
    naive = tw.stats.bootstrap(autoregression(rng, 0.9, 20_000), key=0, resamples=200, block_size=1)
    assert naive.error == pytest.approx(np.sqrt(1 / 20_000), rel=0.2)


def test_same_key_same_numbers():
    import jax

    x = np.random.default_rng(28).normal(size=100)
    for key in (3, jax.random.key(3), jax.random.PRNGKey(3)):
        assert tw.stats.bootstrap(x, key=key).error == tw.stats.bootstrap(x, key=key).error
        p = [tw.stats.permutation_test(x[:50], x[50:], key=key).value for _ in range(2)]
        assert p[0] == p[1]
    assert tw.stats.bootstrap(x, key=3).error != tw.stats.bootstrap(x, key=4).error


def test_bootstrap_statuses():
    x = np.random.default_rng(29).normal(size=100)
    assert tw.stats.bootstrap(np.ones(20), key=0).status == Status.CONSTANT
    broken = tw.stats.bootstrap(x, lambda v: v.mean() if v.max() == x.max() else math.nan, key=0)
    assert broken.status == Status.UNDEFINED and "of 1000 resamples" in broken.message and np.isfinite(broken.error)
    assert tw.stats.bootstrap(np.cumsum(x), key=0).status == Status.TOO_SHORT


def test_permutation_p_values_are_uniform_under_chance():
    rng = np.random.default_rng(30)
    for statistic in ("difference", "correlation"):
        p = [
            tw.stats.permutation_test(
                rng.exponential(size=15), rng.exponential(size=15), statistic, key=i, permutations=199
            )
            for i in range(400)
        ]
        values = np.array([float(q.value) for q in p])
        assert kstest(values - rng.random(400) / 200, "uniform").pvalue > 1e-3
        assert np.mean(values <= 0.05) == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 400))


def test_permutation_test_agrees_with_known_answers():
    p = tw.stats.permutation_test([1, 2, 3, 4], [5, 6, 7, 8], key=0)
    assert abs(p.value - 2 / 70) < 3 * p.error and p.details["statistic"] == -4
    less = tw.stats.permutation_test([1, 2, 3, 4], [5, 6, 7, 8], key=0, alternative="less")
    assert abs(less.value - 1 / 70) < 3 * less.error
    more = tw.stats.permutation_test([1, 2, 3, 4], [5, 6, 7, 8], key=0, alternative="greater")
    assert more.value == 1
    rng = np.random.default_rng(31)
    x = rng.normal(size=60)
    y = 0.3 * x + rng.normal(size=60)
    p = tw.stats.permutation_test(x, y, "correlation", key=0, permutations=50_000)
    exact = pearsonr(x, y)
    assert p.details["statistic"] == pytest.approx(exact.statistic, rel=1e-12)
    assert p.value == pytest.approx(exact.pvalue, rel=0.2)
    by_hand = tw.stats.permutation_test(x, y, lambda a, b: np.corrcoef(a, b)[0, 1], key=1, paired=True)
    assert by_hand.value == pytest.approx(p.value, abs=4 * by_hand.error)
    groups = tw.stats.permutation_test(x, y + 1, lambda a, b: np.mean(a) - np.mean(b), key=1)
    assert groups.details["null_sd"] == pytest.approx(
        tw.stats.permutation_test(x, y + 1, key=1).details["null_sd"], rel=0.05
    )
    assert tw.stats.permutation_test([1.0, 1.0], [1.0, 1.0], key=0).status == Status.UNDEFINED


# Bad input

x = np.random.default_rng(32).normal(size=20)
ONE_SERIES = [
    tw.stats.analyse,
    tw.stats.mean,
    tw.stats.autocorrelation,
    tw.stats.autocorrelation_time,
    tw.stats.blocking,
    tw.stats.effective_sample_size,
    tw.stats.r_hat,
    tw.stats.heavy_tails,
    lambda series: tw.stats.bootstrap(series, key=0),
]
BAD_SERIES = {
    "short": ([1.0] * 7, "at least 8 values"),
    "empty": ([], "at least 8 values"),
    "a number": (3.0, "got shape"),
    "three axes": (np.zeros((2, 10, 10)), "got shape"),
    "transposed": (np.zeros((1000, 4)), "transpose"),
    "nan": ([*x, math.nan], "got nan at position 20"),
    "inf in a chain": (np.stack([x, np.where(x == x.max(), math.inf, x)]), "at chain 1"),
    "text": (["a"] * 10, "array of numbers"),
    "objects": ([None] * 10, "array of numbers"),
    "ragged": ([[1.0] * 9, [1.0] * 8], "array of numbers"),
    "complex": (x + 1j, "must be real"),
    "a dict": ({"a": 1}, "array of numbers"),
    "none": (None, "array of numbers"),
    "dates": (np.arange(10).astype("datetime64[s]"), "array of numbers"),
    "masked": (np.ma.masked_greater(x, 0.0), "masked"),
}


@pytest.mark.parametrize("name", BAD_SERIES)
def test_a_bad_series_is_refused_in_one_sentence(name):
    series, sentence = BAD_SERIES[name]
    for function in ONE_SERIES:
        with pytest.raises((ValueError, TypeError), match=sentence) as caught:
            function(series)
        assert str(caught.value).startswith("series must") and "\n" not in str(caught.value)


def traced():
    import jax

    jax.jit(lambda series: tw.stats.mean(series).value)(np.ones(10))


BAD_CALLS = {
    "a traced series": (traced, "series must be plain numbers, got an array that JAX is tracing"),
    "weights of another shape": (
        lambda: tw.stats.analyse(x, x[:5] ** 2),
        r"weights must have the shape .*\(20,\), got \(5,\)",
    ),
    "negative weights": (lambda: tw.stats.analyse(x, x), "weights must be >= 0"),
    "no weight": (lambda: tw.stats.analyse(x, 0 * x), "weights must not sum to 0"),
    "weight nan": (lambda: tw.stats.analyse(x, x * math.nan), "weights must be finite"),
    "weights text": (lambda: tw.stats.analyse(x, "abc"), "weights must be an array"),
    "lags": (lambda: tw.stats.autocorrelation(x, lags=0), "lags must be an integer >= 1"),
    "resamples": (lambda: tw.stats.bootstrap(x, key=0, resamples=1), "resamples must be an integer >= 2"),
    "block size": (lambda: tw.stats.bootstrap(x, key=0, block_size=21), "block_size must be <= "),
    "block size 0": (
        lambda: tw.stats.bootstrap(x, key=0, block_size=0),
        "block_size must be an integer >= 1",
    ),
    "level": (lambda: tw.stats.bootstrap(x, key=0, level=95), "level must lie between 0 and 1"),
    "statistic": (lambda: tw.stats.bootstrap(x, "median", key=0), "statistic must be a function"),
    "key": (lambda: tw.stats.bootstrap(x, key=None), "key must be an integer"),
    "key text": (lambda: tw.stats.bootstrap(x, key="a"), "key must be an integer"),
    "key negative": (lambda: tw.stats.permutation_test(x, x, key=-1), "key must be an integer >= 0"),
    "alternative": (
        lambda: tw.stats.permutation_test(x, x, key=0, alternative="both"),
        "alternative must be",
    ),
    "unpaired": (lambda: tw.stats.permutation_test(x, x[1:], "correlation", key=0), "as long as x"),
    "paired": (lambda: tw.stats.permutation_test(x, x, key=0, paired=True), "paired must be False"),
    "statistic name": (
        lambda: tw.stats.permutation_test(x, x, "mean", key=0),
        "statistic must be 'difference'",
    ),
    "statistic nan": (
        lambda: tw.stats.permutation_test(x, x, lambda a, b: math.nan, key=0),
        "one finite number",
    ),
    "statistic array": (lambda: tw.stats.permutation_test(x, x, lambda a, b: a, key=0), "one finite number"),
    "two axes": (lambda: tw.stats.permutation_test(np.stack([x, x]), x, key=0), "x and y must have shape"),
    "one value": (lambda: tw.stats.permutation_test([1.0], x, key=0), "x must have at least 2 values"),
    "permutations": (lambda: tw.stats.permutation_test(x, x, key=0, permutations=0), "permutations must be"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_a_bad_call_is_refused_in_one_sentence(name):
    call, sentence = BAD_CALLS[name]
    with pytest.raises((ValueError, TypeError), match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value)
