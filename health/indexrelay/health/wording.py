"""Figures and moments, as sentences have them."""

from collections.abc import Mapping
from datetime import datetime


def generations(behind: Mapping[str, int]) -> str:
    """``2 generations of tracks, 1 generation of artists``."""
    return ", ".join(
        f"{count} generation{'s' * (count != 1)} of {name}" for name, count in behind.items()
    )


def moment(moment: datetime) -> str:
    """To the minute."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"
