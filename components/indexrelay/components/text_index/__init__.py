"""BM25 over the texts of one collection, in one immutable SQLite file (FTS5).

One analyser cuts texts and queries alike (`analyser`). A build writes the `database` from scratch,
or applies what changed to a copy of the last version's file (`changes`): terms are kept in segments
that FTS5 merges bit by bit, so scores are those of a new file. The `gates` open the file again, and
readers search it over any number of threads (`search`).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Final

from pydantic import Field, field_validator

from indexrelay.components.formats.field_columns import memory_of_columns
from indexrelay.components.golden import (
    GOLDEN_KEYS,
    GoldenParameters,
    GoldenQuery,
    golden_gates,
)
from indexrelay.components.kind import Built, Job, Kind, Verdict, judge
from indexrelay.components.layered.build import (
    Full,
    Increment,
    build_details,
    changes_of,
    incremental_or_full,
    inherit_all,
    numbered_chunks,
)
from indexrelay.components.query import TextKeywords
from indexrelay.components.text_index.analyser import REVISION, Analyser, Tokenizer
from indexrelay.components.text_index.changes import CannotExtendError, change_database
from indexrelay.components.text_index.database import (
    Counts,
    count_payloads,
    open_database,
    write_database,
)
from indexrelay.components.text_index.fields import BASE_FILES as FIELD_BASE
from indexrelay.components.text_index.fields import TextFields, TextFieldsWriter
from indexrelay.components.text_index.gates import full_gates, incremental_gates
from indexrelay.components.text_index.search import TextSearch
from indexrelay.schemas.filters import FilterableFields
from indexrelay.schemas.gates import GateSettings
from indexrelay.schemas.versions import Check, VersionManifest
from indexrelay.storage.entries import Entries

__all__ = ["TextIndex", "TextIndexParameters", "TextKeywords", "TextSearch"]

_FORMER: Final = {
    "unicode61 remove_diacritics 2": "words",
    "porter unicode61 remove_diacritics 2": "english",
}
"""Values that earlier releases took, and their successors."""


class TextIndexParameters(GoldenParameters):
    """How texts become words, and whether there have to be any."""

    golden_by: ClassVar[frozenset[str]] = frozenset({"text"})

    tokenizer: Tokenizer = "words"
    """What is looked up of a text: its words, without case and accents, whatever the script
    (``words``, the default); the same with English endings cut off (``english``); or any three
    characters of a word (``trigram``), so that parts of words are found."""

    allow_empty: bool = False
    """Whether it may be released although no entry has a text with a word in it: else a job that
    gives none would only be noticed by those who search."""

    filterable: FilterableFields = Field(default_factory=dict)
    """Taken from the collection, where it is declared: do not give it here."""

    @field_validator("tokenizer", mode="before")
    @classmethod
    def _name_successor(cls, value: Any) -> Any:
        if isinstance(value, str) and (successor := _FORMER.get(value)):
            raise ValueError(
                f'FTS5 no longer cuts the texts: write tokenizer = "{successor}", or leave it out'
                if successor == "words"
                else f'FTS5 no longer cuts the texts: write tokenizer = "{successor}"'
            )
        return value


DATABASE: Final = "texts.db"
_FIELDS: Final = "fields_match_payloads"


class TextIndex(Kind[TextIndexParameters, TextSearch]):
    """BM25 over the texts of one collection, on SQLite's FTS5.

    An entry without a text is counted, and its payload can be asked for, but it is never found.
    """

    gate_parameters = GOLDEN_KEYS
    max_inputs = 1
    takes_components = False
    most_changed: ClassVar[float] = 0.2
    """Share of the entries that may change before the file is written from scratch. Applying that
    many takes about a third of the time of writing all, and leaves the file a tenth larger."""

    @classmethod
    def outdated(cls, manifest: VersionManifest) -> str | None:
        """Versions whose texts were cut by an earlier analyser, or by none."""
        revision = re.match(r"\w+/(\d+)", str(manifest.details.get("analyser")))
        if revision is not None and int(revision[1]) >= REVISION:
            return None
        return "texts are cut in another way since it was built"

    def build(self, job: Job) -> Built:
        """Apply what changed to a copy of the last version's file, or write a new one in one pass.

        Raises:
            UnusableInputError: it is not made from one collection.
        """
        return incremental_or_full(
            job,
            lambda increment: self._extend(job, increment),
            lambda full: self._build_in_full(job, full),
        )

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:
        """Open the file again and compare it with the collection: every entry, or what changed."""
        source, path, empty = job.collection, files[DATABASE], self.parameters.allow_empty
        if built.extends and job.previous is not None:
            gates = incremental_gates(
                source,
                built,
                path,
                continued=job.previous,
                last=job.previous.files[DATABASE],
                analyser=self._analyser,
                allow_empty=empty,
            )
        else:
            gates = full_gates(
                source, built, path, analyser=self._analyser, allow_empty=empty, scratch=job.workdir
            )
        if self.parameters.filterable:
            fields = (judge(name, lambda: self._fields(job, built, files)) for name in (_FIELDS,))
            gates = chain(gates, fields)
        return golden_gates(gates, self.parameters, load=lambda: self.load(files), ask=_answer)

    def validate(
        self, files: Mapping[str, Path], manifest: VersionManifest, asked: GateSettings
    ) -> Iterable[Check]:
        """Whether it opens, and what its golden queries find."""
        gates = super().validate(files, manifest, asked)
        return golden_gates(gates, self.parameters, load=lambda: self.load(files), ask=_answer)

    def load(self, files: Mapping[str, Path]) -> TextSearch:
        """Open a version for serving.

        Raises:
            CorruptFileError: its file is not what was written.
        """
        served = TextSearch(files[DATABASE], TextFields(files))
        served.warm()
        return served

    def _fields(self, job: Job, built: Built, files: Mapping[str, Path]) -> Verdict:
        """The columns are those that the payloads make."""
        source, path = job.collection, files[DATABASE]
        with closing(TextFields(files)) as fields, closing(open_database(path)) as connection:
            if not built.extends or job.previous is None:
                return fields.gate(connection, path, self.parameters.filterable)
            after = job.previous.manifest.covers[source.collection]
            changes = (each for chunk in changes_of(source, after) for each in chunk.upserts.ids)
            return fields.change_gate(connection, path, self.parameters.filterable, changes)

    def _extend(self, job: Job, increment: Increment) -> Built | Full:
        source, previous = job.collection, increment.previous
        if outdated := self.outdated(previous.manifest):
            return Full(outdated)
        path, last = job.workdir / DATABASE, previous.files[DATABASE]
        with closing(TextFields(previous.files)) as fields:
            if fields.columns.fields != self.parameters.filterable:
                return Full("the last version has other filterable fields")
        before = int(previous.manifest.details.get("changed", 0))
        try:
            change = change_database(
                path,
                last,
                increment.changes[source.collection],
                analyser=self._analyser,
                before=before,
                most=int(self.most_changed * previous.manifest.entries),
            )
        except CannotExtendError as error:
            return Full(str(error))
        applied = change.applied
        if not applied.changes:
            path.unlink()
            return inherit_all(previous)
        with closing(TextFields(previous.files)) as fields:
            files = fields.extend(job.workdir, path, change.rows)
        same = {name: blob for name, blob in previous.manifest.files.items() if name in FIELD_BASE}
        with closing(TextFields({**previous.files, **files})) as fields:
            filterable = fields.columns.details()
        job.progress(1.0)
        return Built(
            files={DATABASE: path, **same, **files},
            entries=change.counts.entries,
            counts={"texts": change.counts.texts, "payloads": count_payloads(path)},
            extends=True,
            details={
                "build": build_details(None),
                **self._details(change.counts),
                "changed": before + applied.changes,
                "moved": applied.moved,
                **filterable,
            },
        )

    def _build_in_full(self, job: Job, full: Full) -> Built:
        source = job.collection
        job.memory.hold(memory_of_columns(source.count, self.parameters.filterable))
        fields = TextFieldsWriter(self.parameters.filterable, source.count)

        def chunks() -> Iterator[tuple[int, Entries]]:
            for first, chunk in numbered_chunks(source):
                yield first, chunk
                fields.extend(first, chunk.payloads)
                job.progress(0.9 * (first + len(chunk)) / source.count)

        path = job.workdir / DATABASE
        path.unlink(missing_ok=True)
        counts = write_database(path, chunks(), analyser=self._analyser)
        files = fields.write(job.workdir)
        with closing(TextFields(files)) as written:
            filterable = written.columns.details()
        job.progress(1.0)
        return Built(
            files={DATABASE: path, **files},
            entries=source.count,
            counts={"texts": counts.texts, "payloads": count_payloads(path)},
            details={
                "build": build_details(full),
                **self._details(counts),
                "changed": 0,
                **filterable,
            },
        )

    def _details(self, counts: Counts) -> dict[str, Any]:
        return {
            "texts": counts.texts,
            "texts_without_words": counts.texts - counts.findable,
            "tokenizer": self.parameters.tokenizer,
            "analyser": self._analyser.identity,
        }

    @property
    def _analyser(self) -> Analyser:
        return Analyser(self.parameters.tokenizer)


def _answer(texts: TextSearch, query: GoldenQuery, k: int) -> Iterator[str]:
    """The ids of the best texts for one golden query."""
    return (hit.id for hit in texts.search(query.text or "", k=k))
