"""What names, texts and numbers may be, and the digest of a JSON value.

A name becomes a Redis key, a folder and a line in a log, so the alphabet is the one that is
safe in all three. No name becomes part of a path before it has matched its pattern.

Everything that is kept, sent or shown has a limit, so that no one can fill a catalog, a server's
memory or a log through it. Texts are shortened where they come in, by the models themselves.

Digests are taken over one canonical form of JSON: sorted keys, no white space, UTF-8, no NaN.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Final, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, StringConstraints

NAME_PATTERN = r"^[a-z][a-z0-9_]{0,63}$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""A collection, component, group or namespace."""
DIGEST_PATTERN = r"^[0-9a-f]{64}$"
Digest = Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)]
"""A sha256 in lower-case hexadecimal: a blob, a version id, a definition, a release's content."""
READER_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$"
ReaderId = Annotated[str, StringConstraints(pattern=READER_PATTERN)]
"""The label of a reader or rebuilder: stable across its restarts, and several processes may have
the same one."""
INSTANCE_PATTERN = r"^[0-9a-f]{0,32}$"
Instance = Annotated[str, StringConstraints(pattern=INSTANCE_PATTERN)]
"""One process among those under a label: drawn at random when it starts, and again in a forked
child. Neither a process number nor a host name is enough: both repeat, on one host and among
containers. Empty where schema 1.0 wrote it."""
FILE_PATTERN = r"^[a-z0-9][a-z0-9_.-]{0,63}$"
FileName = Annotated[str, StringConstraints(pattern=FILE_PATTERN)]
"""The label of a file inside a version (``index.faiss``); a label, never a path."""
IDENTIFIER_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]{0,62}$"
Identifier = Annotated[str, StringConstraints(pattern=IDENTIFIER_PATTERN)]
"""A table or column of a user's own database."""
BatchId = Annotated[str, StringConstraints(min_length=1, max_length=200)]
"""What an analysis job calls one batch; the same id again is the same batch."""


def is_name(text: str) -> bool:
    """Whether ``text`` may name a collection or a component."""
    return re.fullmatch(NAME_PATTERN[1:-1], text) is not None


def is_file_name(text: str) -> bool:
    """Whether ``text`` may be the label of a file inside a version."""
    return re.fullmatch(FILE_PATTERN[1:-1], text) is not None


def member_id(label: str, instance: str) -> str:
    """The name under which one process is present: ``web-1:5f3a…``, or the label alone."""
    return f"{label}:{instance}" if instance else label


def split_member_id(member: str) -> tuple[str, str]:
    """The label and the instance of a `member_id`; no label contains a colon."""
    label, _, instance = member.partition(":")
    return label, instance


MAX_COMPONENTS: Final = 1000
"""Components, and collections, that one installation may have: so many names fit into one message
beside everything else."""
MAX_ERROR: Final = 2000
"""Characters of one error: a sentence and the place; a log has the rest."""
MAX_MESSAGE: Final = 4000
"""Characters of the sentence that sums a rebuild up."""
MAX_ATTRIBUTE: Final = 1000
"""Characters of an envelope's attribute: ours take a hundred."""
MAX_TRACEPARENT: Final = 320
"""Characters of a W3C trace context with the longest suffix that we carry."""
_TAIL: Final = 4
"""One part in so many of a shortened text is its end, where the cause often stands."""


def shortened(text: str, most: int) -> str:
    """``text`` in at most ``most`` characters, its beginning and its end, as valid Unicode."""
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, as in a file's name that is no text
        text = text.encode(errors="backslashreplace").decode()
    if len(text) > most:
        gap = f" … ({len(text) - most} characters and more left out) … "
        room = most - len(gap)
        tail = room // _TAIL
        text = text[: room - tail] + gap + text[len(text) - tail :]
    return text


def visible(text: str) -> str:
    r"""``text`` with everything unprintable as ``\xNN``, ``\uNNNN`` or ``\UNNNNNNNN``."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _code(ord(each)) for each in text)


def shown(text: str, most: int = MAX_ERROR) -> str:
    """Text that anybody may have written, for people: at most ``most`` characters, and visible line
    by line."""
    lines = shortened(text, most).expandtabs(4).split("\n")
    return shortened("\n".join(map(visible, lines)), most)


def _code(point: int) -> str:
    if point < 0x100:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def _shortener(most: int) -> BeforeValidator:
    return BeforeValidator(
        lambda text: shortened(text, most) if isinstance(text, str) else text,
        json_schema_input_type=str,
    )


ErrorText = Annotated[str, StringConstraints(max_length=MAX_ERROR), _shortener(MAX_ERROR)]
"""An error in words; a longer one is shortened."""
MessageText = Annotated[str, StringConstraints(max_length=MAX_MESSAGE), _shortener(MAX_MESSAGE)]
"""A sentence that sums something up; a longer one is shortened."""
Attribute = Annotated[str, StringConstraints(max_length=MAX_ATTRIBUTE)]
"""An attribute of an envelope."""
ModelT = TypeVar("ModelT", bound=BaseModel)


def fitted(
    model: ModelT, most_bytes: int, steps: Iterable[tuple[str, Callable[[ModelT], ModelT]]]
) -> tuple[ModelT, tuple[str, ...]]:
    """``model`` with so much left out that its JSON fits into ``most_bytes``.

    Args:
        steps: by what each leaves out, in the order in which it may be missed; the last one leaves
            something that always fits.

    Returns:
        The model, and what was left out.

    Raises:
        ValueError: it does not fit after the last step: a mistake in the steps.
    """
    left_out: list[str] = []
    remaining = iter(steps)
    while len(model.model_dump_json().encode()) > most_bytes:
        step = next(remaining, None)
        if step is None:
            raise ValueError(f"a {type(model).__name__} does not fit into {most_bytes} bytes")
        what, shorten = step
        model = shorten(model)
        left_out.append(what)
    return model, tuple(left_out)


def canonical_json(value: Any) -> bytes:
    """Write ``value`` (JSON types only) in its one canonical form.

    Raises:
        ValueError: a NaN or an infinity is in it.
        TypeError: something in it is not a JSON type.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def sha256_hex(data: bytes) -> str:
    """The sha256 of ``data`` in lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def truths_as_text(model: type[BaseModel], table: Any) -> Any:
    """The table, with ``"true"`` and ``"false"`` where truth values stand for numbers."""
    if not isinstance(table, Mapping):
        return table
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    return {
        key: _as_text(value) if key in fields and _is_number(fields[key].annotation) else value
        for key, value in table.items()
    }


def _as_text(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_as_text(each) for each in value]
    return str(value).lower() if isinstance(value, bool) else value


def _is_number(annotation: Any) -> bool:
    """Whether the type takes numbers, and no truth values."""
    kinds = set(_kinds(annotation))
    return bool(kinds & {int, float}) and bool not in kinds


def _kinds(annotation: Any) -> list[Any]:
    parts = [part for part in get_args(annotation) if not isinstance(part, bool | str)]
    return [annotation, *(kind for part in parts for kind in _kinds(part))]
