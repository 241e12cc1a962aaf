"""What is built: the contract of a kind, and the kinds that come along.

A kind meets the rest only in files; nothing in here builds, releases or reloads by itself. Each is
imported when a definition names it. All that a writer of a kind needs is imported from here, and
the toolbox of incremental kinds from `indexrelay.components.layered`; docs/kinds.md shows how.
"""

from indexrelay.components.errors import (
    CorruptFileError,
    InvalidQueryError,
    UnknownEntryError,
    UnusableInputError,
)
from indexrelay.components.golden import (
    GoldenParameters,
    GoldenQuery,
    golden_gates,
)
from indexrelay.components.kind import (
    Built,
    ComponentInput,
    Files,
    Goal,
    Improvable,
    Job,
    Kind,
    KindParameters,
    PreviousVersion,
    Trial,
    Verdict,
    equal,
    judge,
)
from indexrelay.components.query import EntriesServed, Entry, Explanation, Hits, ManyHits, Page
from indexrelay.components.registry import check_kind, kind_class, kind_of
from indexrelay.components.served import (
    Closable,
    Hit,
    Served,
    ServedDocument,
    ServedEmbeddings,
    TextSearchable,
    VectorSearchable,
    checked_k,
)
from indexrelay.schemas.versions import BlobRef, Check, VersionManifest
from indexrelay.storage.entries import Changes, Entries, SourceSnapshot, Vectors

__all__ = [
    "BlobRef",
    "Built",
    "Changes",
    "Check",
    "Closable",
    "ComponentInput",
    "CorruptFileError",
    "Entries",
    "EntriesServed",
    "Entry",
    "Explanation",
    "Files",
    "Goal",
    "GoldenParameters",
    "GoldenQuery",
    "Hit",
    "Hits",
    "Improvable",
    "InvalidQueryError",
    "Job",
    "Kind",
    "KindParameters",
    "ManyHits",
    "Page",
    "PreviousVersion",
    "Served",
    "ServedDocument",
    "ServedEmbeddings",
    "SourceSnapshot",
    "TextSearchable",
    "Trial",
    "UnknownEntryError",
    "UnusableInputError",
    "VectorSearchable",
    "Vectors",
    "Verdict",
    "VersionManifest",
    "check_kind",
    "checked_k",
    "equal",
    "golden_gates",
    "judge",
    "kind_class",
    "kind_of",
]
