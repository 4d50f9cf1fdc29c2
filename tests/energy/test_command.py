"""`thalweg energy train` and `score`: users' files, users' machines, and what is said of bad ones."""

import numpy as np
import pytest

import thalweg as tw
from energy import machines
from thalweg.energy.boltzmann._command import score_report, train_report
from thalweg.energy.boltzmann._rows import read_rows

RNG = np.random.default_rng(0)
PROTOTYPES = RNG.random((3, 12)) < 0.5
BITS = (PROTOTYPES[RNG.integers(0, 3, 300)] ^ (RNG.random((300, 12)) < 0.1)).astype(float)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _number(text, line):
    return float(next(row for row in text.splitlines() if row.strip().startswith(line)).split(line)[1].split()[0])


def test_train_then_score(here):
    np.save("train.npy", BITS[:240])
    np.savetxt("test.csv", BITS[240:], delimiter=",")
    found = train_report("train.npy", hidden=4, epochs=40, out=here / "out")
    assert "better than independent units" in found.text and "(exact" in found.text
    assert set(found.pictures) == {"samples", "filters"}
    told = score_report("out/model.npz", "test.csv", train="train.npy")
    model = tw.energy.RBM.load("out/model.npz")
    wanted = float(tw.energy.log_likelihood(model, BITS[240:], "exact"))
    assert _number(told, "log-likelihood") == pytest.approx(wanted, abs=1e-4)
    share = (BITS[:240].sum(axis=0) + 0.5) / 241
    baseline = np.mean(np.sum(np.where(BITS[240:] == 1, np.log(share), np.log(1 - share)), axis=1))
    assert _number(told, "independent units") == pytest.approx(baseline, abs=1e-4)
    assert _number(told, "pseudo-likelihood") == pytest.approx(
        tw.energy.pseudo_log_likelihood(model, BITS[240:]), abs=1e-4
    )


def test_real_columns_in_their_own_units(here):
    x = tw.systems.gaussian_mixture().draw(300, 0) * [1000.0, 0.01] + [5e4, -3.0]
    np.save("x.npy", x)
    found = train_report("x.npy", hidden=2, epochs=60, out=here / "out")
    assert isinstance(found.model, tw.energy.GaussianRBM) and "better than independent units" in found.text
    told = score_report("out/model.npz", "x.npy")
    wanted = float(tw.energy.log_likelihood(found.model, x, "exact"))
    assert _number(told, "log-likelihood") == pytest.approx(wanted, abs=1e-4)
    independent = np.mean(np.sum(-((x - x.mean(0)) ** 2) / (2 * x.var(0)) - np.log(2 * np.pi * x.var(0)) / 2, axis=1))
    assert _number(told, "independent units") == pytest.approx(independent, abs=1e-4)


def test_machines_of_others(here):
    model = machines.worked_binary()
    W, a, b = (np.asarray(x) for x in (model.weights, model.visible_bias, model.hidden_bias))
    np.savez("sklearn.npz", components_=W.T, intercept_visible_=a, intercept_hidden_=b)
    np.savez("other.npz", W=W, vbias=a, hbias=b)
    np.save("x.npy", [[1, 0, 1, 1]])
    for name in ("sklearn.npz", "other.npz"):
        assert _number(score_report(name, "x.npy"), "log-likelihood") == pytest.approx(-2.8213, abs=1e-4)
    (here / "it.pkl").write_bytes(b"\x80\x04whatever")
    with pytest.raises(ValueError, match="is a pickle, which can run any code"):
        score_report("it.pkl", "x.npy")
    np.savez("strange.npz", x=W)
    with pytest.raises(ValueError, match="not a machine that thalweg saved"):
        score_report("strange.npz", "x.npy")


def test_kinds_of_files(here):
    pictures = RNG.integers(0, 256, (5, 4, 6), dtype=np.uint8)
    np.save("bytes.npy", pictures)
    rows = read_rows("bytes.npy")
    assert rows.binary and rows.picture == (4, 6)
    np.testing.assert_array_equal(rows.values, pictures.reshape(5, -1) >= 128)
    header = b"\0\0\x08\x03" + b"".join(int(n).to_bytes(4, "big") for n in pictures.shape)
    (here / "p-images-idx3-ubyte").write_bytes(header + pictures.tobytes())
    np.testing.assert_array_equal(read_rows("p-images-idx3-ubyte").values, rows.values)
    np.savez("two.npz", grey=RNG.random((4, 3)), other=np.ones(3))
    assert read_rows("two.npz", "grey").note == "values of at least 0.5 are taken as 1"
    assert not read_rows("two.npz", "grey", kind="real").binary


@pytest.mark.parametrize(
    "array, settings, sentence",
    [
        (np.full((9, 3), np.nan), {}, "has NaN or infinity in row 0"),
        (BITS[:3], {}, "too few to hold out"),
        (BITS, {"validation": 1.5}, "validation must be the share"),
        (BITS, {"hidden": 0}, "hidden must be a whole number >= 1"),
        (5 * BITS - 2, {"kind": "binary"}, "say where they become 1"),
        (BITS, {"threshold": 7.0}, "threshold must lie within the values"),
        (np.c_[RNG.normal(size=(40, 2)), np.ones(40)], {}, "column 2 of x.npy is constant"),
        (np.float64(3), {}, "wanted"),
    ],
)
def test_bad_data_end_in_a_sentence(here, array, settings, sentence):
    np.save("x.npy", array)
    with pytest.raises(ValueError, match=sentence):
        train_report("x.npy", **settings)


def test_columns_must_agree(here):
    np.save("x.npy", BITS[:, :5])
    machines.worked_binary().save("m.npz")
    with pytest.raises(ValueError, match=r"data must have shape \(n, 4\)"):
        score_report("m.npz", "x.npy")
    with pytest.raises(ValueError, match=r"there is no file nowhere\.npz"):
        score_report("nowhere.npz", "x.npy")
