"""Figures of labelled results: each takes a result and perhaps an Axes, returns the Axes, computes nothing."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

# Their lightness differs, so that they stay apart in greyscale; the line styles go with them.
COLOURS = ("#1b3a5c", "#b3382c", "#2f8f83", "#d98a1f", "#7a3b78", "#93c4ea")
LINES = ("-", "--", "-.", (0, (8, 1.5)), ":", (0, (3, 1, 1, 1, 1, 1)))
_GREY = "#6f7276"

_STYLE: dict[str, Any] = {
    "figure.figsize": (6.4, 3.8),
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "grid.color": "#e4e2dc",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "image.cmap": "cividis",
    "savefig.dpi": 160,
}


@contextmanager
def style() -> Iterator[None]:
    """A context in which figures have thalweg's style: `with tw.plot.style(): figure, axes = plt.subplots()`.

    Colours differ in lightness and each has its own line style, so that a figure survives greyscale. The style of
    what is drawn is fixed when it is drawn: keep the whole drawing in the context.

    **Example**

    >>> import matplotlib.pyplot as plt, thalweg as tw
    >>> with tw.plot.style():
    ...     float(plt.rcParams["font.size"])
    11.0
    """
    import matplotlib
    import matplotlib.pyplot as plt
    from cycler import cycler

    lines = cycler(color=list(COLOURS)) + cycler(linestyle=list(LINES))
    settings: Any = {**_STYLE, "axes.prop_cycle": lines}
    interactive = plt.isinteractive()
    try:
        with plt.rc_context(settings):
            try:
                yield
            finally:  # a notebook turns it on at its first figure, for all figures to come
                interactive = plt.isinteractive()
    finally:
        matplotlib.interactive(interactive)


def new_axes(axes: "Axes | None" = None, **subplots: Any) -> "Axes":
    """The given Axes, or one on a new figure in thalweg's style."""
    if axes is not None:
        if not hasattr(axes, "plot"):
            raise TypeError(f"axes must be a matplotlib Axes or None, got {type(axes).__name__}")
        return axes
    import matplotlib.pyplot as plt

    with style():
        return plt.subplots(**subplots)[1]


def save_figure(axes: "Axes", path: str | Path) -> Path:
    """Write the figure that these Axes belong to and close it; the ending of the path names the format."""
    import matplotlib.pyplot as plt

    path = Path(path)
    figure: Any = axes.get_figure()
    try:
        figure.savefig(path, bbox_inches="tight")
    except ValueError as problem:  # an unknown format
        raise ValueError(f"cannot draw into {path}: {problem}") from None
    plt.close(figure)
    return path


def curve(
    result: "xarray.DataArray",
    error: "xarray.DataArray | None" = None,
    axes: "Axes | None" = None,
    **line: Any,
) -> "Axes":
    """A curve over its one dimension, with a band of one standard error if `error` is given.

    A second dimension gives one curve an entry, named in the legend. Labels come from `long_name` and
    `units`. Further keywords go to `Axes.plot`. **Raises** `ValueError` for more than two dimensions.
    """
    axes = new_axes(axes)
    along, over = _dimensions(result)
    for entry, part in _entries(result, over):
        label = line.get("label", None if over is None else f"{_label(result[over], over)} {entry}")
        x = part[along].values
        (drawn,) = axes.plot(x, part.values, **{**line, "label": label})
        if error is not None:
            spread = (error if over is None else error.isel({over: part.attrs["_index"]})).values
            axes.fill_between(
                x,
                part.values - spread,
                part.values + spread,
                color=drawn.get_color(),
                alpha=0.25,
                linewidth=0,
            )
    return _finish(axes, _label(result[along], along), _label(result))


def trajectories(result: "xarray.DataArray", axes: "Axes | None" = None, most: int = 40, **line: Any) -> "Axes":
    """The first `most` members of an ensemble over the steps: an array over `step` and one more dimension."""
    axes = new_axes(axes)
    if "step" not in result.dims:
        raise ValueError(f"trajectories must have a dimension 'step', got {', '.join(map(str, result.dims))}")
    others = [dimension for dimension in result.dims if dimension != "step"]
    if len(others) > 1:
        raise ValueError(f"trajectories must have one dimension besides 'step', got {', '.join(map(str, others))}")
    paths = result.transpose("step", *others).values.reshape(result.sizes["step"], -1)[:, :most]
    looks = {
        "color": COLOURS[0],
        "linestyle": "-",
        "linewidth": 0.8,
        "alpha": max(0.15, paths.shape[1] ** -0.5),
    }
    axes.plot(result["step"].values, paths, **{**looks, **line})
    return _finish(axes, _label(result["step"], "step"), _label(result))


def density(
    result: "xarray.DataArray",
    landscape: "xarray.DataArray | None" = None,
    axes: "Axes | None" = None,
    **line: Any,
) -> "Axes":
    """A probability density in one dimension (filled) or two (as a map), over the landscape it moves in.

    `landscape` (one dimension, such as a loss) is drawn in grey on an axis of its own at the right.
    """
    axes = new_axes(axes)
    if result.ndim == 2:
        down, across = result.dims
        mesh = axes.pcolormesh(result[across], result[down], result.values, shading="nearest", cmap="cividis")
        axes.grid(False)
        figure: Any = axes.get_figure()
        figure.colorbar(mesh, ax=axes, label=_label(result))
        return _finish(axes, _label(result[across], across), _label(result[down], down))
    (along,) = _of_dimension(result, 1, "density")
    (drawn,) = axes.plot(result[along].values, result.values, **line)
    axes.fill_between(result[along].values, result.values, color=drawn.get_color(), alpha=0.25, linewidth=0)
    axes.set_ylim(bottom=0)
    if landscape is not None:
        (place,) = _of_dimension(landscape, 1, "landscape")
        right = axes.twinx()
        right.plot(landscape[place].values, landscape.values, color=_GREY, linestyle="-", linewidth=1.2)
        right.spines["right"].set_visible(True)
        right.grid(False)
        right.set_ylabel(_label(landscape), color=_GREY)
        right.tick_params(colors=_GREY)
        axes.set_zorder(right.get_zorder() + 1)  # the density lies over the landscape
        axes.patch.set_visible(False)
    return _finish(axes, _label(result[along], along), _label(result))


def escape_curve(
    result: "xarray.DataArray",
    error: "xarray.DataArray | None" = None,
    axes: "Axes | None" = None,
    **line: Any,
) -> "Axes":
    """A probability (or rate) over many orders of magnitude: `curve` on a logarithmic axis.

    Entries that are zero cannot stand on that axis and are left out, not drawn at an invented floor.
    """
    axes = new_axes(axes)
    axes.set_yscale("log", nonpositive="mask")
    return curve(result.where(result > 0), error, axes, **line)


def blocking_curve(result: "xarray.Dataset", axes: "Axes | None" = None, **line: Any) -> "Axes":
    """The error of a mean over the size of the blocks it is taken from: right where it levels off.

    `result` is what `tw.stats.analyse(series).to_xarray()` gives; the block size that was chosen is marked.
    """
    axes = new_axes(axes)
    missing = {"blocking_error", "blocking_error_error"} - set(result)
    if missing:
        raise ValueError(
            f"a blocking curve needs the variables blocking_error and blocking_error_error, "
            f"got {', '.join(map(str, result))}: "
            "pass tw.stats.analyse(series).to_xarray()"
        )
    sizes, errors = result["block_size"], result["blocking_error"]
    spread = result["blocking_error_error"].values
    axes.errorbar(sizes.values, errors.values, yerr=spread, marker="o", capsize=2, **{"color": COLOURS[0], **line})
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    if result.attrs.get("block_size"):
        axes.axvline(result.attrs["block_size"], color=_GREY, linestyle=":", label="chosen block size")
    return _finish(axes, _label(sizes, "block size"), _label(errors))


def energy_history(result: "xarray.Dataset", axes: "Axes | None" = None, **line: Any) -> "Axes":
    """The energy over the steps of training with its errors, and the energy measured at the end.

    `result` is what `tw.energy.ground_state(...).to_xarray()` gives. The axis shows the end of the descent; the start
    may lie above it.
    """
    axes = new_axes(axes)
    _need(result, ("energy_by_step", "energy_by_step_error", "energy"), "tw.energy.ground_state(...).to_xarray()")
    energy, error = result["energy_by_step"], result["energy_by_step_error"]
    curve(energy, error, axes, **{"color": COLOURS[0], "label": "training", **line})
    axes.axhline(float(result["energy"]), color=COLOURS[1], linestyle="--", linewidth=1.2, label="measured at the end")
    if "exact_energy" in result:
        axes.axhline(float(result["exact_energy"]), color="black", linestyle=":", linewidth=1.2, label="exact")
    late = energy.values[len(energy) // 4 :]
    low, high = min(late.min(), float(result["energy"])), max(late.max(), float(result["energy"]))
    room = max(high - low, 1e-9 * abs(high))
    axes.set_ylim(low - 0.3 * room, high + 0.7 * room)
    return _finish(axes, "step", _label(energy))


def radial_density(result: "xarray.Dataset", axes: "Axes | None" = None, **line: Any) -> "Axes":
    """The one-body density over the distance from the centre, with its errors and the exact one if it is known.

    `result` is what `tw.energy.radial_densities(...)` or `tw.energy.ground_state(...).to_xarray()` gives.
    """
    return _radial(result, "density", axes, line)


def pair_correlation(result: "xarray.Dataset", axes: "Axes | None" = None, **line: Any) -> "Axes":
    """The density of the distance of two particles, with its errors and the exact one if it is known.

    `result` is what `tw.energy.radial_densities(...)` or `tw.energy.ground_state(...).to_xarray()` gives.
    """
    return _radial(result, "pair_density", axes, line)


def _radial(result: "xarray.Dataset", name: str, axes: "Axes | None", line: dict[str, Any]) -> "Axes":
    axes = new_axes(axes)
    _need(result, (name, f"{name}_error"), "tw.energy.radial_densities(samples, particles)")
    values = result[name]
    (along,) = values.dims
    looks = {"fmt": "o", "markersize": 3, "linewidth": 1.2, "color": COLOURS[0], "label": "sampled"}
    axes.errorbar(values[along].values, values.values, yerr=result[f"{name}_error"].values, **{**looks, **line})
    if f"exact_{name}" in result:
        axes.plot(values[along].values, result[f"exact_{name}"].values, color=COLOURS[1], linestyle="-", label="exact")
    axes.set_ylim(bottom=0)
    return _finish(axes, _label(values[along], along), _label(values))


def _need(result: "xarray.Dataset", names: Sequence[str], source: str) -> None:
    missing = [name for name in names if name not in result]
    if missing:
        raise ValueError(f"result must hold {', '.join(names)}, and lacks {', '.join(missing)}: pass {source}")


def pictures(result: "xarray.DataArray", axes: "Axes | None" = None, signed: bool | None = None) -> "Axes":
    """Many small pictures beside one another: an array over `picture`, `row` and `column`.

    `signed`: whether 0 is the middle of the colours; by default where there are negative numbers.
    """
    import numpy as np

    if result.dims != ("picture", "row", "column"):
        raise ValueError(
            f"pictures must have the dimensions picture, row, column, got {', '.join(map(str, result.dims))}"
        )
    count, height, width = result.shape
    across = max(1, round((count * height / width) ** 0.5))
    down = -(-count // across)
    sheet = np.full((down * (height + 1) - 1, across * (width + 1) - 1), np.nan)
    for number, picture in enumerate(result.values):
        i, j = divmod(number, across)
        sheet[i * (height + 1) : i * (height + 1) + height, j * (width + 1) : j * (width + 1) + width] = picture
    axes = new_axes(axes)
    most = float(np.nanmax(np.abs(sheet)))
    signed = bool(np.nanmin(sheet) < 0) if signed is None else signed
    colours: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -most, "vmax": most} if signed else {"cmap": "gray_r"}
    image = axes.imshow(sheet, interpolation="nearest", **colours)
    axes.grid(False)
    axes.set(xticks=[], yticks=[], title=_label(result))
    figure: Any = axes.get_figure()
    figure.colorbar(image, ax=axes)
    return axes


def _label(array: "xarray.DataArray", otherwise: Any = None) -> str:
    """What an axis says: the long name and the unit."""
    name = array.attrs.get("long_name") or array.name or otherwise or ""
    unit = array.attrs.get("units", "")
    return str(name).replace("_", " ") + (f" [{unit}]" if unit not in ("", "1") else "")


def _finish(axes: "Axes", across: str, up: str) -> "Axes":
    """Label what is not labelled yet; a legend where there is something to tell apart."""
    if not axes.get_xlabel():
        axes.set_xlabel(across)
    if not axes.get_ylabel():
        axes.set_ylabel(up)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False)
    return axes


def _of_dimension(array: "xarray.DataArray", wanted: int, what: str) -> Sequence[Any]:
    if array.ndim != wanted:
        raise ValueError(f"{what} must have {wanted} dimension(s) to be drawn, got {array.ndim}: select some first")
    return array.dims


def _dimensions(array: "xarray.DataArray") -> tuple[Any, Any]:
    """The dimension a curve runs along (the last), and the one that tells curves apart, if any."""
    if array.ndim not in (1, 2):
        raise ValueError(f"a curve must have one or two dimensions, got {array.ndim}: select some first")
    return array.dims[-1], array.dims[0] if array.ndim == 2 else None


def _entries(array: "xarray.DataArray", over: Any) -> list[tuple[Any, "xarray.DataArray"]]:
    if over is None:
        return [(None, array)]
    parts = [array.isel({over: index}).assign_attrs(_index=index) for index in range(array.sizes[over])]
    return [(f"{array[over].values[index]}", part) for index, part in enumerate(parts)]
