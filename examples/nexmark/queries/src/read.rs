//! Reads what comes in: people, auctions and bids, packed.
//!
//! The first byte says which it is: 0 a person, 1 an auction, 2 a bid. Numbers have 8 bytes, texts
//! their length in 2 before them, all little-endian; see the README for what is where. What is cut
//! off fails its event.

use sluicebox_guest::{Event, Failure, Kept, Kind, Result};

/// First byte of each.
const PERSON: u8 = 0;
const AUCTION: u8 = 1;
const BID: u8 = 2;

/// What a payload is.
pub(crate) enum Item<'a> {
    Person(Person<'a>),
    Auction(Auction),
    Bid(Bid),
}

pub(crate) struct Person<'a> {
    pub(crate) id: u64,
    pub(crate) name: &'a str,
    pub(crate) city: &'a str,
    pub(crate) state: &'a str,
}

pub(crate) struct Auction {
    pub(crate) id: u64,
    pub(crate) seller: u64,
    pub(crate) category: u64,
    pub(crate) expires: u64,
}

#[derive(Clone, Copy)]
pub(crate) struct Bid {
    pub(crate) auction: u64,
    pub(crate) bidder: u64,
    pub(crate) price: u64,
}

impl<'a> Item<'a> {
    pub(crate) fn of(event: &Event<'a>) -> Result<Self> {
        Self::read(event.payload()).ok_or_else(|| Failure::reject("no event of an auction house"))
    }

    fn read(payload: &'a [u8]) -> Option<Self> {
        let (kind, mut rest) = payload.split_first()?;
        let rest = &mut rest;
        Some(match *kind {
            PERSON => {
                let (id, name) = (number(rest)?, text(rest)?);
                let (_email, _card) = (text(rest)?, text(rest)?);
                Self::Person(Person { id, name, city: text(rest)?, state: text(rest)? })
            }
            AUCTION => {
                let (id, seller, category) = (number(rest)?, number(rest)?, number(rest)?);
                let (_initial, _reserve) = (number(rest)?, number(rest)?);
                Self::Auction(Auction { id, seller, category, expires: number(rest)? })
            }
            BID => {
                let (auction, bidder) = (number(rest)?, number(rest)?);
                Self::Bid(Bid { auction, bidder, price: number(rest)? })
            }
            _ => return None,
        })
    }
}

/// Whether an event is a bid.
pub(crate) fn is_bid(event: &Event<'_>) -> bool {
    event.kind() == Kind::Data && event.payload().first() == Some(&BID)
}

/// The bid an event is, if it is one.
pub(crate) fn bid(event: &Event<'_>) -> Result<Option<Bid>> {
    if !is_bid(event) {
        return Ok(None);
    }
    match Item::of(event)? {
        Item::Bid(bid) => Ok(Some(bid)),
        Item::Person(_) | Item::Auction(_) => Ok(None),
    }
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*number))
}

fn text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}

/// What one step gives to the next.
pub(crate) fn pack(value: &impl Kept) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.write(&mut bytes);
    bytes
}

/// What the step before has packed.
pub(crate) fn unpack<T: Kept>(mut bytes: &[u8]) -> Result<T> {
    T::read(&mut bytes).ok_or_else(|| Failure::reject("not what the step before packs"))
}

/// A number as a key, in decimal.
pub(crate) struct Key {
    digits: [u8; 20],
    from: usize,
}

impl Key {
    pub(crate) fn of(mut number: u64) -> Self {
        let mut key = Self { digits: [b'0'; 20], from: 20 };
        loop {
            key.from -= 1;
            key.digits[key.from] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return key;
            }
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.digits[self.from..]).expect("digits are ASCII")
    }
}

/// The number that a key is.
pub(crate) fn number_of(key: &str) -> u64 {
    // Only steps before this one write keys here.
    key.parse().unwrap_or_default()
}
