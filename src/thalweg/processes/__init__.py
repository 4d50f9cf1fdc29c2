"""Ways to make a `Process`: each takes what a user has (a loss, a field, a table, a kernel)."""

from thalweg.processes._descent import Learner, gradient_descent, sgd
from thalweg.processes._finite import finite
from thalweg.processes._gibbs import gibbs
from thalweg.processes._kernel import kernel
from thalweg.processes._langevin import PhasePoint, langevin, underdamped_langevin
from thalweg.processes._metropolis import metropolis
from thalweg.processes._ode import ode
from thalweg.processes._tempering import swap_rates, tempering, tempering_betas

__all__ = [
    "Learner",
    "PhasePoint",
    "finite",
    "gibbs",
    "gradient_descent",
    "kernel",
    "langevin",
    "metropolis",
    "ode",
    "sgd",
    "swap_rates",
    "tempering",
    "tempering_betas",
    "underdamped_langevin",
]
