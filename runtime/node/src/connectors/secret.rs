//! Secrets of connectors: small files that the operator keeps, each of one tenant. They are never
//! shown.

use std::path::Path;

use super::grants::Refused;

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 8 * 1024;

/// The text of a secret. `form` says how one is written.
pub(super) async fn read(path: &Path, form: &str) -> Result<String, Refused> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        if std::fs::metadata(&path)?.len() > FILE_BYTES_MAX {
            return Err(std::io::Error::other("it is too large"));
        }
        std::fs::read_to_string(&path)
    });
    match read.await {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(error)) => Err(refused(format!("cannot be read: {error}"), form)),
        Err(_) => Err(refused("cannot be read".to_owned(), form)),
    }
}

/// What is told of a secret that cannot be used.
pub(super) fn refused(why: String, form: &str) -> Refused {
    let fix = format!("the operator makes the file tenant/name below connectors.secrets: {form}");
    Refused::new("secret", "connector.secret", why, fix)
}
