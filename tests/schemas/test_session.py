"""Session tokens: what they promise to whoever merges, sends or forges one."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexrelay.schemas.session import MAX_CHARACTERS, MAX_LIVES, Life, SessionToken
from indexrelay.schemas.session import SessionTokenError as TokenError

LIVES = st.builds(
    Life,
    collection=st.sampled_from(["tracks", "artists", "genres"]),
    epoch=st.sampled_from(["3f", "9c", "a0"]),
    generation=st.integers(0, 5) | st.just(2**63 - 1),
)
TOKENS = st.lists(LIVES, max_size=12).map(SessionToken)


def text_of(facts: object) -> str:
    raw = base64.urlsafe_b64encode(json.dumps(facts, separators=(",", ":")).encode())
    return f"s1.{raw.decode().rstrip('=')}"


@given(TOKENS)
def test_a_token_survives_its_text(token: SessionToken) -> None:
    assert SessionToken.from_text(str(token)) == token
    assert hash(SessionToken.from_text(str(token))) == hash(token)


@given(TOKENS, TOKENS, TOKENS)
def test_tokens_merge_in_any_order_and_as_often_as_one_likes(
    one: SessionToken, other: SessionToken, third: SessionToken
) -> None:
    merged = one.merge(other, third)
    assert merged == third.merge(one).merge(other) == merged.merge(other, merged)
    assert str(merged) == str(third.merge(other, one))
    asked = {(life.collection, life.epoch): life.generation for life in merged}
    for token in (one, other, third):
        for life in token:
            assert asked[life.collection, life.epoch] >= life.generation


@given(TOKENS, TOKENS, TOKENS)
def test_an_answer_ends_only_the_epochs_that_it_was_asked_about(
    known: SessionToken, sent: SessionToken, later: SessionToken
) -> None:
    answer = SessionToken({life.collection: life for life in later}.values())
    left = {(life.collection, life.epoch): life.generation for life in known.after(sent, answer)}
    asked = {(life.collection, life.epoch) for life in sent}
    answered = {life.collection for life in answer}
    for life in answer:
        assert left[life.collection, life.epoch] >= life.generation
    for life in known:
        if life.collection not in answered or (life.collection, life.epoch) not in asked:
            assert left[life.collection, life.epoch] >= life.generation


def test_a_collection_that_was_made_anew_is_asked_for_in_both_epochs_until_an_answer_says() -> None:
    before, anew = SessionToken.at("tracks", "3f", 900), SessionToken.at("tracks", "9c", 1)
    both = before.merge(anew)
    assert {life.epoch for life in both} == {"3f", "9c"}
    assert both.after(both, anew) == anew
    # What another thread has seen meanwhile, and did not send, stays.
    assert both.merge(SessionToken.at("tracks", "a0", 1)).after(both, anew) == anew.merge(
        SessionToken.at("tracks", "a0", 1)
    )


def test_a_token_of_many_collections_is_bounded_and_keeps_the_newest() -> None:
    longest = [Life(f"{'c' * 62}{n:02}", "e" * 32, 2**63 - 1) for n in range(MAX_LIVES + 5)]
    token = SessionToken(longest)
    assert set(token) == set(longest[5:])
    assert len(str(token)) <= MAX_CHARACTERS
    assert SessionToken.from_text(str(token)) == token
    # One that is asked for again is no longer the first to be forgotten.
    again = token.merge(SessionToken([longest[5]]), SessionToken.at("more", "3f", 1))
    assert longest[5] in set(again)
    assert longest[6] not in set(again)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "begins with 's1'"),
        ("s1", "a dot"),
        ("s2.W10", "begins with 's1'"),
        ("s1.W10=", "altered"),
        ("s1.ü", "cannot be read"),
        ("s1." + "A" * MAX_CHARACTERS, "characters"),
        (text_of({"tracks": 1}), "something else"),
        (text_of([["tracks", "3f"]]), "something else"),
        (text_of([["Tracks", "3f", 1]]), "names no collection"),
        (text_of([[7, "3f", 1]]), "names no collection"),
        (text_of([["tracks", "", 1]]), "no epoch"),
        (text_of([["tracks", "3 f", 1]]), "no epoch"),
        (text_of([["tracks", "3f", -1]]), "no generation"),
        (text_of([["tracks", "3f", 1.0]]), "no generation"),
        (text_of([["tracks", "3f", True]]), "no generation"),
        (text_of([["tracks", "3f", 2**63]]), "no generation"),
        (text_of([["tracks", "3f", 1], ["tracks", "3f", 2]]), "altered"),
        (text_of([["tracks", "3f", 1], ["artists", "3f", 2]]), "altered"),
        (text_of([[f"c{n:03}", "3f", 1] for n in range(MAX_LIVES + 1)]), "altered"),
        ("s1." + base64.urlsafe_b64encode(b"[" * 4000).decode().rstrip("="), "cannot be read"),
        ("s1." + base64.urlsafe_b64encode(b"[[9]] ").decode(), "something else"),
    ],
)
def test_what_is_no_token_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(TokenError, match=reason):
        SessionToken.from_text(text)


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: text_of(list(raw))))
def test_any_text_is_a_token_or_refused(text: str) -> None:
    try:
        token = SessionToken.from_text(text)
    except TokenError:
        return
    assert str(token) == text


def test_a_token_of_some_collections_says_nothing_about_the_others() -> None:
    token = SessionToken([Life("tracks", "3f", 7), Life("secrets", "9c", 1)])
    assert token.of({"tracks"}) == SessionToken.at("tracks", "3f", 7)
    assert len(SessionToken()) == 0
