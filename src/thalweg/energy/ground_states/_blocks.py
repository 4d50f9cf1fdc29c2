"""Many walkers in blocks that fit into a processor's cache, and into memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from thalweg.energy.ground_states._wavefunction import Wavefunction

NUMBERS = 2**17  # of a quantity of all pairs in one block


def in_blocks(psi: Wavefunction, f: Callable[..., Any], *arrays: Any) -> Any:
    """`f(*arrays)`, where walkers are the last axis of every array in and out, block by block.

    A block holds so many walkers that one number a pair of particles takes a megabyte: 40 particles with 4,096 walkers
    would else take gigabytes. Walkers that do not fill whole blocks are taken all at once.
    """
    walkers = jax.tree.leaves(arrays)[0].shape[-1]
    pairs = max(1, psi.particles * (psi.particles - 1) // 2)
    size = 1 << max(6, (NUMBERS // pairs).bit_length() - 1)
    if walkers <= size or walkers % size:
        return f(*arrays)
    # a block takes every so manieth walker: walkers that are spread over devices are so in every block
    split = lambda a: jnp.moveaxis(a.reshape(*a.shape[:-1], size, -1), -1, 0)  # noqa: E731
    join = lambda a: jnp.moveaxis(a, 0, -1).reshape(*a.shape[1:-1], walkers)  # noqa: E731
    return jax.tree.map(join, lax.map(lambda block: f(*block), jax.tree.map(split, arrays)))
