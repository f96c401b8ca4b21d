"""Handlers in the harness: what is emitted, what fails, what stands."""

import unittest

from sluicebox import Clock, Field, Refused, Retry, StateBatch, assets, batch, config, log, metrics
from sluicebox import _frame, _host, now, stage, stream, watermark
from sluicebox.testing import Harness, Input, Trap


def outputs(handled):
    return [(out.port, out.key, out.time, out.text()) for out in handled.outputs]


def failures(handled):
    return [(failed.event, failed.kind, failed.message) for failed in handled.failures]


class Lent:
    """Stands for a buffer of a GPU: its handle, and whether it was given away."""

    def __init__(self):
        self.handle, self.is_given = 7, False

    def given(self):
        self.is_given = True


def attachments_in(frame):
    count = 0
    for at, head in _frame.read_events(frame):
        fields = _frame.read_fields(frame[at + head[0] - head[9] : at + head[0]])
        count += sum(len(value) // 8 for number, value in fields if number == Field.ATTACHMENTS)
    return count


class Emitting(unittest.TestCase):
    def test_an_event_is_what_was_sent(self):
        @stage
        def describe(event):
            event.emit_json(
                [event.kind, event.input, event.port, event.time, event.key, event.text()]
            )

        sent = Input("schlüssel", "größe", time=7, input=3, port=2)
        handled = Harness(describe).handle([sent])
        self.assertEqual(handled.outputs[0].json(), ["data", 3, 2, 7, "schlüssel", "größe"])

    def test_what_differs_from_the_cause_is_said(self):
        @stage
        def emit(event):
            event.emit("a")
            event.emit(b"b", port=2, key="own", time=9)

        handled = Harness(emit).send("k", time=5)
        self.assertEqual(outputs(handled), [(0, "k", 5, "a"), (2, "own", 9, "b")])

    def test_fields_arrive_and_leave(self):
        @stage
        def emit(event):
            event.emit("", fields=[(Field.OWN_FIRST, event.field(Field.CONTENT_TYPE))])

        sent = Input("k", fields=[(Field.CONTENT_TYPE, "text/plain"), (Field.EVENT_ID, "1")])
        handled = Harness(emit).handle([sent])
        self.assertEqual(handled.outputs[0].fields, [(Field.OWN_FIRST, b"text/plain")])

    def test_a_buffer_is_given_away_with_its_event_and_not_with_one_that_is_refused(self):
        kept, sent = Lent(), Lent()

        @stage
        def emit(event):
            for wrong in [{"time": -1}, {"port": 65_536}, {"fields": [(-1, b"")]}]:
                with self.assertRaises(Exception):
                    event.emit("", attach=[kept], **wrong)
            event.emit("", attach=[sent])

        handled = Harness(emit).send("k")
        self.assertEqual(handled.outputs[0].fields, [(Field.ATTACHMENTS, b"\7" + bytes(7))])
        self.assertEqual((kept.is_given, sent.is_given), (False, True))

    def test_no_frame_has_more_than_256_attachments_whatever_it_was_flushed_for(self):
        counts = []

        @stage
        def emit(event):
            real = _host.emit
            # The harness puts back what it found when the call ends.
            _host.emit = lambda frame: (counts.append(attachments_in(frame)), real(frame))
            event.emit(bytes(200_000), attach=[7] * 10)
            event.emit(bytes(200_000), attach=[7] * 20)
            event.emit("", attach=[7] * 250)
            event.emit("", attach=[7] * 6)
            event.emit("", attach=[7])

        Harness(emit).send("k")
        self.assertEqual(counts, [10, 20, 256, 1])

    def test_a_large_output_leaves_in_several_frames(self):
        @stage
        def emit(event):
            for _ in range(5):
                event.emit(b"x" * 100_000)

        self.assertEqual(len(Harness(emit).send("k").outputs), 5)

    def test_what_no_frame_can_carry_fails_its_event(self):
        cases = [
            (lambda event: event.emit("", key="k" * 513), "a key of 513 bytes"),
            (lambda event: event.emit("", time=2**53), "the time 9007199254740992"),
            (lambda event: event.emit("", time=-1), "the time -1"),
            (lambda event: event.emit("", port=65_536), "the port 65536"),
            (lambda event: event.emit(bytes((15 << 20) + 1)), "a payload of 15728641 bytes"),
            (lambda event: event.emit("", fields=[(1, b"x" * 16_384)]), "bytes of fields"),
            (lambda event: event.emit({"a": 1}), "bytes or text are wanted, not dict"),
            (lambda event: event.state.put("s", 5), "bytes or text are wanted, not int"),
            (lambda event: event.emit("", time=0.5), "the time 0.5"),
        ]
        for emit, says in cases:
            handled = Harness(stage(emit)).send("k")
            self.assertEqual(handled.outputs, [])
            self.assertIn(says, handled.failures[0].message)

    def test_a_cause_that_is_not_there_is_a_trap(self):
        harness = Harness(stage(lambda event: event.emit("", cause=7)))
        with self.assertRaises(Trap):
            harness.send("k")


class Failing(unittest.TestCase):
    def test_an_exception_fails_its_event_alone(self):
        @stage
        def parse(event):
            event.emit_json(event.json()["n"])

        sent = [Input("k", '{"n": 1}'), Input("k", "{"), Input("k", "{}"), Input("k", '{"n": 2}')]
        handled = Harness(parse).handle(sent)
        self.assertEqual([out.json() for out in handled.outputs], [1, 2])
        self.assertEqual([failed.event for failed in handled.failures], [1, 2])
        self.assertIn("the payload is not JSON", handled.failures[0].message)
        self.assertRegex(
            handled.failures[1].message, r"^KeyError: 'n' \(test_stage.py, line \d+\)$"
        )

    def test_only_retry_asks_to_try_again(self):
        @stage
        def fail(event):
            raise Retry("later")

        self.assertEqual(failures(Harness(fail).send("k")), [(0, "retry", "later")])

    def test_what_failed_leaves_nothing_behind(self):
        @stage
        def count(event):
            event.emit_json(event.state.add("n"))
            event.timers.set("t", 5)
            if event.payload == b"no":
                raise ValueError("no")

        harness = Harness(count)
        handled = harness.handle([Input("a"), Input("b", "no"), Input("a")])
        self.assertEqual([out.json() for out in handled.outputs], [1, 2])
        self.assertEqual([out.cause for out in handled.outputs], [0, 2])
        self.assertIsNone(harness.counter("b", "n"))
        self.assertEqual(harness.timers("b"), {})

    def test_memory_errors_and_exits_are_traps(self):
        for error in (MemoryError, SystemExit):

            @stage
            def trap(event):
                raise error

            with self.assertRaises(error):
                Harness(trap).send("k")

    def test_a_batch_that_raises_has_each_event_tried_alone(self):
        @batch
        def fail(events):
            for event in events:
                event.emit(event.json())

        handled = Harness(fail).handle([Input("k", '"a"'), Input("k", "1")])
        self.assertEqual({kind for _, kind, _ in failures(handled)}, {"retry"})
        self.assertEqual(Harness(fail).send("k", "1").failures[0].kind, "reject")

    def test_a_batch_names_the_event_that_failed(self):
        @batch
        def some(events):
            for event in events:
                if event.payload == b"no":
                    event.fail("not this one")
                else:
                    event.emit("yes")

        handled = Harness(some).handle([Input("k"), Input("k", "no")])
        self.assertEqual(failures(handled), [(1, "reject", "not this one")])
        self.assertEqual(len(handled.outputs), 1)

    def test_an_event_of_an_earlier_call_is_of_no_use(self):
        kept = []

        @stage
        def keep(event):
            kept.append(event)
            kept[0].emit("again")

        harness = Harness(keep)
        harness.send("k")
        self.assertIn("of an earlier call", harness.send("k").failures[0].message)
        self.assertEqual(kept[0].key, "k")

    def test_a_function_of_the_wrong_form_is_refused(self):
        async def waits(event):
            pass

        def yields(event):
            yield event

        for wrong in (waits, yields):
            with self.assertRaises(TypeError):
                stage(wrong)
        with self.assertRaises(TypeError):
            stream(yields)


class Keeping(unittest.TestCase):
    def test_slots_are_put_read_scanned_and_deleted(self):
        @stage
        def keep(event):
            state = event.state
            state.put("b", "text")
            state.put_json("a", {"n": 1})
            found = [state.get("b").decode(), state.get_json("a"), state.get_json("none", 7)]
            found.append([slot for slot, _ in state.scan()])
            found += [state.delete("b"), state.delete("b"), state.get("b")]
            event.emit_json(found)

        handled = Harness(keep).send("k")
        expected = ["text", {"n": 1}, 7, ["a", "b"], True, False, None]
        self.assertEqual(handled.outputs[0].json(), expected)

    def test_counters_wrap_around(self):
        @stage
        def count(event):
            event.state.add("n", 2**63 - 1)
            event.emit_json(
                [event.state.add("n"), event.state.counter("n"), event.state.counter("m")]
            )

        handled = Harness(count).send("k")
        self.assertEqual(handled.outputs[0].json(), [-(2**63), -(2**63), 0])

    def test_a_batch_does_all_in_one_call(self):
        @batch
        def many(events):
            ask = StateBatch()
            for event in events:
                ask.put(event, "s", event.payload)
                ask.get(event, "s")
                ask.add(event, "n", -2)
                ask.add(event, "s")
                ask.delete(event, "none")
                ask.set_timer(event, "t", 9, Clock.WALL)
                ask.cancel_timer(event, "none")
            replies = ask.run(refused=True)
            for event in events:
                mine, replies = replies[:7], replies[7:]
                event.emit(repr([r if not isinstance(r, Refused) else str(r) for r in mine]))

        harness = Harness(many)
        handled = harness.handle([Input("a", "xyz"), Input("b", "x")])
        counter = "the slot holds 3 bytes, a counter has 8"
        self.assertEqual(
            handled.outputs[0].text(), repr([True, b"xyz", -2, counter, False, True, False])
        )
        self.assertEqual(harness.timers("b"), {"t": (Clock.WALL, 9)})

    def test_a_refusal_is_raised_unless_it_is_wanted(self):
        @stage
        def refuse(event):
            ask = StateBatch()
            ask.put(event, "s", "xyz")
            ask.add(event, "s")
            ask.run()

        handled = Harness(refuse).send("k")
        self.assertIn("Refused: the slot holds 3 bytes", handled.failures[0].message)

    def test_timers_fire_and_may_go_elsewhere(self):
        @stage
        def wait(event):
            event.timers.set("event", 10)
            event.timers.set("wall", 20, Clock.WALL)
            event.timers.set("gone", 5)
            event.timers.cancel("gone")

        @wait.timer
        def fired(event):
            event.emit(event.timer)

        harness = Harness(wait)
        self.assertEqual(harness.send("k").outputs, [])
        self.assertEqual(outputs(harness.advance_watermark(10)), [(0, "k", 10, "event")])
        self.assertEqual(outputs(harness.advance_watermark(99)), [])
        self.assertEqual(outputs(harness.advance_clock(20)), [(0, "k", 20, "wall")])

    def test_settings_assets_log_and_metrics(self):
        @stage
        def use(event):
            log.info("seen")
            metrics.count("events")
            metrics.gauge("level", 2)
            values = [config.get("a"), config.get("b", "none"), config.names()]
            values += [assets.read("blob").decode(), assets.read("blob", 1, 1).decode()]
            values += [assets.size("none"), watermark(), now()]
            event.emit_json(values)

        harness = Harness(use, config={"a": "1"}, assets={"blob": b"xyz"})
        harness.advance_watermark(3)
        harness.advance_clock(4)
        handled = harness.send("k")
        expected = ["1", "none", ["a"], "xyz", "y", None, 3, 4]
        self.assertEqual(handled.outputs[0].json(), expected)
        self.assertEqual(harness.log, [("info", "seen")])
        self.assertEqual((harness.counts, harness.gauges), ({"events": 1}, {"level": 2.0}))

    def test_without_a_host_it_says_so(self):
        with self.assertRaisesRegex(RuntimeError, "no host here"):
            watermark()


class Streaming(unittest.TestCase):
    def setUp(self):
        @stream
        async def largest(stream):
            largest = None
            async for event in stream:
                value = event.json()
                largest = value if largest is None else max(largest, value)
                if value == 99:
                    stream.fail("not this one")
            stream.emit_json(largest)

        self.largest = largest

    def test_a_stream_is_read_over_many_calls(self):
        harness = Harness(self.largest)
        harness.open("k")
        self.assertEqual(harness.handle([Input("k", "1"), Input("k", "7")]).outputs, [])
        harness.send("k", "3")
        self.assertEqual(outputs(harness.end("k", time=8)), [(0, "k", 8, "7")])

    def test_a_stream_in_one_call(self):
        events = [Input("k", kind="open"), Input("k", "1"), Input("k", kind="end")]
        self.assertEqual(len(Harness(self.largest).handle(events).outputs), 1)

    def test_a_failed_event_does_not_end_the_stream(self):
        harness = Harness(self.largest)
        harness.open("k")
        self.assertEqual(failures(harness.send("k", "99")), [(0, "reject", "not this one")])
        self.assertEqual(harness.end("k").outputs[0].json(), 99)

    def test_events_after_an_exception_fail(self):
        harness = Harness(self.largest)
        harness.open("k")
        handled = harness.handle([Input("k", "{"), Input("k", "1")])
        self.assertEqual([failed.event for failed in handled.failures], [0, 1])
        self.assertIn("failed before", harness.send("k", "2").failures[0].message)
        self.assertEqual(harness.open("k").failures, [])
        self.assertEqual(harness.send("k", "2").failures, [])

    def test_a_stream_that_returns_has_seen_enough(self):
        @stream
        async def first(stream):
            async for event in stream:
                event.emit(event.payload)
                return

        harness = Harness(first)
        harness.open("k")
        handled = harness.handle([Input("k", "a"), Input("k", "b")])
        self.assertEqual(outputs(handled), [(0, "k", 0, "a")])
        self.assertEqual(harness.send("k", "c").failures, [])

    def test_waiting_for_anything_else_fails(self):
        import asyncio

        @stream
        async def sleepy(stream):
            async for event in stream:
                await asyncio.sleep(0)

        harness = Harness(sleepy)
        handled = harness.handle([Input("k", kind="open"), Input("k", "a"), Input("k", "b")])
        self.assertIn("something else than its next event", handled.failures[0].message)

    def test_another_key_says_that_the_scope_is_wrong(self):
        harness = Harness(self.largest)
        harness.handle([Input("k", kind="open"), Input("k", "1")])
        self.assertIn('scope = "stream"', harness.send("other", "1").failures[0].message)


if __name__ == "__main__":
    unittest.main()
