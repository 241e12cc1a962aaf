"""The kind: call the function, write its document twice, and serve both."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import AfterValidator, Field

from indexrelay.components.errors import DocumentFunctionError
from indexrelay.components.json_cache.document import compress, count_items, encode
from indexrelay.components.json_cache.function import (
    call_function,
    check_function_name,
    resolve_function,
)
from indexrelay.components.json_cache.gates import judged
from indexrelay.components.json_cache.inputs import CollectionReader
from indexrelay.components.json_cache.served import CachedDocument, check_packed
from indexrelay.components.kind import Built, Job, Kind, KindParameters
from indexrelay.components.small_file import read_small
from indexrelay.schemas.versions import Check

DOCUMENT = "document.json"
GZIPPED = "document.json.gz"


class JsonCacheParameters(KindParameters):
    """The keys of a ``kind = "json_cache"`` table."""

    function: Annotated[str, AfterValidator(check_function_name)]
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


class JsonCache(Kind[CachedDocument]):
    """A JSON document computed from collections and components by a function that the user names.

    A version's ``entries`` are the document's own items (`document.count_items`), not those of its
    inputs: an emptied document then counts as shrunk even where its inputs are as large as ever.
    """

    Parameters = JsonCacheParameters

    def lacks(self) -> Iterator[str]:
        """The function, where it cannot be imported."""
        try:
            resolve_function(self._parameters.function)
        except DocumentFunctionError as error:
            yield str(error)

    def build(self, job: Job) -> Built:
        """Call the function and write its document.

        Raises:
            DocumentFunctionError: the function cannot be found or does not take the arguments.
            DocumentError: what it returned is not JSON; the message gives the path inside it.
        """
        parameters = self._parameters
        document = call_function(parameters.function, _inputs(job), parameters.arguments)
        job.progress(0.8)
        body = encode(document)
        gzipped = compress(body)
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
        return judged(
            files[DOCUMENT],
            files[GZIPPED],
            entries=built.entries,
            max_bytes=self._parameters.max_bytes,
            may_be_empty=self._parameters.allow_empty or _entries_of_inputs(job) == 0,
        )

    def load(self, files: Mapping[str, Path]) -> CachedDocument:
        """Read both forms.

        Raises:
            DamagedFileError: they are not one document, or larger than ``max_bytes``.
        """
        most = self._parameters.max_bytes
        body = read_small(files[DOCUMENT], most)
        # What gzip cannot make smaller it makes larger by a few bytes for each 16 kB.
        gzipped = read_small(files[GZIPPED], most + most // 1000 + 100)
        check_packed(files[GZIPPED], gzipped, body)
        return CachedDocument(body, gzipped, path=files[DOCUMENT])

    @property
    def _parameters(self) -> JsonCacheParameters:
        return cast("JsonCacheParameters", self.parameters)


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
