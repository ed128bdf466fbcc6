"""Secrets that the guest does not have: it sends a placeholder, and the value takes its place here,
in the one header and for the hosts that the owner named, on a connection whose certificate was good.

What those hosts answer is searched for the values: one that is reflected is masked.
"""

import base64
import binascii
import dataclasses
import json
import os
import urllib.parse

import names

MOST = 1 << 20


@dataclasses.dataclass(frozen=True)
class Secret:
    name: str
    placeholder: str
    value: str
    hosts: tuple
    header: str

    def goes_to(self, host: str) -> bool:
        return any(names.matches(pattern, host) for pattern in self.hosts)

    def forms(self) -> list:
        """As which the value may come back."""
        return [self.value, urllib.parse.quote(self.value, safe=""), json.dumps(self.value)[1:-1]]


def _decoded_basic(value: str):
    scheme, _, credentials = value.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(credentials.strip(), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None


def put_into(value: str, secret: Secret) -> str:
    """A header's value with the secret in it, also inside of Basic credentials."""
    inner = _decoded_basic(value)
    if inner is not None and secret.placeholder in inner:
        inner = inner.replace(secret.placeholder, secret.value)
        return "Basic " + base64.b64encode(inner.encode()).decode()
    return value.replace(secret.placeholder, secret.value)


class Masker:
    """Stars in the place of every needle in a stream, whose length stays. Nothing is held back but an
    end that may be the beginning of a needle."""

    def __init__(self, needles):
        self._needles = sorted({needle.encode() for needle in needles if needle})
        self._kept = b""

    def whole(self, text: str) -> str:
        return self.message(text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")

    def message(self, data: bytes) -> bytes:
        return self._masked(data, bytearray(len(data)))

    def __call__(self, chunk: bytes) -> list:
        """The chunks to pass on; an empty one ends the stream."""
        data = self._kept + chunk
        kept = self._unfinished(data) if chunk else 0
        marks = bytearray(len(data))
        masked = self._masked(data, marks)[: len(data) - kept]
        self._kept = data[len(data) - kept :]
        return [masked] if masked else []

    def _masked(self, data: bytes, marks: bytearray) -> bytes:
        for needle in self._needles:
            at = data.find(needle)
            while at >= 0:
                marks[at : at + len(needle)] = b"\1" * len(needle)
                at = data.find(needle, at + 1)
        if not any(marks):
            return data
        return bytes(42 if mark else byte for byte, mark in zip(data, marks))

    def _unfinished(self, data: bytes) -> int:
        longest = 0
        for needle in self._needles:
            for length in range(min(len(needle) - 1, len(data)), longest, -1):
                if data.endswith(needle[:length]):
                    longest = length
                    break
        return longest


class Vault:
    def __init__(self, entries):
        self._secrets = [
            Secret(
                name=str(entry["name"]),
                placeholder=str(entry["placeholder"]),
                value=str(entry["value"]),
                hosts=tuple(entry["hosts"]),
                header=str(entry["header"]).lower(),
            )
            for entry in entries
        ]

    @classmethod
    def from_descriptor(cls, descriptor: int):
        # From its beginning, whoever has read it before: all proxies of a VM inherit the same.
        return cls(json.loads(os.pread(descriptor, MOST, 0)))

    def for_host(self, host: str) -> list:
        return [secret for secret in self._secrets if secret.goes_to(host)]

    def put_in(self, headers, host: str) -> list:
        """Puts in what goes to the host. The names of what a placeholder asked for."""
        used = []
        for secret in self.for_host(host):
            values = headers.get_all(secret.header)
            filled = [put_into(value, secret) for value in values]
            if filled != values:
                headers.set_all(secret.header, filled)
                used.append(secret.name)
        return used

    def prepare(self, request, host: str) -> list:
        """Makes the request such that its answer can be searched, and puts the secrets in."""
        if not self.for_host(host):
            return []
        # Compressed, or in pieces that the guest chooses, a value could pass unseen.
        request.headers["accept-encoding"] = "identity"
        for name in ("range", "if-range"):
            request.headers.pop(name, None)
        return self.put_in(request.headers, host)

    def masker(self, host: str, request):
        """For an answer of the host; None when it gets no secret."""
        secrets = self.for_host(host)
        if not secrets:
            return None
        needles = [form for secret in secrets for form in secret.forms()]
        for secret in secrets:
            for value in request.headers.get_all(secret.header):
                inner = _decoded_basic(value)
                if inner is not None and secret.value in inner:
                    needles.append(value.partition(" ")[2])
        return Masker(needles)
