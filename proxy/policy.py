"""What a VM may reach: the file that agent-vm writes, read again whenever it changes.

A refusing rule is stronger than an allowing one; what no rule names is decided by the mode. A file
that is missing or cannot be understood allows nothing.

As a program it says how a request would be decided, which is what `agent-vm net test` shows:
    policy.py FILE METHOD HOST PATH
"""

import dataclasses
import ipaddress
import json
import os
import re
import sys
import urllib.parse

# Isolated Python (-I) does not look beside the program.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import names

SCHEMA = 1
MODES = ("off", "allowlist", "monitor")


class BadPolicy(ValueError):
    """Says what is wrong with a policy file."""


@dataclasses.dataclass(frozen=True)
class Rule:
    allows: bool
    methods: frozenset  # empty: all
    host: str
    path: object  # a compiled pattern, or None: all
    range: object  # a network that the host may lead to although it is private, or None
    text: str
    origin: str

    def matches(self, method: str, host: str, path) -> bool:
        if not names.matches(self.host, host) or (self.methods and method not in self.methods):
            return False
        if self.path is None:
            return True
        # A path that servers read in different ways is nobody's exception from a refusal.
        return bool(self.path.fullmatch(path)) if path is not None else not self.allows


@dataclasses.dataclass(frozen=True)
class Decision:
    allowed: bool
    rule: str  # the text of the rule that decided, or the mode
    why: str
    range: object = None


def plain_path(target: str):
    """The path of a request's target, decoded; None when servers might disagree about it."""
    raw = target.partition("?")[0].partition("#")[0]
    if re.search(r"%(2f|5c|00|25)", raw, re.IGNORECASE):
        return None
    path = urllib.parse.unquote(raw, errors="strict")
    if not path.startswith("/") or "\\" in path or "//" in path or not path.isprintable():
        return None
    if any(part in (".", "..") for part in path.split("/")):
        return None
    return path


def _read_rule(entry: dict) -> Rule:
    effect = entry["effect"]
    if effect not in ("allow", "deny"):
        raise BadPolicy(f"unknown effect {effect!r}")
    path = entry["path"]
    pattern = re.compile(".*".join(map(re.escape, path.split("*"))), re.DOTALL) if path else None
    return Rule(
        allows=effect == "allow",
        methods=frozenset(entry["methods"]),
        host=str(entry["host"]),
        path=pattern,
        range=ipaddress.IPv4Network(entry["range"]) if entry["range"] else None,
        text=str(entry["text"]),
        origin=str(entry["from"]),
    )


class Policy:
    def __init__(self, text: str):
        try:
            document = json.loads(text)
            if document["schema"] != SCHEMA:
                raise BadPolicy(f"unknown schema {document['schema']!r}")
            self.mode = document["mode"]
            if self.mode not in MODES:
                raise BadPolicy(f"unknown mode {self.mode!r}")
            self.vm = str(document["vm"])
            self.refused = [ipaddress.IPv4Network(text) for text in document["refused"]]
            self.rules = [_read_rule(entry) for entry in document["rules"]]
        except BadPolicy:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, re.error) as error:
            raise BadPolicy(f"it cannot be understood: {error!r}") from error
        if not self.refused:
            raise BadPolicy("it refuses no range of addresses")

    def decide(self, method: str, host: str, target: str) -> Decision:
        """`host` is canonical."""
        if self.mode == "off":
            return Decision(False, "mode off", "the network of this VM is off")
        try:
            path = plain_path(target)
        except UnicodeDecodeError:
            path = None
        matching = [rule for rule in self.rules if rule.matches(method, host, path)]
        for rule in matching:
            if not rule.allows:
                return Decision(False, rule.text, f"a rule refuses it ({rule.origin})")
        for rule in matching:
            if rule.allows:
                return Decision(True, rule.text, rule.origin, rule.range)
        if self.mode == "monitor":
            return Decision(True, "mode monitor", "every public web host is allowed")
        return Decision(False, "mode allowlist", f"no rule allows {method} {host}")

    def refuses_address(self, address: str, opened) -> bool:
        ip = ipaddress.IPv4Address(address)
        if opened is not None and ip in opened:
            return False
        return any(ip in network for network in self.refused)


class PolicyFile:
    """The policy as it is now. Asking costs one stat()."""

    def __init__(self, path: str):
        self._path = path
        self._seen = None
        self._policy = None
        self._problem = "it was never read"

    def current(self) -> Policy:
        try:
            info = os.stat(self._path)
            seen = (info.st_ino, info.st_mtime_ns, info.st_size)
            if seen != self._seen:
                self._policy = None
                with open(self._path, encoding="utf-8") as file:
                    self._policy = Policy(file.read())
                self._seen = seen
        except (OSError, ValueError) as error:
            self._policy, self._seen, self._problem = None, None, str(error)
        if self._policy is None:
            raise BadPolicy(f"the policy of this VM cannot be used: {self._problem}")
        return self._policy


def main(arguments) -> int:
    path, method, host, target = arguments
    try:
        decision = PolicyFile(path).current().decide(method, names.canonical(host), target)
    except ValueError as error:
        decision = Decision(False, "", str(error))
    print(json.dumps({"allowed": decision.allowed, "rule": decision.rule, "why": decision.why}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
