"""The report: every study on one page that needs nothing but itself."""

from thalweg._lazy import lazy

_NAMES = {
    "_make": ["make_report"],
    "_page": ["write_page"],
    "_terminal": ["print_claims", "waiting"],
}
__getattr__, __dir__, __all__ = lazy("thalweg.report", _NAMES)
