"""The same questions to every reader, over HTTP, by vector and by words."""

from indexrelay.console.collecting import signals_of
from indexrelay.console.demo.declaring import TEXT_INDEX, VECTOR_INDEX
from indexrelay.console.demo.embedding import Embedding
from indexrelay.console.demo.report import Answer
from indexrelay.console.errors import CommandError
from indexrelay.console.installation import Installation
from indexrelay.console.reader_client import ReaderClient

QUESTIONS = (
    "read a csv file row by row",
    "split a path into folder and name",
    "parse a date and time from a string",
    "run a command and capture its output",
    "compress bytes with gzip",
    "wait until a thread has finished",
)
_ANSWERS = 5


def ask_all(installation: Installation, embedding: Embedding) -> tuple[Answer, ...]:
    """Each reader's answer to each question that the corpus has words for.

    Raises:
        CommandError: a reader has no service, does not answer, or refuses.
    """
    vectors, known = embedding(QUESTIONS)
    answers = []
    for state in signals_of(installation).readers.values():
        name = state.reader
        if state.address is None:
            raise CommandError(f"reader {name!r} says no address, so it cannot be asked")
        with ReaderClient(name, state.address) as client:
            for text, vector, has_vector in zip(QUESTIONS, vectors, known, strict=True):
                by_vector = (
                    client.search(VECTOR_INDEX, {"vector": vector.tolist(), "k": _ANSWERS})
                    if has_vector
                    else []
                )
                by_text = client.search(TEXT_INDEX, {"text": text, "k": _ANSWERS})
                answers.append(
                    Answer(
                        text=text,
                        reader=name,
                        top=tuple(hit["id"] for hit in by_vector),
                        top_by_text=tuple(hit["id"] for hit in by_text),
                        scores=tuple(hit["score"] for hit in (*by_vector, *by_text)),
                    )
                )
    return tuple(answers)
