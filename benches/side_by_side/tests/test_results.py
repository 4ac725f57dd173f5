import unittest

from ..metrics import CPU, MEMORY, THROUGHPUT, digits, kibibytes_of, rate_of, time_of
from ..results import Spread
from .fixture import results, run

CASE = "1000-paced-64"
OWN, FLOOR = (CASE, "chatroom"), (CASE, "floor")


class Statistics(unittest.TestCase):
    def test_a_spread_is_the_median_between_the_extremes(self):
        self.assertEqual(Spread.of([3, 1, 2]), Spread(2, 1, 3))
        self.assertEqual(Spread.of([4, 1]), Spread(2.5, 1, 4))
        self.assertIsNone(Spread.of([]))

    def test_a_ratio_is_taken_within_each_round(self):
        # The machine was twice as slow in the second: the medians' ratio would be 1.5, the ratio never was.
        runs = [run(s, n, cpu) for n, o, f in ((1, 20, 10), (2, 40, 20), (3, 30, 10)) for s, cpu in
                (("chatroom", o), ("floor", f))]  # fmt: skip
        self.assertEqual(results(*runs).ratio(OWN, FLOOR, CPU), Spread(2, 2, 3))

    def test_a_round_without_one_of_both_values_has_no_ratio(self):
        lone = run("chatroom", 2, 90), run("floor", 2, tool=None, failure="it ended")
        whole = run("chatroom", 1, 20), run("floor", 1, 10)
        self.assertEqual(results(*whole, *lone).ratio(OWN, FLOOR, CPU), Spread(2, 2, 2))
        self.assertIsNone(results(*lone).ratio(OWN, FLOOR, CPU))
        self.assertIsNone(results(run("chatroom"), run("floor", cpu=0)).ratio(OWN, FLOOR, CPU))

    def test_a_run_without_a_result_has_no_value(self):
        self.assertIsNone(CPU.read(None))
        self.assertIsNone(CPU.read({"server": None}))
        self.assertEqual(MEMORY.read(run("chatroom")["tool"]), 15_872)


class Remarks(unittest.TestCase):
    def remarks(self, *runs):
        return results(*runs).remarks(*OWN)

    def test_a_run_in_which_all_went_well_has_none(self):
        self.assertEqual(self.remarks(run("chatroom"), run("chatroom", 2)), [])

    def test_each_fault_is_told_with_its_extent(self):
        found = self.remarks(
            run("chatroom", 1, lost=3, exit=1),
            run("chatroom", 2, lost=5, duplicates=1, exit=1),
            run("chatroom", 3),
        )
        self.assertEqual(found, ["3–5 lost in 2 of 3 runs", "1 twice in 1 of 3 runs"])

    def test_several_orders_explain_an_exit_code_and_nothing_else_does(self):
        self.assertEqual(self.remarks(run("chatroom", orders=275, exit=1)), ["275 orders in 1 of 1 runs"])
        self.assertEqual(self.remarks(run("chatroom", exit=1)), ["exit code 1 in 1 of 1 runs"])

    def test_a_run_behind_its_pace_is_told_and_a_closed_loop_has_none(self):
        slow = {"deliveries_per_second": 20_000.0}
        self.assertEqual(self.remarks(run("chatroom", **slow)), ["40 % of the pace in 1 of 1 runs"])
        self.assertEqual(self.remarks(run("chatroom", rate=None, **slow)), [])
        self.assertEqual(self.remarks(run("chatroom", rooms=10, deliveries_per_second=4_600.0)), [])

    def test_failed_connections_and_scrapes_are_told(self):
        found = self.remarks(run("chatroom", failed={"reset": 7}, scrapes_failed=2))
        self.assertEqual(found, [
            "7 connections failed (reset) in 1 of 1 runs",
            "2 scrapes of /metrics failed in 1 of 1 runs",
        ])  # fmt: skip

    def test_a_run_without_a_result_says_why(self):
        found = self.remarks(run("chatroom", tool=None, exit=2, failure="no result within 9 s"))
        self.assertEqual(found, ["no result within 9 s in 1 of 1 runs"])


class Units(unittest.TestCase):
    def test_values_have_three_digits_and_the_unit_that_fits(self):
        self.assertEqual([digits(n) for n in (0.1249, 9.99, 9.996, 99.9, 99.96)], ["0.12", "9.99", "10.0", "99.9", "100"])
        self.assertEqual([time_of(n) for n in (55, 3_610, 12_300_000, 2e9)], ["55.0 ns", "3.61 µs", "12.3 ms", "2.00 s"])
        self.assertEqual([rate_of(n) for n in (12, 50_000, 9.3e6)], ["12.0 /s", "50.0 k/s", "9.30 M/s"])
        self.assertEqual(kibibytes_of(15_872), "15.5 KiB")

    def test_more_deliveries_are_better_and_less_of_everything_else(self):
        self.assertTrue(THROUGHPUT.meets(4.1, 4) and not THROUGHPUT.meets(3.9, 4))
        self.assertTrue(CPU.meets(1.1, 1.2) and not CPU.meets(1.3, 1.2))


if __name__ == "__main__":
    unittest.main()
