//! Pointers: what they point to is fixed when the code is made, but for an offset.

use std::borrow::Cow;

use naga::{Expression, Handle, TypeInner};

use super::super::Stuck;
use super::super::layout::{Elements, Units};
use super::super::program::{At, Op, Place};
use super::body::{Body, Value};
use super::unknown;

impl<'a> Body<'a, '_> {
    /// Where an expression points.
    pub(super) fn pointer(&mut self, handle: Handle<Expression>) -> Result<Place, Stuck> {
        match self.value(handle)? {
            Value::Pointer(place) => Ok(place),
            Value::Constant(_) | Value::Words(_) => {
                Err(unknown("as a pointer", &self.function.expressions[handle]))
            }
        }
    }

    /// The type that an expression points to.
    pub(super) fn pointee(&self, handle: Handle<Expression>) -> Result<Cow<'a, TypeInner>, Stuck> {
        match *self.inner(handle) {
            TypeInner::Pointer { base, .. } => {
                Ok(Cow::Borrowed(&self.lowering.module.types[base].inner))
            }
            TypeInner::ValuePointer { size: None, scalar, .. } => {
                Ok(Cow::Owned(TypeInner::Scalar(scalar)))
            }
            TypeInner::ValuePointer { size: Some(size), scalar, .. } => {
                Ok(Cow::Owned(TypeInner::Vector { size, scalar }))
            }
            ref other => Err(unknown("a pointer of the type", other)),
        }
    }

    /// Points to an element of what `base` points to.
    pub(super) fn element(&mut self, base: Handle<Expression>, index: u32) -> Result<Place, Stuck> {
        let place = self.pointer(base)?;
        let pointee = self.pointee(base)?;
        let elements = self.lowering.layouts.elements(&pointee, units(place))?;
        self.element_of(place, elements, index)
    }

    fn element_of(&mut self, place: Place, elements: Elements, index: u32) -> Result<Place, Stuck> {
        let (array, binding) = match place {
            Place::Own(at) | Place::Shared(at) => (at, None),
            Place::Bound { binding, at } => (at, Some(binding)),
        };
        let count = elements.count(binding)?;
        let to = self.lowering.reserve(1)?;
        self.emit(Op::Element { to, array, index, count, stride: elements.stride });
        Ok(move_to(place, At { base: Some(to), add: 0 }))
    }

    /// Points to a member, or to an element whose number is known, of what `base` points to.
    pub(super) fn member(&mut self, base: Handle<Expression>, index: u32) -> Result<Place, Stuck> {
        let place = self.pointer(base)?;
        let pointee = self.pointee(base)?;
        let units = units(place);
        if !matches!(*pointee, TypeInner::Struct { .. }) {
            let elements = self.lowering.layouts.elements(&pointee, units)?;
            // How many there are is known only later.
            if elements.count.is_none_or(|count| index >= count) {
                let index = self.lowering.intern(vec![index])?;
                return self.element_of(place, elements, index);
            }
        }
        let offset = self.lowering.layouts.member(&pointee, index, units)?;
        let (Place::Own(at) | Place::Shared(at) | Place::Bound { at, .. }) = place;
        let add = at.add.checked_add(offset).ok_or(Stuck::Large)?;
        Ok(move_to(place, At { base: at.base, add }))
    }

    /// Reads what an expression points to.
    pub(super) fn load(&mut self, pointer: Handle<Expression>) -> Result<Value, Stuck> {
        let place = self.pointer(pointer)?;
        let words = self.lowering.layouts.words(&*self.pointee(pointer)?)?;
        let to = self.lowering.reserve(words)?;
        match place {
            Place::Own(At { base: None, add: from }) => {
                self.emit(Op::Copy { to, from, words });
            }
            Place::Own(_) | Place::Shared(_) => {
                self.emit(Op::Load { to, from: place, words });
            }
            Place::Bound { binding, at } => {
                let mut to = to;
                for (at, words) in self.pieces(pointer, at)? {
                    self.emit(Op::Load { to, from: Place::Bound { binding, at }, words });
                    to += words;
                }
            }
        }
        Ok(Value::Words(to))
    }

    /// Where the pieces of what an expression points to are in its binding, and their words.
    pub(super) fn pieces(
        &self,
        pointer: Handle<Expression>,
        at: At,
    ) -> Result<Vec<(At, u32)>, Stuck> {
        let pieces = self.lowering.layouts.pieces(&*self.pointee(pointer)?)?;
        let each = pieces.into_iter().map(|piece| {
            let add = at.add.checked_add(piece.bytes).ok_or(Stuck::Large)?;
            Ok((At { base: at.base, add }, piece.words))
        });
        each.collect()
    }

    /// How many elements the array at the end of a binding has.
    pub(super) fn length(&mut self, array: Handle<Expression>) -> Result<Value, Stuck> {
        let Place::Bound { binding, at } = self.pointer(array)? else {
            return Err(unknown("the length of", &self.function.expressions[array]));
        };
        let pointee = self.pointee(array)?;
        let stride = self.lowering.layouts.elements(&pointee, Units::Bytes)?.stride;
        let to = self.lowering.reserve(1)?;
        self.emit(Op::Length { to, binding, array: at, stride });
        Ok(Value::Words(to))
    }
}

fn units(place: Place) -> Units {
    match place {
        Place::Own(_) | Place::Shared(_) => Units::Words,
        Place::Bound { .. } => Units::Bytes,
    }
}

/// The same memory at another offset.
fn move_to(place: Place, at: At) -> Place {
    match place {
        Place::Own(_) => Place::Own(at),
        Place::Shared(_) => Place::Shared(at),
        Place::Bound { binding, .. } => Place::Bound { binding, at },
    }
}
