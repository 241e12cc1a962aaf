"""Strangers' text, made harmless for a terminal.

An error may quote what somebody else wrote, and that may hold escape sequences which recolour,
move or rename the terminal, or turn the direction of the text around. What is not printable is
shown as its code instead.
"""

import json


def visible(text: str) -> str:
    r"""``text`` with everything unprintable as ``\xNN``, ``\uNNNN`` or ``\UNNNNNNNN``."""
    return "".join(each if each.isprintable() else _code(ord(each)) for each in text)


def visible_lines(text: str) -> str:
    """The same for text that may take several lines: these stay, and tabs are spaces."""
    return "\n".join(visible(line) for line in text.expandtabs(4).split("\n"))


def visible_json(document: str) -> str:
    r"""The same for a JSON document: it still says the same, with ``\uNNNN`` in its texts."""
    return "".join(
        each if each.isprintable() or each == "\n" else json.dumps(each)[1:-1] for each in document
    )


def _code(point: int) -> str:
    if point < 0x100:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"
