"""Exact sums over the states of one layer, in blocks."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from thalweg.energy.boltzmann._machine import Machine

MOST_STATES = 2**25
BLOCK = 2**12


def smaller_layer(machine: Machine) -> tuple[str, int]:
    """Which layer has fewer states, and how many."""
    count = machine.visible_count
    if count is not None and count < machine.hidden_count:
        return "visible", count
    return "hidden", machine.hidden_count


def refuse_too_large(machine: Machine, fix: str) -> None:
    """One sentence where neither layer can be enumerated."""
    layer, count = smaller_layer(machine)
    if count > MOST_STATES:
        units = machine.visible if layer == "visible" else machine.hidden
        raise ValueError(
            f"an exact answer sums over the states of the smaller layer, at most 2^25; this machine's has {units} "
            f"{layer} units: {fix}"
        )


@eqx.filter_jit
def log_partition(machine: Machine) -> Any:
    """`log Z`, summed over the smaller layer."""
    layer, count = smaller_layer(machine)
    return _blocks(lambda numbers: jax.nn.logsumexp(_log_weights(machine, layer, numbers, count)), count)


@eqx.filter_jit
def log_partition_both(machine: Machine) -> tuple[Any, Any]:
    """`log Z` summed over the hidden and over the visible layer: they must agree."""
    counts: tuple[tuple[str, Any], ...] = (("hidden", machine.hidden_count), ("visible", machine.visible_count))
    one, other = (
        _blocks(lambda n, layer=layer, count=count: jax.nn.logsumexp(_log_weights(machine, layer, n, count)), count)
        for layer, count in counts
    )
    return one, other


@eqx.filter_jit
def expected_derivatives(machine: Machine, log_z: Any) -> Machine:
    """The mean of the derivatives of `log p~` under the model: the gradient of `log Z`."""
    layer, count = smaller_layer(machine)
    derivatives = machine.derivatives if layer == "visible" else machine.derivatives_given_hidden
    states = machine.visible_states if layer == "visible" else machine.hidden_states

    def add(block, total):
        numbers = block * min(BLOCK, count) + jnp.arange(min(BLOCK, count))
        weights = jnp.exp(_log_weights(machine, layer, numbers, count) - log_z)
        return jax.tree.map(jnp.add, total, derivatives(states(jnp.minimum(numbers, count - 1)), weights))

    return lax.fori_loop(0, -(-count // BLOCK), add, jax.tree.map(jnp.zeros_like, machine))


@eqx.filter_jit
def log_probabilities(machine: Machine) -> tuple[Any, Any]:
    """All visible states and their log probabilities."""
    states = machine.visible_states(jnp.arange(machine.visible_count))
    logs = machine.log_unnormalized(states)
    return states, logs - jax.nn.logsumexp(logs)


def log_sum_over_states(log_density: Any, states: Any, count: int) -> Any:
    """`log sum exp(log_density(states(number)))` over all numbers below `count`."""

    def block(numbers):
        logs = jax.vmap(log_density)(states(jnp.minimum(numbers, count - 1)))
        return jax.nn.logsumexp(jnp.where(numbers < count, logs, -jnp.inf))

    return _blocks(block, count)


def _log_weights(machine: Machine, layer: str, numbers: Any, count: int) -> Any:
    inside = jnp.minimum(numbers, count - 1)
    if layer == "visible":
        logs = machine.log_unnormalized(machine.visible_states(inside))
    else:
        logs = machine.log_unnormalized_hidden(machine.hidden_states(inside))
    return jnp.where(numbers < count, logs, -jnp.inf)


def _blocks(log_sum: Any, count: int) -> Any:
    size = min(BLOCK, count)
    return jax.nn.logsumexp(lax.map(lambda b: log_sum(b * size + jnp.arange(size)), jnp.arange(-(-count // size))))
