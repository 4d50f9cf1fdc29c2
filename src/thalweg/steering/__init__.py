"""What optimizes what: optimizing strength in bits, Comp and Op in nats, exponents with a part held still."""

from thalweg._lazy import lazy

_NAMES = {
    "_continuous": ["gaussian_strength", "square_strength"],
    "_entropy": ["entropy"],
    "_finite": ["BesideNull", "FiniteSystem"],
    "_loops": ["Budget", "bode_integral", "sensitivity"],
    "_lyapunov": ["lyapunov_exponents"],
    "_op": ["Op", "op"],
    "_sampled": ["SampledStrength", "sampled_strength"],
    "_volume": ["OpVolume", "op_volume"],
}
__getattr__, __dir__, __all__ = lazy("thalweg.steering", _NAMES)
