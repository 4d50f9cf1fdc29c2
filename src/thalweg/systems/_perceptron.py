"""Small networks: fully connected layers, with the parameters in a dict."""

import itertools
from collections.abc import Callable
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg._edge import check_choice, is_whole, shown
from thalweg._noise import as_key

Images: TypeAlias = Array | np.ndarray

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "softplus": jax.nn.softplus,
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "linear": lambda z: z,
}


class Perceptron(eqx.Module):
    """A fully connected network; `perceptron` makes one. Its parameters live outside it, in a dict."""

    sizes: tuple[int, ...] = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    kind: str = eqx.field(static=True)
    bias: str = eqx.field(static=True)

    def init(self, key: Any) -> dict[str, Array]:
        """Parameters W1 (inputs, units), b1, W2, b2, ...: normal with variance 2/fan-in; biases too, or 0."""
        params = {}
        key = as_key(key)
        if key.ndim:
            raise ValueError(f"key must be one key, got shape {key.shape}")
        keys = jax.random.split(key, 2 * len(self.sizes))
        for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(self.sizes), start=1):
            scale = jnp.sqrt(2 / fan_in)
            params[f"W{layer}"] = scale * jax.random.normal(keys[2 * layer], (fan_in, fan_out))
            params[f"b{layer}"] = jnp.zeros(fan_out)
            if self.bias == "he":
                params[f"b{layer}"] = scale * jax.random.normal(keys[2 * layer + 1], (fan_out,))
        return params

    def loss(self, params: dict[str, Array], datum: tuple[Any, Any]) -> Float[Array, ""]:
        """The loss of one datum `(x, target)`; the target is a vector, or the number of a class."""
        x, target = datum
        output = self.predict(params, x)
        if jnp.issubdtype(jnp.asarray(target).dtype, jnp.integer) and jnp.ndim(target) == jnp.ndim(output) - 1:
            target = jax.nn.one_hot(target, self.sizes[-1], dtype=output.dtype)
        if self.kind == "mse":
            return 0.5 * jnp.sum((output - target) ** 2)
        return -jnp.sum(target * jax.nn.log_softmax(output))

    def predict(self, params: dict[str, Array], x: Float[Images, "*n inputs"]) -> Float[Array, "*n outputs"]:
        """The outputs: activated for the squared loss, logits for the cross-entropy."""
        last = len(self.sizes) - 1
        z = self.hidden(params, x) @ params[f"W{last}"] + params[f"b{last}"]
        return ACTIVATIONS[self.activation](z) if self.kind == "mse" else z

    def hidden(self, params: dict[str, Array], x: Float[Images, "*n inputs"]) -> Float[Array, "*n units"]:
        """The activations of the last hidden layer (the input itself where there is none)."""
        for layer in range(1, len(self.sizes) - 1):
            x = ACTIVATIONS[self.activation](x @ params[f"W{layer}"] + params[f"b{layer}"])
        return x

    def accuracy(self, params: dict[str, Array], x: Float[Images, "n inputs"], target: Any) -> Float[Array, ""]:
        """The share of the data whose largest output is the target's."""
        target = jnp.asarray(target)
        wanted = jnp.argmax(target, axis=-1) if target.ndim == 2 else target
        return jnp.mean(jnp.argmax(self.predict(params, x), axis=-1) == wanted)


def perceptron(sizes: tuple[int, ...], activation: str = "softplus", loss: str = "mse", bias: str = "he") -> Perceptron:
    """A fully connected network, such as `(64, 100, 2)`: inputs, hidden units, outputs. `(64, 10)` has no hidden layer.

    **Arguments**

    - `sizes`: units a layer. - `activation`: softplus, relu, gelu, tanh, sigmoid or linear.
    - `loss`: `"mse"`, half the squared distance of activated outputs; or `"xent"`, the cross-entropy of
      linear outputs. - `bias`: `"he"` or `"zero"` at the start.

    >>> import thalweg as tw
    >>> model = tw.systems.perceptron((64, 100, 2))
    >>> {name: p.shape for name, p in model.init(0).items()}
    {'W1': (64, 100), 'b1': (100,), 'W2': (100, 2), 'b2': (2,)}
    """
    if not isinstance(sizes, tuple | list):
        raise TypeError(f"sizes must be a tuple such as (64, 100, 2), got {shown(sizes)}")
    sizes = tuple(sizes)
    if len(sizes) < 2 or not all(is_whole(size) and size > 0 for size in sizes):
        raise ValueError(f"sizes must be at least two positive whole numbers, got {sizes}")
    for name, value, choices in (
        ("activation", activation, tuple(ACTIVATIONS)),
        ("loss", loss, ("mse", "xent")),
        ("bias", bias, ("he", "zero")),
    ):
        check_choice(value, name, choices)
    return Perceptron(sizes, activation, loss, bias)


def softmax_classifier(pixels: int, classes: int) -> Perceptron:
    """Logistic regression with several classes: a network without hidden units, under cross-entropy.

    >>> import jax.numpy as jnp, thalweg as tw
    >>> model = tw.systems.softmax_classifier(2, 4)
    >>> flat = {"W1": jnp.zeros((2, 4)), "b1": jnp.zeros(4)}
    >>> round(float(model.loss(flat, (jnp.ones(2), 3))), 6)  # log 4
    1.386294
    """
    for name, value in (("pixels", pixels), ("classes", classes)):
        if not is_whole(value) or value < 1:
            raise ValueError(f"{name} must be a whole number >= 1, got {shown(value)}")
    return perceptron((pixels, classes), "linear", "xent", "zero")
