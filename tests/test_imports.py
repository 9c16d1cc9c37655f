"""What is imported when: everybody waits for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_a_daemon_starts_without_what_only_some_need() -> None:
    heavy = {"asyncssh", "av", "botocore", "numpy", "obstore", "PIL", "prometheus_client", "urllib3", "yaml"}
    program = f"import sys, fusefs.daemon; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"
