//! What the tenants file says of a tenant's share of the GPU: the table `gpu`.
//!
//! ```toml
//! [tenants.acme.gpu]               # each overrides what is configured
//! share = 250                      # thousandths of the device's time, promised
//! share-max = 500                  # thousandths that it never gets more than
//! memory-bytes = "1GiB"            # promised
//! memory-bytes-lent = "2GiB"       # besides, while nobody needs it who is promised it
//! ```

use std::fmt::Write as _;

use sluicebox_core::ids::Name;
use toml::{Table, Value};

use crate::config::quantity::{parse_size, size_text};

/// Thousandths there are.
const WHOLE: u32 = 1_000;

/// What differs from what is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GpuShare {
    /// Thousandths of the device's time that it is promised.
    pub share: Option<u32>,
    /// Thousandths of it that it never gets more than.
    pub share_max: Option<u32>,
    /// Memory that it is promised.
    pub memory_bytes: Option<u64>,
    /// Memory that it may have besides.
    pub memory_bytes_lent: Option<u64>,
}

/// The fields of the table.
pub(super) const FIELDS: [&str; 4] = ["share", "share-max", "memory-bytes", "memory-bytes-lent"];

/// Reads the table; `wrong` is told which field is no share or no size, and what to write.
pub(super) fn read(table: &Table, mut wrong: impl FnMut(&str, &str)) -> GpuShare {
    let mut part = |name: &str, least: u32| {
        let value = table.get(name)?;
        let part = value.as_integer().and_then(|part| u32::try_from(part).ok());
        let part = part.filter(|part| (least..=WHOLE).contains(part));
        if part.is_none() {
            wrong(name, &format!("write thousandths of the device, {least} to {WHOLE}"));
        }
        part
    };
    let (share, share_max) = (part("share", 0), part("share-max", 1));
    let mut size = |name: &str| {
        let value = table.get(name)?;
        let bytes = value.as_str().and_then(parse_size);
        if bytes.is_none() {
            wrong(name, "write a size in quotes, such as \"512MiB\"");
        }
        bytes
    };
    let memory_bytes = size("memory-bytes");
    GpuShare { share, share_max, memory_bytes, memory_bytes_lent: size("memory-bytes-lent") }
}

/// Writes the table, if it says anything.
pub(super) fn write(text: &mut String, name: &Name, share: &GpuShare) -> std::fmt::Result {
    if *share == GpuShare::default() {
        return Ok(());
    }
    writeln!(text, "\n[tenants.{name}.gpu]")?;
    for (field, part) in [("share", share.share), ("share-max", share.share_max)] {
        if let Some(part) = part {
            writeln!(text, "{field} = {part}")?;
        }
    }
    let sizes =
        [("memory-bytes", share.memory_bytes), ("memory-bytes-lent", share.memory_bytes_lent)];
    for (field, bytes) in sizes {
        if let Some(bytes) = bytes {
            writeln!(text, "{field} = {}", Value::String(size_text(bytes)))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_mistakes_are_named() {
        let share = GpuShare {
            share: Some(250),
            share_max: None,
            memory_bytes: Some(1 << 30),
            memory_bytes_lent: Some(0),
        };
        let mut text = String::new();
        write(&mut text, &Name::new("acme").unwrap(), &share).unwrap();
        let file: Table = text.parse().unwrap();
        let table = file["tenants"]["acme"]["gpu"].as_table().unwrap();
        assert_eq!(read(table, |field, _| panic!("{field}")), share);

        let table: Table =
            "share = 1001\nshare-max = 0\nmemory-bytes = 5\nmemory-bytes-lent = \"x\""
                .parse()
                .unwrap();
        let mut wrongs = Vec::new();
        assert_eq!(read(&table, |field, _| wrongs.push(field.to_owned())), GpuShare::default());
        assert_eq!(wrongs, FIELDS);
    }
}
