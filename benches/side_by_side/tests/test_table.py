import unittest

from .. import blocks, report, scale, table
from ..metrics import CPU, MEMORY, THROUGHPUT
from ..plan import CASES
from .fixture import results, run

PACED = [case for case in CASES if case.name == "1000-paced-64"]
IDLE = [case for case in CASES if case.idle]


def cells(text, line=0):
    """Those of a line below the heads."""
    return [cell.strip() for cell in text.splitlines()[2 + line].strip("|").split(" | ")]


class Tables(unittest.TestCase):
    def test_a_line_has_medians_ratios_and_goals(self):
        text = table.comparison(results(run("chatroom", cpu=3_000), run("floor", cpu=2_000)), PACED, CPU)
        self.assertEqual(cells(text), [
            PACED[0].title, "3.00 µs", "2.00 µs", "not installed", "1.50 (1.50–1.50); goal ≤ 1.6 ✓", "–; goal ≤ 0.6",
        ])  # fmt: skip

    def test_a_missed_goal_is_shown_as_missed(self):
        text = table.comparison(results(run("chatroom", cpu=400), run("floor", cpu=200)), PACED, CPU)
        self.assertTrue(cells(text)[4].endswith("goal ≤ 1.6 ✗"), text)

    def test_a_goal_of_our_own_stands_beside_our_value(self):
        idle = [run(name, case="10000-idle") for name in ("chatroom", "floor")]
        self.assertEqual(cells(table.comparison(results(*idle), IDLE, MEMORY))[1], "15.5 KiB; goal ≤ 16.0 KiB ✓")

    def test_a_run_with_a_fault_is_marked_and_explained(self):
        found = results(run("chatroom"), run("floor", lost=35))
        self.assertEqual(cells(table.comparison(found, PACED, CPU))[1:3], ["100 ns", "100 ns ⚠"])
        self.assertIn("raw sockets: 35 lost in 1 of 1 runs", table.remarks(found, PACED))

    def test_a_run_without_a_value_keeps_its_line(self):
        failed = run("chatroom", tool=None, failure="the server ended")
        self.assertEqual(cells(table.comparison(results(failed), PACED, CPU))[1:3], ["no value ⚠", "not run"])

    def test_several_orders_are_counted(self):
        found = results(run("chatroom"), run("floor", 1, orders=7, exit=1), run("floor", 2, orders=9, exit=1))
        self.assertEqual(cells(table.orders(found, PACED))[1:], ["1", "7–9 ⚠", "not installed"])

    def test_idle_cases_have_memory_and_nothing_else(self):
        self.assertTrue(IDLE[0].has(MEMORY) and not IDLE[0].has(THROUGHPUT) and not PACED[0].has(MEMORY))


class Documents(unittest.TestCase):
    def test_every_case_has_its_line_even_when_nothing_was_run(self):
        text = report.markdown(results(), None)
        for case in CASES:
            self.assertIn(f"| {case.title} |", text)
        text = scale.markdown(results(), None)
        for case in scale.CASES:
            self.assertIn(f"| {case.title} |", text)

    def test_the_picture_is_shown_only_if_there_is_one(self):
        self.assertNotIn("![", report.markdown(results(), None))
        self.assertIn("(results.svg)", report.markdown(results(), "results.svg"))

    def test_the_readme_has_medians_and_performance_has_goals(self):
        found = results(run("chatroom", cpu=400), run("floor", cpu=200), run("chatroom", case="10000-idle"))
        readme = report.readme(found).splitlines()
        self.assertIn("| 1,000 at 50 msg/s, 64 B | 400 ns | 2.00 | – |", readme)
        self.assertIn("| 10,000 idle, memory of each | 15.5 KiB | – | – |", readme)
        goals = report.goals(found).splitlines()
        self.assertIn(
            "| 1,000 at 50 msg/s, 64 B | Server CPU per delivery | ≤ 1.6 ✗ | ≤ 0.6 not measured | – |", goals
        )
        self.assertIn("| 10,000 idle | Memory per idle connection | – | ≤ 0.3 not measured | ≤ 16.0 KiB ✓ |", goals)

    def test_a_document_gets_the_block_and_keeps_the_rest(self):
        old = "before\n<!-- bench:begin -->\nstale\n<!-- bench:end -->\nafter\n"
        new = blocks.updated(old, "fresh\n")
        self.assertEqual(new, "before\n<!-- bench:begin -->\nfresh\n<!-- bench:end -->\nafter\n")
        self.assertEqual(blocks.updated(new, "fresh"), new)

    def test_a_document_without_a_place_for_the_block_is_refused(self):
        for text in ("", "<!-- bench:begin -->", "<!-- bench:end --><!-- bench:begin -->"):
            with self.assertRaises(ValueError):
                blocks.updated(text, "fresh")


if __name__ == "__main__":
    unittest.main()
