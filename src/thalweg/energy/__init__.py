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
    "ground_states._ansatz": ["Ansatz"],
    "ground_states._backflow": ["BackflowDeterminants"],
    "ground_states._densities": ["radial_densities"],
    "ground_states._evaluate": ["evaluate"],
    "ground_states._forward_laplacian": ["forward_laplacian"],
    "ground_states._ground_state": ["GroundState", "ground_state"],
    "ground_states._jastrow": ["PadeJastrow"],
    "ground_states._judge": ["Measurement"],
    "ground_states._known": ["Known", "known_energies"],
    "ground_states._local_energy": ["LocalEnergy", "local_energy"],
    "ground_states._measure": ["measure"],
    "ground_states._monte_carlo": ["MonteCarlo", "variational_monte_carlo"],
    "ground_states._noise_free": ["ClosedForm", "closed_form_energy", "noise_free_ground_state"],
    "ground_states._rbm_state": ["RBMState", "Symmetrised"],
    "ground_states._reconfiguration": ["stochastic_reconfiguration"],
    "ground_states._sampling": ["Walkers", "wavefunction_sampler"],
    "ground_states._slater": ["SlaterDeterminants"],
    "ground_states._trap": ["HarmonicTrap"],
    "ground_states._two_electrons": ["TwoElectrons", "two_electrons"],
    "ground_states._wavefunction": ["GaussianState", "Product", "Wavefunction"],
}
__getattr__, __dir__, __all__ = lazy("thalweg.energy", _NAMES)
