"""`LayeredKind`: a kind that stores one row for each entry and follows small batches.

Derive from it where what is stored for an entry follows from that entry alone. The kind names its
columns, computes their values for a chunk of entries, and opens a version for serving; builds and
gates are here. A small batch costs what changed: rows are computed for the changes only, compared
bit for bit with the last version, and written beside its base. Where the delta or the tombstones
would outgrow their limits, everything is written again.
"""

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
from pydantic import Field

from indexrelay.components.errors import ContractError
from indexrelay.components.formats.entry_tables import IdTable
from indexrelay.components.formats.string_table import Rows
from indexrelay.components.kind import (
    Built,
    Job,
    Kind,
    KindParameters,
    PreviousVersion,
    Verdict,
    count_gate,
    equal,
    judge,
    reads_back,
)
from indexrelay.components.layered.build import (
    Full,
    Increment,
    LayerLimits,
    build_details,
    changes_of,
    incremental_or_full,
    inherit_all,
    numbered_chunks,
    read_batch,
    refuse_infinite,
)
from indexrelay.components.layered.columns import Column, LayeredTable, LayeredTexts
from indexrelay.components.layered.layers import IDS, LAYER_FILES
from indexrelay.components.layered.succession import InputRows, Unchanged, succeed
from indexrelay.components.served import Served
from indexrelay.schemas.versions import BlobRef, Check, VersionManifest
from indexrelay.storage.entries import Entries, SourceSnapshot


class LayeredParameters(KindParameters):
    """The keys of every layered kind; derive from it to add some."""

    max_delta: Annotated[float, Field(ge=0, le=1)] = 0.10
    """Rows beside the base, as a share of it, above which everything is written again. 0.10: every
    build writes the delta, so this bounds what a batch costs. 0: always one piece."""

    max_tombstones: Annotated[float, Field(ge=0, le=1)] = 0.10
    """Rows of the base that are deleted or replaced, as a share of it, above which everything is
    written again. 0.10: they take disk and nothing else."""


ParametersT = TypeVar("ParametersT", bound=LayeredParameters)
ServedT_co = TypeVar("ServedT_co", bound=Served, covariant=True)


class LayeredKind(Kind[ParametersT, ServedT_co]):
    """A row for each entry of one collection, made from that entry alone."""

    columns: ClassVar[tuple[Column[Any], ...]] = ()
    """What is stored of each entry, besides its id."""
    revision: ClassVar[int] = 1
    """Increase it when `rows_of` gives other values for the same entries: versions of an earlier
    revision are then built again, from scratch."""
    max_inputs = 1
    takes_components = False

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        own = (file for column in cls.columns for file in (column.base_file, column.delta_file))
        twice = [file for file, times in Counter([IDS, *LAYER_FILES, *own]).items() if times > 1]
        if twice:
            raise TypeError(
                f"{cls.__name__}.columns: {', '.join(twice)} is taken; rename the column"
            )

    @classmethod
    def outdated(cls, manifest: VersionManifest) -> str | None:
        """Versions of an earlier revision."""
        if int(manifest.details.get("revision", 1)) >= cls.revision:
            return None
        return "its kind stores other values since it was built"

    @abstractmethod
    def rows_of(self, entries: Entries) -> Sequence[Any]:
        """The values of these entries, one array or list for each column, in its order.

        Equal entries give equal values. Vectors are finite. There may be no entry at all.
        """

    def checks(
        self,
        table: LayeredTable,  # noqa: ARG002 - for kinds that ask more
        source: SourceSnapshot,  # noqa: ARG002
        *,
        whole: bool,  # noqa: ARG002
    ) -> Iterator[Check]:
        """Further gates, beside those that compare ids and values with the collection.

        ``whole``: everything was written. Else only the delta was, beside a base that was checked
        when it was written.
        """
        return iter(())

    def build(self, job: Job) -> Built:
        """Write what changed beside the base of the previous version, or everything.

        Raises:
            UnusableInputError: it is not made from one collection, or a vector holds NaN or ±inf.
        """
        return incremental_or_full(
            job,
            lambda increment: self._extend(job, increment),
            lambda full: self._build_in_full(job, full),
        )

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:
        """Open the files again and compare them with the collection: every row, or what changed."""
        source = job.collection
        opened, table = reads_back(lambda: LayeredTable(files, self.columns))
        yield opened
        if table is None:
            return
        continued = job.previous if built.extends else None
        with closing(table):
            yield judge("count", lambda: count_gate(len(table), source, built))
            if continued is None:
                yield judge("ids_unique", lambda: equal(table.ids.base.check(), 0, "ids repeat"))
            yield from self.checks(table, source, whole=continued is None)
            if continued is None:
                yield judge("rows_match_source", lambda: self._all_match(table, source))
            else:
                yield from self._changes_match(table, source, continued)

    def _build_in_full(self, job: Job, full: Full) -> Built:
        source = job.collection
        files = {IDS: job.workdir / IDS}
        with ExitStack() as stack:
            ids = stack.enter_context(IdTable.writer(files[IDS]))
            writers = []
            for column in self.columns:
                path = files[column.base_file] = job.workdir / column.base_file
                writers.append(stack.enter_context(closing(column.writer(path, source.count))))
            for first, chunk in numbered_chunks(source):
                refuse_infinite(chunk)
                ids.extend(chunk.ids)
                for writer, values in zip(writers, self._values(chunk), strict=True):
                    writer.add(values)
                job.progress((first + len(chunk)) / source.count)
            if not source.count:
                for writer, values in zip(writers, self._values(_none(source)), strict=True):
                    writer.add(values)
        return self._built(files, full)

    def _extend(self, job: Job, increment: Increment) -> Built | Full:
        source, previous = job.collection, increment.previous
        outdated = self.outdated(previous.manifest)
        if outdated is not None:
            return Full(outdated)
        limits = LayerLimits(
            delta=self.parameters.max_delta, tombstones=self.parameters.max_tombstones
        )
        with closing(LayeredTable(previous.files, self.columns)) as last:
            batch = read_batch(
                source,
                increment.changes[source.collection],
                known=last.ids,
                differing=lambda chunk: self._differing(last, chunk),
                most=limits.most_changes(last.ids.layers),
            )
            if batch is None:
                return limits.too_many_changes
            if batch.empty:
                return inherit_all(previous)
            next_ = succeed(last.ids, InputRows.of_one(last.ids.layers), [batch.ids])
            outgrown = limits.outgrown(next_.layers)
            if outgrown is not None:
                return outgrown
            given = self._values(batch.upserts)
            written = next_.write(job.workdir)
            for column, values in zip(self.columns, given, strict=True):
                if not column.fits(last[column], values):
                    return Full(f"rows of {column.name} have another shape than before")
                path = written[column.delta_file] = job.workdir / column.delta_file
                column.write_delta(path, next_, last[column], values)
        job.progress(1.0)
        same = (IDS, *(column.base_file for column in self.columns))
        kept = {name: previous.manifest.files[name] for name in same}
        return self._built(written, None, kept, {name: previous.files[name] for name in same})

    def _built(
        self,
        written: Mapping[str, Path],
        full: Full | None,
        kept: Mapping[str, BlobRef] | None = None,
        kept_files: Mapping[str, Path] | None = None,
    ) -> Built:
        """Open what was written, and count it."""
        with closing(LayeredTable({**(kept_files or {}), **written}, self.columns)) as table:
            layers = table.ids.layers
            opened = {column.name: table[column] for column in self.columns}
            return Built(
                files={**(kept or {}), **written},
                entries=len(table),
                counts={
                    name: column.count()
                    for name, column in opened.items()
                    if isinstance(column, LayeredTexts)
                },
                extends=full is None,
                details={
                    "build": build_details(full),
                    "revision": self.revision,
                    "base": layers.base,
                    "delta": len(layers.places),
                    "tombstones": len(layers.tombstones),
                },
            )

    def _values(self, entries: Entries) -> list[Any]:
        """`rows_of`, as it is stored.

        Raises:
            ContractError: a column is missing, or has another number of rows.
        """
        given = self.rows_of(entries)
        if len(given) != len(self.columns):
            raise ContractError(
                f"rows_of gave {len(given)} columns; {type(self).__name__}.columns names "
                f"{len(self.columns)}"
            )
        values = [column.values(each) for column, each in zip(self.columns, given, strict=True)]
        for column, each in zip(self.columns, values, strict=True):
            if len(each) != len(entries):
                raise ContractError(
                    f"rows_of gave {len(each)} values of {column.name} for {len(entries)} entries"
                )
        return values

    def _differing(self, table: LayeredTable, entries: Entries) -> Rows:
        """The rows of ``entries`` that ``table`` does not hold bit for bit."""
        found = [table.ids.find(entry_id) for entry_id in entries.ids]
        known = np.array([each is not None for each in found], dtype=bool)
        same = known.copy()
        in_delta = np.array([each.in_delta for each in found if each is not None], dtype=bool)
        rows = np.array([each.row for each in found if each is not None], dtype=np.int64)
        numbers = np.flatnonzero(known)
        for column, values in zip(self.columns, self._values(entries), strict=True):
            some = values[known] if isinstance(values, np.ndarray) else [values[n] for n in numbers]
            same[numbers] &= table[column].holds(in_delta, rows, some)
        return np.flatnonzero(~same)

    def _all_match(self, table: LayeredTable, source: SourceSnapshot) -> Verdict:
        """Every id and every value stands in the row where the source has it."""
        first = 0
        for chunk in source.chunks():
            end = first + len(chunk)
            if table.ids[first:end] != chunk.ids:
                return Verdict(False, f"rows {first} to {end} name other entries than the source")
            for column, values in zip(self.columns, self._values(chunk), strict=True):
                if not table[column].is_block(first, values):
                    return Verdict(
                        False, f"rows {first} to {end} hold another {column.name} than the source"
                    )
            first = end
        return equal(first, len(table), "the source gives another number of entries")

    def _changes_match(
        self, table: LayeredTable, source: SourceSnapshot, continued: PreviousVersion
    ) -> Iterator[Check]:
        """What changed is as the source has it, and everything else as in the last version."""
        touched: set[str] = set()

        def changes_match() -> Verdict:
            wrong = 0
            for chunk in changes_of(source, continued.manifest.covers[source.collection]):
                touched.update(chunk.upserts.ids, chunk.deletes)
                wrong += len(self._differing(table, chunk.upserts))
                wrong += sum(entry_id in table.ids for entry_id in chunk.deletes)
            return equal(wrong, 0, "entries that changed are not as the source has them")

        yield judge("rows_match_source", changes_match)
        with closing(LayeredTable(continued.files, self.columns)) as last:
            unchanged = Unchanged(table.ids, last.ids, touched)
            yield judge("ids_unique", unchanged.unique)
            yield judge("ids_in_order", unchanged.in_order)
            yield judge(
                "unchanged_kept",
                lambda: unchanged.kept(
                    lambda new, was, count: all(
                        table[column].same_delta(new, last[column], was, count=count)
                        for column in self.columns
                    )
                ),
            )


def _none(source: SourceSnapshot) -> Entries:
    """A chunk without entries."""
    vectors = np.empty((0, source.dimension), dtype=np.float32)
    return Entries(ids=[], vectors=vectors, texts=[], payloads=[])
