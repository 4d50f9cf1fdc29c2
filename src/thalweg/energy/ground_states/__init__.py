"""Ground states of trapped particles: Hamiltonians, wavefunctions, variational Monte Carlo."""
