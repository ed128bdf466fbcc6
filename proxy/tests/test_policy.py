import json, os, pathlib, random, sys, tempfile, unittest
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import policy
from policy import BadPolicy, Policy, PolicyFile, plain_path


def rule(effect, host, methods=(), path="", range=""):
    return {"effect": effect, "host": host, "methods": list(methods), "path": path, "range": range,
            "text": f"{effect} {host}", "from": "test"}


def text(mode="allowlist", rules=[], **more):
    return json.dumps({"schema": 1, "vm": "shop", "mode": mode, "refused": ["10.0.0.0/8", "127.0.0.0/8"],
                       "rules": rules, **more})


class Decisions(unittest.TestCase):
    def allowed(self, mode, rules, method, host, target="/"):
        return Policy(text(mode, rules)).decide(method, host, target).allowed

    def test_S19_an_empty_policy_refuses(self):
        self.assertFalse(self.allowed("allowlist", [], "GET", "ok.example"))
        self.assertFalse(self.allowed("off", [rule("allow", "ok.example")], "GET", "ok.example"))
        self.assertTrue(self.allowed("monitor", [], "GET", "ok.example"))  # the control

    def test_a_refusal_is_stronger_in_any_order(self):
        for rules in ([rule("allow", "ok.example"), rule("deny", "ok.example", ["POST"])],
                      [rule("deny", "ok.example", ["POST"]), rule("allow", "ok.example")]):
            self.assertTrue(self.allowed("allowlist", rules, "GET", "ok.example"))
            self.assertFalse(self.allowed("allowlist", rules, "POST", "ok.example"))
            self.assertFalse(self.allowed("monitor", rules, "POST", "ok.example"))

    def test_fetch_can_be_allowed_and_push_refused(self):
        rules = [rule("allow", "git.example", ["GET"], "/a/b.git/info/refs"),
                 rule("allow", "git.example", ["POST"], "/a/b.git/git-upload-pack")]
        self.assertTrue(self.allowed("allowlist", rules, "GET", "git.example",
                                     "/a/b.git/info/refs?service=git-upload-pack"))
        self.assertTrue(self.allowed("allowlist", rules, "POST", "git.example", "/a/b.git/git-upload-pack"))
        self.assertFalse(self.allowed("allowlist", rules, "POST", "git.example", "/a/b.git/git-receive-pack"))

    def test_ambiguous_paths_gain_nothing(self):
        allow = [rule("allow", "ok.example", path="/public/*")]
        deny = [rule("allow", "ok.example"), rule("deny", "ok.example", path="/private/*")]
        self.assertTrue(self.allowed("allowlist", allow, "GET", "ok.example", "/public/x"))
        self.assertFalse(self.allowed("allowlist", deny, "GET", "ok.example", "/%70rivate/x"))
        for target in ("/public/../private/x", "/public/%2e%2e/private/x", "/public/..%2fprivate/x",
                       "/public//x", "/public/%00", "/public\\x", "/public/%ff", "/public/%255c",
                       "/public/./x", "http://evil/public/x", "*"):
            self.assertFalse(self.allowed("allowlist", allow, "GET", "ok.example", target), target)
            self.assertFalse(self.allowed("allowlist", deny, "GET", "ok.example", target), target)

    def test_S15_a_range_opens_just_itself(self):
        p = Policy(text(rules=[rule("allow", "in.example", range="10.1.0.0/16"), rule("allow", "ok.example")]))
        opened = p.decide("GET", "in.example", "/").range
        self.assertFalse(p.refuses_address("10.1.2.3", opened))
        self.assertTrue(p.refuses_address("10.2.0.1", opened))
        self.assertTrue(p.refuses_address("127.0.0.1", opened))
        self.assertTrue(p.refuses_address("10.1.2.3", p.decide("GET", "ok.example", "/").range))
        # The documentation ranges are where a machine's mirror may live.
        self.assertFalse(p.refuses_address("203.0.113.80", None))


class Files(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = os.path.join(self.folder.name, "policy.json")

    def write(self, content):
        with open(self.path + ".new", "w", encoding="utf-8") as file:
            file.write(content)
        os.rename(self.path + ".new", self.path)

    def test_changes_are_seen_at_once(self):
        file = PolicyFile(self.path)
        self.write(text())
        self.assertFalse(file.current().decide("GET", "ok.example", "/").allowed)
        self.write(text(rules=[rule("allow", "ok.example")]))
        self.assertTrue(file.current().decide("GET", "ok.example", "/").allowed)

    def test_S19_missing_or_broken_allows_nothing(self):
        file = PolicyFile(self.path)
        self.write(text("monitor"))
        self.assertTrue(file.current().decide("GET", "ok.example", "/").allowed)  # the control
        os.unlink(self.path)
        with self.assertRaises(BadPolicy):
            file.current()
        for content in ("", "{", "[]", "null", "{}", text("everything"), text(schema=2), text(refused=[]),
                        text(rules=[{}]), text(rules=[rule("maybe", "ok.example")]), text(rules=7),
                        text(rules=[rule("allow", "ok.example", range="10.0.0.1/8")]), "\xff" * 10):
            self.write(content)
            with self.assertRaises(BadPolicy, msg=content):
                file.current()

    def test_S19_fuzzed_policies_fail_closed(self):
        random.seed(5)
        whole = text(rules=[rule("allow", "ok.example")])
        for _ in range(2000):
            cut = list(whole)
            for _ in range(random.randint(1, 4)):
                cut[random.randrange(len(cut))] = chr(random.randrange(32, 127))
            try:
                decided = Policy("".join(cut)).decide("GET", "other.test", "/")
            except BadPolicy:
                continue
            self.assertFalse(decided.allowed, "".join(cut))


class Paths(unittest.TestCase):
    def test_plain(self):
        self.assertEqual(plain_path("/a%20b/c?q=/../"), "/a b/c")
        self.assertIsNone(plain_path("a"))


if __name__ == "__main__":
    unittest.main()
