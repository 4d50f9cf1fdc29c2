"""The table of known and published energies."""

from thalweg.energy import HarmonicTrap, known_energies, two_electrons


def test_what_is_known_is_found_under_its_trap_only():
    assert known_energies(HarmonicTrap(2))[0].value == 3.0
    assert known_energies(HarmonicTrap((2, 0)))[0].value == two_electrons(1.0, 2, angular_momentum=1).energy.value
    assert (
        known_energies(HarmonicTrap((0, 2), 3, 0.7))[0].value == two_electrons(0.7, 3, angular_momentum=1).energy.value
    )
    assert known_energies(HarmonicTrap(2, statistics="bosons"))[0].value == 3.0
    assert [row.method for row in known_energies(HarmonicTrap(6))] == ["DMC", "VMC", "RBM and Jastrow", "RBM"]
    assert known_energies(HarmonicTrap(6, interaction=False))[0].value == 10.0
    assert known_energies(HarmonicTrap((2, 3), 1, 0.5, interaction=False))[0].value == 0.5 * (
        0.5 + 1.5 + 0.5 + 1.5 + 2.5
    )
    for other in (
        HarmonicTrap(6, omega=0.9),
        HarmonicTrap(6, omega=[1.0, 1.1]),
        HarmonicTrap(6, 3),
        HarmonicTrap(6, statistics="bosons"),
        HarmonicTrap((4, 2)),
        HarmonicTrap(6, interaction=lambda r: 1 / r),
        HarmonicTrap(6, orbitals=[(0, 0), (1, 0), (2, 0)]),
    ):
        assert known_energies(other) == []


def test_published_energies_are_printed_as_published():
    printed = [str(row) for row in known_energies(HarmonicTrap(12))]
    assert printed == ["65.7001(1)", "65.7905(7)", "65.7911", "67.614"]
    assert str(known_energies(HarmonicTrap(2))[0]) == "3"
    assert [str(row) for row in known_energies(HarmonicTrap(8, 3))] == ["32.6680(1)"]


def test_no_published_energy_of_a_pair_undercuts_the_exact_one_unless_the_table_says_so():
    exact, *published = known_energies(HarmonicTrap(2))
    assert len(published) == 3
    for row in published:
        assert ((exact.value - row.value) / row.error > 60) == ("below" in row.note)
