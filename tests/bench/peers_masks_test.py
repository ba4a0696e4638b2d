"""bench/ on shapes with masks, grouped heads, patterns of heads and dropout, and ours in rounds,
without a GPU and without PyTorch. `peers_masks_test.py SPION`, as peers_test.py."""

import dataclasses
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest
import unittest.mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))

import masks
import peers
import shapes
import table
import workers

SPION = "-"


def named(name):
    return shapes.choose([name])[0]


def masked_shape(**options):
    plain = shapes.Shape("masked", 2, 3, 96, 16, 16, 0.5, *shapes.NO_GOALS)
    return dataclasses.replace(plain, **options)


RULES = (
    {},
    {"causal": True},
    {"causal": True, "window": 20},
    {"documents": (7, 41, 48)},
    {"documents": (50, 1, 45), "causal": True, "window": 33},
)


def keeps(shape, query, key):
    """By the rules alone, for one element."""
    ends = list(itertools.accumulate(shape.documents))
    return (
        (not shape.causal or key <= query)
        and (shape.window is None or query - key <= shape.window)
        and all((key < end) == (query < end) for end in ends)
    )


class Masks(unittest.TestCase):
    def test_tiles_and_elements_are_those_of_the_rules(self):
        for rules in RULES:
            shape = masked_shape(**rules)
            pattern = shapes.make_pattern(6, 0.5, 4)
            total = 0
            for size in (16, 32):
                tiles = masks.coverage(shape, size)
                for row, column in itertools.product(range(96 // size), repeat=2):
                    kept = sum(
                        keeps(shape, row * size + i, column * size + j)
                        for i, j in itertools.product(range(size), repeat=2)
                    )
                    wanted = {0: masks.EMPTY, size**2: masks.FULL}.get(kept, masks.PARTIAL)
                    self.assertEqual(tiles[row][column], wanted, f"{rules} {size} {row} {column}")
                    total += kept * pattern[row][column] * (size == 16)
            self.assertEqual(masks.kept_elements(shape, pattern), total, rules)
            self.assertEqual(shapes.kept_blocks(shape, [pattern]), total / 256)

    def test_documents_fill_the_length(self):
        lengths = masks.document_lengths(16384, 2048, 1)
        self.assertEqual((len(lengths), sum(lengths)), (8, 16384))
        self.assertGreater(min(lengths), 0)
        self.assertEqual(masks.document_ids(masked_shape(documents=(2, 94))), [0] * 2 + [1] * 94)

    def test_a_pattern_stays_inside_documents_at_its_density(self):
        shape = named("documents-16k-64")
        (pattern,) = shapes.patterns_of(shape)
        tiles = masks.coverage(shape, 64)
        inside = sum(tile != masks.EMPTY for row in tiles for tile in row)
        self.assertEqual(shapes.count_blocks(pattern), round(inside * 0.1))
        for row, column in itertools.product(range(256), repeat=2):
            self.assertLessEqual(pattern[row][column], tiles[row][column])

    def test_a_head_has_a_pattern_of_its_own(self):
        shape = masked_shape(pattern_a_head=True)
        patterns = shapes.patterns_of(shape)
        self.assertEqual(len({str(pattern) for pattern in patterns}), shape.heads)
        said = json.loads(shapes.patterns_text(shape, patterns))
        self.assertEqual((said[2]["length"], said[2]["block"]), (96, 16))
        self.assertEqual(shapes.parse_pattern("\n".join(said[2]["pattern"])), patterns[2])

    def test_shapes_of_the_table_are_whole(self):
        names = {shape.name for shape in shapes.MASKED_SHAPES}
        self.assertFalse(names & {shape.name for shape in shapes.SHAPES})
        for shape in shapes.MASKED_SHAPES:
            self.assertEqual(shape.length % shape.block, 0)
            for goal in filter(None, (shape.forward, shape.backward)):
                self.assertLessEqual(set(goal.of), names | set(table.COLUMNS))


class Goals(unittest.TestCase):
    def test_goals_are_parts_of_the_fastest_that_they_name(self):
        goal = named("window-32k-128").goal("forward")
        self.assertAlmostEqual(goal.milliseconds(1, {"flex": 2.2, "fa4": 3, "bsa": 0.1}), 2)
        self.assertAlmostEqual(goal.milliseconds(1, {"fa4": 3.3}), 3)
        self.assertIsNone(goal.milliseconds(1, {"bsa": 0.1}))
        self.assertEqual(str(goal), "0.91 of flex, fa4")

    def test_grouped_heads_move_fewer_keys(self):
        every, grouped = named("heads-32-on-32"), named("heads-32-on-8")
        rows = 2 * 32 * 16384
        saved = {"forward": 2, "backward": 4}  # K and V; K, V, dK and dV
        for name, tensors in saved.items():
            self.assertAlmostEqual(
                shapes.moved_bytes(every, name) - shapes.moved_bytes(grouped, name),
                tensors * rows * 128 * 2 * 0.75,
            )


class MaskedTable(unittest.TestCase):
    """Columns of options and of other shapes of ours, and of the peers alone that goals name."""

    def setUp(self):
        chosen = [named(name) for name in ("window-32k-128", "heads-32-on-32", "heads-32-on-8")]
        self.ours = {
            "window-32k-128": {"forward": {"ms": 0.5}, "backward": {"ms": 2.0}},
            "heads-32-on-32": {"forward": {"ms": 1.5}, "backward": {"failure": "failed: a | b"}},
            "heads-32-on-8": {"forward": {"ms": 1.6}, "backward": {"ms": 5.0}},
        }
        fa4 = {"shape": "window-32k-128", "setting": "fa4:dense"}
        fa4.update(forward={"ms": 0.6}, backward={"ms": 2.1})
        counts = {shape.name: 100.0 for shape in chosen}
        self.rows = table.rows_of(chosen, counts, self.ours, [fa4])
        lines = table.markdown(self.rows).splitlines()
        self.cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]

    def column(self, name, after=0):
        heading = self.cells[0]
        place = heading.index(name) + after
        return [cells[place] for cells in self.cells[2:]]

    def test_has_the_peers_that_goals_name(self):
        peers_of_goals = [name for name in self.cells[0][12:] if name not in ("x", "ours beside ms")]
        self.assertEqual(peers_of_goals, ["FlexAttention ms", "FlashAttention-4 ms"])
        self.assertEqual(self.column("FlexAttention ms"), ["not run"] * 2 + [""] * 4)
        self.assertEqual({len(cells) for cells in self.cells}, {17})

    def test_says_options_and_what_stands_beside(self):
        grouped = "8 heads of K and V"
        options = ["causal, window 1024"] * 2 + [""] * 2 + [grouped] * 2
        self.assertEqual(self.column("options"), options)
        beside = ["1.500 (heads-32-on-32)", "failed: a / b (heads-32-on-32)"]
        self.assertEqual(self.column("ours beside ms"), [""] * 4 + beside)
        self.assertEqual(self.column("ours beside ms", 1), [""] * 4 + ["0.94", ""])

    def test_plain_shapes_have_a_table_of_their_own(self):
        plain = table.rows_of([named("image")], {"image": 51}, {}, [])
        both = table.markdowns(plain + self.rows)
        self.assertEqual(both, table.markdown(plain) + "\n" + table.markdown(self.rows))
        self.assertEqual(table.markdowns(self.rows), table.markdown(self.rows))

    def test_says_whether_goals_of_others_are_reached(self):
        said = ["yes", "no (1.05 x)", "", "", "no (1.07 x)", "not known"]
        self.assertEqual(self.column("reached"), said)
        json.dumps(self.rows)

    def test_rounds_are_listed_where_there_are_several(self):
        once = {"ms": 0.5, "rounds": [0.5]}
        self.assertEqual(table.markdown_of_rounds({"image": {"forward": once, "backward": once}}), "")
        twice = {"ms": 0.5, "rounds": [0.4, 0.6]}
        text = table.markdown_of_rounds({"image": {"forward": twice, "backward": {"failure": "no"}}})
        self.assertEqual(text.splitlines()[2], "| image | 0.4000, 0.6000 |  |")


class Settings(unittest.TestCase):
    def test_of_a_masked_shape(self):
        def of(name):
            return workers.settings_of(named(name), peers.KINDS, False)

        fa4 = ["fa4:dense", "fa4:deterministic"]
        self.assertEqual(of("causal-8k-64"), ["sdpa:cudnn", *fa4])
        self.assertEqual(of("window-32k-128"), ["flex:default", "flex:tiles", *fa4])
        flex = ["flex:default", "flex:tiles", "flex:masked"]
        self.assertEqual(of("documents-16k-64"), flex)
        self.assertEqual(of("heads-32-on-8"), [])
        self.assertEqual(of("heads-32-on-32"), [])


class Rounds(unittest.TestCase):
    def test_take_turns_and_their_median_counts(self):
        asked = []

        def measured(command, blocks):
            asked.append(command[command.index("--length") + 1])
            return {name: {"ms": float(len(asked))} for name in shapes.PASSES}

        options = peers.parse_arguments(["--shapes", "image,retrieval", "--rounds", "3"])
        patterns = {shape.name: ("file", 1, 1.0) for shape in options.shapes}
        with unittest.mock.patch.object(peers, "measure_ours", measured):
            with unittest.mock.patch.object(peers, "say"):
                ours = peers.measure_all_of_ours(options, patterns, time.monotonic() + 60)
                self.assertEqual(asked, ["4096", "1024"] * 3)
                self.assertEqual(ours["image"]["forward"], {"ms": 4, "rounds": [2, 4, 6]})
                late = peers.measure_all_of_ours(options, patterns, time.monotonic() - 1)
        self.assertEqual(late["retrieval"]["backward"]["rounds"], [7])

    def test_a_failure_of_any_counts(self):
        fine = {name: {"ms": 1.0} for name in shapes.PASSES}
        lost = {**fine, "backward": {"failure": "failed: lost"}}
        combined = peers.median_of_rounds([fine, lost, fine])
        self.assertEqual(combined["backward"], {"failure": "failed: lost"})
        self.assertEqual(combined["forward"]["rounds"], [1.0, 1.0, 1.0])


class Command(unittest.TestCase):
    def test_the_command_knows_every_option(self):
        if SPION == "-":
            self.skipTest("this build has no host back end to run the command with")
        options = peers.parse_arguments(["--spion", SPION, "--spion-flags", "--repeat 1"])
        cases = [*RULES, {"kv_heads": 1}, {"pattern_a_head": True}, {"dropout": 0.25}]
        for rules in cases:
            shape = masked_shape(**rules)
            with tempfile.TemporaryDirectory() as folder:
                written = peers.write_patterns([shape], pathlib.Path(folder))
                file, blocks, _ = written["masked"]
                command = peers.spion_command(options, shape, file, device="cpu")
                result = peers.measure_ours(command, blocks)
            self.assertIn("ms", result["backward"], f"{rules} {result}")

    def test_refuses_two_choices_of_shapes(self):
        run = subprocess.run(
            [sys.executable, peers.__file__, "--masks", "--shapes", "image"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        self.assertEqual(run.returncode, 2)
        self.assertIn("give one of them", run.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give the built command, or - for none")
    SPION = sys.argv.pop()
    unittest.main(verbosity=1)
