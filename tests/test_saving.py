"""What is saved is loaded unchanged, and says how it was made."""

import json

import numpy as np
import pytest
import xarray

import thalweg as tw
from thalweg._saving import show

DATASET = xarray.Dataset(
    {
        "escape": ("steps", np.array([0.0, 0.25, 0.5]), {"long_name": "escape probability", "units": "1"}),
        "done": ("steps", np.array([False, True, True])),
    },
    coords={"steps": [0, 10, 100], "start": "bottom"},
    attrs={"title": "the pit"},
)


def test_a_dataset_comes_back_as_it_was(tmp_path):
    loaded = tw.load(tw.save(DATASET, tmp_path / "pit.nc", learning_rate=0.02, keys=np.arange(2)))
    xarray.testing.assert_equal(loaded, DATASET)
    assert loaded.escape.attrs == DATASET.escape.attrs
    assert loaded.done.dtype == bool
    assert json.loads(loaded.attrs["provenance"]) == {"learning_rate": 0.02, "keys": [0, 1]}
    assert loaded.attrs["thalweg_version"] == tw.__version__


@pytest.mark.parametrize("name", [None, "escape"])
def test_an_array_comes_back_as_it_was(name, tmp_path):
    array = DATASET.escape.rename(name)
    loaded = tw.load(tw.save(array, tmp_path / "array.nc"))
    xarray.testing.assert_equal(loaded, array)
    assert loaded.name == name
    assert loaded.attrs["units"] == "1"


@pytest.mark.parametrize(
    "estimate",
    [
        tw.Estimate(141.633, 0.004),
        tw.Estimate(np.array([1.0, np.inf]), np.array([0.1, np.nan]), np.array([0, 3]), {"step": 7}),
        tw.Estimate(2.0, 0.5, tw.Status.TOO_SHORT, {"factor": 4}),
    ],
)
def test_an_estimate_comes_back_with_its_status(estimate, tmp_path):
    loaded = tw.load(tw.save(estimate, tmp_path / "estimate.nc"))
    assert isinstance(loaded, tw.Estimate)
    for part in ("value", "error", "status"):
        np.testing.assert_array_equal(getattr(loaded, part), getattr(estimate, part))
    assert loaded.details == estimate.details
    assert loaded.message == estimate.message


def test_complex_numbers_come_back(tmp_path):
    array = xarray.DataArray(np.array([1 + 2j, -1j]), dims="mode", name="eigenvalue")
    xarray.testing.assert_equal(tw.load(tw.save(array, tmp_path / "complex.nc")), array)


def test_show_says_what_it_is_and_how_it_was_made(tmp_path):
    text = show(tw.save(DATASET, tmp_path / "pit.nc", learning_rate=0.02))
    for words in (
        f"Dataset, made by thalweg {tw.__version__}",
        "learning_rate = 0.02",
        "variable escape (steps 3) escape probability [1]",
        "coordinate start = bottom",
        "title: the pit",
    ):
        assert words in text
    assert "value: 141.6330 ± 0.0040" in show(tw.save(tw.Estimate(141.633, 0.004), tmp_path / "e.nc"))


def test_show_tells_a_foreign_file(tmp_path):
    xarray.Dataset({"x": 1.0}).to_netcdf(tmp_path / "foreign.nc", engine="h5netcdf")
    assert "not made by thalweg" in show(tmp_path / "foreign.nc")


def test_bad_input_is_refused_in_one_sentence(tmp_path, as_installed):
    with pytest.raises(TypeError, match=r"result must be an xarray Dataset .*, got ndarray; put plain arrays into"):
        tw.save(np.arange(3), tmp_path / "a.nc")
    with pytest.raises(ValueError, match="there is no file"):
        tw.load(tmp_path / "missing.nc")
    (tmp_path / "text.nc").write_text("not a netCDF file")
    with pytest.raises(ValueError, match=r"text.nc is not a whole netCDF file"):
        tw.load(tmp_path / "text.nc")
    whole = tw.save(DATASET, tmp_path / "whole.nc")
    whole.write_bytes(whole.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"whole.nc is not a whole netCDF file"):
        tw.load(whole)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot write"):
        tw.save(DATASET, tmp_path / "file" / "x.nc")


def test_nothing_is_left_behind_when_saving_fails(tmp_path):
    bad = xarray.Dataset({"x": ("i", np.array([object(), object()], dtype=object))})
    with pytest.raises((TypeError, ValueError)):
        tw.save(bad, tmp_path / "bad.nc")
    assert list(tmp_path.iterdir()) == []
