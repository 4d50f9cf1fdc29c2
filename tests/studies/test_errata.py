"""Each line of the errata is checked here, by the test that bears its name."""

import numpy as np
from numpy.polynomial import Polynomial

import thalweg as tw
from thalweg.studies.errata import ERRATA


def test_every_erratum_has_its_test_and_a_name_of_its_own():
    names = [entry.id for entry in ERRATA]
    assert len(set(names)) == len(names)
    missing = [name for name in names if f"test_{name}" not in globals()]
    assert not missing, f"errata without a test: {missing}"


def test_every_erratum_says_all_it_must():
    for entry in ERRATA:
        assert all([entry.source, entry.place, entry.printed, entry.right, entry.checked])
        assert entry.printed != entry.right


def test_variance_of_the_linear_noise():
    position = np.random.default_rng(1).normal(size=100)
    slopes = np.stack([1.2 * position - 2, 0.8 * position - 2])
    np.testing.assert_allclose(slopes.var(axis=0), 0.04 * position**2, rtol=1e-12)


def test_cross_term_of_the_diffusion():
    spread, density = Polynomial([1.0, -0.3, 0.2]), Polynomial([0.5, 0.1, -0.4, 0.7])
    whole = 0.5 * (spread * (spread * density).deriv()).deriv()
    # Besides the cross term: P times (S S')', and S^2 P'' / 2.
    rest = 0.5 * (spread * spread.deriv()).deriv() * density + 0.5 * spread**2 * density.deriv(2)
    cross = 1.5 * spread * spread.deriv() * density.deriv()
    np.testing.assert_allclose((whole - rest - cross).coef, 0, atol=1e-12)


def test_master_equation():
    variance, density = Polynomial([1.0, 0.3, 0.5]), Polynomial([0.5, 0.1, -0.4, 0.7])

    def diffusion(cross):
        rest = 0.5 * variance * density.deriv(2) + 0.5 * variance.deriv(2) * density
        return rest + cross * variance.deriv() * density.deriv()

    np.testing.assert_allclose((diffusion(1.0) - 0.5 * (variance * density).deriv(2)).coef, 0, atol=1e-12)
    # A density that vanishes at both ends with its slope: what the printed term makes of its mass.
    density = Polynomial([1.0, 0.0, -1.0]) ** 2
    made = diffusion(0.5).integ()(1) - diffusion(0.5).integ()(-1)
    claimed = 0.5 * ((variance.deriv(2) * density).integ()(1) - (variance.deriv(2) * density).integ()(-1))
    assert abs(made - claimed) < 1e-12 and claimed > 0.1


def test_continuity():
    position, density = Polynomial([0.0, 1.0]), Polynomial([1.0, 0.0, -1.0]) ** 2 * Polynomial([1.0, 0.4])
    force, learning_rate = Polynomial([0.2, 1.0, 0.5]), 0.1
    change = learning_rate * (force * density).deriv()
    moved = (position * change).integ()
    expected = (force * density).integ()
    np.testing.assert_allclose(moved(1) - moved(-1), -learning_rate * (expected(1) - expected(-1)), rtol=1e-12)


def test_sign_of_the_spreading():
    position, density = Polynomial([0.0, 1.0]), Polynomial([1.0, 0.0, -1.0]) ** 4
    variance, learning_rate = Polynomial([1.0, 0.3, 0.5]), 0.1
    current = -(learning_rate**2) / 2 * (variance * density).deriv()
    grown = (position**2 * -current.deriv()).integ()
    expected = (variance * density).integ()
    np.testing.assert_allclose(grown(1) - grown(-1), learning_rate**2 * (expected(1) - expected(-1)), rtol=1e-12)
    assert grown(1) - grown(-1) > 0


def test_from_deviation_to_variance():
    spread = Polynomial([1.0, -0.3, 0.2])
    np.testing.assert_allclose((0.5 * spread * spread.deriv() - 0.25 * (spread**2).deriv()).coef, 0, atol=1e-14)


def test_stationary_density():
    learning_rate, grid = 0.1, np.linspace(-1, 1, 50)
    force, spread = Polynomial([0.2, 1.0, 0.5]), Polynomial([1.0, 0.3, 0.1])
    variance = spread**2
    slope = -variance.deriv()(grid) / variance(grid) - 2 * force(grid) / (learning_rate * variance(grid))
    # J / P = -T G - (T^2/2) (S^2 P)' / P, the Ito current.
    current = -learning_rate * force(grid) - learning_rate**2 / 2 * (variance.deriv()(grid) + variance(grid) * slope)
    np.testing.assert_allclose(current, 0, atol=1e-14)


def test_swapped_thermostat_cells():
    start = np.eye(3)[::-1] / 3
    for kind, other in (("dumb", "low,warm"), ("smart", "off,warm")):
        right = tw.systems.thermostat_table(kind)
        as_printed = {**right, ("off", "hot"): tuple(other.split(","))}
        assert right["off", "hot"] != as_printed["off", "hot"]
        system = tw.steering.FiniteSystem(as_printed, right.parts)
        images = system.entropy(system.push(start)), system.entropy(system.push(system.decorrelate(start)))
        np.testing.assert_allclose(images, (0.91830, 2.50326), atol=5e-6)


def test_square_to_rhombus():
    gain, e = 0.3, 0.1
    step = np.array([[0.0, 1.0], [-gain, 1.0]])  # of (T, R)
    corners = e * np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) @ step.T
    sides = np.linalg.norm(np.diff(corners, axis=0), axis=1)
    np.testing.assert_allclose(sides, [gain * e, np.sqrt(2) * e, gain * e])
    np.testing.assert_allclose(np.ptp(corners[:, 1]), e * (1 + gain))


def test_thermostat_recurrence():
    room, thermostat = 35.0, 10.0
    for _ in range(1000):
        thermostat, room = thermostat - 25.0, room - 0.01 * thermostat
    assert abs(room - 124810) < 0.5
    right = tw.systems.thermostat(0.01, 25.0)
    assert abs(float(tw.simulate(right, right.init(room=35.0, thermostat=10.0), 1000).state["room"]) - 25) < 0.01
    printed = tw.Process(
        lambda s, w: {"R": s["R"] - 0.01 * tw.node(s["T"], "T"), "T": tw.node(s["T"], "T") - 25.0},
        names=lambda s: {"R": "R", "T": "T"},
    )
    np.testing.assert_array_equal(tw.steering.op(printed, {"R": 35.0, "T": 10.0}, 50, "T", "R", "R").op, 0.0)


def test_integral_of_the_second_landscape():
    for theta, power, right in ((1.0, 1.0, 19.96), (0.5, 1.0, 19.96), (1.0, 0.5, 9.98)):
        room = tw.systems.saturating_thermostat(theta, power, 25.0, 0.02)
        ends = [float(tw.simulate(room, room.init(r, 0.0), 500).state["room"]) for r in (5.0, 45.0)]
        assert abs(40 - (ends[1] - ends[0]) - right) < 1e-9


def test_lorenz_sentence_on_sizes():
    lorenz = tw.systems.lorenz(0.8)
    w = tw.simulate(lorenz, lorenz.init(a=1, b=1, c=1), 1000)
    change = lambda s: {**s, "b": s["b"] + 1e-6}  # noqa: E731
    x, y = tw.fork(w, 0, state=change), tw.fork(w, 0, state=change, process=tw.clamp(lorenz, "a"))
    assert abs(float(y.state["b"] - w.state["b"])) < 0.01 * abs(float(x.state["b"] - w.state["b"]))


def _lorenz_rate(rho, a, c):
    """The largest real part of the eigenvalues at a fixed point."""
    return np.linalg.eigvals([[-10, 10, 0], [rho - c, -1, -a], [a, a, -8 / 3]]).real.max()


def test_lorenz_stable_points():
    for rho, stable in ((5.0, True), (24.73, True), (24.75, False)):
        a = np.sqrt(8 / 3 * (rho - 1))
        assert _lorenz_rate(rho, 0.0, 0.0) > 0
        assert (_lorenz_rate(rho, a, rho - 1) < 0) == stable
    assert abs(10 * (10 + 8 / 3 + 3) / (10 - 8 / 3 - 1) - 24.7368) < 5e-5


def test_lorenz_sign():
    def printed(s):
        return {
            "a": 10 * (s["a"] - s["b"]),
            "b": s["a"] * (28 - s["c"]) - s["b"],
            "c": s["a"] * s["b"] - 8 / 3 * s["c"],
        }

    run = tw.simulate(tw.processes.ode(printed, 0.01), {"a": 1.0, "b": 1.1, "c": 1.0}, 500)
    assert int(run.status) == tw.Status.NOT_FINITE


def test_dead_zone_of_the_thermostat():
    room = tw.systems.saturating_thermostat(1.0, 1.0, 25.0, 0.02)
    found = tw.steering.op(room, room.init(25.5, 0.5), 500, "thermostat", "room", "room", read="end")
    assert float(found.op) > 5  # as plotted; with Therm = 0 inside it would be 0


def test_comp_as_a_ratio():
    room = tw.systems.thermostat(0.1, 25.0)
    at = room.init(room=35.0, thermostat=10.0)
    kinds = [tw.steering.op(room, at, 20, "thermostat", "room", "room", method="fork", size=s) for s in (1e-2, 1e-5)]
    np.testing.assert_allclose(kinds[0].op, kinds[1].op, atol=1e-6)
    w = tw.simulate(room, at, 20).state["room"]
    ends = [tw.simulate(room, {**at, "room": at["room"] + s}, 20).state["room"] - w for s in (1e-2, 1e-5)]
    np.testing.assert_allclose(ends[1] / ends[0], 1e-3, rtol=1e-5)


# The lecture notes on Boltzmann machines: small machines, every sum written out.

_W, _A, _B = np.array([[0.5, -1.2], [0.8, 0.3], [-0.4, 0.9]]), np.array([0.2, -0.5, 0.7]), np.array([0.3, -0.6])
_X = np.array([[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)], float)
_H = np.array([[j & 1, j >> 1 & 1] for j in range(4)], float)


def _joint(sign=1.0, beta=1.0, W=_W, a=_A, b=_B):
    """exp(-beta E) with E = -sign (a.x + b.h + x.W.h), rows x and columns h."""
    return np.exp(beta * sign * ((_X @ a)[:, None] + _H @ b + _X @ W @ _H.T))


def _logistic(t):
    return 1 / (1 + np.exp(-t))


def test_energy_of_the_binary_machine():
    for sign, wanted in ((1.0, _logistic(_B + _X @ _W)), (-1.0, 1 - _logistic(_B + _X @ _W))):
        joint = _joint(sign)
        np.testing.assert_allclose(joint @ _H / joint.sum(axis=1, keepdims=True), wanted, atol=1e-14)


def test_energy_of_the_gaussian_machine():
    x, s2 = np.array([0.4, -1.1, 0.9]), np.array([0.5, 0.8, 1.7])

    def log_marginal(W, right):
        coupling = (x / s2 if right else -x) @ W @ _H.T
        field = (1 if right else -1) * _H @ _B + coupling
        return -np.sum((x - _A) ** 2 / (2 * s2)) + np.log(np.sum(np.exp(field)))

    printed = np.outer(x / s2, _logistic(_B + (x / s2) @ _W))
    for right in (True, False):
        quotient = np.empty_like(_W)
        for i, j in np.ndindex(_W.shape):
            step = np.zeros_like(_W)
            step[i, j] = 1e-6
            quotient[i, j] = (log_marginal(_W + step, right) - log_marginal(_W - step, right)) / 2e-6
        assert np.allclose(quotient, printed, atol=1e-8) == right


def _model_mean_of_xh(W=_W):
    p = _joint(W=W)
    return np.einsum("xh,xi,hj->ij", p / p.sum(), _X, _H)


def test_law_of_the_mean_gradient():
    quotient = np.empty_like(_W)
    for i, j in np.ndindex(_W.shape):
        step = np.zeros_like(_W)
        step[i, j] = 1e-6
        quotient[i, j] = (np.log(_joint(W=_W + step).sum()) - np.log(_joint(W=_W - step).sum())) / 2e-6
    np.testing.assert_allclose(quotient, _model_mean_of_xh(), atol=1e-9)
    over_data = _X[3][:, None] * _logistic(_B + _X[3] @ _W)
    assert np.abs(quotient - over_data).max() > 0.2


def test_gradient_in_the_training_loop():
    data = _X[[1, 3, 3, 6]]
    batch = data.T @ _logistic(_B + data @ _W) / len(data)

    def likelihood(W):
        joint = _joint(W=W)
        return np.mean(np.log(joint.sum(axis=1))[[1, 3, 3, 6]]) - np.log(joint.sum())

    for direction, is_gradient in ((batch - _model_mean_of_xh(), True), (batch, False)):
        slope = (likelihood(_W + 1e-6 * direction) - likelihood(_W - 1e-6 * direction)) / 2e-6
        assert np.isclose(slope, np.sum(direction**2), atol=1e-8) == is_gradient


def test_newton_raphson():
    """The mean likelihood as a function of the visible biases alone: its slope, its curvature, and its only root."""
    law = _joint().sum(axis=1) * np.exp(-_X @ _A)  # p~(x) less its visible biases
    data_mean = np.array([0.6, 0.3, 0.75])

    def slope_and_curvature(a):
        p = law * np.exp(_X @ a)
        p = p / p.sum()
        mean = p @ _X
        return data_mean - mean, np.outer(mean, mean) - (_X * p[:, None]).T @ _X

    def search(step, times=6):
        a = np.zeros(3)
        for _ in range(times):
            a = a + step(*slope_and_curvature(a))
        return np.abs(slope_and_curvature(a)[0]).max()

    assert search(lambda g, h: -np.linalg.solve(h, g)) < 1e-12
    assert min(search(lambda g, h, eta=eta: eta * g) for eta in np.geomspace(0.01, 10, 61)) > 1e-7


def test_marginal_among_the_conditionals():
    joint = _joint() / _joint().sum()
    np.testing.assert_allclose((joint / joint.sum(axis=1, keepdims=True)).sum(axis=1), 1, atol=1e-14)
    printed = joint.sum(axis=1)[:, None] / joint.sum(axis=0)[None]
    assert np.abs(printed.sum(axis=1) - 1).min() > 0.05


def test_letters_of_the_machines():
    product = np.exp(_X @ _A) * np.prod(1 + np.exp(_B + _X @ _W), axis=1)
    np.testing.assert_allclose(_joint().sum(axis=1), product, rtol=1e-13)
    assert np.abs(_joint(beta=2.0).sum(axis=1) / product - 1).max() > 0.1


def _gaussian_machine(coordinates=4, hidden=3):
    """A machine with s^2 = 0.7, and a place."""
    rng = np.random.default_rng(2)
    w, a, b = rng.normal(size=(coordinates, hidden)), rng.normal(size=coordinates), rng.normal(size=hidden)
    return tw.energy.GaussianRBM(w, a, b, np.log(0.7)), rng.normal(size=coordinates)


def _log_psi(machine, x, coupling):
    """Half the logarithm of the density, the coupling divided by what is given."""
    w, a, b = (np.asarray(leaf) for leaf in (machine.weights, machine.visible_bias, machine.hidden_bias))
    return -np.sum((x - a) ** 2) / (4 * 0.7) + np.sum(np.logaddexp(0, b + x @ w / coupling)) / 2


def _slope(f, at, step=1e-6):
    return np.array([(f(at + step * one) - f(at - step * one)) / (2 * step) for one in np.eye(len(at))])


def test_coupling_without_variance():
    machine, x = _gaussian_machine()
    closed = np.asarray(tw.energy.RBMState(machine, 2).gradient(x))
    np.testing.assert_allclose(_slope(lambda y: _log_psi(machine, y, 0.7), x), closed, atol=1e-8)
    assert np.abs(_slope(lambda y: _log_psi(machine, y, 1.0), x) - closed).max() > 0.05


def test_density_and_wavefunction():
    machine, _ = _gaussian_machine(1)
    x, step = np.linspace(-30, 30, 20001, retstep=True)
    unnormalised = np.exp(np.asarray(machine.log_unnormalized(x[:, None])))
    z = step * unnormalised.sum()
    right, printed = unnormalised / z, np.sqrt(unnormalised / z)
    assert abs(step * right.sum() - 1) < 1e-10
    assert abs(step * printed.sum() - 1) > 0.1
    assert abs(step * (printed**2).sum() - 1) < 1e-10  # what is printed is psi


def test_sum_outside_the_exponent():
    machine, x = _gaussian_machine()
    w, b = np.asarray(machine.weights), np.asarray(machine.hidden_bias)
    field = x @ w / 0.7
    right, printed = 1 / (2 * (1 + np.exp(-b - field))), 1 / (2 * (np.exp(-b) - field + 1))
    found = np.asarray(tw.energy.RBMState(machine, 2).derivatives(x))
    by_weights, by_bias = found[: w.size].reshape(w.shape), found[w.size + len(x) :][: len(b)]
    np.testing.assert_allclose(by_bias, right, rtol=1e-12)
    np.testing.assert_allclose(by_weights, np.outer(x, right) / 0.7, rtol=1e-12)
    assert not np.all((printed > 0) & (printed < 0.5))


def test_slips_of_the_local_energy():
    omega = 1.7
    x = np.random.default_rng(0).normal(size=(5, 2))
    psi = np.exp(-omega * np.sum(x**2, axis=1) / 2)
    laplacian = psi * (omega**2 * np.sum(x**2, axis=1) - 2 * omega)
    h_psi = -laplacian / 2 + omega**2 * np.sum(x**2, axis=1) / 2 * psi
    np.testing.assert_allclose(h_psi / psi, omega, rtol=1e-12)
    for wrong in (h_psi / 4, (-laplacian / 2 + omega * np.sum(x**2, axis=1) / 2 * psi) / psi):
        assert np.ptp(wrong) > 0.1


def test_sum_over_particles_only():
    trap = tw.energy.HarmonicTrap(2, 2, 1.3, interaction=False)
    psi, x = tw.energy.GaussianState.of(trap), np.random.default_rng(1).normal(size=4)
    gradient = np.asarray(psi.gradient(x))
    each = (-(gradient**2) + 1.3 + 1.3**2 * x**2) / 2  # d_i^2 ln psi = -omega
    assert abs(each.sum() - float(tw.energy.local_energy(psi, trap, x).total)) < 1e-12
    assert abs(each.sum() - 2.6) < 1e-12
    assert abs(each[:2].sum() - 1.3) < 1e-12


def test_derivative_by_the_weights():
    machine, x = _gaussian_machine()
    w = np.asarray(machine.weights)
    active = 1 / (1 + np.exp(-(np.asarray(machine.hidden_bias) + x @ w / 0.7)))

    def log_density(flat):
        changed = tw.energy.GaussianRBM(flat.reshape(w.shape), machine.visible_bias, machine.hidden_bias, np.log(0.7))
        return 2 * _log_psi(changed, x, 0.7)

    slope = _slope(log_density, w.ravel()).reshape(w.shape)
    np.testing.assert_allclose(slope, np.outer(x, active) / 0.7, atol=1e-7)
    assert np.abs(slope - w * active / 0.7).max() > 0.5


def test_free_electrons_in_space():
    trap = tw.energy.HarmonicTrap(2, 3, 0.5, interaction=False)
    assert tw.energy.known_energies(trap)[0].value == 1.5
    assert tw.energy.known_energies(tw.energy.HarmonicTrap(2, 3, 1.0, interaction=False))[0].value == 3.0
