"""The built site needs no network, points nowhere that does not exist and lacks nothing: `check_site.py build/docs`."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

# What a browser fetches by itself when it shows a page. A link that is only followed by a click may lead outside.
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src",
          "object": "data", "embed": "src", "link": "href"}  # fmt: skip


class Page(HTMLParser):
    """What a page loads, where it links to, and the anchors it has."""

    def __init__(self, text: str):
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if given.get("id"):
            self.anchors.add(given["id"])
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag in LOADED and given.get(LOADED[tag]) and given.get("rel") != "canonical":
            self.loaded.append(given[LOADED[tag]])


def problems(site: Path) -> list[str]:
    """A sentence for everything that is loaded from outside, or missing."""
    pages = {file.resolve(): Page(file.read_text(encoding="utf-8")) for file in sorted(site.rglob("*.html"))}
    found = []
    for file, page in pages.items():
        name = file.relative_to(site.resolve())
        for target in page.loaded:
            if urlsplit(target).scheme in ("http", "https") or target.startswith("//"):
                found.append(f"{name} loads {target} from a network")
            elif urlsplit(target).scheme != "data" and not _at(file, target).is_file():
                found.append(f"{name} shows {target}, which does not exist")
        for target in page.links:
            if urlsplit(target).scheme or target.startswith("//"):
                continue
            place, anchor = urldefrag(target)
            there = _at(file, place) if place else file
            if not there.is_file():
                found.append(f"{name} links to {target}, which does not exist")
            elif anchor and there in pages and unquote(anchor) not in pages[there].anchors:
                found.append(f"{name} links to {target}, which has no such place")
    for file in sorted(site.rglob("*.css")):
        text = file.read_text(encoding="utf-8")
        if "url(http" in text or 'url("http' in text or "url(//" in text or "@import" in text:
            found.append(f"{file.relative_to(site)} loads something from a network")
    return found if pages else [f"{site} holds no pages"]


def missing(site: Path) -> list[str]:
    """A sentence for every system, study and public name that the site does not show."""
    import thalweg as tw
    from thalweg.studies._discover import list_studies, list_systems
    from thalweg.studies.errata import ERRATA

    found = []
    gallery = Page((site / "gallery.html").read_text(encoding="utf-8"))
    for name, _ in list_systems():
        if name.replace("_", "-") not in gallery.anchors or not any(f"/{name}." in src for src in gallery.loaded):
            found.append(f"the gallery shows no picture of {name}")
    referee = Page((site / "referee.html").read_text(encoding="utf-8"))
    for study in list_studies():
        if f"studies/{study.name}.html" not in referee.links:
            found.append(f"the referee's page does not link to {study.name}")
    if (site / "errata.html").read_text(encoding="utf-8").count("<tr") != len(ERRATA) + 1:
        found.append("the page of errata has not one line for each")
    reference = set()
    for file in (site / "api").glob("*.html"):
        reference |= Page(file.read_text(encoding="utf-8")).anchors
    for name in tw.__all__:
        if callable(getattr(tw, name)) and f"tw.{name}" not in reference:
            found.append(f"the reference does not hold tw.{name}")
    return found


def _at(file: Path, target: str) -> Path:
    place = unquote(urlsplit(target).path)
    there = (file.parent / place).resolve()
    return there / "index.html" if there.is_dir() else there


if __name__ == "__main__":
    built = Path(sys.argv[1])
    wrong = problems(built) + missing(built)
    print("\n".join(wrong) or f"{built}: no link broken, no figure or page missing, nothing loaded from a network")
    sys.exit(bool(wrong))
