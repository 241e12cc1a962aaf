"""What a question gets that comes after the end: an error that says what to do.

A reader closes a version when its last user has let go of it. Whoever keeps the object of a
snapshot beyond its ``with`` meets one that was closed meanwhile; without this the error would be
that some private attribute does not exist.
"""

from typing import TYPE_CHECKING, Any, ClassVar

from indexrelay.components.errors import ClosedVersionError


class Closable:
    """Derive from it, name what `close` deletes in ``_closed_by``, and delete it there.

    It costs an open object nothing: Python asks here only for attributes that are missing.
    """

    _closed_by: ClassVar[frozenset[str]] = frozenset()

    if not TYPE_CHECKING:  # or a misspelt attribute would be no type error any more

        def __getattr__(self, name: str) -> Any:
            if name in self._closed_by:
                raise ClosedVersionError(type(self).__name__)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
