"""The studies of modified equations, large deviations and stability: their claims and figures."""

import pytest

from thalweg.studies import large_deviations, modified, stability


def test_modified():
    outcome = modified.run()
    found = {claim.id: claim for claim in outcome.claims}
    assert {name: claim.verdict for name, claim in found.items()} == {
        "F24": "fails",
        "F24.both": "holds",
        "F24.pit": "holds",
        "F24.domain": "fails",
    }
    assert found["F24"].measured == pytest.approx(2, abs=0.02)
    assert set(outcome.figures) == {"variance", "diffusion"}


@pytest.mark.slow
def test_large_deviations():
    outcome = large_deviations.run()
    found = {claim.id: claim for claim in outcome.claims}
    assert found["F18.exponent"].measured == pytest.approx(0.0786412815, abs=1e-9)
    assert found["F10.splitting"].verdict == "holds"
    # The exact operator gives 2.6647e-7.
    assert abs(found["F10.splitting"].measured - 2.6647e-7) < 3.5 * found["F10.splitting"].error


@pytest.mark.slow
def test_stability():
    outcome = stability.run()
    found = {claim.id: claim for claim in outcome.claims}
    assert found["F23"].measured == pytest.approx(1.11, abs=4 * found["F23"].error)
    assert found["F23.simulated"].verdict == "holds"
    assert found["F23.digits"].measured < 2
