"""What golden queries found in the versions of one component, as a table and as a line.

The figures are checks of a version. They compare where the same file was asked with the same k; a
version that was asked something else says so beside its figures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from indexrelay.components.golden import HIT_RATE, KNOWN, NDCG
from indexrelay.console import figures
from indexrelay.console.sheet import Sheet, flowing, number, whole
from indexrelay.schemas.versions import Check, VersionManifest

_DEFAULT_K: Final = 10
_BARS: Final = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, kw_only=True)
class GoldenFigures:
    """Of one version."""

    k: int
    hit_rate: float | None
    """``None``: no query could be asked."""
    min_hit_rate: float | None
    """``None``: there is no floor."""
    ndcg: float | None
    min_ndcg: float | None
    known: float | None
    """Share of the expected ids that are in the collection."""
    file: str
    sha256: str

    def as_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)


def golden_figures(manifest: VersionManifest) -> GoldenFigures | None:
    """The figures of one version; ``None``: no golden queries were asked."""
    checks = {check.name: check for check in manifest.checks}
    file = manifest.parameters.get("golden")
    if NDCG not in checks or not isinstance(file, Mapping):
        return None
    hit_rate, ndcg = checks.get(HIT_RATE, _NONE), checks[NDCG]
    return GoldenFigures(
        k=int(manifest.parameters.get("golden_k", _DEFAULT_K)),
        hit_rate=hit_rate.measured,
        min_hit_rate=hit_rate.limit,
        ndcg=ndcg.measured,
        min_ndcg=ndcg.limit,
        known=checks.get(KNOWN, _NONE).measured,
        file=str(file.get("file", "")),
        sha256=str(file.get("sha256", "")),
    )


_NONE: Final = Check(name="", passed=True)


def golden_sheet(versions: Sequence[tuple[str, str, VersionManifest | None]]) -> Sheet | None:
    """A row for each version that was asked; ``None``: none was.

    Args:
        versions: releases, age and manifest of each, the newest first.
    """
    asked = [
        (releases, age, found)
        for releases, age, manifest in versions
        if manifest is not None and (found := golden_figures(manifest)) is not None
    ]
    if not asked:
        return None
    newest = asked[0][2]
    same = [each.ndcg for *_, each in reversed(asked) if _is_comparable(each, newest)]
    line = sparkline([each for each in same if each is not None])
    sheet = Sheet(
        f"Golden queries  {line}" if len(line) > 1 else "Golden queries",
        number("releases"),
        whole("built"),
        number(f"hit rate@{newest.k}"),
        number(f"nDCG@{newest.k}"),
        number("ids known"),
        flowing("queries"),
    )
    for releases, age, each in asked:
        other = "" if _is_comparable(each, newest) else f" (other queries, k = {each.k})"
        sheet.add(
            releases,
            age,
            _share(each.hit_rate, each.min_hit_rate),
            _share(each.ndcg, each.min_ndcg),
            _share(each.known),
            f"{each.file} {each.sha256[:8]}{other}",
        )
    return sheet


def sparkline(values: Sequence[float]) -> str:
    """One bar for each share from 0 to 1, the oldest first."""
    top = len(_BARS) - 1
    return "".join(_BARS[round(min(max(value, 0), 1) * top)] for value in values)


def _is_comparable(one: GoldenFigures, other: GoldenFigures) -> bool:
    return (one.sha256, one.k) == (other.sha256, other.k)


def _share(value: float | None, floor: float | None = None) -> str:
    shown = "" if value is None else figures.number(value)
    return shown if floor is None else f"{shown} (≥ {figures.number(floor)})"
