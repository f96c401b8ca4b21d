//! How values lie: as words without padding where only the kernel sees them, and as WGSL says in
//! bindings.

use naga::{ArraySize, Handle, Module, Scalar, ScalarKind, Type, TypeInner, VectorSize};

use super::program::Count;
use super::{Stuck, WORDS_MAX};

/// Bytes of a word.
const WORD_BYTES: u32 = 4;

/// What offsets are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Units {
    /// Memory of the kernel: offsets are words.
    Words,
    /// A binding: offsets are bytes.
    Bytes,
}

/// How many words each type has.
pub(super) struct Layouts<'a> {
    module: &'a Module,
    words: Vec<Result<u32, Stuck>>,
}

/// Words of a binding that lie side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// From the beginning of the value.
    pub(super) bytes: u32,
    pub(super) words: u32,
}

/// What an index chooses from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Elements {
    /// None if there are as many as fit into the binding.
    pub(super) count: Option<u32>,
    /// From one to the next, in the units of the memory.
    pub(super) stride: u32,
}

impl Elements {
    /// The number of them, in a binding or not.
    pub(super) fn count(&self, binding: Option<u32>) -> Result<Count, Stuck> {
        match (self.count, binding) {
            (Some(count), _) => Ok(Count::Fixed(count)),
            (None, Some(binding)) => Ok(Count::Rest { binding }),
            (None, None) => Err(Stuck::Unknown("an array without an end".to_owned())),
        }
    }
}

impl<'a> Layouts<'a> {
    pub(super) fn of(module: &'a Module) -> Self {
        let mut layouts = Self { module, words: Vec::with_capacity(module.types.len()) };
        // A type comes after those it is made of.
        for (_, ty) in module.types.iter() {
            let words = layouts.words(&ty.inner);
            layouts.words.push(words);
        }
        layouts
    }

    /// Words of a value of a type.
    pub(super) fn words_of(&self, ty: Handle<Type>) -> Result<u32, Stuck> {
        self.words.get(ty.index()).cloned().unwrap_or(Err(Stuck::Large))
    }

    /// Words of a value.
    pub(super) fn words(&self, inner: &TypeInner) -> Result<u32, Stuck> {
        let words = match *inner {
            TypeInner::Scalar(scalar) | TypeInner::Atomic(scalar) => scalar_word(scalar)?,
            TypeInner::Vector { size, scalar } => scalar_word(scalar)? * size as u32,
            TypeInner::Matrix { columns, rows, scalar } => {
                scalar_word(scalar)? * columns as u32 * rows as u32
            }
            TypeInner::Array { base, size: ArraySize::Constant(count), .. } => {
                self.words_of(base)?.saturating_mul(count.get())
            }
            TypeInner::Struct { ref members, .. } => {
                let mut words = 0_u32;
                for member in members {
                    words = words.saturating_add(self.words_of(member.ty)?);
                }
                words
            }
            ref other => return Err(unknown(other)),
        };
        if words > WORDS_MAX { Err(Stuck::Large) } else { Ok(words) }
    }

    /// What an index into a value or into what a pointer points to chooses from.
    pub(super) fn elements(&self, inner: &TypeInner, units: Units) -> Result<Elements, Stuck> {
        let is_words = units == Units::Words;
        Ok(match *inner {
            TypeInner::Vector { size, .. } | TypeInner::ValuePointer { size: Some(size), .. } => {
                let stride = if is_words { 1 } else { WORD_BYTES };
                Elements { count: Some(size as u32), stride }
            }
            TypeInner::Matrix { columns, rows, .. } => {
                let stride = if is_words { rows as u32 } else { column_bytes(rows) };
                Elements { count: Some(columns as u32), stride }
            }
            TypeInner::Array { base, size, stride } => {
                let count = match size {
                    ArraySize::Constant(count) => Some(count.get()),
                    ArraySize::Dynamic => None,
                    ArraySize::Pending(_) => return Err(unknown(inner)),
                };
                let stride = if is_words { self.words_of(base)? } else { stride };
                Elements { count, stride }
            }
            ref other => return Err(unknown(other)),
        })
    }

    /// Where a member of a structure begins, or an element whose number is known.
    pub(super) fn member(&self, inner: &TypeInner, index: u32, units: Units) -> Result<u32, Stuck> {
        let TypeInner::Struct { members, .. } = inner else {
            let Elements { stride, .. } = self.elements(inner, units)?;
            return stride.checked_mul(index).ok_or(Stuck::Large);
        };
        let (before, rest) = members.split_at_checked(index as usize).ok_or(Stuck::Large)?;
        if units == Units::Bytes {
            return rest.first().map(|member| member.offset).ok_or(Stuck::Large);
        }
        let mut words = 0_u32;
        for member in before {
            words = words.saturating_add(self.words_of(member.ty)?);
        }
        Ok(words)
    }

    /// The pieces in which a value lies in a binding, in the order of its words.
    pub(super) fn pieces(&self, inner: &TypeInner) -> Result<Vec<Piece>, Stuck> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut put = |bytes: u32, words: u32| match pieces.last_mut() {
            Some(last) if last.bytes + last.words * WORD_BYTES == bytes => last.words += words,
            _ => pieces.push(Piece { bytes, words }),
        };
        // Bounded by the words of the value. A list and no recursion: types nest deeply.
        self.words(inner)?;
        let mut todo = vec![(inner, 0_u32)];
        while let Some((inner, at)) = todo.pop() {
            match *inner {
                TypeInner::Matrix { columns, rows, .. } => {
                    for column in 0..columns as u32 {
                        put(at + column * column_bytes(rows), rows as u32);
                    }
                }
                TypeInner::Array { base, size: ArraySize::Constant(count), stride } => {
                    let base = &self.module.types[base].inner;
                    // The most frequent, and large ones without a list as long.
                    if matches!(base, TypeInner::Scalar(_)) && stride == WORD_BYTES {
                        put(at, count.get());
                        continue;
                    }
                    let elements = 0..count.get();
                    todo.extend(elements.rev().map(|index| (base, at + index * stride)));
                }
                TypeInner::Struct { ref members, .. } => {
                    let types = &self.module.types;
                    let all = members.iter().rev();
                    todo.extend(all.map(|it| (&types[it.ty].inner, at + it.offset)));
                }
                ref other => put(at, self.words(other)?),
            }
        }
        Ok(pieces)
    }
}

/// One word, if a scalar is one.
fn scalar_word(scalar: Scalar) -> Result<u32, Stuck> {
    match (scalar.kind, scalar.width) {
        (ScalarKind::Sint | ScalarKind::Uint | ScalarKind::Float, 4) | (ScalarKind::Bool, _) => {
            Ok(1)
        }
        (kind, width) => Err(Stuck::Unknown(format!("scalars {kind:?} of {width} bytes"))),
    }
}

/// From one column of a matrix to the next: that of three rows takes as much as of four.
fn column_bytes(rows: VectorSize) -> u32 {
    if rows == VectorSize::Bi { 8 } else { 16 }
}

fn unknown(inner: &TypeInner) -> Stuck {
    super::lower::unknown("the type", inner)
}
