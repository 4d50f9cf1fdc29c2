"""`thalweg energy ground-state`, the labelled result behind it, and its figures."""

import csv
import io

import matplotlib.pyplot as plt
import numpy as np
import pytest

import thalweg as tw
from thalweg.cli import main
from thalweg.energy.ground_states._command import Row, as_csv, as_latex, as_text, ground_state_report


@pytest.fixture(scope="module")
def pair():
    """Two free electrons and a trap of their own, one hidden unit: no sampling."""
    return tw.energy.ground_state(tw.energy.HarmonicTrap(2, 2, 0.8), hidden=1, key=1)


@pytest.fixture(scope="module")
def sampled():
    """Three free electrons, sampled; the local energy is the same everywhere."""
    trap = tw.energy.HarmonicTrap((2, 1), 2, 1.0, interaction=False)
    return tw.energy.ground_state(trap, hidden=0, walkers=64, key=3)


def test_a_plain_machine_is_not_sampled(pair):
    assert isinstance(pair.measurement, tw.energy.ClosedForm)
    assert pair.energy.value > tw.energy.two_electrons(0.8).energy.value
    assert abs(pair.virial_ratio.value - 1) < 1e-6
    assert "without sampling" in str(pair)
    assert "diverges" in str(pair)


def test_the_labelled_result_of_a_pair_holds_the_exact_densities(pair, tmp_path):
    data = pair.to_xarray()
    assert float(data.energy) == pair.energy.value
    assert float(data.exact_energy) == tw.energy.two_electrons(0.8).energy.value
    assert "diverges" in data.attrs["advice"]
    np.testing.assert_allclose(data.exact_density, tw.energy.two_electrons(0.8).density(data.r.values))
    # Densities of the machine: one hidden unit is not exact, but nearly; its integral is the number of electrons.
    width = float(data.r[1] - data.r[0])
    assert abs(float((2 * np.pi * data.r * data.density).sum()) * width - 2) < 0.02
    assert abs(float(data.pair_density.sum() * (data.distance[1] - data.distance[0])) - 1) < 1e-9
    read = tw.load(tw.save(data, tmp_path / "pair.nc", seed=1))
    assert float(read.energy) == pair.energy.value
    assert read.density.attrs["units"] == "1/bohr^2"


def test_the_labelled_result_of_a_run_holds_its_steps_and_its_blocking_curve(sampled):
    data = sampled.to_xarray()
    assert data.energy_by_step.sizes == {"step": len(sampled.history["energy"])}
    assert data.blocking_error.dims == ("block_size",)
    assert float(data.exact_energy) == 4.0
    assert data.attrs["particles"] == 3


def test_figures_of_a_run(sampled, pair):
    data = sampled.to_xarray()
    axes = tw.plot.energy_history(data)
    assert axes.get_xlabel() == "step"
    assert "energy [hartree]" in axes.get_ylabel()
    assert {text.get_text() for text in axes.get_legend().get_texts()} >= {"training", "measured at the end", "exact"}
    for draw, words in (
        (tw.plot.radial_density, "one-body density [1/bohr^2]"),
        (tw.plot.pair_correlation, "density of the distance [1/bohr]"),
    ):
        axes = draw(pair.to_xarray())
        assert axes.get_ylabel() == words
        assert "bohr" in axes.get_xlabel()
        assert {text.get_text() for text in axes.get_legend().get_texts()} == {"sampled", "exact"}
    assert tw.plot.blocking_curve(data).get_xlabel() == "block size [steps]"
    with pytest.raises(ValueError, match="lacks energy_by_step"):
        tw.plot.energy_history(pair.to_xarray())
    plt.close("all")


def test_the_report_and_its_files(tmp_path):
    text = ground_state_report("2", omega=[0.8], hidden=1, out=tmp_path)
    assert text.startswith("2 fermions in 2-D, omega = 0.8, 1/r\nE = ")
    assert "note: psi is not 0 where two particles meet" in text
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"ground_state.nc", "table.csv", "table.tex", "density.png", "pairs.png"}
    rows = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    energy, kinetic, trap, pairs = (float(row["value"]) for row in rows[:4])
    assert abs(energy - kinetic - trap - pairs) < 1e-12
    assert rows[5]["method"] == "exact"
    assert float(rows[5]["value"]) == tw.energy.two_electrons(0.8).energy.value
    assert tw.load(tmp_path / "ground_state.nc").attrs["particles"] == 2


ROWS = [
    Row("energy", 20.1782, 0.0023, "20.1782(23)", "VMC", "thalweg & more"),
    Row("known energy", 20.716, float("nan"), "20.716", "RBM", "somebody", "a note"),
]


def test_tables():
    assert as_csv(ROWS).splitlines()[1:] == [
        "energy,20.1782,0.0023,20.1782(23),VMC,thalweg & more,",
        "known energy,20.716,,20.716,RBM,somebody,a note",
    ]
    assert r"energy & 20.1782(23) & VMC & thalweg \& more \\" in as_latex(ROWS)
    lines = as_text(ROWS).splitlines()
    assert lines[1].index("20.1782(23)") == lines[2].index("20.716")
    assert lines[2].endswith("a note")


@pytest.mark.parametrize(
    ("tokens", "sentence"),
    [
        (["--particles", "six"], "particles must be a whole number, or \"up,down\" such as 2,1, got 'six'"),
        (["--particles", "0"], "particles must be a whole number from 1 to 1000"),
        (["--omega", "-1"], "omega must be a frequency > 0"),
        (["--dimension", "4"], "dimension must be 1, 2 or 3, got 4"),
        (["--sigma", "wide"], "sigma must be trained or a width > 0, got 'wide'"),
        (["--tol", "0"], "tol must be a number > 0, got 0"),
        (["--table", "word"], "table"),
        (["--resume"], "--resume needs the folder that an earlier run left its checkpoints in: pass --checkpoint too"),
    ],
)
def test_bad_input_ends_in_a_sentence(tokens, sentence, capsys, as_installed):
    with pytest.raises(SystemExit) as left:
        main(["energy", "ground-state", *tokens])
    assert left.value.code == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1


def test_densities_of_samples_from_elsewhere():
    x = np.random.default_rng(0).normal(size=(3000, 4, 6)) / np.sqrt(2)  # two free particles in space, omega = 1
    found = tw.energy.radial_densities(x, 2, reach=3.0, bins=12)
    edges = np.linspace(0, 3, 13)
    fine = np.linspace(edges[:-1], edges[1:], 201)
    exact = 2 * np.pi**-1.5 * (np.exp(-(fine**2)) * fine**2).sum(axis=0) / (fine**2).sum(axis=0)
    z = (found.density.values - exact) / found.density_error.values
    assert np.all(np.abs(z) < 4.5)
    assert 0.5 < np.sqrt(np.mean(z**2)) < 1.6
    # Correlated records of a walker do not make the error smaller: repeat every record.
    again = tw.energy.radial_densities(np.repeat(x, 3, axis=1), 2, reach=3.0, bins=12)
    np.testing.assert_allclose(again.density_error, found.density_error, rtol=1e-12)
