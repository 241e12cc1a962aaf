"""The reader service in the foreground; nothing of the rebuilder is imported for it.

A reader needs no server of its own: without a URL it uses the embedded one if that runs already,
and otherwise looks into the artifacts at its own pace.
"""

from pathlib import Path

from pydantic import SecretStr

from indexrelay.console.exits import ExitCode
from indexrelay.console.installation import Installation
from indexrelay.producers.errors import NoRunningServerError
from indexrelay.producers.reaching import server_url
from indexrelay.reloaders.service import serve
from indexrelay.schemas.settings import RedisSettings, Settings


def run_reader(
    installation: Installation, *, reader_id: str, host: str, port: int | None, uds: Path | None
) -> ExitCode:
    """Serve until a signal comes; exactly one of ``port`` and ``uds`` is given."""
    settings = _with_server(installation.settings)
    if uds is not None:
        serve(settings, reader_id=reader_id, uds=uds)
    else:
        serve(settings, reader_id=reader_id, host=host, port=port)
    return ExitCode.SUCCESS


def _with_server(settings: Settings) -> Settings:
    """The same settings, naming the embedded server where it runs."""
    try:
        url = SecretStr(server_url(settings))
    except NoRunningServerError:
        return settings
    redis = RedisSettings(url=url, timeout_seconds=settings.redis.timeout_seconds)
    return settings.model_copy(update={"redis": redis})
