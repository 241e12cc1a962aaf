"""Processes that use one catalog at once: forks of one that has imported what all of them need.

None of them inherits a connection, since there was none in the one that they are forked from.
"""

import multiprocessing

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["indexrelay.storage.catalog", "psycopg", "tests.storage.rows"])
