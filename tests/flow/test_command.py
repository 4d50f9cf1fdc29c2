"""`thalweg flow escape`: named systems and a user's own file."""

import pytest

from thalweg.flow._command import escape_report


def test_a_named_system_is_told_in_words():
    text = escape_report("pit", learning_rate=0.02, members=500, cells=4096)
    assert "0.497" in text and "141." in text and "Monte Carlo" in text


def test_a_users_losses_escape(tmp_path, monkeypatch, own_module):
    (tmp_path / "mine.py").write_text(
        "def losses():\n"
        "    return (lambda w: (w**2 - 1)**2 + 2 * w, lambda w: (w**2 - 1)**2 - 2 * w)\n"
        "def three(a, b, c):\n    return None\n"
    )
    monkeypatch.chdir(tmp_path)
    text = escape_report("mine:losses", learning_rate=0.2, start=-1.0, target=0.5, members=100, cells=512)
    assert "mean steps until escape" in text
    with pytest.raises(ValueError, match="must take a learning rate or nothing"):
        escape_report("mine:three")
    with pytest.raises(ValueError, match="has no 'other'"):
        escape_report("mine:other")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("pti", {}), "did you mean 'pit'"),
        (("coin", {}), "pass --target"),
        (("nowhere:f", {}), "there is no module 'nowhere'"),
        (("coin", {"target": "high"}), "target must be a number"),
        (("coin", {"target": 0.0}), "target must differ from start"),
        (("pit", {"start": float("nan")}), "start must be a finite number"),
        (("pit", {"steps": -1}), "steps must be a whole number"),
    ],
)
def test_bad_arguments_end_in_a_sentence(arguments, sentence):
    system, options = arguments
    with pytest.raises(ValueError, match=sentence):
        escape_report(system, **options)
