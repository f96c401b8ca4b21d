//! What was used on a node, tenant by tenant.
//!
//! - An account is bounded: in spans by the calendar, in pipelines by [`PIPELINES_MAX`], in stages
//!   by [`STAGES_MAX`], in all by [`LINES_MAX`]. What there is too many of goes into the level
//!   above, that first which was used longest ago: sums stay what they were. A pipeline goes only
//!   if it was not used on the newest day: of too many that are in use the last ones have no lines
//!   of their own, rather than that all take turns.
//! - The whole account goes over to longer spans at once, when its newest hour is of a new day.
//! - Names are those of pipelines and stages: one that is made again goes on in its line.
//! - Each account knows up to where in the log it was kept. What is said again of before is not
//!   added: a checkpoint that did not stand may have kept it.

use std::collections::{BTreeMap, BTreeSet};

use super::calendar::{HOUR_END, Span};
use super::{HOUR_MICROS, Used};
use crate::ids::Name;

/// Most pipelines of an account.
pub(super) const PIPELINES_MAX: usize = 1024;
/// Most stages of a pipeline in it.
pub(super) const STAGES_MAX: usize = 256;
/// Most lines of an account, so that it stays far below what the store takes as one entry: names
/// and amounts of a line have at most some 300 bytes.
pub(super) const LINES_MAX: usize = 50_000;
/// What is left of them when room was made.
const LINES_LEFT: usize = LINES_MAX / 4 * 3;

/// Whose something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Whose<'a> {
    /// The tenant.
    pub tenant: &'a Name,
    /// The pipeline, if it is of one.
    pub pipeline: Option<&'a Name>,
    /// The stage of that, if it is of one.
    pub stage: Option<&'a Name>,
}

/// A line of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// The pipeline; `None` for what is the tenant's own.
    pub pipeline: Option<&'a Name>,
    /// The stage; `None` for what is the pipeline's own.
    pub stage: Option<&'a Name>,
    /// When.
    pub span: Span,
    /// How much.
    pub used: &'a Used,
}

/// By the time.
pub(super) type Book = BTreeMap<Span, Used>;

/// What one pipeline used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pipeline {
    pub own: Book,
    pub stages: BTreeMap<Name, Book>,
}

/// What one tenant used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Account {
    pub own: Book,
    pub pipelines: BTreeMap<Name, Pipeline>,
    /// The newest hour of all.
    pub newest: u32,
    /// Everything in the log before this is in it.
    pub kept_to: u64,
    /// How many lines it has.
    pub lines: usize,
    /// A day on which all of its pipelines were used, of which there are as many as may be. It is
    /// what looking through them comes to, so that nobody has to each time.
    pub full_on: Option<u32>,
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Books {
    pub(super) accounts: BTreeMap<Name, Account>,
    /// Accounts that have changed since they were kept.
    pub(super) changed: BTreeSet<Name>,
}

impl Books {
    /// Books with nothing in them.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what somebody used, as the log says it at `position`; `time` is in microseconds since
    /// 1970.
    pub fn used(&mut self, whose: Whose<'_>, (time, position): (u64, u64), used: &Used) {
        if used.is_nothing() {
            return;
        }
        let account = match self.accounts.get_mut(whose.tenant) {
            Some(account) => account,
            None => self.accounts.entry(whose.tenant.clone()).or_default(),
        };
        if position < account.kept_to {
            return;
        }
        account.used(whose, hour_of(time), used);
        if !self.changed.contains(whose.tenant) {
            self.changed.insert(whose.tenant.clone());
        }
    }

    /// Books with the account of one tenant alone.
    #[must_use]
    pub fn only(&self, tenant: &Name) -> Self {
        let account = self.accounts.get(tenant).cloned();
        let accounts = account.into_iter().map(|account| (tenant.clone(), account)).collect();
        Self { accounts, changed: BTreeSet::new() }
    }

    /// Everything of a tenant, pipeline by pipeline, stage by stage, in the order of time.
    pub fn lines(&self, tenant: &Name) -> impl Iterator<Item = Line<'_>> {
        self.accounts.get(tenant).into_iter().flat_map(Account::lines)
    }
}

/// The hour a time is in. Times beyond all calendars are of the last one.
fn hour_of(time: u64) -> u32 {
    u32::try_from(time / HOUR_MICROS).unwrap_or(HOUR_END).min(HOUR_END - 1)
}

impl Account {
    fn used(&mut self, whose: Whose<'_>, hour: u32, used: &Used) {
        if hour / 24 > self.newest / 24 {
            self.newest = hour;
            self.roll();
        }
        self.newest = self.newest.max(hour);
        // A clock that was ahead must not make what comes after it nobody's.
        let span = Span::kept(hour, self.newest).unwrap_or_else(|| Span::oldest(self.newest));
        let (is_merged, book) = match (whose.pipeline, whose.stage) {
            (None, _) => (false, &mut self.own),
            (Some(name), _) if self.is_full_for(name) => (false, &mut self.own),
            (Some(name), stage) => {
                let is_merged = self.admit(name);
                let pipeline = self.pipelines.entry(name.clone()).or_default();
                (pipeline.admit(stage) || is_merged, pipeline.book(stage))
            }
        };
        let is_new = !book.contains_key(&span);
        book.entry(span).or_default().add(used);
        self.lines = if is_merged { self.count() } else { self.lines + usize::from(is_new) };
        if self.lines > LINES_MAX {
            self.make_room();
        }
    }

    /// A pipeline is new, there are too many, and all of them were used on the newest day.
    fn is_full_for(&mut self, name: &Name) -> bool {
        if self.pipelines.len() < PIPELINES_MAX || self.pipelines.contains_key(name) {
            return false;
        }
        let today = self.newest / 24;
        let is_of_today = |pipeline: &Pipeline| pipeline.last().is_some_and(|at| at / 24 >= today);
        if self.full_on != Some(today) && self.pipelines.values().all(is_of_today) {
            self.full_on = Some(today);
        }
        self.full_on == Some(today)
    }

    /// If a pipeline is new and there are too many, another one makes room. Whether one did.
    fn admit(&mut self, name: &Name) -> bool {
        if self.pipelines.contains_key(name) {
            return false;
        }
        self.full_on = None;
        let is_full = self.pipelines.len() >= PIPELINES_MAX;
        if is_full {
            self.merge_oldest();
        }
        is_full
    }

    fn merge_oldest(&mut self) {
        let last = |(_, pipeline): &(&Name, &Pipeline)| pipeline.last();
        let oldest = self.pipelines.iter().min_by_key(last).map(|(name, _)| name.clone());
        if let Some(gone) = oldest.and_then(|name| self.pipelines.remove(&name)) {
            gone.books().for_each(|book| merge(&mut self.own, book));
        }
    }

    pub(super) fn count(&self) -> usize {
        self.own.len() + self.pipelines.values().map(Pipeline::count).sum::<usize>()
    }

    /// Stages go into their pipelines, then pipelines into the account.
    fn make_room(&mut self) {
        let age = |(name, pipeline): (&Name, &Pipeline)| (pipeline.last(), name.clone());
        let mut oldest: Vec<_> = self.pipelines.iter().map(age).collect();
        oldest.sort();
        for (_, name) in &oldest {
            if self.lines <= LINES_LEFT {
                return;
            }
            let Some(pipeline) = self.pipelines.get_mut(name) else { continue };
            let before = pipeline.count();
            for book in std::mem::take(&mut pipeline.stages).values() {
                merge(&mut pipeline.own, book);
            }
            self.lines = self.lines - before + pipeline.count();
        }
        while self.lines > LINES_LEFT && !self.pipelines.is_empty() {
            self.merge_oldest();
            self.lines = self.count();
        }
    }

    /// What is of another day than the newest hour goes into the spans it is kept in from now on.
    fn roll(&mut self) {
        let newest = self.newest;
        roll(&mut self.own, newest);
        for pipeline in self.pipelines.values_mut() {
            roll(&mut pipeline.own, newest);
            pipeline.stages.values_mut().for_each(|book| roll(book, newest));
            pipeline.stages.retain(|_, book| !book.is_empty());
        }
        self.pipelines.retain(|_, pipeline| pipeline.books().any(|book| !book.is_empty()));
        self.lines = self.count();
    }

    fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let own = lines_of(&self.own, None, None);
        own.chain(self.pipelines.iter().flat_map(|(name, pipeline)| {
            let stages = pipeline.stages.iter();
            lines_of(&pipeline.own, Some(name), None).chain(
                stages.flat_map(move |(stage, book)| lines_of(book, Some(name), Some(stage))),
            )
        }))
    }
}

fn lines_of<'a>(
    book: &'a Book,
    pipeline: Option<&'a Name>,
    stage: Option<&'a Name>,
) -> impl Iterator<Item = Line<'a>> {
    book.iter().map(move |(span, used)| Line { pipeline, stage, span: *span, used })
}

impl Pipeline {
    /// If a stage is new and there are too many, another one makes room. Whether one did.
    fn admit(&mut self, stage: Option<&Name>) -> bool {
        let is_new = stage.is_some_and(|stage| !self.stages.contains_key(stage));
        let is_full = is_new && self.stages.len() >= STAGES_MAX;
        if is_full {
            let oldest = self.stages.iter().min_by_key(|(_, book)| last_of(book));
            let oldest = oldest.map(|(name, _)| name.clone());
            if let Some(gone) = oldest.and_then(|name| self.stages.remove(&name)) {
                merge(&mut self.own, &gone);
            }
        }
        is_full
    }

    fn book(&mut self, stage: Option<&Name>) -> &mut Book {
        match stage {
            Some(stage) => self.stages.entry(stage.clone()).or_default(),
            None => &mut self.own,
        }
    }

    fn count(&self) -> usize {
        self.books().map(Book::len).sum()
    }

    fn books(&self) -> impl Iterator<Item = &Book> {
        self.stages.values().chain([&self.own])
    }

    /// When it was used last.
    fn last(&self) -> Option<u32> {
        self.books().filter_map(last_of).max()
    }
}

fn last_of(book: &Book) -> Option<u32> {
    book.keys().map(|span| span.hours().start).max()
}

fn merge(into: &mut Book, from: &Book) {
    for (span, used) in from {
        into.entry(*span).or_default().add(used);
    }
}

fn roll(book: &mut Book, newest: u32) {
    let moves = |span: &Span| Span::kept(span.hours().start, newest) != Some(*span);
    let moved: Vec<(Span, Used)> = book.extract_if(.., |span, _| moves(span)).collect();
    for (span, used) in moved {
        if let Some(span) = Span::kept(span.hours().start, newest) {
            book.entry(span).or_default().add(&used);
        }
    }
}
