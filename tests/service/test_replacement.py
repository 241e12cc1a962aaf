"""One application in the place of another: what fails leaves the one that answers as it is."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from fastapi import FastAPI

from indexrelay.reloaders import Reloader
from indexrelay.schemas.settings import Settings
from indexrelay.service import replacement
from indexrelay.service.replacement import ReplaceableApp, Served

SETTINGS = Settings()


class FakeReloader:
    """Serves what a test says."""

    def __init__(self, *serves: str) -> None:
        self.settings = SETTINGS
        self.settings_refused: str | None = None
        self.serves = {*serves}

    @property
    def state(self) -> Any:
        served = {name: type("Component", (), {"version": "v"}) for name in self.serves}
        return type("State", (), {"components": served})


class Source:
    """Has been asked once to read these settings."""

    def __init__(self) -> None:
        self.asked = True
        self.refused: str | None = None
        self.taken = False

    def look(self) -> Settings | None:
        self.asked = False
        return SETTINGS

    def take(self, _new: Settings) -> None:
        self.taken = True

    def refuse(self, error: BaseException) -> None:
        self.refused = str(error)


class Story:
    """Applications that note what happens to them."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.release = asyncio.Event()

    def app(self, name: str, *serves: str, fails: bool = False) -> Served:
        @asynccontextmanager
        async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
            self.told.append(f"start {name}")
            if fails:
                raise ValueError(f"{name} does not start")
            yield
            self.told.append(f"end {name}")

        app = FastAPI(lifespan=lifespan)

        @app.get("/")
        async def slow() -> str:
            self.told.append(f"asked {name}")
            await self.release.wait()
            return name

        return Served(app, cast("Reloader", FakeReloader(*serves)))


async def ask(app: ReplaceableApp) -> bytes:
    said = b""

    async def send(message: Any) -> None:
        nonlocal said
        said += message.get("body", b"")

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
    await app(scope, receive, send)
    return said


@asynccontextmanager
async def living(app: ReplaceableApp) -> AsyncIterator[None]:
    """As a server has it: started, and stopped."""
    messages: asyncio.Queue[Any] = asyncio.Queue()
    sent: asyncio.Queue[Any] = asyncio.Queue()
    task = asyncio.create_task(app({"type": "lifespan"}, messages.get, sent.put))
    await messages.put({"type": "lifespan.startup"})
    assert (await sent.get())["type"] == "lifespan.startup.complete"
    yield
    await messages.put({"type": "lifespan.shutdown"})
    assert (await sent.get())["type"] == "lifespan.shutdown.complete"
    await task


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def test_a_request_that_was_begun_is_answered_by_the_former_one_before_it_ends() -> None:
    async def tell() -> None:
        story, source = Story(), Source()
        switched = list[Settings]()
        app = ReplaceableApp(
            story.app("one", "a"), make=lambda _: story.app("two", "a"), switched=switched.append
        )
        async with living(app):
            begun = asyncio.create_task(ask(app))
            await until(lambda: "asked one" in story.told)
            app.look(source)
            app.look(source)
            await until(lambda: source.taken)
            later = asyncio.create_task(ask(app))
            await until(lambda: "asked two" in story.told)
            assert "end one" not in story.told
            story.release.set()
            assert (await begun, await later) == (b'"one"', b'"two"')
            await until(lambda: "end one" in story.told)
            assert switched == [SETTINGS]
        assert story.told.count("start two") == 1
        assert story.told[-1] == "end two"

    asyncio.run(tell())


@pytest.mark.parametrize(
    ("serves", "fails", "why"),
    [(["a"], True, "two does not start"), ([], False, "did not serve a within")],
)
def test_one_that_does_not_start_or_serves_less_is_ended_and_the_former_one_goes_on(
    monkeypatch: pytest.MonkeyPatch, serves: list[str], fails: bool, why: str
) -> None:
    monkeypatch.setattr(replacement, "READY_SECONDS", 0.0)

    async def tell() -> None:
        story, source = Story(), Source()
        story.release.set()
        app = ReplaceableApp(
            story.app("one", "a"),
            make=lambda _: story.app("two", *serves, fails=fails),
            switched=lambda _: None,
        )
        async with living(app):
            app.look(source)
            await until(lambda: source.refused)
            assert why in str(source.refused)
            assert not source.taken
            assert await ask(app) == b'"one"'
            app.look(source)
            assert app.served.reloader.settings_refused == source.refused
        assert story.told[-1] == "end one"
        assert ("end two" in story.told) is not fails

    asyncio.run(tell())


def test_a_stop_ends_both_where_one_is_about_to_take_the_place_of_the_other() -> None:
    async def tell() -> None:
        story, source = Story(), Source()
        app = ReplaceableApp(
            story.app("one", "a"), make=lambda _: story.app("two"), switched=lambda _: None
        )
        async with living(app):
            app.look(source)
            await until(lambda: "start two" in story.told)
        assert {"end one", "end two"} <= {*story.told}
        assert not source.taken

    asyncio.run(tell())
