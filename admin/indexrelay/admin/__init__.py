"""People looking: the admin API and its web page, on the address of its own process.

Nothing here builds, releases or serves. What is shown is what the one judge, the catalog, the
artifacts and presence say; what is asked for is a row of the inbox or a release, as on the command
line. It needs the extra ``admin``.
"""

from indexrelay.schemas.errors import see_installed

# Here, so that whichever module is imported first names the extra to install.
see_installed("anyio", "argon2", "fastapi", "itsdangerous", "starlette", "uvicorn")
