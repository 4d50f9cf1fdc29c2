"""Where does probability go? Densities, escapes, first passages and stationary laws of a process."""

from thalweg._lazy import lazy

_NAMES = {
    "_discrete": ["StatesOperator"],
    "_fokker_planck": ["FokkerPlanck", "fokker_planck"],
    "_gradient_noise": ["GradientNoise", "gradient_noise"],
    "_mean_square": ["mean_square_stability"],
    "_modified": ["ModifiedEquation", "modified_equation"],
    "_monte_carlo": ["MonteCarlo", "monte_carlo"],
    "_quasi_potential": ["QuasiPotential", "quasi_potential"],
    "_space": ["Grid", "States"],
    "_splitting": ["splitting"],
    "_stability": ["largest_stable_learning_rate"],
    "_symmetrise": ["SchroedingerOperator", "symmetrise"],
    "_transfer_operator": ["TransferOperator", "transfer_operator"],
}
__getattr__, __dir__, __all__ = lazy("thalweg.flow", _NAMES)
