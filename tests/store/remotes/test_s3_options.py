"""By whose rights S3 is read, and what DVC's options for it do."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.utils import ContainerMetadataFetcher
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from store.errors import InputError, RemoteDenied, RemoteError, RemoteMissing, RemoteSlow, RemoteUnreachable
from store.remotes import s3, s3_session
from store.remotes.object_options import Bucket, Trust
from store.remotes.s3 import open_s3
from store.remotes.spec import RemoteSpec
from store.remotes.storage import Address, Limits, Storage
from tests.servers.certificates import Certificate, make_certificate
from tests.servers.nginx import nginx
from tests.servers.object_stores import ObjectStoreServer, moto
from tests.servers.raw_answers import RawServer, raw_server, say

__all__ = ["moto"]

LIMITS = Limits(connect=5.0, first_byte=10.0, stall=10.0)
KEY = Address("key")
OWN = {"access_key_id": "AKIAOWN", "secret_access_key": "own", "session_token": "token-own"}
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIAENVIRONMENT",
    "AWS_SECRET_ACCESS_KEY": "environment",
    "AWS_SESSION_TOKEN": "token-environment",
}
NOT_FOUND = say("404 Not Found")


@pytest.fixture
def server() -> Iterator[RawServer]:
    with raw_server(NOT_FOUND) as server:
        yield server


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home without anything, and no machine that would give credentials."""
    for name in (*ENVIRONMENT, "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path


def opened(url: str, ambient: bool, options: Mapping[str, str]) -> Storage:
    return open_s3(RemoteSpec("mine", "s3://bucket/p", {"endpointurl": url, **options}, ambient), LIMITS)


def asked(server: RawServer, *, ambient: bool = False, **options: str) -> str:
    """The head of the request that a question makes."""
    with closing(opened(server.url, ambient, options)) as storage, pytest.raises(RemoteMissing):
        storage.size(KEY)
    return server.requests[-1]


def signer(head: str) -> str:
    """Whose key a request is signed with, empty for none."""
    found = re.search(r"^authorization: AWS4-HMAC-SHA256 Credential=([^/]+)/", head, re.M | re.I)
    return found[1] if found else ""


def token(head: str) -> str:
    found = re.search(r"^x-amz-security-token: (\S+)", head, re.M | re.I)
    return found[1] if found else ""


def test_keys_of_the_remote_sign(server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    for ambient in (False, True):
        head = asked(server, ambient=ambient, **OWN)
        assert (signer(head), token(head)) == ("AKIAOWN", "token-own")
        head = asked(server, ambient=ambient, access_key_id="AKIAOWN", secret_access_key="own")
        assert (signer(head), token(head)) == ("AKIAOWN", "")


def test_the_surroundings_are_not_used_unless_they_may_be(
    server: RawServer, monkeypatch: pytest.MonkeyPatch, surroundings: Path
) -> None:
    """Neither for credentials nor for where to go; obstore itself would look there for both."""
    elsewhere = dict.fromkeys(
        ("AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"), "http://127.0.0.1:1"
    )
    key = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0ISE="
    more = {
        "AWS_SERVER_SIDE_ENCRYPTION": "sse-c",
        "AWS_SSE_CUSTOMER_KEY_BASE64": key,
        "AWS_REQUEST_PAYER": "true",
        "AWS_S3_EXPRESS": "true",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
        "AWS_PROFILE": "named",
    }
    (surroundings / ".aws").mkdir()
    profile = "[{}]\naws_access_key_id = AKIAFILE\naws_secret_access_key = file\n"
    (surroundings / ".aws" / "credentials").write_text(profile.format("named") + profile.format("default"))
    for name, value in {**ENVIRONMENT, **elsewhere, **more}.items():
        monkeypatch.setenv(name, value)
    bare = asked(server, profile="named", credentialpath=str(surroundings / ".aws" / "credentials"))
    assert bare.startswith("HEAD /bucket/p/key HTTP/1.1\r\n")
    headers = {line.partition(":")[0].lower() for line in bare.splitlines()[1:] if line}
    assert headers == {"accept", "user-agent", "host"}
    head = asked(server, **OWN)
    assert (signer(head), token(head)) == ("AKIAOWN", "token-own")
    assert key not in head and "payer" not in head.lower()


def test_the_environment_signs_where_it_may(server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    head = asked(server, ambient=True)
    assert (signer(head), token(head)) == ("AKIAENVIRONMENT", "token-environment")
    assert signer(asked(server, ambient=True, allow_anonymous_login="true")) == ""


def test_profiles_and_their_files(server: RawServer, surroundings: Path) -> None:
    credentials, config = surroundings / "my credentials", surroundings / "my config"
    credentials.write_text("[work]\naws_access_key_id = AKIAWORK\naws_secret_access_key = x\n")
    config.write_text(f"[profile work]\nregion = eu-west-3\nendpoint_url = {server.url}\n")
    options = {"profile": "work", "credentialpath": str(credentials), "configpath": str(config)}
    head = asked(server, ambient=True, **options)
    assert signer(head) == "AKIAWORK"
    assert "/eu-west-3/s3/" in head
    head = asked(server, ambient=True, endpointurl="", **options)  # said by the profile instead
    assert signer(head) == "AKIAWORK"
    with pytest.raises(RemoteDenied, match="no AWS profile 'other'"):
        opened(server.url, True, {**options, "profile": "other"}).size(KEY)


def test_roles_are_taken(
    server: RawServer, moto: ObjectStoreServer, surroundings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, identity = surroundings / "config", surroundings / "identity"
    role = "arn:aws:iam::123456789012:role/reader"
    config.write_text(
        f"[profile reader]\nrole_arn = {role}\nsource_profile = me\n"
        "[profile me]\naws_access_key_id = AKIAME\naws_secret_access_key = x\n"
    )
    identity.write_text("token")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto.url)
    head = asked(server, ambient=True, profile="reader", configpath=str(config))
    assert signer(head).startswith("ASIA") and token(head)

    monkeypatch.setenv("AWS_ROLE_ARN", role)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(identity))
    head = asked(server, ambient=True)
    assert signer(head).startswith("ASIA") and token(head)


def test_credentials_that_run_out_are_renewed(server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    given = iter(range(1000))

    def credentials() -> bytes:
        ends = datetime.now(UTC) + timedelta(minutes=2)
        fields = {"AccessKeyId": f"ASIA{next(given)}", "SecretAccessKey": "x", "Token": "x"}
        return json.dumps({**fields, "Expiration": ends.isoformat()}).encode()

    with raw_server(lambda connection: say("200 OK", credentials())(connection)) as container:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", container.url)
        monkeypatch.setattr(s3_session, "LOOK_AGAIN", 0.0)
        with closing(opened(server.url, True, {})) as storage:
            first = ""
            while True:  # obstore keeps what it was given for a tenth of a second
                with pytest.raises(RemoteMissing):
                    storage.size(KEY)
                now = signer(server.requests[-1])
                first = first or now
                assert now.startswith("ASIA")
                if now != first:
                    break

        monkeypatch.setattr(s3_session, "LOOK_AGAIN", 60.0)
        container.script = say("403 Forbidden", b"canary")
        monkeypatch.setattr(ContainerMetadataFetcher, "SLEEP_TIME", 0)
        with pytest.raises(RemoteDenied) as caught:
            opened(server.url, True, {}).size(KEY)
        assert "canary" not in str(caught.value)


def test_a_process_that_gives_no_credentials(
    server: RawServer, surroundings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = surroundings / "config"
    config.write_text(
        "[profile slow]\ncredential_process = sleep 1000\n[profile bad]\ncredential_process = false\n"
    )
    monkeypatch.setattr(s3_session, "PROCESS_SECONDS", 0.1)
    with pytest.raises(RemoteSlow):
        opened(server.url, True, {"profile": "slow", "configpath": str(config)}).size(KEY)
    monkeypatch.setattr(s3_session, "PROCESS_SECONDS", 60.0)
    with pytest.raises(RemoteDenied):
        opened(server.url, True, {"profile": "bad", "configpath": str(config)}).size(KEY)
    assert not server.requests


@pytest.mark.parametrize("profile", ["it", "other"])
@pytest.mark.parametrize("option", ["configpath", "credentialpath"])
def test_a_file_that_a_repository_names_has_no_command_run(
    server: RawServer, surroundings: Path, option: str, profile: str
) -> None:
    """Neither for a profile nor for one that takes its role from that one."""
    touched, file = surroundings / "touched", surroundings / "named"
    role = "role_arn = arn:aws:iam::123456789012:role/reader\nsource_profile = it\n"
    sections = "[profile it]\n{}[profile other]\n{}" if option == "configpath" else "[it]\n{}[other]\n{}"
    file.write_text(sections.format(f"credential_process = touch {touched}\n", role))
    spec = RemoteSpec(
        "mine",
        "s3://bucket/p",
        {"endpointurl": server.url, "profile": profile, option: str(file)},
        ambient=True,
        may_run=False,
    )
    for may_run in (False, True):
        opened_so = closing(open_s3(replace(spec, may_run=may_run), LIMITS))
        with opened_so as storage, pytest.raises(RemoteError) as caught:
            storage.size(KEY)
        assert touched.exists() == may_run
        if not may_run and profile == "it":
            assert isinstance(caught.value, RemoteMissing), "it is asked without credentials"


def test_a_denial_says_what_may_help(server: RawServer, surroundings: Path) -> None:
    server.script = say("403 Forbidden")
    with pytest.raises(RemoteDenied, match="not used for it without --trust"):
        opened(server.url, False, {"profile": "x"}).size(KEY)
    config = surroundings / "config"
    config.write_text("[default]\ncredential_process = false\n")
    spec = RemoteSpec("m", "s3://b", {"endpointurl": server.url, "configpath": str(config)}, True)
    with pytest.raises(RemoteDenied, match="no `credential_process` is run"):
        open_s3(replace(spec, may_run=False), LIMITS).size(KEY)
    with pytest.raises(RemoteDenied, match="no credentials were found"):
        opened(server.url, True, {}).size(KEY)
    with pytest.raises(RemoteDenied, match="allow_anonymous_login"):
        opened(server.url, True, {"allow_anonymous_login": "true"}).size(KEY)


def test_a_key_for_the_objects_is_sent(server: RawServer) -> None:
    key = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0ISE="
    head = asked(server, sse_customer_key=key, sse_customer_algorithm="AES256", **OWN)
    assert f"x-amz-server-side-encryption-customer-key: {key}" in head.lower().replace(key.lower(), key)


def signed_by(authority: Certificate, directory: Path) -> Certificate:
    """A server's certificate that an authority has signed."""
    issuer = x509.load_pem_x509_certificate(authority.path.read_bytes())
    issuer_key = serialization.load_pem_private_key(authority.key.read_bytes(), None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server")]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(issuer.not_valid_before_utc)
        .not_valid_after(issuer.not_valid_after_utc)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(issuer_key, hashes.SHA256())
    )
    directory.mkdir()
    made = Certificate(directory / "certificate.pem", directory / "key.pem")
    made.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    made.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return made


def test_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = make_certificate(tmp_path / "authority")
    (tmp_path / "www" / "bucket" / "p").mkdir(parents=True)
    (tmp_path / "www" / "bucket" / "p" / "key").write_bytes(b"hello")
    certificate = signed_by(authority, tmp_path / "signed")
    with nginx(tmp_path / "nginx", tmp_path / "www", certificate=certificate) as server:
        for options in ({}, {"ssl_verify": "true"}):
            with pytest.raises(RemoteUnreachable, match="not trusted"):
                opened(server.url, False, options).size(KEY)
        assert opened(server.url, False, {"ssl_verify": "false"}).size(KEY) == 5
        assert opened(server.url, False, {"ssl_verify": str(authority.path)}).size(KEY) == 5
        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.path))
        assert opened(server.url, True, {}).size(KEY) == 5
        with pytest.raises(RemoteUnreachable, match="not trusted"):
            opened(server.url, False, {}).size(KEY)


@pytest.mark.parametrize(("expired", "words"), [(True, "expired"), (False, "authority's own")])
def test_certificates_that_are_not_good(tmp_path: Path, expired: bool, words: str) -> None:
    certificate = make_certificate(tmp_path / "bad", expired=expired)
    options = {"ssl_verify": str(certificate.path)}
    with (
        nginx(tmp_path / "nginx", tmp_path, certificate=certificate) as server,
        pytest.raises(RemoteUnreachable, match=words),
    ):
        opened(server.url, False, options).size(KEY)


@pytest.mark.parametrize(
    ("name", "options", "endpoint"),
    [
        ("plain", {"region": "eu-west-3"}, "https://plain.s3.eu-west-3.amazonaws.com"),
        ("with.dots", {"region": "eu-west-3"}, "https://s3.eu-west-3.amazonaws.com"),
        ("plain", {"region": "cn-north-1"}, "https://plain.s3.cn-north-1.amazonaws.com.cn"),
        ("plain", {"region": "x", "use_ssl": "false"}, "http://plain.s3.x.amazonaws.com"),
        ("plain", {}, "https://plain.s3.ap-south-2.amazonaws.com"),
        ("plain", {"endpointurl": "https://minio:9000/"}, "https://minio:9000"),
    ],
)
def test_where_a_bucket_is(
    server: RawServer,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    options: Mapping[str, str],
    endpoint: str,
) -> None:
    """Its region is asked for where nobody says it; even who may not read is told."""
    server.script = say("403 Forbidden", headers="x-amz-bucket-region: ap-south-2\r\n")
    monkeypatch.setattr(s3, "AWS", server.url)
    place = s3._place(RemoteSpec("mine", f"s3://{name}", options), Bucket(name, ""), LIMITS, Trust(), None)
    assert place["endpoint"] == place["aws_endpoint_url_s3"] == endpoint
    assert place["virtual_hosted_style_request"] is (f"//{name}." in endpoint)
    asking = not options
    assert len(server.requests) == asking


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("s3://", {}),
        ("s3:///path", {}),
        ("s3://user@bucket", {}),
        ("s3://bucket/a//b", {}),
        ("s3://bucket/a/../b", {}),
        ("s3://bucket", {"endpointurl": "minio:9000"}),
        ("s3://bucket", {"endpointurl": "http://user:canary@minio"}),
        ("s3://bucket", {"endpointurl": "http://minio?canary"}),
        ("s3://bucket", {"access_key_id": "canary"}),
        ("s3://bucket", {"secret_access_key": "canary"}),
        ("s3://bucket", {"allow_anonymous_login": "canary"}),
        ("s3://bucket", {"use_ssl": "canary"}),
        ("s3://bucket", {"ssl_verify": "/not/canary"}),
        ("s3://bucket", {"ssl_verify": "/dev/null"}),
        ("s3://bucket", {"region": "evil.example/canary?"}),
        ("s3://bucket", {"read_timeout": "canary"}),
        ("s3://bucket", {"connect_timeout": "-1"}),
        ("s3://bucket", {"sse_customer_algorithm": "canary"}),
    ],
)
def test_options_that_cannot_be_used_are_refused(url: str, options: Mapping[str, str]) -> None:
    with pytest.raises(InputError, match=r"^remote mine: ") as caught:
        open_s3(RemoteSpec("mine", url, options), LIMITS)
    assert "canary" not in str(caught.value)


def test_a_remotes_own_times_count(server: RawServer) -> None:
    server.script = server.stall()
    with pytest.raises(RemoteSlow):
        opened(server.url, False, {"read_timeout": "0.2"}).size(KEY)


def test_opening_is_lazy() -> None:
    program = (
        "import sys; from store.remotes.s3 import open_s3; from store.remotes.spec import RemoteSpec\n"
        "from store.remotes.gcs import open_gcs; from store.remotes.azure import open_azure\n"
        "from store.remotes.storage import Limits\n"
        "open_s3(RemoteSpec('a', 's3://b', {}, True), Limits())\n"
        "open_gcs(RemoteSpec('a', 'gs://b', {}, True), Limits())\n"
        "open_azure(RemoteSpec('a', 'azure://b', {}, True), Limits())\n"
        "assert not {'obstore', 'botocore', 'urllib3'} & set(sys.modules)\n"
    )
    root = Path(__file__).resolve().parents[3]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True, timeout=60)


@pytest.mark.parametrize("options", [{"allow_anonymous_login": "true"}, OWN])
@pytest.mark.parametrize("says", ["nothing", "file", "directory that is none", "variable", "option"])
def test_who_has_what_it_needs_imports_no_botocore(
    server: RawServer, surroundings: Path, options: Mapping[str, str], says: str
) -> None:
    """Unless there is something that could say where to go, or whom to trust."""
    file = surroundings / "said"
    file.write_text("[default]\nregion = eu-north-1\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    options = {"endpointurl": server.url, **options}
    if says == "file":
        (surroundings / ".aws").mkdir()
        file.rename(surroundings / ".aws" / "config")
    elif says == "directory that is none":
        (surroundings / ".aws").mkdir()
    elif says == "variable":
        environment["AWS_CONFIG_FILE"] = str(file)
    elif says == "option":
        options["configpath"] = str(file)
    program = (
        "import sys; from store.remotes.s3 import open_s3; from store.remotes.spec import RemoteSpec\n"
        "from store.errors import RemoteMissing; from store.remotes.storage import Address, Limits\n"
        f"storage = open_s3(RemoteSpec('a', 's3://b', {options!r}, True), Limits())\n"
        "try:\n    storage.size(Address('key'))\nexcept RemoteMissing:\n    pass\n"
        "print('botocore' in sys.modules)\n"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=root,
        env=environment,
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert len(server.requests) == 1
    assert done.stdout == f"{says in ('file', 'variable', 'option')}\n"
    region = re.search(r"Credential=[^/]+/\d+/([^/]+)/s3", server.requests[0])
    if options.get("access_key_id"):
        assert region is not None
        assert region[1] == ("eu-north-1" if says in ("file", "variable", "option") else "us-east-1")
