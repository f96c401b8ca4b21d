//! Documents of the catalogue that are JSON of this program's own: what is under way with other
//! nodes.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sluicebox_store::key::Key;

use super::Node;
use crate::components::blocking;
use crate::error::Error;

impl Node {
    /// What is in a document; none if there is none.
    ///
    /// # Errors
    /// The catalogue fails; it is not what is expected.
    pub(crate) async fn document<T: DeserializeOwned>(&self, key: Key) -> Result<Option<T>, Error> {
        let (catalog, name) = (self.catalog().clone(), key.to_string());
        let text = blocking(move || Ok(catalog.get(&key)?)).await?;
        let read = |text: &[u8]| serde_json::from_slice(text).map_err(|why| wrong(&name, &why));
        text.as_deref().map(read).transpose()
    }

    /// Writes a document, in the place of what there was.
    ///
    /// # Errors
    /// The catalogue fails.
    pub(crate) async fn put_document(&self, key: Key, is: &impl Serialize) -> Result<(), Error> {
        let text = serde_json::to_vec(is).map_err(|why| wrong(&key.to_string(), &why))?;
        let catalog = self.catalog().clone();
        blocking(move || Ok(catalog.replace(&key, &text)?)).await
    }

    /// Removes a document, if it is there.
    ///
    /// # Errors
    /// The catalogue fails.
    pub(crate) async fn forget_document(&self, key: Key) -> Result<(), Error> {
        let catalog = self.catalog().clone();
        blocking(move || Ok(catalog.delete(&key)?)).await.map(drop)
    }
}

fn wrong(name: &str, why: &serde_json::Error) -> Error {
    Error::Internal(format!("the document {name}: {why}"))
}
