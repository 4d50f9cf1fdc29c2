"""Bad input ends in one sentence: which argument, what it got, what is wanted, and the fix."""

import re
import sys
import traceback
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

import thalweg as tw
from bad_input_table import Asked, Bad, table
from thalweg import noise, processes, systems
from thalweg.cli import main

pytestmark = pytest.mark.usefixtures("as_installed")

HOME = str(Path(tw.__file__).parent)
LONGEST = 400  # characters of a sentence, paths included
FEWEST = 200  # bad inputs that one run of the property-based test throws


@pytest.fixture(scope="module")
def asked() -> dict[str, Asked]:
    from jaxtyping import config

    config.update("jaxtyping_disable", True)
    everything = table()
    config.update("jaxtyping_disable", False)
    return everything


def refusal(asked: Asked, argument: str, value) -> str:
    """What a function says to one bad value. Whatever is not a plain sentence of thalweg's own fails the test."""
    value, word = value if isinstance(value, Bad) else (value, argument)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            answer = asked.function(**{**asked.good, argument: value})
    except (ValueError, TypeError, FileNotFoundError) as refused:
        sentence = str(refused)
        last = traceback.extract_tb(refused.__traceback__)[-1]
        where = f"{type(refused).__name__} from {last.filename}:{last.lineno}: {sentence}"
        assert last.filename.startswith(HOME), f"not thalweg's own words: {where}"
        chained = refused.__cause__ or (None if refused.__suppress_context__ else refused.__context__)
        assert chained is None, f"the user reads {type(chained).__name__} first, then: {where}"
        assert "\n" not in sentence and len(sentence) <= LONGEST, f"not one line: {where}"
        assert word in sentence, f"{word!r} is not named: {where}"
        return sentence
    except Exception as other:
        raise AssertionError(f"{type(other).__name__} instead of a refusal: {other}") from other
    raise AssertionError(f"accepted, with the answer {answer!r:.300}")


def test_every_bad_value_of_the_table_is_refused_in_a_sentence(asked):
    wrong, thrown = [], 0
    for name, one in asked.items():
        for argument, values in one.bad.items():
            for value in values:
                thrown += 1
                try:
                    refusal(one, argument, value)
                except AssertionError as failure:
                    wrong.append(f"{name}({argument}={value!r:.60}): {failure}")
    assert thrown > FEWEST
    assert not wrong, "\n".join([f"{len(wrong)} of {thrown}:", *wrong[:20]])


def test_the_good_arguments_of_the_table_are_accepted(asked, tmp_path, monkeypatch):
    """Otherwise a refusal might be about something else than the spoilt argument."""
    monkeypatch.chdir(tmp_path)
    tw.save(tw.Estimate(1.0, 0.1), "unused.nc")
    for name, one in asked.items():
        if name in ("too many outcomes", "vjp of no step"):  # nothing but the bad value
            continue
        try:
            one.function(**one.good)
        except Exception as failure:
            raise AssertionError(f"{name} refuses its good arguments: {failure}") from failure


@pytest.mark.parametrize("examples", [FEWEST + 100, pytest.param(10_000, marks=pytest.mark.slow)])
def test_any_malformed_input_is_refused_in_a_sentence(asked, examples):
    """Random garbage for random arguments, wherever the table says what kind of thing is wanted."""
    numbers = [
        (name, argument)
        for name, one in asked.items()
        for argument, values in one.bad.items()
        if any(isinstance(value, float) and np.isnan(value) for value in values)
        and not any(isinstance(value, Bad) for value in values)
    ]
    text = st.text(max_size=30).filter(lambda s: not s.strip().lstrip("+-").isdigit())
    garbage = st.one_of(
        text,
        st.sampled_from([float("nan"), float("inf"), -float("inf"), np.float32("nan")]),
        st.dictionaries(text, text, min_size=1, max_size=2),
        st.lists(st.just(float("nan")), min_size=1, max_size=4),
        st.complex_numbers(min_magnitude=1, max_magnitude=10).filter(lambda z: z.imag != 0),
        st.binary(max_size=8),
        st.sets(st.integers(), min_size=1, max_size=3),
        st.builds(object),
    )
    thrown = []

    @settings(max_examples=examples, deadline=None, derandomize=True, phases=[Phase.generate])
    @given(st.sampled_from(numbers), garbage)
    def throw(where, value):
        name, argument = where
        # Where nothing is carried as a tangent, a complex number is a state like any other.
        assume(not (isinstance(value, complex) and name in ("simulate", "ensemble") and argument.startswith("state")))
        thrown.append(value)
        refusal(asked[name], argument, Bad(value, argument))

    throw()
    assert len(thrown) >= FEWEST


# What is said, word for word: each names the fix, or what is wanted.

WALK = tw.Process(lambda x, w: x + 2 * w - 1, noise.Choice(2))
RUNS = lambda: tw.ensemble(WALK, jnp.zeros(3), 4, key=0)  # noqa: E731
RUN = lambda: tw.simulate(WALK, 0.0, 4, key=0)  # noqa: E731
NAMED = tw.Process(lambda s, w: s - 0.5 * tw.node(s, "cooling"))

SENTENCES = {
    "no key": (
        lambda: tw.simulate(WALK, 0.0, 4),
        "key must be a random key or a seed, got None: pass key=jax.random.key(0)",
    ),
    "a fraction of a step": (lambda: tw.simulate(WALK, 0.0, 1.5, key=0), "steps must be a whole number >= 0, got 1.5"),
    "not a process": (
        lambda: tw.simulate(lambda x, w: x, 0.0, 4),
        "process must be a tw.Process, got function: make one as tw.Process(step, noise)",
    ),
    "no number in the state": (
        lambda: tw.simulate(WALK, "left", 4, key=0),
        "state must be a pytree of numbers and arrays, got 'left'",
    ),
    "NaN in the state": (
        lambda: tw.simulate(NAMED, {"x": np.nan}, 4),
        "state['x'] must be finite, got NaN or infinity in it",
    ),
    "step forgets the state": (
        lambda: tw.simulate(tw.Process(lambda x, w: None), 0.0, 4),
        "step must give back a state of the same structure: it got f64[] and gave None; "
        "make the first state with process.init",
    ),
    "step changes the shape": (
        lambda: tw.simulate(tw.Process(lambda x, w: jnp.ones(2)), 0.0, 4),
        "step must keep the shapes of the state: state went from () to (2,)",
    ),
    "step gives text": (
        lambda: tw.simulate(tw.Process(lambda x, w: "left"), 0.0, 4),
        "step must give numbers and arrays, got 'left'",
    ),
    "step without noise": (
        lambda: tw.Process(lambda x: x),
        "step must be a function of (state, w), got one of (x)",
    ),
    "record gives text": (
        lambda: tw.simulate(WALK, 0.0, 4, key=0, record=lambda s, w, n: "here"),
        "record must give numbers and arrays, got 'here'",
    ),
    "record of the state only": (
        lambda: tw.simulate(WALK, 0.0, 4, key=0, record=lambda s: s),
        "record must be a function of (state, w, next_state), got one of (s)",
    ),
    "fold without its carry": (
        lambda: tw.Fold(init=lambda s: 0, update=lambda s, w, n: n),
        "update must be a function of (carry, state, w, next_state), got one of (s, w, n)",
    ),
    "until of many": (
        lambda: tw.simulate(NAMED, np.ones(2), 4, until=lambda s: s > 1),
        "until must give a single number, got bool[2]",
    ),
    "a key a member in one run": (
        lambda: tw.simulate(WALK, 0.0, 4, key=jax.random.split(jax.random.key(0), 3)),
        "key must be one key, got 3: for a key a member, call tw.ensemble",
    ),
    "members that do not match": (
        lambda: tw.ensemble(WALK, {"a": np.zeros(2), "b": np.zeros(3)}, 4, key=0),
        "every array of states must lead with the same number of members (at least 1), got 2, 3",
    ),
    "a selector of no leaf": (
        lambda: tw.ensemble(WALK, 0.0, 4, key=0, over=lambda p: p.speed),
        r"over must select leaves of the process, got <function ",
    ),
    "fork after the end": (
        lambda: tw.fork(RUN(), 5),
        "at must be a step of the run, a whole number from 0 to 4, got 5",
    ),
    "fork a member of nothing": (
        lambda: tw.fork(RUN(), 2, members=[0]),
        "members can be chosen in a run of tw.ensemble only; this is a single run",
    ),
    "fork a member too many": (
        lambda: tw.fork(RUNS(), 2, members=[0, 3]),
        "members must be numbers from 0 to 2 or a mask of 3 truth values, at least one, got [0, 3]",
    ),
    "options that are none": (
        lambda: tw.simulate(WALK, 0.0, 4, key=0, options={"chunk": 2}),
        "options must be tw.Options(...), got {'chunk': 2}",
    ),
    "clamp of no node": (
        lambda: tw.simulate(tw.clamp(NAMED, "heating"), 1.0, 4),
        "where of a clamp: no node of the step is called 'heating'; its nodes: 'cooling'",
    ),
    "clamp with a window of numbers": (
        lambda: tw.clamp(NAMED, "cooling", window=[0, 1]),
        "window must be a function of (state, w) or a boolean array over steps, got int64 of shape (2,)",
    ),
    "clamp that computes": (
        lambda: tw.simulate(tw.clamp(NAMED, lambda s: 2 * s), 1.0, 4),
        "where of a clamp must pick leaves, entries or slices, and not compute with them",
    ),
    "response to whole numbers": (
        lambda: tw.response(tw.Process(lambda s, w: s), {"x": 1.0, "n": 1}, 4, wrt=lambda s: s["n"]),
        "wrt must pick floating numbers: int64 carries no tangent",
    ),
    "response of a jump": (
        lambda: tw.response(processes.finite([1, 0]), 0, 4),
        "this process jumps (accept/reject or binary units), so that its tangent misses what a change does: "
        "compare finite forks (tw.fork), or use the covariance identity",
    ),
    "direction of NaN": (
        lambda: tw.response(NAMED, 1.0, 4).jvp(np.nan),
        "v must be finite, got NaN or infinity in it",
    ),
    "loss of a vector": (
        lambda: _learn(lambda p, x: p * jnp.ones(2), np.ones(3)),
        "loss must give a single number, got f64[2]",
    ),
    "data of unequal lengths": (
        lambda: _learn(lambda p, x: p, {"x": np.ones(3), "y": np.ones(2)}),
        "every array of data must lead with the same number of data, got shapes [(2,), (3,)]",
    ),
    "negative learning rate": (
        lambda: systems.pit(-0.1),
        "learning_rate must be a number >= 0, got -0.1",
    ),
    "negative temperature": (
        lambda: processes.langevin(lambda x: x**2, -0.1, 0.01),
        "temperature must be a number >= 0, got -0.1; for descent without noise pass 0",
    ),
    "potential of a vector": (
        lambda: tw.simulate(processes.langevin(lambda x: x, 1.0, 0.1, shape=2), np.ones(2), 4, key=0),
        "potential must give a single number, got f64[2]",
    ),
    "probabilities of 1.1": (
        lambda: noise.Choice(2, p=[0.5, 0.6]),
        "p must be probabilities (>= 0, sum 1), got sum 1.1, least 0.5",
    ),
    "exact mean of a shuffle": (
        lambda: noise.Shuffle(4).expectation(lambda w: w),
        "Shuffle cannot be integrated step by step, since its draws depend on one another: "
        "use Choice(n, shape=(batch,), replace=False), or ask by Monte Carlo",
    ),
    "sweep over one number": (
        lambda: tw.sweep(lambda rate: rate, rate=0.1),
        "rate must be a list of values to try, got 0.1",
    ),
}


def _learn(loss, data):
    process = processes.sgd(loss, data, 0.1)
    return tw.simulate(process, process.init(1.0), 2, key=0)


@pytest.mark.parametrize("case", SENTENCES)
def test_the_sentence_names_what_is_wanted(case):
    ask, sentence = SENTENCES[case]
    with pytest.raises((ValueError, TypeError), match="^" + re.escape(sentence)):
        ask()


def test_an_error_below_rounding_is_printed_without_invented_digits():
    assert str(tw.Estimate(3.0, 4e-18)) == "3 ± 4e-18" and tw.Estimate(3.0, 4e-18).short() == "3"
    assert str(tw.Estimate(0.0, 4e-18)) != "0" and tw.Estimate(20.1773, 0.0015).short() == "20.1773(15)"


def test_an_estimate_that_cannot_be_trusted_says_so_where_asked():
    trusted, doubted = tw.Estimate(1.0, 0.1), tw.Estimate(1.0, 0.1, tw.Status.TOO_SHORT, {"factor": 4})
    assert trusted.checked() is trusted
    with pytest.raises(RuntimeError) as raised:
        doubted.checked()
    assert str(raised.value) == "series shorter than 50 autocorrelation times: run 4x longer"


# An error inside a user's own function is the user's: it comes out as it is, of its own type, in its own words.


class OutOfFuel(Exception):
    pass


def _fails(*arguments):
    raise OutOfFuel("the tank is empty")


@pytest.mark.parametrize(
    "ask",
    [
        lambda: tw.simulate(tw.Process(_fails), 1.0, 3),
        lambda: tw.ensemble(tw.Process(_fails), jnp.ones(2), 3),
        lambda: tw.simulate(NAMED, 1.0, 3, record=_fails),
        lambda: tw.simulate(NAMED, 1.0, 3, until=_fails),
        lambda: tw.simulate(NAMED, 1.0, 3, on_chunk=_fails),
        lambda: tw.simulate(NAMED, 1.0, 3, options=tw.Options(checkpoint=_fails)),
        lambda: tw.simulate(NAMED, 1.0, 3, folds={"f": tw.Fold(_fails, lambda c, s, w, n: c)}),
        lambda: tw.simulate(NAMED, 1.0, 3, folds={"f": tw.Fold(lambda s: 0, _fails)}),
        lambda: tw.simulate(NAMED, 1.0, 3, folds={"f": tw.Fold(lambda s: 0, lambda c, s, w, n: c, _fails)}),
        lambda: tw.response(NAMED, 1.0, 3, read=_fails),
        lambda: tw.response(NAMED, 1.0, 3, wrt=_fails),
        lambda: tw.simulate(tw.clamp(NAMED, "cooling", window=_fails), 1.0, 3),
        lambda: tw.simulate(tw.clamp(NAMED, _fails), 1.0, 3),
        lambda: tw.fork(tw.simulate(NAMED, 1.0, 3), 1, state=_fails),
        lambda: tw.sweep(lambda a: _fails(), a=[1]),
        lambda: noise.Choice(2).expectation(_fails),
        lambda: _learn(_fails, np.ones(3)),
        lambda: tw.simulate(processes.langevin(_fails, 1.0, 0.1), 1.0, 3, key=0),
        lambda: tw.simulate(processes.ode(_fails, 0.1), 1.0, 3),
        lambda: tw.simulate(processes.kernel(_fails), 1.0, 3, key=0),
        lambda: tw.stats.bootstrap(np.arange(20.0), _fails, key=0),
    ],
)
def test_an_error_of_the_users_own_comes_out_as_it_is(ask):
    with pytest.raises(OutOfFuel) as raised:
        ask()
    assert str(raised.value) == "the tank is empty"


def test_a_type_error_of_the_users_own_is_not_taken_for_a_wrong_call():
    with pytest.raises(TypeError) as raised:
        tw.simulate(tw.Process(_type_error), 1.0, 3)
    assert str(raised.value) == "the user wrote this"


def _type_error(state, w):
    raise TypeError("the user wrote this")


# A run that leaves the finite numbers comes back with a status.


def test_a_run_that_blows_up_says_so():
    run = tw.simulate(tw.Process(lambda x, w: x**2), 2.0, 30)
    assert not run.ok
    assert run.message.startswith("the state is not finite (NaN or infinity) after step 9;")


# The command.


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["flow"],
        ["flow", "nonsense"],
        ["flow", "escape"],
        ["flow", "escape", "no_such_system"],
        ["flow", "escape", "pit", "--steps", "many"],
        ["flow", "escape", "pit", "--learning-rate", "-1"],
        ["flow", "escape", "os:getcwd"],
        ["flow", "escape", "no.such.module:process"],
        ["run"],
        ["run", "no_such_study"],
        ["run", "no_such_study", "--size", "huge"],
        ["run", "toy", "--set", "novalue"],
        ["report", "--size", "huge"],
        ["show"],
        ["show", "nowhere.nc"],
        ["show", "."],
        ["show", __file__],
        ["stats"],
        ["stats", "nowhere.csv"],
        ["stats", "."],
        ["stats", __file__],
        ["stats", ""],
        ["stats", "a", "b"],
        ["list", "everything"],
        ["--nonsense"],
    ],
    ids=" ".join,
)
def test_the_command_answers_bad_input_in_one_line(arguments, capsys, tmp_path, monkeypatch):
    if arguments[:2] == ["flow", "escape"] and not (Path(HOME) / "flow").exists():
        pytest.skip("the flow room is not here yet")
    monkeypatch.chdir(tmp_path)
    modules = set(sys.modules)
    with pytest.raises(SystemExit) as left:
        main(arguments)
    printed = capsys.readouterr()
    if arguments == ["flow"]:  # a group by itself shows its help
        assert "escape" in printed.out
        return
    assert left.value.code == 2, printed
    assert printed.out == ""
    line = printed.err.removesuffix("\n")
    assert line.startswith("thalweg: ") and "\n" not in line and len(line) <= LONGEST + len(str(tmp_path)), line
    assert "Traceback" not in line and "Error:" not in line, line
    assert modules <= set(sys.modules)
