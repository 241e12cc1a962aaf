"""Figures as people write them: 12,345 and 0.987, 1.2 GiB and 3.4 ms, never 1e-05.

What a program wants is in ``--json``, with every digit.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

_NONE = "-"
_UNITS = (("d", 86400.0), ("h", 3600.0), ("min", 60.0))
_LEAST = 1e-6
"""Nobody counts more zeros than that."""
_MOST = 1e15
"""Above, a float is no exact count any more."""
_DIGITS = 9


def number(value: float) -> str:
    """Thousands set apart; of a fraction three digits, or as many as show how far it is from 1.

    >>> [number(each) for each in (12345, 0.9876543, 1234.5, 2.0, 0.00001, 0.99996)]
    ['12,345', '0.988', '1,234.5', '2', '0.00001', '0.99996']
    """
    if not _is_finite(value):
        return {"inf": "∞", "-inf": "-∞"}.get(str(value), "not a number")
    size = abs(value)
    if size >= _MOST:
        return f"{value:.3g}"
    if value == int(value):
        return f"{int(value):,}"
    if size >= 1:
        return f"{value:,.1f}" if size >= 1000 else _trimmed(f"{value:.2f}")
    if size < _LEAST:
        return f"below {_trimmed(f'{_LEAST:.9f}')}"
    # Enough to show how far it is from 0, and from a 1 that it does not reach.
    distance = min(size, 1 - size)
    digits = 3
    while digits < _DIGITS and round(distance, digits) == 0:
        digits += 1
    return _trimmed(f"{value:.{digits}f}")


def measured(check: str, value: float | None) -> str:
    """What a gate measured, or its limit, in the unit that the check's name ends in."""
    if value is None:
        return ""
    if check.endswith("_ms"):
        return milliseconds(value)
    if (check == "bytes" or check.endswith("_bytes")) and _is_finite(value):
        return size(value)
    return number(value)


def milliseconds(value: float) -> str:
    """``3.4 ms``; ``12 µs`` where that is too little, ``1.23 s`` where it is too much."""
    if not _is_finite(value):
        return number(value)
    if abs(value) >= 1000:
        return seconds(value / 1000)
    if 0 < abs(value) < 0.1:
        return f"{value * 1000:.{0 if abs(value) >= 0.001 else 1}f} µs"
    return f"{value:.0f} ms" if abs(value) >= 100 or not value else f"{value:.1f} ms"


def seconds(value: float) -> str:
    """``0.02 s``, ``3.4 s``, ``2 min 5 s``, ``1 h 3 min``; below a hundredth in milliseconds."""
    if value < 0.01:
        return milliseconds(value * 1000) if value else "0 s"
    if value < 10:
        return f"{value:.2f} s"
    if value < 60:
        return f"{value:.1f} s"
    whole = round(value)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {whole % 60} s"


def size(count: float) -> str:
    """Bytes with a binary prefix and one decimal."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"


def more(count: float) -> str:
    """A difference: ``+1,234``, ``-12``, or nothing at all."""
    return f"{count:+,.0f}" if count else ""


def ago(moment: datetime | None) -> str:
    """How long ago, in the largest fitting unit."""
    if moment is None:
        return _NONE
    passed = max(0.0, (datetime.now(UTC) - moment).total_seconds())
    for unit, length in _UNITS:
        if passed >= length:
            return f"{passed / length:.0f} {unit} ago"
    return f"{passed:.0f} s ago"


def moment(when: datetime) -> str:
    """A date and a time of day, in UTC, since those who compare them may sit apart."""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def value(given: Any) -> str:
    """Any value of a version's details or parameters, its figures written the same way."""
    match given:
        case None:
            return _NONE
        case bool():
            return "yes" if given else "no"
        case int() | float():
            return number(given)
        case str():
            return given
        case Mapping():
            return ", ".join(f"{key} {value(each)}" for key, each in given.items()) or _NONE
        case list() | tuple():
            return ", ".join(value(each) for each in given) or _NONE
        case _:
            return str(given)


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".")


def _is_finite(given: float) -> bool:
    return given - given == 0
