"""Runs a study and writes down what it found: `claims.json`, figures, data, and how it was made."""

import datetime
import importlib
import importlib.util
import inspect
import json
import time
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from thalweg._saving import versions
from thalweg.studies._discover import find, made_from, nearest
from thalweg.studies._study import Outcome, Study, plain

SIZES = ("quick", "full")


def run_study(
    study: str | Study,
    size: str = "quick",
    settings: Mapping[str, Any] | None = None,
    out: str | Path = "results",
) -> Path:
    """Run a study and write it to the folder `out`/NAME, which is returned.

    **Arguments**

    - `study`: its name, or the path of its file.
    - `size`: `"quick"` (seconds) or `"full"`.
    - `settings`: what to change of the study's own parameters, by name; text is read as the parameter's type.
    - `out`: the folder that gets the study's folder.

    The folder holds `claims.json` (a list of claims with their verdicts), `study.json` (title, summary,
    captions, settings, versions, seconds), the figures as PNG and SVG and the data as netCDF.

    **Raises** `ValueError` for a study, size or setting that does not exist; whatever the study raises.
    """
    if isinstance(study, str):
        study = find(study)
    if size not in SIZES:
        raise ValueError(f"size must be 'quick' or 'full', got {size!r}")
    function = load(study)
    keywords = typed_settings(study.name, function, settings or {})
    source = made_from(study)  # before it runs: the files may be edited meanwhile
    start = time.perf_counter()
    outcome = function(size, **keywords)
    took = time.perf_counter() - start
    if not isinstance(outcome, Outcome):
        raise TypeError(f"run of study {study.name} must return an Outcome, got {type(outcome).__name__}")
    used = {name: p.default for name, p in _parameters(function).items()} | keywords
    return write(study, outcome, size, used, took, source, Path(out) / study.name)


def load(study: Study) -> Callable[..., Outcome]:
    """The study's `run` function."""
    if study.path.parent == Path(__file__).parent:
        module = importlib.import_module(f"thalweg.studies.{study.name}")
    else:
        spec = importlib.util.spec_from_file_location(study.name, study.path)
        if spec is None or spec.loader is None:
            raise ValueError(f"{study.path} cannot be imported")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module.run


def typed_settings(study: str, function: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with text turned into the types that the study's `run` asks for."""
    parameters = _parameters(function)
    hints = typing.get_type_hints(function)
    typed = {}
    for name, value in settings.items():
        if name not in parameters:
            raise ValueError(f"study {study} has no setting {name!r}; {_settings_sentence(name, parameters)}")
        default = parameters[name].default
        kind = hints.get(name, type(default))
        typed[name] = _convert(name, value, kind, default) if isinstance(value, str) else value
    return typed


def write(
    study: Study, outcome: Outcome, size: str, settings: Mapping[str, Any], took: float, source: str, folder: Path
) -> Path:
    """Write an outcome into its folder and return the folder."""
    from thalweg._saving import save

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "claims.json").unlink(missing_ok=True)  # written last: where it is, the study is whole
    figures = []
    for name, picture in outcome.figures.items():
        _save_figure(picture.figure, folder / name)
        figures.append({"name": name, "caption": picture.caption, "alt": picture.alt or picture.caption})
    for name, data in outcome.data.items():
        save(data, folder / f"{name}.nc", study=study.name, size=size, settings=plain(dict(settings)))
    record = describe(study, size, took) | {
        "summary": outcome.summary,
        "settings": plain(dict(settings)),
        "figures": figures,
        "data": [f"{name}.nc" for name in outcome.data],
        "made_from": source,
    }
    write_json(folder / "study.json", record)
    write_json(folder / "claims.json", [claim.record() for claim in outcome.claims])
    return folder


def describe(study: Study, size: str, took: float) -> dict[str, Any]:
    """What is known of a study's run whether or not it succeeded."""
    return {
        "name": study.name,
        "title": study.title,
        "room": study.room,
        "headline": study.headline,
        "size": size,
        "seconds": round(took, 2),
        "seconds_stated": study.seconds,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people and programs, by way of a temporary file: a reader never sees half of it."""
    draft = path.with_suffix(".json.part")
    draft.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    draft.replace(path)


def _parameters(function: Any) -> dict[str, inspect.Parameter]:
    """The parameters of `run` besides the size."""
    parameters = dict(inspect.signature(function).parameters)
    if not parameters:
        raise TypeError("run of a study must take the size as its first argument")
    parameters.pop(next(iter(parameters)))
    return parameters


def _settings_sentence(name: str, parameters: Mapping[str, Any]) -> str:
    if not parameters:
        return "it has no settings"
    close = nearest(name, parameters)
    listed = f"its settings are: {', '.join(parameters)}"
    return f"{close} ({listed})" if close.startswith("did") else listed


def _convert(name: str, text: str, kind: Any, default: Any) -> Any:
    """Text from the command line as a value of the wanted type; a tuple is written 1,2,3."""
    origin = typing.get_origin(kind) or kind
    inner = [item for item in typing.get_args(kind) if item is not Ellipsis]
    if type(None) in inner:  # T | None
        if text.lower() == "none":
            return None
        return _convert(name, text, next(item for item in inner if item is not type(None)), default)
    if origin in (tuple, list):
        item = inner[0] if inner else (type(default[0]) if default else float)
        return origin(_convert(name, part.strip(), item, None) for part in text.split(",") if part.strip())
    if origin is typing.Literal:
        if text in inner:
            return text
        raise ValueError(f"setting {name} must be one of {', '.join(map(str, inner))}, got {text!r}")
    if origin is bool:
        if text.lower() in ("true", "yes", "1", "false", "no", "0"):
            return text.lower() in ("true", "yes", "1")
        raise ValueError(f"setting {name} must be true or false, got {text!r}")
    if origin in (int, float):
        try:
            return origin(text)
        except ValueError:
            wanted = "a whole number" if origin is int else "a number"
            raise ValueError(f"setting {name} must be {wanted}, got {text!r}") from None
    return text


def _save_figure(figure: Any, stem: Path) -> None:
    """Write a figure as PNG and SVG (the same bytes for the same picture), and close it."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    with mpl.rc_context({"svg.hashsalt": "thalweg"}):
        figure.savefig(stem.with_suffix(".png"), dpi=160, bbox_inches="tight")
        figure.savefig(stem.with_suffix(".svg"), bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
