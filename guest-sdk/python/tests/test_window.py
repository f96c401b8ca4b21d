"""Windows: what they say of events that come in order, late and too late; and, for random courses
of events, that they say what a naive model says, and leave nothing behind."""

import random
import unittest
from datetime import timedelta

from sluicebox import batch
from sluicebox.testing import Harness, Input
from sluicebox.window import Count, Distinct, Max, Mean, Min, Pair, Sum, Top, Window


def micros(count):
    return timedelta(microseconds=count)


def stage_of(window, aggregate=None, emit=None):
    aggregated = window.aggregate(aggregate or Sum(), lambda event: event.json())

    @batch
    def stage(events):
        aggregated.run(events, emit)

    return stage


def results(handled):
    assert handled.failures == [], handled.failures
    return [(out.port, out.key, out.time, out.json()) for out in handled.outputs]


def said(handled):
    return [
        (one["start"], one["end"], one.get("firing"), one["value"])
        for _, _, _, one in results(handled)
    ]


class Windows(unittest.TestCase):
    def test_a_tumbling_window_gives_its_result_when_it_is_over(self):
        harness = Harness(stage_of(Window.tumbling(micros(10))))
        harness.handle(
            [Input("k", "1", time=3), Input("k", "2", time=9), Input("k", "4", time=10)]
        )
        self.assertEqual(results(harness.advance_watermark(9)), [])
        expected = {"key": "k", "start": 0, "end": 10, "value": 3}
        self.assertEqual(results(harness.advance_watermark(10)), [(0, "k", 9, expected)])
        self.assertEqual(said(harness.advance_watermark(99)), [(10, 20, None, 4)])
        self.assertEqual((harness.slots("k"), harness.timers("k")), ({}, {}))

    def test_an_event_is_in_every_sliding_window_over_it(self):
        harness = Harness(stage_of(Window.sliding(micros(6), micros(4))))
        harness.send("k", "1", time=9)
        expected = [(4, 10, None, 1), (8, 14, None, 1)]
        self.assertEqual(said(harness.advance_watermark(99)), expected)

    def test_late_events_correct_too_late_ones_leave_elsewhere(self):
        window = Window.tumbling(micros(10), allowed_lateness=micros(5), late_port=1)
        harness = Harness(stage_of(window))
        harness.send("k", "1", time=3)
        harness.advance_watermark(12)
        self.assertEqual(said(harness.send("k", "2", time=4)), [(0, 10, "late", 3)])
        harness.advance_watermark(15)
        self.assertEqual(results(harness.send("k", "4", time=4)), [(1, "k", 4, 4)])
        self.assertEqual(harness.slots("k"), {})

    def test_without_a_port_a_late_event_fails_or_is_counted(self):
        harness = Harness(stage_of(Window.tumbling(micros(10))))
        harness.advance_watermark(20)
        self.assertIn("too late, at 4", harness.send("k", "1", time=4).failures[0].message)
        harness = Harness(stage_of(Window.tumbling(micros(10), drop_late=True)))
        harness.advance_watermark(20)
        self.assertEqual(results(harness.send("k", "1", time=4)), [])
        self.assertEqual(harness.counts, {"late_events_dropped": 1})

    def test_sessions_grow_together(self):
        harness = Harness(stage_of(Window.session(micros(10))))
        harness.handle([Input("k", "1", time=3), Input("k", "2", time=20)])
        harness.send("k", "4", time=12)
        self.assertEqual(said(harness.advance_watermark(30)), [(3, 30, None, 7)])
        self.assertEqual((harness.slots("k"), harness.timers("k")), ({}, {}))

    def test_a_late_event_names_the_sessions_it_joins(self):
        harness = Harness(stage_of(Window.session(micros(10), allowed_lateness=micros(50))))
        harness.handle([Input("k", "1", time=3), Input("k", "2", time=20)])
        self.assertEqual(len(said(harness.advance_watermark(40))), 2)
        ((_, _, _, joined),) = results(harness.send("k", "4", time=12))
        self.assertEqual((joined["start"], joined["replaces"], joined["value"]), (3, [3, 20], 7))

    def test_a_window_of_a_count_is_full_or_over(self):
        harness = Harness(stage_of(Window.count(2, or_after=micros(10))))
        handled = harness.handle([Input("k", str(n), time=n) for n in (1, 2, 5)])
        self.assertEqual(said(handled), [(1, 3, None, 3)])
        self.assertEqual(said(harness.advance_watermark(15)), [(5, 6, None, 5)])
        self.assertEqual((harness.slots("k"), harness.timers("k")), ({}, {}))

    def test_open_windows_give_results_early(self):
        harness = Harness(stage_of(Window.tumbling(micros(100), early_every=micros(10))))
        harness.send("k", "1", time=3)
        self.assertEqual(said(harness.advance_watermark(10)), [(0, 100, "early", 1)])
        self.assertEqual(said(harness.advance_watermark(20)), [])
        harness.send("k", "1", time=25)
        self.assertEqual(said(harness.advance_watermark(30)), [(0, 100, "early", 2)])
        self.assertEqual(said(harness.advance_watermark(100)), [(0, 100, None, 2)])

    def test_windows_by_the_clock_take_no_event_for_late(self):
        harness = Harness(stage_of(Window.tumbling(micros(10), by_clock=True)))
        harness.advance_clock(57)
        harness.send("k", "1", time=3)
        self.assertEqual(said(harness.advance_clock(60)), [(50, 60, None, 1)])

    def test_shifted_windows_begin_later(self):
        harness = Harness(stage_of(Window.tumbling(micros(24), shifted=micros(23))))
        harness.send("k", "1", time=24)
        self.assertEqual(said(harness.advance_watermark(99)), [(23, 47, None, 1)])

    def test_what_each_aggregate_makes(self):
        made = {
            3: Count(),
            6: Sum(),
            1: Min(),
            "3": Max(),
            2.0: Mean(),
        }
        for expected, aggregate in made.items():
            harness = Harness(stage_of(Window.count(3), aggregate))
            handled = harness.handle([Input("k", str(n)) for n in (2, 1, 3)])
            self.assertEqual(said(handled)[0][3], int(expected), type(aggregate))
        several = [
            (Distinct(2), [1, 2, 1, 3], {"count": 2, "exact": False}),
            (Distinct(9), [1, 2, 1, 3], {"count": 3, "exact": True}),
            (Pair(Sum(), Count()), [[1, 0], [2, 0], [3, 0], [4, 0]], [10, 4]),
            (
                Top(2),
                [[1, "a"], [3, "b"], [3, "c"], [2, "d"]],
                [{"score": 3, "item": "b"}, {"score": 3, "item": "c"}],
            ),
        ]
        for aggregate, values, expected in several:
            harness = Harness(stage_of(Window.count(4), aggregate))
            import json

            handled = harness.handle([Input("k", json.dumps(value)) for value in values])
            self.assertEqual(said(handled)[0][3], expected)

    def test_the_stage_may_say_what_leaves(self):
        def emit(result, event, time):
            event.emit(f"{result['key']} had {result['value']}", port=2, time=time)

        harness = Harness(stage_of(Window.tumbling(micros(10)), emit=emit))
        harness.send("k", "1", time=3)
        (out,) = harness.advance_watermark(10).outputs
        self.assertEqual((out.port, out.time, out.text()), (2, 9, "k had 1"))

    def test_one_bad_event_fails_alone(self):
        harness = Harness(stage_of(Window.tumbling(micros(10))))
        handled = harness.handle([Input("k", "1", time=3), Input("k", "{", time=3)])
        self.assertEqual([failed.event for failed in handled.failures], [1])
        self.assertEqual(said(harness.advance_watermark(10)), [(0, 10, None, 1)])

    def test_panes_are_bounded(self):
        harness = Harness(stage_of(Window.tumbling(micros(10), panes_max=2)))
        handled = harness.handle([Input("k", "1", time=t) for t in (1, 11, 21)])
        self.assertIn("2 panes already", handled.failures[0].message)

    def test_another_size_over_kept_state_is_refused(self):
        harness = Harness(stage_of(Window.tumbling(micros(10))))
        harness.send("k", "1", time=3)
        harness._handle = stage_of(Window.tumbling(micros(20))).instance()
        self.assertIn("another size", harness.send("k", "1", time=3).failures[0].message)

    def test_lengths_are_checked(self):
        wrong = [
            lambda: Window.tumbling(0),
            lambda: Window.sliding(micros(5), micros(6)),
            lambda: Window.sliding(timedelta(hours=1), timedelta(microseconds=7)),
            lambda: Window.session(0),
            lambda: Window.count(0),
            lambda: Window.tumbling(5, name="a/b"),
            lambda: Window.tumbling(5, early_every=0),
        ]
        for make in wrong:
            self.assertRaises(ValueError, make)


class _Model:
    """Windows, each looked at for itself."""

    def __init__(self, size, slide, lateness):
        self.size, self.slide, self.lateness = size, slide, lateness
        self.events, self.over = [], set()

    def windows(self, time):
        first = -(-(time - self.size + 1) // self.slide) * self.slide
        return [s for s in range(max(first, 0), time + 1, self.slide) if s <= time < s + self.size]

    def result(self, key, start, firing):
        end = start + self.size
        values = [value for k, time, value in self.events if k == key and start <= time < end]
        return (key, start, end, firing, sum(values))

    def event(self, key, time, value, watermark):
        windows = self.windows(time)
        if max(windows) + self.size + self.lateness <= watermark:
            return [(key, "late", value)]
        self.events.append((key, time, value))
        return [
            self.result(key, start, "late")
            for start in windows
            if start + self.size <= watermark < start + self.size + self.lateness
        ]

    def advance(self, before, watermark):
        found = {(key, start) for key, time, _ in self.events for start in self.windows(time)}
        return [
            self.result(key, start, None)
            for key, start in found
            if before < start + self.size <= watermark
        ]


class Courses(unittest.TestCase):
    def test_windows_say_what_a_naive_model_says(self):
        for seed in range(300):
            with self.subTest(seed=seed):
                self.course(random.Random(seed))

    def course(self, chance):
        size = chance.randint(1, 40)
        slide, lateness = chance.randint(1, size), chance.choice([0, 0, 7, 60])
        window = Window.sliding(
            micros(size), micros(slide), allowed_lateness=micros(lateness), late_port=1
        )
        harness, model = Harness(stage_of(window)), _Model(size, slide, lateness)
        clock, watermark, waiting = 100, 0, []
        for _ in range(chance.randint(1, 60)):
            clock += chance.randint(0, 15)
            for _ in range(chance.randint(0, 3)):
                sent = (chance.choice("abc"), max(clock - chance.randint(0, 80), 0))
                waiting.append((*sent, chance.randint(0, 5)))
            if chance.random() < 0.5:
                expected = [r for sent in waiting for r in model.event(*sent, watermark)]
                inputs = [Input(key, str(v), time=time) for key, time, v in waiting]
                self.compare(harness.handle(inputs), expected)
                waiting = []
            if chance.random() < 0.3:
                before, watermark = watermark, max(watermark, clock - chance.randint(0, 60))
                expected = model.advance(before, watermark)
                self.compare(harness.advance_watermark(watermark), expected)
        self.compare(harness.advance_watermark(1 << 40), model.advance(watermark, 1 << 40))
        for key in "abc":
            self.assertEqual((harness.slots(key), harness.timers(key)), ({}, {}))

    def compare(self, handled, expected):
        found = []
        for port, key, _, value in results(handled):
            if port == 1:
                found.append((key, "late", value))
            else:
                span = (value["start"], value["end"], value.get("firing"), value["value"])
                found.append((key, *span))
        order = lambda one: tuple(map(str, one))
        self.assertEqual(sorted(found, key=order), sorted(expected, key=order))


if __name__ == "__main__":
    unittest.main()
