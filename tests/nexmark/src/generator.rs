//! Makes events as the reference generator of Nexmark does.
//!
//! - Of 50 events one is a person, three are auctions, 46 are bids, in this order, and the time
//!   between two events is always the same.
//! - Half of the bids are for the first of the last hundred auctions, the others for one of a
//!   hundred that are open or about to be; three of four are by the second of the last hundred
//!   people, the others by one of the thousand newest. Three of four auctions are by the first of
//!   the last hundred people.
//! - An auction lasts for as long as it takes to put up a hundred others, on average.
//! - An event is a function of the seed and its number: any part of the list can be made alone.

use std::ops::Range;

use sluicebox_core::frame::{FrameBuilder, Head};

use crate::event::{Auction, Bid, Event, Person, What};

/// Events after which the proportions begin anew.
const ROUND: u64 = 50;
const PERSONS: u64 = 1;
const AUCTIONS: u64 = 3;
/// The first ids.
const FIRST_ID: u64 = 1_000;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: u64 = 5;
/// One of so many people and auctions is a hot one.
const HOT: u64 = 100;
/// Auctions that are bid for, people who are about.
const OPEN_AUCTIONS: u64 = 100;
const ACTIVE_PEOPLE: u64 = 1_000;
/// How many that are yet to come are named as well.
const LEAD: u64 = 10;
/// Events in a packed frame: what a stage is given at once.
const FRAME_EVENTS: usize = 256;
/// How long after the last event the closing one is, in microseconds.
const DAY: u64 = 86_400_000_000;
/// When the first event is.
const BEGIN: u64 = 1_700_000_000_000_000;
/// Filler that texts are cut from.
const LETTERS: usize = 1 << 16;

const FIRST_NAMES: [&str; 11] = [
    "Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter",
];
const LAST_NAMES: [&str; 9] =
    ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
const CITIES: [&str; 10] = [
    "Phoenix",
    "Los Angeles",
    "San Francisco",
    "Boise",
    "Portland",
    "Bend",
    "Redmond",
    "Seattle",
    "Kent",
    "Cheyenne",
];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];

/// Makes events.
#[derive(Debug, Clone)]
pub struct Generator {
    seed: u64,
    /// Events in a second of event time.
    rate: u64,
    letters: String,
}

impl Generator {
    /// A generator of events that are `rate` to the second of their own time.
    ///
    /// # Panics
    /// If the rate is 0 or above a million, where events would not be a microsecond apart.
    #[must_use]
    pub fn new(seed: u64, rate: u64) -> Self {
        assert!((1..=1_000_000).contains(&rate), "1 to 1,000,000 events a second");
        let mut dice = Dice::new(seed, u64::MAX);
        let letter = |_| char::from(b'a' + dice.below(26) as u8);
        Self { seed, rate, letters: (0..LETTERS).map(letter).collect() }
    }

    /// When the event with this number happens.
    #[must_use]
    pub const fn time(&self, number: u64) -> u64 {
        BEGIN + number * 1_000_000 / self.rate
    }

    /// The event with this number.
    #[must_use]
    pub fn event(&self, number: u64) -> Event<'_> {
        let mut dice = Dice::new(self.seed, number);
        let what = match number % ROUND {
            place if place < PERSONS => What::Person(self.person(number, &mut dice)),
            place if place < PERSONS + AUCTIONS => What::Auction(self.auction(number, &mut dice)),
            _ => What::Bid(self.bid(number, &mut dice)),
        };
        Event { time: self.time(number), what }
    }

    /// Events, in their order.
    pub fn events(&self, numbers: Range<u64>) -> impl Iterator<Item = Event<'_>> {
        numbers.map(|number| self.event(number))
    }

    /// What lets the watermark pass the first `count` events: somebody comes a day later, who lives
    /// where no query looks.
    #[must_use]
    pub fn closing(&self, count: u64) -> Event<'_> {
        let mut dice = Dice::new(self.seed, count);
        let mut person = self.person(count, &mut dice);
        (person.id, person.state) = (0, "WY");
        Event { time: self.time(count) + DAY, what: What::Person(person) }
    }

    /// The number of the last person before an event, from 0.
    const fn last_person(number: u64) -> u64 {
        number / ROUND * PERSONS
    }

    /// The number of the last auction before an event, or that the event is, from 0. There is one.
    const fn last_auction(number: u64) -> u64 {
        let place = number % ROUND;
        let before = number / ROUND * AUCTIONS;
        if place < PERSONS {
            before.saturating_sub(1)
        } else if place < PERSONS + AUCTIONS {
            before + place - PERSONS
        } else {
            before + AUCTIONS - 1
        }
    }

    /// One of the newest people, or who is about to come.
    fn any_person(number: u64, dice: &mut Dice) -> u64 {
        let people = Self::last_person(number) + 1;
        let active = people.min(ACTIVE_PEOPLE);
        people - active + dice.below(active + LEAD)
    }

    fn person(&self, number: u64, dice: &mut Dice) -> Person<'_> {
        let name = (dice.of(&FIRST_NAMES), dice.of(&LAST_NAMES));
        let email = (self.text(7, dice), self.text(5, dice));
        let card = dice.below(10_000_000_000_000_000);
        let (city, state) = (dice.of(&CITIES), dice.of(&STATES));
        let size = 8 + name.0.len() + name.1.len() + email.0.len() + email.1.len() + 6 + 16;
        let extra = self.filler(size + city.len() + state.len(), 200, dice);
        let id = FIRST_ID + Self::last_person(number);
        Person { id, name, email, card, city, state, extra }
    }

    fn auction(&self, number: u64, dice: &mut Dice) -> Auction<'_> {
        let seller = if dice.below(4) > 0 {
            Self::last_person(number) / HOT * HOT
        } else {
            Self::any_person(number, dice)
        };
        let (initial, more) = (dice.price(), dice.price());
        let open = self.time(number + OPEN_AUCTIONS * ROUND / AUCTIONS) - self.time(number);
        let (item, description) = (self.text(20, dice), self.text(100, dice));
        Auction {
            id: FIRST_ID + Self::last_auction(number),
            seller: FIRST_ID + seller,
            category: FIRST_CATEGORY + dice.below(CATEGORIES),
            initial,
            reserve: initial + more,
            expires: self.time(number) + 1 + dice.below(2 * open),
            item,
            description,
            extra: self.filler(48 + item.len() + description.len(), 500, dice),
        }
    }

    fn bid(&self, number: u64, dice: &mut Dice) -> Bid<'_> {
        let last = Self::last_auction(number);
        let auction = if dice.below(2) > 0 {
            last / HOT * HOT
        } else {
            let first = last.saturating_sub(OPEN_AUCTIONS);
            first + dice.below(last - first + 1 + LEAD)
        };
        let bidder = if dice.below(4) > 0 {
            Self::last_person(number) / HOT * HOT + 1
        } else {
            Self::any_person(number, dice)
        };
        let (auction, bidder, price) = (FIRST_ID + auction, FIRST_ID + bidder, dice.price());
        Bid { auction, bidder, price, extra: self.filler(32, 100, dice) }
    }

    /// A word of 3 letters up to so many.
    fn text(&self, most: u64, dice: &mut Dice) -> &str {
        self.cut(3 + dice.below(most - 2), dice)
    }

    /// As much as makes `size` bytes into `average`, give or take a fifth.
    fn filler(&self, size: usize, average: usize, dice: &mut Dice) -> &str {
        let missing = average.saturating_sub(size) as u64;
        let spread = missing / 5;
        self.cut(missing - spread + dice.below(2 * spread + 1), dice)
    }

    fn cut(&self, length: u64, dice: &mut Dice) -> &str {
        let from = dice.below(self.letters.len() as u64 - length) as usize;
        &self.letters[from..from + length as usize]
    }
}

/// Packs events into frames one behind the other, as a request holds them.
#[must_use]
pub fn frames<'g>(events: impl IntoIterator<Item = Event<'g>>) -> Vec<u8> {
    let (mut body, mut payload) = (Vec::new(), Vec::new());
    let mut builder = FrameBuilder::new();
    for event in events {
        payload.clear();
        event.pack(&mut payload);
        let (key, from) = digits(event.key());
        builder.push(&Head::data(event.time), &key[from..], &payload, &[]);
        if builder.len() == FRAME_EVENTS {
            body.extend_from_slice(builder.finish().bytes());
        }
    }
    if !builder.is_empty() {
        body.extend_from_slice(builder.finish().bytes());
    }
    body
}

/// A number in decimal, and where it begins.
const fn digits(mut number: u64) -> ([u8; 20], usize) {
    let (mut digits, mut from) = ([b'0'; 20], 20);
    loop {
        from -= 1;
        digits[from] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return (digits, from);
        }
    }
}

/// Chance, the same for the same event.
struct Dice(u64);

impl Dice {
    const fn new(seed: u64, number: u64) -> Self {
        Self(seed ^ number.wrapping_mul(0xD134_2543_DE82_EF95))
    }

    /// The generator splitmix64.
    const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    const fn below(&mut self, end: u64) -> u64 {
        ((self.roll() as u128 * end as u128) >> 64) as u64
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }

    /// A price in cents: its logarithm is evenly spread, from a dollar to a million.
    fn price(&mut self) -> u64 {
        let unit = (self.roll() >> 11) as f64 / (1_u64 << 53) as f64;
        (10_f64.powf(unit * 6.0) * 100.0).round() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const COUNT: u64 = 100_000;

    fn bids(generator: &Generator) -> Vec<Bid<'_>> {
        let all = generator.events(0..COUNT);
        let bid = |event: Event<'_>| matches!(event.what, What::Bid(_));
        let kept: Vec<_> = all.filter(|event| bid(*event)).map(|event| event.what).collect();
        kept.into_iter()
            .filter_map(|what| if let What::Bid(bid) = what { Some(bid) } else { None })
            .collect()
    }

    #[test]
    fn events_have_the_proportions_of_the_reference() {
        let generator = Generator::new(1, 1_000);
        let mut counts = [0_u64; 3];
        for event in generator.events(0..COUNT) {
            counts[match event.what {
                What::Person(_) => 0,
                What::Auction(_) => 1,
                What::Bid(_) => 2,
            }] += 1;
        }
        assert_eq!(counts, [COUNT / 50, 3 * COUNT / 50, 46 * COUNT / 50]);
    }

    #[test]
    fn ids_are_given_once_and_in_order() {
        let generator = Generator::new(1, 1_000);
        let (mut people, mut auctions) = (Vec::new(), Vec::new());
        for event in generator.events(0..1_000) {
            match event.what {
                What::Person(person) => people.push(person.id),
                What::Auction(auction) => auctions.push(auction.id),
                What::Bid(_) => {}
            }
        }
        assert_eq!(people, (1_000..1_020).collect::<Vec<_>>());
        assert_eq!(auctions, (1_000..1_060).collect::<Vec<_>>());
    }

    #[test]
    fn half_of_the_bids_are_for_hot_auctions_and_three_quarters_by_hot_bidders() {
        let generator = Generator::new(7, 1_000);
        let bids = bids(&generator);
        let share = |of: fn(&Bid<'_>) -> bool| {
            bids.iter().filter(|bid| of(bid)).count() as f64 / bids.len() as f64
        };
        // One of a hundred of the others is a hot one by chance.
        let auctions = share(|bid| bid.auction % HOT == 0);
        assert!((0.50..0.52).contains(&auctions), "{auctions}");
        let bidders = share(|bid| bid.bidder % HOT == 1);
        assert!((0.74..0.77).contains(&bidders), "{bidders}");
    }

    #[test]
    fn auctions_last_for_a_hundred_others_on_average() {
        let generator = Generator::new(7, 1_000);
        let lengths: Vec<u64> = generator
            .events(0..COUNT)
            .filter_map(|event| match event.what {
                What::Auction(auction) => Some(auction.expires - event.time),
                _ => None,
            })
            .collect();
        let mean = lengths.iter().sum::<u64>() / lengths.len() as u64;
        // A hundred auctions are 1,666 events, each a millisecond.
        assert!((1_600_000..1_730_000).contains(&mean), "{mean}");
    }

    #[test]
    fn events_are_as_large_as_in_the_reference() {
        let generator = Generator::new(3, 1_000);
        let mut sizes: BTreeMap<u8, (usize, usize)> = BTreeMap::new();
        let mut bytes = Vec::new();
        for event in generator.events(0..COUNT) {
            bytes.clear();
            event.pack(&mut bytes);
            let size = sizes.entry(bytes[0]).or_default();
            *size = (size.0 + bytes.len(), size.1 + 1);
        }
        let means: Vec<usize> = sizes.values().map(|(sum, count)| sum / count).collect();
        for (mean, wanted) in means.iter().zip([200, 500, 95]) {
            assert!(mean.abs_diff(wanted) < 15, "{means:?}");
        }
    }

    #[test]
    fn an_event_depends_on_its_number_and_the_seed_alone() {
        let (one, other) = (Generator::new(5, 1_000), Generator::new(6, 1_000));
        assert_eq!(one.event(77_777), Generator::new(5, 1_000).event(77_777));
        assert_ne!(one.event(77_777), other.event(77_777));
        assert_eq!(one.time(2_000) - one.time(0), 2_000_000);
    }
}
