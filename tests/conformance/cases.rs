//! The table: for each case the stage's settings, and step by step what is given and what is
//! expected. Commands are those of `tests/guests/CONFORMANCE.md`.

use std::collections::BTreeMap;

use bytes::Bytes;
use sluicebox_core::frame::{Kind, field};
use sluicebox_core::partition::Halt;
use sluicebox_core::pipeline::{OnFailure, Scope};
use sluicebox_engine::invoker::{LogLevel, LogLine, Metric};
use sluicebox_tests::events::{Dead, Given, Out, TIME};
use sluicebox_tests::rig::{CAUSE_KEY_PORT, PORTS, Spec};

/// One row.
pub(crate) struct Case {
    /// What it shows.
    pub(crate) name: &'static str,
    /// The stage's settings.
    pub(crate) spec: Spec,
    /// What happens, in order, to one partition.
    pub(crate) steps: Vec<Step>,
    /// Nothing in it is beyond a producer, so that it also runs over HTTP.
    pub(crate) sendable: bool,
    /// It asks for timers.
    pub(crate) timers: bool,
}

/// One batch of a case.
pub(crate) enum Step {
    /// A frame is handled.
    Handle { given: Vec<Given>, expected: Expected },
    /// A frame of `w`, which needs a clock, and `e` is handled.
    Clock { given: Vec<Given> },
    /// Streams end by themselves, so many microseconds later.
    Ends { after: u64, expected: Expected },
    /// Timers that are due fire, with this watermark, so many microseconds later.
    Fires { watermark: u64, after: u64, expected: Expected },
}

/// What a batch comes to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected {
    pub(crate) outputs: Vec<Out>,
    pub(crate) dead: Vec<Dead>,
    pub(crate) lines: Vec<LogLine>,
    pub(crate) lines_dropped: u64,
    pub(crate) metrics: Vec<(String, Metric)>,
    pub(crate) metrics_dropped: u64,
    pub(crate) halted: Option<Halt>,
}

impl Case {
    fn new(name: &'static str) -> Self {
        let (spec, steps) = (Spec::default(), Vec::new());
        Self { name, spec, steps, sendable: true, timers: false }
    }

    fn with(mut self, change: impl FnOnce(&mut Spec)) -> Self {
        change(&mut self.spec);
        self
    }

    /// Uses something only the host can do.
    fn host_only(self) -> Self {
        Self { sendable: false, ..self }
    }

    fn step(mut self, given: Vec<Given>, expected: Expected) -> Self {
        self.steps.push(Step::Handle { given, expected });
        self
    }

    /// A step in which timers fire: the times they were set for, behind [`TIME`].
    fn fires(mut self, watermark: u64, after: u64, times: &[u64]) -> Self {
        let fired = |at: &u64| Out::of(*at, described(Kind::Timer, 0, *at, "k"));
        let outputs = times.iter().map(fired).collect();
        let expected = Expected { outputs, ..Expected::default() };
        let watermark = TIME + watermark;
        self.steps.push(Step::Fires { watermark, after, expected });
        Self { sendable: false, timers: true, ..self }
    }

    /// A step that gives these outputs and nothing else.
    fn gives(self, given: Vec<Given>, outputs: Vec<Out>) -> Self {
        self.step(given, Expected { outputs, ..Expected::default() })
    }
}

/// A data event of key `k`.
fn k(payload: impl AsRef<[u8]>) -> Given {
    Given::new("k", payload.as_ref())
}

/// A dead letter of key `k`.
fn dead(payload: impl AsRef<[u8]>, class: &str, message: &str) -> Dead {
    Dead {
        stage: "stage-0".to_owned(),
        class: class.to_owned(),
        message: message.to_owned(),
        key: "k".to_owned(),
        payload: payload.as_ref().to_vec(),
    }
}

/// A command whose operand begins with a length of one byte.
fn short(command: u8, first: &str, rest: &[u8]) -> Vec<u8> {
    let length = u8::try_from(first.len()).expect("short");
    [&[command, length], first.as_bytes(), rest].concat()
}

fn put(slot: &str, value: &[u8]) -> Vec<u8> {
    short(b's', slot, value)
}

fn add(slot: &str, delta: i64) -> Vec<u8> {
    short(b'a', slot, &delta.to_le_bytes())
}

/// What `add` answers.
fn sum(number: i64) -> Vec<u8> {
    [&[0][..], &number.to_le_bytes()].concat()
}

/// What `s` and `a` answer when the host says no.
fn refused(message: &str) -> Vec<u8> {
    [&[2], message.as_bytes()].concat()
}

/// What `d` emits for event `at`.
fn described(kind: Kind, input: u16, at: u64, key: &str) -> Vec<u8> {
    [&[kind as u8][..], &input.to_le_bytes(), &(TIME + at).to_le_bytes(), key.as_bytes()].concat()
}

/// What `w` and `e` emit in a batch of this time, if the guest has a clock.
pub(crate) fn clock(given: &[Given], now: Option<u64>) -> Vec<Out> {
    let nanos = now.map(|now| (now * 1_000).to_le_bytes().to_vec());
    let emitted = |given: &Given| given.payload.strip_prefix(b"e").map(<[u8]>::to_vec);
    let output = |(given, at)| Some(Out::of(at, emitted(given).or_else(|| nanos.clone())?));
    given.iter().zip(0..).filter_map(output).collect()
}

/// The whole table.
pub(crate) fn cases() -> Vec<Case> {
    let first = [emitting(), failing(), stating(), rolling_back(), settings(), saying()];
    first.into_iter().chain([timing(), streams(), bounds()]).flatten().collect()
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn emitting() -> Vec<Case> {
    let many: Vec<Given> = (0..250_u8).map(|n| k([b'e', n])).collect();
    let all: Vec<Out> = (0..250_u8).map(|n| Out::of(n.into(), [n])).collect();
    let typed = |payload: &[u8]| k(payload).field(field::CONTENT_TYPE, b"text/plain");
    let large = vec![b'x'; 200_000];
    vec![
        Case::new("what is emitted comes out, in order")
            .gives(vec![k("ehello")], vec![Out::of(0, "hello")])
            .gives(vec![k("e")], vec![Out::of(0, "")])
            .gives(vec![k(b"e\0\xFF\x80")], vec![Out::of(0, b"\0\xFF\x80")])
            .gives(vec![k(b"n\x03")], (0..3_u8).map(|n| Out::of(0, [n])).collect())
            .gives(vec![k(b"n\0")], vec![])
            .gives(vec![k(b"n\xFF")], (0..255_u8).map(|n| Out::of(0, [n])).collect()),
        Case::new("a frame of many events gives as many").gives(many, all),
        Case::new("a frame of different keys and commands").gives(
            vec![k("ea"), Given::new("other", "d"), k(b"n\x02"), Given::new("", "eb")],
            vec![
                Out::of(0, "a"),
                Out::of(1, described(Kind::Data, 0, 1, "other")),
                Out::of(2, [0]),
                Out::of(2, [1]),
                Out::of(3, "b"),
            ],
        ),
        Case::new("each port leads elsewhere").gives(
            (0..PORTS as u8).map(|port| k([b'p', port, b'x'])).collect(),
            (0..PORTS)
                .map(|port| {
                    // That port's rule is the key of the cause; at the others the stage wrote none.
                    let key = if port == CAUSE_KEY_PORT { "k" } else { "" };
                    Out::of(port.into(), "x").port(port).key(key)
                })
                .collect(),
        ),
        Case::new("a stage may write a key").gives(
            vec![
                k(short(b'k', "own", b"x")),
                k(short(b'k', "", b"y")),
                k(short(b'k', "schlüssel", b"")),
            ],
            vec![Out::of(0, "x").key("own"), Out::of(1, "y"), Out::of(2, "").key("schlüssel")],
        ),
        Case::new("an event says what it is")
            .gives(
                vec![k("d"), Given::new("schlüssel", "d"), Given::new("", "d")],
                vec![
                    Out::of(0, described(Kind::Data, 0, 0, "k")),
                    Out::of(1, described(Kind::Data, 0, 1, "schlüssel")),
                    Out::of(2, described(Kind::Data, 0, 2, "")),
                ],
            )
            .gives(
                vec![Given::new(&"x".repeat(512), "d")],
                vec![Out::of(0, described(Kind::Data, 0, 0, &"x".repeat(512)))],
            ),
        Case::new("inputs are told apart").host_only().gives(
            vec![k("d").input(2), k("d").input(65_535)],
            vec![
                Out::of(0, described(Kind::Data, 2, 0, "k")),
                Out::of(1, described(Kind::Data, 65_535, 1, "k")),
            ],
        ),
        Case::new("the cause decides what is inherited").host_only().gives(
            vec![
                k("ea").field(field::TRACE_CONTEXT, b"trace of 0"),
                k(b"u\0\0\0\0b").field(field::TRACE_CONTEXT, b"trace of 1"),
                k(b"u\x01\0\0\0c"),
            ],
            vec![
                Out::of(0, "a").field(field::TRACE_CONTEXT, b"trace of 0"),
                Out::of(1, "b").field(field::TRACE_CONTEXT, b"trace of 0"),
                Out::of(2, "c").field(field::TRACE_CONTEXT, b"trace of 1"),
            ],
        ),
        Case::new("extension fields arrive and leave").gives(
            vec![typed(b"fown"), k("fown"), typed(b"f"), k("ex").field(40_001, b"not inherited")],
            vec![
                Out::of(0, "").field(40_000, b"own").field(field::CONTENT_TYPE, b"text/plain"),
                Out::of(1, "").field(40_000, b"own"),
                Out::of(2, "").field(40_000, b"").field(field::CONTENT_TYPE, b"text/plain"),
                Out::of(3, "x"),
            ],
        ),
        Case::new("a large event goes through whole")
            .gives(vec![k([b"e", &large[..]].concat())], vec![Out::of(0, large)]),
    ]
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn failing() -> Vec<Case> {
    let unknown = "unknown command";
    let malformed: [&[u8]; 12] = [
        b"",
        b"?",
        b"n",
        b"p",
        b"k",
        b"k\x09short",
        b"u\0\0\0",
        b"s",
        b"s\x05slo",
        b"a\x01x1234567",
        b"l",
        b"l\x04x",
    ];
    vec![
        Case::new("a rejected event is set aside, the others go on").step(
            vec![k("ea"), k("xnever"), k("eb")],
            Expected {
                outputs: vec![Out::of(0, "a"), Out::of(2, "b")],
                dead: vec![dead("xnever", "reject", "never")],
                ..Expected::default()
            },
        ),
        Case::new("a failure that may pass is tried again, and then set aside").step(
            vec![k("rlater"), k("ea")],
            Expected {
                outputs: vec![Out::of(1, "a")],
                dead: vec![dead("rlater", "retry", "later")],
                ..Expected::default()
            },
        ),
        Case::new("a message is any text").step(
            vec![k("x"), k("xschlüssel \"\n"), k([&b"x"[..], &[b'y'; 2_000]].concat())],
            Expected {
                dead: vec![
                    dead("x", "reject", ""),
                    dead("xschlüssel \"\n", "reject", "schlüssel \"\n"),
                    dead([&b"x"[..], &[b'y'; 2_000]].concat(), "reject", &"y".repeat(1_024)),
                ],
                ..Expected::default()
            },
        ),
        Case::new("what makes no sense is rejected").step(
            malformed.iter().map(k).collect(),
            Expected {
                dead: malformed.iter().map(|payload| dead(payload, "reject", unknown)).collect(),
                ..Expected::default()
            },
        ),
        Case::new("a trap costs the event it happened in")
            .step(
                vec![k("ea"), k("eb"), k("t"), k("ec"), k("ed")],
                Expected {
                    outputs: vec![
                        Out::of(0, "a"),
                        Out::of(1, "b"),
                        Out::of(3, "c"),
                        Out::of(4, "d"),
                    ],
                    dead: vec![dead("t", "trap", "")],
                    ..Expected::default()
                },
            )
            .gives(vec![k("ealive")], vec![Out::of(0, "alive")]),
        Case::new("a partition halts where the manifest says so")
            .with(|spec| spec.on_failure = OnFailure::Halt)
            .host_only()
            .step(
                vec![k("ea"), k("xno")],
                Expected {
                    halted: Some(Halt {
                        stage: "stage-0".to_owned(),
                        message: "reject: no".to_owned(),
                    }),
                    ..Expected::default()
                },
            ),
    ]
}

fn stating() -> Vec<Case> {
    let counter = "the slot holds 5 bytes, a counter has 8";
    let full = "the key's state would have 106 bytes, its limit is 100 (limits.state-bytes)";
    let entry = |slot: &str, value: &[u8]| {
        let lengths = ([slot.len() as u8], (value.len() as u32).to_le_bytes());
        [&lengths.0[..], slot.as_bytes(), &lengths.1, value].concat()
    };
    let scanned = [entry("a1", b"x"), entry("a2", b""), entry("ab", b"\0\xFF")].concat();
    vec![
        Case::new("slots are put, read and deleted")
            .gives(
                vec![k("gslot"), k(put("slot", b"value")), k("gslot"), k("Dslot"), k("Dslot")],
                [&b"\0"[..], b"\0", b"\x01value", b"\x01", b"\0"]
                    .into_iter()
                    .enumerate()
                    .map(|(at, payload)| Out::of(at as u64, payload))
                    .collect(),
            )
            .gives(vec![k("gslot")], vec![Out::of(0, [0])])
            .gives(vec![k(put("slot", b""))], vec![Out::of(0, [0])])
            .gives(vec![k("gslot")], vec![Out::of(0, [1])]),
        Case::new("state lasts from batch to batch, and is the key's own")
            .gives(vec![k(put("s", b"of k"))], vec![Out::of(0, [0])])
            .gives(
                vec![Given::new("other", "gs"), k("gs"), Given::new("", "gs")],
                vec![Out::of(0, [0]), Out::of(1, b"\x01of k"), Out::of(2, [0])],
            ),
        Case::new("counters add up and wrap around")
            .gives(
                vec![k(add("n", 5)), k(add("n", -7)), k(add("m", i64::MAX)), k(add("m", 1))],
                vec![
                    Out::of(0, sum(5)),
                    Out::of(1, sum(-2)),
                    Out::of(2, sum(i64::MAX)),
                    Out::of(3, sum(i64::MIN)),
                ],
            )
            .gives(vec![k("gn")], vec![Out::of(0, [&[1][..], &(-2_i64).to_le_bytes()].concat())])
            .gives(
                vec![k(put("word", b"words")), k(add("word", 1))],
                vec![Out::of(0, [0]), Out::of(1, refused(counter))],
            ),
        Case::new("slots are scanned in byte order")
            .gives(
                vec![
                    k(put("b", b"no")),
                    k(put("ab", b"\0\xFF")),
                    k(put("a2", b"")),
                    k(put("a1", b"x")),
                ],
                (0..4).map(|at| Out::of(at, [0])).collect(),
            )
            .gives(
                vec![k("Sa"), k("Sz"), Given::new("other", "S")],
                vec![Out::of(0, scanned), Out::of(1, ""), Out::of(2, "")],
            ),
        Case::new("a key's state is bounded").with(|spec| spec.limits.state_bytes = 100).gives(
            vec![k(put("slots", &[1; 90])), k(put("t", &[1; 10])), k("gt"), k("gslots")],
            vec![Out::of(0, [0]), Out::of(1, refused(full)), Out::of(2, [0]), Out::of(3, [1; 91])],
        ),
    ]
}

fn rolling_back() -> Vec<Case> {
    vec![
        Case::new("a write of a call that failed does not stand")
            .step(
                vec![k(add("n", 5)), k("xno"), k(add("n", 1))],
                Expected {
                    // Each of the two was made once, though the call was made again.
                    outputs: vec![Out::of(0, sum(5)), Out::of(2, sum(6))],
                    dead: vec![dead("xno", "reject", "no")],
                    ..Expected::default()
                },
            )
            .gives(vec![k(add("n", 0))], vec![Out::of(0, sum(6))]),
        Case::new("a write of a call that trapped does not stand")
            .step(
                vec![k(add("n", 5)), k(put("s", b"x")), k("t"), k(add("n", 1)), k("Ds")],
                Expected {
                    outputs: vec![
                        Out::of(0, sum(5)),
                        Out::of(1, [0]),
                        Out::of(3, sum(6)),
                        Out::of(4, [1]),
                    ],
                    dead: vec![dead("t", "trap", "")],
                    ..Expected::default()
                },
            )
            .gives(vec![k(add("n", 0)), k("gs")], vec![Out::of(0, sum(6)), Out::of(1, [0])]),
        Case::new("retries write once")
            .step(
                vec![k(add("n", 5)), k("rlater"), k(add("n", 1))],
                Expected {
                    outputs: vec![Out::of(0, sum(5)), Out::of(2, sum(6))],
                    dead: vec![dead("rlater", "retry", "later")],
                    ..Expected::default()
                },
            )
            .gives(vec![k(add("n", 0))], vec![Out::of(0, sum(6))]),
    ]
}

fn settings() -> Vec<Case> {
    let blob: Vec<u8> = (0..=255).cycle().take(1_000).collect();
    let asset = |bytes: &[u8]| {
        [&(bytes.len() as u64).to_le_bytes()[..], &bytes[..bytes.len().min(16)]].concat()
    };
    vec![
        Case::new("settings are read")
            .with(|spec| {
                let pairs = [("greeting", "hello"), ("empty", ""), ("umlaut", "schlüssel")];
                spec.config = pairs.map(|(name, value)| (name.into(), value.into())).into();
            })
            .gives(
                vec![k("cgreeting"), k("cempty"), k("cumlaut"), k("cnone"), k("c")],
                vec![
                    Out::of(0, "\u{1}hello"),
                    Out::of(1, [1]),
                    Out::of(2, "\u{1}schlüssel"),
                    Out::of(3, [0]),
                    Out::of(4, [0]),
                ],
            ),
        Case::new("assets are read")
            .with(|spec| {
                let pairs =
                    [("table", blob.clone()), ("short", b"abc".to_vec()), ("empty", vec![])];
                let asset = |(name, bytes): (&str, Vec<u8>)| (name.to_owned(), Bytes::from(bytes));
                spec.assets = pairs.into_iter().map(asset).collect::<BTreeMap<_, _>>();
            })
            .host_only()
            .gives(
                vec![k("Atable"), k("Ashort"), k("Aempty"), k("Anone"), k("A")],
                vec![Out::of(0, asset(&blob)), Out::of(1, asset(b"abc")), Out::of(2, asset(b""))],
            ),
        Case {
            steps: vec![
                Step::Clock { given: vec![k("w"), k("w")] },
                Step::Clock { given: vec![k("w")] },
            ],
            ..Case::new("the clock stands still within a batch").host_only()
        },
        // Large enough to lie over memory of the first batch, should the clock still use any.
        Case {
            steps: vec![
                Step::Clock { given: vec![k("w")] },
                Step::Clock { given: vec![k("w"), k([b'e'; 100_000])] },
            ],
            ..Case::new("the clock leaves what is given alone").host_only()
        },
    ]
}

fn saying() -> Vec<Case> {
    let line = |level, text: &str| LogLine { level, text: text.to_owned() };
    let levels = [LogLevel::Debug, LogLevel::Info, LogLevel::Warn, LogLevel::Error];
    let count = |name: &str, number| (name.to_owned(), Metric::Count(number));
    let long = "y".repeat(5_000);
    vec![
        Case::new("log lines have a level").step(
            (0..4_u8).map(|level| k(format!("l{}schlüssel {level}", char::from(level)))).collect(),
            Expected {
                lines: levels
                    .into_iter()
                    .enumerate()
                    .map(|(at, level)| line(level, &format!("schlüssel {at}")))
                    .collect(),
                ..Expected::default()
            },
        ),
        Case::new("log lines are bounded in length and number")
            .with(|spec| spec.limits.log_lines = 3)
            .step(
                vec![
                    k(format!("l\u{1}{long}")),
                    k("l\u{1}2"),
                    k("l\u{1}3"),
                    k("l\u{1}4"),
                    k("l\u{1}5"),
                ],
                Expected {
                    lines: vec![
                        line(LogLevel::Info, &long[..4_096]),
                        line(LogLevel::Info, "2"),
                        line(LogLevel::Info, "3"),
                    ],
                    lines_dropped: 2,
                    ..Expected::default()
                },
            )
            .step(
                vec![k("l\u{1}again")],
                Expected { lines: vec![line(LogLevel::Info, "again")], ..Expected::default() },
            ),
        Case::new("metrics add up, and bad names are dropped").step(
            vec![k("mseen"), k("mother_2"), k("mseen"), k("mNo"), k("m"), k("ex")],
            Expected {
                outputs: vec![Out::of(5, "x")],
                metrics: vec![count("other_2", 1), count("seen", 2)],
                metrics_dropped: 2,
                ..Expected::default()
            },
        ),
    ]
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn streams() -> Vec<Case> {
    let open = |at, key| Out::of(at, described(Kind::Open, 0, at, key));
    let end = |at, key| Out::of(at, described(Kind::End, 0, at, key));
    let stream = |spec: &mut Spec| {
        spec.scope = Scope::Stream;
        spec.stream.idle_timeout_ms = 5_000;
        spec.stream.events_max = 3;
    };
    // Ends are the only events that are not of a frame; their time is that of the clock.
    let idle_at = super::NOW + 2 * super::SECOND + 9 * super::SECOND - TIME;
    vec![
        Case::new("any kind but data describes itself").host_only().gives(
            vec![k("x").kind(Kind::Timer), k("").kind(Kind::Open), k("t").kind(Kind::End).input(1)],
            vec![
                Out::of(0, described(Kind::Timer, 0, 0, "k")),
                Out::of(1, described(Kind::Open, 0, 1, "k")),
                Out::of(2, described(Kind::End, 1, 2, "k")),
            ],
        ),
        Case::new("a stream opens with its first event and ends when told")
            .with(stream)
            .gives(vec![k("ea")], vec![open(0, "k"), Out::of(0, "a")])
            .gives(
                vec![k("eb"), k("").kind(Kind::End), k("ec")],
                vec![Out::of(0, "b"), end(1, "k"), open(2, "k"), Out::of(2, "c")],
            ),
        Case::new("a stream takes its state with it")
            .with(stream)
            .gives(vec![k(add("n", 5))], vec![open(0, "k"), Out::of(0, sum(5))])
            .gives(vec![k("").kind(Kind::End)], vec![end(0, "k")])
            .gives(vec![k("gn")], vec![open(0, "k"), Out::of(0, [0])]),
        Case::new("a stream ends at its limit").with(stream).gives(
            vec![k("ea"), k("eb"), k("ec"), k("ed")],
            vec![
                open(0, "k"),
                Out::of(0, "a"),
                Out::of(1, "b"),
                Out::of(2, "c"),
                end(2, "k"),
                open(3, "k"),
                Out::of(3, "d"),
            ],
        ),
        Case {
            steps: vec![
                Step::Handle {
                    given: vec![k("ea")],
                    expected: Expected {
                        outputs: vec![open(0, "k"), Out::of(0, "a")],
                        ..Expected::default()
                    },
                },
                Step::Ends { after: 0, expected: Expected::default() },
                Step::Ends {
                    after: 9 * super::SECOND,
                    expected: Expected {
                        outputs: vec![Out::of(idle_at, described(Kind::End, 0, idle_at, "k"))],
                        ..Expected::default()
                    },
                },
            ],
            ..Case::new("a silent stream ends by itself").with(stream).host_only()
        },
        Case::new("streams of different keys do not mix").with(stream).gives(
            vec![Given::new("a", "e1"), Given::new("b", "e2"), Given::new("a", "e3")],
            vec![open(0, "a"), Out::of(0, "1"), Out::of(2, "3"), open(1, "b"), Out::of(1, "2")],
        ),
        Case::new("a trap ends a stream, and the next event opens another")
            .with(stream)
            .gives(vec![k("ea")], vec![open(0, "k"), Out::of(0, "a")])
            .step(
                vec![k("t")],
                Expected { dead: vec![dead("t", "stream.lost", "")], ..Expected::default() },
            )
            .gives(vec![k("eb")], vec![open(0, "k"), Out::of(0, "b")]),
        Case::new("an instance of a key serves that key")
            .with(|spec| spec.scope = Scope::Key)
            .gives(
                vec![Given::new("a", "e1"), Given::new("b", "e2"), Given::new("a", "e3")],
                vec![Out::of(0, "1"), Out::of(2, "3"), Out::of(1, "2")],
            ),
    ]
}

/// A command that sets a timer, for so long after [`TIME`].
fn timer(clock: u8, at: u64, name: &str) -> Vec<u8> {
    [&[b'T', clock][..], &(TIME + at).to_le_bytes(), name.as_bytes()].concat()
}

fn timing() -> Vec<Case> {
    // What the wall clock shows in the first step.
    let now = super::NOW - TIME;
    let set = || vec![0_u8];
    let far = [&[b'T', 0][..], &(1_u64 << 53).to_le_bytes(), b"n"].concat();
    let far_refused = refused(&format!("the time of a timer is below 2^53, not {}", 1_u64 << 53));
    let long = refused("the name of a timer has at most 64 bytes");
    vec![
        Case::new("timers fire by their clock, in order, once")
            .gives(
                vec![
                    k(timer(0, 30, "b")),
                    k(timer(0, 20, "a")),
                    k(timer(1, now + 5 * super::SECOND, "w")),
                    k("W"),
                ],
                vec![
                    Out::of(0, set()),
                    Out::of(1, set()),
                    Out::of(2, set()),
                    Out::of(3, 0_u64.to_le_bytes()),
                ],
            )
            .fires(19, 0, &[])
            .fires(30, 0, &[20, 30])
            .gives(vec![k("W")], vec![Out::of(0, (TIME + 30).to_le_bytes())])
            .fires(30, 5 * super::SECOND, &[now + 5 * super::SECOND])
            .fires(99, 9 * super::SECOND, &[]),
        Case::new("a timer is replaced and cancelled by its name")
            .gives(
                vec![k(timer(0, 10, "t")), k(timer(0, 20, "t")), k("Cnone"), k(timer(0, 5, "u"))],
                vec![Out::of(0, set()), Out::of(1, set()), Out::of(2, [0]), Out::of(3, set())],
            )
            .gives(vec![k("Cu"), k("Cu")], vec![Out::of(0, [1]), Out::of(1, [0])])
            .fires(15, 0, &[])
            .fires(20, 0, &[20]),
        Case::new("timers of an event that fails are as they were")
            .gives(vec![k(timer(0, 10, "kept"))], vec![Out::of(0, set())])
            .step(
                vec![k("Ckept"), k(timer(0, 11, "new")), k("xno")],
                Expected {
                    outputs: vec![Out::of(0, [1]), Out::of(1, set())],
                    dead: vec![dead("xno", "reject", "no")],
                    ..Expected::default()
                },
            )
            .fires(20, 0, &[11]),
        Case::new("a timer out of range is refused")
            .gives(
                vec![k(far), k(timer(1, 0, &"n".repeat(65)))],
                vec![Out::of(0, far_refused), Out::of(1, long)],
            )
            .fires(99, 0, &[]),
    ]
}

fn bounds() -> Vec<Case> {
    let trap = |name, payload: &[u8], message: &str| {
        Case::new(name)
            .step(
                vec![k("ebefore"), k(payload), k("ebehind")],
                Expected {
                    outputs: vec![Out::of(0, "before"), Out::of(2, "behind")],
                    dead: vec![dead(payload, "trap", message)],
                    ..Expected::default()
                },
            )
            .gives(vec![k("ealive")], vec![Out::of(0, "alive")])
    };
    let large = [&b"e"[..], &[b'x'; 3_000]].concat();
    vec![
        trap(
            "a cause that does not exist is a trap",
            b"u\x07\0\0\0x",
            "names event 7 as its cause",
        ),
        trap("a port that is not declared is a trap", b"p\x09x", "port 9"),
        trap("too much emitted is a trap", &large, "(limits.emit-bytes)")
            .with(|spec| spec.limits.emit_bytes = 1_500),
        trap("too large an event is a trap", &large, "larger than the 2048 bytes")
            .with(|spec| spec.limits.event_bytes = 2_048)
            .host_only(),
    ]
}
