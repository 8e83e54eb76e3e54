"""Secrets in URLs: taken out of everything that is written or printed."""

from __future__ import annotations

import base64
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import quote

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobs_support import job_config
from sources_support import Bucket, Damage

from lichen.errors import LichenError, SourceUnreadable, StoreError, UsageError
from lichen.pipeline.archive.store import open_store
from lichen.pipeline.secrets import (
    is_redacted,
    redact,
    redact_uri,
    secret_values,
    split_credentials,
    with_credentials_of,
    without_secrets,
)
from lichen.pipeline.sources import Source, list_sources, read_source
from lichen.pipeline.sources.stores import open_file_system

AWS = "AKIAIOSFODNN7EXAMPLE"
KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SIGNED = (
    f"https://bucket.s3.amazonaws.com/a/b.jpg?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={AWS}%2F20260101"
    "&X-Amz-Date=20260101T000000Z&X-Amz-Expires=3600&X-Amz-Security-Token=FwoGZXIvYXdz&X-Amz-Signature=0123abcd"
)

URIS = [
    # URI, redacted, without secrets
    (f"s3://{AWS}:{KEY}@bucket/a/b.jpg", "s3://***@bucket/a/b.jpg", "s3://bucket/a/b.jpg"),
    ("ftp://me:hunter2@host:21/a.jpg", "ftp://***@host:21/a.jpg", "ftp://host:21/a.jpg"),
    ("ftp://me:hunt@er2@host/a.jpg", "ftp://***@host/a.jpg", "ftp://host/a.jpg"),
    ("sftp://me:hun/ter@host/a@b.jpg", "sftp://***@host/a@b.jpg", "sftp://host/a@b.jpg"),
    ("https://me:hunter2@host/a.jpg", "https://***@host/a.jpg", "https://host/a.jpg"),
    ("https://ghp_token@host/a.jpg", "https://***@host/a.jpg", "https://host/a.jpg"),
    (
        "https://h/a.jpg?sv=2021&sp=r&se=2026&sig=abc%3D&size=5",
        "https://h/a.jpg?sv=2021&sp=r&se=2026&sig=***&size=5",
        "https://h/a.jpg?size=5",
    ),
    (
        f"https://h/a.jpg?AWSAccessKeyId={AWS}&Signature=ab%2Bc%3D&Expires=17",
        "https://h/a.jpg?AWSAccessKeyId=***&Signature=***&Expires=17",
        "https://h/a.jpg",
    ),
    ("https://h/a?id=5&token=t#access_token=u", "https://h/a?id=5&token=***#access_token=***", "https://h/a?id=5"),
    ("https://h/a?api_key=k&page=2", "https://h/a?api_key=***&page=2", "https://h/a?page=2"),
    (
        "https://h/a?key=AIzaSyD-0123456789abcdefghijklm",
        "https://h/a?key=***",
        "https://h/a",
    ),
    ("https://h/a?eyJhbGciOiJIUzI1NiJ9.e30.c2ln", "https://h/a?***", "https://h/a"),
]
PLAIN = [
    "/data/a:b@c/x?token=1.jpg",
    "file:///data/a:b@c/x.jpg",
    "memory://a:b@c/x.jpg",
    "s3://bucket/a:b@c/x?token=1#y=2.jpg",
    "s3://arn:aws:s3:us-west-2:123456789012:accesspoint/mine/a@b.jpg",
    "gs://bucket/x?sig=1.jpg",
    "http://host:8080/a@b.jpg",
    "http://[::1]:80/a@b.jpg",
    "https://h/a.jpg?id=5&size=large&key=photo.jpg",
    "https://h/a.jpg?design=1&monkey=2&tokens=3&keyword=x",
    "abfs://container@account.dfs.core.windows.net/x.jpg",
    "hdfs://user@host:8020/x.jpg",
    "github://org:repo@main/x.jpg",
    "list.txt",
    "",
]


@pytest.mark.parametrize(("uri", "redacted", "clean"), URIS)
def test_secrets_are_taken_out(uri: str, redacted: str, clean: str) -> None:
    assert redact_uri(uri) == redacted and is_redacted(redacted) and not is_redacted(uri)
    assert without_secrets(uri) == clean == without_secrets(clean) == redact_uri(clean)
    assert redact_uri(redacted) == redacted
    for message in (f"cannot open {uri}: no", f'url="{uri}"', f"('{uri}', 3)", f"{uri}\nnext", f"<{uri}>"):
        assert redact(message) == message.replace(uri, redacted)


def test_signed_urls() -> None:
    redacted = redact_uri(SIGNED)
    for secret in (AWS, "20260101%2F", "FwoGZXIvYXdz", "0123abcd"):
        assert secret not in redacted and secret not in redact(f"403, url={SIGNED!r}")
    assert without_secrets(SIGNED) == "https://bucket.s3.amazonaws.com/a/b.jpg"


@pytest.mark.parametrize("uri", PLAIN)
def test_names_stay_what_they_are(uri: str) -> None:
    assert redact_uri(uri) == uri == without_secrets(uri)
    assert not is_redacted(uri)
    assert split_credentials(uri) == (uri, {})
    assert with_credentials_of(uri, uri) == uri


def test_messages_of_clients() -> None:
    for message, secret in (
        (f"The AWS Access Key Id {AWS} you provided does not exist", AWS),
        (f'Invalid bucket name "{AWS}:{KEY}@bucket": must match', AWS),
        (f"Credential={AWS}/2026/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0123", "0123"),
        ("{'Authorization': 'Basic bWU6aHVudGVyMg=='}", "bWU6"),
        ("Authorization: Bearer abcdefghijkl", "abcdefghijkl"),
        ("__init__() got {'key': 'k', 'secret': 'a b\"c', 'token': None}", 'a b"c'),
        ("connect(host='h', password='hunter2')", "hunter2"),
    ):
        assert secret not in redact(message)
    options = {
        "key": "key-id",
        "secret": "my own secret",
        "client_kwargs": {"aws_session_token": "tttt", "region": "eu"},
    }
    assert redact("eu: my own secret, tttt and key-id", secret_values(options)) == "eu: ***, *** and ***"
    assert redact("nothing to hide: a@b.c, 10:30, C:/x, 50 %") == "nothing to hide: a@b.c, 10:30, C:/x, 50 %"


word = st.text(st.characters(codec="ascii", categories=["L", "N"], include_characters="-_.~!$'()*+,;=%/"), min_size=6)


@given(word, word, st.sampled_from(["s3", "ftp", "sftp", "smb", "http", "https", "webhdfs"]))
def test_any_password(user: str, password: str, scheme: str) -> None:
    """Encoded as it should be; nothing of it is left, and the file system gets it as it was."""
    uri = f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@host/dir/a.jpg"
    assert redact_uri(uri) == f"{scheme}://***@host/dir/a.jpg"
    clean, options = split_credentials(uri)
    assert clean == f"{scheme}://host/dir/a.jpg" == without_secrets(uri)
    assert with_credentials_of(clean, uri) == uri
    if scheme.startswith("http"):
        code = options["headers"]["Authorization"].removeprefix("Basic ")
        assert base64.b64decode(code).decode() == f"{user}:{password}"
    else:
        assert list(options.values()) == [user, password]


@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    """Whatever a name is made of, taking out secrets ends, and does not take out more the second time."""
    for uri in (text, f"https://{text}", f"s3://{text}"):
        assert redact_uri(redact_uri(uri)) == redact_uri(uri)
        assert without_secrets(without_secrets(uri)) == without_secrets(uri)
        redact(uri)


@pytest.mark.parametrize(
    "piece", ["a", "_", ")", "a://", "a://b:", "?sig=", "&token", "'secret", "secret", "x@", "AKIA", "eyJ", "?a-"]
)
def test_long_texts_take_no_time(piece: str) -> None:
    """No pattern looks at the same characters again and again: a name may be made to be slow."""
    text = "https://h/?sig=" + piece * ((1 << 16) // len(piece))
    start = perf_counter()
    for work in (redact, redact_uri, without_secrets, split_credentials):
        work(text)
    assert perf_counter() - start < 5  # some milliseconds; squared it would be minutes


# --- what is done with them ----------------------------------------------------------------------


def test_sources_with_credentials(bucket: Bucket) -> None:
    """In memory the URIs have them, so that each source is read with its own."""
    bucket.file_system.pipe_file(f"{bucket.name}/set/a.jpg", b"A")
    bucket.file_system.pipe_file(f"{bucket.name}/list.txt", b"set/a.jpg\n")
    options = {name: value for name, value in bucket.options.items() if name not in ("key", "secret")}
    at = f"s3://testing:te%2Fsting@{bucket.name}"
    for name, key in (("set", "a.jpg"), ("set/", "a.jpg"), ("set/a.jpg", "a.jpg"), ("list.txt", "set/a.jpg")):
        [source] = list_sources(f"{at}/{name}", storage_options=options)
        assert (source.key, source.uri) == (key, f"{at}/set/a.jpg")
        assert read_source(source, storage_options=options) == b"A"
    file_system, path = open_file_system(f"{at}/set", options)
    assert (file_system.key, file_system.secret, path) == ("testing", "te/sting", f"{bucket.name}/set")
    file_system, _ = open_file_system(f"{at}/set", bucket.options)
    assert file_system.secret == "testing"  # what is said besides counts more


def test_web_servers_get_the_password(damage: Damage, bucket: Bucket) -> None:
    bucket.file_system.call_s3("put_object", Bucket=bucket.name, Key="a.jpg", Body=b"A", ACL="public-read")
    seen = []

    def change(_path: str, body: bytes, headers: Any) -> bytes:
        seen.append(headers.get("Authorization"))
        return body

    damage.change = change
    uri = f"{damage.url.replace('://', '://me:hunter%202@')}/{bucket.name}/a.jpg"
    assert read_source(Source(key="a", uri=uri)) == b"A"
    assert seen == ["Basic " + base64.b64encode(b"me:hunter 2").decode()]


def test_keys_of_signed_urls(tmp_path: Path) -> None:
    """A key is the same whoever signed the URL, and says nothing that should not be known."""
    manifest = tmp_path / "list.txt"
    lines = [SIGNED, "https://me:hunter2@h/b.jpg", "https://h/c.jpg?id=5&token=t", "https://h/c.jpg?id=6&token=t"]
    manifest.write_text("\n".join(lines))
    sources = list(list_sources(str(manifest)))
    assert [source.uri for source in sources] == lines
    assert [source.key for source in sources] == [
        "bucket.s3.amazonaws.com/a/b.jpg",
        "h/b.jpg",
        "h/c.jpg?id=5",
        "h/c.jpg?id=6",
    ]


def raised(call: Any) -> str:
    """An error with everything that a traceback would show of it."""
    with pytest.raises(LichenError) as caught:
        call()
    texts, error = [], caught.value.with_traceback(None)
    while error is not None:
        texts.append(f"{error!r} {error}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)  # type: ignore[assignment]
    return "\n".join(texts)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIAKEY:hunter2@no_such/Bucket/a.jpg",
        "ftp://me:hunter2@127.0.0.1:9/a.jpg",
        "http://me:hunter2@127.0.0.1:9/a.jpg",
        "http://127.0.0.1:9/a.jpg?token=hunter2",
        "http://127.0.0.1:9/s.tar?X-Amz-Signature=hunter2",
        "http://127.0.0.1:9/l.txt?sig=hunter2",
        "nosuch://me:hunter2@h/a.jpg",
        "webhdfs://me:hunter2@127.0.0.1:9/a.jpg",
    ],
)
def test_errors_say_nothing(uri: str, tmp_path: Path, s3_endpoint: str) -> None:
    options = {"client_kwargs": {"endpoint_url": s3_endpoint}} if uri.startswith("s3") else {}
    for call in (
        lambda: read_source(Source(key="a", uri=uri), storage_options=options),
        lambda: read_source(Source(key="a", uri=uri, offset=3, size=3), storage_options=options),
        lambda: read_source(Source(key="a", uri=uri, size=3), max_bytes=2),
        lambda: list(list_sources(uri, storage_options=options)),
    ):
        assert "hunter2" not in raised(call)
    (tmp_path / "list.txt").write_text(uri)
    for source in list_sources(str(tmp_path / "list.txt"), storage_options=options):
        assert "hunter2" not in source.key + str(source.fault)


def test_options_say_nothing() -> None:
    source = Source(key="a", uri="s3://x/a.jpg")
    with pytest.raises(SourceUnreadable, match="unexpected") as caught:
        read_source(source, storage_options={"secret": "hunter2", "client_kwargs": {"hunter2": 1}})
    assert "hunter2" not in str(caught.value)


def test_archives_with_credentials(s3_url: str, s3_options: dict[str, Any]) -> None:
    options = {name: value for name, value in s3_options.items() if name not in ("key", "secret")}
    store = open_store(s3_url.replace("s3://", "s3://testing:hunter2@"), options)
    store.put("a/b", b"data")
    assert store.url == s3_url and open_store(s3_url, s3_options).read("a/b") == b"data"
    assert "hunter2" not in repr(store)
    with pytest.raises(StoreError) as caught:
        store.read("none")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(UsageError) as refused:
        open_store("nosuch://me:hunter2@h/a")
    assert "hunter2" not in str(refused.value)


def test_the_frozen_configuration_is_the_same_with_and_without(tmp_path: Path) -> None:
    frozen = []
    for names in (
        (f"s3://{AWS}:{KEY}@bucket/set", SIGNED, str(tmp_path)),
        ("s3://bucket/set", without_secrets(SIGNED) + "?X-Amz-Signature=another", str(tmp_path)),
    ):
        config = job_config(names, "a", source_options={"secret": "hunter2"})
        assert config.origins == names
        assert "hunter2" not in repr(config.sources)
        frozen.append(config.frozen(1))
    assert frozen[0] == frozen[1]
    assert not any(secret in str(frozen) for secret in (AWS, KEY, "0123abcd", "hunter2"))


def test_file_systems_keep_what_is_in_a_url(memory: fsspec.AbstractFileSystem) -> None:
    """Host and port go to file systems that ask for them."""
    with pytest.raises(UsageError, match="refused"):
        open_file_system("ftp://127.0.0.1:9/a.jpg", None)
    assert open_file_system("memory://x/y?z#1.jpg", None) == (memory, "/x/y?z#1.jpg")
