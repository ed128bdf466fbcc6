import sys, unittest, pathlib
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import names


class Names(unittest.TestCase):
    def test_S17_one_form_of_each_name(self):
        for text in ("ok.example", "OK.Example", "ok.example.", b"ok.example"):
            self.assertEqual(names.canonical(text), "ok.example")
        self.assertEqual(names.canonical("xn--bcher-kva.example"), "xn--bcher-kva.example")

    def test_S17_what_is_no_plain_name_is_refused(self):
        for text in ("", ".", "ok..example", "evil\0.ok.example", "ok.example\n", "ok.example ", "bücher.example",
                     "localhost", "127.0.0.1", "127.1", "0x7f.1", "2130706433", "0177.0.0.1", "1.2.3.0x4",
                     "[::1]", "::1", "::ffff:127.0.0.1", "-ok.example", "ok-.example", "a" * 64 + ".example",
                     "a." * 130 + "example", "ok.example/x", "user@ok.example", "ok.example\\", "ok.example..",
                     "\u212a.example"):
            with self.assertRaises(names.BadName, msg=repr(text)):
                names.canonical(text)

    def test_S17_a_wildcard_matches_at_label_boundaries(self):
        self.assertTrue(names.matches("*.ok.example", "a.ok.example"))
        self.assertTrue(names.matches("*.ok.example", "b.a.ok.example"))
        for name in ("ok.example", "evilok.example", "ok.example.evil.test", ".ok.example"):
            self.assertFalse(names.matches("*.ok.example", name), name)
        self.assertTrue(names.matches("ok.example", "ok.example"))
        for name in ("a.ok.example", "okevil.example", "ok.example.evil.test", "xok.example"):
            self.assertFalse(names.matches("ok.example", name), name)

    def test_S16_the_host_header_must_be_for_the_port_that_is_dialled(self):
        self.assertEqual(names.from_host_header("ok.example:443", 443), "ok.example")
        for text in ("ok.example:80", "ok.example:", "ok.example:443:443", "ok.example:0443"):
            with self.assertRaises(names.BadName, msg=text):
                names.from_host_header(text, 443)


if __name__ == "__main__":
    unittest.main()
