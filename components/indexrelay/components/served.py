"""What a reader gets from a kind and hands to its callers.

What a served object can do is declared by the protocols below: it has `close`, and it takes part in
a search, a document or a look-up of vectors by having the methods of that protocol. `Hit` is one
answer of a search, whatever was searched; a `StoredHit` parses its payload when that is first read.
`VersionFiles` are the files of a version as `Kind.load` gets them. `Closable` gives an object that
was closed a clear error: a reader closes a version after its last use, and code that keeps a part
of a snapshot beyond its ``with`` gets a sentence instead of the name of a private attribute.
"""

import inspect
import json
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, runtime_checkable

from numpy.typing import ArrayLike
from pydantic_core import from_json

from indexrelay.components.errors import ClosedVersionError, CorruptFileError, InvalidQueryError
from indexrelay.storage.entries import Vectors


@runtime_checkable
class Served(Protocol):
    """What `Kind.load` hands to a reader: immutable, and safe to query from many threads."""

    def close(self) -> None:
        """Let go of files and maps; called once, by its last user."""
        ...


@dataclass(slots=True)
class Hit:
    """An entry that was found.

    Not frozen: each search makes its own, and a frozen one would cost three times as much, which
    shows in a query of 50 microseconds with ten hits.
    """

    id: str
    score: float
    """How well it fits; the docstring of each search says whether higher is better."""
    payload: Any
    """The entry's JSON payload, parsed; ``None`` where it has none."""

    @property
    def payload_json(self) -> bytes | None:
        """The payload as JSON in UTF-8; ``None`` where there is none.

        Of a `StoredHit` it is what is stored, unparsed, until `payload` is read or set.

        Raises:
            ValueError: the payload, which did not come from a version, holds what JSON does not
                know; `TypeError`, where JSON does not know its type.
        """
        payload = self.payload
        if payload is None:
            return None
        return json.dumps(payload, allow_nan=False, separators=(",", ":")).encode()


_payload_of: Final[Callable[[Hit], Any]] = vars(Hit)["payload"].__get__
_set_payload_of: Final[Callable[[Hit, Any], None]] = vars(Hit)["payload"].__set__


_READ: Final[Any] = object()


class StoredHit(Hit):
    """A `Hit` whose payload is parsed when it is first read: most callers read few, or none.

    It holds the payload's bytes, not the file, so it outlives the version that it came from.
    Several threads may read one at a time. Copied or pickled, it becomes a plain `Hit`.

    To everybody else it is a `Hit`, which is what ``__class__`` says: the two are equal where their
    values are, look the same, and ``dataclasses.replace`` makes a plain one of it.
    """

    __slots__ = ("_json", "_path")

    _json: Any
    """As it is stored; ``None``: there is none; `_READ`: it was read or set."""
    _path: Path

    # Without a constructor in Python: `stored_hits` sets the rest.
    __init__ = object.__init__

    @property  # type: ignore[misc]
    def __class__(self) -> type[Hit]:  # type: ignore[override]
        return Hit

    @property
    def payload(self) -> Any:
        """The entry's JSON payload, parsed; ``None`` where it has none.

        Raises:
            CorruptFileError: what is stored is not JSON.
        """
        payload = self._json
        if payload is None:
            return None
        if payload is not _READ:
            _set_payload_of(self, parsed_payload(payload, self._path))
            self._json = _READ
        return _payload_of(self)

    @payload.setter
    def payload(self, payload: Any) -> None:
        _set_payload_of(self, payload)
        self._json = _READ

    @property
    def payload_json(self) -> bytes | None:
        """The payload as it is stored, unparsed, until it is read or set; ``None``: none."""
        payload: bytes | None = self._json
        return super().payload_json if payload is _READ else payload

    def __reduce__(self) -> tuple[type[Hit], tuple[str, float, Any]]:
        return Hit, (self.id, self.score, self.payload)


def stored_hits(
    ids: Iterable[str],
    scores: Iterable[float],
    payloads: Iterable[bytes | None] | None = None,
    paths: Iterable[Path] = (),
) -> list[Hit]:
    """Hits with the payloads of a version.

    Args:
        ids: of the hits, the best first.
        scores: theirs.
        payloads: theirs, as JSON in UTF-8; ``None``: none has any, which takes half the time.
        paths: the file that each payload is in; may be longer.
    """
    hits: list[Hit] = []
    if payloads is None:
        for entry_id, score in zip(ids, scores, strict=True):
            hit = StoredHit()
            hit.id = entry_id
            hit.score = score
            hit._json = None  # noqa: SLF001 - its own module
            hits.append(hit)
        return hits
    for entry_id, score, payload, path in zip(ids, scores, payloads, paths, strict=False):
        hit = StoredHit()
        hit.id = entry_id
        hit.score = score
        hit._json = payload  # noqa: SLF001
        hit._path = path  # noqa: SLF001
        hits.append(hit)
    return hits


def parsed_payload(payload: bytes, path: Path) -> Any:
    """A stored payload, parsed.

    Raises:
        CorruptFileError: it is not JSON in UTF-8; ``path`` is the file that it comes from.
    """
    try:
        return from_json(payload)  # a quarter of the time of `json.loads`, which …
    except ValueError:
        try:
            return json.loads(payload.decode())  # … also reads half a surrogate pair
        except (ValueError, RecursionError) as error:
            raise CorruptFileError(path, "a payload is not JSON") from error


@runtime_checkable
class VectorSearchable(Served, Protocol):
    """Finds the entries nearest to a vector, or to an entry.

    A search that takes ``max_payload_bytes`` reads no payloads that have more bytes together.
    """

    def search(self, vector: Any, /, *, k: int = 10) -> Sequence[Hit]:
        """The ``k`` nearest entries, the best first.

        Raises:
            InvalidQueryError: the vector or ``k`` cannot be answered.
        """
        ...

    def search_by_id(self, entry_id: str, /, *, k: int = 10) -> Sequence[Hit]:
        """The ``k`` entries nearest to one that is in here, without itself.

        Raises:
            UnknownEntryError: it is not in here.
            InvalidQueryError: ``k`` is no number of hits.
        """
        ...


@runtime_checkable
class TextSearchable(Served, Protocol):
    """Finds entries by words."""

    def search(self, text: str, /, *, k: int = 10) -> Sequence[Hit]:
        """The ``k`` entries that fit ``text`` best, the best first.

        Raises:
            InvalidQueryError: the text or ``k`` cannot be answered.
        """
        ...


@runtime_checkable
class ServedDocument(Served, Protocol):
    """A JSON document that is sent as it is."""

    @property
    def body(self) -> bytes:
        """JSON in UTF-8."""
        ...

    @property
    def gzipped(self) -> bytes:
        """`body`, for a client that accepts gzip."""
        ...

    @property
    def etag(self) -> str:
        """A strong entity tag of `body`, quoted as HTTP wants it."""
        ...


@runtime_checkable
class ServedEmbeddings(Served, Protocol):
    """Vectors by id, to compute with."""

    @property
    def ids(self) -> Sequence[str]:
        """Every id; row for row with `blocks`."""
        ...

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        ...

    def get(self, entry_id: str, /) -> Vectors:
        """One vector, shape ``(dimension,)``; raises `UnknownEntryError`."""
        ...

    def get_many(self, entry_ids: Iterable[str], /) -> Vectors:
        """Some vectors in the order asked for; raises `UnknownEntryError`."""
        ...

    def blocks(self) -> Iterator[tuple[int, Vectors]]:
        """All vectors, block by block, each with the row of its first."""
        ...


@lru_cache(maxsize=100)
def takes_vector(search: Callable[..., Any]) -> bool:
    """Whether the ``search`` of a class is declared to take a vector, by its name or its type."""
    try:
        parameters = list(inspect.signature(search).parameters.values())
    except (TypeError, ValueError):  # written in C
        return False
    for query in parameters[1:2]:  # after self
        declared = query.annotation
        if "vector" in query.name.lower() or declared is ArrayLike:
            return True
        return any(each in str(declared) for each in ("ArrayLike", "NDArray", "ndarray"))
    return False


def check_payload_bytes(found: int, most: int | None) -> None:
    """See that the payloads of the hits may be read.

    Raises:
        InvalidQueryError: they have more bytes than ``most``; ``None``: any number.
    """
    if most is not None and found > most:
        raise InvalidQueryError(
            f"the payloads of these hits have more than {most} bytes; ask for fewer, with a lower k"
        )


def check_bytes_of_hits(hits: Iterable[Hit], most: int | None) -> None:
    """`check_payload_bytes` of hits that are there already; nothing is counted without a limit."""
    if most is not None:
        check_payload_bytes(sum(len(hit.payload_json or b"") for hit in hits), most)


MAX_PAYLOAD_VALUES: Final = 200_000
"""Of the payloads that are parsed for one answer whose payloads have a limit of bytes: a value of
two bytes of JSON takes up to a hundred bytes of memory."""


def check_payload_values(payloads: Iterable[str | None], found_bytes: int) -> None:
    """See that the payloads of some entries may be parsed.

    Args:
        payloads: as JSON; not looked at where ``found_bytes`` are too few for many values.
        found_bytes: of all of them.

    Raises:
        InvalidQueryError: they have more than `MAX_PAYLOAD_VALUES` commas, brackets and braces,
            those in texts included.
    """
    if found_bytes <= MAX_PAYLOAD_VALUES:
        return
    found = sum(text.count(sign) for text in payloads if text for sign in ",[{")
    if found > MAX_PAYLOAD_VALUES:
        raise InvalidQueryError(
            f"the payloads of these entries have more than {MAX_PAYLOAD_VALUES} values; ask for "
            "fewer of them"
        )


_MOST: Final = 2**31 - 1
"""More than any index holds; SQLite and FAISS take no larger number than some."""


def checked_k(k: Any) -> int:
    """How many hits are wanted, from a whole number of any type (numpy's, too).

    Raises:
        InvalidQueryError: it is none, or less than 1.
    """
    if type(k) is int and 0 < k <= _MOST:  # most queries, by the shortest way
        return k
    try:
        number = operator.index(k)
    except TypeError:
        number = 0
    if number < 1 or isinstance(k, bool):
        raise InvalidQueryError(f"k is a whole number and at least 1, not {k!r:.100}")
    return min(number, _MOST)


class Closable:
    """A base for served objects: what is used after ``close()`` raises a clear error.

    Name in ``_closed_by`` the attributes that ``close`` deletes, and delete them there.

    It costs an open object nothing: Python asks here only for attributes that are missing.
    """

    _closed_by: ClassVar[frozenset[str]] = frozenset()

    if not TYPE_CHECKING:  # or a misspelt attribute would be no type error any more

        def __getattr__(self, name: str) -> Any:
            if name in self._closed_by:
                raise ClosedVersionError(type(self).__name__)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class VersionFiles(dict[str, Path]):
    """Where each file lies; one that the kind needs and the version lacks is corruption."""

    def __missing__(self, name: str) -> Path:
        raise CorruptFileError(Path(name), "the version does not have it")
