"""The table of schemes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from store.errors import InputError
from store.remotes.opening import open_remote
from store.remotes.spec import VERSIONED_LAYOUT, RemoteSpec


@pytest.mark.parametrize("scheme", ["hdfs", "webhdfs", "oss", "gdrive", "ftp", "remote", "ext::sh"])
def test_other_schemes_are_refused_in_one_line(scheme: str) -> None:
    with pytest.raises(InputError, match=f"remote here: {scheme}:// remotes are not supported") as caught:
        open_remote(RemoteSpec("here", f"{scheme}://host/path"))
    assert "\n" not in str(caught.value)
    assert "s3, gs, azure, ssh, http(s) and webdav(s)" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("/some/path", {}),
        ("file:///some/path", {}),
        ("S3://bucket/prefix", {"endpointurl": "http://127.0.0.1:1", "allow_anonymous_login": "true"}),
        ("gs://bucket/prefix", {"allow_anonymous_login": "true"}),
        ("azure://container/path", {"account_name": "name", "allow_anonymous_login": "true"}),
        ("http://host/path", {}),
        ("HTTPS://host/path", {}),
        ("webdav://host/path", {}),
        ("webdavs://host/path", {}),
        ("ssh://host/path", {}),
    ],
)
def test_each_scheme_has_its_family_and_nothing_is_asked_yet(url: str, options: dict[str, str]) -> None:
    spec = RemoteSpec("here", url, options, layout=VERSIONED_LAYOUT, addresses={"1" * 32: ("path", "v")})
    remote = open_remote(spec)
    assert (remote.name, remote.layout, remote.addresses) == ("here", VERSIONED_LAYOUT, spec.addresses)
    remote.storage.close()


def test_a_family_is_loaded_when_it_is_needed(tmp_path: Path) -> None:
    program = (
        "import sys; from store.remotes.opening import open_remote;"
        "from store.remotes.spec import RemoteSpec;"
        f"open_remote(RemoteSpec('here', {str(tmp_path)!r}));"
        "print(sorted({'obstore', 'asyncssh', 'urllib3', 'botocore'} & set(sys.modules)))"
    )
    root = Path(__file__).parent.parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"
