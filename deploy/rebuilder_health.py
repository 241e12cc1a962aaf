"""Says whether a rebuilder is alive: whether its presence is in Redis.

It renews that every few seconds and it expires by itself, so a rebuilder that hangs, or that lost
Redis, is missed. Usage: ``python rebuilder_health.py ID``; 0 when it is there.
"""
# ruff: noqa: INP001 - a script: it is run by its path, in a container

import sys

from redis.exceptions import RedisError

from indexrelay.schemas.names import split_member_id
from indexrelay.schemas.settings_file import load_settings
from indexrelay.streams import Connection, Keys, Presence

TIMEOUT_SECONDS = 3.0


def main(arguments: list[str]) -> int:
    """Look once."""
    if len(arguments) != 1:
        sys.stderr.write("usage: rebuilder_health.py ID\n")
        return 2
    settings = load_settings()
    if settings.redis_url is None:
        sys.stderr.write("INDEXRELAY_REDIS__URL is not set\n")
        return 2
    try:
        with Connection.open(settings.redis_url, timeout_seconds=TIMEOUT_SECONDS) as connection:
            keys = Keys(settings.namespace)
            members = Presence(connection, keys, "rebuilder").all()
    except RedisError as error:
        sys.stderr.write(f"Redis does not answer: {error}\n")
        return 1
    if arguments[0] not in {split_member_id(member)[0] for member in members}:
        sys.stderr.write(f"no rebuilder {arguments[0]!r} is present\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
