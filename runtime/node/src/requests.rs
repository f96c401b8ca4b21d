//! Clients that wait for a result: a bounded table of slots, each answered once.
//!
//! - A [`RequestId`] is given out once in the life of a node: its upper part is the slot's
//!   generation, which grows with every use; a slot whose generations are used up is retired. So an
//!   event that outlives its request finds nobody, never somebody else.
//! - The first answer wins. Later ones, and ids that are not known, are ignored.
//! - Who only wants to know whether everything was handled ([`Following`]) is never answered.
//! - Each is of one pipeline, where that can have partitions on other nodes: these say of it what
//!   became of its own requests, and of no others.
//! - A request is done without an answer when its number of live descendants is zero. The number
//!   starts with [`Waiting::arm`] and follows [`Requests::adjust`]; before `arm` it may be
//!   anything.
//!
//! What the callers owe: a commit reports its answers first, then its `adjust`, and both before the
//! runs it sent can be read by anyone; otherwise a child could bring the number to zero while its
//! parent's is not yet counted.
//!
//! Slots are spread over stripes, chosen by thread, so that workers do not wait for each other. A
//! lock is held for a few instructions and never while anybody is woken.

mod costs;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use sluicebox_core::frame::{Event, Frame};
use sluicebox_core::ids::{PipelineId, RequestId};

use costs::Asking;
pub(crate) use costs::{Costs, Shares, text as cost_text};

/// Stripes of the table; more than the threads that commonly register at once need.
const STRIPES: usize = 16;
/// Lower bits of an id: stripe and index within the stripe.
const SHARD_BITS: u32 = 4;
const INDEX_BITS: u32 = 16;
/// 44 bits: at 100,000 requests a second through one slot, five years.
const GENERATION_MAX: u64 = u64::MAX >> (SHARD_BITS + INDEX_BITS);

/// The table of waiting clients.
#[derive(Debug)]
pub struct Requests {
    stripes: [Arc<Stripe>; STRIPES],
    /// Who wants to know what its event costs.
    asking: Arc<Asking>,
}

#[derive(Debug)]
struct Stripe {
    number: u64,
    slots_max: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    slots: Vec<Slot>,
    free: Vec<u16>,
}

#[derive(Debug)]
struct Slot {
    /// Of the current use, or of the last one if nobody waits here.
    generation: u64,
    /// The pipeline it waits for, if that has a number.
    of: Option<PipelineId>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nobody waits here.
    Free,
    Waiting {
        live: i64,
        armed: bool,
        /// Outputs are answers.
        answers: bool,
        waker: Option<Waker>,
    },
    Replied(Reply),
}

/// What became of a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// An event that left by the output `reply`.
    Output(Answer),
    /// Nothing will come: the event and all that followed from it have been handled.
    Done,
}

/// One event of a frame that other readers may share.
#[derive(Debug, Clone)]
pub struct Answer {
    frame: Frame,
    start: u32,
}

impl Answer {
    /// The event.
    #[must_use]
    pub fn event(&self) -> Event<'_> {
        self.frame.event_at(self.start)
    }

    /// The event's payload, sharing the frame's memory.
    #[must_use]
    pub fn payload(&self) -> Bytes {
        self.frame.bytes().slice_ref(self.event().payload)
    }
}

impl Requests {
    /// A table for at most about `waiting_max` clients at a time, at least one a stripe.
    #[must_use]
    pub fn new(waiting_max: usize) -> Self {
        let slots_max = waiting_max.div_ceil(STRIPES).clamp(1, 1 << INDEX_BITS);
        let stripe =
            |number| Arc::new(Stripe { number: number as u64, slots_max, table: Mutex::default() });
        Self { stripes: std::array::from_fn(stripe), asking: Arc::default() }
    }

    /// A place to wait for something of a pipeline; `None` if the table is full.
    #[must_use]
    pub fn register(&self, of: Option<PipelineId>) -> Option<Waiting> {
        self.take_place(of, true)
    }

    /// A place to learn when everything that follows was handled, whatever comes of it; `None` if
    /// the table is full.
    #[must_use]
    pub fn follow(&self, of: Option<PipelineId>) -> Option<Following> {
        self.take_place(of, false).map(Following)
    }

    /// True if any client wants to know what its event costs.
    pub(crate) fn is_any_asking(&self) -> bool {
        self.asking.is_any()
    }

    /// Whose events a call has, of `among` in all; `None` if nobody of them asks.
    pub(crate) fn shares(&self, mut of: BTreeMap<RequestId, u64>, among: u64) -> Option<Shares> {
        if of.is_empty() {
            // Whoever asks waits for something else.
            return None;
        }
        self.asking.of(&mut of);
        (!of.is_empty()).then_some(Shares { of, among })
    }

    /// Tells those what a call of a stage cost.
    pub(crate) fn charge(&self, stage: &str, shares: &Shares, cost: (u64, Duration)) {
        self.asking.charge(stage, shares, cost);
    }

    /// The pipeline that somebody waits for, if it has a number and somebody does.
    pub(crate) fn pipeline_of(&self, id: RequestId) -> Option<PipelineId> {
        let table = self.stripe(id).lock();
        let slot = table.slots.get(index_of(id))?;
        slot.of.filter(|_| slot.generation == generation_of(id))
    }

    fn take_place(&self, of: Option<PipelineId>, answers: bool) -> Option<Waiting> {
        let home = home_stripe();
        // A full stripe sends its threads to the others, so that the bound is that of the table.
        (0..STRIPES).find_map(|step| {
            let stripe = &self.stripes[(home + step) % STRIPES];
            let id = stripe.take_slot(of, answers)?;
            Some(Waiting { id, stripe: Arc::clone(stripe), asking: None })
        })
    }

    /// Adds to the number of live descendants of a request. At zero its client is told that
    /// nothing will come.
    pub fn adjust(&self, id: RequestId, delta: i64) {
        let woken = self.stripe(id).with_waiting(id, |state| {
            let State::Waiting { live, answers, waker, .. } = state else { return None };
            *live = live.saturating_add(delta);
            if !*answers {
                return if *live <= 0 { waker.take() } else { None };
            }
            finish_if_done(state)
        });
        wake(woken);
    }

    /// Answers a request with the event that begins at `start` of `frame` (an offset of
    /// [`Frame::index_into`]).
    pub fn answer(&self, id: RequestId, frame: &Frame, start: u32) {
        let woken = self.stripe(id).with_waiting(id, |state| {
            let State::Waiting { answers: true, .. } = state else { return None };
            let reply = Reply::Output(Answer { frame: frame.clone(), start });
            take_waker(std::mem::replace(state, State::Replied(reply)))
        });
        wake(woken);
    }

    /// Clients that have a place now, answered ones that have not left included.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let taken = |slot: &&Slot| !matches!(slot.state, State::Free);
        self.stripes.iter().map(|stripe| stripe.lock().slots.iter().filter(taken).count()).sum()
    }

    fn stripe(&self, id: RequestId) -> &Stripe {
        &self.stripes[(id.0 >> INDEX_BITS) as usize % STRIPES]
    }
}

impl Stripe {
    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing can panic between two consistent states of the table.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_slot(&self, of: Option<PipelineId>, answers: bool) -> Option<RequestId> {
        let mut table = self.lock();
        let index = match table.free.pop() {
            Some(index) => index,
            None if table.slots.len() < self.slots_max => {
                table.slots.push(Slot { generation: 0, of, state: State::Free });
                (table.slots.len() - 1) as u16
            }
            None => return None,
        };
        let slot = &mut table.slots[usize::from(index)];
        slot.generation += 1;
        slot.of = of;
        slot.state = State::Waiting { live: 0, armed: false, answers, waker: None };
        let place = self.number << INDEX_BITS | u64::from(index);
        Some(RequestId(slot.generation << (SHARD_BITS + INDEX_BITS) | place))
    }

    /// Gives `change` the state of the request, if it still waits.
    fn with_waiting(
        &self,
        id: RequestId,
        change: impl FnOnce(&mut State) -> Option<Waker>,
    ) -> Option<Waker> {
        let mut table = self.lock();
        let slot = table.slots.get_mut(index_of(id))?;
        let current = slot.generation == generation_of(id);
        if current && matches!(slot.state, State::Waiting { .. }) {
            change(&mut slot.state)
        } else {
            None
        }
    }

    fn free_slot(&self, id: RequestId) {
        let mut table = self.lock();
        let index = index_of(id);
        let Some(slot) = table.slots.get_mut(index) else { return };
        // The answer may be the last user of a frame: it is freed behind the lock.
        let left = std::mem::replace(&mut slot.state, State::Free);
        if slot.generation < GENERATION_MAX {
            table.free.push(index as u16);
        }
        drop(table);
        drop(left);
    }
}

/// A client's place in the table. Dropping it gives the place back.
#[derive(Debug)]
pub struct Waiting {
    /// What the request's event carries in its field `request`.
    pub id: RequestId,
    stripe: Arc<Stripe>,
    /// It wants to know what its event costs.
    asking: Option<Arc<Asking>>,
}

impl Waiting {
    /// From now on it is counted what its event costs. Before the event is handed in.
    pub(crate) fn ask(&mut self, requests: &Requests) {
        requests.asking.begin(self.id);
        self.asking = Some(requests.asking.clone());
    }

    /// What it cost so far, if that was asked; it is not counted any more.
    pub(crate) fn costs(&mut self) -> Option<Costs> {
        self.asking.take().map(|asking| asking.end(self.id))
    }

    /// Adds the events the request begins with; from now on zero live descendants end it. To be
    /// called before or after the events are submitted.
    pub fn arm(&self, events: i64) {
        let woken = self.stripe.with_waiting(self.id, |state| {
            let State::Waiting { live, armed, .. } = state else { return None };
            *live = live.saturating_add(events);
            *armed = true;
            finish_if_done(state)
        });
        wake(woken);
    }

    /// The reply, if it is there.
    #[must_use]
    pub fn now(&self) -> Option<Reply> {
        self.poll_reply(None)
    }

    /// Waits for the reply. Cancelling loses nothing.
    pub async fn result(&mut self) -> Reply {
        poll_fn(|context| match self.poll_reply(Some(context.waker())) {
            Some(reply) => Poll::Ready(reply),
            None => Poll::Pending,
        })
        .await
    }

    fn poll_reply(&self, caller: Option<&Waker>) -> Option<Reply> {
        let mut table = self.stripe.lock();
        match &mut table.slots.get_mut(index_of(self.id))?.state {
            State::Replied(reply) => Some(reply.clone()),
            State::Waiting { waker, .. } => {
                if let Some(caller) = caller {
                    match waker {
                        Some(kept) => kept.clone_from(caller),
                        None => *waker = Some(caller.clone()),
                    }
                }
                None
            }
            // Only `drop` frees the slot, so this cannot be; "nothing will come" is true of it.
            State::Free => Some(Reply::Done),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        drop(self.costs());
        self.stripe.free_slot(self.id);
    }
}

/// A place that counts what follows from all that is added to it, as often as anything is. One at a
/// time may wait.
#[derive(Debug)]
pub struct Following(Waiting);

impl Following {
    /// What its events carry in their field `request`.
    #[must_use]
    pub const fn id(&self) -> RequestId {
        self.0.id
    }

    /// Adds events, before they are handed in, or takes back some that were not.
    pub fn add(&self, events: i64) {
        let woken = self.0.stripe.with_waiting(self.0.id, |state| {
            let State::Waiting { live, waker, .. } = state else { return None };
            *live = live.saturating_add(events);
            if *live <= 0 { waker.take() } else { None }
        });
        wake(woken);
    }

    /// True if everything was handled.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.look(None)
    }

    /// Waits until everything was handled. Cancelling loses nothing.
    pub async fn done(&self) {
        poll_fn(|context| match self.look(Some(context.waker())) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    fn look(&self, caller: Option<&Waker>) -> bool {
        let mut table = self.0.stripe.lock();
        let slot = table.slots.get_mut(index_of(self.0.id));
        match slot.map(|slot| &mut slot.state) {
            Some(State::Waiting { live, waker, .. }) if *live > 0 => {
                *waker = caller.cloned().or_else(|| waker.take());
                false
            }
            _ => true,
        }
    }
}

fn finish_if_done(state: &mut State) -> Option<Waker> {
    match state {
        State::Waiting { live, armed: true, .. } if *live <= 0 => {
            take_waker(std::mem::replace(state, State::Replied(Reply::Done)))
        }
        _ => None,
    }
}

fn take_waker(state: State) -> Option<Waker> {
    match state {
        State::Waiting { waker, .. } => waker,
        State::Free | State::Replied(_) => None,
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

const fn index_of(id: RequestId) -> usize {
    (id.0 & ((1 << INDEX_BITS) - 1)) as usize
}

const fn generation_of(id: RequestId) -> u64 {
    id.0 >> (SHARD_BITS + INDEX_BITS)
}

/// The stripe the calling thread tries first; threads take turns.
fn home_stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static HOME: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    HOME.with(|home| {
        if home.get() == usize::MAX {
            home.set(NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES);
        }
        home.get()
    })
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::atomic::AtomicU64;
    use std::task::{Context, Wake};

    use sluicebox_core::frame::{FrameBuilder, Head};

    use super::*;

    fn frame(payloads: &[&[u8]]) -> (Frame, Vec<u32>) {
        let mut builder = FrameBuilder::new();
        payloads.iter().for_each(|p| builder.push(&Head::data(1), b"k", p, &[]));
        let frame = builder.finish();
        let mut starts = Vec::new();
        frame.index_into(&mut starts);
        (frame, starts)
    }

    #[derive(Default)]
    struct Count(AtomicU64);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Polls `result` once, and gives the wakes that follow with it.
    fn poll_once(waiting: &mut Waiting, wakes: &Arc<Count>) -> Option<Reply> {
        let waker = Waker::from(Arc::clone(wakes));
        match pin!(waiting.result()).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(reply) => Some(reply),
            Poll::Pending => None,
        }
    }

    #[test]
    fn the_first_answer_wins_and_wakes_its_client() {
        let requests = Requests::new(16);
        let mut waiting = requests.register(None).expect("room");
        waiting.arm(1);
        let wakes = Arc::default();
        assert!(poll_once(&mut waiting, &wakes).is_none());
        let (frame, starts) = frame(&[b"first", b"second"]);
        requests.answer(waiting.id, &frame, starts[0]);
        requests.answer(waiting.id, &frame, starts[1]);
        requests.adjust(waiting.id, -1);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        let Some(Reply::Output(answer)) = poll_once(&mut waiting, &wakes) else {
            panic!("no answer");
        };
        assert_eq!(answer.event().payload, b"first");
    }

    #[test]
    fn zero_live_descendants_end_the_request_without_an_answer() {
        let requests = Requests::new(16);
        let mut waiting = requests.register(None).expect("room");
        waiting.arm(1);
        let wakes = Arc::default();
        assert!(poll_once(&mut waiting, &wakes).is_none());
        requests.adjust(waiting.id, 2 - 1);
        requests.adjust(waiting.id, -1);
        assert!(poll_once(&mut waiting, &wakes).is_none());
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
        requests.adjust(waiting.id, -1);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert!(matches!(poll_once(&mut waiting, &wakes), Some(Reply::Done)));
    }

    #[test]
    fn who_follows_is_told_when_all_is_handled_and_never_answered() {
        let requests = Requests::new(16);
        let following = requests.follow(None).expect("room");
        assert!(following.is_done());
        following.add(2);
        let (frame, starts) = frame(&[b"an output"]);
        requests.answer(following.id(), &frame, starts[0]);
        let wakes = Arc::<Count>::default();
        let waker = Waker::from(Arc::clone(&wakes));
        let mut done = pin!(following.done());
        assert!(done.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        requests.adjust(following.id(), 1 - 1);
        requests.adjust(following.id(), -1);
        assert!(!following.is_done());
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
        requests.adjust(following.id(), -1);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert!(done.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
        // It goes on with what is added later.
        following.add(1);
        assert!(!following.is_done());
        following.add(-1);
        assert!(following.is_done());
    }

    #[test]
    fn work_done_before_the_request_is_armed_counts() {
        let requests = Requests::new(16);
        let waiting = requests.register(None).expect("room");
        requests.adjust(waiting.id, -1);
        assert!(waiting.now().is_none());
        waiting.arm(1);
        assert!(matches!(waiting.now(), Some(Reply::Done)));
    }

    #[test]
    fn an_id_is_never_given_twice_and_a_stale_one_finds_nobody() {
        let requests = Requests::new(1);
        let mut seen = std::collections::BTreeSet::new();
        let (frame, starts) = frame(&[b"late"]);
        let mut stale = None;
        for _ in 0..100 {
            let waiting = requests.register(None).expect("room");
            assert!(waiting.id.0 != 0 && seen.insert(waiting.id));
            waiting.arm(1);
            if let Some(old) = stale.replace(waiting.id) {
                requests.answer(old, &frame, starts[0]);
                requests.adjust(old, -1);
                assert!(waiting.now().is_none(), "answered through an old id");
            }
        }
        for foreign in [0, 1, u64::MAX, 12 << 20 | 5] {
            requests.answer(RequestId(foreign), &frame, starts[0]);
            requests.adjust(RequestId(foreign), -1);
        }
        assert_eq!(requests.waiting(), 0);
    }

    #[test]
    fn a_full_table_refuses_and_a_dropped_place_is_used_again() {
        let requests = Requests::new(STRIPES);
        let mut held: Vec<_> =
            (0..STRIPES).map(|_| requests.register(None).expect("room")).collect();
        assert!(requests.register(None).is_none());
        assert_eq!(requests.waiting(), STRIPES);
        held.pop();
        assert!(requests.register(None).is_some());
    }

    #[test]
    fn a_client_that_leaves_frees_its_answer() {
        let requests = Requests::new(16);
        let waiting = requests.register(None).expect("room");
        let (frame, starts) = frame(&[b"x"]);
        requests.answer(waiting.id, &frame, starts[0]);
        drop(waiting);
        assert!(frame.bytes().is_unique(), "the table kept the frame");
    }

    #[test]
    fn a_slot_whose_generations_are_used_up_is_retired() {
        let requests = Requests::new(STRIPES);
        let waiting = requests.register(None).expect("room");
        let stripe = Arc::clone(&waiting.stripe);
        drop(waiting);
        stripe.lock().slots[0].generation = GENERATION_MAX - 1;
        let mut held: Vec<_> = std::iter::from_fn(|| requests.register(None)).collect();
        assert_eq!(held.len(), STRIPES);
        held.clear();
        assert_eq!(requests.waiting(), 0);
        let held: Vec<_> =
            std::iter::repeat_with(|| requests.register(None)).take(STRIPES).collect();
        assert_eq!(held.iter().flatten().count(), STRIPES - 1);
    }

    #[test]
    fn answers_from_another_thread_arrive() {
        let requests = Arc::new(Requests::new(64));
        let (frame, starts) = frame(&[b"x"]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        runtime.block_on(async {
            for _ in 0..200 {
                let mut waiting = requests.register(None).expect("room");
                waiting.arm(1);
                let (requests, frame, start) = (Arc::clone(&requests), frame.clone(), starts[0]);
                let id = waiting.id;
                let other = std::thread::spawn(move || requests.answer(id, &frame, start));
                assert!(matches!(waiting.result().await, Reply::Output(_)));
                other.join().expect("no panic");
            }
        });
    }
}
