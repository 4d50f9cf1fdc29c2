"""Steering: Op over a plain run, reverse mode, exponents beside pynamicalsys, entropies beside dit.

Ratios, alternating in one process, medians; compile time apart. Run it on a quiet machine.
"""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

import thalweg as tw


def seconds(f):
    start = time.perf_counter()
    jax.block_until_ready(f())
    return time.perf_counter() - start


def compare(name, plain, ours, wanted, rounds=9, **told):
    """The median of paired ratios `ours / plain`."""
    cold = seconds(plain), seconds(ours)
    pairs = [(seconds(plain), seconds(ours)) for _ in range(rounds)]
    ratio = statistics.median(b / a for a, b in pairs)
    took = statistics.median(b for _, b in pairs)
    more = "".join(f", {key} {value(took):.3g}" for key, value in told.items())
    print(f"{name}: {ratio:.2f} ({wanted}); {took:.4f} s, with compilation {cold[1]:.1f} s{more}", flush=True)
    return ratio


def op_curve(steps=500_000):
    lorenz = tw.systems.lorenz(28.0)
    state = lorenz.init(a=1, b=1, c=1)
    for read, end in (("every step", "every"), ("end only", "end")):
        record = (lambda s, w, n: n["b"]) if end == "every" else None
        compare(
            f"one Op curve over a plain run, {steps} steps, read at {read}",
            lambda record=record: tw.simulate(lorenz, state, steps, record=record).state,
            lambda end=end: tw.steering.op(lorenz, state, steps, "a", "b", "b", read=end).op,
            "at most 3",
            rounds=5,
        )


def landscape(members=10_000, steps=1000):
    lorenz = tw.systems.lorenz(28.0)
    x = jax.random.normal(jax.random.key(0), (3, members)) * 5
    states = lorenz.init(*x)
    plain = jax.jit(jax.vmap(lambda s: jax.lax.fori_loop(0, steps, lambda i, s: lorenz.step(s, None), s)))
    steered = jax.jit(jax.vmap(lambda s: tw.steering.op(lorenz, s, steps, "a", "b", "b", read="end").op))
    compare(
        f"map of {members} Lorenz starts x {steps} steps over a plain vmapped loop",
        lambda: plain(states),
        lambda: steered(states),
        "at most 5; at least 5e7 state-steps a second",
        state_steps_a_second=lambda took: members * steps / took,
    )


def reverse(sites=1000, steps=1000):
    ring = tw.systems.lorenz96(sites)
    state = ring.init(8 + jax.random.normal(jax.random.key(0), (sites,)))
    held = np.arange(sites) < 10
    others = lambda x: x[10:]  # noqa: E731
    compare(
        f"Op of {sites - 10} sources at once over a plain run, Lorenz-96, {steps} steps",
        lambda: tw.simulate(ring, state, steps).state,
        lambda: tw.steering.op(ring, state, steps, held, others, lambda x: x[-1], mode="reverse").op,
        "at most 10",
        rounds=5,
    )


def forward_ring(sites):
    ring = tw.systems.lorenz96(sites)
    state = ring.init(8 + jax.random.normal(jax.random.key(0), (sites,)))
    held, steps = np.arange(sites) < 2, 20_000 if sites < 100 else 2000
    source = lambda x: x[5]  # noqa: E731
    compare(
        f"one Op over a plain run, Lorenz-96 of {sites} sites, {steps} steps",
        lambda: tw.simulate(ring, state, steps).state,
        lambda: tw.steering.op(ring, state, steps, held, source, lambda x: x[-1], read="end").op,
        "at most 3",
        rounds=5,
    )


def exponents(units=1000.0, dt=0.01):
    try:
        from pynamicalsys import ContinuousDynamicalSystem
    except ImportError:
        print("pynamicalsys is not installed: exponents not compared")
        return
    steps = round(units / dt)
    lorenz = tw.systems.lorenz(28.0)
    state = lorenz.init(a=-5.7, b=-8.9, c=17.0)
    peer = ContinuousDynamicalSystem(model="lorenz system")
    peer.integrator("rk4", time_step=dt)
    start = np.array([-5.7, -8.9, 17.0])
    theirs = lambda: peer.lyapunov(start, units, parameters=[10.0, 28.0, 8 / 3])  # noqa: E731
    for every in (1, 10):

        def ours(every=every):
            return tw.steering.lyapunov_exponents(lorenz, state, steps, discard=0, every=every).value

        print("  theirs", np.round(theirs(), 4), "ours", np.round(ours(), 4))
        compare(f"exponents over pynamicalsys, QR every {every} steps", theirs, ours, "at most 1/3", rounds=7)


def entropies(labels=8, parts=4):
    rng = np.random.default_rng(0)
    p = rng.exponential(size=(labels,) * parts)
    p /= p.sum()
    table = rng.integers(labels, size=(*p.shape, parts))
    names = {f"x{k}": labels for k in range(parts)}

    def ours():
        system = tw.steering.FiniteSystem(table, names)
        return system.entropy(p), system.total_correlation(p)

    try:
        import dit
    except ImportError:
        print("dit is not installed: entropies not compared")
    else:
        outcomes = list(np.ndindex(p.shape))

        def theirs():
            d = dit.Distribution(outcomes, p.reshape(-1))
            return dit.shannon.entropy(d), dit.multivariate.total_correlation(d)

        print("  difference from dit:", np.abs(np.array(ours()) - np.array(theirs())).max())
        compare(f"entropy and total correlation of {p.size} states over dit", theirs, ours, "at most 1/30", rounds=5)
    many = (32,) * 4
    p = rng.exponential(size=many)
    p /= p.sum()
    system = tw.steering.FiniteSystem(rng.integers(32, size=(*many, 4)), dict.fromkeys("abcd", 32))
    took = min(seconds(lambda: system.optimizing_strength(p)) for _ in range(5))
    print(f"optimizing strength of {p.size} states: {took:.3f} s (below 1 s)")


if __name__ == "__main__":
    tw.systems.lorenz(28.0)  # switches float64 on
    print(f"jax {jax.__version__} on {jax.devices()[0].platform}, {jnp.result_type(float)}")
    op_curve()
    landscape()
    for sites in (40, 2000):
        forward_ring(sites)
    reverse()
    exponents()
    entropies()
