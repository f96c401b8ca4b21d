//! Who may use the node: tenants, their tokens, scopes and quotas, from one file.
//!
//! - A token is known by its SHA-256 only; the file cannot be used to get in.
//! - A [`Set`] is one reading of the file and never changes. A request holds on to the one it was
//!   checked with; a reload puts another in its place, or, if the new file has a mistake, none.
//! - The file is refused if users other than its owner can read it.
//! - Looking a token up costs one SHA-256 and one look into a map; how long it takes says nothing
//!   about the hashes that are stored.
//!
//! Leaves to others: what a request needs (`http`), counting against the quotas (`admission`),
//! when to look for changes (`node`). The command changes the file through [`Edit`].

mod disk;
mod edit;
mod error;
mod file;
mod gpu;
mod scope;
mod token;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use sluicebox_core::ids::Name;
use sluicebox_core::quota::{Allowance, Resource};

pub use self::edit::Edit;
pub use self::error::Error;
pub use self::file::{Entry, Isolation, TokenEntry, WEIGHT_DEFAULT, WEIGHT_MAX};
pub use self::gpu::GpuShare;
pub use self::scope::{Scope, Scopes};
pub use self::token::{Token, TokenHash};

/// The tenant of development mode, the only one then.
pub const DEV: &str = "dev";

/// Whom a request comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The tenant; every path, metric, file and key of the request is in its name.
    pub tenant: Name,
    /// What the token may be used for.
    pub scopes: Scopes,
    /// Which of the tenant's tokens it is, for logs; none in development mode.
    pub token: Option<Name>,
}

/// A tenant as the node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its name.
    pub name: Name,
    /// Its share of the workers beside other tenants' weights, 1 to 100.
    pub weight: u8,
    /// Its quotas: what the file says, else the defaults.
    pub allowance: Allowance,
    /// What it shares with others, if the file says.
    pub isolation: Option<Isolation>,
    /// What it has of the GPU, where that is not as configured.
    pub gpu: GpuShare,
}

/// All tenants, as the file had them at one time.
#[derive(Debug, Default)]
pub struct Set {
    tenants: BTreeMap<Name, Tenant>,
    /// By the first bytes of the hash. An attacker who learns from the time a look-up takes
    /// whether a place is empty learns eight bytes of a hash, which lead to no token.
    grants: HashMap<u64, Vec<Grant>>,
}

/// A stored hash and whom it lets in.
#[derive(Debug)]
struct Grant {
    hash: TokenHash,
    identity: Identity,
}

impl Set {
    fn new(entries: &BTreeMap<Name, Entry>, defaults: &Allowance) -> Self {
        let mut set = Self::default();
        for (name, entry) in entries {
            let allowance = entry.allowance(defaults);
            let Entry { weight, isolation, gpu, .. } = *entry;
            let tenant = Tenant { name: name.clone(), weight, allowance, isolation, gpu };
            set.tenants.insert(name.clone(), tenant);
            for token in &entry.tokens {
                let identity = Identity {
                    tenant: name.clone(),
                    scopes: token.scopes,
                    token: Some(token.id.clone()),
                };
                let grant = Grant { hash: token.hash, identity };
                set.grants.entry(token.hash.place()).or_default().push(grant);
            }
        }
        set
    }

    /// Whom a token lets in; `None` if it is none of ours.
    #[must_use]
    pub fn authenticate(&self, token: &str) -> Option<&Identity> {
        let tenant = token::tenant_of(token)?;
        let hash = TokenHash::of(token);
        let grant = self.grants.get(&hash.place())?.iter().find(|grant| grant.hash == hash)?;
        // A line copied to another tenant in the file lets nobody in there.
        (grant.identity.tenant.as_str() == tenant).then_some(&grant.identity)
    }

    /// A tenant by name.
    #[must_use]
    pub fn tenant(&self, name: &Name) -> Option<&Tenant> {
        self.tenants.get(name)
    }

    /// All tenants, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Tenant> {
        self.tenants.values()
    }
}

/// The tenants of a running node, and the file they come from.
#[derive(Debug)]
pub struct Tenants {
    current: RwLock<Arc<Set>>,
    defaults: Allowance,
    /// None where there is one tenant and no token.
    source: Option<Source>,
    /// That tenant.
    only: Option<Name>,
}

#[derive(Debug)]
struct Source {
    path: PathBuf,
    /// What the file looked like when it was last read, with or without success.
    seen: Mutex<disk::Stamp>,
}

impl Tenants {
    /// Reads the file.
    ///
    /// # Errors
    /// [`Error`] that names the file and everything that is wrong with it.
    pub fn open(path: &Path, defaults: Allowance) -> Result<Self, Error> {
        let (text, seen) = disk::read(path)?;
        let set = Set::new(&file::parse(path, &text)?, &defaults);
        let source = Source { path: path.into(), seen: Mutex::new(seen) };
        let current = RwLock::new(Arc::new(set));
        Ok(Self { current, defaults, source: Some(source), only: None })
    }

    /// One tenant, named dev, without tokens: only for a node that none but this machine reaches.
    #[must_use]
    pub fn dev(defaults: Allowance) -> Self {
        let name = Name::new(DEV).expect("dev keeps the rule for names");
        Self::alone(name, &Entry::default(), defaults)
    }

    /// One tenant without tokens: for a node that only those reach who may.
    fn alone(name: Name, entry: &Entry, defaults: Allowance) -> Self {
        let set = Set::new(&BTreeMap::from([(name.clone(), entry.clone())]), &defaults);
        Self { current: RwLock::new(Arc::new(set)), defaults, source: None, only: Some(name) }
    }

    /// The one tenant of a tenant's process; `text` is what [`Tenants::text_of`] gave.
    ///
    /// # Errors
    /// [`Error`] if it is none.
    pub(crate) fn of_process(text: &str, defaults: Allowance) -> Result<Self, Error> {
        let (name, entry) = Self::only_entry(text)?;
        Ok(Self::alone(name, &entry, defaults))
    }

    /// Whether there is one tenant and no token.
    pub(crate) fn is_alone(&self) -> bool {
        self.only.is_some()
    }

    /// Puts another text of the one tenant in force.
    ///
    /// # Errors
    /// [`Error`] if it is none, or of another tenant; nothing changes.
    pub(crate) fn replace(&self, text: &str) -> Result<(), Error> {
        let (name, entry) = Self::only_entry(text)?;
        if self.only.as_ref() != Some(&name) {
            return Err(Error::TenantUnknown { name });
        }
        let set = Set::new(&BTreeMap::from([(name, entry)]), &self.defaults);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(set);
        Ok(())
    }

    fn only_entry(text: &str) -> Result<(Name, Entry), Error> {
        let path = Path::new("what the front says");
        let mut entries = file::parse(path, text)?.into_iter();
        let why = "it is not one tenant";
        entries.next().ok_or_else(|| Error::Unusable { path: path.into(), why })
    }

    /// What a tenant's process is told of its tenant: weight and quotas, no tokens. `None` if
    /// there is no such tenant.
    pub(crate) fn text_of(&self, tenant: &Name) -> Option<String> {
        let set = self.current();
        let known = set.tenant(tenant)?;
        let mut entry = Entry { weight: known.weight, ..Entry::default() };
        for resource in Resource::ALL {
            // A number TOML has; more is no limit for anybody.
            let limit = known.allowance.limit(resource).min(file::QUOTA_MAX);
            entry.quota.insert(resource, limit);
        }
        Some(file::render(&BTreeMap::from([(tenant.clone(), entry)])))
    }

    /// The tenants now. Whoever asks often may hold on to it for a while.
    #[must_use]
    pub fn current(&self) -> Arc<Set> {
        // A set is put in place whole, so a panic elsewhere cannot have left half of one.
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whom a token lets in; `None` if it is unknown, revoked or not a token.
    #[must_use]
    pub fn authenticate(&self, token: &str) -> Option<Identity> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).authenticate(token).cloned()
    }

    /// Whom a request without a token comes from; `None` where tokens are asked for.
    #[must_use]
    pub fn without_token(&self) -> Option<Identity> {
        let tenant = self.only.clone()?;
        Some(Identity { tenant, scopes: Scopes::ALL, token: None })
    }

    /// Reads the file again if it looks different from last time; says whether new tenants are in
    /// place. Blocks for as long as reading a small file takes.
    ///
    /// # Errors
    /// [`Error`] if it cannot be used: the tenants stay as they were, and the same bad file is
    /// reported once, not at every call.
    pub fn reload_if_changed(&self) -> Result<bool, Error> {
        let Some(source) = &self.source else { return Ok(false) };
        // Held to the end, so that of two calls the one that read first also sets first.
        let mut seen = source.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = disk::Stamp::of(&source.path);
        if now == *seen {
            return Ok(false);
        }
        *seen = now;
        let (text, stamp) = disk::read(&source.path)?;
        *seen = stamp;
        let set = Set::new(&file::parse(&source.path, &text)?, &self.defaults);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(set);
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
