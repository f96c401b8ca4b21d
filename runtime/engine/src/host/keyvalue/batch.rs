//! `wasi:keyvalue/batch`: many keys of one bucket in one call, within bounds of their own.

use wasmtime::component::{LinkerInstance, Resource};

use super::{Bucket, Error, Host, Reached, charge, reach};

/// Keys of one call.
const KEYS_MAX: usize = 1_000;

/// Bytes of all values `get-many` gives.
const BYTES_MAX: usize = 4 << 20;

/// What a key or a pair costs besides its bytes.
const OVERHEAD: usize = 128;

type Pairs = Vec<Option<(String, Vec<u8>)>>;

pub(super) fn add_to_linker(batch: &mut LinkerInstance<'_, Host>) -> wasmtime::Result<()> {
    batch.func_wrap_async(
        "get-many",
        |mut cx, (bucket, keys): (Resource<Bucket>, Vec<String>)| {
            Box::new(async move {
                charge(&mut cx, keys.iter().map(|key| key.len() + OVERHEAD).sum()).await?;
                let found = reach(&mut cx, &bucket, |reached| get_many(reached, keys)).await?;
                let pairs = found.as_ref().map_or(&[][..], |pairs| pairs);
                let bytes = pairs.iter().flatten().map(|(_, value)| value.len()).sum();
                charge(&mut cx, bytes).await?;
                Ok((found,))
            })
        },
    )?;
    batch.func_wrap_async(
        "set-many",
        |mut cx, (bucket, pairs): (Resource<Bucket>, Vec<(String, Vec<u8>)>)| {
            Box::new(async move {
                let bytes = pairs.iter().map(|(key, value)| key.len() + value.len() + OVERHEAD);
                charge(&mut cx, bytes.sum()).await?;
                let set = reach(&mut cx, &bucket, |reached| {
                    few(pairs.len())?;
                    pairs.iter().try_for_each(|(key, value)| reached.set(key, value))
                });
                Ok((set.await?,))
            })
        },
    )?;
    batch.func_wrap_async(
        "delete-many",
        |mut cx, (bucket, keys): (Resource<Bucket>, Vec<String>)| {
            Box::new(async move {
                charge(&mut cx, keys.iter().map(|key| key.len() + OVERHEAD).sum()).await?;
                let deleted = reach(&mut cx, &bucket, |reached| {
                    few(keys.len())?;
                    keys.iter().try_for_each(|key| reached.delete(key))
                });
                Ok((deleted.await?,))
            })
        },
    )
}

fn few(keys: usize) -> Result<(), Error> {
    if keys <= KEYS_MAX {
        return Ok(());
    }
    Err(Error::Other(format!("at most {KEYS_MAX} keys at once, not {keys}")))
}

fn get_many(reached: &Reached<'_>, keys: Vec<String>) -> Result<Pairs, Error> {
    few(keys.len())?;
    let mut pairs = Pairs::with_capacity(keys.len());
    let mut left = BYTES_MAX;
    for key in keys {
        let Some(value) = reached.get(&key)? else {
            pairs.push(None);
            continue;
        };
        left = left.checked_sub(value.len()).ok_or_else(|| {
            Error::Other(format!("the values have more than {BYTES_MAX} bytes together"))
        })?;
        let value = value.to_vec();
        pairs.push(Some((key, value)));
    }
    Ok(pairs)
}
