"""Maps for a page: the array, entries by row, colours; and that each of them is bounded."""

import base64
import gzip
import zlib
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from indexrelay.admin.maps import MAX_CATEGORIES, MAX_ROWS, Maps, _fields_of, shown_payload
from indexrelay.admin.version_cache import FieldError, VersionCache
from indexrelay.testing import Pipeline
from tests.admin.songs import HOSTILE, SONGS


def points_of(body: bytes, count: int) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    assert len(body) == 12 * count
    return (
        np.frombuffer(body, "<f4", count=2 * count).reshape(count, 2),
        np.frombuffer(body, "<u4", offset=8 * count),
    )


def read(song_client: httpx.Client, path: str, **query: Any) -> Any:
    answer = song_client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_array_holds_the_coordinates_and_a_key_of_each_id(
    song_client: httpx.Client, songs: Pipeline
) -> None:
    answer = song_client.get("map/chart")
    count = int(answer.headers["x-map-count"])
    assert count == int(answer.headers["x-map-entries"]) == SONGS - 1
    assert answer.headers["x-map-release"] == "2"
    coordinates, keys = points_of(answer.content, count)
    with songs.reader("a").acquire() as snapshot:
        np.testing.assert_array_equal(coordinates, snapshot["chart"].coordinates)
        assert keys.tolist() == [zlib.crc32(each.encode()) for each in snapshot["chart"].ids]


def test_a_map_that_the_page_has_is_not_sent_again(song_client: httpx.Client) -> None:
    first = song_client.get("map/chart", headers={"accept-encoding": "gzip"})
    assert first.headers["content-encoding"] == "gzip"
    plain = song_client.get("map/chart", headers={"accept-encoding": "identity"})
    assert plain.content == first.content
    assert plain.headers["etag"] != first.headers["etag"]
    again = song_client.get(
        "map/chart",
        headers={"accept-encoding": "gzip", "if-none-match": first.headers["etag"]},
    )
    assert (again.status_code, again.content) == (304, b"")


def test_the_map_of_an_older_release_is_there_as_long_as_that_is_kept(
    song_client: httpx.Client, songs: Pipeline
) -> None:
    older = songs.store.release(1).components["chart"]
    answer = song_client.get("map/chart", params={"version": older})
    assert int(answer.headers["x-map-count"]) == SONGS
    assert answer.headers["x-map-release"] == "1"
    refused = song_client.get("map/chart", params={"version": "0" * 64})
    assert refused.status_code == 404
    assert refused.json()["errors"][0]["field"] == "version"


def test_an_entry_is_shown_as_its_release_has_it_whatever_it_holds(
    song_client: httpx.Client, songs: Pipeline
) -> None:
    found = read(song_client, "map/chart/entries", rows="0,1")["entries"]
    assert [each["id"] for each in found] == ["song-01", "song-02"]
    assert found[0]["payload"]["title"] == f"Song 1 {HOSTILE}"
    assert found[0]["text"] == f"song number 1 {HOSTILE}"
    older = songs.store.release(1).components["chart"]
    before = read(song_client, "map/chart/entries", rows="0", version=older)["entries"]
    assert before[0]["id"] == "song-00"
    assert before[0]["payload"]["year"] == 1960


def test_a_map_that_nothing_holds_the_entries_of_says_so_and_gives_their_ids(
    songs: Pipeline, song_versions: VersionCache
) -> None:
    [chart] = [each for each in Maps(song_versions).summaries().maps if each.component == "chart"]
    assert chart.entries_from == "both"
    assert chart.searched_by == ["both", "words", "sounds"]
    [bare] = [
        each for each in Maps(song_versions).summaries().maps if each.component == "bare_chart"
    ]
    assert bare.entries_from == "bare"
    [entry] = Maps(song_versions).entries("bare_chart", None, [1]).entries
    assert (entry.id, entry.payload, entry.text) == ("b", None, None)


def test_a_map_of_two_collections_has_what_each_of_them_says(song_versions: VersionCache) -> None:
    maps = Maps(song_versions)
    chart = maps.chart("whole_chart")
    assert chart.points == SONGS - 1 + 3
    song, tone = maps.entries("whole_chart", None, [0, SONGS - 1]).entries
    assert (song.id, song.payload["year"]) == ("song-01", 1961)
    assert (tone.id, tone.payload) == ("a", None)
    assert maps.colours("whole_chart", None, "genre").missing == 3


@pytest.mark.parametrize(
    ("rows", "status"),
    [("", 422), ("a", 422), ("-1", 422), ("59", 422), ("9999999", 422), ("1,,2", 422)],
)
def test_a_row_that_is_none_is_refused(song_client: httpx.Client, rows: str, status: int) -> None:
    assert song_client.get("map/chart/entries", params={"rows": rows}).status_code == status


def test_too_many_rows_are_refused(song_client: httpx.Client) -> None:
    rows = ",".join(["1"] * (MAX_ROWS + 1))
    assert song_client.get("map/chart/entries", params={"rows": rows}).status_code == 422


@pytest.mark.parametrize("component", ["nothing", "both"])
def test_what_is_no_map_is_refused_by_name(song_client: httpx.Client, component: str) -> None:
    answer = song_client.get(f"map/{component}")
    assert answer.status_code in (404, 422)
    assert answer.json()["errors"][0]["field"] == "component"


def test_fields_that_tell_entries_apart_are_offered(song_client: httpx.Client) -> None:
    found = read(song_client, "map/chart/fields")["fields"]
    assert {each["name"]: each["kind"] for each in found} == {
        "a/b ?": "category",
        "genre": "category",
        "live": "category",
        "year": "number",
    }


def test_a_category_has_a_code_for_each_point(song_client: httpx.Client) -> None:
    found = read(song_client, "map/chart/colours", field="genre")
    assert {each["label"]: each["count"] for each in found["labels"]} == {
        "rock": 20,
        "soul": 20,
        "jazz": 19,
    }
    codes = np.frombuffer(base64.b64decode(found["codes"]), np.uint8)
    assert len(codes) == SONGS - 1
    labels = [found["labels"][code]["label"] for code in codes[:3]]
    assert labels == ["rock", "soul", "jazz"]


def test_a_field_may_have_any_name(song_client: httpx.Client) -> None:
    found = read(song_client, "map/chart/colours", field="a/b ?")
    assert [each["label"] for each in found["labels"]] == ["1", "0"]


def test_numbers_are_binned_so_that_an_outlier_does_not_take_all_the_colours(
    song_client: httpx.Client,
) -> None:
    found = read(song_client, "map/chart/colours", field="year")
    assert found["kind"] == "number"
    assert found["labels"][0]["label"].startswith("1961 to ")
    assert sum(each["count"] for each in found["labels"]) == SONGS - 1
    assert max(each["count"] for each in found["labels"]) <= 9
    codes = np.frombuffer(base64.b64decode(found["codes"]), np.uint8)
    assert (np.diff(codes) >= 0).all()


def test_many_values_share_the_last_colour_and_points_without_one_are_counted(
    song_client: httpx.Client,
) -> None:
    titles = read(song_client, "map/chart/colours", field="title")
    assert len(titles["labels"]) == MAX_CATEGORIES + 1
    assert titles["labels"][-1]["rest"]
    assert titles["labels"][-1]["count"] == SONGS - 1 - MAX_CATEGORIES
    huge = read(song_client, "map/chart/colours", field="huge")
    assert huge["missing"] == 30
    assert song_client.get("map/chart/colours?field=nothing").status_code == 404


def test_a_large_map_shows_the_same_points_in_the_next_release(
    songs: Pipeline, song_versions: VersionCache
) -> None:
    maps = Maps(song_versions, max_points=20)
    older = songs.store.release(1).components["chart"]
    shown = [
        set(points_of(chart.drawn.body, 20)[1].tolist())
        for chart in (maps.chart("chart", older), maps.chart("chart"))
    ]
    assert len(shown[0] & shown[1]) >= 19
    chart = maps.chart("chart")
    _, keys = points_of(gzip.decompress(chart.drawn.gzipped), 20)
    assert [zlib.crc32(each.encode()) for each in chart.ids(range(20))] == keys.tolist()
    [entry] = maps.entries("chart", None, [19]).entries
    assert zlib.crc32(entry.id.encode()) == keys[19]
    genres = maps.colours("chart", None, "genre")
    codes = base64.b64decode(genres.codes)
    assert len(codes) == 20
    assert genres.labels[codes[19]].label == entry.payload["genre"]
    with pytest.raises(FieldError, match="rows from 0 to 19"):
        maps.entries("chart", None, [20])


def test_a_payload_with_thousands_of_fields_offers_a_few() -> None:
    payloads = [{f"field {n}": n % 2 + row for n in range(5000)} for row in range(2)]
    assert 0 < len(_fields_of(payloads)) <= 40


@pytest.mark.parametrize(
    ("raw", "payload", "start"),
    [
        (b"", None, None),
        (b'{"a": [1, "\xc3\xa4"]}', {"a": [1, "\xe4"]}, None),
        (b'{"a": NaN}', None, '{"a": NaN}'),
        (rb'"\ud800"', None, r'"\ud800"'),
        (b"\xff{", None, "\ufffd{"),
        (b'"' + b"x" * 5000 + b'"', None, '"' + "x" * 999),
    ],
)
def test_a_payload_is_shown_whole_or_as_the_beginning_of_its_text(
    raw: bytes, payload: Any, start: str | None
) -> None:
    assert shown_payload(raw) == (payload, start)
