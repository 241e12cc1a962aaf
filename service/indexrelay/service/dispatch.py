"""Which method of a served object answers a request, and with which of its keys.

The protocols `VectorSearchable`, `TextSearchable` and `EntriesServed` declare what a served object
can be asked; the objects of users' own kinds are asked when they have these methods. What else a
request may say is passed on only where it was given: a method that does not take it is an error
that names it, and so is a method that the object does not have.

A caller whose token has a filter gets that filter into everything: it is and-ed to the request's
own, and an id that it does not match is an id that is not there. What cannot be filtered such a
caller is refused.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, Unpack, get_args, get_origin

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.errors import InvalidQueryError, UnknownEntryError
from indexrelay.components.query import EntriesServed, Entry, Page
from indexrelay.components.served import Hit, TextSearchable, VectorSearchable, takes_vector
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.service.bodies import SearchOptions, SearchQuery

_LIMIT: Final = "max_payload_bytes"
_SAID: Final = {"vector": "a vector", "text": "a text", "id": "an id", "like": "like"}
FilterObject: TypeAlias = Mapping[str, Any]


class NotFilteredError(IndexRelayError):
    """Raised when a caller who may see a part only asks for what cannot be limited to that part."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}, and this token may see only what its filter matches: ask with another token"
        )


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is searched for, and how."""

    vector: NDArray[np.float32] | None = None
    """Shape ``(dimension,)``."""
    text: str | None = None
    id: str | None = None
    like: Sequence[str | NDArray[np.float32]] | None = None
    unlike: Sequence[str | NDArray[np.float32]] | None = None
    options: Mapping[str, Any] = field(default_factory=lambda: {"k": 10})
    """Those that were given; ``k`` always is."""

    @classmethod
    def of(cls, request: SearchQuery) -> "Search":
        """From the JSON of a request."""
        return cls(
            vector=None if request.vector is None else _vector(request.vector),
            text=request.text,
            id=request.id,
            like=None if request.like is None else [_example(each) for each in request.like],
            unlike=None if request.unlike is None else [_example(each) for each in request.unlike],
            options=request.given,
        )

    @classmethod
    def by_vector(cls, vector: NDArray[np.float32], options: SearchOptions) -> "Search":
        """Of a vector as it lies in memory."""
        return cls(vector=vector, options=options.given)

    @property
    def k(self) -> int:
        """How many hits are asked for."""
        return int(self.options["k"])

    @property
    def ids(self) -> list[str]:
        """The entries that it starts from."""
        examples = (*(self.like or ()), *(self.unlike or ()))
        return [each for each in (self.id, *examples) if isinstance(each, str)]


def _vector(numbers: Sequence[float]) -> NDArray[np.float32]:
    return np.asarray(numbers, dtype=np.float32)


def _example(given: str | list[float]) -> str | NDArray[np.float32]:
    return given if isinstance(given, str) else _vector(given)


def search(
    served: Any,
    asked: Search,
    *,
    forced: FilterObject | None = None,
    max_payload_bytes: int | None = None,
) -> Sequence[Hit]:
    """Search the served object.

    Args:
        served: what a snapshot holds.
        asked: what to search for.
        forced: the filter of the caller's token; ``None``: it may see everything.
        max_payload_bytes: of all hits together, for methods that take such a limit, as those of
            our own kinds do; ``None``: any number.

    Raises:
        InvalidQueryError: it cannot search for that, or not with these options.
        UnknownEntryError: it holds no entry of that id, or none that ``forced`` matches.
        NotFilteredError: it takes no filter, and there is one.
    """
    method, question = _question(served, asked)
    options = _options(method, asked.options, forced=forced, limit=max_payload_bytes)
    if forced is not None:
        if options.get("explain"):
            raise NotFilteredError("an explanation counts what others have, too")
        _check_visible(served, asked.ids, forced)
    hits: Sequence[Hit] = method(*question.positional, **question.named, **options)
    return hits


def search_many(
    served: Any,
    vectors: NDArray[np.float32],
    options: Mapping[str, Any],
    *,
    forced: FilterObject | None = None,
    max_payload_bytes: int | None = None,
) -> Sequence[Sequence[Hit]] | None:
    """The hits of each row of ``vectors``, shape ``(n, dimension)``; ``None``: it cannot search for
    many at once, or not with these options and limits. Raises as `search`."""
    method = _method(served, "search_many")
    if method is None or (forced is not None and options.get("explain")):
        return None  # an explanation is refused search by search
    needed = {*options, *(("filter",) if forced is not None else ())}
    needed |= {_LIMIT} if max_payload_bytes is not None else set()
    if not needed <= _takes(method).keys():
        return None
    given = _options(method, options, forced=forced, limit=max_payload_bytes)
    found: Sequence[Sequence[Hit]] = method(vectors, **given)
    return found


def get(
    served: Any,
    ids: Sequence[str],
    *,
    forced: FilterObject | None = None,
    max_payload_bytes: int | None = None,
) -> Sequence[Entry | None]:
    """The entry of each id; ``None`` where there is none, or none that ``forced`` matches.

    Raises as `search`.
    """
    method = _of_entries(served, "get")
    found: Sequence[Entry | None] = method(
        ids, **_options(method, {}, forced=forced, limit=max_payload_bytes)
    )
    return found


def count(served: Any, given: FilterObject | None, *, forced: FilterObject | None = None) -> int:
    """How many entries match; raises as `search`."""
    method = _of_entries(served, "count")
    return int(method(**_options(method, _filter_of(given), forced=forced)))


def scroll(
    served: Any,
    given: FilterObject | None,
    *,
    after: str | None,
    limit: int,
    forced: FilterObject | None = None,
    max_payload_bytes: int | None = None,
) -> Page:
    """A page of entries; raises as `search`."""
    method = _of_entries(served, "scroll")
    options = {**_filter_of(given), "after": after, "limit": limit}
    page: Page = method(**_options(method, options, forced=forced, limit=max_payload_bytes))
    return page


def neighbours(
    served: Any,
    ids: Sequence[str],
    *,
    k: int,
    forced: FilterObject | None = None,
    max_payload_bytes: int | None = None,
) -> Mapping[str, Sequence[Hit]]:
    """The hits of each id; raises as `search`."""
    method = _of_entries(served, "neighbours")
    options = _options(method, {"k": k}, forced=forced, limit=max_payload_bytes)
    if forced is not None:
        _check_visible(served, ids, forced)
    found: Mapping[str, Sequence[Hit]] = method(ids, **options)
    return found


def both(forced: FilterObject | None, given: FilterObject | None) -> FilterObject | None:
    """A filter that matches what both of them do."""
    if forced is None or given is None:
        return forced if given is None else given
    return {"$and": [forced, given]}


def _filter_of(given: FilterObject | None) -> dict[str, Any]:
    return {} if given is None else {"filter": given}


def _check_visible(served: Any, ids: Sequence[str], forced: FilterObject) -> None:
    """See that a caller may see these entries; what it may not see is unknown to it."""
    if ids:
        for entry_id, entry in zip(ids, get(served, ids, forced=forced), strict=True):
            if entry is None:
                raise UnknownEntryError(entry_id)


@dataclass(frozen=True, kw_only=True)
class _Question:
    """What a method is asked with, beside the options."""

    positional: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)


def _question(served: Any, asked: Search) -> tuple[Callable[..., Any], _Question]:
    """The method that answers, and with what it is asked."""
    if asked.id is not None and (method := _method(served, "search_by_id")) is not None:
        return method, _Question(positional=(asked.id,))
    if asked.like is not None and (method := _method(served, "search_like")) is not None:
        named = {"like": asked.like, "unlike": asked.unlike}
        return method, _Question(
            named={name: value for name, value in named.items() if value is not None}
        )
    method, arms = _method(served, "search"), arms_of(served)
    given = {
        name: value
        for name, value in (("vector", asked.vector), ("text", asked.text))
        if value is not None
    }
    if method is not None and given and given.keys() <= set(arms):
        if len(arms) > 1:
            return method, _Question(named=given)
        return method, _Question(positional=tuple(given.values()))
    raise InvalidQueryError(_what_it_answers(served, arms))


def arms_of(served: Any) -> tuple[str, ...]:
    """What the search of a served object takes: a vector, a text, or either of them and both."""
    return _arms(served.__class__)


def takes_options(served: Any, options: Iterable[str]) -> bool:
    """Whether the search of a served object takes all of these."""
    method = _method(served, "search")
    return method is not None and _takes(method).keys() >= set(options)


@functools.lru_cache(maxsize=100)
def _arms(served: Any) -> tuple[str, ...]:
    method: Any = getattr(served, "search", None)
    if method is None:
        return ()
    names = _parameters(method)
    if {"vector", "text"} <= names.keys():
        return ("vector", "text")
    if issubclass(served, VectorSearchable) and next(iter(names), "") != "text":
        return ("vector",)
    if issubclass(served, TextSearchable) and not takes_vector(method):
        return ("text",)
    return ()


def questions_for(served: Any) -> tuple[str, ...]:
    """What it can be searched for: ``vector``, ``text``, ``id``, ``like``; empty: nothing."""
    arms = _arms(served.__class__)
    by_entries = {"id": "search_by_id", "like": "search_like"} if arms else {}
    others = [name for name, method in by_entries.items() if _method(served, method) is not None]
    return (*arms, *others)


def _what_it_answers(served: Any, arms: Sequence[str]) -> str:
    method: Any = getattr(type(served), "search", None)
    if not arms and method is not None and takes_vector(method):
        return (
            "this component's search takes a vector, and it lacks search_by_id: it is "
            "asked in Python only"
        )
    words = [_SAID[each] for each in questions_for(served)]
    if not words:
        return "this component answers no search"
    if len(arms) > 1:
        words.append("a vector and a text together")
    said = ", ".join(words[:-1]) + " or " + words[-1] if len(words) > 1 else words[0]
    return f"this component answers {said}"


def _options(
    method: Any,
    given: Mapping[str, Any],
    *,
    forced: FilterObject | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """What of the options the method gets.

    Raises:
        InvalidQueryError: it does not take one of them.
        NotFilteredError: there is a forced filter, and it takes none.
    """
    takes = _takes(method)
    options = dict(given)
    if forced is not None:
        if "filter" not in takes:
            raise NotFilteredError("this component takes no filter here")
        options["filter"] = both(forced, options.get("filter"))
    unknown = [name for name in options if name not in takes]
    if unknown:
        raise InvalidQueryError(
            f"this component takes no {_listed(unknown)} here; it takes {_listed(_public(takes))}"
        )
    if limit is not None and _LIMIT in takes:
        options[_LIMIT] = limit
    return options


def _public(takes: Iterable[str]) -> list[str]:
    return [name for name in takes if name in SearchOptions.model_fields] or ["nothing more"]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def _method(served: Any, name: str) -> Any:
    """The method of an object, as its class has it; ``None``: it has none."""
    return getattr(served, name) if callable(getattr(type(served), name, None)) else None


def _of_entries(served: Any, name: str) -> Any:
    """A method of an object that gives, counts and lists entries: one of that name alone may be
    something else."""
    method = _method(served, name) if isinstance(served, EntriesServed) else None
    if method is None:
        raise InvalidQueryError(f"this component answers no {name}")
    return method


def _takes(method: Any) -> dict[str, None]:
    return _parameters(getattr(method, "__func__", method))


@functools.lru_cache(maxsize=200)
def _parameters(function: Callable[..., Any]) -> dict[str, None]:
    """The names of a function's parameters, in their order; a set that keeps it.

    Of ``**options: Unpack[Keywords]`` they are the keys of the `TypedDict`.
    """
    names: dict[str, None] = {}
    for name, parameter in _signature(function).parameters.items():
        if get_origin(parameter.annotation) is Unpack:
            (keywords,) = get_args(parameter.annotation)
            names |= dict.fromkeys(keywords.__annotations__)
        elif name != "self":
            names[name] = None
    return names


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function, eval_str=True)
    except NameError:  # of what only a type checker imports
        return inspect.signature(function)
