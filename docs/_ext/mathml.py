"""Formulas as MathML, which browsers draw themselves: no script, no font, no picture."""

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

LONG = 45  # letters of LaTeX; some 30 on the page
_BAR = '<mo stretchy="false">&#x0007C;</mo>'
_CLOSE_BAR = '<mo stretchy="false" lspace="0.08em" rspace="0.08em">&#x0007C;</mo>'


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.connect("config-inited", lambda app, config: setattr(config, "html_math_renderer", "mathml"))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def to_mathml(latex: str, display: str = "inline") -> str:
    """A formula in LaTeX as a `<math>` element."""
    # Bars of a norm or a condition stand close, as they do on paper.
    return convert(latex, display=display).replace(_BAR, _CLOSE_BAR)


def _inline(writer: Any, node: nodes.math) -> None:
    # Browsers do not break a formula: on a phone a long one scrolls by itself.
    kind = "math long" if len(node.astext()) > LONG else "math"
    writer.body.append(f'<span class="{kind}">{to_mathml(node.astext())}</span>')
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    # A long formula scrolls inside its own line; the page does not.
    lines = node.astext().split("\n\n")
    drawn = "".join(to_mathml(line, "block") for line in lines)
    writer.body.append(f'<div class="math" tabindex="0">{drawn}</div>\n')
    raise nodes.SkipNode
