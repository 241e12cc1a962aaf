"""The kind: write the database or change a copy of it, judge it, open it."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from indexrelay.components.kind import Built, Job, Kind
from indexrelay.components.layered.build import (
    Full,
    Increment,
    build_details,
    incremental_or_full,
    inherit_all,
    numbered_chunks,
)
from indexrelay.components.text_index.analyser import REVISION, Analyser
from indexrelay.components.text_index.changes import NoRoomError
from indexrelay.components.text_index.database import (
    Counts,
    OtherAnalyserError,
    TooManyChangesError,
    change_database,
    count_payloads,
    write_database,
)
from indexrelay.components.text_index.gates import gates, gates_of_change
from indexrelay.components.text_index.parameters import TextIndexParameters
from indexrelay.components.text_index.search import TextSearch
from indexrelay.schemas.versions import Check, VersionManifest
from indexrelay.storage.entries import Entries

DATABASE: Final = "texts.db"


class TextIndex(Kind[TextIndexParameters, TextSearch]):
    """BM25 over the texts of one collection, on SQLite's FTS5.

    An entry without a text is counted, and its payload can be asked for, but it is never found.
    """

    max_inputs = 1
    takes_components = False
    most_changed: ClassVar[float] = 0.2
    """Share of the entries that may change before the file is written anew. Applying so many takes
    about a third of the time of writing all, and leaves the file a tenth larger."""

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
            lambda continued: self._extend(job, continued),
            lambda mode: self._build_in_full(job, mode),
        )

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:
        """Open the file anew and hold it against the collection: every entry, or what changed."""
        source, parameters = job.collection, self.parameters
        if built.extends and job.previous is not None:
            return gates_of_change(
                source,
                built,
                files[DATABASE],
                continued=job.previous,
                last=job.previous.files[DATABASE],
                parameters=parameters,
            )
        return gates(source, built, files[DATABASE], parameters=parameters, scratch=job.workdir)

    def load(self, files: Mapping[str, Path]) -> TextSearch:
        """Open a version for serving.

        Raises:
            DamagedFileError: its file is not what was written.
        """
        served = TextSearch(files[DATABASE])
        served.warm()
        return served

    def _extend(self, job: Job, continued: Increment) -> Built | Full:
        source, previous = job.collection, continued.previous
        if outdated := self.outdated(previous.manifest):
            return Full(outdated)
        path, last = job.workdir / DATABASE, previous.files[DATABASE]
        before = int(previous.manifest.details.get("changed", 0))
        most = int(self.most_changed * previous.manifest.entries)
        try:
            change = change_database(
                path,
                last,
                continued.changes[source.collection],
                analyser=self._analyser,
                most=most - before,
            )
        except OtherAnalyserError as error:
            return Full(str(error))
        except TooManyChangesError:
            path.unlink()
            return Full(f"more than {self.most_changed:.0%} changed since it was written anew")
        except NoRoomError:
            path.unlink()
            return Full("new ids found no row numbers")
        applied = change.applied
        if not applied.changes:
            path.unlink()
            return inherit_all(previous)
        job.progress(1.0)
        return Built(
            files={DATABASE: path},
            entries=change.counts.entries,
            counts={"texts": change.counts.texts, "payloads": count_payloads(path)},
            extends=True,
            details={
                "build": build_details(None),
                **self._details(change.counts),
                "changed": before + applied.changes,
                "moved": applied.moved,
            },
        )

    def _build_in_full(self, job: Job, mode: Full) -> Built:
        source = job.collection

        def chunks() -> Iterator[tuple[int, Entries]]:
            for first, chunk in numbered_chunks(source):
                yield first, chunk
                job.progress(0.9 * (first + len(chunk)) / source.count)

        path = job.workdir / DATABASE
        path.unlink(missing_ok=True)
        counts = write_database(path, chunks(), analyser=self._analyser)
        job.progress(1.0)
        return Built(
            files={DATABASE: path},
            entries=source.count,
            counts={"texts": counts.texts, "payloads": count_payloads(path)},
            details={"build": build_details(mode), **self._details(counts), "changed": 0},
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
