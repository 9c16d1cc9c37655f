"""Pushes in both layouts to a server 20 ms away: many small files, and a large one that was edited."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

from benchmarks.datasets import initialize_repository, write_files, write_large_file
from benchmarks.lazy import check, forget_everything
from benchmarks.measure import Results, Target, rotate
from benchmarks.mounts import mounted_fusefs
from benchmarks.scale import Scale
from benchmarks.servers import BUCKET, WritableServer, further_away, serving_s3
from benchmarks.workshop import BenchError, Workshop
from store.contents.chunking import chunks

MILLISECONDS = 20
DVC, CONTENT = "layout dvc", "layout content"
PUSH, REQUESTS = "push", "requests of a push, for 1 000 files"
READ, ASKED = "first read, in the order of the listing", "requests of that read, for 1 000 files"
AGAIN, CUTTING = "pushed again", "cutting, a core"
NAMES = {DVC: "sample", CONTENT: "data"}
"""What is pushed."""
LARGEST_EDIT = 100
"""Bytes."""
TARGETS = (
    Target(PUSH, 20, than=DVC, system=CONTENT),
    Target(REQUESTS, 1 / 50, than=DVC, system=CONTENT, at_least=False),
    Target(READ, 10, than=DVC, system=CONTENT),
    Target(ASKED, 1 / 50, than=DVC, system=CONTENT, at_least=False),
    Target(AGAIN, 0.05, system=CONTENT, at_least=False),
    Target(CUTTING, 400, system=CONTENT),
)
CONFIG = """\
[core]
    remote = r
['remote "r"']
    url = s3://{bucket}
    endpointurl = {endpoint}
    region = us-east-1
    access_key_id = key
    secret_access_key = secret
"""


def compare_push(workshop: Workshop, scale: Scale) -> Results:
    """Files a second, from the start of a command to its end; bytes that go again after edits."""
    results = Results(
        f"{scale.pushed_files} files of {scale.pushed_bytes} bytes pushed, "
        f"and {scale.large_bytes >> 20} MiB with {scale.edits} edits",
        DVC,
        TARGETS,
    )
    results.notes += [
        f"moto's S3 server, which serves some hundred requests a second itself; {MILLISECONDS} ms away:",
        " every request waits so long in a proxy",
        f"{DVC}: {scale.pushed_sample} of the files are pushed and {_read_files(scale, DVC)} read; each",
        " costs requests of its own, so a rate and the requests for a thousand need no more",
        "first read: mounted before the clock starts, nothing in any cache, one reader",
    ]
    repository = workshop.directory("repository")
    initialize_repository(workshop, repository)
    for system in (DVC, CONTENT):
        write_files(repository / NAMES[system], _pushed_files(scale, system), scale.pushed_bytes)
        workshop.run("fusefs", "commit", NAMES[system], cwd=repository)
    write_large_file(repository / "large.bin", scale.large_bytes)
    workshop.run("fusefs", "commit", "large.bin", cwd=repository)
    with serving_s3(workshop) as near, further_away(workshop, near, MILLISECONDS) as far:
        (repository / ".dvc/config").write_text(CONFIG.format(bucket=BUCKET, endpoint=far.endpoint))
        for number in range(scale.rounds):
            for system in rotate((DVC, CONTENT), number):
                _push_small(workshop, scale, results, repository, far, system)
        _push_edits(workshop, scale, results, repository, far)
    for _ in range(scale.rounds):
        results.add(CUTTING, "MB/s", CONTENT, _cut(repository / "large.bin"))
    return results


def _push(workshop: Workshop, repository: Path, target: str, system: str) -> dict[str, int]:
    layout = system.rpartition(" ")[2]
    told: dict[str, int] = json.loads(
        workshop.run("fusefs", "push", "--json", "--layout", layout, target, cwd=repository)
    )
    return told


def _pushed_files(scale: Scale, system: str) -> int:
    return scale.pushed_sample if system == DVC else scale.pushed_files


def _read_files(scale: Scale, system: str) -> int:
    return min(scale.dvc_files, scale.pushed_sample) if system == DVC else scale.pushed_files


def _push_small(
    workshop: Workshop, scale: Scale, results: Results, repository: Path, server: WritableServer, system: str
) -> None:
    files = _pushed_files(scale, system)
    server.requests(forget=True)
    start = time.monotonic()
    told = _push(workshop, repository, NAMES[system], system)
    seconds = time.monotonic() - start
    if told["pushed"] != files + 1:
        raise BenchError(f"{told['pushed']} objects were pushed")
    results.add(PUSH, "files/s", system, files / seconds)
    results.add(REQUESTS, "requests", system, server.requests() / files * 1000)
    forget_everything(workshop)  # with the manifest, so that mounting asks for it
    cache = workshop.directory("empty")
    folder = repository / NAMES[system]
    wanted = sorted(folder.rglob("*.bin"))[: _read_files(scale, system)]
    with mounted_fusefs(workshop, NAMES[system], "--cache", cache, cwd=repository) as mountpoint:
        paths = [mountpoint / file.relative_to(folder) for file in wanted]
        reading = check(workshop.read(workshop.write_list(paths, None)), len(wanted) * scale.pushed_bytes)
    results.add(READ, "files/s", system, reading.files / reading.seconds)
    results.add(ASKED, "requests", system, server.requests() / reading.files * 1000)


def _push_edits(
    workshop: Workshop, scale: Scale, results: Results, repository: Path, server: WritableServer
) -> None:
    """A large file, pushed; then edited here and there, in place and not, and pushed again."""
    server.requests(forget=True)
    file = repository / "large.bin"
    first = _push(workshop, repository, "large.bin", CONTENT)
    numbers = random.Random(1)
    data = file.read_bytes()
    pieces, end = [], 0
    for at in sorted(numbers.randrange(len(data)) for _ in range(scale.edits)):
        length = numbers.randrange(1, LARGEST_EDIT)
        pieces += [data[end:at], numbers.randbytes(numbers.choice((length, 0, 2 * length)))]
        end = min(at + length, len(data))
    file.unlink()
    file.write_bytes(b"".join([*pieces, data[end:]]))
    workshop.run("fusefs", "commit", "large.bin", cwd=repository)
    second = _push(workshop, repository, "large.bin", CONTENT)
    results.add(AGAIN, "of all", CONTENT, second["bytes"] / first["bytes"])


def _cut(file: Path) -> float:
    """MB/s of a core that cuts a file that is in memory."""
    with file.open("rb") as opened:
        start = time.process_time()
        size = sum(len(chunk) for chunk in chunks(opened))
        return size / (time.process_time() - start) / 1e6
