"""Several tangents at once: pushed by a step, and made orthonormal again."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

FEW = 8  # up to this many tangents are orthonormalised one after the other, more by a QR factorisation


def push_frame(step: Callable[[Any], tuple[Any, Any]], moving: Any, frame: Any) -> tuple[Any, Any, Any]:
    """The state after a step `moving -> (moving, still)`, and the tangents (a leading axis) carried along."""

    def along(tangent):
        return jax.jvp(step, (moving,), (tangent,), has_aux=True)

    return jax.vmap(along, out_axes=(None, 0, None))(frame)


def orthonormalise(frame: Any) -> tuple[Any, Any]:
    """An orthonormal frame with the same nested spans, and the logarithms of the stretches (R's diagonal)."""
    leaves, structure = jax.tree.flatten(frame)
    count = leaves[0].shape[0]
    if count > FEW:
        sizes = [leaf[0].size for leaf in leaves]
        matrix = jnp.concatenate([leaf.reshape(count, -1) for leaf in leaves], axis=1).T
        q, r = jnp.linalg.qr(matrix)
        ends = [sum(sizes[: at + 1]) for at in range(len(sizes))]
        parts = jnp.split(q.T, ends[:-1], axis=1)
        shaped = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
        return jax.tree.unflatten(structure, shaped), jnp.log(jnp.abs(jnp.diagonal(r)))
    # Modified Gram-Schmidt, written out: its R is as accurate as Householder's, and XLA fuses it with the step.
    rows: list[list[Any]] = []
    logs = []
    for k in range(count):
        v = [leaf[k] for leaf in leaves]
        for q in rows:
            along = _dot(v, q)
            v = [a - along * b for a, b in zip(v, q, strict=True)]
        norm = jnp.sqrt(_dot(v, v))
        rows.append([a / jnp.where(norm > 0, norm, 1.0) for a in v])
        logs.append(jnp.log(norm))
    stacked = [jnp.stack([row[at] for row in rows]) for at in range(len(leaves))]
    return jax.tree.unflatten(structure, stacked), jnp.stack(logs)


def _dot(a: list[Any], b: list[Any]) -> Any:
    products = [x * y if jnp.ndim(x) == 0 else jnp.sum(x * y) for x, y in zip(a, b, strict=True)]
    total = products[0]
    for product in products[1:]:
        total = total + product
    return total
