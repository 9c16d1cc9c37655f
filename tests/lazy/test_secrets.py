"""A remote's secrets are where they are needed and nowhere else."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from tests.lazy.conftest import Pushed
from tests.mount.mounts import Mounter
from tests.servers.nginx import nginx

SECRET = "hunter-2-s3cret"


def test_no_secret_can_be_seen(mounter: Mounter, pushed: Pushed) -> None:
    with nginx(mounter.home / "nginx", pushed.remote, login=("me", SECRET)) as server:
        address = server.url.removeprefix("http://")
        pushed.configure(f"['remote \"web\"']\nurl = http://me:{SECRET}@{address}\nauth = basic\n")
        mount = mounter.mount("data", "--verbose", cwd=pushed.root)
        try:
            assert sorted(path.name for path in mount.path.iterdir()) == ["a.txt", "sub"]
            seen = {
                "argv": Path(f"/proc/{mount.pid}/cmdline").read_text(),
                "environ": Path(f"/proc/{mount.pid}/environ").read_text(errors="replace"),
                "mounts": Path("/proc/mounts").read_text(),
                "status": json.dumps(mount.status()),
                "list": mounter.run("list", "--json").stdout,
                "told": mounter.run("status", mount.path).stdout,
                "config": mounter.run("config", "--json", cwd=pushed.root).stdout,
            }
        finally:
            seen["log"] = mount.umount()
        # A wrong password is told without it.
        pushed.configure(f"['remote \"web\"']\nurl = http://me:x{SECRET}@{address}\nauth = basic\n")
        done = mounter.run("ls", "more/0", cwd=pushed.root)
        assert done.returncode == 1 and "web" in done.stderr
        seen["error"] = done.stderr
    for where, text in seen.items():
        assert SECRET not in text, where
        assert base64.b64encode(f"me:{SECRET}".encode()).decode() not in text, where
    kept = [path for path in (mounter.home / "cache").rglob("*") if path.is_file()]
    assert all(SECRET.encode() not in path.read_bytes() for path in kept)
