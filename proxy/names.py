"""Host names, canonical once and then only compared.

What is not plainly a name of the public DNS is refused: addresses in any notation, names of one
label, control bytes, anything that is not ASCII (an international name has an xn-- form).
"""

import re

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")


class BadName(ValueError):
    """Says why a text is not a host name."""


def shown(text) -> str:
    """For messages and records: short, on one line, ASCII."""
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    return text[:200].encode("unicode_escape").decode("ascii")


def canonical(text) -> str:
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    name = text.lower() if text.isascii() else text
    if name.endswith("."):
        name = name[:-1]
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise BadName(f"'{shown(text)}' is not a host name")
    if len(labels) < 2:
        raise BadName(f"'{shown(text)}' is a name of one label, which means another host everywhere")
    # The last label of a name is never a number; of an address, in any notation, it always is.
    if labels[-1].isdigit() or labels[-1].startswith("0x"):
        raise BadName(f"'{shown(text)}' is an address; only names can be allowed")
    return name


def from_host_header(text: str, port: int) -> str:
    """The canonical name in a Host header or an :authority, whose port, if any, must be `port`."""
    name, colon, number = text.partition(":")
    if colon and number != str(port):
        raise BadName(f"'{shown(text)}' is for another port than {port}")
    return canonical(name)


def matches(pattern: str, name: str) -> bool:
    """Both canonical; "*.example.org" is every name below example.org."""
    if pattern.startswith("*."):
        return name.endswith(pattern[1:]) and len(name) > len(pattern) - 1
    return name == pattern
