//! Numbers of handles: none is ever used again, and each says which device it was made for.
//!
//! 13 bits are the generation, which moves on whenever a device is lost, and the 40 below them a
//! count that goes on through all generations of a process. Numbers stay below 2⁵³, as guests whose
//! language has no integers read them as doubles. Who has a handle is not in it: it is looked up,
//! and no number that was guessed is more than one that is not there.
//!
//! Generations come round. Of two, the later is the one that is less than half of all ahead: so old
//! handles are known as such for 4095 generations.

use super::Refused;

const SERIAL_BITS: u32 = 40;
const GENERATION_BITS: u32 = 13;
const GENERATIONS: u64 = 1 << GENERATION_BITS;

/// See the module.
#[derive(Debug)]
pub(super) struct Numbers {
    generation: u64,
    last: u64,
}

impl Numbers {
    pub(super) fn new(generation: u32) -> Self {
        Self { generation: u64::from(generation) % GENERATIONS, last: 0 }
    }

    pub(super) fn generation(&self) -> u32 {
        // It has 13 bits.
        self.generation as u32
    }

    /// A number that was never given out.
    ///
    /// # Errors
    /// All were: at ten thousand a second after three years.
    pub(super) fn next(&mut self) -> Result<u64, Refused> {
        let serial = self.last + 1;
        if serial >= 1 << SERIAL_BITS {
            let fix = "end the device's process";
            let (found, limit) = (serial, (1 << SERIAL_BITS) - 1);
            return Err(Refused::Limit { what: "handles", found, limit, fix });
        }
        self.last = serial;
        Ok((self.generation << SERIAL_BITS) | serial)
    }

    /// Why a number is no handle of anything.
    pub(super) fn missing(&self, what: &'static str, handle: u64) -> Refused {
        let made = handle >> SERIAL_BITS;
        let passed = (self.generation + GENERATIONS).saturating_sub(made) % GENERATIONS;
        if made < GENERATIONS && (1..GENERATIONS / 2).contains(&passed) {
            return Refused::Lost { handle };
        }
        Refused::Handle { what, handle }
    }

    /// All handles until now are over.
    pub(super) fn renew(&mut self) {
        self.generation = (self.generation + 1) % GENERATIONS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_comes_twice_and_old_ones_are_known() {
        let mut numbers = Numbers::new(GENERATIONS as u32 + 6);
        let first = numbers.next().unwrap();
        assert_eq!(first, (6 << SERIAL_BITS) + 1);
        assert_eq!(numbers.missing("x", first), Refused::Handle { what: "x", handle: first });
        numbers.renew();
        assert_eq!(numbers.missing("x", first), Refused::Lost { handle: first });
        let second = numbers.next().unwrap();
        assert_eq!(second, (7 << SERIAL_BITS) + 2);
        let forged = (8 << SERIAL_BITS) + 1;
        assert_eq!(numbers.missing("x", forged), Refused::Handle { what: "x", handle: forged });
    }

    #[test]
    fn old_numbers_are_known_when_generations_come_round() {
        let mut numbers = Numbers::new(GENERATIONS as u32 - 1);
        let old = numbers.next().unwrap();
        numbers.renew();
        assert_eq!(numbers.generation(), 0);
        assert_eq!(numbers.missing("x", old), Refused::Lost { handle: old });
        let new = numbers.next().unwrap();
        assert_eq!(numbers.missing("x", new), Refused::Handle { what: "x", handle: new });
        for forged in [u64::MAX, 1 << 53, 5 << SERIAL_BITS] {
            assert_eq!(numbers.missing("x", forged), Refused::Handle { what: "x", handle: forged });
        }
    }

    #[test]
    fn numbers_are_exact_as_doubles() {
        let last = (1 << SERIAL_BITS) - 2;
        let mut numbers = Numbers { generation: GENERATIONS - 1, last };
        assert_eq!(numbers.next(), Ok((1 << 53) - 1));
    }

    #[test]
    fn there_is_an_end_to_numbers() {
        let mut numbers = Numbers { generation: 1, last: (1 << SERIAL_BITS) - 2 };
        assert_eq!(numbers.next(), Ok((2 << SERIAL_BITS) - 1));
        assert!(matches!(numbers.next(), Err(Refused::Limit { what: "handles", .. })));
    }
}
