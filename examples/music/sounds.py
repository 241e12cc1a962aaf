"""Sound from nothing: oscillators, envelopes, noise and a beat, in numpy.

A `Style` says how a kind of music sounds; `render` plays four seconds of it. Everything random is
drawn from one seed, so a song always sounds the same.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Signal = NDArray[np.float64]

RATE = 16_000
"""Samples a second."""
SECONDS = 4.0


@dataclass(frozen=True, kw_only=True)
class Style:
    """How one kind of music sounds."""

    tempo: float
    """Beats a minute."""
    wave: str
    """The oscillator's shape: a key of `WAVES`."""
    chord: tuple[int, ...]
    """Semitones above the root that sound together."""
    steps: tuple[int, ...]
    """The root's way, in semitones above the key; one step a beat."""
    key: int
    """Semitones above A, 110 Hz."""
    attack: float
    """Seconds until a note is loud."""
    decay: float
    """Seconds until it has faded to a third."""
    drums: str
    """Sixteenths of one bar: ``k`` kick, ``s`` snare, ``h`` hat, ``.`` nothing."""
    drum_level: float
    hiss: float
    """Level of the noise floor."""
    drive: float = 1.0
    """Distortion: 1 is clean."""


def _saw(phase: Signal) -> Signal:
    return 2 * (phase % 1) - 1


def _square(phase: Signal) -> Signal:
    return np.sign(np.sin(2 * np.pi * phase))


def _sine(phase: Signal) -> Signal:
    return np.sin(2 * np.pi * phase)


def _organ(phase: Signal) -> Signal:
    return _sine(phase) + 0.5 * _sine(2 * phase) + 0.25 * _sine(4 * phase)


WAVES: dict[str, Callable[[Signal], Signal]] = {
    "organ": _organ,
    "saw": _saw,
    "sine": _sine,
    "square": _square,
}


def render(style: Style, *, seed: int) -> Signal:
    """Play ``style``: shape ``(RATE * SECONDS,)``, between -1 and 1."""
    rng = np.random.default_rng(seed)
    mix = style.hiss * rng.standard_normal(int(RATE * SECONDS))
    beat = 60 / style.tempo
    for index in range(int(SECONDS / beat) + 1):
        root = style.key + style.steps[index % len(style.steps)]
        for semitones in style.chord:
            _add(mix, _note(style, root + semitones, rng), at=index * beat)
    for index in range(int(SECONDS / (beat / 4)) + 1):
        hit = style.drums[index % len(style.drums)]
        if hit != ".":
            _add(mix, style.drum_level * _drum(hit, rng), at=index * beat / 4)
    loud = np.tanh(style.drive * mix / np.abs(mix).max())
    return np.asarray(loud / np.abs(loud).max())


def _note(style: Style, semitones: int, rng: np.random.Generator) -> Signal:
    """One note, a little out of tune, as played by hand."""
    seconds = np.arange(int(RATE * min(SECONDS, style.attack + 3 * style.decay))) / RATE
    hertz = 110 * 2 ** ((semitones + rng.normal(scale=0.03)) / 12)
    rise = np.minimum(1.0, seconds / style.attack)
    loud: Signal = rise * np.exp(-seconds / style.decay)
    return loud * WAVES[style.wave](hertz * seconds)


def _drum(hit: str, rng: np.random.Generator) -> Signal:
    seconds = np.arange(int(RATE * 0.15)) / RATE
    noise = rng.standard_normal(len(seconds))
    match hit:
        case "k":  # a sine that falls from 150 Hz to 50
            turns = 50 * seconds - 5 * np.exp(-20 * seconds)
            return _sine(turns) * np.exp(-18 * seconds)
        case "s":
            return 0.7 * noise * np.exp(-30 * seconds)
        case _:  # the difference of neighbours keeps only what is high
            return 0.4 * np.diff(noise, prepend=0.0) * np.exp(-70 * seconds)


def _add(mix: Signal, sound: Signal, *, at: float) -> None:
    """Mix ``sound`` in, ``at`` seconds from the start; what is past the end is cut off."""
    start = int(at * RATE)
    room = mix[start : start + len(sound)]
    room += sound[: len(room)]
