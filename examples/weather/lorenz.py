"""The Lorenz-96 system: an atmosphere of 40 numbers on a circle of latitude, as chaotic as weather.

Each site is pushed by a constant force, damped, and carries what its neighbours have:
``dx_i/dt = (x_{i+1} - x_{i-2}) x_{i-1} - x_i + F``. With ``F = 8`` errors double in about two days,
where a unit of time is five days (E. N. Lorenz, "Predictability: a problem partly solved", Seminar
on Predictability, ECMWF, 1996). It is a standard test bed of forecasting: small, and hard enough.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

SITES: Final = 40
HOURS: Final = 6
"""Between two states."""
_FORCE: Final = 8.0
_STEP: Final = 0.05  # units of time: six hours
_SPIN_UP: Final = 1000
"""States until it has forgotten where it began."""


def simulate(states: int, *, seed: int) -> NDArray[np.float64]:
    """So many states, six hours apart, of shape ``(states, SITES)``."""
    state = _FORCE + np.random.default_rng(seed).standard_normal(SITES)
    for _ in range(_SPIN_UP):
        state = _next(state)
    run = np.empty((states, SITES))
    for time in range(states):
        run[time] = state
        state = _next(state)
    return run


def _next(state: NDArray[np.float64]) -> NDArray[np.float64]:
    """Six hours later, by one step of the classical Runge-Kutta method."""
    first = _tendency(state)
    second = _tendency(state + _STEP / 2 * first)
    third = _tendency(state + _STEP / 2 * second)
    fourth = _tendency(state + _STEP * third)
    change: NDArray[np.float64] = (first + 2 * second + 2 * third + fourth) * (_STEP / 6)
    return state + change


def _tendency(state: NDArray[np.float64]) -> NDArray[np.float64]:
    left, far_left = np.roll(state, 1), np.roll(state, 2)
    change: NDArray[np.float64] = (np.roll(state, -1) - far_left) * left - state + _FORCE
    return change
