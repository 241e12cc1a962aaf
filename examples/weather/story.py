"""What happens in five weeks, and what is printed of it."""

from dataclasses import dataclass
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np

from examples.weather.forecasting import HORIZONS, error
from examples.weather.lorenz import simulate
from examples.weather.office import FLAT, LISTS, Office
from indexrelay.schemas import RebuildResult

ARCHIVE: Final = 200
WEEK: Final = 28
"""States of seven days."""
_AHEAD: Final = max(horizon.states for horizon in HORIZONS)
_TRIED: Final = range(1, 61)


@dataclass(frozen=True)
class Skill:
    """How wrong forecasts of one horizon are: the root of the mean squared error of each way."""

    hours: int
    flat: float
    lists: float
    persistence: float
    """It stays as it is."""
    climatology: float
    """It is as it is on average."""


class Story:
    """One office, what it observes, and other weather that it has not seen, to try it on."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._observed = simulate(1 + ARCHIVE + 4 * WEEK + 2 * _AHEAD, seed=96)
        self._other = simulate(max(_TRIED) + 1 + _AHEAD, seed=2026)
        self._recorded = 1
        self.went_well = True

    def weeks(self) -> None:
        """The archive, and four weeks more."""
        office, observed = self._office, self._observed
        office.record(observed, self._next(ARCHIVE))
        print(f"Archive: {ARCHIVE} states of 40 sites, for {len(HORIZONS)} horizons")
        self._sunday()

        office.record(observed, self._next(WEEK))
        self._sunday()

        print("\nA station sends a week in tenths:")
        week = self._next(WEEK)
        office.record(observed, week, scale=10)
        self._sunday(refused=True)
        print("It is sent again as it should be:")
        office.record(observed, week)
        self._sunday()

        print("\nA program takes what followed two days too late, for all of the archive:")
        good = self._error_of_a_day()
        newest = office.store.newest_release()
        assert newest is not None
        office.record(observed, range(1, self._recorded), late=_AHEAD)
        self._sunday()
        bad = self._error_of_a_day()
        print(f"  no gate can know; forecasts of a day were wrong by {good:.1f}, now by {bad:.1f}")
        back = office.store.rollback(newest.number, reason="forecasts of a day got worse")
        office.look()
        print(f"  rolled back: release {back.number} serves what release {newest.number} served")
        self.went_well &= bad > 2 * good and self._error_of_a_day() == good
        print("The program is mended, and the hold is lifted:")
        office.record(observed, range(1, self._recorded))
        office.store.lift(*back.holds, reason="the program is mended")
        self._sunday()

    def back_up(self) -> str:
        """Back up the newest release with the catalog; its id."""
        made = self._office.backups.create(with_catalog=True)
        manifest = self._office.backups.verify(made.backup.id)
        print(f"\nBackup {made.backup.id}: release {manifest.release.number} and the catalog")
        return made.backup.id

    def restore(self, backup: str) -> None:
        """Bring back what a backup holds."""
        restored = self._office.backups.restore(backup, with_catalog=True)
        self._office.look()
        print(f"Restored {backup} as release {restored.release.number}")

    def skill(self) -> list[Skill]:
        """How wrong forecasts of weather are that the office has not seen."""
        times = np.array(_TRIED)
        found = []
        for horizon in HORIZONS:
            then = horizon.later(self._other, times)
            flat, lists = (
                error(self._office.forecast(horizon, self._other, _TRIED, index), then)
                for index in (FLAT, LISTS)
            )
            found.append(
                Skill(
                    hours=horizon.hours,
                    flat=flat,
                    lists=lists,
                    persistence=error(self._other[times].ravel(), then),
                    climatology=error(float(self._observed.mean()), then),
                )
            )
        return found

    def show(self, skills: list[Skill]) -> None:
        """Print them."""
        print("\nError by horizon (analogs: Flat, IVF64,Flat)")
        print("  ahead   Flat  IVF64  as now  as always")
        for each in skills:
            print(
                f"  {each.hours:3} h  {each.flat:5.1f}  {each.lists:5.1f}  "
                f"{each.persistence:6.1f}  {each.climatology:9.1f}"
            )
            self.went_well &= max(each.flat, each.lists) < min(each.persistence, each.climatology)

    def _next(self, states: int) -> range:
        """The next states that are observed."""
        self._recorded += states
        return range(self._recorded - states, self._recorded)

    def _error_of_a_day(self) -> float:
        (day,) = (horizon for horizon in HORIZONS if horizon.hours == 24)
        said = self._office.forecast(day, self._other, _TRIED, FLAT)
        return error(said, day.later(self._other, np.array(_TRIED)))

    def _sunday(self, *, refused: bool = False) -> None:
        result = self._office.sunday()
        local = self._office.clock.now().astimezone(ZoneInfo("Europe/Lisbon"))
        built, failed = len(result.indexes_rebuilt), len(result.indexes_failed)
        print(f"  {local:%A %d %B, %H:%M %Z}: {result.status}, {built} built, {failed} refused")
        if result.release is not None:
            print(f"  release {result.release}")
        _explain(result)
        self.went_well &= (failed, built) == ((8, 0) if refused else (0, 8))


def _explain(result: RebuildResult) -> None:
    for name in result.indexes_failed:
        print(f"    {name}: {result.components[name].error}")
