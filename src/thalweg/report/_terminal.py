"""A study at the terminal, for `thalweg run`: a sign of life while it runs, then its claims as lines of text."""

import json
import textwrap
from contextlib import AbstractContextManager
from pathlib import Path

from thalweg.report._numbers import number


def waiting(what: str) -> AbstractContextManager:
    """A sign of life on stderr while something runs, where there is a terminal to show it on."""
    from contextlib import nullcontext

    from rich.console import Console

    console = Console(stderr=True)
    return console.status(what) if console.is_terminal else nullcontext()


def print_claims(folder: str | Path) -> None:
    """Print what a study that was written to `folder` found, and where it is."""
    folder = Path(folder)
    study = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    claims = json.loads((folder / "claims.json").read_text(encoding="utf-8"))
    print(f"{study['name']}: {study['title']}")
    print(textwrap.fill(study["summary"], 100))
    for claim in claims:
        print(f"\n{claim['id']}: {claim['verdict'].upper()}")
        print(textwrap.fill(claim["claim"], 100, initial_indent="  ", subsequent_indent="  "))
        if claim["published"] is not None:
            print(f"  published: {number(claim['published'])} ({claim['source']})")
        print(f"  measured:  {number(claim['measured'], claim['error'])}")
        if claim["note"]:
            print(textwrap.fill(claim["note"], 100, initial_indent="  note: ", subsequent_indent="  "))
    print(f"\nwritten to {folder} in {study['seconds']:.1f} s ({study['size']} size)")
