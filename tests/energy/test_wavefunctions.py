"""Wavefunctions: closed forms equal automatic differentiation; exchange, cusps, determinants; a user's own."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from thalweg.energy.ground_states._forward_laplacian import forward_laplacian
from thalweg.energy.ground_states._slater import invert

E = tw.energy
TRAPS = {
    "two in the plane": E.HarmonicTrap(2, 2, 1.0),
    "open shells, stiff one way": E.HarmonicTrap((3, 2), 2, [0.5, 0.8]),
    "on a line": E.HarmonicTrap(3, 1, 0.3),
    "bosons in space": E.HarmonicTrap(3, 3, 0.7, statistics="bosons"),
    "backflow in space": E.HarmonicTrap((2, 1), 3, 0.8),
    "chosen orbitals": E.HarmonicTrap((2, 2), 2, 1.0, orbitals=[(0, 0), (2, 1)]),
}


def everything(trap):
    """A product of every kind of factor, away from where it starts."""
    factors = [
        E.GaussianState.of(trap),
        E.RBMState.start(trap, 2, sigma=0.7),
        E.Symmetrised(E.RBMState.start(trap, 2), trap.spins),
        E.PadeJastrow.of(trap),
    ]
    if trap.statistics == "fermions":
        shifted = trap.spins in ((3, 2), (2, 1))
        factors.append((E.BackflowDeterminants if shifted else E.SlaterDeterminants).of(trap))
    psi = E.Product(*factors)
    noise = jax.random.normal(jax.random.key(1), psi.parameters.shape)
    return psi.with_parameters(psi.parameters + 0.2 * noise)


@pytest.mark.parametrize("name", TRAPS)
def test_closed_forms_equal_automatic_differentiation(name):
    trap = TRAPS[name]
    psi = everything(trap)
    x = 1.3 * jax.random.normal(jax.random.key(2), (4, trap.coordinates))

    @eqx.filter_jit  # all in one: eager derivatives would compile operation by operation
    def both(psi, x):
        def of_one(x):
            by_parameters = jax.grad(lambda p: psi.with_parameters(p).log_at(x))(psi.parameters)
            return jax.grad(psi.log_at)(x), jnp.trace(jax.hessian(psi.log_at)(x)), by_parameters

        return jax.vmap(of_one)(x), psi.local_at(x.T), psi.log_psi(x), psi.derivatives(x)

    (gradient, laplacian, by_parameters), local, log, derivatives = both(psi, x)
    near = {"rtol": 1e-10, "atol": 1e-10}
    np.testing.assert_allclose(local.log, log, **near)
    np.testing.assert_allclose(local.gradient.T, gradient, **near)
    np.testing.assert_allclose(local.laplacian, laplacian, **near)
    np.testing.assert_allclose(derivatives, by_parameters, **near)


def test_coordinates_may_be_flat_or_by_particle():
    trap = TRAPS["two in the plane"]
    psi, x = E.GaussianState.of(trap), np.arange(8.0).reshape(2, 4)
    assert np.array_equal(psi.log_psi(x), psi.log_psi(x.reshape(2, 2, 2)))
    assert psi.gradient(x).shape == (2, 4) and psi.laplacian(x).shape == (2,)


def test_exchange_of_like_particles_changes_nothing():
    for trap in (E.HarmonicTrap((2, 1), 2, 1.0), E.HarmonicTrap(3, 1, 1.0, statistics="bosons")):
        psi = everything_symmetric(trap)
        x = jax.random.normal(jax.random.key(0), (5, trap.particles, trap.dimension))
        swapped = x[:, jnp.array([1, 0, 2])]
        both = eqx.filter_jit(lambda psi, x: psi.local_at(x))
        one, other = (both(psi, places.reshape(5, -1).T) for places in (x, swapped))
        np.testing.assert_allclose(one.log, other.log, rtol=1e-12)
        np.testing.assert_allclose(one.laplacian, other.laplacian, rtol=1e-10)


def everything_symmetric(trap):
    factors = [E.Symmetrised(E.RBMState.start(trap, 2), trap.spins), E.PadeJastrow.of(trap)]
    if trap.statistics == "fermions":
        factors.append(E.SlaterDeterminants.of(trap))
    psi = E.Product(*factors)
    return psi.with_parameters(psi.parameters + 0.2 * jax.random.normal(jax.random.key(1), psi.parameters.shape))


@pytest.mark.parametrize(
    "trap",
    [
        E.HarmonicTrap((1, 1), 2, 1.0),
        E.HarmonicTrap((2, 0), 2, 1.0),
        E.HarmonicTrap(2, 3, 0.5),
        E.HarmonicTrap(2, 1, 1.0),
    ],
    ids=["opposite spins", "like spins", "in space", "on a line"],
)
def test_the_cusp_cancels_the_interaction(trap):
    """r E_L -> 0 as two particles meet; without the cusp it tends to 1."""
    smooth = [E.GaussianState.of(trap)]
    smooth += [E.SlaterDeterminants.of(trap)] if max(trap.spins) > 1 else []
    jastrow = E.PadeJastrow.of(trap)
    psi = E.Product(*smooth, jastrow.with_parameters(jastrow.parameters + 0.1))
    r = 1e-5
    x = np.zeros((2, trap.dimension))
    x[1] = r / np.sqrt(trap.dimension)
    x += 0.4
    energy = eqx.filter_jit(E.local_energy)
    assert abs(r * float(energy(psi, trap, x).total)) < 1e-3
    assert abs(r * float(energy(E.Product(*smooth), trap, x).total)) > 0.3


def test_free_fermions_fill_their_orbitals_exactly():
    """The local energy of the determinants is the sum of the orbitals' energies everywhere."""
    wanted = {((2, 1), 2): 4.0, ((3, 0), 2): 5.0, (6, 2): 10.0, (12, 2): 28.0, (8, 3): 18.0}
    for (particles, dimension), energy in wanted.items():
        trap = E.HarmonicTrap(particles, dimension, 1.0, interaction=False)
        assert trap.free_energy == pytest.approx(energy)
        psi = E.Product(E.GaussianState.of(trap), E.SlaterDeterminants.of(trap))
        x = jax.random.normal(jax.random.key(3), (3, trap.coordinates))
        np.testing.assert_allclose(eqx.filter_jit(E.local_energy)(psi, trap, x).total, energy, rtol=1e-9)
    excited = E.HarmonicTrap((1, 0), 2, [1.0, 2.0], interaction=False, orbitals=[(3, 1)])
    psi = E.Product(E.GaussianState.of(excited), E.SlaterDeterminants.of(excited))
    total = eqx.filter_jit(E.local_energy)(psi, excited, jnp.array([0.3, 0.7])).total
    assert float(total) == pytest.approx(3.5 + 3.0) and excited.free_energy == pytest.approx(6.5)


def test_inverses_of_many_matrices():
    a = jax.random.normal(jax.random.key(0), (5, 5, 7))
    inverse, log = jax.jit(invert)(a)
    for k in range(7):
        np.testing.assert_allclose(inverse[:, :, k], np.linalg.inv(a[:, :, k]), rtol=1e-8, atol=1e-10)
        assert float(log[k]) == pytest.approx(np.linalg.slogdet(a[:, :, k])[1])
    zero_first = jnp.array([[0.0, 1.0], [1.0, 0.0]])[..., None]  # needs a pivot
    assert np.array_equal(invert(zero_first)[0][..., 0], [[0, 1], [1, 0]])
    assert float(invert(jnp.ones((2, 2, 1)))[1][0]) == -np.inf  # singular, and not NaN


FUNCTIONS = {
    "products": lambda x: jnp.sum(x**3) * jnp.prod(x),
    "a network": lambda x: jnp.sum(jnp.tanh(jnp.sin(jnp.outer(x, x)) @ x)),
    "a scan": lambda x: jax.lax.scan(lambda c, a: (jnp.sin(c + a), None), 0.3, x)[0],
    "complex": lambda x: jnp.sum(x**2) * (1 + 1j) + jnp.exp(1j * x[0]),
    "a determinant": lambda x: jnp.linalg.slogdet(jnp.outer(x, x) + jnp.diag(jnp.cos(x)))[1],
    "branches": lambda x: jnp.sum(jnp.where(x > 0, x**2, jnp.sin(x))) + jax.nn.logsumexp(x) * jax.nn.softplus(x[0]),
    "no dependence": lambda x: jnp.array(2.0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_forward_laplacian_of_any_function(name):
    f, x = FUNCTIONS[name], jnp.array([0.3, -0.7, 1.1])
    parts = [(lambda x: jnp.real(f(x))), (lambda x: jnp.imag(f(x)) if jnp.iscomplexobj(f(x)) else 0.0 * x[0])]

    @jax.jit
    def both(x):
        others = [(jax.grad(part)(x), jnp.trace(jax.hessian(part)(x))) for part in parts]
        return forward_laplacian(f, x), f(x), others

    (value, gradient, laplacian), wanted, ((real, real_trace), (imaginary, imaginary_trace)) = both(x)
    assert complex(value) == pytest.approx(complex(wanted))
    np.testing.assert_allclose(gradient, real + 1j * imaginary, rtol=1e-10, atol=1e-12)
    assert complex(laplacian) == pytest.approx(complex(real_trace + 1j * imaginary_trace), rel=1e-10, abs=1e-10)


def test_a_wavefunction_of_a_users_own():
    """Of one sample or of a batch, with a Flax-like apply, with the derivatives of the closed form."""
    trap = TRAPS["two in the plane"]
    psi = E.RBMState.start(trap, 2, key=3)
    x = jax.random.normal(jax.random.key(0), (6, 4))
    one = E.Ansatz(lambda p, x: psi.with_parameters(p).log_at(x), psi.parameters, 2, 2)
    batch = E.Ansatz(lambda p, x: psi.with_parameters(p).log_psi(jnp.atleast_2d(x)), psi.parameters, 2, 2)
    everything = eqx.filter_jit(lambda p, x: (p.log_psi(x), p.gradient(x), p.laplacian(x), p.derivatives(x)))
    wanted = everything(psi, x)
    for own in (one, batch):
        for found, known in zip(everything(own, x), wanted, strict=True):
            np.testing.assert_allclose(found, known, rtol=1e-9, atol=1e-12)


def test_samples_made_elsewhere_are_judged():
    trap = E.HarmonicTrap(2, 2, 1.0)
    x = np.random.default_rng(0).normal(size=(4, 500, 4)) / np.sqrt(2)
    gaussian = E.GaussianState.of(trap)
    own = E.evaluate(gaussian, trap, x)
    theirs = E.evaluate(lambda params, x: -params["a"] * jnp.sum(x**2, axis=-1) / 2, trap, x, {"a": 1.0})
    np.testing.assert_allclose(own.energies, theirs.energies, rtol=1e-10)
    assert own.energies.shape == (4, 500) and own.energy.status.name == theirs.energy.status.name == "NO_CUSP"
    assert "add a cusp" in own.message
    phase = E.evaluate(lambda x: -jnp.sum(x**2) / 2 + 0.3j * x[0], trap, x)
    np.testing.assert_allclose(phase.energies, own.energies + 0.3**2 / 2, rtol=1e-10)


def test_stochastic_reconfiguration_is_the_same_from_both_sides():
    key = jax.random.key(0)
    for p, n in ((7, 50), (60, 50)):
        o, e = jax.random.normal(key, (p, n)), jax.random.normal(jax.random.key(1), (n,))
        c = o - o.mean(1, keepdims=True)
        s, f = c @ c.T / n, c @ (e - e.mean()) / n
        k = o @ o.T / (2 * n)
        wanted = jnp.linalg.solve(s + 1e-3 * jnp.diag(jnp.diag(s)) + 1e-4 * jnp.eye(p), f)
        found = E.stochastic_reconfiguration(o, e, relative_shift=1e-3, shift=1e-4)
        np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-8 * float(jnp.abs(wanted).max()))
        wanted = jnp.linalg.solve(s + 0.7 * k + 1e-4 * jnp.eye(p), f)
        found = E.stochastic_reconfiguration(o, e, slopes=o, rate=0.7, relative_shift=0.0, shift=1e-4)
        np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-8 * float(jnp.abs(wanted).max()))
