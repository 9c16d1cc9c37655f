"""`Resolvers`: children of a daemon (`fusefs.resolve`) that answer its questions about revisions.

A daemon neither compiles nor runs git. To start a child takes ten times as long as most answers do, and
a listing of versions asks for all of them: so a child is kept for some seconds after an answer, unless
that took much memory, and ends with the daemon however that ends. Lives on the loop.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from store import errors
from store.errors import RevisionUnknown, StoreError, StoreTimeout

COMMAND: Final = (sys.executable, "-P", "-m", "fusefs.resolve")
ANSWER_SECONDS: Final = 300.0
"""A first clone or a manifest of ten million files takes its time."""
KEPT_SECONDS: Final = 10.0
AT_ONCE: Final = 2
ANSWER_LIMIT: Final = 256 << 20
"""Bytes; as many as git's list of names may have."""
_READ_SIZE: Final = 1 << 16


@dataclass(eq=False, slots=True)
class _Child:
    """A process that answers one question after the other."""

    process: trio.Process
    questions: int = 0

    async def ask(self, question: Mapping[str, object]) -> bytes:
        """Its answer: a line, or what there is of it where the child ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.questions += 1
        try:
            await self.process.stdin.send_all(json.dumps(question).encode() + b"\n")
        except trio.BrokenResourceError:
            return b""
        answer = bytearray()
        while not answer.endswith(b"\n"):
            part = await self.process.stdout.receive_some(_READ_SIZE)
            answer += part
            if not part or len(answer) > ANSWER_LIMIT:
                break
        return bytes(answer)

    async def explain(self) -> str:
        """What a child that ended said last."""
        assert self.process.stderr is not None
        said = bytearray()
        while (part := await self.process.stderr.receive_some(_READ_SIZE)) and len(said) < _READ_SIZE:
            said += part
        status = await self.process.wait()
        return said.decode(errors="replace").strip().rpartition("\n")[2] or str(status)

    async def end(self) -> None:
        """End the process, whatever it does: what it writes is whole or not there."""
        with trio.CancelScope(shield=True):
            self.process.kill()
            await self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
                if pipe is not None:
                    await pipe.aclose()


class Resolvers:
    """At most `AT_ONCE` children; those that nobody asks wait in the daemon's nursery for their end."""

    def __init__(self, nursery: trio.Nursery, command: Sequence[str] = COMMAND) -> None:
        self._nursery = nursery
        self._command = command
        self._limit = trio.CapacityLimiter(AT_ONCE)
        self._idle: list[_Child] = []

    async def ask(self, question: Mapping[str, object]) -> dict[str, object]:
        """The answer to a question of `fusefs.resolve`.

        Raises the `StoreError` that it failed with, `StoreTimeout`.
        """
        async with self._limit:
            with trio.move_on_after(ANSWER_SECONDS):
                while self._idle:
                    answer = await self._ask_child(self._idle.pop(), question)
                    if answer is not None:
                        return answer
                    # It was ended while nobody looked; that says nothing about the question.
                answer = await self._ask_child(await self._start(), question, fresh=True)
                assert answer is not None  # a fresh child's end is raised
                return answer
        raise StoreTimeout(f"resolving {question.get('rev', 'names')} took more than {ANSWER_SECONDS:.0f} s")

    async def _start(self) -> _Child:
        pipe = subprocess.PIPE
        return _Child(
            await trio.lowlevel.open_process(list(self._command), stdin=pipe, stdout=pipe, stderr=pipe)
        )

    async def _ask_child(
        self, child: _Child, question: Mapping[str, object], *, fresh: bool = False
    ) -> dict[str, object] | None:
        """A child's answer; None if it had ended before it was asked. Afterwards it waits or has ended."""
        usable = False
        try:
            line = await child.ask(question)
            if not line and not fresh:
                return None
            try:
                answer = json.loads(line)
            except ValueError:
                if len(line) > ANSWER_LIMIT:
                    raise StoreError("the resolver failed: its answer is too long") from None
                raise StoreError(f"the resolver failed: {await child.explain()}") from None
            usable = not answer.get("last")
        finally:
            if usable:
                self._idle.append(child)
                self._nursery.start_soon(self._retire, child, child.questions)
            else:
                await child.end()
        if "error" in answer:
            raise _kind(answer)(answer["error"])
        return dict(answer)

    async def _retire(self, child: _Child, questions: int) -> None:
        """End a child that is not asked again, at the latest with the daemon."""
        try:
            await trio.sleep(KEPT_SECONDS)
        finally:
            if child in self._idle and child.questions == questions:
                self._idle.remove(child)
                await child.end()


def _kind(answer: Mapping[str, object]) -> type[StoreError]:
    """The class of an error that was told."""
    found = getattr(errors, str(answer.get("kind")), None)
    if isinstance(found, type) and issubclass(found, StoreError):
        return found
    return RevisionUnknown if answer.get("unknown") else StoreError
