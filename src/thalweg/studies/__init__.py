"""Claims about learning, each run, measured and judged: one file a study.

A study is a file in this folder (or anywhere: `thalweg run path/to/file.py`) that states its room and its
time and has a function `run(size, ...)` which returns an `Outcome`. Its first docstring line is what
`thalweg list` prints.
"""

from thalweg._lazy import lazy

_NAMES = {
    "_discover": ["find", "list_studies"],
    "_run": ["run_study"],
    "_study": ["Claim", "Erratum", "Outcome", "Picture", "ROOMS", "Study", "VERDICTS"],
}
__getattr__, __dir__, __all__ = lazy("thalweg.studies", _NAMES)
