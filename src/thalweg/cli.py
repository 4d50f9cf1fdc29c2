"""The command `thalweg`. Nothing heavy is imported here: help and lists answer at once."""

import difflib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter

import thalweg

Size = Literal["quick", "full"]
Debug = Annotated[bool, Parameter(name="--debug", negative="", help="Show the whole traceback of an error.")]

_HELP = """Learners as stochastic update maps: perturb one thing, hold another still, see what is carried.

Start with `thalweg report`: it runs every study and writes one page to read. An error is one sentence;
THALWEG_DEBUG=1 in the environment shows its traceback.
"""

app = cyclopts.App(
    name="thalweg",
    help=_HELP,
    version=thalweg.__version__,
    help_format="markdown",
    exit_on_error=False,
    print_error=False,
)
flow = cyclopts.App(name="flow", help="Where does probability go?")
app.command(flow)
energy = cyclopts.App(name="energy", help="What does it settle into, and at what energy?")
app.command(energy)


@app.command(name="list")
def list_() -> None:
    """List studies and systems, one line each."""
    from thalweg.studies._discover import list_studies, list_systems
    from thalweg.studies._study import ROOMS

    studies, systems = list_studies(), list_systems()
    width = max([len(name) for name, _ in systems] + [len(study.name) for study in studies] + [8])
    for room, question in ROOMS.items():
        of_room = [study for study in studies if study.room == room]
        if of_room:
            print(f"studies of {room}: {question}")
            for study in of_room:
                print(f"  {study.name:<{width}}  {study.title} ({study.seconds:g} s)")
    if systems:
        print("systems")
        for name, title in systems:
            print(f"  {name:<{width}}  {title}")
    if not studies and not systems:
        print("no studies and no systems yet")


@app.command
def run(
    study: str,
    /,
    *,
    size: Size = "quick",
    set_: Annotated[Sequence[str], Parameter(name="--set", negative="", consume_multiple=True)] = (),
    out: Path = Path("results"),
) -> None:
    """Run one study and write its claims, figures and data.

    Parameters
    ----------
    study
        Its name (see `thalweg list`), or the path of a study file of your own.
    size
        quick takes seconds; full takes as long as it needs.
    set_
        A setting of the study, as name=value; may be given several times.
    out
        The folder that gets the study's folder.
    """
    from thalweg.studies._run import run_study

    settings = {}
    for item in set_:
        name, equals, value = item.partition("=")
        if not (name and equals):
            raise ValueError(f"--set wants name=value, got {item!r}")
        settings[name.replace("-", "_")] = value
    from thalweg.report import print_claims, waiting

    with waiting(f"running {study}"):
        folder = run_study(study, size, settings, out)

    print_claims(folder)


@app.command
def report(
    *,
    size: Size = "quick",
    out: Path = Path("report"),
    workers: int | None = None,
    resume: bool = False,
    progress: bool = True,
) -> int:
    """Run every study and write one page to read: OUT/index.html.

    Parameters
    ----------
    size
        quick takes minutes; full takes as long as it needs.
    out
        The folder for the page and for each study's claims, figures and data.
    workers
        How many studies run side by side; by default one a core, at most four.
    resume
        Go on with a report that was stopped: studies that OUT holds, finished, are not run again, unless their code has
        changed since.
    progress
        Show a bar, or a line a minute where there is no terminal.
    """
    from thalweg.report import make_report

    if workers is not None and workers < 1:
        raise ValueError(f"--workers must be a whole number >= 1, got {workers}")
    page, failed = make_report(
        size, out, workers=workers or min(4, os.cpu_count() or 1), resume=resume, progress=progress
    )
    print(f"the report is {page}")
    for name, sentence in failed.items():
        _complain(f"study {name} did not finish: {sentence}")
    return 1 if failed else 0


@app.command
def show(file: Path, /) -> None:
    """Say what a saved result is and how it was made.

    Parameters
    ----------
    file
        A netCDF file that thalweg saved.
    """
    from thalweg._saving import show as described

    print(described(file))


@app.command
def stats(file: str, /, *, column: str | None = None, dataset: str | None = None, plot: Path | None = None) -> None:
    """Mean, error bar, autocorrelation time and heavy tails of a series of your own.

    Parameters
    ----------
    file
        Numbers in a text, csv, npy, npz or HDF5 file: local energies, losses, samples. Several chains stand in rows.
    column
        Which column, by name or by number from 0, if the file has several.
    dataset
        Which array, if an npz or HDF5 file has several.
    plot
        Also draw the blocking curve into this PNG file.
    """
    from thalweg._files import read_series
    from thalweg.stats import analyse

    number = int(column) if column is not None and column.isdecimal() else column
    result = analyse(read_series(file, number, dataset))
    print(result.summary())
    if plot is not None:
        from thalweg.plot import blocking_curve, save_figure

        print(f"the blocking curve is {save_figure(blocking_curve(result.to_xarray()), plot)}")


@flow.command
def escape(
    system: str,
    /,
    *,
    learning_rate: float | None = None,
    start: float | None = None,
    target: str | None = None,
    steps: int = 100,
) -> None:
    """A learner's escape probability and first-passage time.

    Parameters
    ----------
    system
        A system by name (see `thalweg list`), or module:function of your own that returns a Process.
    learning_rate
        Handed to the system, if it takes one.
    start
        Where the learner starts; the system's own start if it has one.
    target
        Where it has escaped: a number (beyond it, seen from the start), ">= 1.2", "<= -1" or "1.2..1.5"; the
        system's own target if it has one.
    steps
        Within how many steps.
    """
    from thalweg.flow._command import escape_report

    print(escape_report(system, learning_rate=learning_rate, start=start, target=target, steps=steps))


@energy.command(name="ground-state")
def ground_state(
    *,
    particles: str = "2",
    dimension: int = 2,
    omega: Annotated[Sequence[float], Parameter(negative="", consume_multiple=True)] = (1.0,),
    interaction: bool = True,
    statistics: Literal["fermions", "bosons"] = "fermions",
    hidden: int = 2,
    jastrow: bool | None = None,
    sigma: str = "trained",
    tol: float | None = None,
    seed: int = 0,
    table: Literal["text", "csv", "latex"] = "text",
    out: Path | None = None,
    progress: bool = True,
    checkpoint: Path | None = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """The ground-state energy of particles in a harmonic trap (quantum dots), with an error bar that can be trusted.

    Parameters
    ----------
    particles
        How many, such as 6, or spin up and spin down, such as 2,1.
    dimension
        1, 2 or 3.
    omega
        The frequency of the trap in atomic units, or one for each direction.
    interaction
        Whether they repel as 1/r.
    statistics
        Electrons (fermions) or bosons.
    hidden
        Hidden units of the Boltzmann machine in the wavefunction; 0 for a Gaussian.
    jastrow
        Whether there is a Jastrow factor with the exact cusp; by default wherever more than two particles interact.
    sigma
        The width of the machine, or trained.
    tol
        The error of the energy that is wanted, in hartree.
    seed
        The seed of all randomness.
    table
        How the table is printed.
    out
        A folder for the result (netCDF), the table as CSV and LaTeX, and the figures.
    progress
        Whether a line shows how the run is doing; where there is no screen, one line a minute.
    checkpoint
        A folder that the run leaves its checkpoints in: every minute, on Ctrl-C and on SIGTERM.
    resume
        Go on from the newest checkpoint there, to the numbers that the run would have ended with undisturbed.
    """
    from thalweg.energy.ground_states._command import ground_state_report

    print(
        ground_state_report(
            particles,
            dimension=dimension,
            omega=omega,
            interaction=interaction,
            statistics=statistics,
            hidden=hidden,
            jastrow=jastrow,
            sigma=sigma,
            tol=tol,
            seed=seed,
            table=table,
            out=out,
            progress=progress,
            checkpoint=checkpoint,
            resume=resume,
        )
    )


@energy.command
def train(
    data: str,
    /,
    *,
    hidden: int = 64,
    kind: Literal["auto", "binary", "real"] = "auto",
    epochs: int | None = None,
    learning_rate: float | None = None,
    validation: float = 0.2,
    threshold: float | None = None,
    dataset: str | None = None,
    seed: int = 0,
    out: Path = Path("boltzmann"),
) -> None:
    """Train a Boltzmann machine on data of your own, and tell its likelihood.

    Parameters
    ----------
    data
        An .npy, .npz, .csv, HDF5 or IDX file with a row (or a picture) a datum.
    hidden
        How many hidden units.
    kind
        binary or real; auto takes zeros and ones, bytes and grey values in [0, 1] as binary.
    epochs
        Passes over the data, at most: training stops when the held-out likelihood has ceased to rise.
    learning_rate
        Where the rate starts; it falls to 0.
    validation
        The share of the rows that is held out, to stop in time and to tell the likelihood.
    threshold
        Where grey values become 1; half of their range by default.
    dataset
        Which array, if the file has several.
    seed
        Of the split, the start and the noise.
    out
        The folder that gets model.npz, samples.png and filters.png.
    """
    from thalweg.energy.boltzmann._command import train_report
    from thalweg.plot import pictures, save_figure

    found = train_report(
        data,
        hidden=hidden,
        kind=kind,
        epochs=epochs,
        learning_rate=learning_rate,
        validation=validation,
        threshold=threshold,
        dataset=dataset,
        seed=seed,
        out=out,
    )
    print(found.text)
    for name, shown in found.pictures.items():
        print(f"its {name} are {save_figure(pictures(shown), out / f'{name}.png')}")


@energy.command
def score(
    model: str,
    data: str,
    /,
    *,
    train: str | None = None,
    threshold: float | None = None,
    dataset: str | None = None,
    chains: int = 200,
    steps: int = 1000,
    seed: int = 0,
) -> None:
    """How good a Boltzmann machine is on data, trained here or elsewhere: its likelihood, with an error bar.

    Parameters
    ----------
    model
        A machine that thalweg saved, an HDF5 file of rbms, or an .npz file with weights and biases, such as
        scikit-learn's components_, intercept_visible_ and intercept_hidden_.
    data
        An .npy, .npz, .csv, HDF5 or IDX file with a row (or a picture) a datum; best one that no training has seen.
    train
        The data it was trained on, whose means the independent units then have; otherwise those of the data themselves.
    threshold
        Where grey values become 1; half of their range by default.
    dataset
        Which array, if the file has several.
    chains
        Chains of annealed importance sampling, where the machine is too large for an exact answer.
    steps
        Its temperatures.
    seed
        Of its noise.
    """
    from thalweg.energy.boltzmann._command import score_report

    print(
        score_report(
            model, data, train=train, threshold=threshold, dataset=dataset, chains=chains, steps=steps, seed=seed
        )
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and leave with its exit status: 0, 1 (a failure) or 2 (bad input)."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("MPLBACKEND", "Agg")  # figures go into files, also where there is a screen
    debug = "--debug" in tokens or os.environ.get("THALWEG_DEBUG", "0") not in ("", "0")
    sys.exit(_status([token for token in tokens if token != "--debug"], debug))


def _status(tokens: list[str], debug: bool) -> int:
    """Run the command; every error is one sentence on stderr unless the traceback was asked for."""
    try:
        status = app(tokens, result_action="return_value")
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except cyclopts.CycloptsError as problem:
        if debug:
            raise
        return _complain(_argument_sentence(problem, tokens), status=2)
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _complain("interrupted", status=130)
    except (ValueError, TypeError, OSError) as problem:
        if debug:
            raise
        return _complain(str(problem) or type(problem).__name__, status=2)
    except Exception as problem:
        if debug:
            raise
        return _complain(f"{type(problem).__name__}: {problem} (--debug shows where)", status=1)


def _complain(sentence: str, status: int = 0) -> int:
    print(f"thalweg: {' '.join(sentence.split())}", file=sys.stderr)
    return status


def _argument_sentence(problem: Exception, tokens: Sequence[str]) -> str:
    """What is wrong with the arguments, with the nearest name that exists."""
    if isinstance(problem, cyclopts.UnknownCommandError):
        place, known = _commands_at(tokens)
        return f"there is no command {place!r}; {_nearest(place, known)}"
    sentence = " ".join(str(problem).split())
    return sentence if sentence.endswith("?") else f"{sentence.rstrip('.')}; see thalweg --help"


def _commands_at(tokens: Sequence[str]) -> tuple[str, list[str]]:
    """The first token that is no command, and the commands that could stand there."""
    here: Any = app
    for token in tokens:
        known = [name for name in here if not name.startswith("-")]
        if token not in known:
            return token, known
        here = here[token]
    return tokens[-1], []


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known)}"
