"""The page: whole, self-contained, escaped, and not stopped by a study that fails."""

import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from thalweg.report import make_report, print_claims
from thalweg.studies import find

TOY = Path(__file__).parent / "studies" / "toy.py"
VOID = {"meta", "img", "br"}


class _Checker(HTMLParser):
    """Collects tags, and complains of one that is closed in the wrong order or never."""

    def __init__(self):
        super().__init__()
        self.open, self.images, self.ids, self.links, self.text = [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(attributes)
        if tag == "a":
            self.links.append(attributes["href"])
        if "id" in attributes:
            self.ids.append(attributes["id"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


@pytest.fixture(scope="module", params=[1, 2])
def report(request, tmp_path_factory):
    """A report of one study that works and one that fails, one after the other and side by side."""
    out = tmp_path_factory.mktemp("report")
    broken = out / "broken.py"
    broken.write_text(TOY.read_text().replace("fail: bool = False", "fail: bool = True"))
    page, failed = make_report("quick", out / "out", [find(str(TOY)), find(str(broken))], request.param)
    text = page.read_text(encoding="utf-8")
    checker = _Checker()
    checker.feed(text)
    return page, failed, text, checker


def test_the_page_is_well_formed_and_its_links_arrive(report):
    _, _, _, checker = report
    assert checker.open == []
    assert len(set(checker.ids)) == len(checker.ids)
    for link in checker.links:
        assert link.startswith("#")
        assert link[1:] in checker.ids


def test_the_page_needs_nothing_but_itself(report):
    _, _, text, checker = report
    assert all(image["src"].startswith("data:image/") for image in checker.images)
    assert not re.search(r"<script|<link|url\(|@import|src=\"http", text)


def test_every_picture_can_be_read_out(report):
    _, _, _, checker = report
    assert len(checker.images) == 2  # in the headline and in the study
    assert all(image["alt"] == "Five walks." for image in checker.images)


def test_the_page_says_what_was_found(report):
    _, _, text, checker = report
    words = " ".join(" ".join(checker.text).split())
    for expected in (
        "the spread is sqrt(n) & no more",
        "a textbook",
        "not decidable here",
        "Five walks.",
        "errata",
    ):
        assert expected in words
    assert "<code>sqrt(n)</code>" in text
    assert "prefers-color-scheme: dark" in text


def test_a_study_that_fails_is_shown_with_its_error_and_stops_nothing(report):
    page, failed, text, _ = report
    assert failed == {"broken": "RuntimeError: the walk <b>fell</b> over"}
    assert "the walk &lt;b&gt;fell&lt;/b&gt; over" in text
    assert "<b>fell" not in text
    assert (page.parent / "toy" / "claims.json").is_file()
    assert not (page.parent / "broken" / "claims.json").exists()
    assert json.loads((page.parent / "broken" / "study.json").read_text())["error"] == failed["broken"]


def test_the_claims_of_an_earlier_run_do_not_pass_for_a_failed_one(tmp_path):
    study = find(str(TOY))
    make_report("quick", tmp_path, [study])
    assert (tmp_path / "toy" / "claims.json").is_file()
    broken = tmp_path / "toy.py"
    broken.write_text(TOY.read_text().replace("fail: bool = False", "fail: bool = True"))
    make_report("quick", tmp_path, [dataclasses.replace(study, path=broken)])
    assert not (tmp_path / "toy" / "claims.json").exists()


def test_a_stopped_report_goes_on_with_what_is_missing(tmp_path, capfd, monkeypatch):
    """A study that is done is left alone; one of another size, or that failed, is run again. A log gets its lines."""
    broken = tmp_path / "broken.py"
    broken.write_text(TOY.read_text().replace("fail: bool = False", "fail: bool = True"))
    studies = [find(str(TOY)), find(str(broken))]
    make_report("quick", tmp_path / "out", studies)
    written = tmp_path / "out" / "toy" / "claims.json"
    before = written.stat().st_mtime_ns
    broken.write_text(TOY.read_text())
    monkeypatch.setattr("thalweg._progress.QUIET", 0.0)
    page, failed = make_report("quick", tmp_path / "out", studies, resume=True, progress=True)
    assert failed == {} and written.stat().st_mtime_ns == before
    assert page.read_text().count("the spread is sqrt(n)") >= 2
    assert "studies 1 of 1 (100%)" in capfd.readouterr().err
    make_report("full", tmp_path / "out", studies[:1], resume=True)
    assert written.stat().st_mtime_ns > before and capfd.readouterr().err == ""


def test_a_study_that_was_edited_since_is_run_again_and_the_reader_is_told(tmp_path, capfd):
    edited, other = tmp_path / "edited.py", tmp_path / "other.py"
    for path in (edited, other):
        path.write_text(TOY.read_text())
    studies = [find(str(edited)), find(str(other))]
    make_report("quick", tmp_path / "out", studies)
    written = {study.name: tmp_path / "out" / study.name / "claims.json" for study in studies}
    before = {name: path.stat().st_mtime_ns for name, path in written.items()}
    capfd.readouterr()
    make_report("quick", tmp_path / "out", studies, resume=True, progress=True)
    assert all(path.stat().st_mtime_ns == before[name] for name, path in written.items())
    assert "run again" not in capfd.readouterr().err
    edited.write_text(TOY.read_text() + "# an edit\n")
    make_report("quick", tmp_path / "out", studies, resume=True, progress=True)
    assert written["edited"].stat().st_mtime_ns > before["edited"]
    assert written["other"].stat().st_mtime_ns == before["other"]
    assert "run again, since the code behind them has changed: edited\n" in capfd.readouterr().err


def test_the_code_behind_a_study_is_its_file_what_it_imports_and_the_package(monkeypatch, tmp_path):
    """A copy of the package: edits are seen where they matter to a study, and nowhere else."""
    from thalweg.studies import _discover

    package = tmp_path / "thalweg"
    shutil.copytree(Path(_discover.__file__).parents[1], package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(_discover, "_HERE", package / "studies")
    names = ("growth_law", "boltzmann_likelihood", "pit")
    digests = lambda: [_discover.made_from(_discover.find(name)) for name in names]  # noqa: E731

    def changed_by(file):
        before = digests()
        (package / file).write_text((package / file).read_text() + "# an edit\n")
        return [name for name, a, b in zip(names, before, digests(), strict=True) if a != b]

    assert changed_by("studies/pit.py") == ["pit"]
    assert changed_by("studies/boltzmann_likelihood.py") == ["growth_law", "boltzmann_likelihood"]
    assert changed_by("_noise.py") == list(names)
    assert changed_by("studies/_study.py") == list(names)


def test_interrupting_still_leaves_a_page(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("thalweg.report._make.run_study", interrupted)
    page, failed = make_report("quick", tmp_path, [find(str(TOY))])
    assert failed == {"toy": "interrupted by hand"}
    assert "interrupted by hand" in page.read_text()


def test_refusals(tmp_path, as_installed):
    with pytest.raises(ValueError, match="size must be 'quick' or 'full', got 'huge'"):
        make_report("huge", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="out must be a folder"):
        make_report("quick", tmp_path / "file")


def test_nothing_is_printed_unasked(tmp_path, capfd):
    make_report("quick", tmp_path, [find(str(TOY))])
    assert capfd.readouterr() == ("", "")


def test_claims_are_printed_as_lines(report, capsys):
    print_claims(report[0].parent / "toy")
    printed = capsys.readouterr().out
    assert "T1: HOLDS" in printed
    assert "published: 10 (a textbook)" in printed
    assert "written to" in printed
