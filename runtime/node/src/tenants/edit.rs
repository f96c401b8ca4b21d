//! Changing the tenants file, as the command does it.
//!
//! An [`Edit`] holds the lock from reading to writing, so that of two commands at one time neither
//! is lost. Nothing is written before [`Edit::commit`]; a running node picks the change up by
//! itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use sluicebox_core::ids::Name;
use sluicebox_core::quota::Resource;
use toml::value::{Date, Datetime, Offset, Time};

use super::disk::{self, Folder};
use super::error::Error;
use super::file::{
    self, Entry, Isolation, QUOTA_MAX, TENANTS_MAX, TOKENS_MAX, TokenEntry, WEIGHT_MAX,
};
use super::scope::Scopes;
use super::token::{Token, random};

/// The file, read and locked for a change.
#[derive(Debug)]
pub struct Edit {
    folder: Folder,
    path: PathBuf,
    tenants: BTreeMap<Name, Entry>,
}

impl Edit {
    /// Locks and reads the file; one that is not there yet has no tenants.
    ///
    /// # Errors
    /// [`Error`] if it has mistakes: what a person wrote is not overwritten.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let folder = Folder::lock(path)?;
        let tenants = match disk::read(path) {
            Ok((text, _)) => file::parse(path, &text)?,
            Err(Error::Missing { .. }) => BTreeMap::new(),
            Err(e) => return Err(e),
        };
        Ok(Self { folder, path: path.into(), tenants })
    }

    /// All tenants, in the order of their names.
    #[must_use]
    pub const fn tenants(&self) -> &BTreeMap<Name, Entry> {
        &self.tenants
    }

    /// Adds a tenant with default quotas and no token.
    ///
    /// # Errors
    /// [`Error::TenantExists`]; [`Error::OutOfRange`] if there are too many.
    pub fn add(&mut self, name: &Name) -> Result<(), Error> {
        if self.tenants.contains_key(name) {
            return Err(Error::TenantExists { name: name.clone() });
        }
        if self.tenants.len() >= TENANTS_MAX {
            let allowed = format!("at most {TENANTS_MAX}");
            return Err(Error::OutOfRange { what: "the number of tenants", allowed });
        }
        self.tenants.insert(name.clone(), Entry::default());
        Ok(())
    }

    /// Removes a tenant with its tokens.
    ///
    /// # Errors
    /// [`Error::TenantUnknown`].
    pub fn remove(&mut self, name: &Name) -> Result<(), Error> {
        let unknown = || Error::TenantUnknown { name: name.clone() };
        self.tenants.remove(name).map(drop).ok_or_else(unknown)
    }

    /// Makes a token. Without an id it gets a random one. Both are given back; the token is to be
    /// shown after the commit, and never again.
    ///
    /// # Errors
    /// [`Error::TenantUnknown`]; [`Error::TokenExists`]; [`Error::OutOfRange`] without a scope or
    /// with too many tokens; [`Error::NoRandomness`].
    pub fn add_token(
        &mut self,
        tenant: &Name,
        id: Option<Name>,
        scopes: Scopes,
        now: SystemTime,
    ) -> Result<(Name, Token), Error> {
        let entry = self.entry(tenant)?;
        if scopes.is_empty() {
            let allowed = "at least one of read, ingest, write and admin".into();
            return Err(Error::OutOfRange { what: "the scopes of a token", allowed });
        }
        if entry.tokens.len() >= TOKENS_MAX {
            let allowed = format!("at most {TOKENS_MAX}; revoke some");
            return Err(Error::OutOfRange { what: "the number of tokens", allowed });
        }
        let id = id.map_or_else(random_id, Ok)?;
        if entry.tokens.iter().any(|token| token.id == id) {
            return Err(Error::TokenExists { tenant: tenant.clone(), id });
        }
        let token = Token::new(tenant)?;
        let created = Some(utc(now));
        entry.tokens.push(TokenEntry { id: id.clone(), hash: token.hash(), scopes, created });
        Ok((id, token))
    }

    /// Takes a token away.
    ///
    /// # Errors
    /// [`Error::TenantUnknown`]; [`Error::TokenUnknown`].
    pub fn revoke_token(&mut self, tenant: &Name, id: &Name) -> Result<(), Error> {
        let tokens = &mut self.entry(tenant)?.tokens;
        let before = tokens.len();
        tokens.retain(|token| token.id != *id);
        if tokens.len() == before {
            return Err(Error::TokenUnknown { tenant: tenant.clone(), id: id.clone() });
        }
        Ok(())
    }

    /// Sets a quota, or with `None` goes back to the default.
    ///
    /// # Errors
    /// [`Error::TenantUnknown`]; [`Error::OutOfRange`].
    pub fn set_quota(
        &mut self,
        tenant: &Name,
        resource: Resource,
        limit: Option<u64>,
    ) -> Result<(), Error> {
        let quota = &mut self.entry(tenant)?.quota;
        match limit {
            Some(limit) if limit > QUOTA_MAX => {
                let allowed = format!("at most {QUOTA_MAX}");
                return Err(Error::OutOfRange { what: resource.as_str(), allowed });
            }
            Some(limit) => quota.insert(resource, limit),
            None => quota.remove(&resource),
        };
        Ok(())
    }

    /// Sets the weight.
    ///
    /// # Errors
    /// [`Error::TenantUnknown`]; [`Error::OutOfRange`].
    pub fn set_weight(&mut self, tenant: &Name, weight: u8) -> Result<(), Error> {
        let entry = self.entry(tenant)?;
        if !(1..=WEIGHT_MAX).contains(&weight) {
            let allowed = format!("1 to {WEIGHT_MAX}");
            return Err(Error::OutOfRange { what: "weight", allowed });
        }
        entry.weight = weight;
        Ok(())
    }

    /// Sets what the tenant shares with others, or with `None` leaves it to the configuration.
    ///
    /// # Errors
    /// [`Error::TenantUnknown`].
    pub fn set_isolation(
        &mut self,
        tenant: &Name,
        isolation: Option<Isolation>,
    ) -> Result<(), Error> {
        self.entry(tenant)?.isolation = isolation;
        Ok(())
    }

    /// Writes the file, whole or not at all, and ends the lock.
    ///
    /// # Errors
    /// [`Error::Io`]; the file is as it was, unless only the last step, bringing the folder to
    /// disk, has failed.
    pub fn commit(self) -> Result<(), Error> {
        let text = file::render(&self.tenants);
        debug_assert_eq!(file::parse(&self.path, &text).ok().as_ref(), Some(&self.tenants));
        self.folder.write(&text)
    }

    fn entry(&mut self, name: &Name) -> Result<&mut Entry, Error> {
        self.tenants.get_mut(name).ok_or_else(|| Error::TenantUnknown { name: name.clone() })
    }
}

/// An id that was never used before: one that comes back would mislead a reader of logs.
fn random_id() -> Result<Name, Error> {
    let hex =
        |byte: u8| [byte >> 4, byte & 15].map(|n| b"0123456789abcdef"[usize::from(n)] as char);
    let text: String =
        ['t', '-'].into_iter().chain(random::<4>()?.into_iter().flat_map(hex)).collect();
    Ok(Name::new(&text).expect("t- and hex digits keep the rule for names"))
}

/// The time in UTC, to the second.
fn utc(time: SystemTime) -> Datetime {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Counted in years that begin in March, so that the day that is sometimes there is the last.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    // Each is in range by the divisions above, but for a year after 9999, which TOML has not.
    let year = u16::try_from(era * 400 + year).unwrap_or(u16::MAX).min(9999);
    let small = |n: u64| u8::try_from(n).expect("a remainder of a division by less than 256");
    Datetime {
        date: Some(Date { year, month: small(month), day: small(day) }),
        time: Some(Time {
            hour: small(second / 3600),
            minute: small(second / 60 % 60),
            second: Some(small(second % 60)),
            nanosecond: None,
        }),
        offset: Some(Offset::Z),
    }
}

#[cfg(test)]
mod tests;
