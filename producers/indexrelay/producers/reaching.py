"""How a job finds Redis: by the URL in the settings, else the embedded server that runs already.

A job never starts a server. It would end with the job, under the feet of everyone who had found it
meanwhile; the one to use is that of ``indexrelay up`` or of a rebuilder, in the same data folder.
"""

from indexrelay.producers.errors import NoRunningServerError
from indexrelay.schemas.settings import Settings
from indexrelay.streams.connection import Connection
from indexrelay.streams.socket_path import embedded_url


def reach(settings: Settings, *, warn: bool = True) -> Connection:
    """Open a connection as the settings say; a server that is away is met at its first use.

    Args:
        settings: the installation.
        warn: log it at once; a command says it in its answer.

    Raises:
        NoRunningServerError: no URL is given, and no embedded server was started there.
        RedisUrlError: the URL cannot be read.
    """
    url = settings.redis_url or embedded_url(settings.data_dir)
    if url is None:
        raise NoRunningServerError(settings.data_dir)
    return Connection.open(url, timeout_seconds=settings.redis.timeout_seconds, warn=warn)
