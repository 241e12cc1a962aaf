"""How a job finds Redis: by the URL in the settings, else the embedded server that runs already.

A job never starts a server. It would end with the job, under the feet of everyone who had found it
meanwhile; the one to use is that of ``indexrelay up`` or of a rebuilder, in the same data folder.
"""

from urllib.parse import quote

from indexrelay.producers.errors import NoRunningServerError
from indexrelay.schemas.settings import Settings
from indexrelay.streams.connection import Connection
from indexrelay.streams.socket_path import noted_socket


def reach(settings: Settings) -> Connection:
    """Open a connection as the settings say; a server that is away is met at its first use.

    Raises:
        NoRunningServerError: no URL is given, and no embedded server was started there.
        RedisUrlError: the URL cannot be read.
    """
    return Connection.open(server_url(settings), timeout_seconds=settings.redis.timeout_seconds)


def server_url(settings: Settings) -> str:
    """The URL of the server to use; it may hold a password: never log it.

    Raises:
        NoRunningServerError: no URL is given, and no embedded server was started there.
    """
    if settings.redis_url is not None:
        return settings.redis_url
    socket = noted_socket(settings.data_dir.absolute() / "redis")
    if socket is None or not socket.exists():
        raise NoRunningServerError(settings.data_dir)
    return f"unix://{quote(str(socket))}"
