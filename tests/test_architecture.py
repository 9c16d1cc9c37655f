"""The arrows between the rooms, held against the imports as they are written."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LARGEST_MODULE = 500


def modules(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(room: str, *wanted: str) -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for path in modules(room)
        for name in imports(path)
        if any(name == module or name.startswith(module + ".") for module in wanted)
    }


def test_there_is_something_to_hold() -> None:
    assert len(modules("store")) > 10
    assert len(modules("fusefs")) > 10


def test_the_bytes_side_knows_nothing_of_the_kernel_side() -> None:
    assert importers("store", "fusefs", "pyfuse3") == set()


def test_one_module_crosses_into_threads() -> None:
    """The loop's own modules use trio; the door between the loop and threads is one."""
    loop = {
        "store/engine.py",
        "store/fetcher.py",
        "store/fetching/asking.py",
        "store/fetching/flight.py",
        "store/fetching/flights.py",
        "store/fetching/publisher.py",
        "store/fetching/block_flights.py",
        "store/fetching/courier.py",
        "store/fetching/completion.py",
        "store/fetching/ranged_object.py",
        "store/fetching/remote_set.py",
        "store/fetching/shared_object.py",
        "store/fetching/short_way.py",
        "store/fetching/surroundings.py",
        "store/keeping/keeper.py",
        "store/making/failures.py",
        "store/making/flight.py",
        "store/making/gathering.py",
        "store/making/maker.py",
        "store/making/open_products.py",
        "store/making/publishing.py",
        "store/making/worker_process.py",
        "store/making/workers.py",
        "store/prefetcher.py",
        "store/shards/reader.py",
        "store/threads.py",
        "store/size_finder.py",
        "store/size_learner.py",
        "store/size_listing.py",
        "store/size_survey.py",
        "store/size_sweep.py",
        "store/tree_files.py",
    }
    assert importers("store", "trio") <= loop
    doors = [path for path in modules("store") if re.search(r"\b(to|from)_thread\b", path.read_text())]
    assert [path.name for path in doors] == ["threads.py"]


def test_only_the_table_and_the_mount_calls_deal_in_errnos() -> None:
    """The store reads the kernel's codes but answers in its own errors; one table maps those."""
    handlers = {
        f"fusefs/{name}.py" for name in ("operations", "control", "attributes", "mount", "tree_space")
    }
    assert not importers("fusefs", "errno") & handlers


def test_pyfuse3_stays_in_the_daemon() -> None:
    """So that a command that only asks something starts fast and runs where libfuse is absent."""
    daemon = {
        "attributes",
        "control",
        "errnos",
        "mount",
        "kernel_caches",
        "operations",
        "plain",
        "relay",
        "revisions",
        "serving",
        "spaces",
        "tree_space",
        "waiting",
    }
    native = {"fetch_layer", "layers_space", "revision_links", "roots", "tree_layer"}
    daemon |= {f"native/{name}" for name in native}
    importing = importers("fusefs", "pyfuse3") - {f"fusefs/{name}.py" for name in daemon}
    views = {path.relative_to(ROOT).as_posix() for path in modules("fusefs/views")}
    assert importing <= views - {"fusefs/views/kinds.py"}  # which the command line reads


@pytest.mark.parametrize(
    "path", [*modules("fusefs"), *modules("store")], ids=lambda p: str(p.relative_to(ROOT))
)
def test_modules_are_rooms_and_not_halls(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LARGEST_MODULE


@pytest.mark.parametrize(
    "path", [*modules("fusefs"), *modules("store")], ids=lambda p: str(p.relative_to(ROOT))
)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    assert not text or ast.get_docstring(ast.parse(text))


def test_every_difference_of_native_mode_is_held_by_tests() -> None:
    """Those that its line in the table names."""
    text = (ROOT / "fusefs" / "SEMANTICS.md").read_text().partition("## Native mode")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
    there = {
        found
        for path in (ROOT / "tests").rglob("test_*.py")
        for found in re.findall(r"def (\w+)\(", path.read_text())
    }
    assert len(lines) > 10
    for line in lines:
        named = re.findall(r"`(test_\w+)`", line)
        assert named and set(named) <= there, line
