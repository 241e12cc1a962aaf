import pytest

from faults.rows import Row


def test_a_run_holds_unless_something_was_wrong_with_it() -> None:
    row = Row(fault="F1", server="valkey")
    with row.run("fine"):
        row.recovered(0.5, within=1)
    with row.run("late"):
        row.recovered(2.0, within=1)
    assert (row.runs, row.held, row.broken[0].split(":")[0]) == (2, 1, "late")
    assert row.as_json()["recovery_seconds"] == {"median": 1.25, "max": 2.0}


def test_a_broken_invariant_costs_at_least_one_run() -> None:
    row = Row(fault="F1")
    with row.run("fine"):
        pass
    row.broke([])
    assert row.held == 1
    row.broke(["I1: a change is gone"])
    assert (row.runs, row.held) == (1, 0)


def test_a_row_without_anything_to_recover_from_has_no_seconds() -> None:
    row = Row(fault="F12", server="redis")
    assert row.line.split() == ["F12", "redis", "0", "0", "-", "-"]
    assert row.as_json()["recovery_seconds"] == {"median": None, "max": None}


def test_an_interruption_is_not_taken_for_a_fault() -> None:
    row = Row(fault="F1")
    with pytest.raises(KeyboardInterrupt), row.run("cut short"):
        raise KeyboardInterrupt
