"""Names of commits: what git takes for a revision, what DVC calls an experiment, and what is near.

DVC keeps an experiment at `refs/exps/<2>/<the rest of the baseline's oid>/<name>` and takes its name
where git knows no revision of that name; of several, the one whose baseline is HEAD. Below
`refs/exps` there are places for its own use, too, which hold no experiments.

Callers: `store.git.repository`. Blocking; no state, any thread.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NoReturn

from store.errors import RepositoryUnusable, RevisionUnknown
from store.git import command
from store.git.objects import is_oid

_LENGTH_LIMIT: Final = 1000
_COMPARED: Final = 10_000
"""Names that are compared with an unknown one; there may be far more."""

_EXPERIMENT: Final = re.compile(r"refs/exps/([0-9a-f]{2})/([0-9a-f]{38}|[0-9a-f]{62})/([^/]+)")
_SHORT: Final = re.compile(r"refs/(?:heads|tags|remotes)/(.+)")
_AMBIGUOUS_OID: Final = re.compile(r"short (?:object ID|SHA1) \S+ is ambiguous")


def find_oid(git_dir: Path, rev: str) -> str:
    """The object that `rev` names, of whatever kind and perhaps not there. Raises `RevisionUnknown`."""
    if not rev or rev.startswith("-") or len(rev) > _LENGTH_LIMIT or not _is_line(rev):
        raise RevisionUnknown(f"{command.printable(rev, 100)!r} cannot be a git revision")
    asked = command.run(
        ["rev-parse", "--verify"], directory=git_dir, git_dir=git_dir, operands=[rev], limit=1 << 16
    )
    lines = asked.lines()
    if asked.status == 0 and len(lines) == 1 and is_oid(lines[0]):
        if "is ambiguous" in asked.errors and lines[0] != rev:
            _refuse_ambiguous(git_dir, rev)
        return lines[0]
    if asked.status == 0:  # `^rev` and the like: no single commit
        raise RevisionUnknown(f"{rev!r} is not one revision")
    if _AMBIGUOUS_OID.search(asked.errors):
        raise RevisionUnknown(f"{rev!r} begins the names of several git objects; give more of its digits")
    return _find_experiment(git_dir, rev) or _refuse_unknown(git_dir, rev)


def list_refs(git_dir: Path, *spaces: str) -> list[tuple[str, str]]:
    """References below `spaces` (`refs/tags`, say) by name: (full name, oid, of a tag what it tags).

    Raises `RepositoryUnusable`.
    """
    tagged = "%(if)%(*objectname)%(then)%(*objectname)%(else)%(objectname)%(end)"
    listing = ["for-each-ref", f"--format={tagged} %(refname)"]
    done = command.run(listing, directory=git_dir, git_dir=git_dir, operands=spaces)
    if done.status != 0:
        raise RepositoryUnusable(f"the references of {git_dir} cannot be read: {done.complaint}")
    refs = (line.partition(" ") for line in done.lines())
    return [(name, oid) for oid, _, name in refs if is_oid(oid)]


def list_names(git_dir: Path) -> list[str]:
    """Tags and branches by their short names; with `tags/` and `heads/` where one would mean both."""
    refs = [name for name, _ in list_refs(git_dir, "refs/tags", "refs/heads")]
    shorts = [short(name) for name in refs]
    times = Counter(shorts)
    names = zip(refs, shorts, strict=True)
    return sorted(ref.removeprefix("refs/") if times[name] > 1 else name for ref, name in names)


def short(ref: str) -> str:
    """The name of a tag, a branch or a remote's branch as one says it."""
    match = _SHORT.fullmatch(ref)
    return match[1] if match else ref


def _find_experiment(git_dir: Path, rev: str) -> str | None:
    found = {baseline: oid for name, baseline, oid in _experiments(git_dir) if name == rev}
    if not found:
        return None
    if len(found) == 1:
        return next(iter(found.values()))
    head = command.run(["rev-parse", "--verify", "HEAD"], directory=git_dir, git_dir=git_dir, limit=1 << 16)
    baseline = "".join(head.lines())
    if baseline in found:
        return found[baseline]
    refs = ", ".join(f"refs/exps/{base[:2]}/{base[2:]}/{rev}" for base in sorted(found)[:3])
    raise RevisionUnknown(f"{len(found)} experiments are called {rev!r}; give one in full: {refs}")


def _experiments(git_dir: Path) -> Iterator[tuple[str, str, str]]:
    for ref, oid in list_refs(git_dir, "refs/exps"):
        if match := _EXPERIMENT.fullmatch(ref):
            yield match[3], match[1] + match[2], oid


def _refuse_unknown(git_dir: Path, rev: str) -> NoReturn:
    refs = [name for name, _ in list_refs(git_dir, "refs/tags", "refs/heads", "refs/remotes")]
    names = [short(ref) for ref in refs] + [name for name, _, _ in _experiments(git_dir)]
    near = _nearest(rev, names)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    if not names:
        hint = "; the repository has no tags and no branches"
    raise RevisionUnknown(f"no revision {rev!r} in {git_dir}{hint}")


def _nearest(rev: str, names: Sequence[str]) -> list[str]:
    # A branch that only the remote has differs from what was asked by the remote's name.
    ending = [name for name in names if name.endswith(f"/{rev}")]
    close = difflib.get_close_matches(rev[:100], _unique(names[:_COMPARED]), n=3, cutoff=0.5)
    return [command.printable(name, 100) for name in _unique([*ending[:3], *close])[:3]]


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _refuse_ambiguous(git_dir: Path, rev: str) -> None:
    """git takes a tag before a branch and warns; `git checkout` does it the other way round."""
    base = re.split(r"[~^@:]", rev, maxsplit=1)[0]
    refs = list_refs(git_dir, f"refs/tags/{base}", f"refs/heads/{base}")
    exact = {name: oid for name, oid in refs if short(name) == base}
    if len(set(exact.values())) > 1:
        choices = " or ".join(name.removeprefix("refs/") for name in sorted(exact))
        raise RevisionUnknown(f"{rev!r} is a branch and a tag that differ; say {choices}")


def _is_line(text: str) -> bool:
    return not any(character < " " or character == "\x7f" for character in text)
