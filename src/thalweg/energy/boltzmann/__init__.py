"""Restricted Boltzmann machines: models, likelihood, sampling, learning."""
