"""One component: what it is, why its index is what it is, its versions, and two of them compared.

    GET /components/{name}                     its definition, checks, trade-off and versions
    GET /components/{name}/versions/{id}       one version in detail
    GET /components/{name}/compare?a=…&b=…     two versions, figure by figure

What a version's gates measured, and what `auto` tried and what each took, stands in its manifest;
who serves it, in the last look. Details and parameters are a kind's own, or a user's: they are
shown as text, and cut.
"""

import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeGuard

from fastapi import APIRouter, Path, Query

from indexrelay.admin.document import ComponentView, Fact
from indexrelay.admin.releases import ComponentName, see_component
from indexrelay.admin.resources import AdminResources
from indexrelay.components.search.parts import halves_of
from indexrelay.schemas.names import DIGEST_PATTERN, shown
from indexrelay.schemas.parameter_files import named
from indexrelay.schemas.settings import ComponentDefinition
from indexrelay.schemas.versions import Check, VersionManifest
from indexrelay.service.problems import RefusedError
from indexrelay.storage.artifacts import VersionUnreadableError
from indexrelay.storage.artifacts.history import (
    HistoricalVersion,
    checked_files,
    manifest_of,
    version_history,
)

MOST_VERSIONS: Final = 30
_MOST_READERS: Final = 100
"""That are named of those who serve a version; all are counted."""
_TEXT, _ITEMS, _DEPTH = 500, 100, 5
"""Characters of one value of a kind's own, entries of one list or table, and how deep they lie."""
_CUT: Final = "…"
_MOST_BITS: Final = 10_000
_OWN: Final = ("index", "reason", "attempts", "trials", "effort", "parts")
"""The details that are laid out, and not listed among the others."""

Unit: TypeAlias = Literal["", "bytes", "seconds", "milliseconds"]
VersionId = Annotated[str, Path(pattern=DIGEST_PATTERN)]
GivenId = Annotated[str, Query(pattern=DIGEST_PATTERN)]


class CheckView(Fact):
    """One gate's verdict on a version."""

    name: str
    passed: bool
    required: bool
    measured: float | None
    limit: float | None
    detail: str
    file: str
    """The file that it concerns; empty: none alone."""
    seconds: float


class TriedIndex(Fact):
    """An index that `auto` built and measured, or the one that was asked for."""

    index: str
    recall: float | None
    latency_us: float | None
    """Of one query on one thread, at the median."""
    bytes: int | None
    """Of what a query may read."""
    build_seconds: float | None
    rows: int | None
    """How many entries it was built over."""
    foreseen: bool
    """Whether the figures are foreseen ones for all entries, from a part of them."""
    chosen: bool
    front: bool
    """Whether nothing that was tried is better in everything."""
    short_of: tuple[str, ...]
    """What it does not reach of what is asked for: ``recall``, ``latency``."""
    why: str


class Trial(Fact):
    """What one effort of the chosen index buys."""

    effort: dict[str, Any]
    recall: float | None
    latency_us: float | None
    chosen: bool


class FileView(Fact):
    """One file of a version."""

    name: str
    bytes: int
    sha256: str


class VersionRow(Fact):
    """One version in a list."""

    id: str
    created_at: datetime | None = None
    """Null, as all that follows up to ``checks_failed``: its manifest is corrupt or gone."""
    entries: int | None = None
    bytes: int | None = None
    covers: dict[str, int] | None = None
    build_seconds: float | None = None
    verify_seconds: float | None = None
    index: str | None = None
    checks_failed: int | None = None
    reason: str
    """Why the first release that named it was made."""
    first_release: int | None
    last_release: int | None
    """Those in a row that named it; a version that was served again has two rows."""
    released: bool
    """Whether the newest release names it."""
    served_by: int


class IndexDecision(Fact):
    """Why an index is what it is."""

    index: str | None
    """Null: its kind has none."""
    index_reason: str
    pareto: tuple[TriedIndex, ...]
    trials: tuple[Trial, ...]


class VersionView(IndexDecision):
    """One version in detail."""

    id: str
    component: str
    kind: str
    created_at: datetime
    entries: int
    bytes: int
    counts: dict[str, int]
    """How many entries have a text, a payload, or what else the kind counts."""
    left_out: dict[str, dict[str, int]]
    covers: dict[str, int]
    parents: dict[str, str]
    definition: str
    build_seconds: float
    verify_seconds: float
    parameters: dict[str, Any]
    details: dict[str, Any]
    checks: tuple[CheckView, ...]
    files: tuple[FileView, ...]
    released: bool
    served_by: int
    readers: tuple[str, ...]
    """The first of those who serve it."""


class DefinitionView(Fact):
    """A component as the settings declare it."""

    kind: str
    inputs: tuple[str, ...]
    group: str | None
    required: bool
    priority: int
    max_shrink: float
    gates: dict[str, Any]
    parameters: dict[str, Any]
    digest: str


class ComponentPage(ComponentView, IndexDecision):
    """One component, with what is released of it and what was before."""

    definition: DefinitionView | None
    """Null: the settings do not declare it any more."""
    parameters: dict[str, Any]
    """Of the released version."""
    details: dict[str, Any]
    checks: tuple[CheckView, ...]
    files: tuple[FileView, ...]
    versions: tuple[VersionRow, ...]
    """The newest first; those that a kept release names."""


class ComparedFact(Fact):
    """One figure of two versions."""

    name: str
    a: float | str | None
    b: float | str | None
    unit: Unit
    same: bool


class ComparedCheck(Fact):
    """What one gate measured of two versions."""

    name: str
    a: float | None
    b: float | None
    limit: float | None
    """Of the second."""
    passed: tuple[bool | None, bool | None]
    """Null: it was not made."""


class Comparison(Fact):
    """Two versions of one component."""

    a: VersionView
    b: VersionView
    facts: tuple[ComparedFact, ...]
    checks: tuple[ComparedCheck, ...]


def component_routes(resources: AdminResources) -> APIRouter:
    """All of them, without a prefix."""
    router = APIRouter()
    unknown: Any = {404: {"description": "There is no such component, or no such version."}}

    @router.get("/components/{name}", responses=unknown)
    def component(name: ComponentName) -> ComponentPage:
        """One component: its definition, what is released of it, why its index is what it is."""
        return _page(resources, name)

    @router.get("/components/{name}/versions/{version}", responses=unknown)
    def version(name: ComponentName, version: VersionId) -> VersionView:
        """One version: its checks, its files, and who serves it."""
        see_component(resources, name)
        return _version_view(resources, name, version)

    @router.get("/components/{name}/compare", responses=unknown)
    def compare(name: ComponentName, a: GivenId, b: GivenId) -> Comparison:
        """Two versions, figure by figure."""
        see_component(resources, name)
        one, other = (_version_view(resources, name, each) for each in (a, b))
        return Comparison(
            a=one, b=other, facts=tuple(_facts(one, other)), checks=tuple(_checks(one, other))
        )

    return router


def _page(resources: AdminResources, name: str) -> ComponentPage:
    look = resources.state.required()
    view = next((each for each in look.document.components if each.name == name), None)
    if view is None:
        see_component(resources, name)
        raise RefusedError(503, "it was not looked at yet; ask again in a moment")
    manifest = None if view.version is None else manifest_of(resources.store, name, view.version)
    declared = resources.settings.components.get(name)
    serving = _serving(resources, name)
    return ComponentPage(
        **view.model_dump(),
        **_version_fields(manifest),
        definition=None if declared is None else _definition(declared),
        versions=tuple(
            _row(each, released=view.version, serving=serving)
            for each in version_history(resources.store, name, most=MOST_VERSIONS)
        ),
    )


def _serving(resources: AdminResources, name: str) -> dict[str, list[str]]:
    """By version, the readers that serve it."""
    look = resources.state.look()
    found: dict[str, list[str]] = {}
    for state in () if look is None else look.look.seen.facts.known_readers.values():
        component = state.components.get(name)
        if component is not None and component.version is not None:
            found.setdefault(component.version, []).append(state.label)
    return found


def _row(
    each: HistoricalVersion, *, released: str | None, serving: Mapping[str, list[str]]
) -> VersionRow:
    return VersionRow(
        id=each.version,
        reason=shown(each.reason),
        first_release=each.first_release,
        last_release=each.last_release,
        released=each.version == released,
        served_by=len(serving.get(each.version, ())),
        **_row_fields(each.manifest),
    )


def _row_fields(manifest: VersionManifest | None) -> dict[str, Any]:
    if manifest is None:
        return {}
    return {
        "created_at": manifest.created_at,
        "entries": manifest.entries,
        "bytes": manifest.size,
        "covers": manifest.covers,
        "build_seconds": manifest.build_seconds,
        "verify_seconds": manifest.verify_seconds,
        "index": _decision(manifest)["index"],
        "checks_failed": sum(not check.passed for check in manifest.checks),
    }


def _version_view(resources: AdminResources, name: str, version: str) -> VersionView:
    try:
        manifest = resources.store.version(name, version)
    except VersionUnreadableError as error:
        if error.missing:
            gone = f"there is no version {version[:12]} of {name}, or not any more"
            raise RefusedError(404, gone) from error
        raise RefusedError(409, shown(str(error))) from error
    newest = resources.store.newest_release()
    readers = _serving(resources, name).get(version, [])
    return VersionView(
        **_version_fields(manifest),
        id=version,
        component=name,
        kind=manifest.kind,
        created_at=manifest.created_at,
        entries=manifest.entries,
        bytes=manifest.size,
        counts=manifest.counts,
        left_out=manifest.left_out,
        covers=manifest.covers,
        parents=manifest.parents,
        definition=manifest.definition,
        build_seconds=manifest.build_seconds,
        verify_seconds=manifest.verify_seconds,
        released=newest is not None and newest.components.get(name) == version,
        served_by=len(readers),
        readers=tuple(sorted(readers)[:_MOST_READERS]),
    )


def _version_fields(manifest: VersionManifest | None) -> dict[str, Any]:
    """What a component's page and a version's have in common."""
    if manifest is None:
        nothing: dict[str, Any] = {"parameters": {}, "details": {}, "checks": (), "files": ()}
        return nothing | _decision(None)
    details = {
        f"{half}.{key}" if half else key: bounded(value)
        for half, (found, _) in halves_of(manifest).items()
        for key, value in found.items()
        if key not in _OWN
    }
    return {
        "parameters": bounded(named(manifest.parameters)),
        "details": details,
        "checks": tuple(
            _check(check, file)
            for check, file in zip(manifest.checks, checked_files(manifest), strict=True)
        ),
        "files": tuple(
            FileView(name=name, bytes=blob.size, sha256=blob.digest)
            for name, blob in manifest.files.items()
        ),
        **_decision(manifest),
    }


def _check(check: Check, file: str) -> CheckView:
    return CheckView(
        name=shown(check.name),
        passed=check.passed,
        required=check.required,
        measured=check.measured,
        limit=check.limit,
        detail=shown(check.detail),
        file=file,
        seconds=check.seconds,
    )


def _definition(declared: ComponentDefinition) -> DefinitionView:
    return DefinitionView(
        kind=declared.kind,
        inputs=declared.inputs,
        group=declared.group,
        required=declared.required,
        priority=declared.priority,
        max_shrink=declared.max_shrink,
        gates=bounded(declared.gates.model_dump(mode="json", exclude_none=True)),
        parameters=bounded(named(declared.parameters)),
        digest=declared.digest,
    )


def _decision(manifest: VersionManifest | None) -> dict[str, Any]:
    """The fields of an `IndexDecision`; of a search, those of its half that has an index."""
    halves = {} if manifest is None else halves_of(manifest)
    for details, _ in halves.values():
        index = details.get("index")
        if isinstance(index, str):
            attempts = _tables(details.get("attempts"))
            most = max((_whole(each.get("rows")) or 0 for each in attempts), default=0)
            return {
                "index": shown(index, _TEXT),
                "index_reason": shown(str(details.get("reason") or "")),
                "pareto": tuple(_tried(each, index, most) for each in attempts),
                "trials": tuple(_trial(each, details.get("effort")) for each in _trials(details)),
            }
    return {"index": None, "index_reason": "", "pareto": (), "trials": ()}


def _tried(attempt: Mapping[str, Any], chosen: str, most_rows: int) -> TriedIndex:
    rows = _whole(attempt.get("rows"))
    short_of = attempt.get("short_of")
    return TriedIndex(
        index=shown(str(attempt.get("index")), _TEXT),
        recall=_figure(attempt.get("recall")),
        latency_us=_microseconds(attempt.get("milliseconds")),
        bytes=_whole(attempt.get("bytes")),
        build_seconds=_figure(attempt.get("seconds")),
        rows=rows,
        foreseen=(rows or 0) < most_rows,
        chosen=attempt.get("index") == chosen,
        front=bool(attempt.get("front")),
        short_of=tuple(map(str, short_of)) if isinstance(short_of, list) else (),
        why=shown(str(attempt.get("left_out") or attempt.get("reason") or "")),
    )


def _trials(details: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return _tables(details.get("trials"))


def _trial(trial: Mapping[str, Any], effort: object) -> Trial:
    measured = ("recall", "milliseconds")
    knobs = {key: value for key, value in trial.items() if key not in measured}
    return Trial(
        effort=bounded(knobs),
        recall=_figure(trial.get("recall")),
        latency_us=_microseconds(trial.get("milliseconds")),
        chosen=knobs == effort,
    )


def _facts(a: VersionView, b: VersionView) -> Iterator[ComparedFact]:
    """Figures that people compare, in the order in which they are read."""
    pairs: list[tuple[str, Any, Any, Unit]] = [
        ("index", a.index, b.index, ""),
        ("entries", a.entries, b.entries, ""),
        *(
            (f"with {what}", a.counts.get(what), b.counts.get(what), "")
            for what in dict.fromkeys([*a.counts, *b.counts])
        ),
        *(
            (f"covers {name}", a.covers.get(name), b.covers.get(name), "")
            for name in dict.fromkeys([*a.covers, *b.covers])
        ),
        ("size", a.bytes, b.bytes, "bytes"),
        ("build", a.build_seconds, b.build_seconds, "seconds"),
        ("verification", a.verify_seconds, b.verify_seconds, "seconds"),
        ("definition", a.definition[:12], b.definition[:12], ""),
    ]
    for name, one, other, unit in pairs:
        if one is not None or other is not None:
            yield ComparedFact(name=name, a=one, b=other, unit=unit, same=one == other)


def _checks(a: VersionView, b: VersionView) -> Iterator[ComparedCheck]:
    """Gates that measure something, by their names; those of single files are left out."""
    one, other = ({check.name: check for check in each.checks if not check.file} for each in (a, b))
    for name in dict.fromkeys([*one, *other]):
        before, after = one.get(name), other.get(name)
        yield ComparedCheck(
            name=name,
            a=None if before is None else before.measured,
            b=None if after is None else after.measured,
            limit=None if after is None else after.limit,
            passed=(
                None if before is None else before.passed,
                None if after is None else after.passed,
            ),
        )


def bounded(value: Any, depth: int = _DEPTH) -> Any:
    """A value of JSON that anybody may have written, of a size that a page can show."""
    match value:
        case None | bool():
            return value
        case int() if value.bit_length() > _MOST_BITS:  # Python refuses to write long ones
            return _CUT
        case int() | float():
            return value if is_finite(value) else shown(str(value), _TEXT)
        case str():
            return shown(value, _TEXT)
        case Mapping() if depth:
            kept = list(value.items())[:_ITEMS]
            more = {_CUT: f"{len(value) - _ITEMS} more"} if len(value) > _ITEMS else {}
            return {shown(str(key), _TEXT): bounded(each, depth - 1) for key, each in kept} | more
        case list() | tuple() if depth:
            more_items = [f"{_CUT} {len(value) - _ITEMS} more"] if len(value) > _ITEMS else []
            return [bounded(each, depth - 1) for each in value[:_ITEMS]] + more_items
        case Mapping() | list() | tuple():
            return _CUT
        case _:
            return shown(str(value), _TEXT)


def _tables(value: object) -> list[Mapping[str, Any]]:
    if not isinstance(value, list):
        return []
    return [each for each in value[:_ITEMS] if isinstance(each, Mapping)]


def is_finite(value: object) -> TypeGuard[int | float]:
    """Whether a value of JSON is a number that a float holds, and neither infinite nor NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond what a float holds
        return False


def _figure(value: object) -> float | None:
    return float(value) if is_finite(value) else None


def _whole(value: object) -> int | None:
    return int(value) if is_finite(value) else None


def _microseconds(milliseconds: object) -> float | None:
    figure = _figure(milliseconds)
    return None if figure is None else _figure(figure * 1000)
