"""Server URLs are understood before anything connects, and never shown."""

import pytest

from indexrelay.schemas.urls import SentinelUrl, SingleUrl, read_server_url

SECRET = "s3cret"


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis://host",
        "redis://user:pw@host:6380/2",
        "rediss://host/0?ssl_cert_reqs=none",
        "redis://[::1]:6379/1",
        "unix:///run/redis.sock?db=1",
        "unix://user:pw@/run/redis.sock",
    ],
)
def test_the_url_of_one_server_is_left_as_it_is(url: str) -> None:
    assert read_server_url(url) == SingleUrl(url=url)


def test_a_url_names_sentinels_service_database_and_who_asks_whom() -> None:
    assert read_server_url(
        "redis+sentinel://user:p%40w@one:1,two,[::1]:3/tracks/4"
        "?sentinel_username=watch&sentinel_password=p%40s&client_name=job"
    ) == SentinelUrl(
        sentinels=(("one", 1), ("two", 26379), ("::1", 3)),
        service="tracks",
        server="redis://user:p%40w@localhost/4?client_name=job",
        sentinel="redis://localhost?username=watch&password=p%40s",
    )


def test_encryption_is_for_the_servers_and_the_sentinels() -> None:
    read = read_server_url("rediss+sentinel://one/tracks?ssl_cert_reqs=none")
    assert isinstance(read, SentinelUrl)
    assert read.server == "rediss://localhost/?ssl_cert_reqs=none"
    assert read.sentinel == "rediss://localhost?ssl_cert_reqs=none"


@pytest.mark.parametrize(
    ("url", "right"),
    [
        (SECRET, "must begin with one of"),
        (f"http://user:{SECRET}@host", "must begin with one of"),
        (f"sentinel://user:{SECRET}@host", "must begin with one of"),
        (f"redis://user:{SECRET}@host:port", "port must be a number"),
        (f"redis://user:{SECRET}@host:70000", "port must be a number"),
        (f"redis://user:{SECRET}/x@host:6379/0", "port must be a number"),
        (f"redis://user:{SECRET}@host/{SECRET}", "database must be a number"),
        (f"redis://user:{SECRET}@host?db={SECRET}", "database must be a number"),
        (f"redis://user:{SECRET}@host?{SECRET}", "query cannot be read"),
        (f"redis://user:{SECRET}@[host/0", "host or query cannot be read"),
        (f"unix://user:{SECRET}@", "must name a socket"),
        (f"redis+sentinel://user:{SECRET}@one,two", "the service that they watch"),
        (f"redis+sentinel://user:{SECRET}@one,/tracks", "must name the Sentinels"),
        (f"redis+sentinel://user:{SECRET}@one:port/tracks", "port must be a number"),
        (f"redis+sentinel://user:{SECRET}@one/tracks/{SECRET}", "database must be a number"),
    ],
)
def test_a_mistaken_url_is_refused_with_what_is_right_and_without_showing_it(
    url: str, right: str
) -> None:
    with pytest.raises(ValueError, match=right) as refused:
        read_server_url(url)
    assert SECRET not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


@pytest.mark.parametrize(
    "url", [f"redis://:{SECRET}@host", f"redis+sentinel://:{SECRET}@one/tracks"]
)
def test_a_url_that_was_understood_does_not_show_itself(url: str) -> None:
    assert SECRET not in repr(read_server_url(url))
