"""One batch, or several together: changes gathered in memory and committed when a block ends.

Calls apply in the order in which they are made, and an upsert replaces what it is given: the vector
always, text and payload where there is one. Values are checked while the ``with`` block runs,
before the catalog is touched. Leaving the block normally commits all of it in one transaction;
leaving it by an exception commits nothing. A batch is held in memory whole (a vector takes ``4 *
dimension`` bytes), so a job with more than that has several batches.

A commit costs an fsync, and an event a round trip. `Batches` is for jobs with many small batches:
each keeps its own id, generation and event, but all are written in one transaction and announced in
one round trip when the outer block ends.
"""

import dataclasses
import re
import secrets
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar

from numpy.typing import ArrayLike

from indexrelay.producers.changes import ChangeSender
from indexrelay.producers.errors import (
    BatchClosedError,
    NotCommittedError,
    UndeclaredCollectionError,
    WrongSourceError,
)
from indexrelay.producers.events import EventSender
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.settings import CollectionSettings, Settings
from indexrelay.schemas.tracing import tracing_of
from indexrelay.storage.catalog import BatchChanges, Catalog, Commit
from indexrelay.storage.entries import Entries, Vectors, check_batch_id
from indexrelay.storage.errors import InvalidEntriesError, UnknownEntriesError
from indexrelay.storage.validation import (
    EntryRules,
    check_entries,
    check_ids,
    check_listed_ids,
    check_texts,
    encode_payloads,
)

if TYPE_CHECKING:  # a job whose collections have no embedder needs none
    from indexrelay.components.embedder import Embedders
    from indexrelay.schemas.session import SessionToken

ValueT = TypeVar("ValueT")
Embed: TypeAlias = Callable[[Sequence[str]], Vectors]
"""Makes the vectors of texts, shape ``(n, dimension)``; raises where one has none."""


@dataclass(kw_only=True)
class BatchOutcome:
    """What came of one batch; its `Committer` fills it in."""

    commit: Commit | None = None
    announced: bool = False
    no_commit: str = "its block has not ended"
    """Why there is no commit, for as long as there is none."""


@dataclass(frozen=True, kw_only=True)
class PendingBatch:
    """A batch whose block ended, and that is to be committed."""

    changes: BatchChanges
    outcome: BatchOutcome = field(default_factory=BatchOutcome)
    traceparent: str | None = None
    """A W3C trace context that the event carries along."""


Submit: TypeAlias = Callable[[PendingBatch], None]
"""Commits a batch whose block ended, at once or later with others."""


class Batch:
    """Changes to one collection that are committed together.

    Made by `Producer.batch`, or by `Batches.batch` to be committed together with others.

    For one thread at a time, and for one ``with`` block.
    """

    def __init__(
        self,
        collection: str,
        batch_id: str,
        *,
        declared: CollectionSettings,
        submit: Submit,
        traceparent: str | None = None,
        embed: Embed | None = None,
    ) -> None:
        """``embed`` makes vectors of texts; ``None``: the collection has no embedder."""
        self.collection = collection
        self.batch_id = batch_id
        self.declared = declared
        """The settings of the collection."""
        self._rules = EntryRules.of(declared)
        self._submit = submit
        self._embed = embed
        self._traceparent = traceparent
        self._upserts: list[Entries] = []
        self._upserted: set[str] = set()
        # By id, what was set or cleared beside the upserts; None: cleared.
        self._texts: dict[str, str | None] = {}
        self._payloads: dict[str, str | None] = {}
        self._deletes: dict[str, None] = {}
        self._embedded_of: dict[str, str] = {}
        """By the id of upserted entries: the text that the vector was made of."""
        self._outcome = BatchOutcome()
        self._ended = False

    def upsert(
        self,
        ids: Sequence[str],
        vectors: ArrayLike | None = None,
        texts: Sequence[str | None] | None = None,
        payloads: Sequence[Any] | None = None,
    ) -> None:
        """Add entries, or give those with the same id what is given; what is not given stays.

        Args:
            ids: ``n`` ids, each non-empty; a list, a tuple or an array.
            vectors: shape ``(n, dimension)``; taken as float32. Copied, so that the job may reuse
                its array. ``None``: the collection's embedder makes them of the texts.
            texts: ``n`` texts for text components; ``None``, the whole or one of them: not given.
            payloads: ``n`` JSON values to be served beside the ids; ``None`` as for texts.

        Raises:
            InvalidEntriesError: names the rows that are wrong (dimension, NaN or infinity, a zero
                vector under cosine, empty or repeated ids, lengths that differ, payloads that JSON
                has no form for, texts and payloads that are too large); or no vectors are given,
                and there is no embedder, or not a text for each.
            EmbeddingError: the embedder gave no vector for some texts. Nothing of this call is in
                the batch; a call without those rows has the other vectors already.
            EmbedderFunctionError: the embedder cannot be imported.
            BatchClosedError: the block has ended.
        """
        self._check_open()
        is_embedded = vectors is None
        if vectors is None:
            vectors = self._embedded(ids, texts)
        entries = check_entries(
            ids,
            vectors,
            texts,
            payloads,
            dimension=self.declared.dimension,
            metric=self.declared.metric,
            rules=self._rules,
        )
        if not len(entries):
            return
        if entries.vectors is vectors or not entries.vectors.flags.owndata:
            entries = dataclasses.replace(entries, vectors=entries.vectors.copy())
        if self._deletes:
            self._reset_deleted(entries.ids)
        _forget_given(self._texts, entries.ids, entries.texts)
        _forget_given(self._payloads, entries.ids, entries.payloads)
        self._upserts.append(entries)
        self._upserted.update(entries.ids)
        _forget_given(self._embedded_of, entries.ids, entries.ids)
        if is_embedded:
            self._note_embedded(zip(entries.ids, entries.texts, strict=True))

    def note_embedded(self, texts: Mapping[str, str]) -> None:
        """Say of which texts the caller has made the vectors of entries that were just upserted.

        The same texts under the same batch id are then the same batch, also where the embedder
        gives other vectors the next time.

        Args:
            texts: by the ids of the entries.

        Raises:
            BatchClosedError: the block has ended.
        """
        self._check_open()
        self._note_embedded(texts.items())

    def _note_embedded(self, texts: Iterable[tuple[str, str | None]]) -> None:
        self._embedded_of.update((id_, text) for id_, text in texts if text is not None)

    def _embedded(self, ids: Sequence[str], texts: Sequence[str | None] | None) -> Vectors:
        """The vectors of texts, one for each id."""
        if self._embed is None:
            raise InvalidEntriesError(
                f"no vectors are given, and collection {self.collection} has no embedder"
            )
        known = check_ids(ids)
        checked = check_texts(texts, known, max_bytes=self._rules.text)
        given = [text for text in checked if text is not None]
        if len(given) < len(checked):
            rows = [row for row, text in enumerate(checked) if text is None]
            raise InvalidEntriesError("neither a vector nor a text", rows=rows, ids=known)
        return self._embed(given)

    def set_texts(self, ids: Sequence[str], texts: Sequence[str]) -> None:
        """Give entries other texts; their vectors and payloads stay. Where an embedder makes the
        vectors, `upsert` gives the vector of the other text as well.

        The entries have to be in the collection, or upserted by this batch before.

        Raises:
            InvalidEntriesError: names the rows that are wrong; ``None`` is no text (`clear_texts`).
            UnknownEntriesError: this batch deletes one of them; from the end of the block, when
                the collection does not hold one of them. Nothing is written then.
            BatchClosedError: the block has ended.
        """
        self._check_open()
        known = check_ids(ids)
        checked = check_texts(texts, known, max_bytes=self._rules.text)
        _refuse_missing("text", "clear_texts", checked, known)
        self._refuse_deleted(known)
        self._texts.update(zip(known, checked, strict=True))

    def set_payloads(self, ids: Sequence[str], payloads: Sequence[Any]) -> None:
        """Give entries other payloads; their vectors and texts stay.

        The entries have to be in the collection, or upserted by this batch before.

        Raises:
            InvalidEntriesError: names the rows that are wrong; ``None`` is no payload
                (`clear_payloads`).
            UnknownEntriesError: as `set_texts`.
            BatchClosedError: the block has ended.
        """
        self._check_open()
        known = check_ids(ids)
        encoded = encode_payloads(payloads, known, self._rules)
        _refuse_missing("payload", "clear_payloads", encoded, known)
        self._refuse_deleted(known)
        self._payloads.update(zip(known, encoded, strict=True))

    def clear_texts(self, ids: Collection[str]) -> None:
        """Take the texts of entries away; one without a text, or that is not there, is no error.

        Raises:
            InvalidEntriesError: empty or repeated ids, by row.
            BatchClosedError: the block has ended.
        """
        self._check_open()
        cleared = [id_ for id_ in check_listed_ids(ids) if id_ not in self._deletes]
        self._texts.update(dict.fromkeys(cleared))

    def clear_payloads(self, ids: Collection[str]) -> None:
        """Take the payloads of entries away; raises as `clear_texts` does."""
        self._check_open()
        cleared = [id_ for id_ in check_listed_ids(ids) if id_ not in self._deletes]
        self._payloads.update(dict.fromkeys(cleared))

    def delete(self, ids: Collection[str]) -> None:
        """Remove entries; an id that the collection does not hold is no error.

        Raises:
            InvalidEntriesError: empty or repeated ids, by row.
            BatchClosedError: the block has ended.
        """
        self._check_open()
        checked = check_listed_ids(ids)
        changes: Sequence[dict[str, Any]] = (self._texts, self._payloads, self._embedded_of)
        for changed in changes:
            for id_ in changed.keys() & checked:
                del changed[id_]
        self._upserted.difference_update(checked)
        self._deletes.update(dict.fromkeys(checked))

    def __len__(self) -> int:
        """How many entries it changes so far."""
        changed = self._upserted
        if self._texts or self._payloads:
            changed = changed | self._texts.keys() | self._payloads.keys()
        return len(changed) + len(self._deletes)

    def __bool__(self) -> bool:
        """Always true: an empty batch is still a batch (ask ``len(batch)``)."""
        return True

    @property
    def commit(self) -> Commit:
        """What was committed.

        Raises:
            NotCommittedError: the block has not ended (nor that of `Producer.batches` around it),
                ended by an exception, or changed nothing; or its commit raised, and the message
                says whether to repeat the batch.
        """
        if self._outcome.commit is None:
            raise NotCommittedError(self.collection, self._outcome.no_commit)
        return self._outcome.commit

    @property
    def session(self) -> "SessionToken":
        """What a reader has to contain so that it has this batch; raises as `commit`."""
        return self.commit.session

    @property
    def announced(self) -> bool:
        """Whether the event was added; if not, the reconcile loop finds the commit."""
        return self._outcome.announced

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._check_open()
        self._ended = True
        changes = BatchChanges(
            collection=self.collection,
            batch_id=self.batch_id,
            upserts=self._upserts,
            texts=self._texts,
            payloads=self._payloads,
            deletes=list(self._deletes),
            embedded=self._embedded_of,
        )
        changed = len(self)
        # What was gathered may be large, and the job may keep the batch for its commit.
        self._upserts, self._upserted = [], set()
        self._texts, self._payloads, self._deletes, self._embedded_of = {}, {}, {}, {}
        if error is not None:
            self._outcome.no_commit = f"its block ended by {type(error).__name__}"
        elif not changed:
            self._outcome.no_commit = "nothing was changed"
        else:
            self._submit(
                PendingBatch(changes=changes, outcome=self._outcome, traceparent=self._traceparent)
            )

    def _check_open(self) -> None:
        if self._ended:
            raise BatchClosedError(self.collection)

    def _reset_deleted(self, ids: Sequence[str]) -> None:
        """An entry that was deleted and is upserted again has no text or payload of before."""
        for id_ in ids:
            if id_ in self._deletes:
                del self._deletes[id_]
                self._texts[id_] = self._payloads[id_] = None

    def _refuse_deleted(self, ids: Sequence[str]) -> None:
        deleted = [id_ for id_ in ids if id_ in self._deletes] if self._deletes else []
        if deleted:
            raise UnknownEntriesError(self.collection, deleted)


class Batches:
    """Batches of any collections that are committed together; made by `Producer.batches`.

    Leaving the block normally commits all whose own blocks ended normally, leaving it by an
    exception commits nothing. Batches may be open at the same time, each on a thread of its own.
    """

    def __init__(self, committer: "Committer") -> None:
        self._committer = committer
        self._pending: list[PendingBatch] = []
        self._gathering = threading.Lock()
        self._outcomes: tuple[BatchOutcome, ...] = ()
        self._ended = False

    def batch(
        self, collection: str, batch_id: str | None = None, *, traceparent: str | None = None
    ) -> Batch:
        """A batch for one ``with`` block inside of this one; as `Producer.batch`.

        Its `Batch.commit` is there when this block has ended. The same ``batch_id`` a second time
        in one collection has to be the same batch: it commits nothing, and gets the commit of the
        first one.
        """
        return self._committer.batch(
            collection, batch_id, traceparent=traceparent, submit=self._gather
        )

    def batch_completed(
        self, collection: str, *, batch_id: str | None = None, traceparent: str | None = None
    ) -> None:
        """Commit with the others that a collection whose entries live elsewhere has new ones.

        Raises what `Producer.batch_completed` raises before the commit.
        """
        check_traceparent(traceparent)
        batch_id = _checked_id(batch_id)
        self._committer.declare(collection, own_data=True)
        changes = BatchChanges(collection=collection, batch_id=batch_id, own_data=True)
        self._gather(PendingBatch(changes=changes, traceparent=traceparent))

    def __len__(self) -> int:
        """How many batches wait for the end of the block, or were to be committed at its end."""
        return len(self._pending) or len(self._outcomes)

    def __bool__(self) -> bool:
        """Always true: no batches yet are still `Batches` (ask ``len(batches)``)."""
        return True

    @property
    def commits(self) -> tuple[Commit, ...]:
        """What was committed, in the order in which the batches' blocks ended; empty before."""
        return tuple(each.commit for each in self._outcomes if each.commit is not None)

    @property
    def session(self) -> "SessionToken":
        """What a reader has to contain so that it has what was committed."""
        from indexrelay.schemas.session import SessionToken

        return SessionToken().merge(*(each.session for each in self.commits))

    @property
    def announced(self) -> bool:
        """Whether the events were added; if not, the reconcile loop finds the commits."""
        return bool(self._outcomes) and all(each.announced for each in self._outcomes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._gathering:
            self._ended = True
            pending, self._pending = self._pending, []
        if error is not None:
            for each in pending:
                each.outcome.no_commit = f"the block of its batches ended by {type(error).__name__}"
        elif pending:
            self._outcomes = tuple(each.outcome for each in pending)
            self._committer.commit(pending)

    def _gather(self, pending: PendingBatch) -> None:
        pending.outcome.no_commit = "the block of its batches has not ended"
        with self._gathering:
            if self._ended:
                raise BatchClosedError(pending.changes.collection)
            self._pending.append(pending)


class Committer:
    """Commits batches, then announces them; safe to use from several threads.

    The commit goes first and the event after it. The catalog is the truth, so a commit whose event
    could not be sent is delayed by one reconcile round, never lost; the other way round a rebuild
    could look before there is anything to see.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        catalog: Catalog,
        events: EventSender,
        changes: ChangeSender | None,
        embedders: "Embedders | None" = None,
    ) -> None:
        """``embedders``: those of this process; ``None``: made when one is first needed."""
        self._settings = settings
        self._embedders = embedders
        self._catalog = catalog
        self._events = events
        self._changes = changes
        self._tracing = tracing_of(settings)

    def batch(
        self,
        collection: str,
        batch_id: str | None,
        *,
        traceparent: str | None,
        submit: Submit | None = None,
        declared: CollectionSettings | None = None,
    ) -> Batch:
        """A batch of a collection, which is declared where it is missing.

        Args:
            collection: its name in the settings.
            batch_id: ``None``: drawn.
            traceparent: a W3C trace context that the event carries along.
            submit: takes it at the end of its block; ``None``: it is committed at once.
            declared: its settings, where it is known to be declared in the catalog.

        Raises:
            ValueError: ``traceparent`` is none.
            InvalidBatchIdError: the catalog cannot store the id.
            Error: as `declare`.
        """
        check_traceparent(traceparent)
        batch_id = _checked_id(batch_id)
        declared = declared or self.declare(collection, own_data=False)
        return Batch(
            collection,
            batch_id,
            declared=declared,
            submit=submit or (lambda pending: self.commit([pending])),
            traceparent=traceparent,
            embed=None if declared.embedder is None else partial(self._embed, collection),
        )

    def _embed(self, collection: str, texts: Sequence[str]) -> Vectors:
        """The vectors of texts, by the collection's embedder.

        Raises:
            EmbeddingError: one of them has none.
            EmbedderFunctionError: the function cannot be imported.
        """
        from indexrelay.components.embedder import Embedders

        if self._embedders is None:
            self._embedders = Embedders(self._settings)
        embedder = self._embedders.of(collection)
        if embedder is None:
            raise UndeclaredCollectionError(collection, self._settings.collections)
        found = embedder.embed(texts)
        found.raise_for_failures()
        return found.vectors

    def declare(self, name: str, *, own_data: bool) -> CollectionSettings:
        """Declare a collection in the catalog where it is missing; its settings.

        Args:
            name: its name in the settings.
            own_data: whether its job keeps the entries elsewhere.

        Raises:
            UndeclaredCollectionError: the settings do not declare it.
            WrongSourceError: its source is not of the kind that ``own_data`` asks for.
            CollectionMismatchError: it exists with another dimension or metric.
        """
        settings = self._settings.collections.get(name)
        if settings is None:
            raise UndeclaredCollectionError(name, self._settings.collections)
        if own_data == (settings.source.kind == "catalog"):
            raise WrongSourceError(name, settings.source.kind)
        self._catalog.collections.declare(
            name, dimension=settings.dimension, metric=settings.metric
        )
        return settings

    def commit(self, pending: Sequence[PendingBatch]) -> None:
        """Commit batches in one transaction, then add their events in one round trip.

        Raises:
            BackPressureError: the commits stand, but Redis or the rebuilders cannot follow.
        """
        for each in pending:
            each.outcome.no_commit = "its commit failed"
        with self._traced(pending) as traceparents:
            commits = self._catalog.entries.commit_many([each.changes for each in pending])
            for each, commit in zip(pending, commits, strict=True):
                each.outcome.commit = commit
            announced = self.announce(commits, traceparents)
        for each in pending:
            each.outcome.announced = announced

    @contextmanager
    def _traced(self, pending: Sequence[PendingBatch]) -> Iterator[list[str | None]]:
        """The trace context of each batch: that of its span, where the settings ask for traces."""
        given = [each.traceparent for each in pending]
        if self._tracing is None:
            yield given
            return
        with ExitStack() as stack:
            yield [
                stack.enter_context(
                    self._tracing.span(
                        "indexrelay.batch",
                        parent=each.traceparent,
                        collection=each.changes.collection,
                        batch_id=each.changes.batch_id,
                    )
                )
                for each in pending
            ]

    def commit_each(self, pending: Sequence[PendingBatch]) -> list[Commit | IndexRelayError]:
        """Commit batches of several writers in one transaction; the outcome of each, in its place.

        They are not announced yet: the writers can be answered before.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: see `EntryLog.commit_each`.
        """
        return self._catalog.entries.commit_each([each.changes for each in pending])

    def announce(self, commits: Sequence[Commit], traceparents: Sequence[str | None]) -> bool:
        """Send the changes and add the event of each commit; whether the events were added.

        Raises:
            BackPressureError: they were not, and the commits stand.
        """
        if self._changes is not None:
            self._changes.send(commits)  # before the events, which may raise
        return self._events.announce(commits, traceparents)


_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]{1,256})?")
"""Later versions may append to what version 00 has."""


def check_traceparent(given: str | None) -> None:
    """Refuse what an event cannot carry before the commit, while nothing is written yet.

    Raises:
        ValueError: it is no trace context.
    """
    if given is None or (isinstance(given, str) and _TRACEPARENT.fullmatch(given)):
        return
    raise ValueError(
        f"traceparent={given!r:.100}: a W3C trace context, 00-<32 hex>-<16 hex>-<2 hex>"
    )


def _forget_given(
    changed: dict[str, ValueT], ids: Sequence[str], given: Sequence[str | None]
) -> None:
    """Drop what was said before of entries for which a value is given now."""
    if changed:
        for id_, value in zip(ids, given, strict=True):
            if value is not None:
                changed.pop(id_, None)


def _refuse_missing(
    what: str, instead: str, values: Sequence[str | None], ids: Sequence[str]
) -> None:
    rows = [row for row, value in enumerate(values) if value is None]
    if rows:
        raise InvalidEntriesError(
            f"{what} that is None; {instead}() takes one away", rows=rows, ids=ids
        )


def _checked_id(batch_id: str | None) -> str:
    """The id of a batch, or one that is drawn."""
    if batch_id is None:
        return secrets.token_hex(16)
    check_batch_id(batch_id)
    return batch_id
