"""Analog forecasting: what followed the most similar moments of the past will follow this one.

An entry is one site at one moment: its vector is what was around the site then and six hours
before, its payload what the site had some hours later. A forecast is the mean of that over the ten
nearest entries (E. N. Lorenz, "Atmospheric predictability as revealed by naturally occurring
analogues", Journal of the Atmospheric Sciences 26, 1969).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from examples.weather.lorenz import HOURS, SITES
from indexrelay.components import Hits

Numbers = NDArray[np.float64]
ANALOGS: Final = 10


@dataclass(frozen=True)
class Horizon:
    """How far ahead, and how much of the surroundings counts for it."""

    hours: int
    reach: int
    """Sites on the east; on the west one more: there the weather comes from."""

    @property
    def name(self) -> str:
        return f"{self.hours}h"

    @property
    def states(self) -> int:
        return self.hours // HOURS

    def embed(self, run: Numbers, times: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of every site at each of ``times`` (from 1), one after another."""
        offsets = range(-self.reach - 1, self.reach + 1)
        around = np.stack([np.roll(run, -offset, axis=1) for offset in offsets], axis=-1)
        both = np.concatenate([around[times], around[times - 1]], axis=-1)
        return both.reshape(len(times) * SITES, -1).astype(np.float32)

    def later(self, run: Numbers, times: NDArray[np.int64]) -> Numbers:
        """What each site had so many hours after each of ``times``."""
        return run[times + self.states].ravel()


HORIZONS: Final = (Horizon(6, 1), Horizon(12, 2), Horizon(24, 3), Horizon(48, 4))


def forecast(analogs: list[Hits]) -> Numbers:
    """The forecast for each site: the mean of what followed its analogs."""
    return np.array([np.mean([hit.payload["then"] for hit in hits]) for hits in analogs])


def error(predicted: Numbers | float, observed: Numbers) -> float:
    """The root of the mean squared error."""
    return float(np.sqrt(np.mean((predicted - observed) ** 2)))
