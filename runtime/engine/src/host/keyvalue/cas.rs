//! Compare and swap of `wasi:keyvalue/atomics`: a handle knows what it saw by its hash, so that it
//! holds no value.

use wasmtime::component::{
    ComponentType, LinkerInstance, Lower, Resource, ResourceType, WasmList, WasmStr,
};

use super::{Bucket, Error, HasBucket, Host, Reached, charge, reach, text};

/// What is behind a handle.
#[derive(Debug)]
pub(super) struct Cas {
    /// As the guest's was; it may outlive that.
    bucket: Bucket,
    key: String,
    seen: Seen,
}

/// A value, or that there was none.
type Seen = Option<blake3::Hash>;

impl HasBucket for Cas {
    fn bucket(&mut self) -> &mut Bucket {
        &mut self.bucket
    }
}

#[derive(ComponentType, Lower)]
#[component(variant)]
enum CasError {
    #[component(name = "store-error")]
    Store(Error),
    #[component(name = "cas-failed")]
    Failed(Resource<Cas>),
}

pub(super) fn add_to_linker(atomics: &mut LinkerInstance<'_, Host>) -> wasmtime::Result<()> {
    atomics.resource("cas", ResourceType::host::<Cas>(), |mut cx, rep| {
        cx.data_mut().table.delete(Resource::<Cas>::new_own(rep))?;
        Ok(())
    })?;
    atomics.func_wrap_async(
        "[static]cas.new",
        |mut cx, (bucket, key): (Resource<Bucket>, WasmStr)| {
            Box::new(async move {
                let key = text(&mut cx, &key).await?;
                let seen = match reach(&mut cx, &bucket, |reached| see(reached, &key)).await? {
                    Ok((seen, bytes)) => {
                        charge(&mut cx, bytes).await?;
                        seen
                    }
                    Err(error) => return Ok((Err(error),)),
                };
                let table = &mut cx.data_mut().table;
                let bucket = table.get(&bucket)?.clone();
                Ok((table.push(Cas { bucket, key, seen }).map_err(Error::from),))
            })
        },
    )?;
    atomics.func_wrap_async("[method]cas.current", |mut cx, (cas,): (Resource<Cas>,)| {
        Box::new(async move {
            let key = cx.data_mut().table.get(&cas)?.key.clone();
            let found = reach(&mut cx, &cas, |reached| {
                let value = reached.get(&key)?;
                Ok((value.map(<[u8]>::to_vec), value.map(blake3::hash)))
            });
            let (value, seen) = match found.await? {
                Ok(found) => found,
                Err(error) => return Ok((Err(error),)),
            };
            charge(&mut cx, value.as_ref().map_or(0, Vec::len) * 2).await?;
            cx.data_mut().table.get_mut(&cas)?.seen = seen;
            Ok((Ok(value),))
        })
    })?;
    atomics.func_wrap_async("swap", |mut cx, (cas, value): (Resource<Cas>, WasmList<u8>)| {
        Box::new(async move {
            charge(&mut cx, value.len()).await?;
            let value = value.as_le_slice(&cx).to_vec();
            let Cas { key, seen, .. } = cx.data_mut().table.get(&cas)?;
            let (key, seen) = (key.clone(), *seen);
            let swapped = reach(&mut cx, &cas, |reached| {
                let (now, bytes) = see(reached, &key)?;
                if now == seen {
                    reached.set(&key, &value)?;
                }
                Ok((now, bytes))
            });
            let swapped = swapped.await?;
            // Given up by the guest, whatever came of it.
            let cas = cx.data_mut().table.delete(cas)?;
            let now = match swapped {
                Ok((now, bytes)) => {
                    charge(&mut cx, bytes).await?;
                    now
                }
                Err(error) => return Ok((Err(CasError::Store(error)),)),
            };
            if now == seen {
                return Ok((Ok(()),));
            }
            let again = cx.data_mut().table.push(Cas { seen: now, ..cas });
            Ok((Err(again.map_or_else(|full| CasError::Store(full.into()), CasError::Failed)),))
        })
    })
}

/// What the key has now, and how many bytes.
fn see(reached: &Reached<'_>, key: &str) -> Result<(Seen, usize), Error> {
    let value = reached.get(key)?;
    Ok((value.map(blake3::hash), value.map_or(0, <[u8]>::len)))
}
