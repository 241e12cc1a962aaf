"""The demo's plan: batches that add, change and delete."""

import pytest

from indexrelay.console.demo.corpus import Document, plan
from indexrelay.console.errors import CorpusError

DOCUMENTS = [
    Document(id=f"m:f{number}", text=f"Summary {number}.\n\nMore of {number}.", place="m")
    for number in range(200)
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
