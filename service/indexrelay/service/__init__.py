"""What the reader service adds to its web framework: limits, errors in one shape, and answers.

Nothing here is imported without the extra ``service``; `indexrelay.service.app` is the door.
"""

from indexrelay.schemas.errors import missing_extra

try:
    import anyio  # noqa: F401 - each module here needs one of them or another
    import fastapi  # noqa: F401
    import h11  # noqa: F401
    import starlette  # noqa: F401
    import uvicorn  # noqa: F401
except ModuleNotFoundError as error:
    raise missing_extra(error) from error
