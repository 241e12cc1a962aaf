"""A search over HTTP: what may be asked, and which method of the served object answers it.

An object that searches text has ``search(text, k=…)``; one that searches vectors has
``search(vector, k=…)`` and, to tell it from the other, ``search_by_id(id, k=…)``. Kinds of users
take part by having these methods.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from indexrelay.components.errors import InvalidQueryError
from indexrelay.components.hits import Hit

MAX_K = 1000
MAX_DIMENSION = 65_536
MAX_TEXT = 10_000


class SearchRequest(BaseModel):
    """Exactly one of ``vector``, ``id`` and ``text``, and how many hits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vector: Annotated[list[FiniteFloat], Field(min_length=1, max_length=MAX_DIMENSION)] | None = (
        None
    )
    id: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)] | None = None
    text: Annotated[str, Field(max_length=MAX_TEXT)] | None = None
    k: Annotated[int, Field(ge=1, le=MAX_K)] = 10

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        given = [name for name in ("vector", "id", "text") if getattr(self, name) is not None]
        if len(given) != 1:
            asked = " and ".join(given) or "none of them"
            raise ValueError(f"give exactly one of vector, id and text, not {asked}")
        return self


def search(served: Any, request: SearchRequest) -> Sequence[Hit]:
    """Ask the served object.

    Raises:
        InvalidQueryError: it does not answer that kind of question, or not this one.
        UnknownEntryError: it holds no entry of that id.
    """
    by_vector = hasattr(served, "search_by_id")
    by_text = hasattr(served, "search") and not by_vector
    hits: Sequence[Hit]
    if request.id is not None and by_vector:
        hits = served.search_by_id(request.id, k=request.k)
    elif request.vector is not None and by_vector:
        hits = served.search(np.asarray(request.vector, dtype=np.float32), k=request.k)
    elif request.text is not None and by_text:
        hits = served.search(request.text, k=request.k)
    else:
        answers = "a vector or an id" if by_vector else "a text" if by_text else "no search"
        raise InvalidQueryError(f"this component answers {answers}")
    return hits
