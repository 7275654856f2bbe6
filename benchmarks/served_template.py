"""The app that `free_threads` loads: a page of a Jinja template, which is pure Python and about a millisecond."""

from __future__ import annotations

from typing import Any

import jinja2

ROWS = 300
TEMPLATE = jinja2.Environment(autoescape=True).from_string(
    "<table>{% for row in rows %}"
    "<tr class={{ loop.cycle('odd', 'even') }}><td>{{ row.number }}</td><td>{{ row.name }}</td></tr>"
    "{% endfor %}</table>"
)


def page() -> bytes:
    """Render the page."""
    rows = [{"number": number, "name": f"row <{number}>"} for number in range(ROWS)]
    return TEMPLATE.render(rows=rows).encode()


PAGE = page()


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer with the page and a length."""
    body = page()
    start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", str(len(body)))])
    return [body]
