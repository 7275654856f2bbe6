"""Sphinx builds the documentation with this: ``make docs``."""

from __future__ import annotations

import re
import typing
from html import escape
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.search.en import SearchEnglish

import a2wsgi
from a2wsgi import _statistics, _type_hints, _types

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "a2wsgi"
copyright = "the a2wsgi authors"  # noqa: A001 - Sphinx's name for it
release = installed_version("a2wsgi")
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"a2wsgi {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "source_repository": "https://github.com/abersheeran/a2wsgi/",
    "source_branch": "HEAD",
    "source_directory": "docs/",
    "footer_icons": [{"name": "GitHub", "url": "https://github.com/abersheeran/a2wsgi", "html": "Source", "class": ""}],
}

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# As in the docstrings: `WSGIMiddleware`.
default_role = "py:obj"
nitpicky = True
# Types in signatures that have no page: shapes that PEP 3333 and ASGI define, or the options that the classes list.
nitpick_ignore_regex = [
    ("py:class", r"(Any)?(WSGI|ASGI2?)App|Scope|Receive|Send|Environ|StartResponse|Startable|Middleware|To\w+Options"),
    ("py:class", r"(asyncio|collections\.abc)\.\w+|_P|(a2wsgi\..+\.)?_T|a2wsgi\..+\.Startable"),
]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# Signatures have the names of types, and not what these stand for.
autodoc_type_aliases = {"Middleware": "Middleware", "_P": "_P"}
for _name in {*vars(_types), *vars(_statistics)} - vars(typing).keys():
    if _name[0].isupper():
        _module = "a2wsgi" if _name in a2wsgi.__all__ else "builtins"
        setattr(_type_hints, _name, type(_name, (), {"__module__": _module}))
python_maximum_signature_line_length = 80

napoleon_custom_sections = ["Threading", "Cancellation", "Spec"]

copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True


class SearchNames(SearchEnglish):
    """English, in which ``spool_request`` is found by "spool" and by "request" as well."""

    def split(self, input: str) -> list[str]:  # noqa: A002 - Sphinx's name for it
        """All words, and the parts of those that have an underscore."""
        words = super().split(input)
        return words + [part for word in words if "_" in word for part in word.split("_")]


def keep_colons(_app: Sphinx, what: str, _name: str, _thing: object, _options: object, lines: list[str]) -> None:
    """Give an attribute back what stands before its first colon: napoleon took it for a type, and we annotate those."""
    types = [line for line in lines if line.startswith(":type: ")]
    if what in {"attribute", "property"} and types:
        lines.remove(types[0])
        lines[0] = f"{types[0].removeprefix(':type: ')}: {lines[0]}"


def shorten_types(
    _app: Sphinx, _what: str, _name: str, _thing: object, _options: object, *signature: str | None
) -> tuple[str | None, ...]:
    """Leave out the module of a type in a signature that autodoc does not evaluate."""
    return tuple(part and part.replace("hints.", "") for part in signature)


# -- The changelog ----------------------------------------------------------------------------------------------------

KINDS = ("security", "removed", "changed", "added", "fixed")


def write_changelog(_app: Sphinx, docname: str, source: list[str]) -> None:
    """Put what is not released yet on the page: the fragments that towncrier joins at a release."""
    if docname != "changelog":
        return
    fragments = sorted((Path(__file__).parent.parent / "changelog.d").glob("*.*.md"))
    for kind in KINDS:
        texts = [path.read_text("utf-8").strip() for path in fragments if path.name.split(".")[1] == kind]
        if texts:
            source[0] += f"\n### {kind.capitalize()}\n\n"
            source[0] += "".join("- " + text.replace("\n", "\n  ") + "\n" for text in texts)


# -- The table of what works on which server --------------------------------------------------------------------------

MARKS = {"✓": "yes", "partly": "partly", "varies": "partly", "✗": "no"}


def color_marks(_app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Give each cell its colour, and make the number of a note a link to it, with its text to hover over."""
    if docname != "compatibility":
        return
    for section in doctree.findall(nodes.section):
        notes = next((child for child in section.children if isinstance(child, nodes.enumerated_list)), None)
        if notes is None:
            continue
        texts: list[str] = []
        for number, note in enumerate(notes.children, 1):
            note["ids"].append(f"{section['ids'][0]}-{number}")
            texts.append(note.astext())
        for table in section.findall(nodes.table):
            table["classes"].append("marks")
            for entry in table.findall(nodes.entry):
                mark, _, numbers = entry.astext().partition(" ")
                if mark not in MARKS or not re.fullmatch(r"[\d, ]*", numbers):
                    continue
                entry["classes"].append(MARKS[mark])
                paragraph = nodes.paragraph("", mark)
                for number in map(int, re.findall(r"\d+", numbers)):
                    link = nodes.reference("", str(number), internal=True, refuri=f"#{section['ids'][0]}-{number}")
                    link["reftitle"] = texts[number - 1]
                    paragraph += [nodes.Text(" "), nodes.superscript("", "", link)]
                entry.children = [paragraph]
                paragraph.parent = entry


# -- The charts of the benchmarks -------------------------------------------------------------------------------------


def put_panels(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Put the panels of a chart on the page one by one, in columns where they fit, and in the colours of the theme."""
    if docname != "benchmarks":
        return
    for image in list(doctree.findall(nodes.image)):
        text = (Path(app.srcdir) / image["uri"]).read_text("utf-8")
        (title,) = re.findall(r"<title>(.*)</title>", text)
        (style,) = re.findall(r"<style>.*?</style>", text, re.DOTALL)
        panels = re.findall(r'<svg class="a2c panel".*?</svg>', text, re.DOTALL)
        items = "".join(f"<li>{panel}</li>" for panel in panels)
        figure = (
            f'<figure class="a2c">{style}<figcaption>{title}</figcaption>'
            f'<ul aria-label="{escape(image["alt"])}">{items}</ul></figure>'
        )
        image.parent.replace_self(nodes.raw("", figure, format="html"))


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.add_search_language(SearchNames)
    app.connect("autodoc-process-docstring", keep_colons, priority=600)  # after napoleon, which has 500
    app.connect("autodoc-process-signature", shorten_types)
    app.connect("source-read", write_changelog)
    app.connect("doctree-resolved", color_marks)
    app.connect("doctree-resolved", put_panels)
