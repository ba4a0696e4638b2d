"""bench/host.py without PyTorch: ratios, the table, its arguments, and what becomes of a command that
fails. `host_test.py SPION` where SPION is the built command, or `-` in a build without the host
back end."""

import contextlib
import io
import pathlib
import random
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))

import host

SPION = "-"


def options(*arguments):
    return host.parse_arguments(list(arguments))


class Rounds(unittest.TestCase):
    def test_fastest_of_each_pass(self):
        rounds = [
            {"PyTorch": {"forward": 5.0, "backward": 7.0}, "ours full": {"forward": 1, "backward": 9}},
            {"PyTorch": {"forward": 6.0, "backward": 4.0}, "ours full": {"forward": 2, "backward": 3}},
        ]
        self.assertEqual(
            host.fastest(rounds),
            {
                "PyTorch": {"forward": 5.0, "backward": 4.0},
                "ours full": {"forward": 1, "backward": 3},
            },
        )

    def test_ratios_of_random_times(self):
        seed = random.randrange(10**6)
        draw = random.Random(seed)
        best = {side: {n: draw.uniform(1, 9) for n in host.PASSES} for side in host.SIDES}
        said = host.ratios(best)
        self.assertEqual(set(said), {"ours sparse", "ours full"}, f"{seed=}")
        for side, faster in said.items():
            theirs, ours = best["PyTorch"], best[side]
            for name in host.PASSES:
                self.assertAlmostEqual(faster[name] * ours[name], theirs[name], msg=f"{seed=}")
            both = faster["both"] * (ours["forward"] + ours["backward"])
            self.assertAlmostEqual(both, theirs["forward"] + theirs["backward"], msg=f"{seed=}")

    def test_table(self):
        best = {
            "ours sparse": {"forward": 1.0, "backward": 3.0},
            "ours full": {"forward": 10.0, "backward": 30.0},
            "PyTorch": {"forward": 20.0, "backward": 60.0},
        }
        lines = host.markdown(best, host.ratios(best)).splitlines()
        self.assertEqual(
            lines[2], "| ours sparse | 1.00 | 20.00 | 3.00 | 20.00 | 4.00 | 20.00 | 25 |"
        )
        self.assertEqual(lines[4], "| PyTorch | 20.00 |  | 60.00 |  | 80.00 |  |  |")
        self.assertEqual({line.count("|") for line in lines}, {9})

    def test_median(self):
        self.assertEqual(host.median([3, 1, 2]), 2)
        self.assertEqual(host.median([4, 1, 3, 2]), 2.5)


class Arguments(unittest.TestCase):
    def refused(self, *arguments):
        said = io.StringIO()
        with contextlib.redirect_stderr(said), self.assertRaises(SystemExit):
            options(*arguments)
        return said.getvalue()

    def test_refused(self):
        self.assertIn("--threads is 0: give 1 or more", self.refused("--threads", "0"))
        self.assertIn("--head-dim is -4: give 1 or more", self.refused("--head-dim", "-4"))
        self.assertIn("--density is 1.5: give more than 0", self.refused("--density", "1.5"))

    def test_reach_the_command(self):
        said = host.spion_command(options("--threads", "3", "--length", "640"), 0.25)
        self.assertEqual(said[said.index("--threads") + 1], "3")
        self.assertEqual(said[said.index("--length") + 1], "640")
        self.assertEqual(said[said.index("--pattern-random") + 1], "0.25")


class Ours(unittest.TestCase):
    def test_a_failing_command_says_why(self):
        with tempfile.TemporaryDirectory() as folder:
            command = pathlib.Path(folder) / "spion"
            command.write_text("#!/bin/sh\necho one >&2\necho no luck >&2\nexit 3\n", encoding="ascii")
            command.chmod(0o755)
            with self.assertRaisesRegex(RuntimeError, "^no luck$"):
                host.measure_ours(options("--spion", str(command)), 1)

    def test_measures(self):
        if SPION == "-":
            self.skipTest("this build has no host back end")
        small = options("--spion", SPION, "--threads", "1", "--length", "256", "--batch", "1")
        times = host.measure_ours(small, 0.5)
        self.assertEqual(set(times), set(host.PASSES))
        self.assertTrue(all(0 < ms < 10000 for ms in times.values()))


if __name__ == "__main__":
    SPION = sys.argv.pop(1) if len(sys.argv) > 1 else "-"
    unittest.main()
