"""What a song sounds like, in numbers: timbre, harmony and rhythm.

The classic descriptors, from one short-time spectrum: cepstral coefficients of mel bands (Davis and
Mermelstein 1980) for timbre, pitch classes for harmony, and how strongly the onsets repeat at each
tempo for rhythm.
"""

import numpy as np
from numpy.typing import NDArray

from examples.music.sounds import RATE, Signal

Numbers = NDArray[np.float64]

_WINDOW, _HOP = 2048, 256
_BANDS = 32
_COEFFICIENTS = 20
_TEMPI = np.geomspace(50, 200, 24)
"""Beats a minute at which rhythm is looked for."""


def describe(signal: Signal) -> dict[str, Numbers]:
    """Measure one song.

    Returns:
        ``timbre``, 40 numbers: mean and spread over time of 20 cepstral coefficients;
        ``harmony``, 12: the share of each pitch class, from A upwards;
        ``rhythm``, 26: how strongly onsets repeat at 24 tempi, their number and their sharpness.
    """
    spectrum = _spectrum(signal)
    bands = np.log(spectrum @ _mel_bands() + 1e-6)
    cepstrum = bands @ _cosines()
    return {
        "timbre": np.concatenate([cepstrum.mean(axis=0), cepstrum.std(axis=0)]),
        "harmony": _pitch_classes(spectrum),
        "rhythm": _rhythm(bands),
    }


def _spectrum(signal: Signal) -> Numbers:
    """Power, shape ``(frames, _WINDOW // 2 + 1)``."""
    frames = np.lib.stride_tricks.sliding_window_view(signal, _WINDOW)[::_HOP]
    return np.asarray(np.abs(np.fft.rfft(frames * np.hanning(_WINDOW))) ** 2, dtype=np.float64)


def _hertz() -> Numbers:
    return np.asarray(np.fft.rfftfreq(_WINDOW, 1 / RATE), dtype=np.float64)


def _mel_bands() -> Numbers:
    """Triangles that overlap by half, evenly spaced on the mel scale."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, _BANDS + 2) / 2595) - 1)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    hertz = _hertz()[:, None]
    rising, falling = (hertz - low) / (middle - low), (high - hertz) / (high - middle)
    return np.maximum(0.0, np.minimum(rising, falling))


def _cosines() -> Numbers:
    """The discrete cosine transform that makes cepstral coefficients of log bands."""
    place = np.arange(_BANDS)[:, None] + 0.5
    return np.cos(np.pi * place * np.arange(_COEFFICIENTS) / _BANDS) / _BANDS


def _pitch_classes(spectrum: Numbers) -> Numbers:
    hertz = _hertz()
    heard = (hertz > 80) & (hertz < 2000)
    classes = np.round(12 * np.log2(hertz[heard] / 110)).astype(int) % 12
    power = np.bincount(classes, weights=spectrum[:, heard].sum(axis=0), minlength=12)
    shares: Numbers = power / power.sum()
    return shares


def _rhythm(bands: Numbers) -> Numbers:
    """From how much louder each frame is than the one before."""
    onsets = np.maximum(0.0, np.diff(bands, axis=0)).mean(axis=1)
    onsets -= onsets.mean()
    repeats = np.correlate(onsets, onsets, "full")[len(onsets) - 1 :]
    lags = 60 / _TEMPI * RATE / _HOP
    at_tempi = np.interp(lags, np.arange(len(repeats)), repeats / repeats[0])
    peaks = (onsets[1:-1] > onsets[:-2]) & (onsets[1:-1] > onsets[2:]) & (onsets[1:-1] > 0.1)
    sharpness = onsets.max() / onsets.std()
    return np.concatenate([at_tempi, [peaks.sum() / 10, sharpness / 5]])
