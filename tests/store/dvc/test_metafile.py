from __future__ import annotations

import pytest

from store.dvc.metafile import CloudFile, CloudVersion, Output, parse_dvc_file
from store.errors import MetafileInvalid
from store.oid import MD5, MD5_DOS2UNIX, Oid

DIGEST = "92ea5dc312bbab1be4c38c7b05d14fd6"


def _parse_one(text: str) -> Output:
    [output] = parse_dvc_file(text.encode(), "x.dvc")
    return output


def test_file_of_dvc_3() -> None:
    text = (
        "outs:\n- md5: 3e2b31c72181b87149ff995e7202c0e3\n  size: 10\n  isexec: true\n"
        "  hash: md5\n  path: run.sh\n"
    )
    assert _parse_one(text) == Output(
        path="run.sh",
        oid=Oid("3e2b31c72181b87149ff995e7202c0e3"),
        size=10,
        nfiles=None,
        isexec=True,
        cached=True,
        push=True,
        remote="",
        external=False,
    )


def test_directory_of_dvc_3() -> None:
    text = f"outs:\n- md5: {DIGEST}.dir\n  size: 12\n  nfiles: 11\n  hash: md5\n  path: data\n"
    output = _parse_one(text)
    assert output.oid == Oid(DIGEST, is_tree=True, algorithm=MD5)
    assert (output.size, output.nfiles, output.is_dir) == (12, 11, True)


def test_entry_of_dvc_0_with_all_its_keys() -> None:
    text = (
        "md5: 11111111111111111111111111111111\ncmd: make\nlocked: true\ndeps:\n- path: foo\n  md5: abc\n"
        f"wdir: .\nouts:\n- md5: {DIGEST.upper()}\n  path: data\n  cache: true\n"
        "  metric: {type: json}\n  persist: false\n  plot: {x: a}\n"
    )
    output = _parse_one(text)
    assert output.oid == Oid(DIGEST, algorithm=MD5_DOS2UNIX)
    assert output.size is None


def test_both_algorithms_in_one_file() -> None:
    text = f"outs:\n- md5: {DIGEST}\n  hash: md5\n  path: a\n- md5: {DIGEST}\n  path: b\n"
    outputs = parse_dvc_file(text.encode(), "x.dvc")
    assert [o.oid and o.oid.algorithm for o in outputs] == [MD5, MD5_DOS2UNIX]


@pytest.mark.parametrize(
    ("wdir", "path", "expected"),
    [
        ("", "data", "data"),
        (".", "./data/", "data"),
        ("sub", "data", "sub/data"),
        ("..", "data", "../data"),
        ("../other", "../data", "../data"),
        ("a//b", "c/../d", "a/b/d"),
        ("", "no", "no"),
        ("", "12:30:45", "12:30:45"),
        ("", "007", "007"),
    ],
)
def test_paths_have_the_working_directory_applied(wdir: str, path: str, expected: str) -> None:
    output = _parse_one(f"wdir: {wdir}\nouts:\n- path: {path}\n")
    assert (output.path, output.external) == (expected, False)


@pytest.mark.parametrize("path", ["/abs/data", "s3://bucket/x", "remote://name/x", "ssh://host/x"])
def test_external_outputs_are_told_apart(path: str) -> None:
    output = _parse_one(f"outs:\n- path: {path}\n  etag: abc\n  md5: {DIGEST}\n")
    assert (output.path, output.external, output.oid) == (path, True, None)


def test_without_hash_cache_or_push() -> None:
    output = _parse_one("outs:\n- hash: md5\n  path: x\n  cache: false\n  push: False\n  remote: other\n")
    assert (output.oid, output.cached, output.push, output.remote) == (None, False, False, "other")
    assert _parse_one("outs:\n- md5: ''\n  path: x\n").oid is None


def test_all_digit_hash_keeps_its_zeros() -> None:
    digits = "00012660137455661589292315434968"
    output = _parse_one(f"outs:\n- md5: {digits}\n  hash: md5\n  path: x\n")
    assert output.oid == Oid(digits)


def test_versioned_files_stand_in_for_the_hash() -> None:
    text = (
        f"outs:\n- hash: md5\n  path: d\n  md5: {DIGEST}.dir\n  files:\n"
        "  - relpath: s/2\n    md5: 26ab0db90d72e28ad0ba1e22ee510510\n    size: 2\n"
        "    cloud:\n      va:\n        etag: e\n        version_id: v\n"
        "  - relpath: '1'\n    md5: b026324c6904b2a9cb4b88d6d61c81d1\n"
    )
    output = _parse_one(text)
    assert str(output.oid) == "7493f99274667841745dc19021d73d46.dir"
    assert output.files == (
        CloudFile("s/2", Oid("26ab0db90d72e28ad0ba1e22ee510510"), 2, CloudVersion("va", "v", "e")),
        CloudFile("1", Oid("b026324c6904b2a9cb4b88d6d61c81d1"), None, None),
    )
    assert output.is_dir


def test_an_empty_list_of_versioned_files_is_none() -> None:
    output = _parse_one(f"outs:\n- hash: md5\n  path: d\n  md5: {DIGEST}.dir\n  files: []\n")
    assert str(output.oid) == f"{DIGEST}.dir"


@pytest.mark.parametrize("text", ["", "outs:\n", "outs: null\n", "outs: []\n", "deps:\n- path: x\n"])
def test_no_outputs(text: str) -> None:
    assert parse_dvc_file(text.encode(), "x.dvc") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("outs: 3", "x.dvc line 1: outs is not a list"),
        ("outs:\n- text\n", "x.dvc line 1: outs holds something"),
        ("outs:\n- md5: a\n", "x.dvc line 2: an output without a path"),
        ('outs:\n- path: "a\\0b"\n', "x.dvc line 2: an output without a path"),
        ("outs:\n- path: [a]\n", "x.dvc line 2: path is not text"),
        ("outs:\n- path: a\n- path: b\n  md5: zz\n", "x.dvc line 3: 'zz' is not an MD5"),
        (f"outs:\n- path: b\n  md5: {DIGEST}\n  hash: sha256\n", "x.dvc line 2: the hash 'sha256'"),
        ("outs:\n- path: a\n  size: -1\n", "x.dvc line 2: size is not a number"),
        (f"outs:\n- path: a\n  size: {'9' * 5000}\n", "x.dvc line 2: size is not a number"),
        ("outs:\n- path: a\n  isexec: maybe\n", "x.dvc line 2: isexec is neither"),
        ("outs:\n- path: a\n  files: {}\n", "x.dvc line 2: files is not a list"),
        ("outs:\n- path: a\n  files:\n  - md5: a\n", "x.dvc line 4: a file without a relpath"),
        ("outs:\n- path: a\n  cloud: x\n", "x.dvc line 2: cloud is not a mapping"),
        ("wdir: {}\nouts:\n- path: a\n", "x.dvc line 1: wdir is not text"),
    ],
)
def test_refuses_with_file_and_line(text: str, message: str) -> None:
    with pytest.raises(MetafileInvalid) as caught:
        parse_dvc_file(text.encode(), "x.dvc")
    assert str(caught.value).startswith(message)
