"""Laws of noise, by their public names: `tw.noise.Choice(2)`, `tw.noise.Normal(3)`, ..."""

from thalweg._noise import Choice, Key, Law, Normal, Nothing, Shuffle, Together, Uniform, as_law

__all__ = ["Choice", "Key", "Law", "Normal", "Nothing", "Shuffle", "Together", "Uniform", "as_law"]
