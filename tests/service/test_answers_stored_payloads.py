"""What counts as JSON, by both ways of looking: exactly what the standard library reads."""

import json
from collections.abc import Callable
from random import Random

import pytest

from indexrelay.service import answers
from indexrelay.service.answers import first_invalid

SAMPLES = [
    json.dumps(
        {"a": [1, 2.5, -3e-7, None, True, 't\u00e9\\xt\n"q'], "b": {"c": {}}, "é": "\U0001f600"},
        ensure_ascii=ascii_only,
    ).encode()
    for ascii_only in (True, False)
]  # fmt: skip
ALPHABET = b"0123456789+-.eE{}[],:\"\\untrfalsb/ \n\t\x00\x1f\x7f\x80\xc3\xedNI'"
BY_HAND = [
    b"", b" ", b"null", b"01", b"-", b"-0", b"1.", b".5", b"1e+", b"+1", b"NaN", b"Infinity",
    b"-Infinity", b'"\\x"', b'"\\u12"', b'"\\ud800"', b"\xef\xbb\xbf1", b" 1 ", b"\x0b1",
    b'"\n"', b'"\x7f"', b"'a'", b"{a:1}", b"[1,]", b'{"a":1,}', b'{"a":1}{', b'{"a":1},{"b":2}',
    b"1,2", b"/**/1", b"1 2", b"1\x002", b'"\\u0000"', b"\xff", b'"\xed\xa0\x80"',
    b"[" * 150 + b"]" * 150,
]  # fmt: skip


def is_json(payload: bytes) -> bool:
    """By the standard library, without what it allows beside JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.loads(payload.decode(), parse_constant=refuse)
    except ValueError:
        return False
    return True


def parsing(several: list[bytes]) -> int | None:
    assert sum(map(len, several)) <= answers._SMALL_BYTES
    return first_invalid(several)


WAYS = [parsing, answers._first_refused]
either_way = pytest.mark.parametrize("first", WAYS, ids=["small", "by SQLite"])


def mutated(random: Random) -> bytes:
    payload = bytearray(random.choice(SAMPLES))
    for _ in range(random.choice([1, 1, 2, 3])):
        place = random.randrange(len(payload))
        match random.randrange(3):
            case 0:
                payload[place] = random.choice(ALPHABET)
            case 1:
                del payload[place]
            case _:
                payload.insert(place, random.choice(ALPHABET))
    return bytes(payload)


@either_way
def test_a_payload_counts_as_json_exactly_where_the_standard_library_reads_it(
    first: Callable[[list[bytes]], int | None],
) -> None:
    random = Random(1)
    tried = [*SAMPLES, *BY_HAND, *(mutated(random) for _ in range(3000))]
    valid = [payload for payload in tried if is_json(payload)]
    invalid = [payload for payload in tried if not is_json(payload)]
    assert min(len(valid), len(invalid)) > 300
    assert [payload for payload in valid if first([payload]) is not None] == []
    assert [payload for payload in invalid if first([payload]) != 0] == []


@either_way
def test_the_first_of_several_that_is_not_json_is_named(
    first: Callable[[list[bytes]], int | None],
) -> None:
    for invalid in (b"1,2", b"\xff", b"1\x00", b'1},{"id":2'):
        several = [b"null"] * 250
        assert first(several) is None
        for number in (249, 100, 99, 1, 0):
            several[number] = invalid
            assert first(several) == number
    assert first([]) is None


def test_large_payloads_are_not_parsed_and_those_in_several_statements_are_all_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answers, "from_json", lambda *_, **__: pytest.fail("it is parsed"))
    large = b'["' + b"x" * 700_000 + b'"]'
    assert first_invalid([large] * 5) is None
    assert first_invalid([large] * 4 + [large[:-1]]) == 4
