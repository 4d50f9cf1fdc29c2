"""The dense layers found inside a loss give its gradient, and what is no layer is left alone."""

import jax
import jax.numpy as jnp
import numpy as np

import thalweg as tw


def loss(p, d):
    """Rows of tokens; W both ways round; C used twice; s and a not as a layer's weight and bias."""
    h = jnp.tanh(d @ p["A"])
    z = (p["B"] @ h[-1]) + p["b"]
    return jnp.sum(z**2) + jnp.sum((h @ p["C"]) @ p["C"].T) + jnp.sum(p["s"] * h)


def test_the_layers_give_the_gradient():
    draw = np.random.default_rng(0)
    params = {
        "A": draw.normal(size=(7, 5)),
        "B": draw.normal(size=(3, 5)),
        "C": draw.normal(size=(5, 2)),
        "b": np.ones(3),
        "s": np.ones(5),
    }
    weights = np.arange(20.0)
    learner = tw.processes.sgd(loss, draw.random((20, 6, 7)), 0.1, batch_size=4, weights=weights)
    state, w = learner.init(params), jnp.array([3, 0, 7, 7])
    layers = dict(zip(params, learner.layers(state, w), strict=True))
    assert [name for name, layer in layers.items() if layer is None] == ["C", "s"]
    assert {name: layer.transposed for name, layer in layers.items() if layer} == {"A": False, "B": True, "b": False}
    assert layers["A"].inputs.shape == (4, 6, 7) and layers["b"].inputs is None
    for slots in (np.ones(4), np.array([0, 1, 0, 1])):  # the whole batch, and a part of it
        gradient = learner.contributions(state, w, slots)
        for name, layer in layers.items():
            if layer is None:
                continue
            inputs = jnp.ones((4, layer.cotangents.shape[1], 1)) if layer.inputs is None else layer.inputs
            found = jnp.einsum("b,bri,bro->io", slots, inputs, layer.cotangents)
            found = found.T if layer.transposed else found
            np.testing.assert_allclose(found.reshape(gradient[name].shape), gradient[name], rtol=1e-12, atol=1e-15)


def test_a_network_is_all_layers():
    model = tw.systems.perceptron((4, 3, 2), "relu", "xent")
    learner = tw.processes.sgd(model.loss, (jnp.ones((5, 4)), jnp.zeros(5, int)), 0.1)
    layers = learner.layers(learner.init(model.init(0)), jnp.array(2))
    assert all(layer is not None for layer in layers)
    assert {
        layer.cotangents.shape[-1] for layer in jax.tree.leaves(layers, is_leaf=lambda x: hasattr(x, "inputs"))
    } == {2, 3}
