//! A short byte string kept in place, a long one on the heap.

/// Bytes kept in place; a counter, a flag or a timestamp needs no allocation.
const INLINE: usize = 22;

/// Immutable bytes, 24 bytes in size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value(Repr);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Repr {
    Inline { len: u8, bytes: [u8; INLINE] },
    Heap(Box<[u8]>),
}

impl Value {
    /// Copies `bytes`.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        if bytes.len() > INLINE {
            return Self(Repr::Heap(bytes.into()));
        }
        let mut inline = [0; INLINE];
        inline[..bytes.len()].copy_from_slice(bytes);
        Self(Repr::Inline { len: bytes.len() as u8, bytes: inline })
    }

    /// A counter's 8 bytes.
    #[inline]
    #[must_use]
    pub fn counter(number: i64) -> Self {
        let mut bytes = [0; INLINE];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Self(Repr::Inline { len: 8, bytes })
    }

    /// The number, if this is 8 bytes long.
    #[inline]
    #[must_use]
    pub fn as_counter(&self) -> Option<i64> {
        match &self.0 {
            Repr::Inline { len: 8, bytes } => bytes.first_chunk().map(|b| i64::from_le_bytes(*b)),
            _ => None,
        }
    }

    /// The bytes.
    #[inline]
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Heap(bytes) => bytes,
        }
    }

    /// Number of bytes.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Repr::Inline { len, .. } => (*len).into(),
            Repr::Heap(bytes) => bytes.len(),
        }
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
