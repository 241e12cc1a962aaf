"""Waiting for what another process or thread does: a condition and a deadline, no bare sleep."""

import threading
import time
from collections.abc import Callable

from redis.exceptions import RedisError

from indexrelay.streams.errors import is_transient


def eventually(condition: Callable[[], object], *, seconds: float = 30.0) -> None:
    """Return as soon as ``condition`` holds; a transient error counts as "not yet".

    A look that costs much is made less often: whoever is waited for needs the processor, too.
    """
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while True:
        before = time.thread_time()
        try:
            if condition():
                return
        except RedisError as error:
            if not is_transient(error):
                raise
        assert time.monotonic() < deadline, "it did not happen in time"
        pause.wait(max(0.005, time.thread_time() - before))
