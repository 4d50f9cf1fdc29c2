"""The machines that the tests run over: the worked cases of the literature page, and one of every kind of unit."""

import numpy as np

import thalweg as tw


def _cosine(visible, hidden):
    i, j = np.arange(visible)[:, None], np.arange(hidden)[None]
    return 0.5 * np.cos(i + 2 * j)


def worked_binary():
    """log Z = 4.952581193614."""
    return tw.energy.RBM(_cosine(4, 3), 0.1 * np.arange(4) - 0.2, 0.3 - 0.2 * np.arange(3))


def worked_gaussian():
    """log Z = 3.792158706778."""
    return tw.energy.GaussianRBM(_cosine(2, 3), [-0.2, -0.1], 0.3 - 0.2 * np.arange(3), np.log([0.5, 0.8]))


def categorical(visible=3, classes=3, hidden=2, scale=0.8, seed=0):
    rng = np.random.default_rng(seed)
    return tw.energy.CategoricalRBM(
        rng.normal(size=(visible, classes, hidden)) * scale,
        rng.normal(size=(visible, classes)),
        rng.normal(size=hidden),
    )


def random_binary(visible=6, hidden=5, scale=0.7, seed=0, units=(0, 1)):
    rng = np.random.default_rng(seed)
    return tw.energy.RBM(
        rng.normal(size=(visible, hidden)) * scale, rng.normal(size=visible), rng.normal(size=hidden), units
    )


def two_modes(coupling=2.0, size=10):
    """All units off, or all on; nothing between. log Z = 0.6941 at 10 and 2."""
    bias = -coupling * size / 2 * np.ones(size)
    return tw.energy.RBM(coupling * np.ones((size, size)), bias, bias)


def every_kind():
    gaussian = worked_gaussian()
    return {
        "binary": worked_binary(),
        "wide binary": random_binary(3, 5),
        "spins": random_binary(units=(-1, 1)),
        "gaussian": gaussian,
        "gaussian, one variance": tw.energy.GaussianRBM(
            gaussian.weights, gaussian.visible_bias, gaussian.hidden_bias, -0.3
        ),
        "gaussian with spins": tw.energy.GaussianRBM(
            gaussian.weights, gaussian.visible_bias, gaussian.hidden_bias, gaussian.log_variance, (-1, 1)
        ),
        "categorical": categorical(),
    }


def some_states(machine, count=7, seed=1):
    rng = np.random.default_rng(seed)
    if isinstance(machine, tw.energy.GaussianRBM):
        return rng.normal(size=(count, machine.visible))
    return np.asarray(machine.visible_states(rng.integers(0, machine.visible_count, count)))
