"""What does it settle into, and at what energy? Boltzmann machines whose likelihood can be believed."""

from thalweg._lazy import lazy

_NAMES = {
    "boltzmann._base": ["NormalBase", "UniformBase"],
    "boltzmann._categorical": ["CategoricalRBM"],
    "boltzmann._gaussian": ["GaussianRBM"],
    "boltzmann._likelihood": ["gradient", "log_likelihood", "log_partition", "pseudo_log_likelihood"],
    "boltzmann._rbm": ["RBM"],
    "boltzmann._estimators": ["BernoulliRBM", "GaussianBernoulliRBM"],
    "boltzmann._fit": ["Fit", "fit"],
    "boltzmann._sampling": ["sampler", "transition_matrix"],
    "boltzmann._test_samples": ["SampleTest", "test_samples"],
    "boltzmann._training": ["Training", "training"],
}
__getattr__, __dir__, __all__ = lazy("thalweg.energy", _NAMES)
