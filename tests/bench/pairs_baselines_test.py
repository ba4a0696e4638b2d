"""What bench/pairs_baselines.py reads and what it makes tokens of; its measurements need others' packages."""

import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))

import pairs_baselines


class Tokens(unittest.TestCase):
    def test_hashes_are_those_that_fnv_publishes(self):
        found = pairs_baselines.tokens(b"foobar", 6, 1000)
        self.assertEqual(len(found), 6)
        self.assertEqual(found[0], 1 + 0xBF9CF968 % 999)
        self.assertEqual(pairs_baselines.tokens(b"a", 3, 1000), [1 + 0xE40C292C % 999])

    def test_bytes_are_numbers_above_padding(self):
        self.assertEqual(pairs_baselines.tokens(b"\0\xffa", 1, 257), [1, 256, 98])


class Pairs(unittest.TestCase):
    def test_pages_are_cut_and_read_once(self):
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "train.tsv").write_bytes(b"1\ta\tb\tfirst\tsecond\n0\tb\tc\tsecond\t\xff!\n")
            records, pages = pairs_baselines.read(folder, "train", 4)
        self.assertEqual(records, [(1, b"a", b"b"), (0, b"b", b"c")])
        self.assertEqual(pages, {b"a": b"firs", b"b": b"seco", b"c": b"\xff!"})

    def test_a_record_without_both_texts_is_no_pair(self):
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "train.tsv").write_bytes(b"1\ta\tb\tfirst\n")
            with self.assertRaises(ValueError):
                pairs_baselines.read(folder, "train", 4)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
