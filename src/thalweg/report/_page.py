"""One self-contained page from the folders that the studies wrote: no network, no script."""

import base64
import datetime
import json
import os
import platform
import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from thalweg.report._numbers import number
from thalweg.studies._run import versions
from thalweg.studies._study import ROOMS, VERDICTS

INTRODUCTION = (
    "A learner is a stochastic update map: so is SGD, and so are a sampler, a Boltzmann machine in training, "
    "a thermostat and the Lorenz equations. thalweg takes any such map, perturbs one thing, holds another "
    "still, and measures what is carried: where probability goes, where knowledge sits, what steers what, and "
    "what the system settles into."
)

MARKS = {"holds": "✓", "holds in kind": "≈", "fails": "✗", "not decidable here": "?"}

# A drawing of many points is smaller as pixels than as lines.
_LARGEST_SVG = 400_000


def write_page(out: str | Path, names: Sequence[str], size: str = "quick") -> Path:
    """Write `out`/index.html from the folders `out`/NAME and return it."""
    out = Path(out)
    studies = [_read(out / name) for name in names]
    page = out / "index.html"
    draft = out / "index.html.part"
    draft.write_text(_document(studies, size), encoding="utf-8")
    draft.replace(page)
    return page


def _read(folder: Path) -> dict[str, Any]:
    study = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    claims = folder / "claims.json"
    study["claims"] = json.loads(claims.read_text(encoding="utf-8")) if claims.is_file() else []
    study["folder"] = folder
    return study


def _document(studies: list[dict[str, Any]], size: str) -> str:
    style = resources.files("thalweg.report").joinpath("style.css").read_text(encoding="utf-8")
    rooms = [room for room in ROOMS if any(study["room"] == room for study in studies)]
    body = [
        _opening(studies, size),
        _headlines(studies, rooms),
        *(_room(room, [study for study in studies if study["room"] == room]) for room in rooms),
        _errata(),
        _closing(studies, size),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>thalweg: the report</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def _opening(studies: list[dict[str, Any]], size: str) -> str:
    verdicts = [claim["verdict"] for study in studies for claim in study["claims"]]
    counts = "".join(
        f"<li>{_badge(verdict)} <b>{verdicts.count(verdict)}</b></li>" for verdict in VERDICTS if verdict in verdicts
    )
    failed = [study for study in studies if "error" in study]
    alarm = (
        f'<p class="error">{len(failed)} of {_count(len(studies), "study", "studies")} did not finish: '
        + ", ".join(f'<a href="#{_anchor(study)}">{escape(study["name"])}</a>' for study in failed)
        + ".</p>"
        if failed
        else ""
    )
    rooms = "".join(
        f'<li><a href="#{room}">{room}</a></li>' for room in ROOMS if any(study["room"] == room for study in studies)
    )
    seconds = sum(study["seconds"] for study in studies)
    return (
        f'<header>\n<h1>thalweg</h1>\n<p class="lead">{escape(INTRODUCTION)}</p>\n'
        f"<p>{_count(len(studies), 'study', 'studies')}, {_count(len(verdicts), 'published claim')}, "
        f"{size} size, {_duration(seconds)}. Each claim is measured again here and judged; <i>fails</i> is "
        "said of the claim, not of the program.</p>\n"
        f'<ul class="tally">{counts}</ul>\n{alarm}'
        f'<nav aria-label="Contents"><ul>{rooms}<li><a href="#errata">errata</a></li>'
        '<li><a href="#rerun">how to rerun</a></li></ul></nav>\n</header>'
    )


def _headlines(studies: list[dict[str, Any]], rooms: Sequence[str]) -> str:
    """One study a room for those who read no further."""
    cards = []
    for room in rooms:
        chosen = [study for study in studies if study["room"] == room and study["headline"]]
        for study in chosen[:1]:
            if "error" in study:
                continue
            picture = _figures(study, study["figures"][:1], captions=False)
            badges = " ".join(_badge(claim["verdict"], claim["id"]) for claim in study["claims"])
            cards.append(
                f'<article class="card"><p class="room">{escape(ROOMS[room])}</p>'
                f'<h3><a href="#{_anchor(study)}">{_inline(study["title"])}</a></h3>{picture}'
                f"<p>{_inline(study['summary'])}</p><p>{badges}</p></article>"
            )
    return f'<section class="cards" aria-label="One study a room">\n{"".join(cards)}\n</section>' if cards else ""


def _room(room: str, studies: Iterable[dict[str, Any]]) -> str:
    return (
        f'<section id="{room}">\n<h2>{room} <span class="question">{escape(ROOMS[room])}</span></h2>\n'
        + "\n".join(map(_study, studies))
        + "\n</section>"
    )


def _study(study: dict[str, Any]) -> str:
    head = f'<article class="study" id="{_anchor(study)}">\n<h3>{_inline(study["title"])}</h3>\n'
    if "error" in study:
        return (
            f'{head}<p class="error">This study did not finish: {escape(study["error"])}</p>\n'
            f"{_making(study)}</article>"
        )
    return (
        f'{head}<p class="summary">{_inline(study["summary"])}</p>\n{_claims(study["claims"])}\n'
        f"{_figures(study, study['figures'])}\n{_making(study)}</article>"
    )


def _claims(claims: Iterable[dict[str, Any]]) -> str:
    rows = []
    for claim in claims:
        note = f'<p class="note">{_inline(claim["note"])}</p>' if claim["note"] else ""
        rows.append(
            f'<tr><th scope="row">{escape(claim["id"])}</th>'
            f'<td class="claim">{_inline(claim["claim"])}'
            f'<p class="source">{_inline(claim["source"])}</p>{note}</td>'
            f'<td data-label="published">{_inline(number(claim["published"]))}</td>'
            f'<td data-label="measured">{_inline(number(claim["measured"], claim["error"]))}</td>'
            f'<td data-label="verdict">{_badge(claim["verdict"])}</td></tr>'
        )
    if not rows:
        return ""
    return (
        '<table class="claims">\n<thead><tr><th scope="col">id</th><th scope="col">claim</th>'
        '<th scope="col">published</th><th scope="col">measured</th><th scope="col">verdict</th></tr>'
        "</thead>\n"
        f"<tbody>{''.join(rows)}</tbody>\n</table>"
    )


def _figures(study: dict[str, Any], figures: Iterable[dict[str, str]], captions: bool = True) -> str:
    parts = []
    for figure in figures:
        source = _embedded(study["folder"] / figure["name"])
        caption = f"<figcaption>{_inline(figure['caption'])}</figcaption>" if captions else ""
        parts.append(f'<figure><img alt="{escape(figure["alt"])}" src="{source}">{caption}</figure>')
    return "".join(parts)


def _embedded(stem: Path) -> str:
    """A figure as a data URL: lines if they are few, else pixels."""
    drawing = stem.with_suffix(".svg")
    if drawing.stat().st_size <= _LARGEST_SVG:
        kind, content = "svg+xml", drawing.read_bytes()
    else:
        kind, content = "png", stem.with_suffix(".png").read_bytes()
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _making(study: dict[str, Any]) -> str:
    """How the study was made, folded away."""
    settings = study.get("settings") or {}
    lines = [
        ("rerun", f"<code>thalweg run {escape(study['name'])} --size {study['size']}</code>"),
        ("took", f"{_duration(study['seconds'])} (stated for the quick size: {study['seconds_stated']:g} s)"),
        ("settings", escape(", ".join(f"{name} = {value}" for name, value in settings.items())) or "none"),
        (
            "data",
            ", ".join(f"<code>{escape(study['name'])}/{escape(file)}</code>" for file in study.get("data", [])),
        ),
        ("made", escape(study["date"])),
    ]
    items = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in lines if text)
    return f"<details><summary>how it was made</summary><dl>{items}</dl></details>\n"


def _errata() -> str:
    from thalweg.studies.errata import ERRATA

    rows = "".join(
        f'<tr><td data-label="place">{_inline(entry.place)}<p class="source">{_inline(entry.source)}</p></td>'
        f'<td data-label="printed">{_inline(entry.printed)}</td>'
        f'<td data-label="right">{_inline(entry.right)}</td>'
        f'<td data-label="checked">{_inline(entry.checked)}</td></tr>'
        for entry in ERRATA
    )
    return (
        '<section id="errata">\n<h2>errata <span class="question">Misprints of the sources</span></h2>\n'
        "<p>Each line is held by a test.</p>\n"
        '<table class="claims errata"><thead><tr><th scope="col">place</th><th scope="col">printed</th>'
        '<th scope="col">right</th><th scope="col">how checked</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>\n</section>"
    )


def _closing(studies: list[dict[str, Any]], size: str) -> str:
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    used = ", ".join(f"{name} {version}" for name, version in versions().items())
    one = studies[0]["name"] if studies else "STUDY"
    return (
        '<section id="rerun">\n<h2>how to rerun</h2>\n'
        f"<pre><code>make report                        # from a fresh clone\n"
        f"thalweg report --size {size:<5}        # all of it, where thalweg is installed\n"
        f"thalweg run {escape(one)}\n"
        "thalweg list</code></pre>\n"
        "<p>Beside this page each study has a folder with <code>claims.json</code>, its figures (PNG and "
        "SVG) and its data (netCDF; <code>thalweg show FILE</code> says how it was made).</p>\n"
        f"</section>\n<footer><p>Made {date} with {escape(used)} on {os.cpu_count()} cores, "
        f"{escape(platform.system())} {escape(platform.machine())}.</p></footer>"
    )


def _badge(verdict: str, label: str = "") -> str:
    name = verdict.replace(" ", "-")
    before = f"{escape(label)}: " if label else ""
    mark = f'<span aria-hidden="true">{MARKS[verdict]}</span>'
    return f'<span class="badge {name}">{before}{mark} {verdict}</span>'


def _inline(text: str) -> str:
    """Escaped text in which `code` between backticks is set as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _anchor(study: dict[str, Any]) -> str:
    return f"study-{study['name']}"


def _count(number_of: int, one: str, many: str = "") -> str:
    return f"{number_of} {one if number_of == 1 else many or one + 's'}"


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {seconds % 60:.0f} s"
