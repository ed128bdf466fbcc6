import asyncio, json, os, pathlib, socket, sys, tempfile, unittest
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from mitmproxy.test import tflow

import audit
from audit import Audit
from dialer import Dialer, Refused
from gate import Gate
from policy import PolicyFile
from vault import Vault

WHERE = {"ok.test": ["203.0.113.10"], "lo.test": ["127.0.0.1"], "both.test": ["127.0.0.1", "203.0.113.11"]}
POLICY = {
    "schema": 1, "vm": "shop", "mode": "allowlist", "refused": ["127.0.0.0/8"],
    "rules": [{"effect": "allow", "methods": [], "host": host, "path": "", "range": "", "text": host, "from": "test"}
              for host in ("ok.test", "lo.test", "both.test")],
}


async def look_up(name):
    if name not in WHERE:
        raise OSError("no such name")
    return WHERE[name]


def flow(sni="ok.test", host=("ok.test",), authority="", method="GET", path="/", tls=True):
    made = tflow.tflow()
    made.client_conn.sni = sni if tls else None
    made.client_conn.tls = tls
    made.client_conn.timestamp_tls_setup = 1 if tls else None
    made.request.method, made.request.path = method, path
    made.request.headers.set_all("host", list(host))
    made.request.data.authority = authority.encode()
    return made


class GateTest(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        path = os.path.join(self.folder.name, "policy.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(POLICY, file)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.records = ours
        self.addCleanup(ours.close)
        self.dialer = Dialer(look_up)
        log = Audit(theirs.detach())
        self.addCleanup(log.close)
        self.gate = Gate(PolicyFile(path), log, self.dialer, Vault([]))

    async def judge(self, **request):
        made = flow(**request)
        await self.gate.requestheaders(made)
        self.gate.request(made)
        return made

    async def test_S16_every_name_must_be_the_same(self):
        allowed = await self.judge()
        self.assertIsNone(allowed.response)  # the control
        self.assertEqual((allowed.request.host, allowed.request.port), ("ok.test", 443))
        for request in ({"host": ("evil.test",)}, {"sni": "evil.test"}, {"authority": "evil.test"}, {"sni": None},
                        {"host": ("ok.test", "ok.test")}, {"host": ("ok.test", "evil.test")},
                        {"host": ("ok.test:80",)}, {"host": (), "tls": False}, {"sni": "ok.test\0.evil.test"},
                        {"host": ("203.0.113.10",), "tls": False}):
            refused = await self.judge(**request)
            self.assertEqual(refused.response.status_code, 403, request)
            self.assertFalse(self.connects(refused, "ok.test"), request)

    def connects(self, made, host, port=443):
        class Data:
            client = made.client_conn
            server = tflow.tserver_conn()

        Data.server.address, Data.server.error = (host, port), None
        self.gate.server_connect(Data)
        return Data.server.error is None

    async def test_S13_the_last_door_knows_what_was_allowed(self):
        allowed = await self.judge()
        self.assertTrue(self.connects(allowed, "ok.test"))
        self.assertFalse(self.connects(allowed, "ok.test", 25))
        self.assertFalse(self.connects(allowed, "lo.test"))
        self.assertFalse(self.connects(allowed, "203.0.113.10"))
        self.gate.client_disconnected(allowed.client_conn)
        self.assertFalse(self.connects(allowed, "ok.test"))

    async def test_S15_what_was_checked_is_what_is_dialled(self):
        loop = asyncio.get_running_loop()
        self.dialer.guard(loop)
        self.assertEqual((await self.judge(sni="lo.test", host=("lo.test",))).response.status_code, 403)
        self.assertIsNone((await self.judge(sni="both.test", host=("both.test",))).response)
        found = await loop.getaddrinfo("both.test", 443)
        self.assertEqual([entry[4] for entry in found], [("203.0.113.11", 443)])
        for name in ("lo.test", "ok.test", "127.0.0.1"):
            with self.assertRaises(Refused, msg=name):
                await loop.getaddrinfo(name, 443)

    async def test_a_refusal_says_what_its_owner_can_do(self):
        refused = await self.judge(sni="evil.test", host=("evil.test",))
        self.assertIn("agent-vm net allow --vm shop evil.test", refused.response.text)

    async def test_a_request_is_one_record(self):
        made = await self.judge(path="/a?token=geheim&page=2")
        made.response = tflow.tresp()
        self.gate.response(made)
        self.gate.error(made) if made.error else None
        record = json.loads(self.records.recv(65536))
        self.assertEqual(record["url"], "https://ok.test/a?token=***&page=2")
        self.assertEqual((record["decision"], record["rule"], record["status"]), ("allow", "ok.test", 200))
        self.records.setblocking(False)
        with self.assertRaises(BlockingIOError):
            self.records.recv(65536)


    async def test_only_a_short_answer_that_says_its_length_is_not_streamed(self):
        for length, streamed in (("7", False), ("16384", False), ("16385", True), (None, True), ("7, 7", True), ("-1", True)):
            made = await self.judge()
            made.response = tflow.tresp()
            made.response.headers.pop("content-length", None)
            if length:
                made.response.headers["content-length"] = length
            self.gate.responseheaders(made)
            self.assertEqual(bool(made.response.stream), streamed, length)
        made = await self.judge()
        made.response = tflow.tresp()
        self.gate.responseheaders(made)
        self.gate.response(made)
        self.assertEqual(json.loads(self.records.recv(65536))["received"], len(made.response.raw_content))


class Masking(unittest.TestCase):
    def test_values_that_look_secret(self):
        self.assertEqual(audit.masked_target("/x?key=a&X-Amz-Signature=b&q=c&api_key=d&flag"),
                         "/x?key=***&X-Amz-Signature=***&q=c&api_key=***&flag")
        self.assertEqual(audit.masked_target("/x?t%6Fken=a"), "/x?t%6Fken=***")

    def test_S23_long_and_odd_urls_are_bounded(self):
        text = audit.url("https", "ok.test", "/" + "\u00e9\n" * 100_000)
        self.assertLess(len(text), 5000)
        self.assertTrue(text.isascii() and "\n" not in text)


if __name__ == "__main__":
    unittest.main()
