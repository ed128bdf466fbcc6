"""What happened, told to the supervisor, which keeps the log: whoever takes the proxy over can add
lines, and can neither change nor remove one."""

import json
import re
import socket
import urllib.parse

MOST_URL = 4096
_SECRET = re.compile(
    r"token|secret|passw|pwd|auth|credential|signature|session|api[-_]?key|access[-_]?key|^(sig|key|jwt|code)$",
    re.IGNORECASE,
)


def masked_target(target: str) -> str:
    """A request's target without what a query may carry in secret."""
    path, mark, query = target.partition("?")
    if not mark:
        return path
    parts = []
    for part in query.split("&"):
        name, equals, _ = part.partition("=")
        hidden = equals and _SECRET.search(urllib.parse.unquote_plus(name))
        parts.append(f"{name}=***" if hidden else part)
    return path + "?" + "&".join(parts)


def url(scheme: str, host: str, target: str) -> str:
    text = f"{scheme}://{host}{masked_target(target)}"
    text = text.encode("unicode_escape").decode("ascii")
    return text if len(text) <= MOST_URL else text[:MOST_URL] + "..."


class Audit:
    def __init__(self, descriptor: int):
        self._socket = socket.socket(fileno=descriptor)
        # When nobody takes the records, no request goes through either.
        self._socket.setblocking(True)

    def write(self, **record) -> None:
        self._socket.sendall(json.dumps(record, ensure_ascii=True).encode())

    def close(self) -> None:
        self._socket.close()
