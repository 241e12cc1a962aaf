"""What an event can carry of a trace: https://www.w3.org/TR/trace-context."""

import re

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]{1,256})?")
"""Later versions may append to what version 00 has."""


def check_traceparent(given: str | None) -> None:
    """Refuse what an event cannot carry, before the commit: after it a job could not tell.

    Raises:
        ValueError: it is no trace context.
    """
    if given is None or (isinstance(given, str) and _TRACEPARENT.fullmatch(given)):
        return
    raise ValueError(
        f"traceparent={given!r:.100}: a W3C trace context, 00-<32 hex>-<16 hex>-<2 hex>"
    )
