"""What a study is, and what it gives back: claims with verdicts, pictures and data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VERDICTS = ("holds", "holds in kind", "fails", "not decidable here")

ROOMS = {
    "flow": "Where does probability go?",
    "knowledge": "Where is what was learned stored?",
    "steering": "What optimizes what?",
    "energy": "What does it settle into, and at what energy?",
}


@dataclass(frozen=True)
class Claim:
    """One published statement, what was measured, and the verdict.

    **Arguments**

    - `id`: a short name, such as `"F1"`.
    - `claim`: the statement in one sentence.
    - `source`: where it was published.
    - `measured`: a number, a sentence, or an `Estimate` (whose error is then used).
    - `verdict`: exactly one of `holds`, `holds in kind`, `fails`, `not decidable here`; nuance goes into
      `note`.
    - `published`: the published number or words, if any.
    - `error`: one standard error of `measured` (or its discretisation error); 0 for an exact answer.
    - `note`: what a reader should know besides, such as the control that was run.
    - `details`: further numbers by name.

    **Raises** `ValueError` for another verdict.

    **Example**

    >>> from thalweg.studies import Claim
    >>> claim = Claim("F1", "l1 is stationary at 1.004", "a post", 1.0037, "holds", published=1.004)
    >>> claim.record()["measured"]
    1.0037
    """

    id: str
    claim: str
    source: str
    measured: Any
    verdict: str
    published: Any = None
    error: Any = None
    note: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(
                f"verdict of claim {self.id} must be one of {', '.join(map(repr, VERDICTS))}, "
                f"got {self.verdict!r}; put nuance into note"
            )
        for name in ("id", "claim", "source"):
            value = getattr(self, name)
            if not (isinstance(value, str) and value.strip()):
                raise ValueError(f"{name} of a claim must be a sentence or a name, got {value!r}")
        if hasattr(self.measured, "value") and hasattr(self.measured, "error"):  # an Estimate
            if self.error is None:
                object.__setattr__(self, "error", self.measured.error)
            object.__setattr__(self, "measured", self.measured.value)

    def record(self) -> dict[str, Any]:
        """This claim as the dictionary that `claims.json` holds."""
        keys = ("id", "claim", "source", "published", "measured", "error", "verdict", "note")
        record = {key: plain(getattr(self, key)) for key in keys}
        if self.details:
            record["details"] = plain(dict(self.details))
        return record


@dataclass(frozen=True)
class Picture:
    """A matplotlib figure (or Axes) with the caption that says what one sees.

    `alt` is read out to those who do not see the picture; where it is left empty, the caption is.
    """

    figure: Any
    caption: str
    alt: str = ""

    def __post_init__(self) -> None:
        if not (isinstance(self.caption, str) and self.caption.strip()):
            raise ValueError("caption of a picture must be a sentence that says what one sees, got an empty one")
        if not hasattr(self.figure, "savefig"):  # an Axes
            if not hasattr(self.figure, "get_figure"):
                raise TypeError(f"a picture needs a matplotlib Figure or Axes, got {type(self.figure).__name__}")
            object.__setattr__(self, "figure", self.figure.get_figure())


@dataclass(frozen=True)
class Outcome:
    """What a study gives back: what was found, in a few sentences; claims, pictures, and data (xarray)."""

    summary: str
    claims: Sequence[Claim]
    figures: Mapping[str, Picture] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        twice = {c.id for c in self.claims if sum(c.id == other.id for other in self.claims) > 1}
        if twice:
            raise ValueError(f"each claim needs an id of its own, but {', '.join(sorted(twice))} is used twice")
        for name, picture in self.figures.items():
            if not isinstance(picture, Picture):
                raise TypeError(
                    f"figures[{name!r}] must be a Picture(figure, caption=...), got {type(picture).__name__}"
                )


@dataclass(frozen=True)
class Study:
    """A study as `thalweg list` knows it, read from its file without running it."""

    name: str
    title: str
    room: str
    seconds: float
    headline: bool
    path: Path


@dataclass(frozen=True)
class Erratum:
    """A misprint of a source: where it stands, what is printed, what is right, and how that was checked.

    The test that checks it is `test_<id>` in `tests/studies/test_errata.py`.
    """

    id: str
    source: str
    place: str
    printed: str
    right: str
    checked: str


def plain(value: Any) -> Any:
    """`value` as JSON knows it: arrays become lists; infinity and NaN become their names."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "value") and hasattr(value, "error"):  # an Estimate
        return {"value": plain(value.value), "error": plain(value.error)}
    if hasattr(value, "tolist"):  # arrays and array scalars
        return plain(value.tolist())
    if isinstance(value, float):
        return value if abs(value) < float("inf") else str(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return str(value)
