"""Error bars for anybody's series: local energies, losses, samples.

`analyse` answers everything at once; each of its parts can be asked alone.
"""

from thalweg._lazy import lazy

_NAMES = {
    "_analysis": ["Analysis", "analyse", "mean"],
    "_autocorrelation": ["autocorrelation", "autocorrelation_time"],
    "_blocking": ["Blocking", "blocking"],
    "_bootstrap": ["bootstrap"],
    "_chains": ["effective_sample_size", "r_hat"],
    "_permutation": ["permutation_test"],
    "_tails": ["Tails", "heavy_tails"],
}
__getattr__, __dir__, __all__ = lazy("thalweg.stats", _NAMES)
