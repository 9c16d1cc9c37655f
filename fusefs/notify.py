"""sd_notify: tells the service manager, where there is one, that the mount is ready or ending.

Called by a daemon in the foreground. One datagram to the socket that `NOTIFY_SOCKET` names, never
blocking; a manager that does not listen is no reason to fail. Protocol: sd_notify(3).
"""

from __future__ import annotations

import os
import socket


def notify(*assignments: str) -> None:
    """Send assignments such as `READY=1`; newlines in a value become blanks."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    message = "\n".join(" ".join(assignment.splitlines()) for assignment in assignments)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            sock.sendto(message.encode(errors="backslashreplace"), address)
    except OSError:
        pass
