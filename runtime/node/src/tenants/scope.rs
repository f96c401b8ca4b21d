//! What a token may be used for.

use std::fmt;

/// One thing that a token may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// List and describe pipelines and components, read outputs and the tenant's own figures.
    Read,
    /// Send events.
    Ingest,
    /// Upload components, apply and delete pipelines.
    Write,
    /// Read what concerns the node as a whole: figures of all tenants, the state of its workers.
    /// Contains none of the others.
    Admin,
}

impl Scope {
    /// Every scope, in the order they are written.
    pub const ALL: [Self; 4] = [Self::Read, Self::Ingest, Self::Write, Self::Admin];

    /// The word in the file, in commands and in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Ingest => "ingest",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }

    /// The scope of a word; `None` if it is none.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == word)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Scopes(u8);

impl Scopes {
    /// Every scope.
    pub const ALL: Self = Self(0b1111);

    /// What the owner of a pipeline needs: everything but the node as a whole.
    pub const TENANT: Self = Self(0b0111);

    /// True if the scope is in it.
    #[must_use]
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// True if no scope is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The scopes in it, in the order they are written.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope))
    }

    /// Reads words separated by commas, as in a command: `read,ingest`.
    ///
    /// # Errors
    /// A message that names the first word that is not a scope.
    pub fn parse(words: &str) -> Result<Self, String> {
        let scope = |word: &str| {
            let word = word.trim();
            let shown: String = word.chars().take(40).collect();
            Scope::parse(word).ok_or_else(|| {
                format!("{shown:?} is not a scope; use read, ingest, write or admin")
            })
        };
        words.split(',').map(scope).collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<T: IntoIterator<Item = Scope>>(scopes: T) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.iter().map(Scope::as_str).collect();
        f.write_str(&words.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_read_back_as_they_were_written() {
        for bits in 1..=Scopes::ALL.0 {
            assert_eq!(Scopes::parse(&Scopes(bits).to_string()), Ok(Scopes(bits)));
        }
        assert_eq!(Scope::ALL.into_iter().collect::<Scopes>(), Scopes::ALL);
        assert!(!Scopes::TENANT.contains(Scope::Admin) && Scopes::TENANT.contains(Scope::Write));
    }

    #[test]
    fn a_word_that_is_no_scope_is_named() {
        for bad in ["", "read,", "Read", "read,wirte", "all"] {
            assert!(Scopes::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Scopes::parse("read, wirte").unwrap_err().contains("\"wirte\""));
    }
}
