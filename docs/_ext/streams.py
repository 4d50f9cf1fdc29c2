"""What an example prints stands on the page as it was printed.

MyST-NB ends a line after every piece of a stream, and the output of a command comes in pieces of any length.
"""

from typing import Any

from myst_nb.core import render


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    render.coalesce_streams = joined
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def joined(outputs: list[Any]) -> list[Any]:
    """The outputs of a cell with the pieces of each stream, stdout and stderr, put together again."""
    kept: list[Any] = []
    streams: dict[str, Any] = {}
    for output in outputs:
        is_stream = output["output_type"] == "stream"
        if is_stream and output["name"] in streams:
            streams[output["name"]]["text"] += output["text"]
            continue
        if is_stream:
            streams[output["name"]] = output
        kept.append(output)
    return [output for output in kept if output["output_type"] != "stream" or output["text"].strip()]
