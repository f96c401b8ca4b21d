//! The shapes a setting's value can have: what is read, what is allowed, how it is written.
//!
//! A shape refuses what is out of range with the range in the message, and writes a value in the
//! form it reads. Files are strict about types (a number is not a text); flags and environment
//! variables are always text and are read as what the field wants.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sluicebox_core::ids::Name;
use sluicebox_link::tls::NodeName;

use super::cluster::{NODES_MAX, NodeAddress};
use super::quantity::{duration_text, parse_duration, parse_size, size_text};
use super::reader::Raw;

/// Why a value was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    /// What is wrong.
    pub(super) message: String,
    /// What is allowed.
    pub(super) fix: String,
}

/// What a field's value looks like.
pub(super) trait Shape {
    /// The checked value.
    type Value;
    /// What holds if nobody says anything.
    fn default(&self) -> Self::Value;
    /// Reads and checks.
    ///
    /// # Errors
    /// What is wrong, and what is allowed.
    fn read(&self, raw: &Raw) -> Result<Self::Value, Wrong>;
    /// The value in the form the file takes it.
    fn write(&self, value: &Self::Value) -> String;
    /// What is allowed, in words.
    fn allowed(&self) -> String;
}

pub(super) fn wrong<S: Shape>(shape: &S, raw: &Raw) -> Wrong {
    Wrong {
        message: format!("{raw} is not allowed"),
        fix: format!("it must be {}", shape.allowed()),
    }
}

/// A whole number in a range.
#[derive(Debug, Clone, Copy)]
pub(super) struct Count<T> {
    /// What holds without the setting.
    pub(super) default: T,
    /// The least that is accepted.
    pub(super) least: T,
    /// The most that is accepted.
    pub(super) most: T,
}

impl<T: Copy + PartialOrd + TryFrom<u64> + fmt::Display> Shape for Count<T> {
    type Value = T;

    fn default(&self) -> T {
        self.default
    }

    fn read(&self, raw: &Raw) -> Result<T, Wrong> {
        let number = match raw {
            Raw::Integer(number) => u64::try_from(*number).ok(),
            Raw::Word(text) => text.parse().ok(),
            Raw::Text(_) | Raw::Boolean(_) | Raw::List(_) | Raw::Other(_) => None,
        };
        number
            .and_then(|number| T::try_from(number).ok())
            .filter(|number| (self.least..=self.most).contains(number))
            .ok_or_else(|| wrong(self, raw))
    }

    fn write(&self, value: &T) -> String {
        value.to_string()
    }

    fn allowed(&self) -> String {
        if self.least == self.most {
            return self.most.to_string();
        }
        format!("a whole number from {} to {}", self.least, self.most)
    }
}

/// A number of bytes with a unit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes {
    /// What holds without the setting.
    pub(super) default: usize,
    /// The least that is accepted.
    pub(super) least: usize,
    /// The most that is accepted.
    pub(super) most: usize,
}

impl Shape for Bytes {
    type Value = usize;

    fn default(&self) -> usize {
        self.default
    }

    fn read(&self, raw: &Raw) -> Result<usize, Wrong> {
        let bytes = match raw {
            Raw::Text(text) | Raw::Word(text) => parse_size(text),
            Raw::Integer(_) | Raw::Boolean(_) | Raw::List(_) | Raw::Other(_) => None,
        };
        bytes
            .and_then(|bytes| usize::try_from(bytes).ok())
            .filter(|bytes| (self.least..=self.most).contains(bytes))
            .ok_or_else(|| wrong(self, raw))
    }

    fn write(&self, value: &usize) -> String {
        format!("\"{}\"", size_text(*value as u64))
    }

    fn allowed(&self) -> String {
        let (least, most) = (size_text(self.least as u64), size_text(self.most as u64));
        format!("a size with a unit, from \"{least}\" to \"{most}\"")
    }
}

/// A length of time with a unit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Period {
    /// What holds without the setting.
    pub(super) default: Duration,
    /// The least that is accepted.
    pub(super) least: Duration,
    /// The most that is accepted.
    pub(super) most: Duration,
}

impl Shape for Period {
    type Value = Duration;

    fn default(&self) -> Duration {
        self.default
    }

    fn read(&self, raw: &Raw) -> Result<Duration, Wrong> {
        let period = match raw {
            Raw::Text(text) | Raw::Word(text) => parse_duration(text),
            Raw::Integer(_) | Raw::Boolean(_) | Raw::List(_) | Raw::Other(_) => None,
        };
        period
            .filter(|period| (self.least..=self.most).contains(period))
            .ok_or_else(|| wrong(self, raw))
    }

    fn write(&self, value: &Duration) -> String {
        format!("\"{}\"", duration_text(*value))
    }

    fn allowed(&self) -> String {
        let (least, most) = (duration_text(self.least), duration_text(self.most));
        format!("a duration with a unit, from \"{least}\" to \"{most}\"")
    }
}

/// `true` or `false`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Switch {
    /// What holds without the setting.
    pub(super) default: bool,
}

impl Shape for Switch {
    type Value = bool;

    fn default(&self) -> bool {
        self.default
    }

    fn read(&self, raw: &Raw) -> Result<bool, Wrong> {
        match raw {
            Raw::Boolean(flag) => Ok(*flag),
            Raw::Word(word) => word.parse().map_err(|_| wrong(self, raw)),
            Raw::Text(_) | Raw::Integer(_) | Raw::List(_) | Raw::Other(_) => Err(wrong(self, raw)),
        }
    }

    fn write(&self, value: &bool) -> String {
        value.to_string()
    }

    fn allowed(&self) -> String {
        "true or false".to_owned()
    }
}

/// An address and a port; port 0 takes a free one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address {
    /// What holds without the setting.
    pub(super) default: SocketAddr,
}

impl Shape for Address {
    type Value = SocketAddr;

    fn default(&self) -> SocketAddr {
        self.default
    }

    fn read(&self, raw: &Raw) -> Result<SocketAddr, Wrong> {
        match raw {
            Raw::Text(text) | Raw::Word(text) => text.parse().map_err(|_| wrong(self, raw)),
            Raw::Integer(_) | Raw::Boolean(_) | Raw::List(_) | Raw::Other(_) => {
                Err(wrong(self, raw))
            }
        }
    }

    fn write(&self, value: &SocketAddr) -> String {
        format!("\"{value}\"")
    }

    fn allowed(&self) -> String {
        "an IP address and a port, such as \"127.0.0.1:7411\" or \"[::1]:7411\"".to_owned()
    }
}

/// A path of the file system.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// What holds without the setting.
    pub(super) default: PathBuf,
}

impl Shape for Place {
    type Value = PathBuf;

    fn default(&self) -> PathBuf {
        self.default.clone()
    }

    fn read(&self, raw: &Raw) -> Result<PathBuf, Wrong> {
        match raw {
            Raw::Text(text) | Raw::Word(text) if !text.is_empty() && !text.contains('\0') => {
                Ok(PathBuf::from(text))
            }
            _ => Err(wrong(self, raw)),
        }
    }

    fn write(&self, value: &PathBuf) -> String {
        toml::Value::String(value.to_string_lossy().into_owned()).to_string()
    }

    fn allowed(&self) -> String {
        "a path".to_owned()
    }
}

/// A path of the file system that need not be there: empty for none.
#[derive(Debug, Clone, Copy)]
pub(super) struct MaybePlace;

impl Shape for MaybePlace {
    type Value = Option<PathBuf>;

    fn default(&self) -> Option<PathBuf> {
        None
    }

    fn read(&self, raw: &Raw) -> Result<Option<PathBuf>, Wrong> {
        match raw {
            Raw::Text(text) | Raw::Word(text) if !text.contains('\0') => {
                Ok((!text.is_empty()).then(|| PathBuf::from(text)))
            }
            _ => Err(wrong(self, raw)),
        }
    }

    fn write(&self, value: &Option<PathBuf>) -> String {
        let text = value.as_ref().map(|path| path.to_string_lossy().into_owned());
        toml::Value::String(text.unwrap_or_default()).to_string()
    }

    fn allowed(&self) -> String {
        "a path, or empty for none".to_owned()
    }
}

/// The name of a node, or empty for none.
#[derive(Debug, Clone, Copy)]
pub(super) struct MaybeNode;

impl Shape for MaybeNode {
    type Value = Option<NodeName>;

    fn default(&self) -> Option<NodeName> {
        None
    }

    fn read(&self, raw: &Raw) -> Result<Option<NodeName>, Wrong> {
        match raw {
            Raw::Text(text) | Raw::Word(text) if text.is_empty() => Ok(None),
            Raw::Text(text) | Raw::Word(text) => {
                NodeName::new(text).map(Some).map_err(|_| wrong(self, raw))
            }
            _ => Err(wrong(self, raw)),
        }
    }

    fn write(&self, value: &Option<NodeName>) -> String {
        format!("\"{}\"", value.as_ref().map_or("", NodeName::as_str))
    }

    fn allowed(&self) -> String {
        "a name that DNS allows, such as \"node-1\", or empty for none".to_owned()
    }
}

/// A name, or empty for none.
#[derive(Debug, Clone, Copy)]
pub(super) struct MaybeName;

impl Shape for MaybeName {
    type Value = Option<Name>;

    fn default(&self) -> Option<Name> {
        None
    }

    fn read(&self, raw: &Raw) -> Result<Option<Name>, Wrong> {
        match raw {
            Raw::Text(text) | Raw::Word(text) if text.is_empty() => Ok(None),
            Raw::Text(text) | Raw::Word(text) => {
                Name::new(text).map(Some).map_err(|_| wrong(self, raw))
            }
            _ => Err(wrong(self, raw)),
        }
    }

    fn write(&self, value: &Option<Name>) -> String {
        format!("\"{}\"", value.as_ref().map_or("", Name::as_str))
    }

    fn allowed(&self) -> String {
        "a name such as \"rack-3\": 1 to 63 of a-z, 0-9 and '-'; or empty for none".to_owned()
    }
}

/// Nodes with their addresses: an array in a file, separated by commas elsewhere.
#[derive(Debug, Clone, Copy)]
pub(super) struct NodeList;

impl Shape for NodeList {
    type Value = Vec<NodeAddress>;

    fn default(&self) -> Vec<NodeAddress> {
        Vec::new()
    }

    fn read(&self, raw: &Raw) -> Result<Vec<NodeAddress>, Wrong> {
        let refused = || wrong(self, raw);
        let texts: Vec<&str> = match raw {
            Raw::List(items) => items.iter().map(String::as_str).collect(),
            Raw::Word(text) => text.split(',').filter(|item| !item.trim().is_empty()).collect(),
            _ => return Err(refused()),
        };
        let mut nodes: Vec<NodeAddress> = Vec::new();
        for text in texts {
            let node: NodeAddress = text.parse().map_err(|()| refused())?;
            if nodes.len() == NODES_MAX || nodes.iter().any(|known| known.name == node.name) {
                return Err(refused());
            }
            nodes.push(node);
        }
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(nodes)
    }

    fn write(&self, value: &Vec<NodeAddress>) -> String {
        let items: Vec<String> = value.iter().map(|node| format!("\"{node}\"")).collect();
        format!("[{}]", items.join(", "))
    }

    fn allowed(&self) -> String {
        format!(
            "at most {NODES_MAX} nodes of different names, as [\"a=10.0.0.1:7421\", …], or as \
             a=10.0.0.1:7421,… outside of a file"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_listed_in_a_file_and_in_a_flag() {
        let list = Raw::List(vec!["b=h:2".to_owned(), "a=h:1".to_owned()]);
        let nodes = NodeList.read(&list).unwrap();
        assert_eq!(NodeList.write(&nodes), r#"["a=h:1", "b=h:2"]"#);
        assert_eq!(NodeList.read(&Raw::Word("a=h:1, b=h:2".to_owned())), Ok(nodes));
        let refused = Raw::Word("a=h:1,a=h:2".to_owned());
        assert!(NodeList.read(&refused).is_err(), "two of one name");
        assert!(NodeList.read(&Raw::Text("a=h:1".to_owned())).is_err(), "a file has a list");
        assert_eq!(NodeList.read(&Raw::Word(String::new())), Ok(Vec::new()));
    }

    #[test]
    fn what_is_out_of_range_names_the_range() {
        let shape = Bytes { default: 1 << 20, least: 1 << 10, most: 1 << 30 };
        let refused = shape.read(&Raw::Text("2GiB".to_owned())).unwrap_err();
        assert_eq!(refused.message, "\"2GiB\" is not allowed");
        assert_eq!(refused.fix, "it must be a size with a unit, from \"1KiB\" to \"1GiB\"");
        assert!(shape.read(&Raw::Integer(4096)).is_err(), "a size without a unit was taken");
        assert_eq!(shape.read(&Raw::Word("64KiB".to_owned())), Ok(64 << 10));
    }

    #[test]
    fn a_count_refuses_negative_fractional_and_quoted_numbers() {
        let shape = Count { default: 1_u32, least: 0, most: u32::MAX };
        for raw in [
            Raw::Integer(-1),
            Raw::Integer(1 << 40),
            Raw::Other("a number with a fraction"),
            Raw::Text("7".to_owned()),
            Raw::Word("7.5".to_owned()),
        ] {
            assert!(shape.read(&raw).is_err(), "{raw:?}");
        }
        assert_eq!(shape.read(&Raw::Word("7".to_owned())), Ok(7));
    }

    #[test]
    fn every_shape_reads_what_it_writes() {
        let period = Period {
            default: Duration::from_secs(30),
            least: Duration::ZERO,
            most: Duration::from_secs(3600),
        };
        assert_eq!(period.write(&period.default), "\"30s\"");
        assert_eq!(period.read(&Raw::Text("30s".to_owned())), Ok(period.default));
        let address = Address { default: SocketAddr::from(([127, 0, 0, 1], 7411)) };
        assert_eq!(address.write(&address.default), "\"127.0.0.1:7411\"");
        assert_eq!(address.read(&Raw::Text("[::1]:80".to_owned())).map(|a| a.port()), Ok(80));
        assert!(address.read(&Raw::Text("localhost:80".to_owned())).is_err());
        let place = Place { default: PathBuf::from("/var/lib/a b") };
        assert_eq!(place.write(&place.default), "\"/var/lib/a b\"");
        for path in [None, Some(PathBuf::from("/etc/a b"))] {
            let written = MaybePlace.write(&path);
            let text = written.trim_matches('"').to_owned();
            assert_eq!(MaybePlace.read(&Raw::Text(text)), Ok(path), "{written}");
        }
    }
}
