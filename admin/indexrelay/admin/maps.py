"""Maps for a page: coordinates as one array, entries by row, and a payload field as colours.

A projection knows where each entry is, and nothing else of it. What an entry says comes from a
component of the same release that holds the entries of the map's collections, so that map, payload
and text are of one moment.

Every answer is bounded, whatever a map holds: at most `MAX_POINTS` points are shown, always the
same ones of a collection (those whose ids have the smallest CRC-32), so that the next release shows
them again; fields have a few categories or bins; payloads and texts are cut.

The array of ``GET /map/{component}``, all of it little-endian:

* ``n`` times two float32: x and y of each point, in [-1, 1];
* ``n`` times one uint32: the CRC-32 of the UTF-8 bytes of its id, by which a page finds a point
  again in the next release. Two of 50,000 share one with a chance of a quarter.

A point's row is its place in this array; a row means something for one version only.
"""

import base64
import contextlib
import gzip
import math
import threading
import zlib
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal
from weakref import WeakKeyDictionary

import numpy as np
from fastapi import APIRouter, Path, Query, Request
from numpy.typing import NDArray
from pydantic import BaseModel
from pydantic_core import from_json
from starlette.responses import Response

from indexrelay.admin.components import is_finite
from indexrelay.admin.resources import AdminResources
from indexrelay.admin.version_cache import FieldError, LookThreads, Named, VersionCache
from indexrelay.components.projection import ProjectionMap
from indexrelay.components.query import Entry
from indexrelay.reloaders.snapshot import ServedComponent
from indexrelay.schemas.errors import InvalidQueryError
from indexrelay.schemas.names import Digest, Name
from indexrelay.schemas.versions import VersionManifest
from indexrelay.service import dispatch
from indexrelay.service.answers import accepts_gzip, matches, plain_json

MAX_POINTS: Final = 100_000
"""Of one map: 1.2 MB, and as many as a page draws and finds its way in."""
MAX_ROWS: Final = 200
"""Entries of one answer."""
MAX_CATEGORIES: Final = 10
"""As many colours as people tell apart; the rest is one more."""
MAX_BINS: Final = 8
MAX_FIELDS: Final = 40
NO_VALUE: Final = 255
"""The code of a point whose payload lacks the field."""
MAX_PAYLOAD: Final = 4096
"""Bytes of JSON of one payload; a longer one is shown as the beginning of its text."""
MAX_TEXT: Final = 1000
"""Characters of one text, or of the text of a payload that is cut."""
_MAX_LABEL: Final = 80
_SAMPLED: Final = 500
"""Entries whose payloads say which fields there are."""
_BLOCK: Final = 1000
_BLOCK_BYTES: Final = 16 * 1024 * 1024
"""Of the payloads of a block."""
_MOST_READ: Final = 6
"""Entries that are gone through for a point's value, at most."""
_FOUND: Final = 24
_COLOURS: Final = 24
_WITH_TEXTS: Final = ("search", "text_index", "vector_index")
"""Kinds that hold entries, those first that also hold their texts."""
_WITHOUT_TEXTS: Final = ("vector_index", "search", "text_index")

Keys = NDArray[np.uint32]
RowNumbers = NDArray[np.int64]


class MapSummary(BaseModel):
    """A map of the newest release."""

    component: str
    version: str
    release: int
    entries: int
    shown: int
    """How many of them are points of the array."""
    collections: list[str]
    entries_from: str | None
    """The component that says what an entry is; null: none in this release does."""
    searched_by: list[str]
    """The components that can be searched for its entries, those that find texts first."""


class MapList(BaseModel):
    """The maps of the newest release."""

    release: int | None
    maps: list[MapSummary]


class MapEntry(BaseModel):
    """One entry of a map."""

    row: int
    id: str
    payload: Any = None
    """Null also where it is longer than it may be, and then …"""
    payload_start: str | None = None
    """… this is how its JSON begins."""
    payload_bytes: int = 0
    text: str | None = None
    """Its first characters."""
    text_characters: int = 0


class MapEntries(BaseModel):
    """Some entries of a version."""

    version: str
    entries: list[MapEntry]


class MapField(BaseModel):
    """A payload field that points can be coloured by."""

    name: str
    kind: Literal["category", "number"]
    share: float
    """Of the sampled entries: how many have it."""


class MapFields(BaseModel):
    """The fields that tell points apart, found in a sample of the payloads."""

    version: str
    fields: list[MapField]


class FieldLabel(BaseModel):
    """One colour."""

    label: str
    count: int
    rest: bool = False
    """Whether it stands for all values that have no colour of their own."""


class MapColours(BaseModel):
    """A colour for each point."""

    version: str
    field: str
    kind: Literal["category", "number"]
    labels: list[FieldLabel]
    """By code; of numbers in their order."""
    missing: int
    """Points without a value: their code is 255."""
    codes: str
    """Base64 of one uint8 for each row."""


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """The array of a map."""

    shown: RowNumbers | None
    """The map's rows of the points, in increasing order; ``None``: every one."""
    body: bytes
    gzipped: bytes


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One version of a map, as it is sent."""

    named: Named
    opened: ServedComponent
    """Stays open as long as this is used."""
    drawn: _Drawn

    @property
    def shown(self) -> RowNumbers | None:
        """The map's rows of the points, in increasing order; ``None``: every one."""
        return self.drawn.shown

    @property
    def projection(self) -> ProjectionMap:
        """The coordinates and ids."""
        value: ProjectionMap = self.opened.value
        return value

    @property
    def points(self) -> int:
        """How many are shown."""
        return len(self.projection) if self.shown is None else len(self.shown)

    def ids(self, rows: Sequence[int] | RowNumbers) -> list[str]:
        """The ids of points; each 0 ≤ row < `points`."""
        numbers = np.asarray(rows, dtype=np.int64)
        return self.projection.ids.many(numbers if self.shown is None else self.shown[numbers])


class Maps:
    """Answers what a page asks of maps; safe to use from many threads."""

    def __init__(self, versions: VersionCache, *, max_points: int = MAX_POINTS) -> None:
        """``max_points``: so many of one map are shown."""
        self._versions = versions
        self._max_points = max_points
        self._lock = threading.Lock()
        self._drawn: WeakKeyDictionary[ServedComponent, _Drawn] = WeakKeyDictionary()
        """Kept for as long as the version stays open."""
        self._found: OrderedDict[tuple[str, str], Named] = OrderedDict()
        self._colours: OrderedDict[tuple[str, str, str], MapColours] = OrderedDict()

    def summaries(self) -> MapList:
        """The maps of the newest release; none while nothing is released."""
        try:
            release = self._versions.release()
        except FieldError:
            return MapList(release=None, maps=[])
        manifests = self._versions.manifests(release)
        maps = []
        for component, manifest in manifests.items():
            if manifest.kind != "projection":
                continue
            found = holders(manifest, manifests, _WITH_TEXTS)
            maps.append(
                MapSummary(
                    component=component,
                    version=release.components[component],
                    release=release.number,
                    entries=manifest.entries,
                    shown=min(manifest.entries, self._max_points),
                    collections=sorted(manifest.covers),
                    entries_from=found[0] if found else None,
                    searched_by=found,
                )
            )
        return MapList(release=release.number, maps=maps)

    def chart(self, component: str, version: str | None = None) -> Chart:
        """A map, ready to be sent.

        Args:
            component: the projection.
            version: of a kept release; ``None``: of the newest.

        Raises:
            FieldError: there is no such map.
            IndexRelayError: it is not intact.
        """
        named = self._known(component, version) or self._versions.found(component, version)
        opened = self._versions.open(named)
        if not isinstance(opened.value, ProjectionMap):
            raise FieldError(
                "component",
                f"{component} is no map but a {opened.manifest.kind}: a map is a component of the "
                "kind projection",
            )
        with self._lock:
            drawn = self._drawn.get(opened)
        if drawn is None:
            drawn = _drawn(opened.value, self._max_points)
        key = component, named.version
        with self._lock:
            self._drawn[opened] = drawn
            self._found[key] = named  # a later release may name it beside other components
            self._found.move_to_end(key)
            while len(self._found) > _FOUND:
                self._found.popitem(last=False)
        return Chart(named=named, opened=opened, drawn=drawn)

    def entries(self, component: str, version: str | None, rows: Sequence[int]) -> MapEntries:
        """What entries are, in the order of ``rows``.

        Raises:
            FieldError: a row is none of the map, or there are too many; see `chart`.
        """
        chart = self.chart(component, version)
        if len(rows) > MAX_ROWS:
            raise FieldError("rows", f"at most {MAX_ROWS} rows, not {len(rows)}")
        beyond = [row for row in rows if not 0 <= row < chart.points]
        if beyond:
            raise FieldError("rows", f"{beyond[0]}: this map has rows from 0 to {chart.points - 1}")
        ids = chart.ids(rows)
        found = self._entries_of(chart, ids, _WITH_TEXTS)
        return MapEntries(
            version=chart.named.version,
            entries=[
                _shown(row, entry_id, entry)
                for row, entry_id, entry in zip(rows, ids, found, strict=True)
            ],
        )

    def fields(self, component: str, version: str | None) -> MapFields:
        """What points can be coloured by; see `chart` for what is raised."""
        chart = self.chart(component, version)
        count = min(_SAMPLED, chart.points)
        rows = np.linspace(0, chart.points - 1, count).astype(np.int64) if count else np.array([])
        found = self._entries_of(chart, chart.ids(rows), _WITHOUT_TEXTS)
        payloads = [entry.payload for entry in found if entry is not None]
        return MapFields(version=chart.named.version, fields=_fields_of(payloads))

    def colours(self, component: str, version: str | None, field: str) -> MapColours:
        """The points by the values of one field.

        Raises:
            FieldError: no payload has the field, or they are too large to read all of them; see
                `chart`.
        """
        chart = self.chart(component, version)
        key = component, chart.named.version, field
        with self._lock:
            known = self._colours.get(key)
            if known is not None:
                self._colours.move_to_end(key)
                return known
        made = _colours(chart, field, self._values(chart, field))
        with self._lock:
            self._colours[key] = made
            while len(self._colours) > _COLOURS:
                self._colours.popitem(last=False)
        return made

    def _known(self, component: str, version: str | None) -> Named | None:
        """An older version whose release was found before: a page asks for it at every hover."""
        newest = self._versions.release()
        if version is None or newest.components.get(component) == version:
            return None
        with self._lock:
            return self._found.get((component, version))

    def _values(self, chart: Chart, field: str) -> list[Any]:
        """The values of a field by row; ``None``: the entry has none.

        All entries are gone through in their order, which takes a tenth of looking each one up,
        unless there are many more than points.
        """
        release = chart.named.release
        manifests = self._versions.manifests(release)
        found = holders(chart.opened.manifest, manifests, _WITHOUT_TEXTS)
        values: list[Any] = []
        if sum(manifests[each].entries for each in found) > _MOST_READ * chart.points:
            for first in range(0, chart.points, _BLOCK):
                rows = np.arange(first, min(first + _BLOCK, chart.points))
                entries = self._entries_of(chart, chart.ids(rows), _WITHOUT_TEXTS)
                values += (_value(entry, field) for entry in entries)
            return values
        by_id: dict[str, Any] = {}
        for component, served in self._held_by(chart, _WITHOUT_TEXTS):
            after: str | None = None
            while True:
                with _naming(component):
                    page = dispatch.scroll(
                        served, None, after=after, limit=_BLOCK, max_payload_bytes=_BLOCK_BYTES
                    )
                for entry in page.entries:
                    value = _value(entry, field)
                    if value is not None:
                        by_id.setdefault(entry.id, value)
                after = page.after
                if after is None:
                    break
        return [by_id.get(each) for each in chart.ids(np.arange(chart.points))]

    def _entries_of(
        self, chart: Chart, ids: Sequence[str], kinds: Sequence[str]
    ) -> list[Entry | None]:
        """What the components of the map's release say of entries; ``None``: nothing."""
        found: list[Entry | None] = [None] * len(ids)
        for component, served in self._held_by(chart, kinds):
            left = [number for number, entry in enumerate(found) if entry is None]
            with _naming(component):
                entries = dispatch.get(
                    served, [ids[number] for number in left], max_payload_bytes=_BLOCK_BYTES
                )
            for number, entry in zip(left, entries, strict=True):
                found[number] = entry
        return found

    def _held_by(self, chart: Chart, kinds: Sequence[str]) -> Iterator[tuple[str, Any]]:
        """What holds the entries of the map's collections, each of them once."""
        release = chart.named.release
        manifests = self._versions.manifests(release)
        covered: set[str] = set()
        for component in holders(chart.opened.manifest, manifests, kinds):
            collections = set(manifests[component].covers)
            if collections <= covered:
                continue
            covered |= collections
            opened = self._versions.open(self._versions.named(component, release))
            is_half = manifests[component].kind == "search" and kinds is _WITHOUT_TEXTS
            yield component, opened.value.by_vector if is_half else opened.value


@contextlib.contextmanager
def _naming(component: str) -> Iterator[None]:
    """Name the component whose payloads are too large to be read at once."""
    try:
        yield
    except InvalidQueryError as error:
        raise FieldError("component", f"{component}: {error}") from error


def holders(
    chart: VersionManifest, manifests: Mapping[str, VersionManifest], kinds: Sequence[str]
) -> list[str]:
    """The components that hold entries of a map's collections, in the order of ``kinds``."""
    found = [
        component
        for component, manifest in manifests.items()
        if manifest.kind in kinds
        and manifest.covers
        and manifest.covers.keys() <= chart.covers.keys()
    ]
    return sorted(found, key=lambda component: (kinds.index(manifests[component].kind), component))


def _drawn(projection: ProjectionMap, most: int) -> _Drawn:
    """The array of a map, and the rows that are in it."""
    keys = np.fromiter(
        (zlib.crc32(each.encode("utf-8", "surrogatepass")) for each in projection.ids),
        dtype=np.uint32,
        count=len(projection),
    )
    coordinates = np.asarray(projection.coordinates)
    shown: RowNumbers | None = None
    if len(keys) > most:
        shown = np.sort(np.argpartition(keys, most)[:most]).astype(np.int64)
        keys, coordinates = keys[shown], coordinates[shown]
    body = coordinates.astype("<f4").tobytes() + keys.astype("<u4").tobytes()
    gzipped = gzip.compress(body, compresslevel=1, mtime=0)
    return _Drawn(shown=shown, body=body, gzipped=gzipped)


def _shown(row: int, entry_id: str, entry: Entry | None) -> MapEntry:
    """An entry within the limits of an answer."""
    if entry is None:
        return MapEntry(row=row, id=entry_id)
    raw = b"" if entry.payload is None else plain_json(entry.payload)
    payload, start = shown_payload(raw)
    text = entry.text
    return MapEntry(
        row=row,
        id=entry_id,
        payload=payload,
        payload_start=start,
        payload_bytes=len(raw),
        text=None if text is None else text[:MAX_TEXT],
        text_characters=0 if text is None else len(text),
    )


def shown_payload(raw: bytes) -> tuple[Any, str | None]:
    """A payload as it is shown: parsed, or where it is too long, or no JSON, how it begins."""
    if not raw:
        return None, None
    if len(raw) <= MAX_PAYLOAD:
        try:
            return from_json(raw, allow_inf_nan=False), None
        except ValueError:
            pass
    return None, raw[: 4 * MAX_TEXT].decode(errors="replace")[:MAX_TEXT]


def _value(entry: Entry | None, field: str) -> Any:
    """A field of a payload; ``None``: it has none, or no single value."""
    payload = None if entry is None else entry.payload
    value = payload.get(field) if isinstance(payload, dict) else None
    return value if isinstance(value, str | bool | int | float) else None


def _fields_of(payloads: Iterable[Any]) -> list[MapField]:
    """The fields of some payloads that tell entries apart, those first that most have."""
    values: dict[str, list[Any]] = {}
    count = 0
    for payload in payloads:
        count += 1
        for name, value in payload.items() if isinstance(payload, dict) else ():
            is_known = name in values or len(values) < 10 * MAX_FIELDS
            if is_known and len(name) <= _MAX_LABEL and isinstance(value, str | bool | int | float):
                values.setdefault(name, []).append(value)
    found = []
    for name, given in values.items():
        kind = _kind_of(given)
        distinct = len(set(map(_label, given)))
        # A title is different everywhere: it would be one colour for all of them.
        tells_apart = kind == "number" or distinct <= max(MAX_CATEGORIES, len(given) // 2)
        if distinct > 1 and tells_apart:
            found.append(MapField(name=name, kind=kind, share=len(given) / count))
    return sorted(found, key=lambda field: (-field.share, field.name))[:MAX_FIELDS]


def _kind_of(values: Sequence[Any]) -> Literal["category", "number"]:
    """Numbers where nearly all of them are, and more than have a colour each."""
    numbers = [value for value in values if is_finite(value)]
    is_number = len(numbers) >= 0.9 * len(values) and len(set(numbers)) > MAX_CATEGORIES
    return "number" if is_number else "category"


def _label(value: Any) -> str:
    text = (
        str(value).lower()
        if isinstance(value, bool)
        else f"{value:.6g}"
        if isinstance(value, float)
        else str(value)
    )
    return text if len(text) <= _MAX_LABEL else f"{text[: _MAX_LABEL - 1]}…"


def _colours(chart: Chart, field: str, values: Sequence[Any]) -> MapColours:
    given = [value for value in values if value is not None]
    if not given:
        raise FieldError("field", f"no payload has the field {field!r:.100}", status=404)
    kind = _kind_of(given)
    codes, labels = _binned(values) if kind == "number" else _categorised(values)
    return MapColours(
        version=chart.named.version,
        field=field,
        kind=kind,
        labels=labels,
        missing=int((codes == NO_VALUE).sum()),
        codes=base64.b64encode(codes.tobytes()).decode("ascii"),
    )


def _categorised(values: Sequence[Any]) -> tuple[NDArray[np.uint8], list[FieldLabel]]:
    """The most frequent values, each with a code, and one code for the rest."""
    shown = [None if value is None else _label(value) for value in values]
    counts = Counter(label for label in shown if label is not None)
    best = sorted(counts, key=lambda label: (-counts[label], label))[:MAX_CATEGORIES]
    labels = [FieldLabel(label=label, count=counts[label]) for label in best]
    rest = counts.total() - sum(label.count for label in labels)
    if rest:
        others = len(counts) - len(best)
        labels.append(FieldLabel(label=f"{others:,} other values", count=rest, rest=True))
    code = {label: number for number, label in enumerate(best)}
    codes = (NO_VALUE if each is None else code.get(each, len(best)) for each in shown)
    return np.fromiter(codes, dtype=np.uint8, count=len(shown)), labels


def _binned(values: Sequence[Any]) -> tuple[NDArray[np.uint8], list[FieldLabel]]:
    """Bins of about as many points each, so that one outlier does not take all the colours."""
    numbers = np.array(
        [float(value) if is_finite(value) else math.nan for value in values], dtype=np.float64
    )
    there = numbers[np.isfinite(numbers)]
    edges = np.unique(np.quantile(there, np.linspace(0, 1, MAX_BINS + 1), method="lower"))
    # The last bin has its upper edge; where one value fills several bins there are fewer.
    inner = edges[1:-1]
    codes = np.full(len(numbers), NO_VALUE, dtype=np.uint8)
    codes[np.isfinite(numbers)] = np.searchsorted(inner, there, side="right")
    labels = []
    for code in range(len(inner) + 1):
        inside = numbers[codes == code]
        low, high = (inside.min(), inside.max()) if len(inside) else (edges[code], edges[code])
        shown = _number(low) if low == high else f"{_number(low)} to {_number(high)}"
        labels.append(FieldLabel(label=shown, count=len(inside)))
    return codes, labels


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"


RowsText = Annotated[str, Query(max_length=MAX_ROWS * 8, pattern=r"^\d{1,7}(,\d{1,7})*$")]
VersionQuery = Annotated[Digest | None, Query()]
_ARRAY: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"application/octet-stream": {}}, "description": "float32, then uint32"},
    304: {"description": "the client has this version"},
}
ComponentPath = Annotated[Name, Path()]
FieldQuery = Annotated[str, Query(min_length=1, max_length=_MAX_LABEL)]


def map_routes(resources: AdminResources) -> APIRouter:
    """The routes of maps; whoever may look may use all of them."""
    maps = Maps(resources.versions)
    router = APIRouter(tags=["map"])
    threads = LookThreads("looks at maps to answer")

    @router.get("/map", response_model=MapList)
    async def list_maps() -> Response:
        """The maps of the newest release."""
        return await threads.answer(maps.summaries)

    @router.get("/map/{component}", response_class=Response, responses=_ARRAY)
    async def read_map(
        request: Request, component: ComponentPath, version: VersionQuery = None
    ) -> Response:
        """The points of a map: ``n`` pairs of float32, then ``n`` uint32, little-endian.

        Coordinates are in [-1, 1]; the whole numbers are the CRC-32 of the ids. ``X-Map-Count`` is
        ``n``, ``X-Map-Entries`` how many entries the map has, ``X-Map-Version`` the version that
        rows are of, and ``X-Map-Release`` the newest kept release that names it.
        """
        chart = await threads.run(lambda: maps.chart(component, version), of=component)
        return _array_response(chart, request.headers)

    @router.get("/map/{component}/entries", response_model=MapEntries)
    async def read_entries(
        component: ComponentPath, rows: RowsText, version: VersionQuery = None
    ) -> Response:
        """Entries by the rows of a version: ``rows=0,17,4``."""
        numbers = [int(each) for each in rows.split(",")]
        return await threads.answer(lambda: maps.entries(component, version, numbers), of=component)

    @router.get("/map/{component}/fields", response_model=MapFields)
    async def list_fields(component: ComponentPath, version: VersionQuery = None) -> Response:
        """The payload fields that points can be coloured by."""
        return await threads.answer(lambda: maps.fields(component, version), of=component)

    @router.get("/map/{component}/colours", response_model=MapColours)
    async def read_colours(
        component: ComponentPath, field: FieldQuery, version: VersionQuery = None
    ) -> Response:
        """The points by the values of one payload field."""
        return await threads.answer(lambda: maps.colours(component, version, field), of=component)

    return router


def _array_response(chart: Chart, asked: Mapping[str, str]) -> Response:
    """The array, gzipped where the client takes that; 304 where it has this version."""
    gzipped = accepts_gzip(asked.get("accept-encoding", ""))
    headers = {
        # A strong tag names one sequence of bytes, so the gzipped form has one of its own.
        "ETag": f'"{chart.named.version}{"-gzip" if gzipped else ""}"',
        "Vary": "Accept-Encoding",
        "Cache-Control": "private, no-cache",
        "X-Map-Count": str(chart.points),
        "X-Map-Entries": str(len(chart.projection)),
        "X-Map-Version": chart.named.version,
        "X-Map-Release": str(chart.named.release.number),
    }
    if matches(asked.get("if-none-match", ""), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    if gzipped:
        headers["Content-Encoding"] = "gzip"
    body = chart.drawn.gzipped if gzipped else chart.drawn.body
    return Response(body, headers=headers, media_type="application/octet-stream")
