"""The demo's embeddings: texts of like meaning are near each other, without a network."""

import socket

import numpy as np
import pytest

from indexrelay.console.demo import embedding as embedding_module
from indexrelay.console.demo.embedding import DIMENSION, Embedding
from indexrelay.schemas.errors import MissingExtraError

TEXTS = [
    "read a comma separated file row by row",
    "write rows to a comma separated file",
    "wait until a thread ends",
    "start a thread and run a function in it",
    "compress bytes into an archive",
    "extract members of an archive",
]


@pytest.fixture(scope="module")
def embedding() -> Embedding:
    return Embedding()


def test_vectors_are_of_unit_length_and_like_finds_like(embedding: Embedding) -> None:
    vectors, known = embedding(TEXTS)
    assert vectors.shape == (6, DIMENSION)
    assert vectors.dtype == np.float32
    assert known.all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    for question, answers in (
        ("join a worker that has finished", (2, 3)),
        ("load a csv table", (0, 1)),
        ("unpack a zip", (4, 5)),
    ):
        (vector,), _ = embedding([question])
        assert np.argmax(vectors @ vector) in answers, question


def test_a_text_without_a_token_has_no_vector(embedding: Embedding) -> None:
    vectors, known = embedding(["", "thread"])
    assert known.tolist() == [False, True]
    assert not vectors[0].any()


def test_no_text_gives_no_vector(embedding: Embedding) -> None:
    vectors, known = embedding([])
    assert vectors.shape == (0, DIMENSION)
    assert known.shape == (0,)


def test_a_text_has_the_same_vector_alone_and_among_others(embedding: Embedding) -> None:
    together, _ = embedding([*TEXTS, "a much longer text than any of them " * 50])
    for number, text in enumerate(TEXTS):
        np.testing.assert_array_equal(embedding([text])[0][0], together[number])


def test_no_network_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert Embedding()(TEXTS)[1].all()


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_module, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"indexrelay\[demo\]"):
        Embedding()
