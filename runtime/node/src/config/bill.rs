//! What things cost, and how often what is measured for the bill is written.

use std::time::Duration;

use sluicebox_core::bill::{Item, Price, Prices};

use super::reader::{Raw, Reader};
use super::shape::{Period, Shape, Wrong, wrong};
use super::{HOUR, MINUTE, SECOND};

section! {
    /// The bill: how often what is measured is written, and what everything costs; see the guide,
    /// `bill.md`. A price is a decimal with at most nine digits behind the point, as "0.05".
    BillConfig in "bill" {
        /// How often what is measured beside the commits is put into the log; a crash loses as
        /// much of it. Memory and disk alone, where nothing else is done, ten times less often.
        interval: Duration = Period { default: MINUTE, least: SECOND, most: HOUR };
        /// The currency of the prices, by its code; XXX is none.
        currency: String = Currency;
        /// For 10^9 of fuel.
        fuel: Price = Cost;
        /// For a million events that stages took.
        events: Price = Cost;
        /// For a million calls that were made again, besides their fuel.
        reruns: Price = Cost;
        /// For a GiB of events that came in.
        bytes_in: Price = Cost;
        /// For a GiB of events that left by outputs.
        bytes_out: Price = Cost;
        /// For a GiB of events that went to other partitions.
        bytes_between: Price = Cost;
        /// For a GiB of them to another node of the machine, besides.
        link_bytes_memory: Price = Cost;
        /// For a GiB of them to another node over the network, besides.
        link_bytes_network: Price = Cost;
        /// For a GiB of instances' memory for an hour.
        memory: Price = Cost;
        /// For a GiB of state in memory for an hour.
        state: Price = Cost;
        /// For a GiB on disk for an hour.
        disk: Price = Cost;
        /// For an hour of a GPU.
        gpu: Price = Cost;
        /// For an hour of copies to and from a GPU.
        gpu_copy: Price = Cost;
        /// For a GiB of a GPU's memory for an hour.
        gpu_memory: Price = Cost;
    }
}

impl BillConfig {
    /// The table of prices.
    #[must_use]
    pub fn prices(&self) -> Prices {
        let price = |item: Item| match item {
            Item::Fuel => self.fuel,
            Item::Events => self.events,
            Item::Reruns => self.reruns,
            Item::BytesIn => self.bytes_in,
            Item::BytesOut => self.bytes_out,
            Item::BytesBetween => self.bytes_between,
            Item::LinkMemory => self.link_bytes_memory,
            Item::LinkNetwork => self.link_bytes_network,
            Item::Memory => self.memory,
            Item::State => self.state,
            Item::Disk => self.disk,
            Item::Gpu => self.gpu,
            Item::GpuCopy => self.gpu_copy,
            Item::GpuMemory => self.gpu_memory,
        };
        let none = Prices::new(self.currency.clone());
        Item::ALL.into_iter().fold(none, |prices, item| prices.with(item, price(item)))
    }
}

/// A price: nothing unless somebody says it.
#[derive(Debug, Clone, Copy)]
struct Cost;

impl Shape for Cost {
    type Value = Price;

    fn default(&self) -> Price {
        Price::default()
    }

    fn read(&self, raw: &Raw) -> Result<Price, Wrong> {
        let text = match raw {
            Raw::Text(text) | Raw::Word(text) => text.clone(),
            Raw::Integer(number) => number.to_string(),
            Raw::Boolean(_) | Raw::List(_) | Raw::Other(_) => return Err(wrong(self, raw)),
        };
        text.parse().map_err(|()| wrong(self, raw))
    }

    fn write(&self, value: &Price) -> String {
        format!("\"{value}\"")
    }

    fn allowed(&self) -> String {
        "a decimal in quotes, from \"0\" to \"1000000000\", at most nine digits behind the point"
            .to_owned()
    }
}

/// The code of a currency.
#[derive(Debug, Clone, Copy)]
struct Currency;

impl Shape for Currency {
    type Value = String;

    fn default(&self) -> String {
        "XXX".to_owned()
    }

    fn read(&self, raw: &Raw) -> Result<String, Wrong> {
        let (Raw::Text(text) | Raw::Word(text)) = raw else { return Err(wrong(self, raw)) };
        let is_code = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase());
        if is_code { Ok(text.clone()) } else { Err(wrong(self, raw)) }
    }

    fn write(&self, value: &String) -> String {
        format!("\"{value}\"")
    }

    fn allowed(&self) -> String {
        "three capital letters, as \"EUR\"".to_owned()
    }
}
