"""Methods that say which units hold what a group of data taught: a score a unit, and how right it is."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from thalweg._edge import check_choice, check_function, check_number, shown
from thalweg._loop import as_arrays
from thalweg.knowledge._by_datum import ratio
from thalweg.knowledge._forks import check_labels
from thalweg.knowledge._influence import influence
from thalweg.knowledge._tallied import Tallied
from thalweg.stats._series import as_numbers

METHODS = ("tally", "signed_tally", "gradient", "fisher", "ablation", "influence")


def unit_scores(
    method: str,
    owner: Any,
    groups: Any,
    *,
    loss: Callable[[Any, Any], Any] | None = None,
    data: Any = None,
    params: Any = None,
    tally: Tallied | None = None,
    ridge: float = 0.1,
) -> Float[np.ndarray, " units"]:
    """How much each unit holds of what group 0 taught rather than group 1, by one method.

    **Arguments**

    - `method`: a share g0/(g0 + g1) for all but ablation.
      `"tally"`: of |updates| in training; `"signed_tally"`: of |the sum of updates|; `"gradient"`: of the mean over
      data of |gradient| at the end; `"fisher"`: of the mean squared gradient; `"influence"`: of |change of parameters|
      when the group loses weight, by the influence function with the empirical Fisher as curvature; `"ablation"`: the
      mean rise of group 0's loss less that of group 1's, with the unit's parameters set to 0.
    - `owner`: like the parameters: whole numbers, the unit that each belongs to, -1 for none; every parameter of a unit
      counts.
    - `groups`: (n,), 0 or 1; other data are not looked at.
    - `loss`, `data`, `params`: the trained network, for all methods but the tallies.
    - `tally`: what `tw.knowledge.Tally(groups, ...)` counted in training, for the tallies.
    - `ridge`: of the influence function's curvature, in units of the largest diagonal entry of the Fisher.

    **Returns** (units,): higher, the more the unit is group 0's; NaN where a share is 0/0.
    """
    check_choice(method, "method", METHODS)
    belongs = _Owner(owner)
    if method in ("tally", "signed_tally"):
        if not isinstance(tally, Tallied):
            raise TypeError(f"tally must be the result of a tw.knowledge.Tally for this method, got {shown(tally)}")
        kept = tally.absolute if method == "tally" else tally.signed
        if kept is None:
            raise ValueError(f"tally must hold {'absolute' if method == 'tally' else 'signed'} updates: see its kinds")
        return ratio(*(belongs(jax.tree.map(lambda leaf, g=g: abs(leaf[g]), kept)) for g in (0, 1)))
    if loss is None:
        raise TypeError("loss must be given for this method, got None")
    check_function(loss, "loss", "params, datum")
    if data is None or params is None:
        raise TypeError("data and params must be given for this method, got None")
    data, params = as_arrays(data), as_arrays(params)
    groups = check_labels(groups, len(jax.tree.leaves(data)[0]), "groups")
    members = np.stack([groups == 0, groups == 1]).astype(float)
    if not members.any(axis=1).all():
        raise ValueError("groups must hold data of both groups, 0 and 1")
    weights = jnp.asarray(members / members.sum(axis=1, keepdims=True))
    if method == "ablation":
        units = jnp.arange(belongs.units)
        rises = np.asarray(_rises(loss, params, data, weights, jax.tree.map(jnp.asarray, owner), units))
        return rises[:, 0] - rises[:, 1]
    sizes, squares = _gradients(loss, params, data, weights)
    if method == "gradient":
        return ratio(*(belongs(jax.tree.map(lambda leaf, g=g: leaf[g], sizes)) for g in (0, 1)))
    if method == "fisher":
        return ratio(*(belongs(jax.tree.map(lambda leaf, g=g: leaf[g], squares)) for g in (0, 1)))
    scale = max(float(jnp.max(leaf)) for leaf in jax.tree.leaves(squares))
    least = float(check_number(ridge, "ridge", above=0)) * scale
    moved = [
        influence(loss, data, params, -member, least, curvature="fisher", tolerance=1e-3).value for member in members
    ]
    return ratio(*(belongs(jax.tree.map(jnp.abs, one)) for one in moved))


def auroc(scores: Any, truth: Any) -> float:
    """The odds that a true unit scores above another: 1 is perfect, 1/2 chance. Ties and NaN count half.

    >>> import thalweg as tw
    >>> tw.knowledge.auroc([0.9, 0.2, 0.4], [True, False, True])
    1.0
    """
    scores, truth = as_numbers(scores, "scores"), np.asarray(truth)
    if scores.ndim != 1 or not scores.size:
        raise ValueError(f"scores must have shape (units,), got {scores.shape}")
    if truth.shape != scores.shape or truth.dtype != bool:
        raise ValueError(f"truth must be {scores.size} truth values, one a score, got {shown(truth)}")
    if truth.all() or not truth.any():
        raise ValueError("truth must hold both units that are true and units that are not")
    inside, outside = scores[truth][:, None], scores[~truth]
    tie = np.isnan(inside) | np.isnan(outside) | (inside == outside)
    return float(np.mean(np.where(tie, 0.5, inside > outside)))


class _Owner:
    """Sums a pytree like the parameters over the parameters of each unit."""

    def __init__(self, owner: Any):
        try:
            self.where = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(owner)])
        except (TypeError, ValueError):
            self.where = np.zeros(0)
        if self.where.dtype.kind not in "iu" or not self.where.size or self.where.max() < 0:
            raise ValueError(f"owner must be like the parameters, whole numbers, the unit of each, got {shown(owner)}")
        self.units = int(self.where.max()) + 1

    def __call__(self, values: Any) -> np.ndarray:
        flat = np.concatenate([np.ravel(np.asarray(leaf)) for leaf in jax.tree.leaves(values)])
        if flat.shape != self.where.shape:
            raise ValueError(f"owner must have one number a parameter, {flat.size}, got {self.where.size}")
        kept = self.where >= 0
        return np.bincount(self.where[kept], flat[kept], self.units)


@eqx.filter_jit
def _gradients(loss: Any, params: Any, data: Any, weights: Any) -> tuple[Any, Any]:
    """Means over each group of |gradient| and of gradient^2, like the parameters with a leading axis of groups."""
    zeros = jax.tree.map(lambda leaf: jnp.zeros((len(weights), *leaf.shape)), params)

    def one(sums: Any, at: Any) -> Any:
        datum, weight = at
        gradient = jax.grad(loss)(params, datum)
        add = lambda total, value: total + jnp.multiply.outer(weight, value)  # noqa: E731
        sizes = jax.tree.map(lambda total, g: add(total, abs(g)), sums[0], gradient)
        return (sizes, jax.tree.map(lambda total, g: add(total, g * g), sums[1], gradient)), None

    return jax.lax.scan(one, (zeros, zeros), (data, weights.T))[0]


@eqx.filter_jit
def _rises(loss: Any, params: Any, data: Any, weights: Any, owner: Any, units: Any) -> Any:
    def of(params: Any) -> Any:
        return weights @ jax.vmap(lambda datum: loss(params, datum))(data)

    def without(unit: Any) -> Any:
        return of(jax.tree.map(lambda leaf, own: jnp.where(own == unit, 0.0, leaf), params, owner))

    return jax.lax.map(without, units) - of(params)
