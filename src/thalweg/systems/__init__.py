"""Named systems: processes with their equations and exact facts."""

from thalweg._lazy import lazy

_NAMES = {
    "_cart_pole": ["cart_pole"],
    "_curie_weiss": ["CurieWeiss", "curie_weiss"],
    "_digits": ["Digits", "digits"],
    "_learners": ["coin", "linear_noise", "pit", "pit_losses", "pit_points"],
    "_lorenz": ["lorenz", "lorenz96"],
    "_mixture": ["GaussianMixture", "gaussian_mixture"],
    "_patterns": ["Patterns", "bars_and_stripes", "shifter"],
    "_perceptron": ["Perceptron", "perceptron", "softmax_classifier"],
    "_planted": ["Planted", "planted"],
    "_thermostats": ["ThermostatTable", "feedback_loop", "saturating_thermostat", "thermostat", "thermostat_table"],
    "_two_wells": ["two_wells", "two_wells_losses"],
    "_wells": ["double_well"],
}
__getattr__, __dir__, __all__ = lazy("thalweg.systems", _NAMES)
