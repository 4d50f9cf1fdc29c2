"""The referee's page and a page for each study, from what a report measured; `{referee}` and `{errata}`.

`make report` runs the studies and writes the folder that is read here. Without one the studies are listed, and nothing
is said of what they measure.
"""

import ast
import inspect
import json
import re
import shutil
from pathlib import Path
from typing import Any

from docstrings import to_myst
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from thalweg.report._numbers import number
from thalweg.studies._discover import list_studies
from thalweg.studies._study import ROOMS, VERDICTS, Study
from thalweg.studies.errata import ERRATA

PAGES, FIGURES = "studies", "_figures"
MARKS = {"holds": "✓", "holds in kind": "≈", "fails": "✗", "not decidable here": "?"}
_LARGEST_SVG = 400_000
_MARKUP = re.compile(r"([\\*_<>\[\]{}#$~|]|^[-+](?=\s))")


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_config_value("thalweg_report", "", "env")
    app.add_directive("referee", Referee)
    app.add_directive("verdicts", Verdicts)
    app.add_directive("errata", Errata)
    app.connect("builder-inited", lambda app: write_pages(Path(app.srcdir), Path(app.config.thalweg_report)))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class _Written(SphinxDirective):
    """A directive that writes MyST."""

    def text(self) -> str:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        node = nodes.Element()
        lines = StringList(self.text().splitlines(), source=self.get_source_info()[0])
        self.state.nested_parse(lines, self.content_offset, node, match_titles=True)
        return node.children


class Verdicts(_Written):
    """How many claims were judged how, when, and with what."""

    def text(self) -> str:
        studies = list_studies()
        found = [measured(Path(self.config.thalweg_report), study.name) for study in studies]
        return _counts([each for each in found if each is not None], len(studies))


class Referee(_Written):
    """Every claim by room: published, measured, verdict."""

    def text(self) -> str:
        return overview(Path(self.config.thalweg_report))


class Errata(_Written):
    """The misprints of the sources."""

    def text(self) -> str:
        rows = [
            (f"{_inline(entry.place)}\n\n*{entry.source}*", _inline(entry.printed), _inline(entry.right),
             _inline(entry.checked))
            for entry in ERRATA
        ]  # fmt: skip
        return _table("claims errata", ("place", "printed", "right", "how it was checked"), (28, 22, 28, 22), rows)


def measured(report: Path, name: str) -> dict[str, Any] | None:
    """What a report says of a study, or None where it was not run."""
    claims, study = report / name / "claims.json", report / name / "study.json"
    if not (claims.is_file() and study.is_file()):
        return None
    found = json.loads(study.read_text(encoding="utf-8"))
    return found | {"claims": json.loads(claims.read_text(encoding="utf-8"))}


def overview(report: Path) -> str:
    """The tables of all rooms."""
    studies = list_studies()
    found = {study.name: measured(report, study.name) for study in studies}
    parts = []
    for room, question in ROOMS.items():
        of_room = [study for study in studies if study.room == room]
        rows = [row for study in of_room for row in _rows(study, found[study.name])]
        head = ("study", "claim", "published", "measured", "verdict")
        parts.append(f"## {room}: {question}\n\n{_table('claims', head, (16, 40, 14, 16, 14), rows)}")
    return "\n\n".join(parts)


def _counts(ran: list[dict[str, Any]], studies: int) -> str:
    if not ran:
        return (
            "```{admonition} Not measured in this build\nThis site was built without a report: "
            "`make report`, then `make docs`. The studies are listed with what they ask.\n```"
        )
    verdicts = [claim["verdict"] for each in ran for claim in each["claims"]]
    tally = ", ".join(f"{verdicts.count(verdict)} {_badge(verdict)}" for verdict in VERDICTS if verdict in verdicts)
    dates = sorted(each["date"][:10] for each in ran)
    when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    sizes = " and ".join(sorted({each["size"] for each in ran}))
    used = ", ".join(f"{name} {version}" for name, version in ran[0]["versions"].items())
    return (
        f"{len(ran)} of {studies} studies were run for this page ({when}, {sizes} size, {used}), and judge "
        f"{len(verdicts)} claims: {tally}. *Fails* is said of the claim, not of the program."
    )


def _rows(study: Study, found: dict[str, Any] | None) -> list[tuple[str, ...]]:
    link = f"[{study.name}](./{PAGES}/{study.name}.md)"
    if found is None or not found["claims"]:
        return [(link, _inline(study.title), "", "not measured in this build", "")]
    return [
        (f"{link}, {claim['id']}", _inline(claim["claim"]), *_values(claim), _badge(claim["verdict"]))
        for claim in found["claims"]
    ]


def _values(claim: dict[str, Any]) -> tuple[str, str]:
    return _inline(number(claim["published"])), _inline(number(claim["measured"], claim["error"]))


def write_pages(source: Path, report: Path) -> None:
    """A page for each study, and the figures that they show."""
    for folder in (PAGES, FIGURES):
        shutil.rmtree(source / folder, ignore_errors=True)
        (source / folder).mkdir()
    for study in list_studies():
        page = _page(study, measured(report, study.name), report, source / FIGURES)
        (source / PAGES / f"{study.name}.md").write_text(page, encoding="utf-8")


def _page(study: Study, found: dict[str, Any] | None, report: Path, figures: Path) -> str:
    run = next(
        node for node in ast.parse(study.path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name == "run"
    )  # fmt: skip
    parts = [
        "---\norphan: true\n---",
        f"# {_inline(study.title)}",
        f"Room: {study.room}. To run it: `thalweg run {study.name}` (about {study.seconds:g} s).",
    ]
    if found is None:
        parts.append("Not measured in this build: `make report`, then `make docs`.")
    else:
        parts += [_inline(found["summary"]), _claims(found["claims"])]
        parts += [_figure(report / study.name, study.name, figure, figures) for figure in found["figures"]]
    parts.append("## How it is measured\n\n" + to_myst(inspect.cleandoc(ast.get_docstring(run) or "")))
    shown = study.path.relative_to(Path(__file__).parents[2])
    parts.append(f"## Source\n\n`{shown}`\n\n```{{literalinclude}} ../../{shown}\n:language: python\n```")
    return "\n\n".join(parts) + "\n"


def _claims(claims: list[dict[str, Any]]) -> str:
    rows = []
    for claim in claims:
        note = f"\n\n{_inline(claim['note'])}" if claim["note"] else ""
        text = f"{_inline(claim['claim'])}\n\n*{claim['source']}*{note}"
        rows.append((claim["id"], text, *_values(claim), _badge(claim["verdict"])))
    return _table("claims", ("id", "claim", "published", "measured", "verdict"), (8, 48, 14, 16, 14), rows)


def _figure(folder: Path, study: str, figure: dict[str, str], figures: Path) -> str:
    drawing = folder / f"{figure['name']}.svg"
    if drawing.stat().st_size > _LARGEST_SVG:  # a drawing of many points is smaller as pixels
        drawing = drawing.with_suffix(".png")
    shutil.copy(drawing, figures / f"{study}-{drawing.name}")
    alt = " ".join(figure["alt"].split())
    return f"```{{figure}} ../{FIGURES}/{study}-{drawing.name}\n:alt: {alt}\n\n{_inline(figure['caption'])}\n```"


def _badge(verdict: str) -> str:
    return f"[{MARKS[verdict]} {verdict}]{{.badge .{verdict.replace(' ', '-')}}}"


def _inline(text: str) -> str:
    """Text of a study as MyST: formulas between backticks are drawn, and nothing else is markup."""
    outside = re.split(r"(`[^`]+`)", text)
    return to_myst("".join(part if part.startswith("`") else _MARKUP.sub(r"\\\1", part) for part in outside))


def _table(kind: str, head: tuple[str, ...], widths: tuple[int, ...], rows: list[tuple[str, ...]]) -> str:
    """A list-table; `kind` is its class, by which the style sheet lays it out on a phone."""

    def cells(row: tuple[str, ...]) -> str:
        inside = [cell.replace("\n", "\n    ") for cell in row]
        return "* - " + "\n  - ".join(inside)

    body = "\n".join(map(cells, [head, *rows]))
    return f"````{{list-table}}\n:class: {kind}\n:header-rows: 1\n:widths: {' '.join(map(str, widths))}\n\n{body}\n````"
