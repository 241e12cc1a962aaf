"""What a name list, a text and a message may take, whoever wrote them.

Whatever is kept, sent or shown has a limit, so that nobody can fill a catalog, a server's memory or
a log through it. Texts are shortened where they come in: the models in `indexrelay.schemas.results`
do it, so that one that is read is as short as one that is written. A message that is too large as a
whole says less about each thing until it fits (`fitted`).
"""

from collections.abc import Callable, Iterable
from typing import Annotated, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, StringConstraints

MAX_COMPONENTS: Final = 1000
"""Components, and collections, that one installation may have: so many names fit into one message
beside everything else that it says."""

MAX_ERROR: Final = 2000
"""Characters of one error: a sentence and the place; a log has the rest."""

MAX_MESSAGE: Final = 4000
"""Characters of the sentence that sums a rebuild up."""

MAX_ATTRIBUTE: Final = 1000
"""Characters of what an envelope says beside its data: ours take a hundred."""

MAX_TRACEPARENT: Final = 320
"""Characters of a W3C trace context with the longest suffix that we carry."""

_TAIL: Final = 4
"""One part in so many of a shortened text is its end, where the cause often stands."""

ModelT = TypeVar("ModelT", bound=BaseModel)


def shortened(text: str, most: int) -> str:
    """``text`` in at most ``most`` characters, its beginning and its end, as valid Unicode."""
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair: a file's name that is no text, say
        text = text.encode(errors="backslashreplace").decode()
    if len(text) > most:
        gap = f" … ({len(text) - most} characters and more left out) … "
        room = most - len(gap)
        tail = room // _TAIL
        text = text[: room - tail] + gap + text[len(text) - tail :]
    return text


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
"""What an envelope says beside its data."""


def fitted(
    model: ModelT, most_bytes: int, steps: Iterable[tuple[str, Callable[[ModelT], ModelT]]]
) -> tuple[ModelT, tuple[str, ...]]:
    """``model`` with as much left out as it takes for its JSON to fit into ``most_bytes``.

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
