"""The names that cross a boundary, and what each may look like.

A name becomes a Redis key, a folder and a line in a log, so the alphabet is the one that is
safe in all three. Nothing here ever becomes part of a path without having matched one of these.
"""

import re
from typing import Annotated

from pydantic import StringConstraints

NAME_PATTERN = r"^[a-z][a-z0-9_]{0,63}$"
DIGEST_PATTERN = r"^[0-9a-f]{64}$"
READER_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$"
IDENTIFIER_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]{0,62}$"
FILE_PATTERN = r"^[a-z0-9][a-z0-9_.-]{0,63}$"
INSTANCE_PATTERN = r"^[0-9a-f]{0,32}$"

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""A collection, component, group or namespace."""

Digest = Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)]
"""A sha256 in lower-case hexadecimal: a blob, a version id, a definition, a release's content."""

ReaderId = Annotated[str, StringConstraints(pattern=READER_PATTERN)]
"""The label of a reader or rebuilder: stable across its restarts, and several processes may have
the same one."""

Instance = Annotated[str, StringConstraints(pattern=INSTANCE_PATTERN)]
"""One process among those under a label: drawn at random when it starts, and again in a forked
child. Neither a process number nor a host name is enough: both repeat, on one host and among
containers. Empty where schema 1.0 wrote it."""

FileName = Annotated[str, StringConstraints(pattern=FILE_PATTERN)]
"""The label of a file inside a version (``index.faiss``); a label, never a path."""

Identifier = Annotated[str, StringConstraints(pattern=IDENTIFIER_PATTERN)]
"""A table or column of a user's own database."""

BatchId = Annotated[str, StringConstraints(min_length=1, max_length=200)]
"""What an analysis job calls one batch; the same id again is the same batch."""


def is_name(text: str) -> bool:
    """Whether ``text`` may name a collection or a component."""
    return re.fullmatch(NAME_PATTERN[1:-1], text) is not None


def member_id(label: str, instance: str) -> str:
    """The name under which one process is present: ``web-1:5f3a…``, or the label alone."""
    return f"{label}:{instance}" if instance else label


def split_member_id(member: str) -> tuple[str, str]:
    """The label and the instance of a `member_id`; no label contains a colon."""
    label, _, instance = member.partition(":")
    return label, instance


def is_file_name(text: str) -> bool:
    """Whether ``text`` may be the label of a file inside a version."""
    return re.fullmatch(FILE_PATTERN[1:-1], text) is not None
