//! A tenant's allowance per resource, what is lent out, and that the sum never exceeds it.
//!
//! Two sorts of [`Resource`]: a *rate* is a bucket that fills at so many units a second up to a
//! burst, and what is drawn from it is spent; a *counted* resource is lent, and whoever drew it
//! puts it back when the use ends. Keeps true:
//!
//! - Draw before use. A draw of several amounts succeeds whole or changes nothing.
//! - The sum rule: a draw never takes a counted resource above its allowance; over any span of
//!   time `t` a rate never gives more than its burst plus `rate × t`.
//! - Refill is exact: the level is kept in millionths of a unit, so no draw pattern gains or loses
//!   by rounding. Integers only, and no overflow for any allowance up to `u64::MAX`.
//! - A clock that goes backwards gives nothing and takes nothing.
//! - A tenant at zero gets every draw refused, with "never" as the time to try again. Lowering an
//!   allowance below what is lent takes nothing back; draws are refused until enough is returned.
//!
//! Leaves to others: the lock around it and the permit that puts back on drop (`node/admission`),
//! and where allowances come from (`node/tenants`). A draw is a few additions, meant once for
//! each request, not for each event.

/// Something a tenant has an allowance of. The texts are the field names of the tenants file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Rate: events accepted at ingest.
    Events,
    /// Rate: bytes of request bodies accepted at ingest.
    Bytes,
    /// Counted: bytes of instance memories and of frames in flight.
    Memory,
    /// Counted: bytes of keyed state in memory.
    State,
    /// Counted: bytes on disk of what pipelines keep.
    Disk,
    /// Counted: bytes of uploaded components.
    Components,
    /// Counted: pipelines applied.
    Pipelines,
    /// Counted: open streams.
    Streams,
    /// Counted: open connections.
    Connections,
}

/// Number of counted resources.
const COUNTED: usize = 7;

/// Millionths: a rate of units a second times microseconds gives these without a division.
const MILLION: u128 = 1_000_000;

/// What a refused draw of a counted resource suggests, as no clock says when others put back.
pub const COUNTED_RETRY_MICROS: u64 = 1_000_000;

impl Resource {
    /// Every resource, in the order of the tenants file.
    pub const ALL: [Self; 9] = [
        Self::Events,
        Self::Bytes,
        Self::Memory,
        Self::State,
        Self::Disk,
        Self::Components,
        Self::Pipelines,
        Self::Streams,
        Self::Connections,
    ];

    /// The word used in files, logs, metrics and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events-per-second",
            Self::Bytes => "bytes-per-second",
            Self::Memory => "memory-bytes",
            Self::State => "state-bytes",
            Self::Disk => "disk-bytes",
            Self::Components => "component-bytes",
            Self::Pipelines => "pipelines",
            Self::Streams => "streams",
            Self::Connections => "connections",
        }
    }

    /// Where the resource is kept: the bucket of a rate, or the place of a count.
    const fn place(self) -> Place {
        match self {
            Self::Events => Place::Rate(0),
            Self::Bytes => Place::Rate(1),
            Self::Memory => Place::Count(0),
            Self::State => Place::Count(1),
            Self::Disk => Place::Count(2),
            Self::Components => Place::Count(3),
            Self::Pipelines => Place::Count(4),
            Self::Streams => Place::Count(5),
            Self::Connections => Place::Count(6),
        }
    }

    /// The resource of a word; `None` if it is none.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource| resource.as_str() == word)
    }

    /// True if its unit is the byte.
    #[must_use]
    pub const fn is_bytes(self) -> bool {
        matches!(self, Self::Bytes | Self::Memory | Self::State | Self::Disk | Self::Components)
    }

    /// True for what is spent by drawing, false for what is put back.
    #[must_use]
    pub const fn is_rate(self) -> bool {
        matches!(self.place(), Place::Rate(_))
    }
}

/// Index into the buckets or the counts of a ledger.
enum Place {
    Rate(usize),
    Count(usize),
}

/// How fast a bucket fills and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Units that arrive each second.
    pub per_second: u64,
    /// Units the bucket holds: the most that one draw can get.
    pub burst: u64,
}

impl Rate {
    /// A rate that saves up at most one second of itself.
    #[must_use]
    pub const fn per_second(units: u64) -> Self {
        Self { per_second: units, burst: units }
    }
}

/// How much of each resource a tenant may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Events accepted at ingest.
    pub events: Rate,
    /// Bytes of request bodies accepted at ingest.
    pub bytes: Rate,
    /// Bytes of instance memories and frames in flight, at one time.
    pub memory_bytes: u64,
    /// Bytes of keyed state in memory, at one time.
    pub state_bytes: u64,
    /// Bytes on disk of what pipelines keep, at one time.
    pub disk_bytes: u64,
    /// Bytes of uploaded components, together.
    pub component_bytes: u64,
    /// Pipelines applied, at one time.
    pub pipelines: u64,
    /// Open streams, at one time.
    pub streams: u64,
    /// Open connections, at one time.
    pub connections: u64,
}

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

impl Allowance {
    /// What a tenant has unless the configuration or the tenants file says otherwise: enough for
    /// one tenant to use a small machine fully, and a bound on what it can take of its memory and
    /// its disk.
    pub const DEFAULT: Self = Self {
        events: Rate::per_second(10_000_000),
        bytes: Rate::per_second(1024 * MIB),
        memory_bytes: 1024 * MIB,
        state_bytes: 512 * MIB,
        disk_bytes: 16 * GIB,
        component_bytes: 1024 * MIB,
        pipelines: 100,
        streams: 100_000,
        connections: 1_000,
    };

    /// The limit of a resource: of a rate its units a second, of the others the most at one time.
    #[must_use]
    pub const fn limit(&self, resource: Resource) -> u64 {
        match resource {
            Resource::Events => self.events.per_second,
            Resource::Bytes => self.bytes.per_second,
            Resource::Memory => self.memory_bytes,
            Resource::State => self.state_bytes,
            Resource::Disk => self.disk_bytes,
            Resource::Components => self.component_bytes,
            Resource::Pipelines => self.pipelines,
            Resource::Streams => self.streams,
            Resource::Connections => self.connections,
        }
    }

    /// Sets the limit of a resource. A rate's burst becomes one second of it.
    pub const fn set_limit(&mut self, resource: Resource, limit: u64) {
        match resource {
            Resource::Events => self.events = Rate::per_second(limit),
            Resource::Bytes => self.bytes = Rate::per_second(limit),
            Resource::Memory => self.memory_bytes = limit,
            Resource::State => self.state_bytes = limit,
            Resource::Disk => self.disk_bytes = limit,
            Resource::Components => self.component_bytes = limit,
            Resource::Pipelines => self.pipelines = limit,
            Resource::Streams => self.streams = limit,
            Resource::Connections => self.connections = limit,
        }
    }
}

impl Default for Allowance {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A draw that was not granted: an expected answer, not a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the quota {} of {limit} is used up", resource.as_str())]
pub struct Refused {
    /// What there was not enough of.
    pub resource: Resource,
    /// The limit of it; see [`Allowance::limit`].
    pub limit: u64,
    /// When the same draw is worth another try. For a rate this is exact, if nobody else draws;
    /// for a counted resource it is a suggestion. `None`: never under this allowance.
    pub retry_after_micros: Option<u64>,
}

/// The bucket of one rate.
#[derive(Debug, Clone)]
struct Bucket {
    rate: Rate,
    /// What is in it, in millionths of a unit; at most the burst.
    level: u128,
    /// The latest time seen, in microseconds: the level is as of then.
    as_of: u64,
}

impl Bucket {
    /// A full one.
    const fn new(rate: Rate, now_micros: u64) -> Self {
        Self { rate, level: rate.burst as u128 * MILLION, as_of: now_micros }
    }

    /// Adds what arrived since the last look.
    fn refill(&mut self, now_micros: u64) {
        if now_micros <= self.as_of {
            return;
        }
        let elapsed = u128::from(now_micros - self.as_of);
        let missing = u128::from(self.rate.burst) * MILLION - self.level;
        // At most (2^64)^2: fits without a check.
        self.level += (u128::from(self.rate.per_second) * elapsed).min(missing);
        self.as_of = now_micros;
    }

    /// Takes `amount`, or says after how many microseconds it could be taken.
    fn draw(&mut self, amount: u64, now_micros: u64) -> Result<(), Option<u64>> {
        self.refill(now_micros);
        let wanted = u128::from(amount) * MILLION;
        if wanted <= self.level {
            self.level -= wanted;
            return Ok(());
        }
        if amount > self.rate.burst || self.rate.per_second == 0 {
            return Err(None);
        }
        let fill = (wanted - self.level).div_ceil(u128::from(self.rate.per_second));
        // A caller whose clock fell behind waits until it has caught up, too.
        let behind = u128::from(self.as_of.saturating_sub(now_micros));
        Err(Some(u64::try_from(fill + behind).unwrap_or(u64::MAX)))
    }

    /// Takes back a draw of this very moment.
    const fn undo(&mut self, amount: u64) {
        self.level += amount as u128 * MILLION;
    }
}

/// One tenant's account. See the file's documentation for what it promises.
#[derive(Debug, Clone)]
pub struct Ledger {
    allowance: Allowance,
    rates: [Bucket; 2],
    lent: [u64; COUNTED],
}

impl Ledger {
    /// An account with nothing lent and full buckets. `now_micros` is any clock that goes forward;
    /// all later times are by the same one.
    #[must_use]
    pub const fn new(allowance: Allowance, now_micros: u64) -> Self {
        let rates =
            [Bucket::new(allowance.events, now_micros), Bucket::new(allowance.bytes, now_micros)];
        Self { allowance, rates, lent: [0; COUNTED] }
    }

    /// Draws `amount` of one resource.
    ///
    /// # Errors
    /// [`Refused`] if there is not as much now; nothing was drawn then.
    pub fn draw(
        &mut self,
        resource: Resource,
        amount: u64,
        now_micros: u64,
    ) -> Result<(), Refused> {
        let limit = self.allowance.limit(resource);
        let refused = |retry_after_micros| Refused { resource, limit, retry_after_micros };
        match resource.place() {
            Place::Rate(at) => self.rates[at].draw(amount, now_micros).map_err(refused),
            Place::Count(at) => {
                let lent = &mut self.lent[at];
                match lent.checked_add(amount).filter(|sum| *sum <= limit || amount == 0) {
                    Some(sum) => {
                        *lent = sum;
                        Ok(())
                    }
                    None if amount > limit => Err(refused(None)),
                    None => Err(refused(Some(COUNTED_RETRY_MICROS))),
                }
            }
        }
    }

    /// Draws several amounts, all or none; the same resource may be named twice.
    ///
    /// # Errors
    /// [`Refused`] for the first that could not be drawn; nothing was drawn then.
    pub fn draw_all(&mut self, draws: &[(Resource, u64)], now_micros: u64) -> Result<(), Refused> {
        for (done, &(resource, amount)) in draws.iter().enumerate() {
            if let Err(refused) = self.draw(resource, amount, now_micros) {
                for &(resource, amount) in &draws[..done] {
                    match resource.place() {
                        Place::Rate(at) => self.rates[at].undo(amount),
                        Place::Count(at) => self.lent[at] -= amount,
                    }
                }
                return Err(refused);
            }
        }
        Ok(())
    }

    /// Puts back an amount of a counted resource that was drawn.
    ///
    /// # Panics
    /// If the resource is a rate, or if more is put back than is lent: both are our own mistakes,
    /// and an account that went on would no longer keep the sum rule.
    pub fn put_back(&mut self, resource: Resource, amount: u64) {
        let Place::Count(at) = resource.place() else {
            panic!("{} is spent, not lent", resource.as_str());
        };
        let left = self.lent[at].checked_sub(amount);
        assert!(left.is_some(), "more {} put back than lent", resource.as_str());
        self.lent[at] = left.unwrap_or_default();
    }

    /// How much of a counted resource is lent; zero for a rate.
    #[must_use]
    pub const fn lent(&self, resource: Resource) -> u64 {
        match resource.place() {
            Place::Rate(_) => 0,
            Place::Count(at) => self.lent[at],
        }
    }

    /// The most that one draw could get now; whole units of a rate.
    #[must_use]
    pub fn left(&self, resource: Resource, now_micros: u64) -> u64 {
        match resource.place() {
            Place::Rate(at) => {
                let mut bucket = self.rates[at].clone();
                bucket.refill(now_micros);
                u64::try_from(bucket.level / MILLION).unwrap_or(u64::MAX)
            }
            Place::Count(at) => self.allowance.limit(resource).saturating_sub(self.lent[at]),
        }
    }

    /// The allowance in force.
    #[must_use]
    pub const fn allowance(&self) -> &Allowance {
        &self.allowance
    }

    /// Puts another allowance in force from now on. What is lent stays lent; a bucket keeps what
    /// is in it, up to the new burst.
    pub fn change(&mut self, allowance: Allowance, now_micros: u64) {
        self.allowance = allowance;
        for (bucket, rate) in self.rates.iter_mut().zip([allowance.events, allowance.bytes]) {
            bucket.refill(now_micros);
            bucket.level = bucket.level.min(u128::from(rate.burst) * MILLION);
            bucket.rate = rate;
        }
    }
}

#[cfg(test)]
mod tests;
