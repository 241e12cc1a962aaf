"""What `indexrelay search` imports: each import is waited for."""

import subprocess
import sys


def test_asking_a_component_imports_no_web_framework() -> None:
    heavy = ("fastapi", "starlette", "uvicorn", "h11", "anyio")
    program = (
        "import sys, indexrelay.console.commands.search; "
        f"print(*[name for name in {heavy} if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=False, text=True
    )
    assert (run.returncode, run.stdout.strip()) == (0, ""), run.stderr
