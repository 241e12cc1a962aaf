"""A JSON cache over HTTP: sent as it lies in memory, gzipped or not, or not at all."""

from typing import Any

from indexrelay.components.errors import InvalidQueryError
from indexrelay.schemas.extras import missing_extra

try:
    from starlette.responses import Response
except ModuleNotFoundError as error:
    raise missing_extra(error) from error

from indexrelay.reloaders.http.answers import SharedResponse


def document_response(served: Any, *, accept_encoding: str, if_none_match: str) -> Response:
    """Answer with what a JSON cache serves (``body``, ``gzipped``, ``etag``).

    Raises:
        InvalidQueryError: it is no JSON cache.
    """
    if not all(hasattr(served, name) for name in ("body", "gzipped", "etag")):
        raise InvalidQueryError("this component is no JSON cache; it holds no document")
    gzipped = accepts_gzip(accept_encoding)
    # A strong tag names one sequence of bytes, so the gzipped form has one of its own.
    etag = served.etag.removesuffix('"') + '-gzip"' if gzipped else served.etag
    headers = {"ETag": etag, "Vary": "Accept-Encoding"}
    if matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    if gzipped:
        headers["Content-Encoding"] = "gzip"
    body = served.gzipped if gzipped else served.body
    return SharedResponse(body, headers=headers, media_type="application/json")


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header allows gzip (RFC 9110, section 12.5.3)."""
    weights: dict[str, float] = {}
    for part in accept_encoding.lower().split(","):
        coding, *parameters = (piece.strip() for piece in part.split(";"))
        weights[coding] = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                try:
                    weights[coding] = float(value)
                except ValueError:
                    weights[coding] = 0.0
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def matches(if_none_match: str, etag: str) -> bool:
    """Whether an If-None-Match header names ``etag``, compared weakly (RFC 9110, 13.1.2)."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag in tags
