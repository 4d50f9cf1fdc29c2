"""Rare events and stability: quasi-potentials, splitting against plain Monte Carlo, thresholds against dense algebra.

No Python package answers these for a discrete noisy map, so that the rivals are what one would write by hand.
"""

import time
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np

import thalweg as tw
from _timing import alternate, show, target

POINTS = tw.systems.pit_points()


def quasi_potential():
    """V of the pit, with rate and diffusion, against a loop of scalar root finding over the same 640 nodes."""
    from scipy.optimize import brentq

    process = tw.systems.pit(0.01)

    def by_hand():
        nodes, weights = np.polynomial.legendre.leggauss(640)
        x = (POINTS.bottom + POINTS.lip) / 2 + (POINTS.lip - POINTS.bottom) / 2 * nodes
        total = 0.0
        for W, weight in zip(x, weights, strict=True):
            wide = 2 * (W - 2) * np.exp(-((W - 2) ** 2))
            a, b = wide, wide + 200 * (W - 1) * np.exp(-100 * (W - 1) ** 2)

            def f(p, a=a, b=b):
                return np.log1p((np.expm1(-p * a) + np.expm1(-p * b)) / 2)

            guess = (a + b) / ((a - b) / 2) ** 2
            low, high = guess / 2, guess
            while f(high) < 0:
                high *= 1.5
            while f(low) > 0:
                low /= 2
            total += weight * brentq(f, low, high, xtol=1e-14)
        return total * (POINTS.lip - POINTS.bottom) / 2

    def ours():
        return float(tw.flow.quasi_potential(process, POINTS.bottom, POINTS.lip).value) * 0.01

    assert abs(ours() - by_hand()) < 1e-9
    show("V of the pit", alternate({"thalweg (with rate and diffusion)": ours, "loop of brentq (V only)": by_hand}))


def splitting():
    """P(escape in 100 steps) at T = 0.01, 1.8274e-5: work at equal error against plain simulation."""
    process, exact = tw.systems.pit(0.01), 1.8274e-5
    states = jnp.full(100_000, POINTS.bottom)

    def branching():
        return tw.flow.splitting(process, POINTS.bottom, _position, POINTS.lip_of_l1, 100, key=0, repeats=4)

    def plain():
        runs = tw.ensemble(process, states, 100, key=0, until=lambda W: POINTS.lip_of_l1 <= W)
        return np.mean(np.asarray(runs.arrived))

    times = alternate({"splitting, 4 x 1,000 paths": branching, "Monte Carlo, 100,000 paths": plain}, turns=3)
    show("Escape of the pit, p = 1.8e-5", times)
    found = branching()
    relative = found.error / exact
    monte_carlo = np.sqrt(1 / (exact * 100_000))
    seconds = {
        "splitting": times.median("splitting, 4 x 1,000 paths") * relative**2,
        "plain": times.median("Monte Carlo, 100,000 paths") * monte_carlo**2,
    }
    print(f"  relative error {relative:.3f} (splitting), {monte_carlo:.3f} (Monte Carlo)")
    print(f"  memory of the paths: {found.details['bytes'] / 1e6:.1f} MB for 1,000 paths of 100 steps")
    print(
        f"  plain Monte Carlo at 1e-12 would take {seconds['plain'] * exact / 1e-12 / 0.12**2 / 3600:.0f} hours for 12%"
    )
    target("splitting / Monte Carlo, time at equal error", seconds["splitting"] / seconds["plain"], most=1.0)


def _position(W):
    return W


def thresholds():
    """The largest stable rate: 500 data and 200,000 parameters; a small problem against the dense matrix."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(14, 10))

    def dense():
        n, d = x.shape
        H = x.T @ x / n
        C = sum(np.kron(np.outer(r, r), np.outer(r, r)) for r in x) / n
        A = np.kron(H, np.eye(d)) + np.kron(np.eye(d), H)
        import scipy.linalg

        return 1 / scipy.linalg.eigh(C, A, eigvals_only=True)[-1]

    def ours():
        return float(tw.flow.largest_stable_learning_rate(factors=x))

    assert abs(ours() - dense()) < 1e-8
    show("Largest stable rate, 14 data in R^10", alternate({"thalweg": ours, "dense kron": dense}))

    factors = rng.normal(size=(500, 200_000))
    tracemalloc.start()
    began = time.perf_counter()
    rate = tw.flow.largest_stable_learning_rate(factors=factors)
    seconds, (_, peak) = time.perf_counter() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(
        f"\n500 data, 200,000 parameters: {seconds:.1f} s, {peak / 1e9:.2f} GB beside the factors, "
        f"rank {rate.details['rank']}"
    )
    target("seconds", seconds, most=30)


def gradient_noise():
    """Covariance products of a network with 55,210 parameters and 256 digits, against the stored matrix by NumPy."""
    model = tw.systems.perceptron((64, 200, 200, 10), "relu", "xent")
    digits = tw.systems.digits()
    params, data = model.init(0), (jnp.asarray(digits.images[:256]), jnp.asarray(digits.labels[:256]))
    noise = tw.flow.gradient_noise(model.loss, params, data)
    rows = np.asarray(
        jax.vmap(lambda x, y: jax.flatten_util.ravel_pytree(jax.grad(model.loss)(params, (x, y)))[0])(*data)
    )
    centred, v = rows - rows.mean(axis=0), np.random.default_rng(0).normal(size=rows.shape[1])
    show(
        "One product with the covariance, 55,210 parameters",
        alternate({"thalweg": lambda: noise.covariance @ v, "NumPy": lambda: centred.T @ (centred @ v) / 256}),
    )
    began = time.perf_counter()
    noise.top(5)
    print(f"  top 5 eigenpairs: {time.perf_counter() - began:.2f} s")


if __name__ == "__main__":
    quasi_potential()
    splitting()
    thresholds()
    gradient_noise()
