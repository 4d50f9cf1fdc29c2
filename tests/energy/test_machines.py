"""Energies, conditionals and derivatives, each against its definition; machines in and out of files."""

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import dblquad

import thalweg as tw
from energy import machines
from thalweg.energy.boltzmann._files import load_any

KINDS = machines.every_kind()
kinds = pytest.mark.parametrize("machine", KINDS.values(), ids=KINDS.keys())
EPS = 2e-13


def _all_hidden(machine):
    return machine.hidden_states(jnp.arange(machine.hidden_count))


@kinds
def test_the_free_energy_sums_over_the_hidden_units(machine):
    v, h = machines.some_states(machine), _all_hidden(machine)
    energies = jax.vmap(lambda v: jax.vmap(lambda h: machine.energy(v, h))(h))(jnp.asarray(v))
    np.testing.assert_allclose(machine.log_unnormalized(v), jax.nn.logsumexp(-energies, axis=1), rtol=EPS)
    np.testing.assert_allclose(machine.free_energy(v), -machine.log_unnormalized(v), rtol=0)
    given = jax.nn.softmax(-energies, axis=1)
    np.testing.assert_allclose(machine.hidden_mean(v), given @ h, rtol=EPS, atol=EPS)


@kinds
def test_hidden_states_weigh_what_the_sum_over_visible_states_says(machine):
    h = _all_hidden(machine)
    if isinstance(machine, tw.energy.GaussianRBM):
        one = h[3]
        area = dblquad(lambda y, x: float(np.exp(-_energy(machine, x, y, one))), -9, 9, -9, 9, epsabs=1e-9)[0]
        assert float(machine.log_unnormalized_hidden(one)) == pytest.approx(np.log(area), abs=1e-8)
        return
    v = machine.visible_states(jnp.arange(machine.visible_count))
    energies = jax.vmap(lambda h: jax.vmap(lambda v: machine.energy(v, h))(v))(h)
    np.testing.assert_allclose(machine.log_unnormalized_hidden(h), jax.nn.logsumexp(-energies, axis=1), rtol=EPS)
    given = jax.nn.softmax(-energies, axis=1)
    values = machine.one_hot(v).reshape(len(v), -1) if isinstance(machine, tw.energy.CategoricalRBM) else v
    np.testing.assert_allclose(machine.visible_mean(h).reshape(len(h), -1), given @ values, rtol=EPS, atol=EPS)


def _energy(machine, x, y, h):
    v, variance = np.array([x, y]), np.asarray(machine.variance)
    a, b, w = (np.asarray(part) for part in (machine.visible_bias, machine.hidden_bias, machine.weights))
    return np.sum((v - a) ** 2 / (2 * variance)) - b @ np.asarray(h) - (v / variance) @ w @ np.asarray(h)


@kinds
def test_derivatives_are_those_of_automatic_differentiation(machine):
    v, h = jnp.asarray(machines.some_states(machine)), _all_hidden(machine)[:3]
    weights = jnp.linspace(0.1, 0.7, len(v))
    wanted = jax.grad(lambda m: jnp.sum(weights * m.log_unnormalized(v)))(machine)
    _equal(machine.derivatives(v, weights), wanted)
    _equal(machine.derivatives(v), jax.grad(lambda m: jnp.mean(m.log_unnormalized(v)))(machine))
    _equal(machine.derivatives(v[0]), jax.grad(lambda m: m.log_unnormalized(v[0]))(machine))
    # The derivative of log p~(h) is the mean over p(v | h) of that of -E.
    weights = weights[:3]
    wanted = jax.grad(lambda m: jnp.sum(weights * m.log_unnormalized_hidden(h)))(machine)
    got = machine.derivatives_given_hidden(h, weights)
    if isinstance(machine, tw.energy.GaussianRBM):  # there log p~(h) holds the normalisation of x | h
        assert jax.tree.structure(got) == jax.tree.structure(wanted)
    _equal(got, wanted)


def _equal(got, wanted):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


@kinds
def test_draws_follow_the_conditionals(machine):
    n = 20_000
    v, h = machines.some_states(machine, 1)[0], _all_hidden(machine)[1]
    uniform = jax.random.uniform(jax.random.key(0), (n, machine.hidden))
    drawn = machine.draw_hidden(jnp.broadcast_to(jnp.asarray(v), (n, machine.visible)), uniform)
    _mean_is(drawn, machine.hidden_mean(jnp.asarray(v)))
    noise = machine.visible_noise((n,)).sample(jax.random.key(1), 0)
    drawn = machine.draw_visible(jnp.broadcast_to(h, (n, machine.hidden)), noise)
    if isinstance(machine, tw.energy.CategoricalRBM):
        drawn = machine.one_hot(drawn)
    _mean_is(drawn, machine.visible_mean(h))
    if isinstance(machine, tw.energy.GaussianRBM):
        np.testing.assert_allclose(jnp.var(drawn, axis=0), machine.variance, rtol=5 * np.sqrt(2 / n))


def _mean_is(drawn, wanted):
    error = jnp.std(drawn, axis=0) / np.sqrt(len(drawn)) + 1e-9
    assert float(jnp.max(jnp.abs(jnp.mean(drawn, axis=0) - wanted) / error)) < 4.5


@kinds
def test_interpolation_mixes_the_energies(machine):
    base, t = machine.independent(machines.some_states(machine)), 0.3
    mixed = base.interpolate(machine, t)
    v, h = jnp.asarray(machines.some_states(machine)), _all_hidden(machine)[:7]
    v = v[: len(h)]
    wanted = (1 - t) * base.energy(v, h[: len(v)]) + t * machine.energy(v, h[: len(v)])
    gap = mixed.energy(v, h[: len(v)]) - wanted
    np.testing.assert_allclose(gap, gap[0], atol=1e-11)
    for end, same in ((0.0, base), (1.0, machine)):
        np.testing.assert_allclose(base.interpolate(machine, end).energy(v, h), same.energy(v, h), atol=1e-12)


@kinds
def test_a_machine_is_saved_and_loaded(machine, tmp_path):
    path = machine.save(tmp_path / "model")
    for again in (type(machine).load(path), load_any(path)):
        assert jax.tree.structure(again) == jax.tree.structure(machine)
        assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(machine), strict=True))


def test_spins_are_bits_with_other_parameters():
    spins = machines.random_binary(units=(-1, 1))
    w, a, b = (np.asarray(part) for part in (spins.weights, spins.visible_bias, spins.hidden_bias))
    bits = tw.energy.RBM(4 * w, 2 * (a - w.sum(axis=1)), 2 * (b - w.sum(axis=0)))
    constant = w.sum() - a.sum() - b.sum()
    v = np.asarray(bits.visible_states(np.arange(8)))
    np.testing.assert_allclose(spins.log_unnormalized(2 * v - 1), bits.log_unnormalized(v) + constant, rtol=1e-12)


def test_from_sklearn_has_the_free_energy_of_scikit_learn():
    from sklearn.neural_network import BernoulliRBM

    data = (np.random.default_rng(0).random((50, 6)) < 0.4).astype(float)
    theirs = BernoulliRBM(3, n_iter=5, random_state=0).fit(data)
    ours = tw.energy.RBM.from_sklearn(theirs)
    np.testing.assert_allclose(ours.free_energy(data), theirs._free_energy(data), rtol=1e-12)
    np.testing.assert_allclose(ours.hidden_mean(data), theirs.transform(data), rtol=1e-12)


def _rbms_file(path, kind, machine, updates=(1, 10, 100)):
    """A file as rbms 0.5.0 writes it (its io.save_model)."""
    with h5py.File(path, "w") as file:
        for update in updates:
            group = file.create_group(f"update_{update}").create_group("params")
            for name, value in zip(
                ("weight_matrix", "vbias", "hbias"),
                (machine.weights, machine.visible_bias, machine.hidden_bias),
                strict=True,
            ):
                group[name] = np.asarray(value, dtype=np.float32) * update
            file[f"update_{update}"]["time"] = 1.0
        file["parallel_chains"] = np.zeros((5, machine.visible))
        file["model_type"] = kind
    return path


def test_from_rbms_reads_any_saved_update(tmp_path):
    binary, potts = machines.worked_binary(), machines.categorical()
    path = _rbms_file(tmp_path / "rbm.h5", "BBRBM", binary)
    for update in (1, 10, 100, None):
        again = tw.energy.RBM.from_rbms(path, update)
        np.testing.assert_allclose(again.weights, np.asarray(binary.weights) * (update or 100), rtol=1e-6)
    np.testing.assert_allclose(load_any(path).hidden_bias, 100 * np.asarray(binary.hidden_bias), rtol=1e-6)
    classes = _rbms_file(tmp_path / "potts.h5", "PBRBM", potts)
    np.testing.assert_allclose(tw.energy.CategoricalRBM.from_rbms(classes, 1).weights, potts.weights, rtol=1e-6)
    assert isinstance(load_any(classes), tw.energy.CategoricalRBM)
    with pytest.raises(ValueError, match=r"update must be one that .* holds \(1, 10, 100\), got 7"):
        tw.energy.RBM.from_rbms(path, 7)
    with pytest.raises(ValueError, match=r"type PBRBM, wanted BBRBM: read it with tw\.energy\.CategoricalRBM"):
        tw.energy.RBM.from_rbms(classes)


def test_foreign_files_that_are_not_what_they_say(tmp_path):
    (tmp_path / "text.h5").write_text("no machine")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["numbers"] = np.arange(3)
    with h5py.File(tmp_path / "cut.h5", "w") as file:
        file.create_group("update_1").create_group("params")["vbias"] = np.zeros(3)
        file["model_type"] = "BBRBM"
    np.savez(tmp_path / "arrays.npz", weights=np.zeros((2, 2)))
    saved = machines.worked_binary().save(tmp_path / "binary")
    whole = saved.read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    rbm, gaussian = tw.energy.RBM, tw.energy.GaussianRBM
    for read, name, message in (
        (rbm.from_rbms, "none.h5", "there is no file"),
        (rbm.from_rbms, "text.h5", "is not a whole HDF5 file"),
        (rbm.from_rbms, "other.h5", "holds no group update_N"),
        (rbm.from_rbms, "cut.h5", "lacks weight_matrix, hbias"),
        (rbm.load, "arrays.npz", "is not a machine that thalweg saved"),
        (rbm.load, "half.npz", "is not a machine that thalweg saved"),
        (rbm.load, "none.npz", "there is no file"),
        (gaussian.load, "binary.npz", r"holds a RBM, not a GaussianRBM: read it with tw\.energy\.RBM\.load"),
        (load_any, "other.h5", "of a kind that is not known"),
        (load_any, "text.h5", "is not a machine that thalweg saved"),
    ):
        with pytest.raises(ValueError, match=message):
            read(tmp_path / name)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda e: e.RBM(np.zeros(3), np.zeros(3), np.zeros(2)), r"weights must have shape \(visible, hidden\), got"),
        (lambda e: e.RBM(np.zeros((3, 2)), np.zeros(2), np.zeros(2)), r"visible_bias must have shape \(3,\)"),
        (lambda e: e.RBM(np.zeros((3, 2)), np.zeros(3), np.zeros(3)), r"hidden_bias must have shape \(2,\)"),
        (lambda e: e.RBM(np.full((3, 2), np.nan), np.zeros(3), np.zeros(2)), "weights must be finite, got NaN"),
        (lambda e: e.RBM(np.zeros((3, 2)), np.zeros(3), np.zeros(2), (0, 2)), r"units must be \(0, 1\) or \(-1, 1\)"),
        (lambda e: e.GaussianRBM(np.zeros((3, 2)), np.zeros(3), np.zeros(2), np.zeros(2)), r"log_variance must have"),
        (lambda e: e.CategoricalRBM(np.zeros((3, 2)), np.zeros(3), np.zeros(2)), r"\(visible, classes, hidden\)"),
        (lambda e: e.RBM.from_sklearn(object()), "fitted BernoulliRBM .* lacks components_"),
        (lambda e: machines.worked_binary().check_data(np.zeros((2, 3))), r"data must have shape \(n, 4\)"),
        (lambda e: machines.worked_binary().check_data(np.full((2, 4), np.nan)), "got NaN or infinity in row 0"),
        (lambda e: machines.worked_binary().check_data(np.full((2, 4), 7.0)), r"must lie in \[0, 1\].*got 7 in row 0"),
        (lambda e: machines.categorical().check_data([[0, 1, 3]]), "whole numbers from 0 to 2, got 3"),
    ],
)
def test_bad_input(make, message, as_installed):
    with pytest.raises(ValueError, match=message):
        make(tw.energy)
    with pytest.raises(TypeError, match="weights must be an array of numbers"):
        tw.energy.RBM("abc", np.zeros(3), np.zeros(2))
