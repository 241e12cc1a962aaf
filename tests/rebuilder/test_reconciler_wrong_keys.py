"""Keys of ours that hold what is not ours: named, set aside, and nothing stops for them."""

from collections.abc import Callable

import pytest

from indexrelay.health.judge import judge
from indexrelay.health.status import Code, Problem
from indexrelay.health.survey import Survey
from indexrelay.rebuilder import reconciler
from indexrelay.rebuilder.reconciler import Reconciler
from indexrelay.schemas.clock import SystemClock
from indexrelay.streams import (
    BackendRefusedError,
    Connection,
    ConsumerGroup,
    Keys,
    Presence,
    current_release,
    publish,
)
from indexrelay.streams.errors import WrongTypeError
from indexrelay.streams.keys import REBUILDERS_GROUP
from indexrelay.streams.repair import ASIDE_SECONDS, WrongKey
from tests.rebuilder.conftest import Bench, MakeBench, behaving

WANTED = {
    "events": "a stream",
    "results": "a stream",
    "reloads": "a stream",
    "reports": "a stream",
    "release": "a string",
    "lease": "a string",
}


def key_of(keys: Keys, name: str) -> str:
    match name:
        case "lease":
            return keys.lease("index")
        case "reports":
            return keys.reports("web")
        case _:
            return str(getattr(keys, name))


@pytest.fixture
def built(make_bench: MakeBench) -> Bench:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")
    bench.rebuild()
    return bench


def wrong_keys(bench: Bench) -> list[Problem]:
    facts = Survey(
        bench.settings,
        catalog=lambda: bench.catalog,
        store=lambda: bench.store,
        connection=lambda: bench.connection,
        clock=SystemClock(),
    ).whole()
    assert not facts.unknown
    return [problem for problem in judge(facts).problems if problem.code is Code.REDIS_KEY]


def reconcile(bench: Bench) -> list[str]:
    group = ConsumerGroup(
        bench.connection, bench.keys.events, group=REBUILDERS_GROUP, consumer="hand"
    )
    found = Reconciler(
        bench.settings,
        catalog=bench.catalog,
        store=bench.store,
        connection=bench.connection,
        group=group,
        source="test",
        clock=SystemClock(),
    ).reconcile()
    return [finding.what for finding in found.findings if finding.about == "key"]


@pytest.mark.parametrize("name", WANTED)
def test_a_key_of_another_type_is_named_set_aside_and_what_was_there_works_again(
    built: Bench, name: str
) -> None:
    key, commands = key_of(built.keys, name), built.connection.commands
    commands.delete(key)
    commands.rpush(key, "theirs")
    [problem] = wrong_keys(built)
    assert problem.what.startswith(f"the key {key} holds a list, and should hold {WANTED[name]};")
    assert "indexrelay reconcile" in problem.advice
    built.commit("b")
    result = built.rebuild()  # a pass repairs it first, and goes on
    assert result is not None
    assert result.indexes_rebuilt == ("index",)
    assert wrong_keys(built) == []
    aside = built.keys.aside(key)
    assert commands.lrange(aside, 0, -1) == [b"theirs"]
    assert 0 < commands.ttl(aside) <= ASIDE_SECONDS
    assert commands.get(built.keys.release) == b"2"


@pytest.mark.parametrize(
    "value", [b"abc", b"", b"-1", b"1.5", b"0x10", b"1e300", b"inf", b"9" * 13]
)
def test_a_release_number_that_is_none_is_named_and_replaced(built: Bench, value: bytes) -> None:
    key = built.keys.release
    built.connection.commands.set(key, value)
    [problem] = wrong_keys(built)
    wrong = f"the key {key} holds {value.decode()!r}, and should hold a release's number"
    assert problem.what == f"{wrong}; only rebuilders write there"
    [said] = reconcile(built)
    assert said.startswith(wrong)
    assert built.connection.commands.get(key) == b"1"
    assert (wrong_keys(built), reconcile(built)) == ([], [])


def _list(connection: Connection, key: str) -> None:
    connection.commands.rpush(key, "theirs")


def _endless(connection: Connection, key: str) -> None:
    connection.commands.set(key, "{}")


@pytest.mark.parametrize(
    ("put", "found"), [(_list, "holds a list"), (_endless, "holds a value without a TTL")]
)
def test_a_members_key_that_no_member_wrote_is_named_and_ends(
    built: Bench, put: Callable[[Connection, str], None], found: str
) -> None:
    presence = Presence(built.connection, built.keys, "reader")
    presence.publish("web:0a", b"{}", ttl_seconds=60)
    key = built.keys.reader("web:0a")
    built.connection.commands.delete(key)
    put(built.connection, key)
    [problem] = wrong_keys(built)
    assert found in problem.what
    assert len(reconcile(built)) == 1
    assert wrong_keys(built) == []
    assert built.connection.commands.ttl(key) != -1


def test_a_key_that_comes_to_hold_what_is_not_ours_while_it_is_compared_is_called_that(
    built: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looks_too_early(*_: object, **__: object) -> tuple[WrongKey, ...]:
        built.connection.commands.delete(built.keys.release)
        _list(built.connection, built.keys.release)
        return ()

    with monkeypatch.context() as patched:
        patched.setattr(reconciler, "find_wrong_keys", looks_too_early)
        [what] = reconcile(built)
    assert what.startswith("a key came to hold what is not ours meanwhile: ")
    [what] = reconcile(built)
    assert "set aside" in what


@pytest.mark.server
def test_every_reader_of_a_wrong_key_names_it(real_connection: Connection) -> None:
    keys = Keys("wrong_keys")
    for key in (keys.release, keys.events):
        real_connection.commands.delete(key)
        real_connection.commands.rpush(key, "theirs")
    group = ConsumerGroup(real_connection, keys.events, group="g", consumer="c")
    with pytest.raises(BackendRefusedError, match=r"\{wrong_keys\}:events: WRONGTYPE"):
        publish(real_connection, keys.events, b"{}")
    for act in (
        lambda: current_release(real_connection, keys),
        lambda: group.read(count=1, block_seconds=0),
    ):
        with pytest.raises(WrongTypeError, match=r"the key \{wrong_keys\}:\w+ holds"):
            act()
    real_connection.commands.delete(keys.release, keys.events)
