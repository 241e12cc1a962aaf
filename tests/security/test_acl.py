"""What each user of the shipped ACL file may do: every command of the server on every key.

`MAY` is the table: for each user and key the commands that are allowed, and no others are. The
server itself says so (ACL DRYRUN), for each command that it has.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final

import pytest

from indexrelay.streams.connection import Connection
from indexrelay.streams.publisher import packed, round_trip
from tests.fixtures.acl import ADMIN, NAMESPACE, USERS, ConnectAs

pytestmark = pytest.mark.server

INSTANCE: Final = "0123456789abcdef"
NO_KEY: Final = ""
"""Commands that name no key."""
WITHOUT_PASSWORD: Final = frozenset({"auth", "hello", "quit", "reset"})
"""Every connection may, before anybody has said who it is."""
LOOK_AT_A_STREAM: Final = "xpending xinfo|stream xinfo|groups xinfo|consumers"
REPAIR: Final = "type pttl strlen memory|usage pexpire rename unlink"
LOOK: Final = (
    "type pttl strlen memory|usage get getrange xlen xrange xread xpending "
    "xinfo|stream xinfo|groups xinfo|consumers"
)
OWN_STATE: Final = "set pexpire del"
STATES: Final = (
    "reader:reader_a",
    f"reader:reader_a:{INSTANCE}",
    "reader:reader_b",
    f"reader:reader_b:{INSTANCE}",
    "reader:reader_ab",
    f"reader:reader_a:{INSTANCE}0",
    "reader:reader_a:anything",
)
EVERY_KEY: Final = (
    *("events", "reloads", "results", "announced:00ff", "release", "lease:map"),
    *("rebuilder:builder", *STATES, "reports:reader_a", "reports:reader_b"),
    *("aside:events", "changes:tracks", "anything"),
)


def _reader(name: str) -> dict[str, str]:
    return {
        NO_KEY: "ping",
        "reloads": "xread xinfo|stream",
        "changes:tracks": "xread xrange xinfo|stream",
        "release": "get",
        f"reader:{name}": OWN_STATE,
        f"reader:{name}:{INSTANCE}": OWN_STATE,
        f"reports:{name}": "xadd pexpire",
    }


MAY: Final[dict[str, dict[str, str]]] = {
    "health": {NO_KEY: "ping"},
    "reader_a": _reader("reader_a"),
    "reader_b": _reader("reader_b"),
    "producer": {
        NO_KEY: "ping scan",
        "events": "xadd xlen xinfo|groups",
        "changes:tracks": "xadd pexpire",
        **dict.fromkeys((*STATES, "rebuilder:builder"), "getrange strlen"),
    },
    "rebuilder": {
        NO_KEY: "ping info time scan script|load",
        "events": f"{REPAIR} {LOOK_AT_A_STREAM} xadd xlen xrange xread xreadgroup xautoclaim xack "
        "xtrim xgroup|create xgroup|delconsumer",
        **dict.fromkeys(
            ("reloads", "results"), f"{REPAIR} {LOOK_AT_A_STREAM} evalsha xadd xread xtrim"
        ),
        **dict.fromkeys(("announced:00ff", "release"), f"{REPAIR} evalsha get set"),
        "lease:map": f"{REPAIR} evalsha get set del",
        "rebuilder:builder": f"{REPAIR} set del getrange",
        **dict.fromkeys(STATES, f"{REPAIR} getrange"),
        **dict.fromkeys(
            ("reports:reader_a", "reports:reader_b", "changes:tracks"),
            f"{REPAIR} {LOOK_AT_A_STREAM} xtrim",
        ),
        **dict.fromkeys(("aside:events", "anything"), REPAIR),
    },
    "monitor": {NO_KEY: "ping info time scan", **dict.fromkeys(EVERY_KEY, LOOK)},
    "duties": {
        NO_KEY: "ping info time scan",
        **dict.fromkeys(EVERY_KEY, LOOK),
        "events": f"{LOOK} xadd",
    },
    "admin": {
        NO_KEY: "ping info time scan script|load",
        **dict.fromkeys(EVERY_KEY, LOOK),
        "events": f"{LOOK} xadd",
        **dict.fromkeys(("reloads", "results"), f"{LOOK} evalsha xadd"),
        **dict.fromkeys(("announced:00ff", "release"), f"{LOOK} evalsha set"),
    },
    "operator": {
        NO_KEY: "ping info time scan script|load script|exists script|kill script|flush "
        "function|list function|stats function|kill function|flush function|delete "
        "client|list client|kill acl|whoami acl|log acl|load",
        **dict.fromkeys(
            EVERY_KEY,
            f"{REPAIR} {LOOK} del set evalsha xadd xreadgroup xautoclaim xack xtrim xdel "
            "xgroup|create xgroup|destroy xgroup|delconsumer",
        ),
    },
}
"""By user and key (without the namespace)."""
KEYS: Final = (
    *(f"{{{NAMESPACE}}}:{key}" for key in sorted(set().union(*MAY.values()) - {NO_KEY})),
    *("{other}:events", "{music2}:release", "events", "music:events"),
)
"""Those of the table, and four of somebody else."""

# How commands are written whose keys stand in no fixed place.
_MOVABLE: Final = {
    "xread": "STREAMS {} 0",
    "xreadgroup": "GROUP g c STREAMS {} 0",
    **dict.fromkeys(("eval", "evalsha", "eval_ro", "evalsha_ro", "fcall", "fcall_ro"), "x 1 {}"),
    **dict.fromkeys(("zunion", "zinter", "zdiff", "sintercard", "zintercard"), "1 {}"),
    **dict.fromkeys(("lmpop",), "1 {} LEFT"),
    **dict.fromkeys(("zmpop",), "1 {} MIN"),
    **dict.fromkeys(("blmpop",), "0 1 {} LEFT"),
    **dict.fromkeys(("bzmpop",), "0 1 {} MIN"),
    **dict.fromkeys(("zunionstore", "zinterstore", "zdiffstore"), "{0} 1 {0}"),
    "pfmerge": "{0} {0}",  # with one key the servers find none in it, and allow it
    "migrate": "h 1 {} 0 1",
    **dict.fromkeys(("sort", "sort_ro"), "{}"),
    **dict.fromkeys(("georadius", "georadius_ro"), "{} 1 1 1 m"),
    **dict.fromkeys(("georadiusbymember", "georadiusbymember_ro"), "{} m 1 m"),
}


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command of a server, as COMMAND describes it."""

    name: str
    arity: int
    first_key: int
    last_key: int
    key_step: int

    def words(self, key: str) -> list[str]:
        """The command on ``key``, as short as it can be."""
        name = self.name.split("|")
        if self.name in _MOVABLE:
            return [*name, *_MOVABLE[self.name].format(key).split()]
        words = [*name, *repeat("1", abs(self.arity) - len(name))]
        if not self.first_key:
            return words
        last = self.last_key if self.last_key >= 0 else self.first_key
        words += repeat("1", last + 1 - len(words))
        for place in range(self.first_key, last + 1, self.key_step):
            words[place] = key
        return words

    @property
    def has_keys(self) -> bool:
        return bool(self.first_key) or self.name in _MOVABLE


def commands_of(connection: Connection) -> list[Command]:
    """Every command of the server, subcommands by themselves."""
    described = round_trip(connection.commands, [packed(b"COMMAND")])[0]
    return sorted(_commands(described), key=lambda each: each.name)


def _commands(described: Any) -> Iterator[Command]:
    for each in described:
        subcommands = each[9] if len(each) > 9 else []
        if subcommands:
            yield from _commands(subcommands)
            continue
        yield Command(
            name=each[0].decode().lower(),
            arity=each[1],
            first_key=each[3],
            last_key=each[4],
            key_step=max(1, each[5]),
        )


def allowed(connection: Connection, user: str) -> dict[str, set[str]]:
    """The commands that the server would let ``user`` do, by key."""
    asked = [
        (command, key)
        for command in commands_of(connection)
        for key in (KEYS if command.has_keys else (NO_KEY,))
    ]
    replies = round_trip(
        connection.commands,
        [
            packed(b"ACL", b"DRYRUN", user.encode(), *(word.encode() for word in c.words(key)))
            for c, key in asked
        ],
    )
    found: dict[str, set[str]] = {}
    for (command, key), reply in zip(asked, replies, strict=True):
        if reply == b"OK":
            found.setdefault(key, set()).add(command.name)
    return found


@pytest.mark.parametrize("user", MAY)
def test_a_user_may_do_what_the_table_says_and_nothing_else(
    user: str, connect_as: ConnectAs
) -> None:
    may = {NO_KEY: WITHOUT_PASSWORD | set(MAY[user][NO_KEY].split())} | {
        f"{{{NAMESPACE}}}:{key}": set(commands.split())
        for key, commands in MAY[user].items()
        if key != NO_KEY
    }
    assert allowed(connect_as(ADMIN), user) == may


def test_the_table_leaves_out_no_user_and_asks_in_a_form_that_the_server_takes(
    connect_as: ConnectAs,
) -> None:
    assert MAY.keys() == set(USERS)
    admin = connect_as(ADMIN)
    commands = commands_of(admin)
    found = allowed(admin, ADMIN)
    for key in (NO_KEY, *KEYS):
        wanted = {each.name for each in commands if each.has_keys == bool(key)}
        assert found[key] == wanted
