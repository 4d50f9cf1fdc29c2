"""Lorenz's equations: what holding one part does, in calm and in chaos, and how far differences can be trusted.

Part 4 of the posts on optimization. The start and the step of the posts are not published, so that rates and shapes
are checked, not curves. Control: with no part held, Op is 0.
"""

from typing import Any

from thalweg.studies import Claim, Outcome, Picture

ROOM = "steering"
SECONDS = 18
PART = "J. Bostock, Defining Optimization in a Deeper Way, Part 4"


def run(size: str = "quick", *, starts: int = 400, units: float = 200.0) -> Outcome:
    """Op below and above the onset of chaos, exponents with each part held, and finite differences beside tangents."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import xarray

    import thalweg as tw

    op, exponents = tw.steering.op, tw.steering.lyapunov_exponents
    if size == "full":
        starts, units = 10 * starts, 5 * units
    calm, chaos = tw.systems.lorenz(0.8), tw.systems.lorenz(28.0)
    one = calm.init(a=1, b=1, c=1)
    of_b, of_c = op(calm, one, 2000, "a", "b", "b"), op(calm, one, 2000, "a", "c", "c")
    slope = float(of_b.op[-1] - of_b.op[-501]) / 5
    exact_slope = -(1 + (-11 + np.sqrt(121 - 40 * 0.2)) / 2)
    scattered = jax.random.normal(jax.random.key(1), (500, 3)) * 3
    negative = {
        m: float(
            np.mean(
                np.any(
                    np.asarray(
                        jax.jit(jax.vmap(lambda x, m=m: op(calm, calm.init(*x), 1000, "a", "c", m).sign))(scattered)
                    )
                    < 0,
                    axis=1,
                )
            )
        )
        for m in ("c", "b")
    }

    tossed = jax.random.normal(jax.random.key(0), (starts, 3)) * 5 + jnp.array([0.0, 0.0, 25.0])
    settled = jax.jit(jax.vmap(lambda x: tw.simulate(chaos, chaos.init(*x), 1000).state))(tossed)
    long = round(units / 0.01)
    some = jax.tree.map(lambda leaf: leaf[:16], settled)
    spectra = {
        name: jax.jit(jax.vmap(lambda s, c=name: exponents(chaos, s, long, clamp=c).value))(some)
        for name in ((), "a", "b", "c")
    }
    mean = {name: np.asarray(v.mean(axis=0)) for name, v in spectra.items()}
    error = {name: np.asarray(v.std(axis=0, ddof=1)) / 4 for name, v in spectra.items()}
    rate = mean["a"][0] - mean[()][0]
    rate_error = float(np.hypot(error["a"][0], error[()][0]))
    curves = jax.jit(jax.vmap(lambda s: op(chaos, s, 3000, "a", "b", "b").op))(some)
    control = float(jnp.max(jnp.abs(op(chaos, one, 100, (), "b", "b").op)))

    euler = tw.systems.lorenz(28.0, method="euler")
    window = np.arange(3000) < 1000
    let_go = op(euler, one, 3000, "a", "b", "b", window=window)

    sizes = (1e-3, 1e-5, 1e-6, 1e-7, 1e-9)
    few = jax.tree.map(lambda leaf: leaf[:60], settled)
    tangent = jax.jit(jax.vmap(lambda s: op(chaos, s, 4000, "a", "b", "b").op))(few)
    dies, errors, gone = {}, {}, {}
    for by in sizes:
        forked = jax.jit(jax.vmap(lambda s, by=by: op(chaos, s, 4000, "a", "b", "b", method="fork", size=by)))(few)
        off = np.median(np.nan_to_num(np.abs(forked.op - tangent), nan=99.0, posinf=99.0), axis=0)
        errors[by], dies[by] = off, float(np.argmax(off > 0.1) + 1) / 100
        gone[by] = float(np.mean(np.isneginf(np.asarray(forked.log_clamped)[:, 3000:])))
    fixed = _fixed_points()
    printed = _as_printed()

    claims = [
        Claim(
            "S16",
            "below the onset (rho = .8), n = m = b: Op < 0, as a drives b",
            PART,
            slope,
            "holds" if abs(slope - exact_slope) < 1e-3 and float(of_b.op[100:].max()) < 0 else "fails",
            "< 0",
            0.0,
            f"slope {slope:.6f} per unit of time against {exact_slope:.6f} in closed form; the post's sentence about "
            "y - w and x - w is reversed",
        ),
        Claim(
            "S17",
            "for n = c, Op is complex for a while",
            PART,
            f"Comp < 0 at t = {_span(of_c.sign)}",
            "holds",
            "a plot",
            None,
            f"a sign, not a complex number. It happens in {100 * negative['c']:.0f}% of 500 starts for m = c, in "
            f"{100 * negative['b']:.0f}% for m = b",
        ),
        Claim(
            "S18",
            "in chaos (rho = 28) Op is wild and tends to be negative",
            PART,
            rate,
            "holds" if rate + 4 * rate_error < 0 else "fails",
            "a plot",
            rate_error,
            f"per unit of time: top conditional exponent (a held) {mean['a'][0]:.4f}({error['a'][0]:.4f}) minus top "
            f"exponent {mean[()][0]:.4f}({error[()][0]:.4f}); with b held {mean['b'][0]:.4f}, {mean['b'][1]:.4f} "
            f"(-8/3, -10 exactly), with c held {mean['c'][0]:.4f}, {mean['c'][1]:.4f} (0, -11). No agent: "
            f"Op = {control}",
        ),
        Claim(
            "S19",
            "with a held until t = 10 only, Op stays finite",
            PART,
            float(let_go.op[-1]),
            "holds" if np.ptp(np.asarray(let_go.op[2500:])) < 1e-3 else "fails",
            "a plot",
            0.0,
            f"Op is {float(let_go.op[999]):.4f} at t = 10, then {float(let_go.op[-1]):.5f} for good (Euler, dt = .01)",
        ),
        Claim(
            "S20",
            "alterations of 1e-5, 1e-6 and 1e-7 are mostly fine in long runs",
            PART,
            max(dies.values()),
            "fails",
            "mostly fine",
            0.5,
            "units of time until the median error of Op exceeds .1, over 60 starts: "
            + ", ".join(f"{t:.1f} for {by:g}" for by, t in dies.items())
            + f"; with size 1e-7, y - w is exactly 0 in {100 * gone[1e-7]:.0f}% of what comes after t = 30",
        ),
        Claim(
            "S21",
            "for 1 < rho < 24.74 there are three stable points",
            PART,
            f"{fixed['stable']} stable of {fixed['all']}",
            "fails",
            3,
            None,
            f"the origin is a saddle (rate {fixed['origin']:.3f} at rho = 14); the other two are stable up to rho = "
            f"{fixed['limit']:.4f}",
        ),
        Claim(
            "S22",
            "the formulas as printed: a' = sigma (a - b); Therm = 0 inside; Comp as a limit of x - w",
            PART,
            f"not a number by t = {printed:.2f}",
            "fails",
            "a' = sigma (a - b)",
            None,
            "with the printed sign the state runs away; Comp is a derivative with respect to n, not to A; "
            "see the errata",
        ),
    ]
    time = np.arange(1, 4001) / 100
    data = xarray.Dataset(
        {
            "op": (("start", "time"), np.asarray(curves), {"units": "nat"}),
            "error": (("alteration", "later"), np.stack(list(errors.values())), {"units": "nat"}),
        },
        coords={"time": time[:3000], "later": time, "alteration": list(sizes)},
    )
    return Outcome(
        summary=(
            f"Below the onset Op falls steadily (slope {slope:.4f}); for c it changes sign on the way. In "
            "chaos it falls "
            f"at {rate:.3f} +- {rate_error:.3f} per unit of time, the conditional minus the top Lyapunov exponent. "
            f"Differences follow the tangent for about {max(dies.values()):.0f} units of time at best."
        ),
        claims=claims,
        figures={
            "calm": Picture(
                _draw_calm(of_b, of_c),
                "Op at rho = .8 with a held, for b (left) and for c (right), where "
                "Comp is negative for a while: thick.",
            ),
            "chaos": Picture(
                _draw_chaos(time[:3000], curves, rate),
                "Op at rho = 28 for 16 starts, and the line whose slope is the conditional minus the top exponent.",
            ),
            "differences": Picture(
                _draw_errors(time, errors),
                "The median error of Op by finite differences, against "
                "tangents: each size dies within 12 units of time or so.",
            ),
        },
        data={"lorenz_op": data},
    )


def _span(sign: Any) -> str:
    import numpy as np

    at = np.flatnonzero(np.asarray(sign) < 0)
    return f"{(at[0] + 1) / 100:.2f} to {(at[-1] + 1) / 100:.2f}" if at.size else "no time"


def _fixed_points() -> dict[str, Any]:
    """How many fixed points are stable at rho = 14, and up to which rho the outer two are."""
    import numpy as np

    def rates(rho, a, c):
        jacobian = [[-10, 10, 0], [rho - c, -1, -a], [a, a, -8 / 3]]
        return np.linalg.eigvals(jacobian).real.max()

    rho = 14.0
    a = np.sqrt(8 / 3 * (rho - 1))
    found = [rates(rho, 0, 0), rates(rho, a, rho - 1), rates(rho, -a, rho - 1)]
    limit = 10 * (10 + 8 / 3 + 3) / (10 - 8 / 3 - 1)
    return {"all": 3, "stable": int(np.sum(np.array(found) < 0)), "origin": found[0], "limit": limit}


def _as_printed() -> float:
    """When the equations with a' = sigma (a - b) are no longer finite, from (1, 1.1, 1)."""
    import jax.numpy as jnp

    import thalweg as tw

    def field(s):
        a, b, c = s["a"], s["b"], s["c"]
        return {"a": 10 * (a - b), "b": a * (28 - c) - b, "c": a * b - 8 / 3 * c}

    wrong = tw.processes.ode(field, 0.01)
    state = {"a": jnp.asarray(1.0), "b": jnp.asarray(1.1), "c": jnp.asarray(1.0)}
    finite = tw.simulate(wrong, state, 500, record=lambda s, w, n: jnp.isfinite(n["a"]))
    return float(jnp.sum(jnp.asarray(finite.record))) / 100


def _draw_calm(of_b: Any, of_c: Any) -> Any:
    import matplotlib.pyplot as plt
    import numpy as np

    import thalweg as tw

    time = np.arange(1, 501) / 100
    with tw.plot.style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.6))
        left.plot(time, of_b.op[:500])
        left.set_title("n = m = b")
        op, sign = np.asarray(of_c.op[:500]), np.asarray(of_c.sign[:500])
        right.plot(time, op, label="Comp > 0")
        right.plot(time, np.where(sign < 0, op, np.nan), "-", linewidth=4, label="Comp < 0")
        right.set_title("n = m = c")
        right.legend()
        for panel in (left, right):
            panel.set_xlabel("time")
            panel.set_ylabel("Op (nats)")
    return figure


def _draw_chaos(time: Any, curves: Any, rate: float) -> Any:
    import matplotlib.pyplot as plt
    import numpy as np

    import thalweg as tw

    with tw.plot.style():
        figure, axes = plt.subplots()
        axes.plot(time, np.asarray(curves).T, color=tw.plot.COLOURS[5], linestyle="-", linewidth=0.6)
        axes.plot(time, rate * time, color=tw.plot.COLOURS[1], label=f"slope {rate:.3f}")
        axes.set_xlabel("time")
        axes.set_ylabel("Op (nats)")
        axes.legend()
    return figure


def _draw_errors(time: Any, errors: Any) -> Any:
    import matplotlib.pyplot as plt
    import numpy as np

    import thalweg as tw

    with tw.plot.style():
        figure, axes = plt.subplots()
        for by, off in errors.items():
            axes.semilogy(time[:2000], np.minimum(off[:2000], 99), label=f"{by:g}")
        axes.axhline(0.1, color="0.6", linewidth=1)
        axes.set_ylim(1e-9, 1e2)
        axes.set_xlabel("time")
        axes.set_ylabel("median error of Op (nats)")
        axes.legend(title="alteration")
    return figure
