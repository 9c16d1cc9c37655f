"""What a worker process gives up before it touches content: rights, resources, a life without its parent.

Decoders are large, written in C and read hostile bytes. A worker that was taken over has the descriptors that
it was given; it can connect to nobody, run no program, trace nobody, and write to no file by its path.

Linux only; where the kernel lacks one of the guards the others hold. Sources: prctl(2), seccomp(2),
linux/seccomp.h, linux/filter.h, landlock(7), linux/landlock.h. Blocking; the process's only thread.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
from typing import Final

MEMORY: Final = 4 << 30
"""Bytes of addresses: the largest picture takes 0.8 GB in RGB, and the decoder's own half as much."""
FILES: Final = 256
LARGEST_PRODUCT: Final = 16 << 30

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_SECCOMP: Final = 22
_SECCOMP_MODE_FILTER: Final = 2
_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_IF_LARGE: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000 | 1  # SECCOMP_RET_ERRNO with EPERM
_NUMBER_AT: Final = 0
_MACHINE_AT: Final = 4
_OTHER_CALLS: Final = 0x40000000
"""From here on the x86 has the same calls once more."""

_FORBIDDEN: Final = {
    # socket, connect, bind, execve, execveat, ptrace, process_vm_writev, io_uring_setup
    "x86_64": (0xC000003E, (41, 42, 49, 59, 322, 101, 311, 425)),
    "aarch64": (0xC00000B7, (198, 203, 200, 221, 281, 117, 271, 425)),
}

_LANDLOCK_CREATE_RULESET: Final = 444
_LANDLOCK_RESTRICT_SELF: Final = 446
_LANDLOCK_WRITES: Final = 0b1_1111_1111_0011
"""Rights of its first version: run, write, remove and make files of every kind; not to read."""


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("program", ctypes.c_void_p))


_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = (ctypes.c_int, *4 * (ctypes.c_ulong,))
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = 4 * (ctypes.c_ulong,)


def bind_to_parent(parent: int) -> None:
    """End with the process `parent`, or at once if it has ended already."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def limit_resources() -> None:
    """Bound memory, files, and what a file may grow to; leave no core behind."""
    for what, bound in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_NOFILE, FILES),
        (resource.RLIMIT_FSIZE, LARGEST_PRODUCT),
        (resource.RLIMIT_CORE, 0),
    ):
        _, most = resource.getrlimit(what)
        bound = bound if most == resource.RLIM_INFINITY else min(bound, most)
        resource.setrlimit(what, (bound, bound))


def limit_processor(seconds: int) -> None:
    """End this process when it has used so many seconds of the processor from here on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime) + 1 + seconds
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (most, hard))


def give_up_rights() -> None:
    """From here on no program is run, nobody is connected to, and no file is written by its path."""
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _refuse_writes()
    _refuse_calls()


def _refuse_writes() -> None:
    handled = ctypes.c_uint64(_LANDLOCK_WRITES)
    ruleset = _libc.syscall(_LANDLOCK_CREATE_RULESET, ctypes.addressof(handled), ctypes.sizeof(handled), 0)
    if ruleset >= 0:
        _libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0, 0)
        os.close(ruleset)


def _refuse_calls() -> None:
    known = _FORBIDDEN.get(platform.machine())
    if known is None:
        return
    machine, numbers = known
    count = len(numbers)
    program = [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_JUMP_IF_EQUAL, 0, count + 3, machine),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_JUMP_IF_LARGE, count + 1, 0, _OTHER_CALLS),
        *((_JUMP_IF_EQUAL, count - place, 0, number) for place, number in enumerate(numbers)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    filtered = _Filter(len(program), ctypes.addressof(code))
    _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(filtered), 0, 0)
