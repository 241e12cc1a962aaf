"""A server's refusal, as it is: alone in a pipeline's replies, or as our own error with its cause.

Left to itself redis-py raises a pipeline's first error with the whole command written before it:
the code is no longer the first word, and an event's bytes end up in a log.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.client import Pipeline
from redis.exceptions import RedisError, ResponseError

from indexrelay.streams.errors import BackendRefusedError, WrongTypeError
from indexrelay.streams.passing import refusal_code


@contextmanager
def refusals_of(key: str) -> Iterator[None]:
    """Around a write to ``key``.

    Raises:
        BackendRefusedError: the server answered, and its answer was no.
    """
    try:
        yield
    except ResponseError as error:
        raise refused(key, error) from error


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Around reads of ``key``.

    Raises:
        WrongTypeError: it holds another type than what is read there.
    """
    try:
        yield
    except WrongTypeError:
        raise
    except ResponseError as error:
        if refusal_code(error) == "WRONGTYPE":
            raise WrongTypeError(key) from error
        raise


def refused(key: str, error: ResponseError) -> BackendRefusedError:
    """Our own error for a refused write to ``key``; chain it to the server's."""
    return BackendRefusedError(key, refusal_code(error), str(error))


def replies_of(pipeline: Pipeline) -> list[Any]:
    """Send what is in ``pipeline``.

    Raises:
        redis.exceptions.RedisError: the first refusal, unchanged; or the server did not answer.
    """
    replies: list[Any] = pipeline.execute(raise_on_error=False)
    for reply in replies:
        if isinstance(reply, RedisError):
            raise reply
    return replies
