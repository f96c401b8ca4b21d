//! Whose kernel the GPU's process had to do with last, in a file that outlives it.
//!
//! A driver that dies of a kernel takes the process with it, and would do so again. The process
//! writes here before its driver may die; the keeper reads it when the process has ended by a
//! signal of its own making. The file is a few bytes in the page cache: it need not be on disk.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Tenant by its number, and the kernel's hash.
pub(super) type Suspect = (u64, [u8; 32]);

/// One byte that says whether there is one, then the two.
const BYTES: usize = 41;

/// Where it is.
pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join("suspect")
}

/// Makes the file anew, and gives what writes to it.
///
/// # Errors
/// It cannot be written.
pub(super) fn writer(directory: &Path) -> io::Result<impl FnMut(Option<Suspect>) + Send + 'static> {
    let file = File::create(path(directory))?;
    let tell = move |suspect: Option<Suspect>| {
        // Without it a crash is nobody's; the work goes on.
        drop(file.write_all_at(&encode(suspect), 0));
    };
    Ok(tell)
}

/// What was written last, if anything.
pub(super) fn read(directory: &Path) -> Option<Suspect> {
    let mut bytes = Vec::new();
    // Who wrote it may have been taken over, and have made it as long as it liked.
    File::open(path(directory)).ok()?.take(BYTES as u64 + 1).read_to_end(&mut bytes).ok()?;
    decode(bytes.as_slice().try_into().ok()?)
}

fn encode(suspect: Option<Suspect>) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    if let Some((tenant, kernel)) = suspect {
        bytes[0] = 1;
        bytes[1..9].copy_from_slice(&tenant.to_le_bytes());
        bytes[9..].copy_from_slice(&kernel);
    }
    bytes
}

fn decode(bytes: &[u8; BYTES]) -> Option<Suspect> {
    let (tenant, kernel) = bytes[1..].split_first_chunk()?;
    (bytes[0] == 1).then(|| (u64::from_le_bytes(*tenant), kernel.try_into().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_last_is_read_and_nonsense_is_nobody() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), None);
        let mut tell = writer(dir.path()).unwrap();
        assert_eq!(read(dir.path()), None);
        tell(Some((7, [9; 32])));
        assert_eq!(read(dir.path()), Some((7, [9; 32])));
        tell(None);
        assert_eq!(read(dir.path()), None);
        for nonsense in [&b""[..], b"x", &[1; 40], &[1; 42], &[2; 41]] {
            std::fs::write(path(dir.path()), nonsense).unwrap();
            assert_eq!(read(dir.path()), None, "{nonsense:?}");
        }
    }
}
