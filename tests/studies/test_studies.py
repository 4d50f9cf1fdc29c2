"""The framework of studies, with a toy study: what is written, refused, and read without running."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import thalweg as tw
from thalweg.studies import VERDICTS, Claim, Outcome, Picture, find, list_studies, run_study
from thalweg.studies._discover import list_systems
from thalweg.studies._run import load, typed_settings
from thalweg.studies._study import plain

TOY = str(Path(__file__).parent / "toy.py")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return run_study(TOY, settings={"steps": "64"}, out=tmp_path_factory.mktemp("out"))


def test_a_study_is_read_without_running_it():
    study = find(TOY)
    assert (study.name, study.room, study.seconds, study.headline) == ("toy", "flow", 1.0, True)
    assert study.title == "A toy: how far a walk of +-1 steps gets"


def test_listing_imports_neither_jax_nor_numpy():
    code = "import sys, thalweg.cli as c; c.list_(); print({'jax', 'numpy', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_the_folder_of_a_study_holds_what_the_contract_says(written):
    assert {path.name for path in written.iterdir()} == {
        "claims.json",
        "study.json",
        "walks.nc",
        "walks.png",
        "walks.svg",
    }
    claims = json.loads((written / "claims.json").read_text())
    keys = {"id", "claim", "source", "published", "measured", "error", "verdict", "note"}
    assert all(keys <= set(claim) <= keys | {"details"} for claim in claims)
    assert [claim["verdict"] for claim in claims] == list(VERDICTS[:1] + VERDICTS[2:3] + VERDICTS[1:2] + VERDICTS[3:])
    first = claims[0]
    assert first["published"] == 8.0
    assert abs(first["measured"] - 8) < 4 * first["error"]
    assert first["details"] == {"members": 200, "far": "inf", "walk": pytest.approx(first["details"]["walk"])}
    study = json.loads((written / "study.json").read_text())
    assert study["settings"] == {"steps": 64, "scale": 1.0, "names": ["a"], "fail": False}
    assert study["figures"] == [{"name": "walks", "caption": "Five walks.", "alt": "Five walks."}]
    assert study["versions"]["thalweg"] == tw.__version__


def test_data_know_the_settings_that_made_them(written):
    data = tw.load(written / "walks.nc")
    assert data.walk.dims == ("member", "step")
    assert data.walk.units == "1"
    provenance = json.loads(data.attrs["provenance"])
    assert provenance["study"] == "toy"
    assert provenance["settings"]["steps"] == 64


def test_the_same_run_writes_the_same_figures(written, tmp_path):
    again = run_study(TOY, settings={"steps": 64}, out=tmp_path)
    for name in ("walks.svg", "walks.png", "claims.json"):
        assert (again / name).read_bytes() == (written / name).read_bytes(), name


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [("steps", "12", 12), ("scale", "2.5e-1", 0.25), ("names", "a, b", ("a", "b")), ("fail", "true", True)],
)
def test_settings_are_read_as_their_type(name, text, value):
    assert typed_settings("toy", load(find(TOY)), {name: text}) == {name: value}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"step": "1"}, "study toy has no setting 'step'; did you mean 'steps'"),
        ({"colour": "1"}, "its settings are: steps, scale, names, fail"),
        ({"steps": "many"}, "setting steps must be a whole number, got 'many'"),
        ({"steps": "1.5"}, "setting steps must be a whole number, got '1.5'"),
        ({"scale": "x"}, "setting scale must be a number, got 'x'"),
        ({"fail": "maybe"}, "setting fail must be true or false, got 'maybe'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(")):
        run_study(TOY, settings=settings, out=tmp_path)


def test_names_that_do_not_exist_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no study 'nonsense'"):
        find("nonsense")
    with pytest.raises(ValueError, match="there is no study file"):
        find("nonsense.py")
    (tmp_path / "other.py").write_text("ROOM = 'flow'\n")
    with pytest.raises(ValueError, match="is not a study"):
        find(str(tmp_path / "other.py"))
    with pytest.raises(ValueError, match="size must be 'quick' or 'full', got 'huge'"):
        run_study(TOY, size="huge", out=tmp_path)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            'ROOM = "kitchen"\nSECONDS = 1',
            "ROOM of other.py must be one of flow, knowledge, steering, energy",
        ),
        ('ROOM = "flow"', "other.py must state SECONDS"),
    ],
)
def test_a_study_file_that_says_too_little_is_refused(line, sentence, tmp_path):
    (tmp_path / "other.py").write_text(f'"""Title."""\n{line}\ndef run(size): ...\n')
    with pytest.raises(ValueError, match=sentence):
        find(str(tmp_path / "other.py"))


def test_a_verdict_is_one_of_four_words():
    with pytest.raises(ValueError, match=r"verdict of claim F1 must be one of 'holds', .* got 'mostly holds'"):
        Claim("F1", "a claim", "a source", measured=1.0, verdict="mostly holds")


def test_a_claim_takes_the_error_of_an_estimate():
    claim = Claim("F1", "a claim", "a source", measured=tw.Estimate(2.0, 0.25), verdict="holds")
    assert (claim.record()["measured"], claim.record()["error"]) == (2.0, 0.25)


def test_claims_need_ids_of_their_own_and_pictures_need_captions(as_installed):
    claim = Claim("F1", "a claim", "a source", measured=1.0, verdict="holds")
    with pytest.raises(ValueError, match="F1 is used twice"):
        Outcome("nothing", [claim, claim])
    with pytest.raises(ValueError, match="caption"):
        Picture(None, caption=" ")
    with pytest.raises(TypeError, match="needs a matplotlib Figure or Axes, got list"):
        Picture([], caption="A list.")
    with pytest.raises(TypeError, match=r"figures\['a'\] must be a Picture"):
        Outcome("nothing", [claim], figures={"a": 1})


def test_plain_values_are_json():
    value = {
        "a": np.float32(0.5),
        "b": np.arange(2),
        "c": (float("nan"), -np.inf),
        "d": {1: None},
        "e": np.bool_(True),
    }
    assert plain(value) == {"a": 0.5, "b": [0, 1], "c": ["nan", "-inf"], "d": {"1": None}, "e": True}
    json.dumps(plain(value), allow_nan=False)


def test_every_study_of_the_package_states_a_short_time_and_one_headline_a_room():
    studies = list_studies()
    longest = {"localization": 45}  # seven networks, each with four twins
    assert all(0 < study.seconds <= longest.get(study.name, 20) for study in studies)
    for room in {study.room for study in studies}:
        assert sum(study.headline for study in studies if study.room == room) <= 1


def test_every_system_in_the_list_says_what_it_is():
    assert all(title for _, title in list_systems())
