"""A text index that continues another: the same answers and scores as one written from scratch."""

import errno
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import settings

from indexrelay.components.text_index import DATABASE, TextIndex, TextIndexParameters
from indexrelay.components.text_index.analyser import Analyser
from indexrelay.components.text_index.changes import copy_file
from indexrelay.components.text_index.database import GAP
from tests.components.changing_collection import POOL, WORDS, ChangingCollection
from tests.components.jobs import (
    Run,
    as_previous,
    make_job,
    run,
)
from tests.components.text_index.songs import KIND, next_of, row, songs


def assert_answers_alike(here: Run, there: Run, ids: list[str], queries: list[str]) -> None:
    with closing(KIND.load(here.files)) as ours, closing(KIND.load(there.files)) as theirs:
        assert (len(ours), ours.texts) == (len(theirs), theirs.texts)
        for query in queries:
            for k in (1, 3, 1000):
                # Scores too, to the last digit, and the order of equal ones.
                assert ours.search(query, k=k) == theirs.search(query, k=k)
        for name in ids:
            assert ours.text(name) == theirs.text(name)
            assert ours.payload(name) == theirs.payload(name)


class TextMachine(ChangingCollection):
    """Whatever happened, an index answers like one that was written from scratch."""

    kind = KIND

    def compare(self, done: Run) -> None:
        queries = [*WORDS, "blue song", "the sea row", "text of a1"]
        assert_answers_alike(done, self.built_in_full(), self.snapshot.ids, queries)
        with closing(KIND.load(done.files)) as index:
            assert [name in index for name in POOL] == [name in self.snapshot.rows for name in POOL]


TextMachine.TestCase.settings = settings(
    max_examples=20, stateful_step_count=15, deadline=None, print_blob=True
)
test_any_sequence_of_changes_and_builds_answers_like_a_full_build = TextMachine.TestCase


def test_a_small_batch_is_applied_to_a_copy_and_leaves_the_last_file_alone(tmp_path: Path) -> None:
    source = songs()
    job = make_job(tmp_path / "1", source)
    done = run(KIND, job)
    before = done.files[DATABASE].read_bytes()
    after = source.commit({"e000007": row("a lighthouse"), "new": row(None, "[1]")}, ["e000009"])
    _, changed = next_of(tmp_path / "2", job, done, after)
    assert changed.failed == []
    assert changed.built.extends
    assert changed.built.entries == 100
    assert changed.built.details == {
        "build": {
            "mode": "incremental",
            "reason": "few entries changed since the last version",
        },
        "texts": 99,
        "texts_without_words": 0,
        "tokenizer": "words",
        "analyser": Analyser().identity,
        "changed": 3,
        "moved": 0,
    }
    assert done.files[DATABASE].read_bytes() == before
    with closing(KIND.load(changed.files)) as index:
        assert [hit.id for hit in index.search("lighthouse")] == ["e000007"]
        assert index.payload("new") == [1]
        assert "e000009" not in index


def test_what_is_given_again_as_it_was_makes_no_new_file(tmp_path: Path) -> None:
    source = songs()
    job = make_job(tmp_path / "1", source)
    following, done = next_of(tmp_path / "2", job, run(KIND, job), source.commit(source.rows))
    assert done.failed == []
    assert following.previous is not None
    assert done.built.files == following.previous.manifest.files
    assert not list(following.workdir.iterdir())


def test_beyond_a_fifth_the_file_is_written_from_scratch_with_the_reason(tmp_path: Path) -> None:
    kind, source = TextIndex(TextIndexParameters()), songs()
    job = make_job(tmp_path / "0", source)
    done = run(kind, job)
    modes = []
    for step in range(1, 5):
        names = source.ids[10 * step : 10 * step + 7]
        source = source.commit({name: row(f"step {step}") for name in names})
        job = make_job(tmp_path / f"{step}", source, previous=as_previous(job, done))
        done = run(kind, job)
        assert done.failed == []
        modes.append((done.built.details["build"]["mode"], done.built.details["changed"]))
    assert modes == [("incremental", 7), ("incremental", 14), ("full", 0), ("incremental", 7)]


@pytest.mark.parametrize("batches", [40])
def test_ids_that_crowd_into_one_place_make_their_neighbours_move(
    tmp_path: Path, batches: int
) -> None:
    """Each new id falls between the last one and the next: the worst that halving can meet."""
    source = songs(300)
    job = make_job(tmp_path / "0", source)
    done = run(KIND, job)
    moved = 0
    for step in range(batches):
        new = {f"e000100-{step:03d}-{part}": row(f"crowd {part} seas") for part in range(5)}
        source = source.commit(new)
        job = make_job(tmp_path / f"{step + 1}", source, previous=as_previous(job, done))
        done = run(KIND, job)
        assert done.failed == []
        assert done.built.extends
        moved += done.built.details["moved"]
    assert moved > 10
    whole = run(KIND, make_job(tmp_path / "whole", source))
    assert_answers_alike(done, whole, source.ids, ["crowd seas", "seas", "song number 4"])
    with closing(sqlite3.connect(done.files[DATABASE])) as connection:
        ids = [one for (one,) in connection.execute("SELECT id FROM entries ORDER BY row")]
    assert ids == source.ids


def test_rows_that_had_to_move_are_judged_like_changed_ones(tmp_path: Path) -> None:
    source = songs(2000)
    job = make_job(tmp_path / "1", source)
    crowd = {f"e001000-{number:03d}": row("crowd") for number in range(2 * GAP)}
    before = run(KIND, job)
    following, done = next_of(tmp_path / "2", job, before, source.commit(crowd))
    assert (done.failed, done.built.details["moved"] > 0) == ([], True)
    rows = []
    for files in (before.files, done.files):
        with closing(sqlite3.connect(files[DATABASE])) as connection:
            rows.append(dict(connection.execute("SELECT id, row FROM entries")))
    moved = next(one for one, number in rows[0].items() if rows[1][one] != number)
    with closing(sqlite3.connect(done.files[DATABASE])) as connection, connection:
        place = (rows[1][moved],)
        query = "SELECT text FROM entries WHERE row = ?"
        (text,) = connection.execute(query, place).fetchone()
        connection.execute(
            "INSERT INTO terms (terms, rowid, text) VALUES ('delete', ?, ?)",
            (*place, " ".join(Analyser().terms(text))),
        )
        connection.execute("INSERT INTO terms (rowid, text) VALUES (?, 'other')", place)
    failed = [c.name for c in KIND.verify(following, done.built, done.files) if not c.passed]
    assert failed == ["found_as_asked"]


def no_copies(*_: int) -> int:
    raise OSError(errno.EXDEV, "another file system")


def half_copies(source: int, target: int, count: int) -> int:
    """Copies a little at first, and then no more, as where a kernel's copy is interrupted."""
    return os.sendfile(target, source, None, 100) if os.fstat(target).st_size == 0 else 0


@pytest.mark.parametrize("kernel", [os.copy_file_range, no_copies, half_copies])
def test_a_file_is_copied_whole_whatever_the_kernel_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: Callable[..., int]
) -> None:
    monkeypatch.setattr(os, "copy_file_range", kernel)
    content = bytes(range(256)) * 1000
    (tmp_path / "source").write_bytes(content)
    copy_file(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == content
    with pytest.raises(FileExistsError):
        copy_file(tmp_path / "source", tmp_path / "target")


def test_many_ids_in_one_place_find_room_at_once(tmp_path: Path) -> None:
    source = songs(300)
    job = make_job(tmp_path / "0", source)
    new = {f"e000100-{number:05d}": row(f"crowd {number % 5}") for number in range(20 * GAP)}
    new |= {f"a{number:03d}": row("first of all") for number in range(2 * GAP)}
    after = source.commit(new)
    following = make_job(tmp_path / "1", after, previous=as_previous(job, run(KIND, job)))
    done = run(KIND, following)
    assert (done.failed, done.built.extends) == ([], True)
    whole = run(KIND, make_job(tmp_path / "whole", after))
    assert_answers_alike(done, whole, after.ids[::50], ["crowd", "first", "song number 4"])


def test_a_file_without_room_between_its_rows_is_written_from_scratch(tmp_path: Path) -> None:
    """As the first files had it, which counted rows from 0 on."""
    source = songs(200)
    job = make_job(tmp_path / "1", source)
    done = run(KIND, job)
    with closing(sqlite3.connect(done.files[DATABASE])) as connection, connection:
        connection.execute("UPDATE entries SET row = row / ?", (GAP,))
        connection.execute("INSERT INTO terms (terms) VALUES ('delete-all')")
        texts = [(place + 1, one.text) for place, one in enumerate(source.rows.values())]
        connection.executemany("INSERT INTO terms (rowid, text) VALUES (?, ?)", texts)
    _, after = next_of(tmp_path / "2", job, done, source.commit({"e000100-1": row("new")}))
    assert after.failed == []


def test_where_too_many_rows_would_have_to_move_the_file_is_written_from_scratch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexrelay.components.text_index.changes._WIDEST", 1)
    source = songs()
    job = make_job(tmp_path / "1", source)
    crowd = {f"e000050-{number:03d}": row("crowd") for number in range(8 * GAP)}
    following = make_job(
        tmp_path / "2", source.commit(crowd), previous=as_previous(job, run(KIND, job))
    )
    done = run(KIND, following)
    assert (done.failed, done.built.extends) == ([], False)
    assert done.built.details["build"]["reason"] == "new ids found no row numbers"


def test_a_previous_file_that_is_corrupt_is_not_continued(tmp_path: Path) -> None:
    source = songs()
    job = make_job(tmp_path / "1", source)
    done = run(KIND, job)
    raw = bytearray(done.files[DATABASE].read_bytes())
    raw[4096:] = bytes(len(raw) - 4096)
    done.files[DATABASE].write_bytes(raw)
    _, after = next_of(tmp_path / "2", job, done, source.commit({"new": row("new")}))
    assert (after.failed, after.built.extends) == ([], False)
    assert "texts.db is corrupt" in after.built.details["build"]["reason"]
