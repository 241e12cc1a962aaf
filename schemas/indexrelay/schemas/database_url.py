"""What a database URL names, said without SQLAlchemy, which a check of settings need not load."""

from urllib.parse import urlsplit

from pydantic import SecretStr


def database_kind(url: SecretStr) -> str:
    """The kind of database, without a driver; empty where it is no URL with a port that can be."""
    try:
        parts = urlsplit(url.get_secret_value())
        _ = parts.port
    except ValueError:
        return ""
    return parts.scheme.partition("+")[0]
