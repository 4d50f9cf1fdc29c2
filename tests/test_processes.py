"""Processes against exact answers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from thalweg import processes, systems

KEY = jax.random.key(3)


def z_of_variance(values, expected):
    values = np.asarray(values)
    variance = values.var(ddof=1)
    fourth = ((values - values.mean()) ** 4).mean()
    return (variance - expected) / math.sqrt((fourth - variance**2) / len(values))


@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_orders_of_the_integrators(method):
    """Halving the step divides the error by 2 and by 16."""

    def error(dt):
        swing = processes.ode(lambda s: {"x": s["v"], "v": -s["x"]}, dt, method)
        end = tw.simulate(swing, {"x": 1.0, "v": 0.0}, round(2 / dt)).state
        return abs(float(end["x"]) - math.cos(2))

    order = math.log2(error(0.02) / error(0.01))
    assert order == pytest.approx({"euler": 1, "rk4": 4}[method], abs=0.1)


def test_langevin_has_its_stationary_variance():
    """On x^2/2 the chain x' = (1 - dt) x + sqrt(2 T dt) w has variance T / (1 - dt/2)."""
    process = processes.langevin(lambda x: x**2 / 2, temperature=0.7, dt=0.2)
    runs = tw.ensemble(process, jnp.zeros(40_000), 60, key=KEY)
    assert abs(z_of_variance(runs.state, 0.7 / 0.9)) < 4


def test_underdamped_langevin_samples_positions_exactly():
    """BAOAB has the exact variance of x at any step, Euler's would be off by 1/(1 - dt^2/4) here."""
    process = processes.underdamped_langevin(lambda x: x**2 / 2, 1.0, friction=1.0, dt=0.5)
    states = tw.stack([process.init(0.0)] * 1)
    states = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[0], (40_000,)), states)
    runs = tw.ensemble(process, states, 80, key=KEY)
    assert abs(z_of_variance(runs.state.position, 1.0)) < 4
    assert abs(np.mean(runs.state.position)) < 4 / math.sqrt(40_000)


def test_linear_noise_has_its_stationary_variance():
    for rate, spread in ((0.5, 0.2), (0.3, 0.6)):
        process = systems.linear_noise(rate, spread)
        runs = tw.ensemble(process, jnp.full(60_000, 2.0), 120, key=KEY)
        exact = 4 * rate * spread**2 / (2 - rate - rate * spread**2)
        assert abs(z_of_variance(runs.state, exact)) < 4
        assert abs(np.mean(runs.state) - 2) < 4 * math.sqrt(exact / 60_000)


def test_the_coin_spreads_as_the_heat_equation():
    runs = tw.ensemble(systems.coin(0.1), jnp.zeros(40_000), 50, key=KEY)
    assert abs(z_of_variance(runs.state, 50 * 0.01)) < 4


def test_the_pit_and_its_closed_gradients():
    l0, l1 = systems.pit_losses()
    process = systems.pit(0.1)
    for W in (0.3, 1.0, 1.0074533, 1.2, 2.5):
        for j, loss in enumerate((l0, l1)):
            assert float(process.step(W, j)) == pytest.approx(W - 0.1 * float(jax.grad(loss)(W)), abs=1e-14)
    points = systems.pit_points()
    assert points.bottom == pytest.approx(1.0074533029, abs=1e-10)
    assert points.lip == pytest.approx(1.1743102, abs=1e-7)
    assert points.bottom_of_l1 == pytest.approx(1.0036974, abs=1e-7)
    mean = lambda W: (l0(W) + l1(W)) / 2  # noqa: E731
    assert abs(jax.grad(mean)(points.bottom)) < 1e-12 and abs(jax.grad(mean)(points.lip)) < 1e-12


def test_the_pit_is_left_as_fast_as_published_to_four_digits_elsewhere():
    """Learning rate 0.02: 0.497201 escape within 100 steps, the mean escape takes 141.633 steps."""
    points = systems.pit_points()
    runs = tw.ensemble(
        systems.pit(0.02), jnp.full(40_000, points.bottom), 4000, key=KEY, until=lambda W: points.lip_of_l1 <= W
    )
    steps = np.asarray(runs.steps)
    assert bool(jnp.all(runs.arrived))
    assert abs((steps <= 100).mean() - 0.497201) < 4 * 0.5 / math.sqrt(len(steps))
    assert abs(steps.mean() - 141.633) < 4 * steps.std() / math.sqrt(len(steps))


def test_a_markov_chain_visits_by_its_stationary_law():
    table = np.array([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.0, 0.6, 0.4]])
    chain = processes.finite(table)
    runs = tw.ensemble(chain, jnp.zeros(30_000, int), 200, key=KEY)
    counts = np.bincount(np.asarray(runs.state), minlength=3)
    pi = np.linalg.matrix_power(table, 500)[0]
    assert np.all(np.abs(counts / 30_000 - pi) < 4 * np.sqrt(pi * (1 - pi) / 30_000))


def test_a_deterministic_table_is_followed():
    cycle = processes.finite([2, 0, 1])
    run = tw.simulate(cycle, cycle.init(0), 7, record=lambda s, w, n: n)
    assert run.record.tolist() == [2, 1, 0, 2, 1, 0, 2]


def test_a_blackjax_kernel_samples_its_target():
    import blackjax

    def log_density(x):
        return -0.5 * jnp.sum((x - 1.0) ** 2 / jnp.array([1.0, 4.0]))

    hmc = blackjax.hmc(log_density, 0.7, jnp.ones(2), 5)
    process = processes.kernel(hmc.step, hmc.init, info=True)
    run = tw.simulate(process, process.init(jnp.zeros(2)), 20_000, key=KEY, record=lambda s, w, n: n.position)
    for series, variance in zip(run.record[200:].T, (1.0, 4.0), strict=True):
        mean, square = tw.stats.mean(series), tw.stats.mean((series - 1.0) ** 2)
        assert abs(mean.value - 1.0) < 4 * mean.error and abs(square.value - variance) < 4 * square.error


def test_weights_and_orders_of_sgd():
    data = jnp.array([1.0, 2.0, 4.0, 7.0])
    loss = lambda p, d: p * d  # noqa: E731  (the gradient is the datum)
    start = processes.sgd(loss, data, 1.0).init(0.0)
    shuffled = processes.sgd(loss, data, 1.0, batch_size=2, order="shuffle")
    assert float(tw.simulate(shuffled, start, 2, key=KEY).state.params) == -7.0  # (1 + 2 + 4 + 7) / 2
    subset = processes.sgd(loss, data, 1.0, batch_size=4, order="subset")
    assert float(tw.simulate(subset, start, 1, key=KEY).state.params) == -3.5
    weighted = processes.sgd(loss, data, 1.0, batch_size=4, order="subset", weights=[0, 2, 0, 1])
    assert float(tw.simulate(weighted, start, 1, key=KEY).state.params) == -(2 * 2 + 7) / 4
    w = jnp.array([0, 3])
    part = shuffled.contributions(start, w, jnp.array([0.0, 1.0]))
    assert float(part) == 3.5


def test_digits_and_networks():
    data = systems.digits()
    assert data.images.shape == (1797, 64) and data.images.min() == 1 / 256 and data.images.max() == 1
    framed = systems.digits(keep=(1, 7), frame=28)
    assert framed.images.shape == (361, 784) and framed.shape == (28, 28)
    first, second = data.split(0.3)
    assert len(first.labels) + len(second.labels) == 1797
    assert np.allclose(np.bincount(first.labels) / np.bincount(data.labels), 0.3, atol=0.01)
    model = systems.perceptron((64, 16, 10), activation="tanh", loss="xent")
    params = model.init(0)
    x, label = data.images[5], int(data.labels[5])
    assert model.loss(params, (x, label)) == pytest.approx(float(model.loss(params, (x, jnp.eye(10)[label]))))
    learner = processes.sgd(model.loss, (data.images, data.one_hot()), 0.5, batch_size=32, order="shuffle")
    end = tw.simulate(learner, learner.init(params), 600, key=KEY).state.params
    assert float(model.accuracy(end, data.images, data.labels)) > 0.9


def test_digits_from_idx_files(tmp_path):
    import gzip
    import struct

    images = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    labels = np.array([3, 1, 4, 1, 5], dtype=np.uint8)
    with gzip.open(tmp_path / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(struct.pack(">HBBIII", 0, 8, 3, 5, 4, 3) + images.tobytes())
    with gzip.open(tmp_path / "train-labels-idx1-ubyte.gz", "wb") as file:
        file.write(struct.pack(">HBBI", 0, 8, 1, 5) + labels.tobytes())
    data = systems.digits(tmp_path, keep=(1, 3))
    assert data.labels.tolist() == [3, 1, 1] and data.shape == (4, 3)
    assert np.allclose(data.images[0], (images[0].ravel() + 1.0) / 256)
    with pytest.raises(FileNotFoundError, match=r"path must hold an \*images-idx3-ubyte file"):
        systems.digits(tmp_path.parent / tmp_path.name / "..")
    packed = (tmp_path / "train-labels-idx1-ubyte.gz").read_bytes()
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(gzip.decompress(packed))  # one of the pair is unpacked
    assert systems.digits(tmp_path).labels.tolist() == labels.tolist()
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="no labels beside"):
        systems.digits(tmp_path)
