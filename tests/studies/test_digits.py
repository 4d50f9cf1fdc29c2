"""The digits study at a small size, and its error bars."""

import numpy as np

from thalweg.studies.digits import _beyond, _jackknife, run


def test_the_study_runs_small():
    outcome = run(members=4, steps=120, batch_size=8)
    found = {claim.id: claim for claim in outcome.claims}
    assert list(found) == ["D1", "D2", "D3", "D4"]
    assert found["D2"].measured < 1 < found["D3"].measured
    assert all(claim.error > 0 for claim in outcome.claims)
    assert set(outcome.figures) == {"learning", "spread", "gradient"}


def test_the_jackknife_error_of_a_mean_is_the_standard_error():
    values = np.random.default_rng(1).normal(size=40)
    estimate = _jackknife(lambda m: values[m].mean(), 40)
    assert np.isclose(estimate.error, values.std(ddof=1) / np.sqrt(40))
    assert _beyond(estimate, estimate.value + 2 * estimate.error) == "not decidable here"
    assert _beyond(estimate, estimate.value + 4 * estimate.error) == "fails"
    assert _beyond(estimate, estimate.value + 4 * estimate.error, below=True) == "holds"
