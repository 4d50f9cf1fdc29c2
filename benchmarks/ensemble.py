"""Particle-steps a second of an ensemble in the pit: thalweg, the same scan by hand, NumPy, Numba.

The scan by hand draws the same random numbers and ends in the same bits. Run as it is, this measures with one thread
(in a process of its own), then with all.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import thalweg as tw
from _timing import alternate, is_one_thread, on_one_thread, peer, show, target

MEMBERS, STEPS, RATE = 4096, 8192, 0.02
BITS = 32  # a random word serves so many steps


def start():
    return np.full(MEMBERS, 1.00745)


def by_thalweg():
    process = tw.systems.pit(RATE)
    key, states = jax.random.key(0), jnp.asarray(start())
    return lambda: tw.ensemble(process, states, STEPS, key=key).state


def by_hand():
    """What one would write for this system alone: a scan over words, and inside it one over their bits."""

    def move(W, flip):
        wide = 2 * (W - 2) * jnp.exp(-((W - 2) ** 2))
        narrow = 200 * (W - 1) * jnp.exp(-100 * (W - 1) ** 2)
        return W - RATE * (wide + flip * narrow)

    @jax.jit
    def run(W, key):
        keys = jax.vmap(lambda m: jax.random.fold_in(key, m))(jnp.arange(MEMBERS))

        def of_word(W, word_number):
            word = jax.vmap(lambda k: jax.random.bits(jax.random.fold_in(k, word_number), (), jnp.uint32))(keys)
            step = lambda W, bit: (move(W, ((word >> bit) & 1).astype(jnp.int32)), None)  # noqa: E731
            return lax.scan(step, W, jnp.arange(BITS, dtype=jnp.uint32))[0], None

        return lax.scan(of_word, W, jnp.arange(STEPS // BITS))[0]

    key, states = jax.random.key(0), jnp.asarray(start())
    return lambda: run(states, key)


def by_numpy():
    def run():
        rng, W = np.random.default_rng(0), start()
        for _ in range(STEPS):
            flip = rng.integers(0, 2, MEMBERS, dtype=np.int8)
            wide = 2 * (W - 2) * np.exp(-((W - 2) ** 2))
            narrow = 200 * (W - 1) * np.exp(-100 * (W - 1) ** 2)
            W = W - RATE * (wide + flip * narrow)
        return W

    return run


def by_numba(numba):
    @numba.njit(parallel=not is_one_thread())
    def run(W):
        for m in numba.prange(len(W)):
            word, x = np.uint64(m + 1) * np.uint64(0x9E3779B97F4A7C15), W[m]
            for _ in range(STEPS):
                word ^= word << np.uint64(13)  # Marsaglia's xorshift: far cheaper than what the others draw with
                word ^= word >> np.uint64(7)
                word ^= word << np.uint64(17)
                wide = 2 * (x - 2) * np.exp(-((x - 2) ** 2))
                narrow = 200 * (x - 1) * np.exp(-100 * (x - 1) ** 2)
                x = x - RATE * (wide + (word >> np.uint64(40) & np.uint64(1)) * narrow)
            W[m] = x
        return W

    return lambda: run(start())


def main() -> None:
    contenders = {"tw.ensemble": by_thalweg(), "scan by hand, same numbers": by_hand(), "NumPy": by_numpy()}
    numba = peer("numba")
    if numba:
        contenders["Numba, xorshift numbers"] = by_numba(numba)
    same = np.array_equal(contenders["tw.ensemble"](), contenders["scan by hand, same numbers"]())
    threads = "one thread" if is_one_thread() else "all threads"
    contenders["tw.ensemble"] = by_thalweg()
    times = alternate(contenders)
    show(f"The pit, {MEMBERS} members, {STEPS} steps, {threads}", times, "member-steps/s", MEMBERS * STEPS)
    print(f"  thalweg and the scan by hand end in the same bits: {same}")
    target("tw.ensemble / scan by hand", times.ratio("tw.ensemble", "scan by hand, same numbers"), most=1.1)
    target("NumPy / tw.ensemble", times.ratio("NumPy", "tw.ensemble"), least=2.0)


if __name__ == "__main__":
    if not is_one_thread():
        on_one_thread(__file__)
    main()
