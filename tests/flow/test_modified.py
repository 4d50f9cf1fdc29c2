"""Modified equations against the exact moments of one step and exact stationary variances."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp

import thalweg as tw
from thalweg import Status


def linear_variance(T, s, **kind):
    """Stationary variance of the diffusion for linear noise: the drift is linear, the diffusion quadratic."""
    equation = tw.flow.modified_equation(tw.systems.linear_noise(T, s), **kind)
    slope = float(jax.grad(equation.drift)(1.0))
    mean = 2 - float(equation.drift(2.0)) / slope  # where the drift vanishes
    curve = float(jax.grad(jax.grad(equation.diffusion))(1.0)) / 2
    return mean, float(equation.diffusion(mean)) / (-2 * slope - curve)


@pytest.mark.parametrize(
    "T, ito, drift_only, both",
    [(0.5, 0.040404, 0.032258, 0.048780), (0.1, 0.0080160, 0.0076336, 0.0084002)],
)
def test_linear_noise(T, ito, drift_only, both):
    assert linear_variance(T, 0.2, order=1) == pytest.approx((2, ito), rel=2e-5)
    assert linear_variance(T, 0.2, order=2, diffusion_order=1) == pytest.approx((2, drift_only), rel=2e-5)
    assert linear_variance(T, 0.2, order=2) == pytest.approx((2, both), rel=2e-5)


def test_both_corrections_leave_second_order():
    """Relative errors of the variance in T: 1/2, 1, and O(T^2)."""

    def error(T, **kind):
        exact = 4 * T * 0.04 / (2 - T - 0.04 * T)
        return linear_variance(T, 0.2, **kind)[1] / exact - 1

    for kind, power in (({"order": 1}, 1), ({"order": 2, "diffusion_order": 1}, 1), ({"order": 2}, 2)):
        slope = np.log2(error(0.02, **kind) / error(0.01, **kind))
        assert slope == pytest.approx(power, abs=0.05)
    assert error(0.01, order=2, diffusion_order=1) / error(0.01, order=1) == pytest.approx(2, abs=0.02)


@pytest.mark.parametrize("convention, mean", [("ito", 2.0), ("stratonovich", 2 / (1 - 0.01)), ("anti-ito", 2 / 0.98)])
def test_conventions_move_the_mean(convention, mean):
    equation = tw.flow.modified_equation(tw.systems.linear_noise(0.5), 1, convention)
    slope = float(jax.grad(equation.drift)(1.0))
    assert 1 - float(equation.drift(1.0)) / slope == pytest.approx(mean, rel=1e-12)


def pit_variance(T, **kind):
    """Variance in the pit, from the one-way gate at W = 1 (or where the diffusion turns positive) to the lip."""
    equation = tw.flow.modified_equation(tw.systems.pit(T), **kind)
    bottom, lip = tw.systems.pit_points()[:2]
    x = np.linspace(1.0, lip, 300_001)[1:]
    b, A = (np.asarray(jax.vmap(f)(x)) for f in (equation.drift, equation.diffusion))
    keep = np.flatnonzero((x < bottom) & (A <= 0))
    first = keep[-1] + 1 if len(keep) else 0
    x, b, A = x[first:], b[first:], A[first:]
    rate = 2 * b / A
    phi = np.concatenate([[0], np.cumsum((rate[1:] + rate[:-1]) / 2 * np.diff(x))])
    p = np.exp(phi - phi[np.searchsorted(x, bottom)]) / A
    mean = np.sum(p * x) / np.sum(p)
    return np.sum(p * (x - mean) ** 2) / np.sum(p)


def test_variance_in_the_pit():
    """The published table: exact 3.136e-6 at T = 0.001."""
    assert pit_variance(0.001, order=1) == pytest.approx(2.976e-6, rel=3e-4)
    assert pit_variance(0.001, order=2, diffusion_order=1) == pytest.approx(2.832e-6, rel=3e-4)
    assert pit_variance(0.001, order=2) == pytest.approx(3.139e-6, rel=3e-4)
    assert pit_variance(0.004, order=1) == pytest.approx(1.459e-5, rel=4e-4)
    assert pit_variance(0.004, order=2, diffusion_order=1) == pytest.approx(1.186e-5, rel=4e-4)
    assert pit_variance(0.004, order=2) == pytest.approx(1.984e-5, rel=4e-4)


def quadratics(T):
    """Two parameters, three data whose curvatures do not commute."""
    data = (
        jnp.array([[[1.0, 0.3], [0.3, 0.5]], [[0.2, -0.4], [-0.4, 1.5]], [[0.9, 0.1], [0.1, 0.1]]]),
        jnp.array([[1.0, 0.3], [-0.5, 1.0], [0.2, -1.2]]),
    )
    return tw.processes.sgd(lambda p, z: 0.5 * p @ z[0] @ p - z[1] @ p, data, T)


def test_vector_coefficients_match_the_moments_of_a_step():
    """Mean and covariance after t = 1 close for linear drift and quadratic diffusion; compare with one step."""
    x = np.array([0.3, -0.4])

    def mismatch(T, **kind):
        equation = tw.flow.modified_equation(quadratics(T), state=jnp.zeros(2), **kind)
        m, C = equation.increments.moments(jnp.asarray(x))
        slope, constant = jax.jacfwd(equation.drift)(jnp.zeros(2)), equation.drift(jnp.zeros(2))
        diffusion, curve = eqx.filter_jit(equation.diffusion), jax.hessian(equation.diffusion)(jnp.zeros(2)) / 2

        def field(t, y):
            mean, cov = y[:2], y[2:].reshape(2, 2)
            gain = diffusion(mean) + jnp.einsum("ijkl,kl->ij", curve, cov)
            return np.concatenate([slope @ mean + constant, np.ravel(slope @ cov + cov @ slope.T + gain)])

        end = solve_ivp(field, (0, 1), np.concatenate([x, np.zeros(4)]), rtol=1e-11, atol=1e-14).y[:, -1]
        return np.max(abs(end[:2] - x - m)), np.max(abs(end[2:].reshape(2, 2) - C))

    # Orders in T of the mismatch of mean and covariance: 2 and 3 uncorrected, 3 and 4 corrected.
    for kind, orders in (({"order": 1}, (2, 3)), ({"order": 2}, (3, 4))):
        coarse, fine = mismatch(0.02, **kind), mismatch(0.01, **kind)
        assert np.log2(np.divide(coarse, fine)) == pytest.approx(orders, abs=0.1)


def test_negative_diffusion_is_told_and_not_clipped():
    equation = tw.flow.modified_equation(tw.systems.pit(0.01), order=2)
    x = np.linspace(1.0, 1.19, 400)
    found = equation.validity(x)
    assert not found.ok and "negative" in found.message
    bad = np.asarray(found.status) == Status.UNDEFINED
    assert np.all(np.asarray(found.value)[bad] < 0) and np.all(np.asarray(found.value)[~bad] > -1e-15)
    assert float(equation.diffusion(x[bad][0])) < 0
    assert tw.flow.modified_equation(tw.systems.pit(0.01), order=1).validity(x).ok


def test_langevin_has_its_own_coefficients():
    process = tw.systems.double_well(temperature=0.3, dt=0.01)
    equation = tw.flow.modified_equation(process)
    assert float(equation.drift(0.5)) == pytest.approx(-0.01 * 4 * 0.5 * (0.25 - 1), rel=1e-12)
    assert float(equation.diffusion(0.5)) == pytest.approx(2 * 0.3 * 0.01, rel=1e-12)


def test_stationary_law_by_quadrature():
    """The order-1 density of linear noise, S^-2 exp(-int 2G/(T S^2)), has the closed variance."""
    equation = tw.flow.modified_equation(tw.systems.linear_noise(0.5))
    log_p = lambda x: -(2 + 2 / 0.02) * np.log(x) - (2 / 0.02) * 2 / x + 250  # noqa: E731
    z, m, v = (quad(lambda x, k=k: x**k * np.exp(log_p(x)), 0.5, 30, points=[2])[0] for k in range(3))
    assert v / z - (m / z) ** 2 == pytest.approx(linear_variance(0.5, 0.2, order=1)[1], rel=1e-4)
    assert float(equation.diffusion(1.5)) == pytest.approx(0.25 * 0.04 * 1.5**2)


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda p: tw.flow.modified_equation(p, 3), "order must be a whole number from 1 to 2, got 3"),
        (lambda p: tw.flow.modified_equation(p, True), "order must be a whole number from 1 to 2, got True"),
        (lambda p: tw.flow.modified_equation(p, 1, "Ito"), 'convention must be "ito"'),
        (lambda p: tw.flow.modified_equation(p).drift([1.0, 2.0]), r"point must have shape \(\), got \(2,\)"),
        (lambda p: tw.flow.modified_equation(p).validity(np.ones((2, 2))), "points must have shape"),
    ],
)
def test_bad_input(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(tw.systems.pit(0.01))


def test_noise_that_cannot_be_integrated():
    walk = tw.Process(lambda x, w: x + w, tw.noise.Uniform())
    with pytest.raises(ValueError, match="cannot be integrated"):
        tw.flow.modified_equation(walk)
    with pytest.raises(TypeError, match=r"process must be a tw\.Process"):
        tw.flow.modified_equation(3)
