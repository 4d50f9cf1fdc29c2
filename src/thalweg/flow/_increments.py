"""The increments of a process near a state, in flat coordinates: what large deviations and expansions are made of."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg._edge import check_finite, outline, shown
from thalweg._loop import apply_step, as_arrays
from thalweg._process import Process, check_process
from thalweg._select import Selection, select
from thalweg.flow._asked import arrays


class Increments(eqx.Module):
    """What one step adds to the coordinates of a state: `delta_j(x) = step(x, w_j) - x`, with probability `weights_j`.

    Exact for finite noise, by quadrature for Gaussian noise. `template` fills in the parts of the state
    that are no coordinates.
    """

    step: Any
    draws: Any
    weights: Float[Array, " outcomes"]
    template: Any
    selection: Selection

    def __init__(self, process: Process, state: Any, name: str = "state"):
        check_process(process)
        self.step = process.step
        self.draws, self.weights = process.noise.atoms()
        self.template = as_state(process, state, name)
        self.selection = _coordinates(process, self.template)

    @property
    def dimension(self) -> int:
        """How many coordinates there are."""
        return sum(at.numbers.size for at in jax.tree.leaves(self.selection.picked))

    def point(self, state: Any) -> Float[Array, " d"]:
        """The coordinates of a state."""
        return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(self.selection.get(state))]).astype(float)

    def state(self, point: Float[Array, " d"]) -> Any:
        """The state with these coordinates."""
        leaves, structure = jax.tree.flatten(self.selection.get(self.template))
        ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
        parts = [part.reshape(leaf.shape) for part, leaf in zip(jnp.split(point, ends), leaves, strict=True)]
        return self.selection.put(self.template, jax.tree.unflatten(structure, parts))

    def of(self, given: Any, name: str) -> Float[np.ndarray, " d"]:
        """The coordinates of what a user gives: a state, or a point."""
        tree = arrays(given, name, "a state of the process or a point")
        leaves, wanted = jax.tree.leaves(tree), jax.tree.leaves(self.template)
        if jax.tree.structure(tree) == jax.tree.structure(self.template) and all(
            a.shape == b.shape for a, b in zip(leaves, wanted, strict=True)
        ):
            return np.asarray(self.point(tree))
        if len(leaves) == 1 and leaves[0].size == self.dimension:
            return np.asarray(leaves[0], dtype=float).reshape(-1)
        raise ValueError(
            f"{name} must be a state like {outline(self.template)}, or a point with {self.dimension} coordinates, "
            f"got {outline(tree)}"
        )

    def one(self, x: Float[Array, " d"], draw: Any) -> Float[Array, " d"]:
        """The increment of one outcome."""
        after = apply_step(self.step, self.state(x), draw, jnp.asarray(0, jnp.result_type(int)))
        return self.point(after) - x

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, "outcomes d"]:
        """All increments from `x`."""
        if not jax.tree.leaves(self.draws):
            return self.one(x, self.draws)[None]
        return jax.vmap(lambda w: self.one(x, w))(self.draws)

    def mean(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """`m(x) = E delta`."""
        return self.weights @ self(x)

    def moments(self, x: Float[Array, " d"]) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
        """`m(x) = E delta` and `C(x) = Cov delta`."""
        delta = self(x)
        mean = self.weights @ delta
        centred = delta - mean
        return mean, (self.weights[:, None] * centred).T @ centred

    def hamiltonian(self, x: Float[Array, " d"], p: Float[Array, " d"], kind: str) -> Float[Array, ""]:
        """`H(x, p) = log E exp(p . delta)`; its second order in p where the `kind` is `"diffusion"`."""
        if kind == "diffusion":
            mean, covariance = self.moments(x)
            return mean @ p + p @ covariance @ p / 2
        return jax.nn.logsumexp(self(x) @ p, b=self.weights)


def as_state(process: Process, given: Any, name: str) -> Any:
    """A state from a state, or from what `init` takes."""
    wanted = "a state of the process, or what its init takes"
    tree = arrays(given, name, wanted)
    try:
        after = eqx.filter_eval_shape(
            lambda s: apply_step(process.step, s, process.noise.sample(jax.random.key(0), 0), 0), tree
        )
        if jax.tree.structure(after) == jax.tree.structure(tree):
            return jax.tree.map(lambda leaf, a: leaf.astype(jnp.promote_types(leaf.dtype, a.dtype)), tree, after)
    except (TypeError, ValueError, AttributeError, IndexError, KeyError):
        pass
    try:
        state = as_arrays(process.init(given))
    except (TypeError, ValueError, AttributeError, IndexError, KeyError):
        raise ValueError(f"{name} must be {wanted}, got {shown(given)}") from None
    check_finite(state, name)
    return state


def _coordinates(process: Process, template: Any) -> Selection:
    if process.coordinates is not None:
        return select(process.coordinates, template, "coordinates")
    floating = jax.tree.map(lambda leaf: np.full(leaf.shape, jnp.issubdtype(leaf.dtype, jnp.floating)), template)
    if not any(np.any(mask) for mask in jax.tree.leaves(floating)):
        raise ValueError(f"the state must have floating coordinates, got {outline(template)}")
    return select(floating, template, "coordinates")
