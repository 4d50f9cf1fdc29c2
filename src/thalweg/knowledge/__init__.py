"""Where is what was learned stored? Update tallies, forked runs, localization with controls, matching units."""

from thalweg._lazy import lazy

_NAMES: dict[str, list[str]] = {
    "_attribution": ["Attribution", "attribution"],
    "_contest": ["auroc", "unit_scores"],
    "_forks": ["Forks", "fork_data", "forks"],
    "_influence": ["influence", "small_fork"],
    "_by_datum": ["Layer"],
    "_localization": ["Localization"],
    "_localize": ["localize"],
    "_matching": ["Match", "Naming", "match_units", "name_units"],
    "_permutation": ["DatumPermutation", "datum_permutation_test"],
    "_profiles": ["profiles"],
    "_tallied": ["Tallied"],
    "_tally": ["Tally"],
}

__getattr__, __dir__, __all__ = lazy("thalweg.knowledge", _NAMES)
