"""Oscillator orbitals: which ones a determinant fills, and their values with two derivatives."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg._edge import is_whole, shown

Orbital = tuple[int, ...]


def lowest_orbitals(count: int, frequencies: np.ndarray) -> tuple[Orbital, ...]:
    """The `count` orbitals of least energy, by energy and then by quantum numbers from the left.

    >>> import numpy as np
    >>> lowest_orbitals(3, np.ones(2))
    ((0, 0), (1, 0), (0, 1))
    """
    dimension = len(frequencies)
    # In the softest direction alone, `count` orbitals lie below this energy.
    most = (count - 1) * frequencies.min() + 1e-9
    sizes = [int(most / frequency) + 1 for frequency in frequencies]
    found = [
        numbers
        for numbers in itertools.product(*(range(size) for size in sizes))
        if np.dot(numbers, frequencies) <= most or dimension == 1
    ]
    found.sort(key=lambda n: (round(float(np.dot(n, frequencies)), 9), tuple(-k for k in n)))
    return tuple(found[:count])


def check_orbitals(orbitals: Any, spins: tuple[int, int], dimension: int) -> tuple[tuple[Orbital, ...], ...]:
    """The orbitals that spin-up and spin-down particles fill, from what a user gives."""
    wanted = (
        f"orbitals must be a list of quantum numbers such as {[(0,) * dimension]}, or one list for spin up and one "
        f"for spin down, got {shown(orbitals)}"
    )
    try:
        depth = _depth(orbitals)
        one_number = dimension == 1 and depth in (1, 2)
        deep = 2 if one_number else 3
        lists = [list(part) for part in orbitals] if depth == deep else [list(orbitals)] * 2
        if len(lists) != 2:
            raise ValueError(wanted)
        tidy = [[((n,) if one_number else tuple(n)) for n in part] for part in lists]
    except TypeError:
        raise ValueError(wanted) from None
    for count, part, spin in zip(spins, tidy, ("up", "down"), strict=True):
        if any(len(n) != dimension or not all(is_whole(k) and k >= 0 for k in n) for n in part):
            raise ValueError(f"orbitals must be tuples of {dimension} whole numbers >= 0, got {shown(part)}")
        if len(set(part)) < len(part):
            raise ValueError(f"orbitals must differ from one another (Pauli's principle), got {shown(part)}")
        if len(part) < count:
            raise ValueError(f"orbitals must be at least {count} for the spin-{spin} particles, got {len(part)}")
    return tuple(tuple(tuple(int(k) for k in n) for n in part[:count]) for count, part in zip(spins, tidy, strict=True))


def _depth(value: Any) -> int:
    """How deep lists are nested, along the first entry that is not empty."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return 0
    return 1 + max((_depth(part) for part in value), default=0)


def hermite(z: Float[Array, "..."], highest: int) -> tuple[list, list, list]:
    """Hermite polynomials with leading coefficient 1 for the weight exp(-z^2), and two derivatives of each.

    `h_{n+1} = z h_n - (n/2) h_{n-1}`, `h_n' = n h_{n-1}`, `h_n'' = n (n-1) h_{n-2}`.
    """
    values = [jnp.ones_like(z)]
    if highest > 0:
        values.append(z)
    for n in range(1, highest):
        values.append(z * values[n] - (n / 2) * values[n - 1])
    zero = jnp.zeros_like(z)
    first = [n * values[n - 1] if n else zero for n in range(highest + 1)]
    second = [n * (n - 1) * values[n - 2] if n > 1 else zero for n in range(highest + 1)]
    return values, first, second
