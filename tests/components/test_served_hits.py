"""A hit's payload is parsed when it is first read; to its user it is a hit like any other."""

import copy
import dataclasses
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from pydantic import TypeAdapter

from indexrelay.components import CorruptFileError, Hit
from indexrelay.components.served import stored_hits

FILE = Path("payloads.table")
STORED = b'{"name": "one",  "tags": ["\xc3\xa4"]}'
PARSED = {"name": "one", "tags": ["ä"]}


def stored(payload: bytes | None = STORED) -> Hit:
    (hit,) = stored_hits(["a"], [0.5], [payload], [FILE])
    return hit


def test_a_stored_payload_is_given_unparsed_until_it_is_read() -> None:
    hit = stored()
    assert hit.payload_json == STORED
    assert hit.payload == PARSED
    assert hit.payload is hit.payload
    hit.payload["name"] = "two"
    assert hit.payload_json == b'{"name":"two","tags":["\\u00e4"]}'


def test_a_payload_that_is_set_is_what_both_forms_give() -> None:
    hit = stored()
    hit.payload = [1]
    assert (hit.payload, hit.payload_json) == ([1], b"[1]")
    hit.payload = None
    assert (hit.payload, hit.payload_json) == (None, None)


def test_an_entry_without_a_payload_has_none_in_either_form() -> None:
    for hit in (stored(None), *stored_hits(["a"], [0.5]), Hit("a", 0.5, None)):
        assert (hit.payload_json, hit.payload, hit.payload_json) == (None, None, None)
        assert hit == Hit("a", 0.5, None)


def test_a_payload_with_half_a_surrogate_pair_is_read() -> None:
    assert stored(b'"\\ud800"').payload == "\ud800"


@pytest.mark.parametrize("payload", [b"{", b"", b'"\xff"', b"[" * 100_000])
def test_a_stored_payload_that_is_not_json_is_corruption_whenever_it_is_read(
    payload: bytes,
) -> None:
    hit = stored(payload)
    for _ in range(2):
        with pytest.raises(CorruptFileError, match="not JSON") as caught:
            hit.payload  # noqa: B018 - reading is the point
        assert caught.value.path == FILE


def test_the_payload_of_a_users_hit_is_encoded_where_json_knows_it() -> None:
    assert Hit("a", 1.0, {"x": [1, None]}).payload_json == b'{"x":[1,null]}'
    for payload, refused in ((float("nan"), ValueError), ({1, 2}, TypeError)):
        with pytest.raises(refused):
            Hit("a", 1.0, payload).payload_json  # noqa: B018 - reading is the point


@pytest.mark.parametrize(
    "same",
    [
        copy.copy,
        copy.deepcopy,
        lambda hit: pickle.loads(pickle.dumps(hit)),  # noqa: S301 - its own
        dataclasses.replace,
        lambda hit: Hit(**dataclasses.asdict(hit)),
        lambda hit: TypeAdapter(Hit).validate_json(TypeAdapter(Hit).dump_json(hit)),
    ],
)
def test_a_stored_hit_is_copied_pickled_and_written_as_a_plain_one(
    same: Callable[[Any], Any],
) -> None:
    hit, plain = stored(), Hit("a", 0.5, PARSED)
    again = same(hit)
    assert type(again) is Hit
    assert again == hit == plain
    assert plain == hit != Hit("a", 0.5, None)
    assert repr(again) == repr(hit) == repr(plain) == f"Hit(id='a', score=0.5, payload={PARSED})"


def test_threads_that_read_one_payload_at_a_time_all_get_it() -> None:
    for _ in range(50):
        hit, together = stored(), Barrier(4)

        def read(_: int, hit: Hit = hit, together: Barrier = together) -> object:
            together.wait()
            return hit.payload

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(read, range(4))) == [PARSED] * 4
