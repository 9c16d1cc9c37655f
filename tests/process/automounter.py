"""An automounter as systemd is one, for one mountpoint: has it mounted when somebody looks, and is gone.

Started as `python automounter.py PLACE READER MOUNTER`, in a mount namespace of its own; READER and MOUNTER
are commands as JSON. READER looks, in a session of its own. MOUNTER is started as by systemd: in the
automounter's own process group, by which the kernel tells whom it need not keep waiting. Prints JSON: for
each `[status, stdout, stderr]`, and what is mounted there in the end. Protocol: linux/auto_fs.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

SECONDS = 30.0
MISSING_DIRECT = 5
READY, FAIL = 0x9360, 0x9361
HEAD = struct.Struct("iiI")
"""Protocol, kind, and the token by which the answer names the question."""
PACKET_BYTES = 304


def main(place: str, reader: list[str], mounter: list[str]) -> None:
    os.setpgid(0, 0)
    asked, asks = os.pipe()
    options = f"fd={asks},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"systemd-1", place.encode(), b"autofs", 0, options.encode()):
        raise OSError(ctypes.get_errno(), "cannot mount autofs")
    os.close(asks)
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    root = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    with subprocess.Popen(reader, **pipes, text=True, start_new_session=True) as looks:
        _, kind, token = HEAD.unpack_from(os.read(asked, PACKET_BYTES))
        assert kind == MISSING_DIRECT
        answer = FAIL
        try:
            mounted = subprocess.run(mounter, **pipes, text=True, timeout=SECONDS, check=False)
            answer = FAIL if mounted.returncode else READY
        finally:
            fcntl.ioctl(root, answer, token)  # or the reader could not even be killed
        said = looks.communicate(timeout=SECONDS)
    os.close(root)
    lines = [line.split(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    found = {
        "reader": [looks.returncode, *said],
        "mounter": [mounted.returncode, mounted.stdout, mounted.stderr],
        "types": [kind.split()[0] for mount, kind in lines if mount.split()[4] == place],
    }
    print(json.dumps(found))
    for _ in found["types"]:
        subprocess.run(["umount", place], check=True, timeout=SECONDS)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3]))
