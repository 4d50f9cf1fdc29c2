"""Ablation: what becomes of each datum's loss without one unit."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from thalweg._select import Selection
from thalweg.knowledge._by_datum import Layer


def mean_activation(model: Any, params: Any, x: Any, units: int) -> Any:
    """The mean activation of each unit where the model tells it (`hidden`), else 0."""
    hidden = getattr(model, "hidden", None)
    if hidden is None:
        return jnp.zeros(units)
    mean = jnp.mean(hidden(params, x), axis=0)
    return mean if mean.shape == (units,) else jnp.zeros(units)


def ablated(
    loss: Callable[[Any, Any], Any], params: Any, layer: Selection, mean: Any, data: Any
) -> Float[np.ndarray, "n units"]:
    """How much the loss of each datum rises when one unit is held at its mean activation.

    **Arguments**: `layer`, the selection of a `Layer` in the parameters: its outgoing row is set to 0 and the next bias
    takes on `mean` times that row; `mean`, (units,); `data`, leading axis n.
    """
    return np.asarray(_ablated(loss, params, layer, mean, data))


@eqx.filter_jit
def _ablated(loss: Any, params: Any, layer: Selection, mean: Any, data: Any) -> Any:
    def losses(params: Any) -> Any:
        return jax.vmap(lambda datum: loss(params, datum))(data)

    def without(unit: Any) -> Any:
        part = Layer(*layer.get(params))
        moved = part.next_biases + mean[unit] * part.outgoing[unit]
        changed = part._replace(outgoing=part.outgoing.at[unit].set(0.0), next_biases=moved)
        return losses(layer.put(params, changed))

    return (jax.lax.map(without, jnp.arange(mean.shape[0])) - losses(params)).T
