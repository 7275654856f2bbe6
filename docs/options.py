"""Writes the tables of options in ``command-line.md``: ``python docs/options.py``.

A test checks that they are current.
"""

from __future__ import annotations

import re
from pathlib import Path

from a2wsgi._cli.options import OPTIONS
from a2wsgi._cli.servers import SERVERS

PAGE = Path(__file__).with_name("command-line.md")

#: What a server does with an option that it needs not be told.
SILENT = "yes"
#: What is not an option of ours, or is the same everywhere.
NOT_OF_SERVERS = {"app", "server", "host", "port", "env_file", "bridge", "factory", "traceback"}


def options() -> str:
    """Each option, its environment variable, and what it means."""
    lines = ["| option | variable | meaning |", "|---|---|---|"]
    for option in OPTIONS:
        if option.name == "app":
            name = "APP"
        elif option.metavar is None:
            name = f"{option.flag}`, `--no-{option.flag[2:]}" if option.has_no else option.flag
        else:
            name = f"{option.flag} {option.metavar}"
        lines.append(f"| `{name}` | `{option.environment}` | {option.help} |")
    return "\n".join(lines)


def translations() -> str:
    """What each option becomes for each server."""
    names = [option.name for option in OPTIONS if option.name not in NOT_OF_SERVERS]
    lines = ["| | " + " | ".join(f"`--{name.replace('_', '-')}`" for name in names) + " |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for name, server in SERVERS.items():
        cells = []
        for option in names:
            if option == "threads" and server.interface == "asgi3" and not server.takes_wsgi:
                cells.append("the bridge's")
            elif option in server.environment:
                cells.append(f"`{server.environment[option][0]}`")
            elif option == "ssl_certfile" and "tls" in server.options:
                cells.append("`--endpoint`")
            elif option not in server.options:
                cells.append("no")
            elif server.module.startswith("a2wsgi."):
                cells.append(SILENT)
            else:
                words = [re.sub(r"[= ].*", "", text) for text in server.options[option]]
                cells.append(" ".join(f"`{word}`" for word in words) or SILENT)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def filled(text: str) -> str:
    """The page with its tables."""
    for name, table in (("options", options()), ("translations", translations())):
        begin, end = f"<!-- {name}: written by docs/options.py -->\n", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{table}\n\n{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text("utf-8")), "utf-8")
