"""What may be a name, a reader's id, a file's label: nothing that a key or a path would read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from indexrelay.schemas.names import Digest, FileName, Name, ReaderId, is_name

NAME: TypeAdapter[str] = TypeAdapter(Name)
FILE: TypeAdapter[str] = TypeAdapter(FileName)
READER: TypeAdapter[str] = TypeAdapter(ReaderId)
DIGEST: TypeAdapter[str] = TypeAdapter(Digest)


def accepts(adapter: TypeAdapter[str], text: str) -> bool:
    try:
        adapter.validate_python(text)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("name", ["a", "tracks", "main_map_2", "a" * 64])
def test_a_name(name: str) -> None:
    assert is_name(name)
    assert accepts(NAME, name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "A",
        "2a",
        "_a",
        "a-b",
        "a.b",
        "a b",
        "a\n",
        "ä",
        "a" * 65,
        "a/b",
        "{a}",
        "a:b",
        "٣",
        "a\0",
    ],
)
def test_not_a_name(name: str) -> None:
    assert not is_name(name)
    assert not accepts(NAME, name)


@given(text=st.text(st.sampled_from("aZ0_-.\n/{}:é٣"), max_size=70))
def test_both_ways_to_ask_for_a_name_agree(text: str) -> None:
    assert is_name(text) == accepts(NAME, text)


@given(text=st.text(st.sampled_from("aZ0_-./\\\n\0é"), max_size=8))
def test_a_label_is_never_a_path(text: str) -> None:
    if accepts(FILE, text) or accepts(READER, text):
        assert not set(text) & set("/\\\n\0")
        assert not text.startswith(".")


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "G" * 64, "A" * 64, "0" * 64 + "\n"])
def test_not_a_digest(digest: str) -> None:
    assert not accepts(DIGEST, digest)
    assert accepts(DIGEST, "0" * 64)
