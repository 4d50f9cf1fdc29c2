"""Figures: labelled, apart in greyscale, on the Axes they were given."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray
from matplotlib.colors import to_rgb

import thalweg as tw

STEPS = xarray.DataArray(np.arange(5), dims="step", attrs={"long_name": "step"})
ESCAPE = xarray.DataArray(
    np.array([[0.0, 1e-6, 1e-4, 1e-2, 1.0], [0.0, 0.1, 0.2, 0.3, 0.4]]),
    dims=("learning_rate", "step"),
    coords={"step": STEPS, "learning_rate": [0.01, 0.02]},
    name="escape",
    attrs={"long_name": "escape probability"},
)
POSITION = xarray.DataArray(
    np.random.default_rng(0).normal(size=(5, 3)),
    dims=("step", "member"),
    coords={"step": STEPS},
    name="W",
    attrs={"units": "m"},
)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_colours_stay_apart_in_greyscale():
    """Any two differ by a tenth of the way from black to white, or nearly so with line styles that differ."""
    weights = np.array([0.2126, 0.7152, 0.0722])
    lightness = [116 * float(weights @ np.array(to_rgb(colour)) ** 2.2) ** (1 / 3) - 16 for colour in tw.plot.COLOURS]
    assert len(set(map(str, tw.plot.LINES))) == len(tw.plot.COLOURS)
    gaps = [abs(a - b) for i, a in enumerate(lightness) for b in lightness[:i]]
    assert min(gaps) > 5
    assert max(lightness) < 80  # still seen on white


def test_curves_carry_labels_legend_and_band():
    axes = tw.plot.curve(ESCAPE, error=0.1 * ESCAPE)
    assert axes.get_xlabel() == "step"
    assert axes.get_ylabel() == "escape probability"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "learning rate 0.01",
        "learning rate 0.02",
    ]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), ESCAPE[1])
    band = axes.collections[1].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(1.1 * 0.4)


def test_units_stand_on_the_axis():
    assert tw.plot.trajectories(POSITION).get_ylabel() == "W [m]"


def test_trajectories_are_the_members():
    axes = tw.plot.trajectories(POSITION, most=2)
    assert len(axes.lines) == 2
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), POSITION[:, 1])
    np.testing.assert_array_equal(tw.plot.trajectories(POSITION.T).lines[2].get_ydata(), POSITION[:, 2])


def test_zero_is_left_out_of_a_logarithmic_axis():
    axes = tw.plot.escape_curve(ESCAPE[0])
    assert axes.get_yscale() == "log"
    assert np.isnan(axes.lines[0].get_ydata()[0])
    assert np.isfinite(axes.lines[0].get_ydata()[1:]).all()


def test_a_density_lies_over_its_landscape():
    grid = np.linspace(0, 2, 50)
    result = xarray.DataArray(np.exp(-((grid - 1) ** 2)), dims="W", coords={"W": grid}, name="density")
    landscape = xarray.DataArray(-grid, dims="W", coords={"W": grid}, name="loss")
    axes = tw.plot.density(result, landscape)
    right = next(other for other in axes.figure.axes if other is not axes)
    assert (axes.get_xlabel(), axes.get_ylabel(), right.get_ylabel()) == ("W", "density", "loss")
    assert axes.get_ylim()[0] == 0


def test_a_density_in_two_dimensions_is_a_map():
    result = xarray.DataArray(np.eye(3), dims=("y", "x"), coords={"x": [0.0, 1, 2], "y": [0.0, 2, 4]}, name="density")
    axes = tw.plot.density(result)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "y")
    np.testing.assert_array_equal(axes.collections[0].get_array().reshape(3, 3), np.eye(3))


def test_a_blocking_curve_shows_what_was_chosen():
    result = xarray.Dataset(
        {
            "blocking_error": ("block_size", [0.1, 0.2, 0.21]),
            "blocking_error_error": ("block_size", [0.01, 0.02, 0.05]),
        },
        coords={"block_size": ("block_size", [1, 2, 4], {"units": "steps"})},
        attrs={"block_size": 2},
    )
    axes = tw.plot.blocking_curve(result)
    assert axes.get_xlabel() == "block size [steps]"
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["chosen block size"]


@pytest.mark.parametrize("draw", [tw.plot.curve, tw.plot.escape_curve, tw.plot.density], ids=lambda draw: draw.__name__)
def test_figures_go_onto_the_axes_they_are_given(draw):
    _, axes = plt.subplots()
    assert draw(ESCAPE[1], axes=axes) is axes
    assert plt.get_fignums() == [1]


def test_style_is_left_as_it_was_found():
    before = dict(plt.rcParams)
    tw.plot.curve(ESCAPE)
    assert dict(plt.rcParams) == before


def test_what_cannot_be_drawn_is_refused(tmp_path, as_installed):
    cube = xarray.DataArray(np.zeros((2, 2, 2)), dims=("a", "b", "c"))
    with pytest.raises(ValueError, match="a curve must have one or two dimensions, got 3"):
        tw.plot.curve(cube)
    with pytest.raises(ValueError, match="density must have 1 dimension"):
        tw.plot.density(cube)
    with pytest.raises(ValueError, match="must have a dimension 'step', got a, b, c"):
        tw.plot.trajectories(cube)
    with pytest.raises(TypeError, match="axes must be a matplotlib Axes or None, got int"):
        tw.plot.curve(ESCAPE, axes=3)
    with pytest.raises(ValueError, match="a blocking curve needs the variables blocking_error"):
        tw.plot.blocking_curve(xarray.Dataset({"error": 1.0}))
    with pytest.raises(ValueError, match="cannot draw into"):
        tw.plot.save_figure(tw.plot.curve(ESCAPE), tmp_path / "figure.nonsense")


def test_the_style_leaves_on_what_a_notebook_turned_on_at_its_first_figure():
    size, was = plt.rcParams["font.size"], plt.isinteractive()
    try:
        with pytest.raises(KeyError), tw.plot.style():
            matplotlib.interactive(True)
            raise KeyError
        assert plt.isinteractive() and plt.rcParams["font.size"] == size
    finally:
        matplotlib.interactive(was)
