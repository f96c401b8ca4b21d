//! What the randomness of stages grows from.
//!
//! In a pipeline with a log it is the same over restarts and versions: an instance of a stream is
//! made again from its calls, which have to see the randomness they saw. So it follows from a
//! secret that is kept in the catalogue. It differs between pipelines, and no guest can foresee it.
//! In one without a log it is another each time.

use sluicebox_core::ids::Name;
use sluicebox_core::pipeline::{Delivery as Promise, Pipeline};
use sluicebox_store::catalog::Catalog;
use sluicebox_store::error::Error as StoreError;
use sluicebox_store::key::Key;

use super::fill_random;
use crate::components::blocking;
use crate::error::Error;
use crate::node::Node;

/// Where the secret is kept.
const KEPT: [&str; 2] = ["node", "randomness"];

type Secret = [u8; 32];

impl Node {
    /// What the randomness of a pipeline's stages grows from.
    pub(super) async fn chance_of(
        &self,
        tenant: &Name,
        pipeline: &Pipeline,
    ) -> Result<Secret, Error> {
        if pipeline.delivery == Promise::BestEffort {
            let mut fresh = Secret::default();
            fill_random(&mut fresh)?;
            return Ok(fresh);
        }
        self.chance_of_durable(tenant, &pipeline.name).await
    }

    /// The same of one with a log. One that came from another node has brought it along.
    pub(crate) async fn chance_of_durable(
        &self,
        tenant: &Name,
        name: &str,
    ) -> Result<Secret, Error> {
        let mut fresh = Secret::default();
        fill_random(&mut fresh)?;
        let (catalog, own) = (self.catalog().clone(), own_key(tenant, &Name::new(name)?)?);
        let (brought, secret) = blocking(move || {
            let brought = catalog.get(&own)?;
            Ok((brought, keep(catalog.as_ref(), &fresh)?))
        })
        .await?;
        if let Some(brought) = brought {
            let whole = Secret::try_from(&brought[..]);
            return whole.map_err(|_| Error::Internal("a pipeline's secret is none".to_owned()));
        }
        // Names have no such byte.
        let whose = format!("{tenant}/{name}");
        Ok(*blake3::keyed_hash(&secret, whose.as_bytes()).as_bytes())
    }
}

/// Where that of a pipeline is kept that came from another node.
pub(super) fn own_key(tenant: &Name, name: &Name) -> Result<Key, Error> {
    Ok(Key::of(&["randomness", tenant.as_str(), name.as_str()])?)
}

/// The secret that is kept, which is `fresh` if there was none.
fn keep(catalog: &dyn Catalog, fresh: &Secret) -> Result<Secret, Error> {
    let key = Key::of(&KEPT)?;
    if catalog.get(&key)?.is_none() {
        match catalog.create(&key, fresh) {
            Ok(()) | Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let kept = catalog.get(&key)?;
    let kept = kept.and_then(|kept| Secret::try_from(&kept[..]).ok());
    kept.ok_or_else(|| Error::Internal(format!("{key} in the catalogue is no secret")))
}

#[cfg(test)]
mod tests {
    use sluicebox_store::memory::MemoryCatalog;

    use super::*;

    #[test]
    fn the_secret_is_made_once() {
        let catalog = MemoryCatalog::default();
        assert_eq!(keep(&catalog, &[1; 32]).expect("made"), [1; 32]);
        assert_eq!(keep(&catalog, &[2; 32]).expect("kept"), [1; 32]);
        catalog.replace(&Key::of(&KEPT).expect("a key"), b"short").expect("it is memory");
        assert!(keep(&catalog, &[3; 32]).is_err());
    }
}
