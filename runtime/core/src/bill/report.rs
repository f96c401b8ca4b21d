//! A bill for a period: lines of an account put together as somebody wants to see them.
//!
//! A line belongs to the period that has its beginning, whole: periods that follow one another have
//! each line once, however it is kept. What a row costs is the sum of what its lines cost.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Line, Money, Prices, Span, Used};
use crate::ids::Name;

/// How far times are told apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Split {
    /// Not at all.
    #[default]
    None,
    /// By month.
    Month,
    /// By day, as far as that is known.
    Day,
    /// By hour, as far as that is known.
    Hour,
}

/// What there is a row for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Group {
    /// Each pipeline has its own; else all are one.
    pub pipelines: bool,
    /// Each stage has its own; then so has each pipeline.
    pub stages: bool,
    /// Each so long.
    pub time: Split,
}

/// A row of a bill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The pipeline; `None` for what is of none, or of all.
    pub pipeline: Option<Name>,
    /// The stage; `None` for what is of none, or of all.
    pub stage: Option<Name>,
    /// When, if times are told apart.
    pub span: Option<Span>,
    /// How much.
    pub used: Used,
    /// What it costs.
    pub cost: Money,
}

/// A bill.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Its rows, by name and time.
    pub rows: Vec<Row>,
    /// Their sum.
    pub used: Used,
    /// Its cost.
    pub cost: Money,
}

impl Report {
    /// The bill of these lines. `period` is in hours since 1970.
    #[must_use]
    pub fn of<'a>(
        lines: impl Iterator<Item = Line<'a>>,
        period: &Range<u32>,
        group: Group,
        prices: &Prices,
    ) -> Self {
        let mut rows: BTreeMap<_, (Used, Money)> = BTreeMap::new();
        let mut all = Self::default();
        for line in lines.filter(|line| period.contains(&line.span.hours().start)) {
            let pipeline = line.pipeline.filter(|_| group.pipelines || group.stages);
            let stage = line.stage.filter(|_| group.stages);
            let span = match (group.time, line.span) {
                (Split::None, _) => None,
                (Split::Month, span) => Some(span.month()),
                (Split::Day, Span::Hour(_)) => Some(line.span.day()),
                (Split::Day | Split::Hour, span) => Some(span),
            };
            let cost = prices.cost(line.used);
            let when = span.map(|span| (span.hours().start, span));
            let row = rows.entry((pipeline, stage, when)).or_default();
            row.0.add(line.used);
            row.1 += cost;
            all.used.add(line.used);
            all.cost += cost;
        }
        let row = |((pipeline, stage, when), (used, cost)): (_, (Used, Money))| {
            let (pipeline, stage): (Option<&Name>, Option<&Name>) = (pipeline, stage);
            let when: Option<(u32, Span)> = when;
            let (pipeline, stage) = (pipeline.cloned(), stage.cloned());
            Row { pipeline, stage, span: when.map(|(_, span)| span), used, cost }
        };
        Self { rows: rows.into_iter().map(row).collect(), ..all }
    }
}
