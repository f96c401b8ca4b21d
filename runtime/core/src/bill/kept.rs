//! An account in bytes, as a checkpoint keeps it.
//!
//! ```text
//! format u8 · oldest reader u8 · kept to n · newest hour n · book
//! · n × { pipeline bytes · book · n × { stage bytes · book } }
//! book   n × { span n: number × 4 + 0 hour, 1 day, 2 month · used }
//! ```
//!
//! Numbers and names are as in `codec`, what was used as in `item`. Everything is checked: the
//! bytes come from a disk.

use std::collections::BTreeMap;

use super::books::{Account, Book, Books, Pipeline};
use super::calendar::{HOUR_END, Span};
use super::item;
use crate::codec::wire::{Reader, put, put_bytes};
use crate::codec::{FORMAT_OF_BILL, RecordError, kind};
use crate::ids::Name;

impl Books {
    /// Those whose accounts have changed since this was asked for.
    pub fn take_changed(&mut self) -> impl Iterator<Item = Name> + use<> {
        std::mem::take(&mut self.changed).into_iter()
    }

    /// An account in bytes, in which everything is that the log has before `end`.
    #[must_use]
    pub fn keep(&self, tenant: &Name, end: u64) -> Vec<u8> {
        let mut out = vec![FORMAT_OF_BILL; 2];
        let nothing = Account::default();
        let account = self.accounts.get(tenant).unwrap_or(&nothing);
        put(&mut out, end);
        put(&mut out, account.newest.into());
        put_book(&mut out, &account.own);
        put(&mut out, account.pipelines.len() as u64);
        for (name, pipeline) in &account.pipelines {
            put_bytes(&mut out, name.as_str().as_bytes());
            put_book(&mut out, &pipeline.own);
            put(&mut out, pipeline.stages.len() as u64);
            for (name, book) in &pipeline.stages {
                put_bytes(&mut out, name.as_str().as_bytes());
                put_book(&mut out, book);
            }
        }
        out
    }

    /// Takes in an account that was kept.
    ///
    /// # Errors
    /// The bytes are damaged, or of a newer format.
    pub fn take_in(&mut self, tenant: Name, kept: &[u8]) -> Result<(), RecordError> {
        let mut reader = Reader::new(kind::KEPT, kept);
        reader.format()?;
        let reader = &mut reader;
        let kept_to = reader.number("where an account was kept")?;
        let newest = hour(reader)?;
        let own = book(reader)?;
        let pipelines = reader.list(3, "the pipelines of an account", |reader| {
            let name = reader.name("a pipeline of an account")?;
            let own = book(reader)?;
            let stages = reader.list(2, "the stages of an account", |reader| {
                Ok((reader.name("a stage of an account")?, book(reader)?))
            })?;
            Ok((name, Pipeline { own, stages: stages.into_iter().collect() }))
        })?;
        let pipelines: BTreeMap<Name, Pipeline> = pipelines.into_iter().collect();
        reader.extensions()?;
        let lines = 0;
        let mut account = Account { own, pipelines, newest, kept_to, lines, full_on: None };
        account.lines = account.count();
        self.accounts.insert(tenant, account);
        Ok(())
    }
}

fn put_book(out: &mut Vec<u8>, book: &Book) {
    put(out, book.len() as u64);
    for (span, used) in book {
        let (number, width) = match *span {
            Span::Hour(number) => (number, 0),
            Span::Day(number) => (number, 1),
            Span::Month(number) => (number, 2),
        };
        put(out, u64::from(number) * 4 + width);
        used.put(out);
    }
}

fn book(reader: &mut Reader<'_>) -> Result<Book, RecordError> {
    let spans = reader.list(2, "a book", |reader| {
        let number = reader.number("a span")?;
        let span = span(number).ok_or_else(|| reader.bad("a span"))?;
        Ok((span, item::read(reader)?))
    })?;
    Ok(spans.into_iter().collect())
}

/// Only spans that end before all calendars do.
fn span(number: u64) -> Option<Span> {
    let (number, width) = (u32::try_from(number / 4).ok()?, number % 4);
    let span = match width {
        0 if number < HOUR_END => Span::Hour(number),
        1 if number < HOUR_END / 24 => Span::Day(number),
        2 if (1970 * 12..10_000 * 12).contains(&number) => Span::Month(number),
        _ => return None,
    };
    Some(span)
}

fn hour(reader: &mut Reader<'_>) -> Result<u32, RecordError> {
    let hour = reader.number_u32("the newest hour")?;
    if hour < HOUR_END { Ok(hour) } else { Err(reader.bad("the newest hour")) }
}
