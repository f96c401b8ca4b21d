//! An event of an auction house, and the bytes it is sent as.
//!
//! ```text
//! person   0  id
//!             name  e-mail  credit card  city  state  extra
//! auction  1  id  seller  category  initial bid  reserve  expires
//!             item  description  extra
//! bid      2  auction  bidder  price
//!             extra, to the end
//! ```
//!
//! The first byte says what it is; numbers are 8 bytes, little-endian; a text is its length in 2
//! bytes and then itself. When it happened is in the head of the event. The key is the id of what
//! it is about: of the person, the auction, or the auction that is bid for. `extra` is filler, of
//! such a length that events are as large as the reference has them: about 200, 500 and 100 bytes.

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'g> {
    /// When, in microseconds since 1970.
    pub time: u64,
    /// What.
    pub what: What<'g>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What<'g> {
    /// Somebody is new.
    Person(Person<'g>),
    /// Something is put up.
    Auction(Auction<'g>),
    /// Somebody bids.
    Bid(Bid<'g>),
}

/// Somebody who sells and bids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Person<'g> {
    /// Which.
    pub id: u64,
    /// First and last name.
    pub name: (&'static str, &'static str),
    /// Name and domain of the address.
    pub email: (&'g str, &'g str),
    /// Sixteen digits.
    pub card: u64,
    /// Where they live.
    pub city: &'static str,
    /// Where that is.
    pub state: &'static str,
    /// Filler.
    pub extra: &'g str,
}

/// Something for sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auction<'g> {
    /// Which.
    pub id: u64,
    /// Who sells it.
    pub seller: u64,
    /// What sort of thing it is.
    pub category: u64,
    /// The first price, in cents.
    pub initial: u64,
    /// The price it must reach.
    pub reserve: u64,
    /// When bidding ends, in microseconds since 1970.
    pub expires: u64,
    /// What it is called.
    pub item: &'g str,
    /// What is said about it.
    pub description: &'g str,
    /// Filler.
    pub extra: &'g str,
}

/// An offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bid<'g> {
    /// For what.
    pub auction: u64,
    /// By whom.
    pub bidder: u64,
    /// In cents.
    pub price: u64,
    /// Filler.
    pub extra: &'g str,
}

impl Event<'_> {
    /// The key it is sent with, as a number.
    #[must_use]
    pub const fn key(&self) -> u64 {
        match self.what {
            What::Person(person) => person.id,
            What::Auction(auction) => auction.id,
            What::Bid(bid) => bid.auction,
        }
    }

    /// Appends its payload.
    pub fn pack(&self, bytes: &mut Vec<u8>) {
        match self.what {
            What::Person(person) => person.pack(bytes),
            What::Auction(auction) => auction.pack(bytes),
            What::Bid(bid) => bid.pack(bytes),
        }
    }
}

impl Person<'_> {
    /// The whole name.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{} {}", self.name.0, self.name.1)
    }

    fn pack(&self, bytes: &mut Vec<u8>) {
        bytes.push(0);
        number(bytes, self.id);
        text(bytes, &self.full_name());
        text(bytes, &format!("{}@{}.com", self.email.0, self.email.1));
        text(bytes, &format!("{:016}", self.card));
        for part in [self.city, self.state, self.extra] {
            text(bytes, part);
        }
    }
}

impl Auction<'_> {
    fn pack(&self, bytes: &mut Vec<u8>) {
        bytes.push(1);
        let Self { id, seller, category, initial, reserve, expires, .. } = *self;
        for value in [id, seller, category, initial, reserve, expires] {
            number(bytes, value);
        }
        for part in [self.item, self.description, self.extra] {
            text(bytes, part);
        }
    }
}

impl Bid<'_> {
    fn pack(&self, bytes: &mut Vec<u8>) {
        bytes.push(2);
        for value in [self.auction, self.bidder, self.price] {
            number(bytes, value);
        }
        bytes.extend_from_slice(self.extra.as_bytes());
    }
}

fn number(bytes: &mut Vec<u8>, value: u64) {
    bytes.extend_from_slice(&value.to_le_bytes());
}

fn text(bytes: &mut Vec<u8>, value: &str) {
    let length = u16::try_from(value.len()).expect("texts of the generator are short");
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(value.as_bytes());
}
