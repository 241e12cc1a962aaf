"""The demo's job: embeddings that mean something, and batches that add, change and delete."""

import numpy as np
import pytest

from indexrelay.console.demo.corpus import Document, Embedding, plan
from indexrelay.console.errors import CorpusError

DOCUMENTS = [
    Document(id=f"m:f{number}", text=f"Summary {number}.\n\nMore of {number}.", place="m")
    for number in range(200)
]
TEXTS = [
    "read a comma separated file row by row",
    "write rows to a comma separated file",
    "wait until a thread ends",
    "start a thread and run a function in it",
    "compress bytes into an archive",
    "extract members of an archive",
]


def test_every_document_comes_once_and_what_is_left_is_known() -> None:
    planned = plan(DOCUMENTS, batches=8)
    live: dict[str, str] = {}
    for batch in planned.batches:
        changed = {each.id for each in batch.upserts if each.id in live}
        assert len(changed) == batch.changed
        assert set(batch.deletes) <= live.keys()
        assert not set(batch.deletes) & {each.id for each in batch.upserts}
        for name in batch.deletes:
            del live[name]
        live.update({each.id: each.text for each in batch.upserts})
    assert live.keys() == planned.live
    assert len({batch.batch_id for batch in planned.batches}) == 8


def test_every_batch_but_the_first_changes_and_deletes() -> None:
    first, *others = plan(DOCUMENTS, batches=8).batches
    assert first.changed == 0
    assert first.deletes == ()
    assert all(batch.changed and batch.deletes for batch in others)


def test_a_change_gives_the_whole_text_where_the_summary_was() -> None:
    planned = plan(DOCUMENTS, batches=8)
    texts: dict[str, list[str]] = {}
    for batch in planned.batches:
        for each in batch.upserts:
            texts.setdefault(each.id, []).append(each.text)
    assert all(said[0].endswith(".") and "\n" not in said[0] for said in texts.values())
    changes = [said for said in texts.values() if len(said) > 1]
    assert changes
    assert all(len(said) == 2 and said[1].startswith(said[0]) for said in changes)


def test_the_same_corpus_gives_the_same_plan() -> None:
    assert plan(DOCUMENTS, batches=9) == plan(DOCUMENTS, batches=9)


def test_too_few_documents_are_refused() -> None:
    with pytest.raises(CorpusError, match="takes at least 400"):
        plan(DOCUMENTS, batches=100)


def test_vectors_are_of_unit_length_and_like_finds_like() -> None:
    embedding = Embedding(TEXTS, dimension=4)
    vectors, known = embedding(TEXTS)
    assert vectors.shape == (6, 4)
    assert vectors.dtype == np.float32
    assert known.all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    (question,), _ = embedding(["a thread that ends"])
    assert np.argmax(vectors @ question) in (2, 3)


def test_a_small_corpus_gives_fewer_dimensions() -> None:
    assert Embedding(TEXTS).dimension == 5


def test_a_text_without_a_known_word_has_no_vector() -> None:
    vectors, known = Embedding(TEXTS)(["zebra", "thread"])
    assert known.tolist() == [False, True]
    assert not vectors[0].any()


@pytest.mark.parametrize("texts", [["the", "of"], ["one word"]])
def test_texts_without_two_different_words_are_refused(texts: list[str]) -> None:
    with pytest.raises(CorpusError):
        Embedding(texts)
