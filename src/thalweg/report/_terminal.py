"""A study's claims as lines of text, for `thalweg run`."""

import json
import textwrap
from pathlib import Path

from thalweg.report._numbers import number


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
