"""The reference: `{api} thalweg.flow` with a name a line writes what their docstrings say, members included."""

import functools
import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

from docstrings import to_myst
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

MODULES = ["", "noise", "processes", "stats", "flow", "steering", "knowledge", "knowledge.torch", "energy", "systems",
           "plot", "loggers", "testing", "studies", "report"]  # fmt: skip


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("api", Api)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def public_names(module: str) -> list[str]:
    """The public names of a module of thalweg, without its submodules."""
    loaded = load(module)
    listed = getattr(loaded, "__all__", None)
    if listed is None:
        listed = [
            name
            for name, value in vars(loaded).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == loaded.__name__ and _is_code(value)
        ]
    return [name for name in listed if _is_code(getattr(loaded, name))]


def load(module: str) -> Any:
    """`thalweg.<module>`, or thalweg itself."""
    return importlib.import_module(f"thalweg.{module}" if module else "thalweg")


def said_as(module: str, name: str) -> str:
    """The name as a user writes it."""
    return f"thalweg.{module}.{name}" if module in ("knowledge.torch", "testing", "report") else (
        f"tw.{module}.{name}" if module else f"tw.{name}"
    )  # fmt: skip


@functools.cache
def homes() -> dict[str, list[str]]:
    """Where each public name is: `simulate` is `tw.simulate`."""
    found: dict[str, list[str]] = {}
    for module in MODULES:
        for name in public_names(module):
            found.setdefault(name, []).append(said_as(module, name))
    return found


class Api(SphinxDirective):
    """`{api} thalweg.flow`, then the names."""

    has_content = True
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module = self.arguments[0].removeprefix("thalweg").lstrip(".")
        node = nodes.container()
        text = "\n\n".join(entry(module, line.strip()) for line in self.content if line.strip())
        lines = text.splitlines()
        self.state.nested_parse(StringList(lines, source=self.get_source_info()[0]), self.content_offset, node)
        return node.children


def entry(module: str, name: str) -> str:
    """What stands of one public name, as MyST."""
    value = getattr(load(module), name)
    said = said_as(module, name)
    if inspect.isclass(value):
        inside = [_doc(value, said), *(_member(member, value, said) for member in _members(value))]
        return _directive("py:class", said + (_signature(value) if _is_made_by_users(value) else ""), inside, 8)
    return _directive("py:function", said + _signature(value), [_doc(value, said)], 8)


def _member(name: str, owner: type, said: str) -> str:
    static = inspect.getattr_static(owner, name)
    said = f"{said}.{name}"
    if isinstance(static, property | functools.cached_property):
        return _directive("py:property", said, [_doc(static, said)], 6)
    value = getattr(owner, name)
    kind = "py:classmethod" if inspect.ismethod(value) else "py:method"
    return _directive(kind, said + _signature(value, drop_self=True), [_doc(value, said)], 6)


def _members(owner: type) -> Iterator[str]:
    """The public methods and properties that thalweg wrote, in the order of their writing."""
    seen = set()
    for base in reversed(owner.__mro__):
        if not base.__module__.startswith("thalweg"):
            continue
        for name in vars(base):
            if name.startswith("_") or name in seen:
                continue
            static = inspect.getattr_static(owner, name)
            is_ours = isinstance(static, property | functools.cached_property | classmethod | staticmethod)
            if (is_ours or inspect.isroutine(getattr(owner, name, None))) and _text(static, getattr(owner, name, None)):
                seen.add(name)
                yield name


def _doc(value: Any, said: str) -> str:
    parameters = _parameters(value)

    def link(name: str) -> str | None:
        bare = re.sub(r"^tw\.(?:\w+\.)*", "", name.removesuffix("()"))
        places = [place for place in homes().get(bare, []) if name.startswith(("tw.", bare)) and place != said]
        if name.startswith("tw."):
            places = [place for place in places if place == name.removesuffix("()")]
        near = [place for place in places if place.rsplit(".", 1)[0] == said.rsplit(".", 1)[0]]
        return (near or places or [None])[0] if len(bare) > 1 else None

    return to_myst(_text(value, None) or "", [parameter.name for parameter in parameters], link)


def _text(value: Any, bound: Any) -> str | None:
    return inspect.getdoc(value) or (inspect.getdoc(bound) if bound is not None else None)


def _parameters(value: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(value).parameters.values())
    except (TypeError, ValueError):
        return []


def _signature(value: Any, drop_self: bool = False) -> str:
    """Names and defaults; shapes and units are said in the docstring."""
    kept = [
        parameter.replace(annotation=inspect.Parameter.empty, default=_short(parameter.default))
        for parameter in _parameters(value)
        if not (drop_self and parameter.name == "self")
    ]
    return str(inspect.Signature(kept))


class _Said:
    """A default that is shown as a word."""

    def __init__(self, word: str):
        self.word = word

    def __repr__(self) -> str:
        return self.word


def _short(default: Any) -> Any:
    if default is inspect.Parameter.empty or not ("<" in repr(default) or len(repr(default)) > 40):
        return default
    name = getattr(default, "__name__", "<lambda>")
    return _Said("..." if name == "<lambda>" else name)


def _is_made_by_users(owner: type) -> bool:
    """Results come from functions: how they are put together is nobody's business."""
    text = inspect.getdoc(owner) or ""
    return "**Arguments**" in text or re.search(rf"\b{owner.__name__}\(", text) is not None


def _is_code(value: Any) -> bool:
    return inspect.isclass(value) or (callable(value) and not inspect.ismodule(value))


def _directive(kind: str, signature: str, inside: list[str], fence: int) -> str:
    mark = ":" * fence
    return f"{mark}{{{kind}}} {signature}\n\n" + "\n\n".join(inside) + f"\n{mark}"
