"""Cold start: importing thalweg beside importing JAX, and the time to the command's first answer.

Every turn is a new process. Nothing here imports JAX, so that it starts cold each time. Python keeps its bytecode, as
it does of any installed package, also where the environment forbids it: thalweg alone would be compiled each time.
"""

import os
import subprocess
import sys

from _timing import alternate, show, target

IMPORTS = {
    "import jax": "import jax",
    "import thalweg": "import thalweg",
    "import thalweg; thalweg.Process": "import thalweg; thalweg.Process",
}
COMMANDS = {
    "thalweg --help": ["--help"],
    "thalweg flow escape pit": ["flow", "escape", "pit"],
}


def python(*arguments: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)


def main() -> None:
    times = alternate({name: lambda code=code: python("-c", code) for name, code in IMPORTS.items()}, turns=7)
    show("Cold start: imports, each in a process of its own", times)
    for name in list(IMPORTS)[1:]:
        target(f"{name} / import jax", times.ratio(name, "import jax"), most=1.5)

    answering = {}
    for name, arguments in COMMANDS.items():
        answer = python("-m", "thalweg", *arguments)
        if answer.returncode == 0:
            answering[name] = lambda arguments=arguments: python("-m", "thalweg", *arguments)
        else:
            print(f"  ({name} does not answer yet and is skipped: {answer.stderr.strip()})")
    show("Cold start: first answer of the command", alternate(answering, turns=3))


if __name__ == "__main__":
    main()
