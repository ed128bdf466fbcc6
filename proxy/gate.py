"""The mitmproxy addon that decides.

One name decides and dials. It is what the TLS handshake asks for (SNI), or without TLS the Host
header; Host and :authority must say the same. The name is made canonical, the policy asked, the name
resolved, its addresses checked, and the connection goes to such an address under that name, for
which the certificate must be good. `server_connect` is the last door: what no request has been
allowed is not dialled, whichever part of mitmproxy asks for it.
"""

import asyncio
import dataclasses
import time

from mitmproxy import http

import audit
import names
from dialer import Dialer, Refused
from policy import BadPolicy, PolicyFile
from vault import Vault

BODYLESS = ("GET", "HEAD", "OPTIONS", "TRACE")
# Bytes of an answer that is passed on in one piece when it says its length, which is cheaper.
ONE_PIECE = 16384


@dataclasses.dataclass
class Verdict:
    allowed: bool
    name: str  # canonical, or what was asked for, made harmless
    scheme: str
    rule: str
    why: str
    vm: str = ""
    begun: float = dataclasses.field(default_factory=time.monotonic)
    sent: int = 0
    received: int = 0
    recorded: bool = False
    secrets: list = dataclasses.field(default_factory=list)  # names of those that were put in
    masker: object = None


def asked_names(flow) -> set:
    """Every host name that the request carries, in whatever place. Raises BadName."""
    port = 443 if flow.client_conn.tls_established else 80
    request = flow.request
    found = set()
    hosts = request.headers.get_all("host")
    if len(hosts) > 1:
        raise names.BadName("there is more than one Host header")
    for text in hosts + ([request.authority] if request.authority else []):
        found.add(names.from_host_header(text, port))
    if port == 443:
        if not flow.client_conn.sni:
            raise names.BadName("the TLS handshake names no host (SNI)")
        found.add(names.canonical(flow.client_conn.sni))
    if not found:
        raise names.BadName("the request names no host")
    return found


def is_one_piece(response) -> bool:
    """Whether it is short and says so: no stream of events does."""
    length = response.headers.get("content-length", "")
    return length.isascii() and length.isdigit() and int(length) <= ONE_PIECE


def refusal(verdict: Verdict, request) -> http.Response:
    text = (
        f"agent-vm: refused: {request.method} {audit.url(verdict.scheme, verdict.name, request.path)}\n"
        f"rule: {verdict.rule or '-'}\n"
        f"reason: {verdict.why}\n"
    )
    if verdict.rule == "mode allowlist":
        text += (
            "The owner of this VM can allow it, on the host, without a restart:\n"
            f"  agent-vm net allow --vm {verdict.vm} {verdict.name}\n"
        )
    headers = {"Content-Type": "text/plain; charset=utf-8", "X-Agent-VM": "refused"}
    return http.Response.make(403, text, headers)


class Gate:
    def __init__(self, policy: PolicyFile, log: audit.Audit, dialer: Dialer, vault: Vault):
        self._policy = policy
        self._audit = log
        self._dialer = dialer
        self._vault = vault
        self._allowed = {}  # id of a client's connection -> {(name, port)}

    def running(self):
        self._dialer.guard(asyncio.get_running_loop())

    # The client's side

    def client_disconnected(self, client):
        self._allowed.pop(client.id, None)

    def tls_clienthello(self, data):
        try:
            data.context.server.address = (names.canonical(data.client_hello.sni or ""), 443)
        except names.BadName:
            pass  # the address that the packet was sent to; no request on it will be allowed

    def tls_failed_client(self, data):
        name = names.shown(data.conn.sni or "")
        self._audit.write(event="tls-failed", host=name, why=names.shown(data.conn.error or ""))

    # Requests

    async def requestheaders(self, flow):
        flow.metadata["verdict"] = verdict = await self._judge(flow)
        request = flow.request
        # A refused one is not streamed: its answer waits for the end of a small body, and at the end
        # of mitmproxy's patience (stream_large_bodies) the last door is closed to it.
        request.stream = False
        if not verdict.allowed:
            return
        port = 443 if verdict.scheme == "https" else 80
        # Not `request.host`, which would write the Host header anew.
        request.data.host, request.data.port = verdict.name, port
        request.scheme = verdict.scheme
        self._allowed.setdefault(flow.client_conn.id, set()).add((verdict.name, port))
        if verdict.scheme == "https":
            # They leave after the server's certificate was found good: before that mitmproxy sends
            # nothing of a request.
            verdict.secrets = self._vault.prepare(request, verdict.name)
            verdict.masker = self._vault.masker(verdict.name, request)
        if request.method not in BODYLESS:
            request.stream = self._counter(verdict, "sent")

    async def _judge(self, flow) -> Verdict:
        scheme = "https" if flow.client_conn.tls_established else "http"
        request = flow.request
        unnamed = names.shown(flow.client_conn.sni or request.host_header or "-")
        try:
            found = asked_names(flow)
        except names.BadName as error:
            return Verdict(False, unnamed, scheme, "one plain name", str(error))
        if len(found) > 1:
            why = f"the request names different hosts: {', '.join(sorted(found))}"
            return Verdict(False, unnamed, scheme, "one plain name", why)
        name = found.pop()
        try:
            policy = self._policy.current()
        except BadPolicy as error:
            return Verdict(False, name, scheme, "policy", str(error))
        decision = policy.decide(request.method, name, request.path)
        verdict = Verdict(decision.allowed, name, scheme, decision.rule, decision.why, policy.vm)
        if verdict.allowed:
            try:
                await self._dialer.pin(name, lambda ip: policy.refuses_address(ip, decision.range))
            except Refused as error:
                verdict.allowed, verdict.rule, verdict.why = False, "addresses", str(error)
        return verdict

    def request(self, flow):
        verdict = flow.metadata["verdict"]
        if not verdict.allowed:
            flow.response = refusal(verdict, flow.request)

    @staticmethod
    def _counter(verdict, what):
        def count(chunk: bytes) -> bytes:
            setattr(verdict, what, getattr(verdict, what) + len(chunk))
            return chunk

        return count

    # The server's side

    def server_connect(self, data):
        address = data.server.address
        if address not in self._allowed.get(data.client.id, ()):
            data.server.error = "refused: no request to it was allowed"
            return
        data.server.sni = address[0] if address[1] == 443 else None

    def responseheaders(self, flow):
        verdict = flow.metadata.get("verdict")
        if not verdict or not verdict.allowed:
            return
        if verdict.masker:
            if flow.response.headers.get("content-encoding", "identity").lower() != "identity":
                # Nobody asked for it to be compressed, and nothing can be found in it.
                flow.kill()
                return
            for name, value in list(flow.response.headers.items(multi=True)):
                if verdict.masker.whole(value) != value:
                    values = flow.response.headers.get_all(name)
                    flow.response.headers.set_all(name, [verdict.masker.whole(v) for v in values])
        # At once, for a stream of events is worth nothing late.
        if flow.response.status_code != 101 and (verdict.masker or not is_one_piece(flow.response)):
            flow.response.stream = self._passer(verdict)

    @staticmethod
    def _passer(verdict):
        def pass_on(chunk: bytes):
            verdict.received += len(chunk)
            return verdict.masker(chunk) if verdict.masker else chunk

        return pass_on

    def response(self, flow):
        verdict = flow.metadata.get("verdict")
        if verdict and verdict.masker:
            flow.response.trailers = None
        self._record(flow, flow.response.status_code)

    def error(self, flow):
        self._record(flow, None, names.shown(flow.error.msg))

    def websocket_message(self, flow):
        # mitmproxy keeps them all.
        del flow.websocket.messages[:-1]
        verdict, message = flow.metadata.get("verdict"), flow.websocket.messages[-1]
        if verdict and verdict.masker and not message.from_client:
            message.content = verdict.masker.message(message.content)

    def _record(self, flow, status, failure=""):
        verdict = flow.metadata.get("verdict")
        if verdict is None or verdict.recorded:
            return
        verdict.recorded = True
        if verdict.allowed and flow.response:
            verdict.received += len(flow.response.raw_content or b"")
        record = {
            "event": "request",
            "decision": "allow" if verdict.allowed else "refuse",
            "method": names.shown(flow.request.method),
            "url": audit.url(verdict.scheme, verdict.name, flow.request.path),
            "status": status,
            "sent": verdict.sent + len(flow.request.raw_content or b""),
            "received": verdict.received,
            "ms": round((time.monotonic() - verdict.begun) * 1000),
            "rule": verdict.rule,
        }
        if verdict.secrets:
            record["secrets"] = ", ".join(verdict.secrets)
        if failure:
            record["error"] = failure
        elif not verdict.allowed:
            record["why"] = verdict.why
        self._audit.write(**record)
