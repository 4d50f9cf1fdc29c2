"""Gradient noise against dense formulas, resampling, and other people's operators."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator, aslinearoperator, eigsh

import thalweg as tw
from thalweg.flow import _gradient_noise


def network(n=40, sizes=(5, 6, 3), seed=0):
    model = tw.systems.perceptron(sizes, "tanh", "xent")
    rng = np.random.default_rng(seed)
    data = (jnp.asarray(rng.normal(size=(n, sizes[0]))), jnp.asarray(rng.integers(0, sizes[-1], n)))
    return model, model.init(1), data


def dense(model, params, data):
    flat, back = jax.flatten_util.ravel_pytree(params)
    g = np.asarray(jax.vmap(lambda x, y: jax.grad(lambda p: model.loss(back(p), (x, y)))(flat))(*data))
    mean_loss = lambda p: jnp.mean(jax.vmap(lambda x, y: model.loss(back(p), (x, y)))(*data))  # noqa: E731
    return g, np.cov(g.T, ddof=0), np.asarray(jax.hessian(mean_loss)(flat))


@pytest.mark.parametrize("stored", [True, False])
def test_against_dense(monkeypatch, stored):
    """Drift, covariance, Hessian and alignment of a network of 57 parameters, gradients stored or not."""
    if not stored:
        monkeypatch.setattr(_gradient_noise, "STORED", 0)
    model, params, data = network()
    g, S, H = dense(model, params, data)
    noise = tw.flow.gradient_noise(model.loss, params, data)
    np.testing.assert_allclose(noise.drift.value, g.mean(0), atol=1e-14)
    np.testing.assert_allclose(noise.drift.error, g.std(0, ddof=1) / np.sqrt(40), rtol=1e-8, atol=1e-14)
    assert jax.tree.structure(noise.drift_tree) == jax.tree.structure(params)
    v = np.random.default_rng(1).normal(size=(len(S), 2))
    np.testing.assert_allclose(noise.covariance @ v, S @ v, atol=1e-12)
    np.testing.assert_allclose(noise.covariance @ v[:, 0], S @ v[:, 0], atol=1e-12)
    np.testing.assert_allclose(noise.hessian @ v, H @ v, atol=1e-12)
    assert float(noise.trace) == pytest.approx(np.trace(S), rel=1e-10)
    squares = np.sum((g - g.mean(0)) ** 2, axis=1)
    assert noise.trace.error == pytest.approx(squares.std(ddof=1) / np.sqrt(40), rel=1e-6)
    cosine = np.sum(H * S) / np.linalg.norm(H) / np.linalg.norm(S)
    assert float(noise.alignment) == pytest.approx(cosine, rel=1e-10)
    assert float(noise.anisotropy) == pytest.approx(len(S) * np.sum(H * S) / np.trace(H) / np.trace(S), rel=1e-10)
    assert float(noise.hessian_trace) == pytest.approx(np.trace(H), rel=1e-10)
    pairs = noise.top(3)
    np.testing.assert_allclose(pairs.values.value, np.linalg.eigvalsh(S)[::-1][:3], rtol=1e-10)
    np.testing.assert_allclose(np.abs(np.sum(pairs.vectors * (S @ pairs.vectors), 0)), pairs.values.value, rtol=1e-10)


def test_operators_go_out_and_come_in():
    """scipy finds the eigenvalues of our operators; our alignment takes other people's operators."""
    model, params, data = network()
    g, S, H = dense(model, params, data)
    noise = tw.flow.gradient_noise(model.loss, params, data)
    assert isinstance(noise.covariance, LinearOperator) and isinstance(noise.hessian, LinearOperator)
    assert eigsh(noise.covariance, k=1)[0][0] == pytest.approx(np.linalg.eigvalsh(S)[-1], rel=1e-9)
    assert eigsh(noise.hessian, k=1, which="LA")[0][0] == pytest.approx(np.linalg.eigvalsh(H)[-1], rel=1e-8)
    for gradients in (g, aslinearoperator(g)):
        other = tw.flow.gradient_noise(gradients=gradients, hessian=aslinearoperator(H))
        assert float(other.alignment) == pytest.approx(float(noise.alignment), rel=1e-9)
        np.testing.assert_allclose(other.top(2).values.value, noise.top(2).values.value, rtol=1e-9)
    assert tw.flow.gradient_noise(gradients=g).hessian is None


def test_unstored_operator(monkeypatch):
    monkeypatch.setattr(_gradient_noise, "STORED", 100)
    g = np.random.default_rng(2).normal(size=(30, 7))
    noise = tw.flow.gradient_noise(gradients=aslinearoperator(g))
    assert float(noise.trace) == pytest.approx(np.trace(np.cov(g.T, ddof=0)), rel=1e-12)
    np.testing.assert_allclose(noise.drift.error, g.std(0, ddof=1) / np.sqrt(30), rtol=1e-9)


@pytest.mark.parametrize("quantity", ["trace", "top", "alignment", "hessian_trace"])
def test_errors_cover(quantity):
    """Fresh samples of 200 data: the truth lies within one error bar in about 68% of them."""
    shape = np.diag([3.0, 1.0, 0.5, 0.2])
    curved = jnp.asarray([2.0, 1.0, 0.3, 0.1])

    def loss(w, z):
        return z @ w + 0.5 * jnp.sum(curved * (1 + 0.5 * z**2) * w**2)

    cov = np.diag(shape**2)
    H = np.asarray(curved) * (1 + 0.5 * cov)
    truth = {
        "trace": cov.sum(),
        "top": cov.max(),
        "alignment": np.sum(H * cov) / np.linalg.norm(H) / np.linalg.norm(cov),
        "hessian_trace": H.sum(),
    }[quantity]
    inside, repeats = 0, 120
    rng = np.random.default_rng(5)
    for _ in range(repeats):
        z = jnp.asarray(rng.normal(size=(200, 4)) @ shape)
        noise = tw.flow.gradient_noise(loss, jnp.zeros(4), z)
        found = noise.top(1).values if quantity == "top" else getattr(noise, quantity)
        inside += abs(float(np.ravel(found.value)[0]) - truth) < float(np.ravel(found.error)[0])
    z_score = (inside / repeats - 0.68) / np.sqrt(0.68 * 0.32 / repeats)
    assert abs(z_score) < 3.5, inside / repeats


def test_probes_beyond_the_direct_size(monkeypatch):
    """Random probes agree with all directions within the error that they state."""
    model, params, data = network(n=30)
    exact = tw.flow.gradient_noise(model.loss, params, data)
    monkeypatch.setattr(_gradient_noise, "DIRECT", 10)
    z = []
    for key in range(12):
        probed = tw.flow.gradient_noise(model.loss, params, data, probes=40, key=key)
        # The error holds that of the data too, which is the same in both: take it out.
        for name in ("alignment", "hessian_trace"):
            ours, theirs = getattr(probed, name), getattr(exact, name)
            assert ours.error > theirs.error * 0.5
            z.append((float(ours) - float(theirs)) / ours.error)
    assert np.max(np.abs(z)) < 3 and np.std(z) > 0.05


def test_network_of_many_parameters():
    """No array of size d x d: 54,000 parameters, 64 data."""
    model = tw.systems.perceptron((64, 200, 200, 10), "relu", "xent")
    digits = tw.systems.digits()
    data = (jnp.asarray(digits.images[:64]), jnp.asarray(digits.labels[:64]))
    noise = tw.flow.gradient_noise(model.loss, model.init(0), data, probes=8)
    pairs = noise.top(2)
    assert noise.covariance.shape == (55210, 55210)
    np.testing.assert_allclose(noise.covariance @ pairs.vectors, pairs.vectors * pairs.values.value, atol=1e-9)
    assert 0 < float(noise.alignment) <= 1 + 3 * noise.alignment.error


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda: tw.flow.gradient_noise(), "give either loss"),
        (lambda: tw.flow.gradient_noise(lambda p, z: p * z, 1.0, np.ones(3), gradients=np.ones((2, 2))), "give either"),
        (lambda: tw.flow.gradient_noise(lambda p, z: p * z), "loss needs params and data"),
        (lambda: tw.flow.gradient_noise(lambda p, z: p * z, np.ones(2), np.ones(3)), "single number"),
        (lambda: tw.flow.gradient_noise(lambda p, z: p * z, np.nan, np.ones(3)), "params must be finite"),
        (lambda: tw.flow.gradient_noise(lambda p, z: p * z[0], 1.0, (np.ones(3), np.ones(2))), "same number of data"),
        (lambda: tw.flow.gradient_noise(gradients=np.ones(3)), r"gradients must have shape \(n, d\)"),
        (lambda: tw.flow.gradient_noise(gradients=np.full((2, 2), np.inf)), "gradients must be finite"),
        (
            lambda: tw.flow.gradient_noise(gradients=np.ones((2, 2)), hessian=np.eye(3)),
            r"hessian must have shape \(2, 2\)",
        ),
        (lambda: tw.flow.gradient_noise(gradients=np.ones((2, 2))).alignment, "needs a Hessian"),
        (lambda: tw.flow.gradient_noise(gradients=np.ones((2, 2))).top(3), "k must be a whole number from 1 to 2"),
        (lambda: tw.flow.gradient_noise(gradients=np.ones((2, 2)), probes=1), "probes must be"),
    ],
)
def test_bad_input(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
