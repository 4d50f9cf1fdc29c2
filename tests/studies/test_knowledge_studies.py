"""The studies of the knowledge room: what they claim, and what stands beside each number."""

import json

import numpy as np
import pytest

from thalweg.studies import planted, run_study

FACTS = {"accuracy", "trained", "seeds", "R2"}


def _claims(name, folder):
    return {claim["id"]: claim for claim in json.loads((run_study(name, out=folder) / "claims.json").read_text())}


def test_the_headline_counts_where_the_tally_wins_and_loses(monkeypatch):
    """On made-up scores: the tally wins in one system, loses in one, and ties in one."""
    ahead = {"routing": 0.3, "subnetwork": -0.3, "head": 0.0}

    def contest(kind, share, seed, timed):
        jitter = 0.02 * np.sin(7 * seed + len(kind))
        return [0.6 + ahead[kind] + jitter, 0.5, 0.6, 0.5, 0.4, 0.3], [0.1] * 6, [0.1, 0.2]

    monkeypatch.setattr(planted, "_contest", contest)
    found = planted.run(seeds=5)
    assert [claim.verdict for claim in found.claims] == ["holds", "fails", "not decidable here"]
    assert "loses in 1" in found.summary and "wins in 1" in found.summary and "last gradient" in found.summary


@pytest.mark.slow
def test_localization(tmp_path):
    claims = _claims("localization", tmp_path)
    assert set(claims) == {f"K{n}" for n in range(5, 14)}
    assert all(set(claim["details"]) >= FACTS for claim in claims.values())
    assert claims["K5"]["details"]["p_joint"] > 0 and "permutation test" in claims["K6"]["note"]
    assert set(claims["K7"]["details"]["variance"]) == {"pixel", "unit", "interaction"}
    assert {"groups_16_78", "groups_18_67", "other_network", "snapshot"} <= set(claims["K11"]["details"]["controls"])
    verdicts = {name: claims[name]["verdict"] for name in ("K5", "K6", "K7", "K8", "K13")}
    assert verdicts == {"K5": "fails", "K6": "holds", "K7": "holds", "K8": "fails", "K13": "fails"}


@pytest.mark.slow
def test_finding_knowledge(tmp_path):
    claims = _claims("finding_knowledge", tmp_path)
    assert set(claims) == {"K1", "K2", "K3", "K4", "K14"}
    assert claims["K1"]["verdict"] == claims["K2"]["verdict"] == "fails"
    assert claims["K3"]["verdict"] == "holds in kind" and claims["K14"]["measured"] <= 1e-12
    assert claims["K4"]["measured"] > 0.2


@pytest.mark.slow
def test_planted(tmp_path):
    claims = _claims("planted", tmp_path)
    for claim in claims.values():
        scores = claim["details"]["auroc"]
        assert scores["tally"] > 0.65 and abs(scores["gradient"] - 0.5) < 0.25
