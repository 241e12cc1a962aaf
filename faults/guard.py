"""The shipped access list and limits on a server that runs already."""

import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from redis import Redis

from deploy.redis.render_acl import render
from tests.fixtures.acl import ADMIN_LINE, DEPLOY, PASSWORDS, url_of

_MAXMEMORY = "48mb"
"""Less than is shipped, so that it is reached soon."""
_LIMITS = (
    *("proto-max-bulk-len", "client-query-buffer-limit", "maxmemory-clients"),
    *("client-output-buffer-limit", "lua-time-limit"),
)


def knows_access_lists(program: Path) -> bool:
    """Whether a server understands the list: Redis 6.2 does not."""
    said = subprocess.run([program, "--version"], capture_output=True, check=True, text=True).stdout
    return " v=6." not in said


class Guard:
    """Closes a server to everybody but the users of the list, and opens it again."""

    def __init__(self, url: str, namespace: str) -> None:
        self._socket = Path(unquote(url.removeprefix("unix://")))
        self._admin: Any = Redis.from_url(url, protocol=2)
        self._namespace = namespace

    def close(self) -> None:
        """Load the list and the limits; from here on everybody says who he is."""
        template = (DEPLOY / "redis" / "users.acl").read_text(encoding="utf-8")
        environ = {**PASSWORDS, "INDEXRELAY_NAMESPACE": self._namespace}
        lines = (render(template, environ) + ADMIN_LINE).splitlines()
        for line in sorted(lines, key=lambda each: each.startswith("user default")):
            _, *words = re.findall(r"\([^)]*\)|\S+", line)
            self._admin.execute_command("ACL", "SETUSER", *words)
        for line in (DEPLOY / "redis" / "redis.conf").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(" ")
            if name in _LIMITS:
                self._admin.config_set(name, value)
        self._admin.config_set("maxmemory", _MAXMEMORY)

    def open(self) -> None:
        """Let everybody in again, so that the server can be stopped."""
        self._admin.execute_command("ACL", "SETUSER", "default", "on", "nopass", "~*", "+@all")
        self._admin.close()

    def forbid(self, user: str) -> None:
        """Take a user's password away, and end its connections."""
        self._admin.execute_command("ACL", "SETUSER", user, "off")
        self._admin.execute_command("CLIENT", "KILL", "USER", user)

    def url_of(self, user: str) -> str:
        """How a user reaches the server."""
        return url_of(self._socket, user)
