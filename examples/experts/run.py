"""Run the example: ``python examples/experts/run.py [--stay]``.

Starts a server, a rebuilder, a reader service and the admin service in a temporary folder, and has
everything rebuilt while a client searches. Ends 0 when every search found the right expert. With
``--stay`` it keeps searching until Ctrl-C, and says so, so that you can rebuild from the page.
"""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent
COMMAND = str(Path(sys.executable).with_name("indexrelay"))
LIMIT_SECONDS = 120.0


def main(*, stay: bool) -> int:
    """Put everything together, tell the story, and take it apart again."""
    from examples.experts.biographies import read
    from examples.experts.clients import QUESTIONS, Admin, Searcher
    from indexrelay.producers import Producer
    from indexrelay.schemas import load_settings
    from indexrelay.streams import EmbeddedServer

    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="indexrelay-experts-"))
        reader, admin = free_port(), free_port()
        os.environ |= {
            "INDEXRELAY_CONFIG": str(HERE / "indexrelay.toml"),
            "INDEXRELAY_DATA_DIR": folder,
            "INDEXRELAY_ADMIN__PORT": str(admin),
        }
        server = EmbeddedServer(Path(folder))
        stack.callback(server.stop)
        os.environ["INDEXRELAY_REDIS__URL"] = server.start()
        started(stack, "rebuilder", "--id", "builder")
        started(stack, "reader", "--id", "reader", "--port", str(reader))
        started(stack, "admin")

        producer = stack.enter_context(Producer.open(load_settings(HERE / "indexrelay.toml")))
        biographies = list(read(HERE / "biographies"))
        with producer.batch("biographies") as batch:
            batch.upsert(
                [each.id for each in biographies],
                texts=[each.text for each in biographies],
                payloads=[{"field": each.field, "city": each.city} for each in biographies],
            )
        await_ok(f"http://127.0.0.1:{reader}/ready")
        await_ok(f"http://127.0.0.1:{admin}/api/admin/health")
        fields = {each.field for each in biographies}
        print(f"{len(biographies)} experts in {len(fields)} fields are served")

        control = Admin(f"http://127.0.0.1:{admin}")
        with Searcher(f"http://127.0.0.1:{reader}") as searcher:
            for question in QUESTIONS:
                hit = searcher.best(question)
                print(f"{question}\n  {hit['id']}, {hit['payload']['city']}")
            rebuild = control.rebuild(all=True, full=True, reason="nobody should notice")
            again = control.rebuild(all=True, full=True)
            print(f"A rebuild of everything: {rebuild.status_code}; one more: {again.status_code}")
            done = control.finished(rebuild.json()["id"])
            for name, component in sorted(done["components"].items()):
                print(f"  {name}: {component['state']}")
            print(f"The rebuild is {done['state']}")
            if stay:
                print(f"The page: http://127.0.0.1:{admin}/ (Ctrl-C ends it)", flush=True)
                with contextlib.suppress(KeyboardInterrupt):
                    while not searcher.wrong:
                        time.sleep(1)
                        print(f"\r{searcher.answered} searches answered", end="", flush=True)
                print()
        for wrong in searcher.wrong[:5]:
            print(f"  wrong: {wrong}")
        well = (
            (rebuild.status_code, again.status_code, done["state"]) == (202, 409, "complete")
            and searcher.answered > 0
            and not searcher.wrong
        )
        print("Meanwhile every search found the same experts" if well else "It went wrong")
        return 0 if well else 1


def started(stack: ExitStack, *arguments: str) -> None:
    """A role, which ends with the example."""
    role = subprocess.Popen([COMMAND, *arguments])
    stack.callback(role.wait)
    stack.callback(role.terminate)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def await_ok(url: str) -> None:
    """Wait for an answer that is a success.

    Raises:
        TimeoutError: it does not come.
    """
    import httpx

    end = time.monotonic() + LIMIT_SECONDS
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, trust_env=False).is_success:
                return
        if time.monotonic() > end:
            raise TimeoutError(f"{url} does not answer")
        time.sleep(0.05)


if __name__ == "__main__":
    # The example's own modules are found from the checkout, wherever it is started from.
    sys.path.insert(0, str(HERE.parents[1]))
    sys.exit(main(stay="--stay" in sys.argv[1:]))
