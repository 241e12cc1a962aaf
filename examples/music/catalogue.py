"""The record shop: six genres, four artists in each, four songs by each artist.

A genre is a style; an artist plays it in a key and at a tempo of their own; each song strays a
little from that. So neighbours in sound should be of one genre, and mostly of one artist.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from examples.music.sounds import Style

GENRES: Final[dict[str, Style]] = {
    "ambient": Style(
        tempo=60, wave="sine", chord=(0, 7, 14, 19), steps=(0, 0, 5, 5), key=0,
        attack=0.5, decay=1.5, drums=".", drum_level=0.0, hiss=0.02,
    ),
    "techno": Style(
        tempo=132, wave="square", chord=(0, 12), steps=(0, 0, 0, 3), key=0,
        attack=0.005, decay=0.08, drums="k.h.k.h.k.h.k.h.", drum_level=2.0, hiss=0.01,
    ),
    "jazz": Style(
        tempo=108, wave="organ", chord=(0, 4, 7, 11, 14), steps=(2, 7, 0, 9), key=0,
        attack=0.02, decay=0.25, drums="h..hh..hh..hs..h", drum_level=0.6, hiss=0.005,
    ),
    "metal": Style(
        tempo=168, wave="saw", chord=(-12, -5, 0), steps=(0, 1, 0, 6), key=0,
        attack=0.005, decay=0.4, drums="kkhkskhkkkhkskhk", drum_level=1.2, hiss=0.05, drive=8.0,
    ),
    "folk": Style(
        tempo=92, wave="saw", chord=(0, 4, 7, 12), steps=(0, 5, 7, 0), key=12,
        attack=0.003, decay=0.2, drums=".", drum_level=0.0, hiss=0.002,
    ),
    "dub": Style(
        tempo=72, wave="sine", chord=(-12, 0), steps=(0, 0, -2, -4), key=0,
        attack=0.01, decay=0.5, drums="..h.k.h...h.s.h.", drum_level=1.5, hiss=0.03, drive=2.0,
    ),
}  # fmt: skip

ARTISTS: Final[dict[str, tuple[str, ...]]] = {
    "ambient": ("Still Water", "Northern Haze", "Slow Glass", "Moss"),
    "techno": ("Sector 9", "Kilohertz", "Nachtzug", "Relay"),
    "jazz": ("Blue Quartet", "The Sevenths", "Ida Moreau Trio", "Walking Line"),
    "metal": ("Iron Vale", "Gravelord", "Ash Crown", "Threshold"),
    "folk": ("Harrow & Lane", "Wren", "Old Ferry", "Millbrook"),
    "dub": ("Echo Chamber", "Low End", "Tape Delay", "Harbour Sound"),
}
SONGS_EACH: Final = 4


@dataclass(frozen=True, kw_only=True)
class Song:
    """One song, and how to play it."""

    id: str
    title: str
    artist: str
    genre: str
    style: Style
    seed: int


def catalogue() -> Iterator[Song]:
    """Every song, artist by artist."""
    for genre, artists in ARTISTS.items():
        for artist in artists:
            for number in range(1, SONGS_EACH + 1):
                yield song(genre, artist, number)


def song(genre: str, artist: str, number: int) -> Song:
    """The artist's ``number``-th song; the same arguments make the same song."""
    seed = 1000 * list(GENRES).index(genre) + 100 * ARTISTS[genre].index(artist)
    own, mood = np.random.default_rng(seed), np.random.default_rng(seed + number)
    style = GENRES[genre]
    style = replace(
        style,
        tempo=style.tempo * own.uniform(0.94, 1.06) * mood.uniform(0.99, 1.01),
        key=style.key + int(own.integers(0, 5)),
        decay=style.decay * own.uniform(0.8, 1.25) * mood.uniform(0.95, 1.05),
        hiss=style.hiss * own.uniform(0.5, 2.0),
    )
    slug = artist.lower().replace(" & ", " ").replace(" ", "-")
    return Song(
        id=f"{slug}-{number}",
        title=f"{artist} No. {number}",
        artist=artist,
        genre=genre,
        style=style,
        seed=seed + number,
    )
