"""Profiles: what each datum has to do with each unit, in four ways, one row a datum and one column a unit."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from thalweg._edge import check_arrays, check_choice, check_function, shown
from thalweg._process import Run, fork
from thalweg._select import Selection, select
from thalweg.knowledge._ablation import ablated, mean_activation
from thalweg.knowledge._by_datum import Layer, Visits, first_layer
from thalweg.knowledge._tally import Tally

KINDS = ("update", "activation", "gradient", "activation_gradient", "ablation")


def profiles(
    model: Any, run_or_data: Any, kind: str = "update", *, data: Any = None, layer: Any = first_layer
) -> Float[np.ndarray, "n units"]:
    """What each datum has to do with each hidden unit: the columns that `match_units` compares.

    **Arguments**

    - `model`: `tw.systems.perceptron(...)`, or your own with `loss(params, datum)` and, for activations,
      `hidden(params, x)`.
    - `run_or_data`: a `Run` of `tw.processes.sgd`, or a pair (parameters, data) where no history is needed. Data are
      (x, target), leading axis n.
    - `kind`: `"update"`: the sum over steps of |change of the unit's bias| that the datum caused, as
      `Tally(np.arange(n), learner, where=biases)` counts it (the run is replayed for this; who has that tally takes its
      `absolute[:n]` as it stands); `"activation"`; `"gradient"`: |d loss / d bias| at the end;
      `"activation_gradient"`: h dloss/dh; or `"ablation"`: the rise of the loss when the unit is held at its mean
      activation.
    - `data`: other data to look at than the run's (such as held-out ones); the mean activation stays that of the run's.
    - `layer`: for your own model, `layer(params)`, a `Layer` or a tuple (weights, biases, outgoing weights, next
      biases).

    **Returns** an array (n, units).

    >>> import jax.numpy as jnp, thalweg as tw
    >>> model = tw.systems.perceptron((2, 3, 2))
    >>> x, y = jnp.eye(2), jnp.eye(2)
    >>> tw.knowledge.profiles(model, (model.init(0), (x, y)), "activation").shape
    (2, 3)
    """
    check_choice(kind, "kind", KINDS)
    check_function(layer, "layer", "params")
    if isinstance(run_or_data, Run):
        step = run_or_data.process.step
        if not hasattr(step, "data") or step.data is None:
            raise ValueError("run_or_data must be a run of tw.processes.sgd, got one of another process")
        params, own = run_or_data.state.params, step.data
    else:
        if not isinstance(run_or_data, tuple) or len(run_or_data) != 2 or kind == "update":
            wanted = "a Run (updates are history)" if kind == "update" else "a Run, or a pair (parameters, data)"
            raise TypeError(f"run_or_data must be {wanted}, got {shown(run_or_data)}")
        params, own = run_or_data
        own = jax.tree.map(jnp.asarray, own)
    if kind == "update":
        if data is not None:
            raise ValueError("data must be left out for updates: they are those of the run's own data")
        return _updates(run_or_data, layer, len(jax.tree.leaves(own)[0]))
    if data is not None:
        check_arrays(data, "data")
    seen = own if data is None else jax.tree.map(jnp.asarray, data)
    if not isinstance(seen, tuple) or len(seen) != 2:
        raise TypeError(f"data must be a pair (x, target), got {shown(seen)}")
    inputs, given = ([leaf.shape[1:] for leaf in jax.tree.leaves(of[0])] for of in (own, seen))
    if inputs != given or len({leaf.shape[:1] for leaf in jax.tree.leaves(seen)}) > 1:
        shapes = [leaf.shape for leaf in jax.tree.leaves(seen)]
        raise ValueError(f"data must be n inputs of shape {inputs[0]} and n targets, got shapes {shapes}")
    if kind == "activation":
        check_function(getattr(model, "hidden", None), "model.hidden", "params, x")
        return np.asarray(model.hidden(params, seen[0]))
    check_function(getattr(model, "loss", None), "model.loss", "params, datum")
    selected = pick(layer, params)
    if kind == "ablation":
        units = len(Layer(*selected.get(params)).biases)
        return ablated(model.loss, params, selected, mean_activation(model, params, own[0], units), seen)
    return np.asarray(_gradients(model.loss, params, selected, seen, kind))


def pick(layer: Any, params: Any) -> Selection:
    """The layer as a selection of the parameters."""
    try:
        return select(lambda params: Layer(*layer(params)), params, "layer")
    except (KeyError, TypeError, IndexError, AttributeError):
        raise ValueError(
            "layer must pick (weights, biases, outgoing weights, next biases) out of the parameters, which are of type "
            f"{type(params).__name__} here"
        ) from None


def _updates(run: Run, layer: Any, n: int) -> np.ndarray:
    pick(layer, run.state.params)
    biases, learner = _Biases(layer), run.process
    step: Any = learner.step
    w = jax.eval_shape(lambda: learner.noise.sample(jax.random.key(0), jnp.zeros((), int)))
    if step.optimizer is None and not w.shape:
        fold: Any = Visits(biases, n, 0, 2**62)  # the whole of a step of plain descent is its one datum's
    else:
        fold = Tally(np.arange(n), learner, "absolute", where=biases)
    found = fork(run, int(run.start), folds={"updates": fold}).folds["updates"]
    return np.asarray(found[1] if isinstance(fold, Visits) else found.absolute[:n])


@eqx.filter_jit
def _gradients(loss: Any, params: Any, selected: Selection, data: Any, kind: str) -> Any:
    def one(datum: Any) -> Any:
        slope = Layer(*selected.get(jax.grad(loss)(params, datum)))
        if kind == "gradient":
            return abs(slope.biases)
        # Scaling a unit's outgoing row scales its activation: h dloss/dh, whatever the activation.
        return jnp.sum(Layer(*selected.get(params)).outgoing * slope.outgoing, axis=1)

    return jax.vmap(one)(data)


class _Biases(eqx.Module):
    """The biases that a layer names."""

    layer: Any = eqx.field(static=True)

    def __call__(self, params: Any) -> Any:
        return Layer(*self.layer(params)).biases
