from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from store.dvc import parameter_context
from store.dvc.files import SubFiles, WorkingFiles
from store.dvc.index import read_index
from store.dvc.metafile import Output
from store.dvc.parameters import parse_parameters
from store.dvc.pipeline import Pipeline, read_pipeline
from store.errors import MetafileInvalid
from store.oid import MD5_DOS2UNIX, Oid
from tests.repositories import initialize

DIGEST = "92ea5dc312bbab1be4c38c7b05d14fd6"
Run = Callable[..., str]

ASK_DVC = """
import json, sys
from dvc.repo import Repo
repo = Repo()
print(json.dumps([
    [repo.fs.relpath(out.fs_path, repo.root_dir), stage.name,
     out.hash_info.name if out.hash_info else None, out.hash_info.value if out.hash_info else None,
     out.use_cache, out.can_push, out.remote or ""]
    for stage in repo.index.stages for out in stage.outs
]))
"""

EVERYTHING = r"""
vars:
- cfg/extra.json:lr,deep
- cfg/more.toml
- cfg/code.py:Train
- params.yaml
- inline: {words: [one, two]}
stages:
  plain:
    cmd: make
    outs: [a.txt, "./b//c.txt", {d: {persist: true, cache: false, push: false, remote: far}}]
    plots: [{curve.csv: {x: a, y: b, cache: false}}]
  parameters:
    cmd: make
    wdir: ${dirs.w}
    outs:
    - ${model.name}-${lr}.txt
    - ${deep.a[1]}/${more.table.x}-${Train.rate}-${Train.layers[1]}
    metrics:
    - m-${inline.words[1]}.json: {cache: false}
  each:
    foreach: ${items}
    do: {cmd: make, outs: ["e-${item}.txt"]}
  flags:
    foreach: ${flags}
    do: {cmd: make, outs: ["b-${item}.txt"]}
  literal:
    foreach: [true, 0.10, 1e3, "${flags[0]}", "x y", 1.0, 1.0]
    do: {cmd: make, outs: ["l-${item}.txt"]}
  mapped:
    foreach: {a: {x: 1}, 7: {x: 2}, 0.10: {x: 3}, true: {x: 4}}
    do: {cmd: make, outs: ["d-${key}-${item.x}"]}
  composite:
    foreach: [{n: q}, r]
    do:
      wdir: dirs/sub
      vars: [{own: z}, local.yaml]
      cmd: make
      outs: ["c-${own}-${here}${item}"]
  grid:
    matrix:
      x: [1, 2.50, "${flags[0]}"]
      y: ${pairs}
      z: [true]
    cmd: make
    outs:
    - mx-${item.x}-${item.y.n}-${key}: {push: false, remote: far}
  escaped:
    cmd: make
    outs: ['\${x}', '${dirs.w}/\${x}']
"""


def _write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def everything(tmp_path: Path, run: Run) -> Path:
    """A repository whose pipeline lies in `p` and says all that can be said."""
    initialize(tmp_path)
    files = {
        "p/dvc.yaml": EVERYTHING.replace('"c-${own}-${here}${item}"', '"c-${own}-${here}-${item_name}"'),
        "p/params.yaml": "model: {name: net}\ndirs: {w: sub/w}\nflags: [false, True]\n"
        "items: [1, 0.10, 1e3, foo, 2020, 0x1f, null]\npairs: [{n: p}, {n: k}]\nitem_name: i\n",
        "p/dirs/sub/local.yaml": "here: there\n",
        "p/cfg/extra.json": '{"lr": 0.001, "deep": {"a": ["x", 1e-7]}, "other": 3}',
        "p/cfg/more.toml": "[more.table]\nx = 1.50\n",
        "p/cfg/code.py": "class Train:\n    rate = 0.10\n    layers: list = [1, 2]\n    no = os\n",
    }
    # Two stages that make one thing are refused by DVC where it draws its graph.
    files["p/dvc.yaml"] = files["p/dvc.yaml"].replace("foreach: [{n: q}, r]", "foreach: [{n: q}]")
    _write(tmp_path, **files)
    return tmp_path


def _ask_dvc(root: Path) -> list[list[object]]:
    done = subprocess.run(
        [sys.executable, "-c", ASK_DVC], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    asked: list[list[object]] = json.loads(done.stdout)
    return sorted(asked, key=str)


def _ask_index(root: Path) -> list[list[object]]:
    index = read_index(WorkingFiles(root))
    assert index.broken == ()
    return sorted(
        (
            [
                tracked.path,
                tracked.stage,
                tracked.output.oid and tracked.output.oid.algorithm,
                tracked.output.oid and str(tracked.output.oid),
                tracked.output.cached,
                tracked.output.push,
                tracked.output.remote,
            ]
            for tracked in index.outputs
        ),
        key=str,
    )


def test_everything_that_can_be_said_is_read_as_dvc_reads_it(everything: Path) -> None:
    ours = _ask_index(everything)
    assert ours == _ask_dvc(everything)
    assert len(ours) > 30


def test_what_a_pipeline_made(tmp_path: Path, run: Run) -> None:
    initialize(tmp_path)
    yaml = (
        "stages:\n  gen:\n    foreach: ${names}\n    do:\n      wdir: w\n"
        "      cmd: mkdir -p o-${item} && echo ${item} > o-${item}/f && echo {} > m-${item}.json\n"
        "      outs: ['o-${item}']\n      metrics: [{'m-${item}.json': {cache: false}}]\n"
    )
    _write(tmp_path, **{"sub/dvc.yaml": yaml, "sub/params.yaml": "names: [a, 0.50]\n", "sub/w/.keep": ""})
    run(tmp_path, "dvc", "repro", "--quiet", "sub/dvc.yaml")
    ours = _ask_index(tmp_path)
    assert ours == _ask_dvc(tmp_path)
    assert [row[:2] for row in ours] == [
        ["sub/w/m-0.5.json", "gen@0.5"],
        ["sub/w/m-a.json", "gen@a"],
        ["sub/w/o-0.5", "gen@0.5"],
        ["sub/w/o-a", "gen@a"],
    ]
    assert all(row[3] for row in ours)


def _pipeline(root: Path, yaml: str, lock: str = "", **files: str) -> Pipeline:
    _write(root, **{"dvc.yaml": yaml, **files}, **({"dvc.lock": lock} if lock else {}))
    pipeline = read_pipeline(WorkingFiles(root), "dvc.yaml", "dvc.yaml")
    assert pipeline
    return pipeline


def _locked(stage: str, *paths: str, indent: str = "  ") -> str:
    outs = "".join(f"{indent}  - path: {path}\n{indent}    md5: {DIGEST}\n" for path in paths)
    return f"{indent}{stage}:\n{indent}  cmd: make\n{indent}  outs:\n{outs}"


def _paths(pipeline: Pipeline) -> list[tuple[str, str]]:
    return [(output.stage, output.path) for output in pipeline.outputs]


def test_the_first_lock_files(tmp_path: Path) -> None:
    yaml = "stages:\n  a:\n    cmd: make\n    outs: [x, y]\n    live: {logs: {summary: true}}\n"
    pipeline = _pipeline(
        tmp_path, yaml, _locked("a", "x", "logs", indent="") + _locked("gone", "z", indent="")
    )
    assert [(output.path, output.oid) for output in pipeline.outputs] == [
        ("x", Oid(DIGEST, algorithm=MD5_DOS2UNIX)),
        ("y", None),
        ("logs", Oid(DIGEST, algorithm=MD5_DOS2UNIX)),
    ]
    assert pipeline.faults == ()


def test_the_lock_knows_paths_as_they_are_written(tmp_path: Path) -> None:
    lock = "schema: '2.0'\nstages:\n" + _locked("a", "./x", "y")
    pipeline = _pipeline(tmp_path, "stages: {a: {cmd: make, wdir: w, outs: [./x, ./y]}}", lock)
    assert [(output.path, output.oid is None) for output in pipeline.outputs] == [
        ("w/x", False),
        ("w/y", True),
    ]


def test_versioned_files_in_a_lock(tmp_path: Path) -> None:
    lock = (
        "schema: '2.0'\nstages:\n  a:\n    cmd: make\n    outs:\n    - path: d\n      files:\n"
        "      - {relpath: s/2, md5: 26ab0db90d72e28ad0ba1e22ee510510, size: 2, version_id: v}\n"
        "      - {relpath: '1', md5: b026324c6904b2a9cb4b88d6d61c81d1, size: 2}\n"
    )
    [output] = _pipeline(tmp_path, "stages: {a: {cmd: make, outs: [d]}}", lock).outputs
    assert output.oid == Oid("7493f99274667841745dc19021d73d46", is_tree=True)
    assert [(entry.relpath, entry.size) for entry in output.entries] == [("s/2", 2), ("1", 2)]
    assert (output.size, output.nfiles) == (4, 2)


FALLBACK_LOCK = "schema: '2.0'\nstages:\n" + _locked("s", "x") + _locked("s@a", "y") + _locked("s@b", "z")


ONE_LOCKED = [("s", "x")]
MANY_LOCKED = [("s@a", "y"), ("s@b", "z")]


@pytest.mark.parametrize(
    ("stage", "taken", "reason"),
    [
        ("{cmd: make, outs: ['${gone}']}", ONE_LOCKED, "${gone} names no parameter that there is"),
        ("{cmd: make, wdir: w, outs: ['${gone}']}", [("s", "w/x")], "${gone} names no parameter"),
        ("{cmd: make, wdir: '${gone}', outs: [x]}", ONE_LOCKED, "${gone} names no parameter"),
        ("{cmd: make, outs: ['${map}']}", ONE_LOCKED, "'${map}' is a mapping, of which"),
        ("{cmd: make, outs: [[x]]}", ONE_LOCKED, "outs holds something"),
        ("{foreach: '${gone}', do: {outs: [x]}}", MANY_LOCKED, "${gone} names no parameter"),
        ("{foreach: '${map.x}', do: {outs: [x]}}", MANY_LOCKED, "neither a list nor"),
        ("{matrix: {x: '${map}'}, outs: [x]}", MANY_LOCKED, "axis 'x' of matrix"),
        (
            "{foreach: {a: {p: 1}, b: {}}, do: {outs: ['${item.p}']}}",
            [("s@a", "1"), ("s@b", "z")],
            "${item.p} names no parameter",
        ),
        ("{cmd: make, vars: [{map: 1}], outs: ['${map.x}']}", ONE_LOCKED, "vars sets 'map' a second time"),
        ("{cmd: make, vars: ['${map.x}'], outs: ['${map.x}']}", ONE_LOCKED, "vars holds an expression"),
        ("{cmd: make, vars: [../up.yaml], outs: ['${map.x}']}", ONE_LOCKED, "lies outside the repository"),
        ("{cmd: make, vars: [/etc/passwd], outs: ['${map.x}']}", ONE_LOCKED, "lies outside the repository"),
        ("{cmd: make, vars: [gone.yaml], outs: ['${map.x}']}", ONE_LOCKED, "'gone.yaml', which does not"),
        ("{cmd: make, vars: ['params.yaml:map'], outs: ['${map.x}']}", ONE_LOCKED, "is loaded already"),
        ("{cmd: make, vars: ['o.yaml:k'], outs: ['${map.x}']}", ONE_LOCKED, "not have all of these keys"),
        ("{foreach: [a], do: {vars: [{item: 1}], outs: ['${item}']}}", MANY_LOCKED, "sets 'item'"),
        ("3", ONE_LOCKED, "a stage that is not a mapping"),
    ],
)  # fmt: skip
def test_a_stage_that_cannot_be_understood_is_taken_from_the_lock(
    tmp_path: Path, stage: str, taken: list[tuple[str, str]], reason: str
) -> None:
    yaml = f"stages:\n  s: {stage}\n  good: {{cmd: make, outs: [g]}}\n"
    files = {"params.yaml": "map: {x: 1}\n", "o.yaml": "{}"}
    pipeline = _pipeline(tmp_path, yaml, FALLBACK_LOCK, **files)
    assert _paths(pipeline) == [*taken, ("good", "g")]
    [fault] = pipeline.faults
    assert fault.startswith("dvc.yaml: stage 's': ")
    assert reason in fault
    assert fault.endswith("; taken from dvc.lock as it stands there")


def test_without_a_lock_only_the_fault_is_left(tmp_path: Path) -> None:
    pipeline = _pipeline(tmp_path, "stages: {s: {cmd: make, outs: ['${gone}']}}")
    assert pipeline == Pipeline((), ("dvc.yaml: stage 's': ${gone} names no parameter that there is",))


def test_faulty_parameters_matter_to_those_that_name_them(tmp_path: Path) -> None:
    yaml = "vars: [gone.yaml]\nstages: {a: {cmd: make, outs: [x]}, b: {cmd: make, outs: ['${y}']}}"
    pipeline = _pipeline(tmp_path, yaml)
    assert _paths(pipeline) == [("a", "x")]
    assert len(pipeline.faults) == 1


@pytest.mark.parametrize(
    ("lock", "fault"),
    [
        (
            "schema: '3.0'\nstages: {}\n",
            "dvc.lock line 1: its schema is of a newer DVC than this program knows",
        ),
        ("<<<<<<< HEAD\n", "dvc.lock line 1: a merge conflict that is not resolved"),
        ("schema: '2.0'\nstages: []\n", "dvc.lock line 1: stages is not a mapping"),
        (
            "schema: '2.0'\nstages:\n  a:\n    outs:\n    - {path: x, md5: zzz}\n",
            "dvc.lock line 5: 'zzz' is not an MD5",
        ),
    ],
)
def test_a_broken_lock_leaves_outputs_without_a_hash(tmp_path: Path, lock: str, fault: str) -> None:
    pipeline = _pipeline(tmp_path, "stages: {a: {cmd: make, outs: [{x: {cache: false}}]}}", lock)
    assert pipeline.outputs == (Output("x", None, None, None, False, False, True, "", False, stage="a"),)
    assert pipeline.faults == (fault,)


def test_parameters_of_the_repository_around_a_subproject(tmp_path: Path) -> None:
    yaml = "vars: [../shared.yaml]\nstages: {a: {cmd: make, outs: ['${x}', /abs, 's3://b/${x}']}}"
    _write(tmp_path, **{"sub/dvc.yaml": yaml, "shared.yaml": "x: deep\n"})
    within = read_pipeline(SubFiles(WorkingFiles(tmp_path), "sub"), "dvc.yaml", "dvc.yaml")
    assert within
    # Of the files that were given, nothing else can be read: what is outside of them is refused.
    assert within.faults
    around = read_pipeline(WorkingFiles(tmp_path), "sub/dvc.yaml", "sub/dvc.yaml")
    assert around
    assert [(output.path, output.external) for output in around.outputs] == [
        ("deep", False),
        ("/abs", True),
        ("s3://b/deep", True),
    ]


MANY = "[" + ",".join(str(number) for number in range(2000)) + "]"


@pytest.mark.parametrize(
    "stage",
    [
        f"{{matrix: {{a: &m {MANY}, b: *m, c: *m}}, outs: [x]}}",
        "{matrix: {" + ", ".join(f"a{number}: [1, 2]" for number in range(40)) + "}, outs: [x]}",
        f"{{foreach: &m {MANY}, do: {{outs: *m}}}}",
        f"{{foreach: {MANY}, do: {{outs: ['{'x' * 10_000}${{item}}']}}}}",
        f"{{foreach: {MANY}, do: {{vars: ['big.json'], outs: ['${{item}}', '${{k1}}']}}}}",
    ],
)
def test_explosions_are_refused(tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parameter_context, "WORK_LIMIT", 100_000)
    big = json.dumps({f"k{number}": number for number in range(2000)})
    pipeline = _pipeline(tmp_path, f"stages:\n  s: {stage}\n", **{"big.json": big})
    assert pipeline.faults == ("dvc.yaml: stage 's': it makes more stages and outputs than can be listed",)
    assert len(pipeline.outputs) < 100_000


def test_many_faults_come_to_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parameter_context, "WORK_LIMIT", 100)
    stages = "".join(f"  s{number}: 3\n" for number in range(1000))
    pipeline = _pipeline(tmp_path, f"stages:\n{stages}")
    assert len(pipeline.faults) == 101
    assert (
        pipeline.faults[-1] == "dvc.yaml: stage 's100': it makes more stages and outputs than can be listed"
    )


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.json", b"[1]", "is not a mapping"),
        ("x.json", b"{", "x.json cannot be read: Expecting"),
        ("x.json", b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", "nested deeper than 64 levels"),
        ("x.json", b"[" * 100_000, "x.json cannot be read"),
        ("x.json", b"\xff{}", "x.json cannot be read"),
        ("x.json", b" " * (5 << 20), "too many for parameters"),
        ("x.toml", b"a = ", "x.toml cannot be read"),
        ("x.toml", b"a." * 1000 + b"a = 1", "more than 256 dots in a row"),
        ("x.toml", b"a = " + b"[" * 10_000, "x.toml cannot be read"),
        ("x.py", b"x = (", "x.py cannot be read"),
        ("x.py", b"x = " + b"(" * 300 + b")" * 300, "x.py cannot be read"),
        ("x.py", b"x = " + b"-" * 100_000 + b"1", "x.py cannot be read"),
        ("x.yaml", b"a: &a [x, x]\nb: " + b"[" * 70 + b"]" * 70, "nested deeper than 64 levels"),
        ("x.yaml", b"a: 1\na: 2\n", "stands here twice"),
        ("x", b"- 1\n", "is not a mapping"),
    ],
)
def test_hostile_parameter_files(name: str, data: bytes, message: str) -> None:
    with pytest.raises(MetafileInvalid) as caught:
        parse_parameters(data, name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_python_parameters_are_never_run(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    code = f"""
import os
open({str(witness)!r}, "w")
x = os.system("touch {witness}")
a = b = 1
good: int = 1
bare: int
{{"not a name": 1}}
class C:
    inner = {{"k": [1, 2.50, None, True, "t"]}}
    def __init__(self):
        self.own = -3
        local = 4
    def other(self):
        self.hidden = 5
[first, second] = 1, 2
"""
    values = parse_parameters(code.encode(), "x.py")
    assert not witness.exists()
    assert values == {"good": "1", "C": {"inner": {"k": ["1", "2.5", None, "true", "t"]}, "own": "-3"}}


def test_a_pipeline_that_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").mkdir()
    with pytest.raises(MetafileInvalid, match="not a regular file"):
        read_pipeline(WorkingFiles(tmp_path), "dvc.yaml", "dvc.yaml")
    shutil.rmtree(tmp_path / "dvc.yaml")
    assert read_pipeline(WorkingFiles(tmp_path), "dvc.yaml", "dvc.yaml") is None
