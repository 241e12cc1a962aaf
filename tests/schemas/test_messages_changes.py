"""Changes count where a key signed all of them, for this installation."""

from typing import Any

import pytest

from indexrelay.schemas.errors import SettingsError
from indexrelay.schemas.messages import ChangedEntries, ChangesCommitted, Event
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.settings_file import check_settings
from tests.schemas.sample_events import event_of

KEY, OTHER = b"k" * 32, b"o" * 32
SAID = ChangesCommitted(
    collection="tracks",
    epoch="5f3a",
    after=6,
    generation=8,
    changes=ChangedEntries(ids=("a", "♫"), vectors="AAAA", texts=("x", None), deletes=("gone",)),
)
SIGNED = SAID.signed("music", KEY)


def test_what_one_of_the_keys_signed_is_taken() -> None:
    assert SIGNED.is_signed("music", [KEY])
    assert SIGNED.is_signed("music", [OTHER, KEY])
    read = Event.from_bytes(event_of(SIGNED).to_bytes()).data
    assert isinstance(read, ChangesCommitted)
    assert read.is_signed("music", [KEY])


def test_what_nobody_signed_or_another_key_is_not() -> None:
    assert not SAID.is_signed("music", [KEY])
    assert not SIGNED.is_signed("music", [OTHER])
    assert not SIGNED.is_signed("music", [])
    assert not SIGNED.is_signed("other", [KEY])


@pytest.mark.parametrize(
    "change",
    [
        {"collection": "artists"},
        {"epoch": "5f3b"},
        {"after": 5},
        {"generation": 9},
        {"changes": None},
        {"changes": SAID.changes and SAID.changes.model_copy(update={"ids": ("♫", "a")})},
        {"changes": SAID.changes and SAID.changes.model_copy(update={"vectors": "AAAB"})},
        {"changes": SAID.changes and SAID.changes.model_copy(update={"texts": (None, "x")})},
        {"changes": SAID.changes and SAID.changes.model_copy(update={"payloads": ("1", "2")})},
        {"changes": SAID.changes and SAID.changes.model_copy(update={"deletes": ()})},
        {"mac": "0" * 64},
        {"mac": None},
    ],
    ids=str,
)
def test_whatever_is_altered_breaks_the_signature(change: dict[str, Any]) -> None:
    assert not SIGNED.model_copy(update=change).is_signed("music", [KEY])


def test_a_key_shows_in_no_text_and_a_short_one_is_refused_without_being_shown() -> None:
    secret = "correct horse battery staple 32 x"
    settings = Settings.model_validate({"live": {"keys": [secret]}})
    assert settings.live_keys == (secret.encode(),)
    assert secret not in f"{settings!r} {settings} {settings.model_dump_json()}"
    for keys in (["my short secret"], "my short secret", [["my short secret"]]):
        with pytest.raises(SettingsError) as refused:
            check_settings({"live": {"keys": keys}}, origin="a test")
        assert "live.keys" in str(refused.value)
        assert "my short secret" not in str(refused.value)


def test_only_a_collection_whose_entries_the_catalog_keeps_may_be_live() -> None:
    folder = {"kind": "folder", "path": "npy"}
    with pytest.raises(SettingsError, match="entries that the catalog keeps"):
        check_settings(
            {"collections": {"tracks": {"dimension": 3, "live": True, "source": folder}}},
            origin="a test",
        )
