"""A toy: how far a walk of +-1 steps gets.

A study file as a user would write it, outside the package.
"""

from thalweg.studies import Claim, Outcome, Picture

ROOM = "flow"
SECONDS = 1
HEADLINE = True


def run(size="quick", *, steps: int = 100, scale: float = 1.0, names: tuple[str, ...] = ("a",), fail: bool = False):
    """The spread of a walk after `steps` steps of size `scale`: scale * sqrt(steps), exactly."""
    import matplotlib.pyplot as plt
    import numpy as np
    import xarray

    if fail:
        raise RuntimeError("the walk <b>fell</b> over")
    members = {"quick": 200, "full": 2000}[size]
    walks = np.random.default_rng(0).choice([-scale, scale], (members, steps)).cumsum(axis=1)
    spread = walks[:, -1].std()
    axes = plt.subplots()[1]
    axes.plot(walks[:5].T)
    axes.set(xlabel="step", ylabel="W")
    data = xarray.Dataset({"walk": (("member", "step"), walks, {"long_name": "position", "units": "1"})})
    return Outcome(
        summary="A walk spreads as `sqrt(n)`. Nothing else happens.",
        claims=[
            Claim(
                id="T1",
                claim="the spread is sqrt(n) & no more",
                source="a textbook",
                published=float(scale * np.sqrt(steps)),
                measured=spread,
                error=spread / np.sqrt(2 * members),
                verdict="holds",
                note="names: " + " ".join(names),
                details={"members": np.int64(members), "far": np.inf, "walk": walks[0, :3]},
            ),
            Claim("T2", "it ends at 0", "nobody", measured="anywhere", verdict="fails"),
            Claim("T3", "it ends near 0", "nobody", measured=0.0, error=0.0, verdict="holds in kind"),
            Claim("T4", "it ends", "nobody", measured=None, verdict="not decidable here"),
        ],
        figures={"walks": Picture(axes, caption="Five walks.")},
        data={"walks": data},
    )
