"""The kind: write the database, judge it, open it."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, cast

from indexrelay.components.inputs import numbered_chunks, only_collection
from indexrelay.components.kind import Built, Job, Kind, KindParameters
from indexrelay.components.text_index.database import write_database
from indexrelay.components.text_index.gates import gates
from indexrelay.components.text_index.served import TextSearch
from indexrelay.components.text_index.tokens import Tokenizer
from indexrelay.schemas.versions import Check
from indexrelay.storage.entries import Entries

DATABASE: Final = "texts.db"


class TextIndexParameters(KindParameters):
    """The keys of a ``kind = "text_index"`` table."""

    tokenizer: Tokenizer = "unicode61 remove_diacritics 2"
    """How FTS5 cuts texts into words: as they are, without accents and case (the default); the
    same with English endings cut off (``porter …``); or any three characters (``trigram``), for
    languages without spaces and for parts of words."""


class TextIndex(Kind[TextSearch]):
    """BM25 over the texts of one collection, on SQLite's FTS5.

    An entry without a text is counted, and its payload can be asked for, but it is never found.
    """

    Parameters = TextIndexParameters
    max_inputs = 1

    def build(self, job: Job) -> Built:
        """Write the database in one pass.

        Raises:
            UnusableInputError: it is not made from one collection.
        """
        source = only_collection(job)

        def chunks() -> Iterator[tuple[int, Entries]]:
            for first, chunk in numbered_chunks(source):
                yield first, chunk
                job.progress(0.9 * (first + len(chunk)) / source.count)

        tokenizer = self._parameters.tokenizer
        texts = write_database(job.workdir / DATABASE, chunks(), tokenizer=tokenizer)
        job.progress(1.0)
        return Built(
            files={DATABASE: job.workdir / DATABASE},
            entries=source.count,
            details={"texts": texts, "tokenizer": tokenizer},
        )

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:
        """Open the file anew and hold it against the collection."""
        return gates(
            only_collection(job),
            built,
            files[DATABASE],
            tokenizer=self._parameters.tokenizer,
            scratch=job.workdir,
        )

    def load(self, files: Mapping[str, Path]) -> TextSearch:
        """Open a version for serving.

        Raises:
            DamagedFileError: its file is not what was written.
        """
        served = TextSearch(files[DATABASE])
        served.warm()
        return served

    @property
    def _parameters(self) -> TextIndexParameters:
        return cast("TextIndexParameters", self.parameters)
