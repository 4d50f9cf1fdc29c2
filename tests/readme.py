"""The examples of the README, for the tests and for the wheel's trial."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    """The code blocks of this language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def python_example() -> str:
    """All Python of the README as one program, as a reader would type it."""
    return "\n".join(blocks("python"))


def commands() -> list[str]:
    """The lines of its shell examples that call thalweg."""
    return [line for block in blocks("shell") for line in block.splitlines() if line.startswith("thalweg ")]


def files() -> dict[str, str]:
    """The Python blocks that open with the name of a file, such as `# mine.py`."""
    named = ((re.match(r"# (\w+\.py)\n", block), block) for block in blocks("python"))
    return {match[1]: block for match, block in named if match}
