"""`Look`: what an image shows that does not follow from content.

A daemon that has no image imports this, so it imports nothing large.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

USER: Final = 1
TRUSTED: Final = 4
"""Name spaces of extended attributes."""


@dataclass(frozen=True, slots=True)
class Look:
    """What files and directories have that does not follow from content."""

    uid: int
    gid: int
    umask: int = 0o022
    in_namespace: bool = False
    """For a mount in a user namespace, where `user.` attributes are used instead of `trusted.` ones."""
    private_to: int = -1
    """The user that the root belongs to, where nobody else may enter it."""

    @property
    def space(self) -> int:
        """Of the overlay's attributes."""
        return USER if self.in_namespace else TRUSTED
