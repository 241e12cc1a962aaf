"""The kind: call the user's function, write its document twice, check both, and serve them.

The function is named ``module:function`` and is imported only where a version is built: readers
never import it. Its document is written as canonical JSON, and gzipped without a time stamp, so
that equal documents have equal bytes. An input that is a collection is handed over as a
`CollectionReader`, one entry after the other with its payload parsed.
"""

import gzip
import inspect
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from indexrelay.components.errors import CorruptFileError, DocumentError, DocumentFunctionError
from indexrelay.components.formats.mapped_array import read_small
from indexrelay.components.functions import FunctionName, function_of
from indexrelay.components.kind import Built, Job, Kind, KindParameters, Verdict, equal, judge
from indexrelay.schemas.json_values import Offence, first_offence
from indexrelay.schemas.names import canonical_json, sha256_hex
from indexrelay.schemas.settings import Metric
from indexrelay.schemas.versions import Check
from indexrelay.storage.entries import CHUNK_ROWS, Entries, SourceSnapshot, Vectors

DOCUMENT = "document.json"
GZIPPED = "document.json.gz"


class JsonCacheParameters(KindParameters):
    """The keys of a ``kind = "json_cache"`` table."""

    function: FunctionName
    """``module:function``; called as ``function(inputs, **arguments)``.

    ``inputs`` holds, under its name and in the order of ``from``, a `CollectionReader` for each
    collection and the served object for each component. It returns a JSON value.
    """

    arguments: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments for the function."""

    max_bytes: Annotated[int, Field(gt=0)] = 64 * 1024 * 1024
    """Limit of the document, not gzipped. Every reader holds it in memory and sends it whole; what
    is larger than this is better served by a query."""

    allow_empty: bool = False
    """Whether a document without items may be released although the inputs have entries."""


class CachedDocument:
    """A document that is ready to be sent; immutable, and safe to use from many threads.

    Both forms are held in memory: they are sent whole, and `JsonCacheParameters.max_bytes` bounds
    them. The parsed value can be many times larger than its text, so it is made when first asked
    for.
    """

    def __init__(self, body: bytes, gzipped: bytes, *, path: Path = Path("document")) -> None:
        """``path``: where the body comes from, for the words of an error."""
        self._path = path
        self.body = body
        """The document: canonical JSON in UTF-8."""
        self.gzipped = gzipped
        """`body` for a client that accepts gzip."""
        self.etag = f'"{sha256_hex(body)}"'
        """A strong entity tag of `body`, quoted as HTTP wants it (RFC 9110, section 8.8.3)."""
        self._parsed: dict[str, Any] = {}

    def __len__(self) -> int:
        """Bytes of `body`."""
        return len(self.body)

    @property
    def document(self) -> Any:
        """The parsed document, the same object each time: do not change it.

        Raises:
            CorruptFileError: it is no JSON.
        """
        if "document" not in self._parsed:
            try:
                parsed = json.loads(self.body)
            except (ValueError, RecursionError) as error:
                raise CorruptFileError(self._path, f"it is no JSON: {error}") from error
            # No lock: in a child that is forked meanwhile, no thread would release it.
            self._parsed.setdefault("document", parsed)
        return self._parsed["document"]

    def close(self) -> None:
        """Nothing is held open; what was handed out stays usable."""


_LEVEL = 6
"""zlib's own compromise: level 9 takes several times as long for about 1 % less."""


class JsonCache(Kind[JsonCacheParameters, CachedDocument]):
    """A JSON document computed from collections and components by a function that the user names.

    A version's ``entries`` are the document's own items (`count_items`), not those of its
    inputs: an emptied document then counts as shrunk even where its inputs are as large as ever.
    """

    def lacks(self) -> Iterator[str]:
        """The function, where it cannot be imported."""
        try:
            function_of(self.parameters.function, DocumentFunctionError)
        except DocumentFunctionError as error:
            yield str(error)

    def build(self, job: Job) -> Built:
        """Call the function and write its document.

        Raises:
            DocumentFunctionError: the function cannot be found or does not take the arguments.
            DocumentError: what it returned is not JSON; the message gives the path inside it.
        """
        parameters = self.parameters
        document = call_function(parameters.function, _inputs(job), parameters.arguments)
        job.progress(0.8)
        body = _encode(document)
        # Without a time stamp, so that equal documents have equal bytes.
        gzipped = gzip.compress(body, _LEVEL, mtime=0)
        files = {DOCUMENT: job.workdir / DOCUMENT, GZIPPED: job.workdir / GZIPPED}
        files[DOCUMENT].write_bytes(body)
        files[GZIPPED].write_bytes(gzipped)
        job.progress(1.0)
        return Built(
            files=files,
            entries=count_items(document),
            details={"bytes": len(body), "gzipped_bytes": len(gzipped)},
        )

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:
        """Parses back; gzip holds the same; within ``max_bytes``; not empty."""
        return _gates(
            files[DOCUMENT],
            files[GZIPPED],
            entries=built.entries,
            max_bytes=self.parameters.max_bytes,
            may_be_empty=self.parameters.allow_empty or _entries_of_inputs(job) == 0,
        )

    def load(self, files: Mapping[str, Path]) -> CachedDocument:
        """Read both forms.

        Raises:
            CorruptFileError: they are not one document, or larger than ``max_bytes``.
        """
        most = self.parameters.max_bytes
        body = read_small(files[DOCUMENT], most)
        # What gzip cannot make smaller it makes larger by a few bytes for each 16 kB.
        gzipped = read_small(files[GZIPPED], most + most // 1000 + 100)
        _check_packed(files[GZIPPED], gzipped, body)
        return CachedDocument(body, gzipped, path=files[DOCUMENT])


def _inputs(job: Job) -> dict[str, Any]:
    """Collections first, then components, each in the order of the definition."""
    return {
        **{name: CollectionReader(snapshot) for name, snapshot in job.collections.items()},
        **{name: component.value for name, component in job.components.items()},
    }


def _entries_of_inputs(job: Job) -> int:
    """How many entries there were to make a document of."""
    collections = sum(snapshot.count for snapshot in job.collections.values())
    return collections + sum(part.manifest.entries for part in job.components.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry, ready to use."""

    id: str
    vector: Vectors
    """Shape ``(dimension,)``, float32; a row of its chunk: copy it to keep it."""
    text: str | None
    payload: Any
    """The parsed JSON value, or ``None``."""


class CollectionReader:
    """A collection at one generation; iterating gives every `Entry` once, ordered by id.

    Valid while the function runs, on its thread.
    """

    def __init__(self, snapshot: SourceSnapshot) -> None:
        self._snapshot = snapshot

    @property
    def name(self) -> str:
        """The collection's name."""
        return self._snapshot.collection

    @property
    def generation(self) -> int:
        """The generation that everything read from here belongs to."""
        return self._snapshot.generation

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        return self._snapshot.dimension

    @property
    def metric(self) -> Metric:
        """How near two of its vectors are."""
        return self._snapshot.metric

    @property
    def count(self) -> int:
        """How many entries there are."""
        return self._snapshot.count

    def __len__(self) -> int:
        return self.count

    def __bool__(self) -> bool:
        """Refuse: "is it there?" and "is there anything in it?" are different questions."""
        raise TypeError(f"ask for {self.name}.count > 0 instead of the truth of a collection")

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Entries]:
        """Every entry once, at most ``rows`` at a time, column by column."""
        return self._snapshot.chunks(rows)

    def __iter__(self) -> Iterator[Entry]:
        for chunk in self.chunks():
            for row, entry_id in enumerate(chunk.ids):
                payload = chunk.payloads[row]
                yield Entry(
                    id=entry_id,
                    vector=chunk.vectors[row],
                    text=chunk.texts[row],
                    payload=None if payload is None else json.loads(payload),
                )


def call_function(name: str, inputs: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    """Call ``name(inputs, **arguments)`` and hand back the document.

    Whatever the function raises of its own goes through as it is.

    Raises:
        DocumentFunctionError: it cannot be found, or does not take these arguments.
    """
    function = function_of(name, DocumentFunctionError)
    try:
        inspect.signature(function).bind(inputs, **arguments)
    except TypeError as error:
        given = ", ".join(["inputs", *arguments])
        raise DocumentFunctionError(name, f"it cannot be called with ({given}): {error}") from error
    return function(inputs, **arguments)


def _encode(document: Any) -> bytes:
    """The document as canonical JSON.

    Raises:
        DocumentError: a NaN, an infinity, a circle, or something that is no JSON value is in it;
            the message gives its path (``$.points[3].x``).
    """
    try:
        return canonical_json(document)
    except (ValueError, TypeError, RecursionError) as error:
        found = first_offence(document) or Offence(path="$", reason=str(error))
        raise DocumentError(found.path, found.reason) from error


def count_items(document: Any) -> int:
    """How many items a document holds: what a version reports as its entries.

    A list counts its items. An object that holds lists counts the longest of them
    (``{"points": […], "bounds": …}`` holds points); one without lists is a table, and counts its
    keys. ``null`` counts 0, any other value 1.
    """
    match document:
        case None:
            return 0
        case list() | tuple():
            return len(document)
        case dict():
            lists = [len(part) for part in document.values() if isinstance(part, list | tuple)]
            return max(lists) if lists else len(document)
        case _:
            return 1


def _check_packed(path: Path, gzipped: bytes, body: bytes) -> None:
    """See that ``gzipped`` holds ``body``; unpacks no more than that.

    Raises:
        CorruptFileError: it holds something else, more, or nothing that can be unpacked.
    """
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # 16: as gzip writes it
    try:
        same = unpacker.decompress(gzipped, len(body) + 1) == body and unpacker.eof
    except zlib.error as error:
        raise CorruptFileError(path, str(error)) from error
    if not same or unpacker.unused_data:
        raise CorruptFileError(path, "it does not hold the document")


def _gates(
    document: Path, gzipped: Path, *, entries: int, max_bytes: int, may_be_empty: bool
) -> Iterator[Check]:
    """Yield one `Check` for each gate."""
    yield judge("size_bytes", lambda: _size(document, max_bytes))
    yield judge(
        "parses_back",
        lambda: equal(_items(document), entries, "it holds another number of items than was built"),
    )
    yield judge("gzip_equals_document", lambda: _same(document, gzipped))
    if not may_be_empty:
        yield judge("not_empty", lambda: _not_empty(document))


def _size(document: Path, max_bytes: int) -> Verdict:
    size = document.stat().st_size
    fits = size <= max_bytes
    detail = "" if fits else "raise max_bytes, or put less into the document"
    return Verdict(fits, detail, measured=size, limit=max_bytes)


def _same(document: Path, gzipped: Path) -> Verdict:
    _check_packed(gzipped, gzipped.read_bytes(), document.read_bytes())
    return Verdict(True)


def _not_empty(document: Path) -> Verdict:
    items = _items(document)
    detail = "" if items else "the inputs have entries; set allow_empty if this is right"
    return Verdict(items > 0, detail, measured=items)


def _items(document: Path) -> int:
    try:
        return count_items(json.loads(document.read_bytes()))
    except ValueError as error:
        raise CorruptFileError(document, f"not JSON: {error}") from error
