//! A tenant's bill, as it is told: rows of a report with names, times and money.
//!
//! It is made of the accounts of all nodes that answer; those that do not are named. One node makes
//! money of it, with its own prices.

use std::ops::Range;

use serde::Serialize;
use serde_json::{Map, Value};
use sluicebox_core::bill::{Books, Group, Item, Prices, Report, Row, Used, date_of};
use sluicebox_core::ids::Name;

use crate::components::blocking;
use crate::error::Error;
use crate::node::Node;

/// A bill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BillDetail {
    /// Whose it is.
    pub tenant: String,
    /// Its beginning, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Its end: not in it any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The currency of all money in it; XXX is none.
    pub currency: String,
    /// Prices that are not nothing, each for as much as the guide says.
    pub prices: Map<String, Value>,
    /// Its rows.
    pub rows: Vec<BillRow>,
    /// Their sum.
    pub total: BillRow,
    /// Nodes that did not say what they ran.
    pub unreachable: Vec<String>,
}

/// A row of a bill.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BillRow {
    /// The pipeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// The stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// From when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// To when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// What was used, where it is not nothing.
    pub used: Map<String, Value>,
    /// What it costs: a decimal with nine digits behind the point.
    pub cost: String,
}

impl Node {
    /// The bill of a tenant for a period, in hours since 1970.
    ///
    /// # Errors
    /// An account cannot be read.
    pub(crate) async fn bill_of(
        &self,
        tenant: &Name,
        period: &Range<u32>,
        group: Group,
    ) -> Result<BillDetail, Error> {
        let mut all = vec![self.bill().books_of(tenant.clone()).await?];
        let peers = self.cluster().map_or(&[][..], |cluster| cluster.peers());
        let asked = peers.iter().map(|peer| async move { (peer, peer.account(tenant).await) });
        let mut unreachable = Vec::new();
        for (peer, answer) in futures_util::future::join_all(asked).await {
            match answer {
                Ok(theirs) => all.push(theirs),
                Err(_) => unreachable.push(peer.name().to_string()),
            }
        }
        let prices = self.bill().prices().clone();
        let (tenant, period) = (tenant.clone(), period.clone());
        // Of many lines it takes a while.
        blocking(move || Ok(detail(&all, (&tenant, &period, group), &prices, unreachable))).await
    }
}

fn detail(
    all: &[Books],
    (tenant, period, group): (&Name, &Range<u32>, Group),
    prices: &Prices,
    unreachable: Vec<String>,
) -> BillDetail {
    let lines = all.iter().flat_map(|books| books.lines(tenant));
    let Report { rows, used, cost } = Report::of(lines, period, group, prices);
    BillDetail {
        tenant: tenant.to_string(),
        from: (period.start > 0).then(|| hour_text(period.start)),
        to: (period.end < u32::MAX).then(|| hour_text(period.end)),
        currency: prices.currency().to_owned(),
        prices: told(prices),
        rows: rows.into_iter().map(BillRow::of).collect(),
        total: BillRow { used: amounts(&used), cost: cost.to_string(), ..Default::default() },
        unreachable,
    }
}

impl BillRow {
    fn of(row: Row) -> Self {
        let Row { pipeline, stage, span, used, cost } = row;
        let hours = span.map(|span| span.hours());
        Self {
            pipeline: pipeline.map(|name| name.to_string()),
            stage: stage.map(|name| name.to_string()),
            from: hours.as_ref().map(|hours| hour_text(hours.start)),
            to: hours.as_ref().map(|hours| hour_text(hours.end)),
            used: amounts(&used),
            cost: cost.to_string(),
        }
    }
}

impl BillDetail {
    /// The rows as comma-separated values, below a line with what is in which column. Nothing in
    /// them needs quotes: names, numbers, times and codes.
    #[must_use]
    pub fn to_csv(&self) -> String {
        let items = Item::ALL.map(Item::name);
        let mut text = format!("pipeline,stage,from,to,{},cost,currency\n", items.join(","));
        for row in &self.rows {
            for cell in [&row.pipeline, &row.stage, &row.from, &row.to] {
                text.push_str(cell.as_deref().unwrap_or_default());
                text.push(',');
            }
            for item in items {
                let amount = row.used.get(item).and_then(Value::as_u64).unwrap_or(0);
                text.push_str(&format!("{amount},"));
            }
            text.push_str(&format!("{},{}\n", row.cost, self.currency));
        }
        text
    }
}

fn amounts(used: &Used) -> Map<String, Value> {
    let there = Item::ALL.into_iter().filter(|item| used.get(*item) > 0);
    there.map(|item| (item.name().to_owned(), used.get(item).into())).collect()
}

fn told(prices: &Prices) -> Map<String, Value> {
    let there = Item::ALL.into_iter().filter(|item| prices.of(*item) != Default::default());
    there.map(|item| (item.name().to_owned(), prices.of(item).to_string().into())).collect()
}

/// The beginning of an hour since 1970.
fn hour_text(hour: u32) -> String {
    let (year, month, day) = date_of(hour / 24);
    format!("{year:04}-{month:02}-{day:02}T{:02}:00:00Z", hour % 24)
}

#[cfg(test)]
mod tests {
    use sluicebox_core::bill::{HOUR_MICROS, Price, Split, Whose};

    use super::*;

    #[test]
    fn the_file_of_a_bill_is_this() {
        let name = |text: &str| Name::new(text).expect("a name");
        let (tenant, pipeline, stage) = (name("acme"), name("orders"), name("count"));
        let mut books = Books::new();
        let whole = Whose { tenant: &tenant, pipeline: Some(&pipeline), stage: Some(&stage) };
        let hour = 495_000;
        for (at, whose) in [(0, whole), (1, Whose { stage: None, ..whole }), (2, whole)].into_iter()
        {
            let used = Used::of(Item::Fuel, 1_500_000_000 + at).and(Item::GpuMemory, at);
            books.used(whose, ((hour + at) * HOUR_MICROS, at), &used);
        }
        let price = Price::of_nano(2_000_000_000).expect("a price");
        let prices = Prices::new("EUR".to_owned()).with(Item::Fuel, price);
        let group = Group { pipelines: true, stages: true, time: Split::Hour };
        let report = Report::of(books.lines(&tenant), &(0..u32::MAX), group, &prices);
        let detail = BillDetail {
            tenant: "acme".to_owned(),
            from: None,
            to: None,
            currency: prices.currency().to_owned(),
            prices: told(&prices),
            rows: report.rows.into_iter().map(BillRow::of).collect(),
            total: BillRow::default(),
            unreachable: Vec::new(),
        };
        let expected = include_str!("bill.csv");
        assert_eq!(detail.to_csv(), expected);
        assert_eq!(detail.prices.get("fuel"), Some(&"2".into()));
    }
}
