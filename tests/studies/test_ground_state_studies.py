"""The studies of ground states: the verdicts that their claims should come to, and the pieces they are made of."""

import numpy as np
import pytest

from thalweg.studies import find
from thalweg.studies._run import load
from thalweg.studies.infinite_variance import _covered, _growth
from thalweg.studies.quantum_dots import _lower

EXPECTED = {
    "infinite_variance": {"E31": "fails", "E31.closed": "holds", "E29": "fails", "E32": "holds", "E30": "fails"},
    "plain_machine": {"E25": "fails", "E28": "holds in kind", "E26": "holds", "E.descent": "holds"},
    "dots_samplers": {"E33": "holds", "E33.energy": "holds"},
    "quantum_dots": {
        "E.free": "holds",
        "E.jastrow": "holds in kind",
        "E34": "fails",
        "E36": "not decidable here",
        "E35": "not decidable here",
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_the_verdicts(name):
    outcome = load(find(name))("quick")
    assert {claim.id: claim.verdict for claim in outcome.claims} == EXPECTED[name]
    assert outcome.figures
    assert outcome.data


def test_the_variance_of_1_over_r_grows_and_that_of_a_normal_number_does_not():
    rng = np.random.default_rng(0)
    heavy = _growth(1 / np.hypot(*rng.normal(size=(2, 200_000)))).variance.values
    light = _growth(rng.normal(size=200_000)).variance.values
    assert heavy[-1] > 1.4 * heavy[0]
    assert abs(light[-1] / light[0] - 1) < 0.1


def test_intervals_of_normal_numbers_cover_as_they_should():
    covered = _covered(np.random.default_rng(1).normal(size=400_000), 0.0)
    assert abs(covered.value - 0.683) < 4 * covered.error


def test_an_error_bar_that_means_nothing_decides_in_kind_only():
    import thalweg as tw

    best = tw.Estimate(20.18, 0.002)
    assert _lower(tw.Estimate(20.8, 0.04), best) == "holds"
    assert _lower(tw.Estimate(20.8, 0.04, tw.Status.HEAVY_TAILS), best) == "holds in kind"
    assert _lower(tw.Estimate(20.19, 0.04), best) == "not decidable here"
