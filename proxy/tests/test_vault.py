import base64, pathlib, random, sys, unittest
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from mitmproxy.http import Headers

from vault import Masker, Vault

VALUE = "s3cret/value+1"
ENTRY = {"name": "TOKEN", "placeholder": "agent-vm-placeholder-00ff", "value": VALUE, "hosts": ["api.test"],
         "header": "Authorization"}


class Request:
    def __init__(self, *fields):
        self.headers = Headers([(name.encode(), value.encode()) for name, value in fields])


class PutIn(unittest.TestCase):
    def sent(self, host, name, value):
        request = Request((name, value))
        Vault([ENTRY]).prepare(request, host)
        return request.headers[name]

    def test_only_for_its_host_and_in_its_header(self):
        text = "Bearer agent-vm-placeholder-00ff"
        self.assertEqual(self.sent("api.test", "authorization", text), "Bearer " + VALUE)
        for host in ("evil.test", "api.test.evil.test", "xapi.test", "a.api.test"):
            self.assertEqual(self.sent(host, "Authorization", text), text)
        self.assertEqual(self.sent("api.test", "X-Other", text), text)

    def test_inside_of_basic_credentials(self):
        basic = "Basic " + base64.b64encode(b"ann:agent-vm-placeholder-00ff").decode()
        self.assertEqual(base64.b64decode(self.sent("api.test", "Authorization", basic)[6:]),
                         b"ann:" + VALUE.encode())
        self.assertEqual(self.sent("evil.test", "Authorization", basic), basic)

    def test_an_answer_cannot_hide_it(self):
        request = Request(("Authorization", "x"), ("Accept-Encoding", "gzip"), ("Range", "bytes=0-3"))
        Vault([ENTRY]).prepare(request, "api.test")
        self.assertEqual(request.headers["accept-encoding"], "identity")
        self.assertNotIn("range", request.headers)


class Masking(unittest.TestCase):
    def masker(self, *fields):
        return Vault([ENTRY]).masker("api.test", Request(*fields))

    def through(self, masker, data, cuts):
        pieces, last = [], 0
        for cut in sorted(cuts) + [len(data)]:
            if cut > last:
                pieces += masker(data[last:cut])
                last = cut
        pieces += masker(b"")
        self.assertNotIn(b"", pieces)  # it would end a chunked answer
        return b"".join(pieces)

    def test_reflected_values_wherever_they_are_cut(self):
        random.seed(7)
        basic = base64.b64encode(b"ann:" + VALUE.encode())
        forms = [VALUE.encode(), b"s3cret%2Fvalue%2B1", basic]
        for _ in range(500):
            data = b"".join(random.choice([*forms, b"s3cret/val", b"harmless "]) for _ in range(6))
            cuts = [random.randrange(len(data)) for _ in range(random.randrange(8))]
            out = self.through(self.masker(("Authorization", "Basic " + basic.decode())), data, cuts)
            self.assertEqual(len(out), len(data))
            for form in forms:
                self.assertNotIn(form, out)
        self.assertEqual(self.through(self.masker(), b"harmless s3cret/val", [3]), b"harmless s3cret/val")

    def test_overlapping_needles(self):
        self.assertEqual(self.through(Masker(["abab", "babc"]), b"xababcx", [1, 2, 3, 4]), b"x*****x")

    def test_a_stream_is_not_held_back(self):
        self.assertEqual(self.masker()(b"data: first\n\n"), [b"data: first\n\n"])

    def test_other_hosts_are_left_alone(self):
        self.assertIsNone(Vault([ENTRY]).masker("ok.test", Request()))


if __name__ == "__main__":
    unittest.main()
