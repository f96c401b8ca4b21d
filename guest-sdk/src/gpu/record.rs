//! Values as they lie in a buffer: little-endian, without gaps.
//!
//! - A type has one size, known when it is compiled; what is read is what was written.
//! - Any bytes are a value, as a kernel may have written any.

/// A number of WGSL, or a byte. Sealed: a device knows no others.
pub trait Scalar: Record + Copy + sealed::Sealed {}

/// A value of a fixed size: a number, a list of them, or a pair.
///
/// It is laid out without gaps, which is not always how WGSL lays out a structure: there a `vec3f`
/// takes the place of four numbers. Structures and arrays of plain numbers are laid out alike.
pub trait Record: Sized {
    /// How many bytes it takes.
    const BYTES: usize;

    /// Writes it to as many bytes.
    fn write(&self, bytes: &mut [u8]);

    /// Reads it from as many bytes.
    fn read(bytes: &[u8]) -> Self;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! scalar {
    ($($type:ty),*) => {$(
        impl sealed::Sealed for $type {}
        impl Scalar for $type {}
        impl Record for $type {
            const BYTES: usize = size_of::<Self>();

            #[inline]
            fn write(&self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_le_bytes());
            }

            #[inline]
            fn read(bytes: &[u8]) -> Self {
                let mut own = [0; size_of::<Self>()];
                own.copy_from_slice(bytes);
                Self::from_le_bytes(own)
            }
        }
    )*};
}

scalar!(u8, u32, i32, f32);

impl<T: Record, const N: usize> Record for [T; N] {
    const BYTES: usize = T::BYTES * N;

    #[inline]
    fn write(&self, bytes: &mut [u8]) {
        for (value, place) in self.iter().zip(bytes.chunks_exact_mut(T::BYTES)) {
            value.write(place);
        }
    }

    #[inline]
    fn read(bytes: &[u8]) -> Self {
        std::array::from_fn(|at| T::read(&bytes[at * T::BYTES..(at + 1) * T::BYTES]))
    }
}

impl<A: Record, B: Record> Record for (A, B) {
    const BYTES: usize = A::BYTES + B::BYTES;

    #[inline]
    fn write(&self, bytes: &mut [u8]) {
        let (first, second) = bytes.split_at_mut(A::BYTES);
        self.0.write(first);
        self.1.write(second);
    }

    #[inline]
    fn read(bytes: &[u8]) -> Self {
        let (first, second) = bytes.split_at(A::BYTES);
        (A::read(first), B::read(second))
    }
}

/// The bytes of values one behind the other, filled up with zeros to a multiple of 4.
pub(super) fn bytes_of<T: Scalar>(values: &[T]) -> Vec<u8> {
    let mut bytes = vec![0; (values.len() * T::BYTES).next_multiple_of(4)];
    for (value, place) in values.iter().zip(bytes.chunks_exact_mut(T::BYTES)) {
        value.write(place);
    }
    bytes
}

/// The values in bytes.
pub(super) fn values_of<T: Scalar>(bytes: &[u8]) -> Vec<T> {
    bytes.chunks_exact(T::BYTES).map(T::read).collect()
}
