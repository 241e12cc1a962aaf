"""The reader service in the foreground; nothing of the rebuilder is imported for it.

A reader needs no server of its own: without a URL it finds the embedded one by itself, also when
that starts later, and until then looks into the artifacts at its own pace.
"""

from pathlib import Path

from indexrelay.console.exits import ExitCode
from indexrelay.console.installation import Installation
from indexrelay.reloaders.service import serve


def run_reader(
    installation: Installation,
    *,
    reader_id: str,
    host: str,
    port: int | None,
    uds: Path | None,
    insecure: bool,
) -> ExitCode:
    """Serve until a signal comes; exactly one of ``port`` and ``uds`` is given."""
    if uds is not None:
        serve(installation.settings, reader_id=reader_id, uds=uds)
    else:
        serve(installation.settings, reader_id=reader_id, host=host, port=port, insecure=insecure)
    return ExitCode.SUCCESS
