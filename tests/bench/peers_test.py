"""bench/ without a GPU and without PyTorch: patterns, floors, the table, and what becomes of peers
that fail. `peers_test.py SPION` where SPION is the built command, or `-` in a build without the host
back end."""

import json
import math
import pathlib
import random
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))

import peer_worker
import peers
import shapes
import table
import workers

SPION = "-"


def named(name):
    return shapes.choose([name])[0]


def small_shape(block=32, length=128, density=0.4):
    goal = shapes.Goal(microseconds=10)
    return shapes.Shape("small", 2, 3, length, 16, block, density, goal, goal)


class Patterns(unittest.TestCase):
    def test_text_reads_back(self):
        seed = random.randrange(10**6)
        pattern = shapes.make_pattern(17, 0.3, seed)
        self.assertEqual(shapes.parse_pattern(shapes.pattern_text(pattern)), pattern, f"{seed=}")

    def test_has_the_diagonal_and_the_density(self):
        for density in (0, 0.05, 0.31, 1):
            pattern = shapes.make_pattern(40, density, 3)
            self.assertTrue(all(pattern[n][n] for n in range(40)))
            self.assertEqual(shapes.count_blocks(pattern), max(round(density * 1600), 40))

    def test_same_seed_same_pattern(self):
        self.assertEqual(shapes.make_pattern(20, 0.2, 5), shapes.make_pattern(20, 0.2, 5))
        self.assertNotEqual(shapes.make_pattern(20, 0.2, 5), shapes.make_pattern(20, 0.2, 6))

    def test_has_vertical_blocks(self):
        """Columns differ far more than they would if blocks were independent."""
        pattern = shapes.make_pattern(128, 0.1, 1)
        columns = [sum(row[c] for row in pattern) for c in range(128)]
        mean = sum(columns) / 128
        variance = sum((count - mean) ** 2 for count in columns) / 128
        self.assertGreater(variance, 4 * mean)

    def test_refuses_what_is_no_pattern(self):
        for text in ("", "10\n1\n", "12\n00\n", "101\n010\n"):
            with self.assertRaises(ValueError):
                shapes.parse_pattern(text)

    def test_shapes_of_the_table_are_whole(self):
        self.assertEqual(len(shapes.SHAPES), 10)
        for shape in shapes.SHAPES:
            self.assertEqual(shape.length % shape.block, 0)
        with self.assertRaisesRegex(ValueError, "no shape 'imagine'; choose among retrieval"):
            shapes.choose(["imagine"])


class Floors(unittest.TestCase):
    """By hand, from B, H, L, D alone."""

    def test_bytes_bind_few_blocks(self):
        # N = 32 * 2 * 4096 = 262144 rows; a tensor 262144 * 32 * 2 = 16777216 bytes.
        ms, bound = shapes.floor(named("retrieval"), 123, "forward")
        self.assertEqual(bound, "bytes")
        self.assertAlmostEqual(ms, (4 * 16777216 + 262144 * 4) / 4.3e9)
        self.assertAlmostEqual(ms, 0.01585, places=5)
        ms, bound = shapes.floor(named("retrieval"), 123, "backward")
        self.assertEqual(bound, "bytes")
        self.assertAlmostEqual(ms, 0.03146, places=5)

    def test_products_bind_dense_attention(self):
        # 4 * 2 * 16 * 8192^2 * 128 = 1.0995e12
        ms, bound = shapes.floor(named("dense-8k-128"), 4096, "forward")
        self.assertEqual(bound, "products")
        self.assertAlmostEqual(ms, 1.0995116e12 / 790e9, places=5)
        self.assertAlmostEqual(shapes.floor(named("dense-8k-128"), 4096, "backward")[0], 2.5 * ms)

    def test_goals_are_times_or_rates(self):
        shape = named("dense-8k-64")
        flop = shapes.flop(shape, 4096, "forward")
        self.assertAlmostEqual(shape.goal("forward").milliseconds(flop, {}), flop / 450e12 * 1e3)
        self.assertAlmostEqual(named("image").goal("backward").milliseconds(flop, {}), 0.075)


class Table(unittest.TestCase):
    def setUp(self):
        retrieval, dense = named("retrieval"), named("dense-8k-64")
        ours = {
            "retrieval": {"forward": {"ms": 0.02}, "backward": {"ms": 0.14}},
            "dense-8k-64": {"forward": {"failure": "failed: x | y"}, "backward": {"ms": 2.0}},
        }
        self.peers = [
            self.peer("retrieval", "flex:tiles", {"ms": 0.1}, {"failure": "no valid choice"}),
            self.peer("retrieval", "flex:masked", {"ms": 0.08}, {"ms": 0.7}),
            self.peer("retrieval", "sdpa:cudnn", {"failure": "out of memory"}, {"ms": 1.4}),
            self.peer("dense-8k-64", "sdpa:cudnn", {"ms": 1.1}, {"ms": 3.0}),
            self.peer("retrieval", "fa4:blocks", {"ms": 0.1}, {"failure": "refused"}),
            self.peer("dense-8k-64", "fa4:dense", {"ms": 1.0}, {"ms": 2.6}),
            self.peer("dense-8k-64", "fa4:deterministic", {"ms": 1.2}, {"ms": 2.5}),
            self.peer("dense-8k-64", "bsa:blocks", {"ms": 1.2}, {"failure": "D=128 alone"}),
        ]
        counts = {"retrieval": 123, "dense-8k-64": 4096}
        self.rows = table.rows_of([retrieval, dense], counts, ours, self.peers)
        self.lines = table.markdown(self.rows).splitlines()

    @staticmethod
    def peer(shape, setting, forward, backward):
        return {"shape": shape, "setting": setting, "forward": forward, "backward": backward}

    def cells(self, row):
        return [cell.strip() for cell in self.lines[row + 2].strip("| ").split("|")]

    def test_every_line_has_every_column(self):
        self.assertEqual(len(self.lines), 2 + 4)
        self.assertEqual({line.count("|") for line in self.lines}, {21})

    def test_takes_the_fastest_setting_of_a_peer(self):
        cells = self.cells(0)
        self.assertEqual(cells[0], "retrieval 32,2,4096,32")
        self.assertEqual(cells[1:5], ["64", "0.030", "forward", "0.0200"])
        self.assertEqual(cells[10:12], ["0.0800 (masked)", "4.00"])

    def test_says_whether_a_goal_is_reached(self):
        self.assertEqual(self.cells(0)[8:10], ["25 us", "yes"])
        self.assertEqual(self.cells(1)[8:10], ["70 us", "no (2.00 x)"])

    def test_keeps_failures_as_text(self):
        self.assertEqual(self.cells(0)[12], "out of memory")
        self.assertEqual(self.cells(2)[4], "failed: x / y")
        self.assertEqual(self.cells(2)[14], "not run")
        self.assertEqual(self.cells(1)[10], "0.7000 (masked)")

    def test_marks_peers_that_compute_the_whole_map(self):
        self.assertEqual(self.cells(1)[12:14], ["1.400 (whole map)", "10.00"])
        self.assertEqual(self.cells(3)[12:14], ["3.000", "1.50"])

    def test_peers_that_know_patterns_are_not_marked(self):
        self.assertEqual(self.cells(0)[16:19], ["0.1000 (blocks)", "5.00", "not run"])
        self.assertEqual(self.cells(1)[16:18], ["refused", ""])
        self.assertEqual(self.cells(3)[16:19], ["2.500 (deterministic)", "1.25", "D=128 alone"])

    def test_rates_count_the_pattern_alone(self):
        row = self.rows[0]
        self.assertAlmostEqual(row["tflops"], 4 * 64 * 123 * 64**2 * 32 / 0.02e-3 / 1e12)
        self.assertAlmostEqual(row["times_floor"], 0.02 / row["floor_ms"])
        json.dumps(self.rows)

    def test_lists_every_setting(self):
        lines = table.markdown_of_settings(self.peers).splitlines()
        self.assertEqual(len(lines), 2 + len(self.peers))
        self.assertIn("| retrieval | flex:tiles | 0.1000 | no valid choice |", lines[2])


class Settings(unittest.TestCase):
    def test_of_a_shape(self):
        of = workers.settings_of
        kinds = ["flex", "sdpa"]
        sdpa = ["sdpa:cudnn", "sdpa:flash2"]
        small = ["flex:default", "flex:tiles", "flex:masked"]
        self.assertEqual(of(named("image"), kinds, False), small + sdpa)
        self.assertEqual(of(named("16k-64-b128"), ["flex"], False), small[:2])
        self.assertEqual(of(named("dense-8k-64"), kinds, False), ["flex:plain"] + sdpa)
        self.assertEqual(
            of(named("dense-8k-64"), ["flex"], True), ["flex:plain", "flex:plain:autotune"]
        )
        own_lists = ["fa4", "bsa"]
        self.assertEqual(of(named("16k-64-b128"), own_lists, False), ["fa4:blocks", "bsa:blocks"])
        self.assertEqual(
            of(named("dense-8k-64"), own_lists, True),
            ["fa4:dense", "fa4:deterministic", "bsa:blocks"],
        )
        self.assertEqual(of(named("image"), ["ours"], True), [])


# Stands in for peer_worker.py: what it does is its setting.
STAND_IN = """
import json, sys, time
shape, pattern, setting = sys.argv[1:]
if setting == "die":
    sys.exit("no such kernel")
if setting == "hang":
    time.sleep(60)
print("chatter")
print(json.dumps({"ready": setting}), flush=True)
sys.stdin.readline()
began = time.monotonic()
if setting == "stuck":
    time.sleep(60)
if setting == "crash":
    sys.exit("lost the device")
time.sleep(0.05)
one = {"ms": 1.0}
span = [began, time.monotonic()]
print(json.dumps({"shape": shape, "setting": setting, "forward": one, "backward": one,
                  "span": span}), flush=True)
"""


class Workers(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.folder.name)
        script = self.path / "stand_in.py"
        script.write_text(STAND_IN, encoding="ascii")
        self.kept = workers.SCRIPT, workers.READY_SECONDS, workers.MEASURE_SECONDS
        workers.SCRIPT, workers.READY_SECONDS, workers.MEASURE_SECONDS = script, 3, 2

    def tearDown(self):
        workers.SCRIPT, workers.READY_SECONDS, workers.MEASURE_SECONDS = self.kept
        self.folder.cleanup()

    def run_settings(self, settings, deadline, width=8):
        jobs = [(small_shape(), setting, self.path / "none") for setting in settings]
        said = []
        batches = workers.run_all(jobs, width, self.path, deadline, said.append, waiting=5)
        results = {r["setting"]: r for batch in batches for r in batch}
        return results, said

    def test_no_peer_is_dropped(self):
        settings = ["fine:1", "die", "hang", "stuck", "crash", "fine:2"]
        results, said = self.run_settings(settings, time.monotonic() + 60)
        self.assertEqual(set(results), set(settings))
        self.assertEqual(len(said), len(settings) + 2)  # and "compiling" twice
        failures = {s: r["forward"].get("failure") for s, r in results.items()}
        self.assertEqual(failures["die"], "no such kernel")
        self.assertEqual(failures["hang"], "compiling took too long")
        self.assertEqual(failures["stuck"], "measuring took too long")
        self.assertEqual(failures["crash"], "lost the device")
        first, second = results["fine:1"]["span"], results["fine:2"]["span"]
        self.assertTrue(first[1] <= second[0] or second[1] <= first[0], "measured side by side")

    def test_says_what_the_deadline_cut_off(self):
        results, _ = self.run_settings(["fine:1", "fine:2"], time.monotonic() - 1)
        for result in results.values():
            self.assertEqual(result["backward"], {"failure": "not run: time was up"})


class ExplicitPasses(unittest.TestCase):
    def test_forward_runs_once_a_set_before_backward(self):
        """On as many sets as there are, in turn, whatever pass runs first."""
        ran = []

        def forward(n):
            ran.append(f"forward {n}")
            return f"output {n}"

        passes = peer_worker.explicit_passes(
            forward, lambda index, output: ran.append(f"backward {index} of {output}"), 2
        )
        self.assertEqual(list(passes), list(shapes.PASSES))
        for n in range(3):
            passes["backward"](n)
        again = "backward 0 of output 0"
        self.assertEqual(
            ran, ["forward 0", again, "forward 1", "backward 1 of output 1", again]
        )


class Reasons(unittest.TestCase):
    def test_are_short(self):
        class OutOfMemoryError(Exception):
            pass

        self.assertEqual(peer_worker.reason(OutOfMemoryError("CUDA ...")), "out of memory")
        nothing = RuntimeError("NoValidChoicesError: No choices to select")
        self.assertEqual(peer_worker.reason(nothing), "no valid choice")
        shared = RuntimeError("out of resource: shared memory, Required: 300000")
        self.assertEqual(peer_worker.reason(shared), "no valid choice (shared memory)")
        other = peer_worker.reason(ValueError("\nfirst line " + "x" * 300 + "\nsecond"))
        self.assertTrue(other.startswith("ValueError: first line xxx"))
        self.assertLessEqual(len(other), 90)


class Ours(unittest.TestCase):
    """What peers.py asks of the command, and how its answer is read."""

    def setUp(self):
        if SPION == "-":
            self.skipTest("this build has no host back end to run the command with")
        self.folder = tempfile.TemporaryDirectory()
        self.shape = small_shape()
        pattern = shapes.make_pattern(self.shape.blocks, self.shape.density, 2)
        self.file = pathlib.Path(self.folder.name) / "small.bits"
        self.file.write_text(shapes.pattern_text(pattern), encoding="ascii")
        self.blocks = shapes.count_blocks(pattern)
        flags = ["--spion", SPION, "--spion-flags", "--repeat 1"]
        options = peers.parse_arguments(flags)
        self.command = peers.spion_command(options, self.shape, self.file, device="cpu")

    def tearDown(self):
        self.folder.cleanup()

    def test_both_sides_count_alike(self):
        run = subprocess.run(self.command, capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 0, run.stderr)
        said = json.loads(run.stdout)
        for name in shapes.PASSES:
            flop = said[name]["tflops"] * said[name]["ms"] * 1e9
            moved = said[name]["gb_per_s"] * said[name]["ms"] * 1e6
            rows = self.shape.batch * self.shape.heads * self.shape.length
            fp32 = shapes.moved_bytes(self.shape, name) * 2 - rows * shapes.LSE_BYTES
            self.assertTrue(math.isclose(flop, shapes.flop(self.shape, self.blocks, name)))
            self.assertTrue(math.isclose(moved, fp32), f"{moved} {fp32}")

    def test_reads_times_and_refuses_another_pattern(self):
        result = peers.measure_ours(self.command, self.blocks)
        self.assertGreater(result["forward"]["ms"], 0)
        self.assertEqual(result["buffer_sets"], 1)
        other = peers.measure_ours(self.command, self.blocks + 1)
        self.assertRegex(other["forward"]["failure"], f"spion read {self.blocks} blocks")

    def test_a_failure_is_a_cell(self):
        result = peers.measure_ours([*self.command, "--repeat", "0"], self.blocks)
        self.assertIn("failed: ", result["backward"]["failure"])
        missing = peers.measure_ours(["/nowhere/spion"], self.blocks)
        self.assertIn("failed: ", missing["forward"]["failure"])


class Whole(unittest.TestCase):
    def test_writes_the_table_and_the_patterns(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder)
            run = subprocess.run(
                [sys.executable, peers.__file__, "--spion", "/nowhere/spion", "--out", folder]
                + ["--shapes", "image", "--only", "ours"],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            self.assertEqual(run.returncode, 1, run.stderr)
            result = json.loads((path / "peers.json").read_text(encoding="utf-8"))
            self.assertEqual([row["pass"] for row in result["rows"]], ["forward", "backward"])
            self.assertIn("failed: ", (path / "peers.md").read_text(encoding="utf-8"))
            bits = (path / "patterns" / "image.bits").read_text(encoding="ascii")
            self.assertEqual(shapes.count_blocks(shapes.parse_pattern(bits)), 51)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give the built command, or - for none")
    SPION = sys.argv.pop()
    unittest.main(verbosity=1)
