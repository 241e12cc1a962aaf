"""Keeps the files that components' keys name, with the content that the settings mean.

A rebuilder takes up settings once, when it starts. A file may be changed any time after that, by
somebody who is not done yet. So the content is read at the start and kept, and each build gets a
copy of its own: it never sees half a change, and a changed file stops no delivery. As with every
other key, the next start takes it up.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from indexrelay.schemas.parameter_files import files_in, moved_to
from indexrelay.schemas.settings import ComponentDefinition


class KeptFiles:
    """The content of all files of some components; safe to use from several threads."""

    def __init__(self, definitions: Mapping[str, ComponentDefinition]) -> None:
        """Read everything.

        Raises:
            FileChangedError: a file is not what it was when the settings were read.
        """
        self._contents = {
            file.sha256: file.read()
            for definition in definitions.values()
            for file in files_in(definition.parameters).values()
        }

    @contextmanager
    def laid_out(
        self,
        definition: ComponentDefinition,
        new_folder: Callable[[], AbstractContextManager[Path]],
    ) -> Iterator[ComponentDefinition]:
        """The definition with copies of its files in a folder, for as long as the ``with`` lasts.

        Args:
            new_folder: makes an empty folder, and removes it; called where there are files.
        """
        files = files_in(definition.parameters)
        if not files:
            yield definition
            return
        with new_folder() as folder:
            paths = {key: folder / key for key in files}
            for key, path in paths.items():
                path.write_bytes(self._contents[files[key].sha256])
            parameters = moved_to(definition.parameters, paths)
            yield definition.model_copy(update={"parameters": parameters})
