//! The node's GPU: which device, and what of it tenants have.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::reader::{Raw, Reader};
use super::shape::{Bytes, Count, Period, Shape, Switch, Wrong, wrong};
use super::{GIB, HOUR, MIB, MILLISECOND, MINUTE, SECOND, TIB};

section! {
    /// The GPU of the node, and what a tenant has of it unless the tenants file says otherwise.
    GpuConfig in "gpu" {
        /// The device that stages with the grant `gpu` get slices of; nothing is looked for before
        /// one is there.
        device: GpuDevice = WhichDevice;
        /// How much of the device's memory is used at most.
        memory_bytes_max: usize = Bytes { default: TIB, least: MIB, most: 64 * TIB };
        /// Thousandths of the device's time that a tenant gets whenever it has enough to do.
        share: u32 = Count { default: 50, least: 0, most: 1_000 };
        /// Thousandths of it that a tenant never gets more than; 1000: whatever is free.
        share_max: u32 = Count { default: 1_000, least: 1, most: 1_000 };
        /// Device memory that a tenant has in any case.
        memory_bytes: usize = Bytes { default: 64 * MIB, least: 0, most: 64 * TIB };
        /// Device memory that a tenant may have besides, while nobody needs it who is promised it.
        memory_bytes_lent: usize = Bytes { default: GIB, least: 0, most: 64 * TIB };
        /// How long the process that has the device goes on when no instance has anything of it.
        idle_time_max: Duration =
            Period { default: MINUTE, least: 100 * MILLISECOND, most: 24 * HOUR };
        /// Longest time until that process has its device.
        start_time_max: Duration = Period { default: 30 * SECOND, least: SECOND, most: HOUR };
        /// Whether that process keeps only the files, devices and system calls that drivers are
        /// known to need; false is for a driver that does not work so, and leaves it the node's.
        hold_in: bool = Switch { default: true };
    }
}

/// Which device it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GpuDevice {
    /// None.
    Off,
    /// One with memory of its own before one without.
    Best,
    /// The same, and before none the processor, by a driver of Vulkan.
    Any,
    /// One with memory of its own.
    Discrete,
    /// One that shares memory with the processor.
    Integrated,
    /// The processor, by a driver of Vulkan.
    Software,
    /// The processor without one, slowly: for tests.
    Interpreter,
    /// One whose name has this in it.
    Named(String),
}

impl GpuDevice {
    const WORDS: [(&str, Self); 7] = [
        ("off", Self::Off),
        ("best", Self::Best),
        ("any", Self::Any),
        ("discrete", Self::Discrete),
        ("integrated", Self::Integrated),
        ("software", Self::Software),
        ("interpreter", Self::Interpreter),
    ];
}

/// What the name of a device follows.
const NAMED: &str = "name:";

impl FromStr for GpuDevice {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Some(part) = text.strip_prefix(NAMED) {
            let is_name = !part.is_empty() && part.len() <= 256 && !part.contains(char::is_control);
            return is_name.then(|| Self::Named(part.to_owned())).ok_or(());
        }
        let known = Self::WORDS.into_iter().find(|(word, _)| *word == text);
        known.map(|(_, device)| device).ok_or(())
    }
}

impl fmt::Display for GpuDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Named(part) = self {
            return write!(f, "{NAMED}{part}");
        }
        let word = Self::WORDS.iter().find(|(_, device)| device == self);
        f.write_str(word.map_or("off", |(word, _)| word))
    }
}

/// The shape of [`GpuDevice`].
struct WhichDevice;

impl Shape for WhichDevice {
    type Value = GpuDevice;

    fn default(&self) -> GpuDevice {
        GpuDevice::Best
    }

    fn read(&self, raw: &Raw) -> Result<GpuDevice, Wrong> {
        let (Raw::Text(text) | Raw::Word(text)) = raw else { return Err(wrong(self, raw)) };
        text.parse().map_err(|()| wrong(self, raw))
    }

    fn write(&self, value: &GpuDevice) -> String {
        toml::Value::String(value.to_string()).to_string()
    }

    fn allowed(&self) -> String {
        "\"best\", \"any\", \"off\", \"discrete\", \"integrated\", \"software\", \"interpreter\", or \
         \"name:\" and a part of the device's name"
            .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_a_word_or_a_name() {
        for text in
            ["off", "best", "any", "discrete", "integrated", "software", "interpreter", "name:x 1"]
        {
            let device: GpuDevice = text.parse().unwrap();
            assert_eq!(device.to_string(), text);
        }
        for text in ["", "on", "name:", "name:\n", "Best"] {
            assert_eq!(text.parse::<GpuDevice>(), Err(()), "{text:?}");
        }
    }
}
