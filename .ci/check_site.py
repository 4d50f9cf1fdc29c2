"""The built site needs no network and points nowhere that does not exist: `check_site.py build/docs`."""

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


def _at(file: Path, target: str) -> Path:
    place = unquote(urlsplit(target).path)
    there = (file.parent / place).resolve()
    return there / "index.html" if there.is_dir() else there


if __name__ == "__main__":
    wrong = problems(Path(sys.argv[1]))
    print("\n".join(wrong) or f"{sys.argv[1]}: no link broken, no figure missing, nothing loaded from a network")
    sys.exit(bool(wrong))
