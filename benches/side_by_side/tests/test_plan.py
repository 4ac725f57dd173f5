import unittest

from .. import plan, rounds, scale
from ..__main__ import STUDIES, chosen


class Turns(unittest.TestCase):
    def test_the_servers_take_turns_and_another_one_begins_each_round(self):
        found = [(number, case, server) for number, case, server in rounds.turns("xy", lambda _: "ABC", 2)]
        self.assertEqual("".join(server for _, _, server in found), "ABCABC" "BCABCA")
        self.assertEqual("".join(case for _, case, _ in found), "xxxyyy" * 2)

    def test_a_case_may_have_servers_of_its_own(self):
        found = rounds.turns("xy", lambda case: "AB" if case == "x" else "A", 3)
        self.assertEqual("".join(server for _, _, server in found), "ABA" "BAA" "ABA")


class Cases(unittest.TestCase):
    def test_names_are_unique(self):
        for study in STUDIES.values():
            self.assertEqual(len({case.name for case in study.cases}), len(study.cases))

    def test_a_load_is_chosen_with_all_its_sizes_and_a_case_alone(self):
        names = [case.name for case in chosen(STUDIES["bench"], ["1000-paced", "100-saturated-64"])]
        self.assertEqual(names, ["100-saturated-64", "1000-paced-64", "1000-paced-1024"])
        self.assertEqual(len(chosen(STUDIES["scale"], [])), len(scale.CASES))
        with self.assertRaises(SystemExit):
            chosen(STUDIES["bench"], ["1000-placed"])

    def test_the_tool_is_told_the_pace_or_the_window_or_to_be_silent(self):
        said = {case.name: " ".join(case.arguments(3)) for case in plan.CASES}
        self.assertIn("--publishers 10 --size 1024 --window 26", said["100-saturated-1024"])
        self.assertIn("--publishers 1 --size 64 --rate 5 --sources 4 --duration 3s --warmup 1s", said["10000-paced-64"])
        self.assertIn("--publishers 0", said["10000-idle"])

    def test_all_loads_of_a_scale_deliver_alike(self):
        for case in scale.CASES:
            delivered = case.rate * case.connections / case.rooms
            self.assertAlmostEqual(delivered, scale.DELIVERIES_PER_SECOND, msg=case.name)
            self.assertEqual(case.publishers, case.rooms)

    def test_a_goal_is_for_a_server_that_is_run_or_our_own(self):
        names = {server.name for server in plan.SERVERS}
        for case in plan.CASES:
            for metric, goals in case.goals.items():
                self.assertTrue(case.has(metric) and set(goals) <= names, case.name)


if __name__ == "__main__":
    unittest.main()
