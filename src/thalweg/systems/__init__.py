"""Named systems: processes with their equations and exact facts."""

import importlib
from typing import Any

_NAMES = {
    "_cart_pole": ["cart_pole"],
    "_digits": ["Digits", "digits"],
    "_learners": ["coin", "linear_noise", "pit", "pit_losses", "pit_points"],
    "_lorenz": ["lorenz", "lorenz96"],
    "_perceptron": ["Perceptron", "perceptron", "softmax_classifier"],
    "_thermostats": ["ThermostatTable", "feedback_loop", "saturating_thermostat", "thermostat", "thermostat_table"],
    "_two_wells": ["two_wells", "two_wells_losses"],
    "_wells": ["double_well"],
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"thalweg.systems has no system {name!r}; it has: {', '.join(__all__)}")
    return getattr(importlib.import_module(f"thalweg.systems.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
