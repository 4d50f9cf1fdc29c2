"""Mean-square stability against closed forms, brute force and simulation."""

import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from scipy.sparse.linalg import aslinearoperator

import thalweg as tw
from thalweg import Status
from thalweg.flow._stability import pair_response

THREE = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
stable = tw.flow.largest_stable_learning_rate


def square(w, x):
    return 0.5 * (x @ w) ** 2


def brute_radius(matrices, eta, batch_size, order, momentum=0.0):
    """The radius by listing every batch, on vec(S) of (x, previous x)."""
    n, d = len(matrices), len(matrices[0])
    with_replacement = order == "replacement"
    drawn = itertools.product(range(n), repeat=batch_size) if with_replacement else None
    batches = drawn or itertools.combinations(range(n), batch_size)
    total, count = 0.0, 0
    for batch in batches:
        H = np.mean([matrices[i] for i in batch], axis=0)
        top = np.hstack([(1 + momentum) * np.eye(d) - eta * H, -momentum * np.eye(d)])
        M = np.vstack([top, np.hstack([np.eye(d), np.zeros((d, d))])])
        total, count = total + np.kron(M, M), count + 1
    return np.max(abs(np.linalg.eigvals(total / count)))


def test_three_data_in_the_plane():
    rate = stable(square, jnp.zeros(2), jnp.asarray(THREE))
    assert float(rate) == pytest.approx(0.5760394922, abs=1e-10)
    assert rate.ok and rate.error < 1e-10
    assert float(rate) * rate.details["trace"] == pytest.approx(1.3441, abs=5e-5)
    assert rate.details["bounds"]["largest_eigenvalue"] == pytest.approx(1.13148, abs=5e-6)
    assert float(stable(factors=THREE)) == pytest.approx(0.5760394922, abs=1e-10)
    for eta, radius in ((0.3, 0.7080617), (0.5, 0.8027763)):
        found = tw.flow.mean_square_stability(tw.processes.sgd(square, jnp.asarray(THREE), eta), jnp.zeros(2))
        assert float(found) == pytest.approx(radius, abs=5e-8)
        mode = found.details["mode"]
        assert np.all(np.linalg.eigvalsh(mode) >= -1e-12) and np.trace(mode) == pytest.approx(1)
    at_threshold = tw.processes.sgd(square, jnp.asarray(THREE), float(rate))
    assert float(tw.flow.mean_square_stability(at_threshold, jnp.zeros(2))) == pytest.approx(1, abs=1e-9)


def test_orthogonal_data():
    """Five orthogonal data of unit length: each coordinate is hit one step in five; eta* tr H = 2."""
    five = np.eye(5)
    rate = stable(factors=five)
    assert float(rate) * rate.details["trace"] == pytest.approx(2, rel=1e-12)
    for product, radius in ((1.98, 0.992), (2.02, 1.008)):
        process = tw.processes.sgd(square, jnp.asarray(five), product / rate.details["trace"])
        assert float(tw.flow.mean_square_stability(process, jnp.zeros(5))) == pytest.approx(radius, abs=5e-4)
    mean = tw.flow.mean_square_stability(process, jnp.zeros(5)).details["mean_radius"]
    assert mean == pytest.approx(0.596, abs=1e-3)  # of full-batch descent at tr H = 2.02 / eta


def test_pair_on_a_line_and_the_pit():
    for a, s in ((1.0, 0.2), (0.7, 0.5), (2.0, 3.0)):
        rate = stable(hessians=np.array([[[a + s]], [[a - s]]]))
        assert float(rate) == pytest.approx(2 * a / (a * a + s * s), rel=1e-12)
    bottom = tw.systems.pit_points().bottom
    l0, l1 = tw.systems.pit_losses()
    rate = stable(lambda W, z: jnp.where(z == 0, l0(W), l1(W)), jnp.asarray(bottom), jnp.arange(2))
    assert float(rate) == pytest.approx(0.010168, abs=5e-7)
    radius = tw.flow.mean_square_stability(tw.systems.pit(float(rate)), bottom)
    assert radius.ok and float(radius) == pytest.approx(1, abs=1e-9)


def test_gaussian_data():
    """Twelve Gaussian data in R^4 lose stability near tr H = 1.11 / eta, not at 2."""
    products = []
    for seed in range(40):
        rate = stable(factors=np.random.default_rng(seed).normal(size=(12, 4)))
        products.append(float(rate) * rate.details["trace"])
        assert float(rate) <= rate.details["bounds"]["frobenius"] * (1 + 1e-12)
        assert rate.details["bounds"]["frobenius"] <= rate.details["bounds"]["trace"] * (1 + 1e-12)
    assert np.mean(products) == pytest.approx(1.11, abs=4 * np.std(products) / np.sqrt(40))


def test_higher_rank_breaks_the_trace_rule():
    """H_i = I in d dimensions: eta* = 2, so that eta* tr H = 2 d."""
    rate = stable(hessians=np.stack([np.eye(6)] * 3))
    assert float(rate) * rate.details["trace"] == pytest.approx(12, rel=1e-12)
    assert float(rate) > rate.details["bounds"]["trace"] * 5


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(
    "batch_size, order",
    [*((b, "replacement") for b in (1, 2, 3)), *((b, "subset") for b in (1, 2, 4, 5))],
)
def test_against_all_batches(batch_size, order, momentum):
    """At eta* the radius over all batches is 1, just below it smaller, just above larger."""
    x = np.random.default_rng(7).normal(size=(5, 3))
    matrices = x[:, :, None] * x[:, None, :]
    rate = float(stable(factors=x, batch_size=batch_size, order=order, momentum=momentum))
    assert brute_radius(matrices, rate, batch_size, order, momentum) == pytest.approx(1, abs=2e-7)
    assert brute_radius(matrices, 0.98 * rate, batch_size, order, momentum) < 1
    assert brute_radius(matrices, 1.02 * rate, batch_size, order, momentum) > 1


def test_full_batch_is_gradient_descent():
    x = np.random.default_rng(3).normal(size=(6, 4))
    for momentum in (0.0, 0.8):
        rate = stable(factors=x, batch_size=6, order="subset", momentum=momentum)
        full = rate.details["bounds"]["largest_eigenvalue"]
        assert float(rate) == pytest.approx((1 + momentum) * full, rel=1e-7)


def test_response_of_a_pair_of_modes():
    c, beta = np.array([0.1, 0.7, 1.6]), 0.6
    a = [np.zeros(3), np.ones(3)]
    for _ in range(3000):
        a.append((1 + beta - c) * a[-1] - beta * a[-2])
    a = np.array(a)
    np.testing.assert_allclose(pair_response(c, beta), a.T @ a, rtol=1e-10)
    np.testing.assert_allclose(pair_response(c, 0.0), 1 / (1 - np.outer(1 - c, 1 - c)), rtol=1e-12)


def test_preconditioner_is_a_change_of_variables():
    x = np.random.default_rng(5).normal(size=(7, 3))
    P = np.array([0.3, 2.0, 1.1])
    rate = float(stable(factors=x, preconditioner=P, batch_size=2, order="subset"))
    assert rate == pytest.approx(float(stable(factors=x * np.sqrt(P), batch_size=2, order="subset")), rel=1e-10)
    total = np.mean(
        [
            np.kron(np.eye(3) - rate * P[:, None] * H, np.eye(3) - rate * P[:, None] * H)
            for i in range(7)
            for j in range(7)
            if i != j
            for H in [(np.outer(x[i], x[i]) + np.outer(x[j], x[j])) / 2]
        ],
        axis=0,
    )
    assert np.max(abs(np.linalg.eigvals(total))) == pytest.approx(1, abs=1e-8)
    tree = {"a": jnp.zeros(1), "b": jnp.zeros(2)}
    by_loss = stable(
        lambda p, z: 0.5 * (z @ jnp.concatenate([p["a"], p["b"]])) ** 2,
        tree,
        jnp.asarray(x),
        2,
        "subset",
        preconditioner={"a": P[:1], "b": P[1:]},
    )
    assert float(by_loss) == pytest.approx(rate, rel=1e-8)


def test_gauss_newton_is_the_hessian_at_interpolation():
    """A small network that fits its data exactly: H_i by factors and by exact Hessians agree."""
    model = tw.systems.perceptron((3, 4, 2), "tanh")
    params = model.init(1)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)))
    data = (x, jax.vmap(lambda one: model.predict(params, one))(x))
    by_factors = stable(
        lambda f, z: 0.5 * jnp.sum((f - z[1]) ** 2), params, data, outputs=lambda p, z: model.predict(p, z[0])
    )
    by_hessians = stable(model.loss, params, data)
    assert by_factors.details["rank"] == by_hessians.details["rank"] == 12
    assert float(by_factors) == pytest.approx(float(by_hessians), rel=1e-7)
    two = [stable(model.loss, params, data, 2, "subset"), by_factors]
    assert float(two[0]) > float(two[1])


def test_accepts_linear_operators():
    matrices = THREE[:, :, None] * THREE[:, None, :]
    rate = stable(hessians=[aslinearoperator(H) for H in matrices])
    assert float(rate) == pytest.approx(0.5760394922, abs=1e-10)


@pytest.mark.parametrize("side", [0.93, 1.07])
def test_simulated_variance_on_each_side(side):
    """E |w|^2 over 40,000 learners shrinks below eta* and grows above it, at the predicted factor."""
    x = np.array([[1.0, 0.2], [-0.3, 0.8], [0.6, 0.9], [-0.5, 0.4]])
    eta = side * float(stable(factors=x))
    process = tw.processes.sgd(square, jnp.asarray(x), eta)
    found = tw.flow.mean_square_stability(process, jnp.zeros(2))
    assert (float(found) < 1) == (side < 1)
    start = np.random.default_rng(1).multivariate_normal(np.zeros(2), found.details["mode"], 40_000)
    steps = 6
    runs = tw.ensemble(process, process.init(jnp.asarray(start)), steps, key=2)
    w = np.asarray(runs.state.params)
    ratio = np.sum(w**2, axis=1)
    expected = float(found) ** steps * np.mean(np.sum(start**2, axis=1))
    z = (np.mean(ratio) - expected) / (np.std(ratio) / np.sqrt(len(ratio)))
    assert abs(z) < 4
    assert (np.mean(ratio) < np.mean(np.sum(start**2, axis=1))) == (side < 1)


def test_momentum_process_agrees():
    """The process itself, optimizer memory included, has radius 1 at the momentum threshold."""
    eta = float(stable(factors=THREE, momentum=0.7))

    def step(s, w):
        g = jnp.asarray(THREE)[w] * (jnp.asarray(THREE)[w] @ s["x"])
        v = 0.7 * s["v"] + g
        return {"x": s["x"] - eta * v, "v": v}

    process = tw.Process(step, tw.noise.Choice(3))
    found = tw.flow.mean_square_stability(process, {"x": jnp.zeros(2), "v": jnp.zeros(2)})
    assert float(found) == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("parameters", [20_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_many_parameters_in_seconds(parameters):
    """500 data and 200,000 parameters; below, a span whose answer is known."""
    rng = np.random.default_rng(0)
    x = np.tile(rng.normal(size=(250, parameters)), (2, 1)) / np.sqrt(parameters)  # twins: half the Gram matrix is null
    began = time.perf_counter()
    rate = stable(factors=x)
    assert rate.ok and rate.details["rank"] == 250
    assert time.perf_counter() - began < 60
    # Nearly orthogonal data: eta* is close to that of 250 orthogonal ones, 2 / |x|^2.
    assert float(rate) == pytest.approx(2, rel=0.1)
    q = np.linalg.qr(rng.normal(size=(3000, 6)))[0].T  # an isometry of a small problem
    small = rng.normal(size=(30, 6))
    assert float(stable(factors=small @ q)) == pytest.approx(float(stable(factors=small)), rel=1e-8)


# The radius at the size of a network ------------------------------------------------------------------


def step_radius(process, state):
    """The radius of the whole step, memory included, by automatic differentiation and a list of all batches."""
    flat, back = ravel_pytree(jax.tree.map(lambda leaf: leaf.astype(float), state))

    def step(z, w):
        before = jax.tree.map(lambda a, like: a.astype(like.dtype), back(z), state)
        return ravel_pytree(jax.tree.map(lambda leaf: leaf.astype(float), process.step(before, w)))[0]

    draws, weights = process.noise.atoms()
    J = np.asarray(jax.vmap(lambda w: jax.jacfwd(step)(flat, w))(draws))
    return np.max(abs(np.linalg.eigvals(np.einsum("w,wab,wcd->acbd", weights, J, J).reshape(len(flat) ** 2, -1))))


OPTIMIZERS = {
    "plain": 0.2,
    "momentum": optax.sgd(0.1, momentum=0.8),
    "nesterov": optax.sgd(0.1, momentum=0.6, nesterov=True),
    "decay": optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.15, momentum=0.5)),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("batch_size, order", [(1, "replacement"), (2, "replacement"), (2, "subset")])
def test_the_memory_of_an_optimizer_counts(optimizer, batch_size, order):
    """In the span of the data, without listing batches: as the whole step by brute force."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
    learner = tw.processes.sgd(square, x, OPTIMIZERS[optimizer], batch_size=batch_size, order=order)
    found = tw.flow.mean_square_stability(learner, jnp.zeros(3))
    assert found.ok and float(found) == pytest.approx(step_radius(learner, learner.init(jnp.zeros(3))), rel=1e-10)
    assert found.details["mean_radius"] <= np.sqrt(float(found)) * (1 + 1e-12)


def test_adam_is_frozen_where_it_stands():
    """At a point without gradients the slope of Adam's mean of squares vanishes, so that freezing it is exact."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
    learner = tw.processes.sgd(square, x, optax.adam(0.05, b1=0.9, b2=0.99))
    warm = tw.simulate(learner, learner.init(jnp.ones(3)), 50, key=0).state
    found = tw.flow.mean_square_stability(learner, warm._replace(params=jnp.zeros(3)))
    moments = warm.opt_state[0]
    late = int(moments.count) + 1
    P = 0.05 / (1 - 0.9**late) / (np.sqrt(0.99 * moments.nu / (1 - 0.99**late)) + 1e-8)
    total = 0
    for one in np.asarray(x):
        H, eye = np.outer(one, one), np.eye(3)
        J = np.block([[eye - 0.1 * P[:, None] * H, -0.9 * np.diag(P)], [0.1 * H, 0.9 * eye]])
        total = total + np.kron(J, J) / 4
    assert found.ok and float(found) == pytest.approx(np.max(abs(np.linalg.eigvals(total))), rel=1e-9)
    # The threshold of the same preconditioner: Adam's average is momentum 0.9 at a tenth of the rate.
    eta = float(stable(factors=x, momentum=0.9, preconditioner=P))
    at = tw.flow.mean_square_stability(learning_rate=eta, factors=x, momentum=0.9, preconditioner=P)
    assert float(at) == pytest.approx(1, abs=1e-6)


def test_directions_that_nothing_moves_are_left_out():
    """Two data in R^5 and their isometric image in R^2 have one radius; three directions are frozen."""
    q = np.linalg.qr(np.random.default_rng(2).normal(size=(5, 2)))[0].T
    small = np.array([[1.0, 0.3], [-0.4, 0.8]])
    for optimizer in (0.5, optax.sgd(0.3, momentum=0.5)):
        wide = tw.flow.mean_square_stability(tw.processes.sgd(square, jnp.asarray(small @ q), optimizer), jnp.zeros(5))
        plane = tw.flow.mean_square_stability(tw.processes.sgd(square, jnp.asarray(small), optimizer), jnp.zeros(2))
        assert wide.details["frozen"] == 3 and plane.details["frozen"] == 0
        assert float(wide) == pytest.approx(float(plane), rel=1e-9) and float(wide) < 1

    def by_hand(w, z):
        x = jnp.asarray(small @ q)[z]
        return w - 0.5 * x * (x @ w)

    found = tw.flow.mean_square_stability(tw.Process(by_hand, tw.noise.Choice(2)), jnp.zeros(5))
    plain = tw.flow.mean_square_stability(learning_rate=0.5, factors=small)
    assert found.details["frozen"] == 3 and float(found) == pytest.approx(float(plain), rel=1e-9)


def test_weights_of_the_data_scale_their_curvature():
    weights = np.array([0.5, 2.0, 1.5])
    learner = tw.processes.sgd(square, jnp.asarray(THREE), 0.2, weights=weights)
    scaled = tw.flow.mean_square_stability(learning_rate=0.2, factors=THREE * np.sqrt(weights)[:, None])
    assert float(tw.flow.mean_square_stability(learner, jnp.zeros(2))) == pytest.approx(float(scaled), rel=1e-10)
    assert float(stable(learner, jnp.zeros(2))) == pytest.approx(
        float(stable(factors=THREE * np.sqrt(weights)[:, None])), rel=1e-10
    )


def indefinite(w, z):
    """Hessians of rank 2 with one negative eigenvalue, in many dimensions."""
    return 0.5 * (z[0] @ w) ** 2 - 0.1 * (z[1] @ w) ** 2 * (1 + (z[0] @ w))


def test_single_hessians_of_low_rank_are_found():
    """800 parameters, Hessians of rank 2 and of either sign: as from the stored Hessians on the span."""
    rng = np.random.default_rng(3)
    z = rng.normal(size=(12, 2, 400)) / 20
    params = jnp.zeros(400)
    big = tw.flow.mean_square_stability(tw.processes.sgd(indefinite, jnp.asarray(z), 0.7, batch_size=3), params)
    q = np.linalg.qr(z.reshape(24, 400).T)[0]
    small = tw.flow.mean_square_stability(
        tw.processes.sgd(indefinite, jnp.asarray(z @ q), 0.7, batch_size=3), jnp.zeros(24)
    )
    assert big.details["frozen"] == 376 and big.details["rank"] == 24
    assert float(big) == pytest.approx(float(small), rel=1e-8) and float(big) > 1
    full = lambda w, x: jnp.sum(jnp.cos(w * x))  # noqa: E731
    with pytest.raises(ValueError, match="pass outputs="):
        stable(full, jnp.zeros(3000), jnp.asarray(rng.normal(size=(20, 3000))))


@pytest.mark.slow
def test_a_learner_of_500_data_and_200_000_parameters():
    x = np.random.default_rng(0).normal(size=(500, 200_000)) / np.sqrt(200_000)
    learner = tw.processes.sgd(square, jnp.asarray(x), optax.sgd(0.5, momentum=0.9), batch_size=16, order="subset")
    found = tw.flow.mean_square_stability(learner, jnp.zeros(200_000))
    assert found.ok and found.details["rank"] == 500 and found.details["frozen"] == 199_500
    by_factors = tw.flow.mean_square_stability(
        learning_rate=0.5, factors=x, momentum=0.9, batch_size=16, order="subset"
    )
    assert float(found) == pytest.approx(float(by_factors), rel=1e-7)
    assert found.details["mean_radius"] ** 2 < float(found) < 1


def test_batches_by_trials_and_their_coherence_bound():
    """Each datum with probability B/n: against all 2^n batches; and never above the bound of the coherence."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        rows = rng.normal(size=(6, 2, 3)) * rng.uniform(0.3, 2, size=(6, 1, 1))
        matrices = np.einsum("nma,nmb->nab", rows, rows)
        batch = 1 + seed % 5
        rate = stable(factors=rows, batch_size=batch, order="bernoulli")
        total = 0.0
        for drawn in itertools.product((0, 1), repeat=6):
            chance = np.prod([batch / 6 if one else 1 - batch / 6 for one in drawn])
            J = np.eye(3) - float(rate) / batch * np.tensordot(drawn, matrices, axes=1)
            total = total + chance * np.kron(J, J)
        assert np.max(abs(np.linalg.eigvals(total))) == pytest.approx(1, abs=1e-7)
        assert float(rate) <= rate.details["bounds"]["coherence"]


def test_an_optimizer_that_mixes_parameters_is_refused():
    mixing = optax.GradientTransformation(lambda p: (), lambda g, s, p=None: (-0.1 * jnp.cumsum(g), s))
    learner = tw.processes.sgd(square, jnp.asarray(THREE), mixing)
    with pytest.raises(ValueError, match="does not act on each parameter by itself"):
        tw.flow.mean_square_stability(learner, jnp.zeros(2))
    with pytest.raises(ValueError, match="cannot be integrated"):
        tw.flow.mean_square_stability(tw.processes.sgd(square, THREE, 0.1, order="shuffle"), jnp.zeros(2))
    with pytest.raises(ValueError, match="needs a process, or a learning_rate"):
        tw.flow.mean_square_stability()
    with pytest.raises(ValueError, match="says its data and its learning rate itself"):
        tw.flow.mean_square_stability(tw.processes.sgd(square, THREE, 0.1), jnp.zeros(2), learning_rate=0.1)


def test_statuses():
    saddle = stable(hessians=np.array([np.diag([1.0, -0.2]), np.diag([1.0, 0.1])]))
    assert float(saddle) == 0 and saddle.status == Status.UNDEFINED and "saddle" in saddle.message
    cancel = stable(hessians=np.array([np.diag([1.0, 0.2]), np.diag([1.0, -0.2])]))
    assert float(cancel) == 0 and "any learning rate" in cancel.message
    flat = stable(hessians=np.zeros((2, 2, 2)))
    assert float(flat) == np.inf and "vanish" in flat.message
    moving = tw.flow.mean_square_stability(tw.systems.pit(0.01), 1.05)
    assert moving.status == Status.UNDEFINED and "no fixed point" in moving.message


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ({}, "give the curvature in one way"),
        ({"factors": THREE, "hessians": np.zeros((1, 2, 2))}, "give the curvature in one way"),
        ({"factors": np.ones(3)}, r"factors must have shape \(n, d\)"),
        ({"factors": THREE * np.nan}, "factors must be finite"),
        ({"hessians": np.ones((2, 3))}, r"hessians must have shape"),
        ({"hessians": np.array([[[1.0, 1.0], [0.0, 1.0]]])}, "symmetric"),
        ({"factors": THREE, "batch_size": 0}, "batch_size must be a whole number >= 1"),
        ({"factors": THREE, "batch_size": 4, "order": "subset"}, "at most the number of data 3"),
        ({"factors": THREE, "order": "shuffle"}, "order must be"),
        ({"factors": THREE, "momentum": 1.0}, "momentum must be from 0 up to below 1"),
        ({"factors": THREE, "preconditioner": np.array([1.0, 0.0])}, "preconditioner must be positive"),
        ({"factors": THREE, "preconditioner": np.ones(3)}, "preconditioner must have 2 entries"),
        ({"loss": square}, "loss needs params and data"),
        ({"factors": THREE, "order": "bernoulli", "batch_size": 4}, "at most the number of data 3"),
        ({"loss": tw.processes.sgd(square, THREE, 0.1), "params": np.zeros(2), "data": THREE}, "leave them away"),
        ({"loss": tw.processes.sgd(square, THREE, optax.adam(0.1)), "params": np.zeros(2)}, "stand for an optimizer"),
    ],
)
def test_bad_input(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        stable(**arguments)


def test_a_step_that_jumps():
    chain = tw.Process(lambda x, w: jnp.where(w < 0.5, x, -x), tw.noise.Choice(2), smooth=False)
    with pytest.raises(ValueError, match="must be smooth"):
        tw.flow.mean_square_stability(chain, 0.0)


@pytest.mark.parametrize(("rate", "momentum"), [(0.01, 0.9), (0.3, 0.9), (0.3, 0.0)])
def test_slow_modes_are_told_apart_in_few_steps(rate, momentum, monkeypatch):
    """Slow modes crowd about 1: an eigensolver on the step itself takes thousands of products to tell them apart."""
    from thalweg.flow import _per_datum

    x = np.random.default_rng(0).normal(size=(60, 200)) * np.exp(np.random.default_rng(1).normal(size=(60, 1))) / 14
    products, sandwich = [], _per_datum.Curvatures.sandwich
    monkeypatch.setattr(_per_datum.Curvatures, "sandwich", lambda self, S: products.append(1) or sandwich(self, S))
    by = lambda: tw.flow.mean_square_stability(  # noqa: E731
        learning_rate=rate, factors=x, batch_size=4, momentum=momentum
    )
    found, few = by(), len(products)
    monkeypatch.setattr("thalweg.flow._mean_square.growing_moments", lambda *_: None)
    assert float(found) == pytest.approx(float(by()), rel=1e-9)
    assert found.ok and found.error < 1e-9 and few < 600
    S = found.details["mode"]
    assert np.trace(S) == pytest.approx(1) and np.linalg.eigvalsh((S + S.T) / 2).min() > -1e-9
