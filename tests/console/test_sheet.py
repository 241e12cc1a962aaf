"""Tables in narrow terminals, without a terminal, and with control characters in them."""

import io

import pytest
from rich.console import Console

from indexrelay.console import terminal
from indexrelay.console.commands.search import hits_table
from indexrelay.console.commands.status import components_table, verdict_page
from indexrelay.console.sheet import Sheet, flowing, number, spare, whole
from indexrelay.health.status import ComponentHealth, Condition, Verdict

BEHIND = {
    "artist_similarity": ComponentHealth(
        kind="vector_index",
        condition=Condition.UNDECLARED,
        version="ab" * 32,
        covers={"tracks": 41, "artists": 7},
        behind={"tracks": 2},
        entries=1_234_567,
        bytes=812_345_678,
    ),
    "a_component_with_a_name_that_is_as_long_as_names_may_be_a": ComponentHealth(
        kind="embedding_cache", condition=Condition.CURRENT, covers={"tracks": 43}
    ),
}


def drawn(what: object, *, columns: int) -> str:
    console = Console(file=io.StringIO(), width=columns, markup=False, highlight=False)
    console.print(what)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("columns", [80, 100, 120])
def test_states_and_figures_are_never_broken(columns: int) -> None:
    page = drawn(components_table(BEHIND), columns=columns)
    for unbroken in ("undeclared", "current", "1,234,567", "774.7 MiB", "entries"):
        assert unbroken in page
    assert max(len(line.rstrip()) for line in page.splitlines()) <= columns


def test_what_is_spare_is_left_out_where_it_does_not_fit() -> None:
    sheet = Sheet("", flowing("name"), spare("version"), number("size"))
    sheet.add("some words", "0123456789ab", "1.0 KiB")
    assert "0123456789ab" in drawn(sheet, columns=80)
    narrow = drawn(sheet, columns=25)
    assert "version" not in narrow
    assert "some words" in narrow
    assert "1.0 KiB" in narrow


def test_a_name_that_does_not_fit_goes_on_in_the_next_line() -> None:
    sheet = Sheet("", flowing("name"), whole("state"))
    sheet.add("z" * 50, "current")
    page = drawn(sheet, columns=40)
    assert page.count("z") == 50
    assert "current" in page


def test_no_control_character_of_an_id_reaches_the_terminal() -> None:
    hits = [{"id": "a\x1b[2J\nb\u202e\x9b", "score": 1.0, "payload": {"\x9b1m": "\x1b]0;x\x07"}}]
    page = drawn(hits_table(hits), columns=120)
    assert r"a\x1b[2J\x0ab\u202e\x9b" in page
    assert not {"\x1b", "\x9b", "\u202e", "\x07"} & set(page)


def test_a_payload_of_a_megabyte_does_not_fill_the_screen() -> None:
    page = drawn(hits_table([{"id": "a", "score": 1.0, "payload": "x" * 2**20}]), columns=80)
    assert len(page.splitlines()) < 20
    assert "1,048,578 characters" in page


def test_without_a_terminal_a_row_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    terminal.stdout().print(components_table(BEHIND))
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "undeclared" in line]
    for cell in ("artist_similarity", "artists 7, tracks 41 (2 behind)", "abababababab"):
        assert cell in row


def test_a_page_that_fills_the_screen_begins_with_the_verdict() -> None:
    nothing = Verdict(
        well=True,
        release=3,
        announced=3,
        collections={},
        components=BEHIND,
        readers={},
        rebuilders={},
        dead_letters=0,
        problems=(),
    )
    first = drawn(verdict_page(nothing, verdict_first=True), columns=80).splitlines()[0]
    assert first == "✓ all is well: release 3 is served everywhere"
    last = drawn(verdict_page(nothing), columns=80).splitlines()[-1]
    assert last == first
