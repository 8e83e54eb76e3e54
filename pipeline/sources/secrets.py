"""Secrets in URLs: passwords, access keys, signatures. Nothing that is written or printed holds them.

In memory a URI keeps what the store needs of it. Everything else gets one of two forms: ``redact`` puts ``***``
in the place of a secret, so that a frozen plan shows that something is missing (the same command lists the same
sources again, and ``plan`` takes the whole URI from there); ``without_secrets`` leaves no trace, so that keys and
the configuration of a job are the same whoever signed the URL, and whether a password stood in it or not.

Pure functions; none of them looks into a file or a store.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

MARK = "***"

_USERINFO = re.compile(
    r"""(?<![A-Za-z0-9+.-])([A-Za-z][A-Za-z0-9+.-]*)://
        (?:([^\s/?\#"'<>]*)@                              # user:password@ before the first slash, or
          |(?!\[|arn:)([^\s/:@?\#"'<>]+:(?!\d+(?:[/\s]|$))  # user: that is no host with its port,
           [^\s@"'<>]{0,512})@)                                 # and a password that has slashes, as those of AWS have
    """,
    re.VERBOSE,
)
_PLAIN_USERINFO = frozenset({"file", "local", "memory", "github", "git", "gitlab"})
"""Where what stands before ``@`` is part of a name, such as organisation and repository."""
_TOKEN_USERS = frozenset({"http", "https"})
"""Schemes of URIs in which a user without a password may be a token."""
_CREDENTIALS = {
    **dict.fromkeys(("s3", "s3a"), ("key", "secret")),
    **dict.fromkeys(("ftp", "ftps", "sftp", "ssh", "smb"), ("username", "password")),
    **dict.fromkeys(("webhdfs", "webHDFS"), ("user", "password")),
}
"""What the file systems of fsspec call user and password."""
_PLAIN_QUERY = frozenset({"file", "local", "memory", "s3", "s3a", "gs", "gcs"})
"""Schemes of URIs in which a question mark is a character of a name."""

_SIGNING_NAMES = (
    r"x-(?:amz|goog|oss|cos|obs|tos|ms)-[\w-]+|sig|sign|q-signature|"
    r"(?:[\w.-]*[_.-])?(?:signature|token|secret|password|passwd|pwd|credentials?|authorization|auth|jwt|hmac|apikey)|"
    r"(?:[a-z]*(?:access|id|auth|session|security|refresh|bearer|secret|sas|api))(?:token|key(?:id)?|secret)|"
    r"(?:[\w.-]*[_-])?(?:api|access|secret|private)[_-]key(?:[_-]?id)?|googleaccessid|key-pair-id|policy"
)
_OPAQUE_NAMES = r"key|code|hash|sid|session"
"""Parameters that are secrets if their values look like one: long, and no name of a file."""
_END = r"""(?=[.:)\]}]{0,3}(?:[&;\#,\s"'<>]|$))"""  # of a value, before the punctuation of a message
_PARAMETER = re.compile(
    rf"""(?P<before>^|[?&;\#,\s])
         (?P<name>{_SIGNING_NAMES}|(?:{_OPAQUE_NAMES})(?==[\w%+-]{{24,}}=*{_END}))
         =(?P<value>[^&;\#,\s"'<>]*?){_END}""",
    re.VERBOSE | re.IGNORECASE,
)
_BARE_QUERY = re.compile(rf"(?<=\?)(?:eyJ[\w%+/.-]{{13,}}?|[\w%+/-]{{24,}}?)={{0,2}}(?!&){_END}")
_COMPANIONS = frozenset({
    "expires", "awsaccesskeyid", "ossaccesskeyid", "se", "sp", "sv", "sr", "st", "spr", "ss", "srt", "si", "sip",
    "skoid", "sktid", "skt", "ske", "sks", "skv", "sdd", "q-sign-algorithm", "q-ak", "q-sign-time", "q-key-time",
    "q-header-list", "q-url-param-list",
})  # fmt: skip
"""Parameters that come and go with a signature."""
_QUOTED = re.compile(
    r"""(?<![\w-])(["']?(?:[\w-]{0,64}?(?:secret|password|passwd|token|authorization|credential)[\w-]{0,64})["']?\s*[:=]\s*)(["'])(?:(?!\2).)*\2""",
    re.IGNORECASE,
)
_HEADER = re.compile(r"\b(Bearer|Basic)\s+[\w.~+/-]{8,}=*")
_ACCESS_KEY = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b")
_SECRET_OPTION = re.compile(r"secret|password|passwd|token|authorization|credential|\bkey\b|sas", re.IGNORECASE)


def redact(text: str, known: Iterable[str] = ()) -> str:
    """A message, or anything that may contain URLs, with ``***`` in the place of secrets.

    ``known`` are values that are secret wherever they stand (``secret_values``).
    """
    for value in sorted(known, key=len, reverse=True):
        text = text.replace(value, MARK)
    text = _USERINFO.sub(_masked_userinfo, text)
    text = _PARAMETER.sub(_masked_parameter, text)
    text = _BARE_QUERY.sub(MARK, text)
    text = _QUOTED.sub(rf"\1\2{MARK}\2", text)
    text = _HEADER.sub(rf"\1 {MARK}", text)
    return _ACCESS_KEY.sub(MARK, text)


def redact_uri(uri: str) -> str:
    """One URI with ``***`` in the place of secrets; a local path, or a name in a bucket, stays what it is."""
    scheme = _scheme(uri)
    if scheme is None:
        return uri
    uri = _USERINFO.sub(_masked_userinfo, uri, count=1) if _USERINFO.match(uri) else uri
    if scheme in _PLAIN_QUERY:
        return uri
    return _BARE_QUERY.sub(MARK, _PARAMETER.sub(_masked_parameter, uri))


def is_redacted(uri: str) -> bool:
    """Whether ``redact_uri`` took something out of this URI."""
    scheme = _scheme(uri)
    if scheme is None:
        return False
    return f"://{MARK}@" in uri or (scheme not in _PLAIN_QUERY and (f"={MARK}" in uri or f"?{MARK}" in uri))


def without_secrets(uri: str) -> str:
    """One URI without secrets, and without what comes and goes with them, such as the end of a signature's validity."""
    scheme = _scheme(uri)
    if scheme is None:
        return uri
    match = _USERINFO.match(uri)
    if match and _is_secret_userinfo(match):
        uri = f"{match[1]}://{uri[match.end() :]}"
    if scheme in _PLAIN_QUERY:
        return uri
    place, mark, query = uri.partition("?")
    if not mark:
        return uri
    query, hash_mark, fragment = _BARE_QUERY.sub("", mark + query)[1:].partition("#")
    fields = [field for field in query.split("&") if field]
    kept = [field for field in fields if not _PARAMETER.match(field)]
    if len(kept) < len(fields):
        kept = [field for field in kept if field.partition("=")[0].lower() not in _COMPANIONS]
    if fragment and _PARAMETER.search("#" + fragment):
        hash_mark = fragment = ""
    return place + (mark + "&".join(kept) if kept else "") + hash_mark + fragment


def without_query(uri: str) -> str:
    """One URI as far as its question mark, where that is no part of a name."""
    scheme = _scheme(uri)
    return uri if scheme is None or scheme in _PLAIN_QUERY else uri.partition("?")[0]


def split_credentials(uri: str) -> tuple[str, dict[str, Any]]:
    """A URI without user and password, and these as options of its fsspec file system.

    What is percent-encoded is decoded. URIs of other schemes, and without credentials, are returned as they are.
    """
    match = _USERINFO.match(uri)
    if match is None or not _is_secret_userinfo(match):
        return uri, {}
    scheme = match[1].lower()
    user, colon, password = (unquote(part) for part in (match[2] or match[3]).partition(":"))
    clean = f"{match[1]}://{uri[match.end() :]}"
    if scheme in _TOKEN_USERS:
        code = base64.b64encode(f"{user}:{password}".encode()).decode()
        return clean, {"headers": {"Authorization": f"Basic {code}"}}
    names = _CREDENTIALS.get(scheme)
    if names is None or not colon:
        return uri, {}
    return clean, dict(zip(names, (user, password), strict=True))


def with_credentials_of(uri: str, named: str) -> str:
    """A URI with user and password of another one, below which it was found."""
    match = _USERINFO.match(named)
    if match is None or split_credentials(named)[0] == named or _USERINFO.match(uri):
        return uri
    scheme, separator, rest = uri.partition("://")
    return f"{scheme}{separator}{match[2] or match[3]}@{rest}"


def secret_values(options: Mapping[str, Any] | None) -> set[str]:
    """The values in (nested) fsspec options that no message may show."""
    found: set[str] = set()
    for name, value in (options or {}).items():
        if isinstance(value, Mapping):
            found |= secret_values(value)
        elif isinstance(value, str) and len(value) > 3 and _SECRET_OPTION.search(str(name)):
            found |= {value, value.partition(" ")[2] or value}
    return found


def _scheme(uri: str) -> str | None:
    scheme, separator, _ = uri.partition("://")
    return scheme.lower() if separator and scheme.isalnum() else None


def _is_secret_userinfo(match: re.Match[str]) -> bool:
    scheme, userinfo = match[1].lower(), match[2] or match[3] or ""
    if scheme in _PLAIN_USERINFO or not userinfo or userinfo == MARK:
        return False
    return ":" in userinfo or scheme in _TOKEN_USERS


def _masked_userinfo(match: re.Match[str]) -> str:
    return f"{match[1]}://{MARK}@" if _is_secret_userinfo(match) else match[0]


def _masked_parameter(match: re.Match[str]) -> str:
    return f"{match['before']}{match['name']}={MARK}" if match["value"] else match[0]
