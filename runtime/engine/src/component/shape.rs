//! Types of the contract, to compare a component's with, and to show a component's in a message.
//!
//! Keeps true: a type matches only if the engine would accept it too, names of fields and cases
//! included; what is shown is cut, however large the type is.

use wasmparser::PrimitiveValType;
use wasmparser::component_types::{
    ComponentAnyTypeId, ComponentDefinedType, ComponentEntityType, ComponentFuncType,
    ComponentValType,
};
use wasmparser::types::TypesRef;

/// Bytes of a shown type.
const SHOWN_BYTES_MAX: usize = 200;

/// Levels of a shown type.
const SHOWN_DEPTH_MAX: usize = 4;

/// A type the contract uses.
#[derive(Debug)]
pub(super) enum Shape {
    /// A number or a string.
    Plain(PrimitiveValType),
    /// A list.
    List(&'static Self),
    /// A record, its fields in order.
    Record(&'static [(&'static str, Self)]),
    /// An enumeration, its cases in order.
    Enum(&'static [&'static str]),
    /// A result of this, or of nothing, whose error is a string.
    Fallible(Option<&'static Self>),
}

impl Shape {
    /// Whether a component's type is this one.
    pub(super) fn is(&self, types: TypesRef<'_>, ty: ComponentValType) -> bool {
        let defined = match ty {
            ComponentValType::Primitive(found) => return self.is_plain(found),
            ComponentValType::Type(id) => &types[id],
        };
        match (self, defined) {
            (_, ComponentDefinedType::Primitive(found)) => self.is_plain(*found),
            (Self::List(wanted), ComponentDefinedType::List { element, .. }) => {
                wanted.is(types, *element)
            }
            (Self::Record(wanted), ComponentDefinedType::Record(found)) => {
                wanted.len() == found.fields.len()
                    && wanted.iter().zip(&found.fields).all(|((name, shape), (found, ty))| {
                        *name == found.as_str() && shape.is(types, *ty)
                    })
            }
            (Self::Enum(wanted), ComponentDefinedType::Enum(found)) => {
                wanted.iter().copied().eq(found.iter().map(|case| case.as_str()))
            }
            (Self::Fallible(wanted), ComponentDefinedType::Result { ok, err, .. }) => {
                let fits = match (wanted, ok) {
                    (None, None) => true,
                    (Some(wanted), Some(ok)) => wanted.is(types, *ok),
                    _ => false,
                };
                fits && err.is_some_and(|err| Self::Plain(PrimitiveValType::String).is(types, err))
            }
            _ => false,
        }
    }

    fn is_plain(&self, found: PrimitiveValType) -> bool {
        matches!(self, Self::Plain(wanted) if *wanted == found)
    }
}

/// What sort of thing an import or export is.
pub(super) fn sort(entity: &ComponentEntityType) -> &'static str {
    match entity {
        ComponentEntityType::Module(_) => "a core module",
        ComponentEntityType::Func(_) => "a function",
        ComponentEntityType::Value(_) => "a value",
        ComponentEntityType::Type { created: ComponentAnyTypeId::Resource(_), .. } => "a resource",
        ComponentEntityType::Type { .. } => "a type",
        ComponentEntityType::Instance(_) => "an interface",
        ComponentEntityType::Component(_) => "a component",
    }
}

/// A function's type as the text of an interface would have it, cut where it gets long.
pub(super) fn show_function(types: TypesRef<'_>, function: &ComponentFuncType) -> String {
    let mut out = String::from("func(");
    for (at, (name, ty)) in function.params.iter().enumerate() {
        if full(&mut out) {
            return out;
        }
        out.push_str(if at == 0 { "" } else { ", " });
        out.push_str(&crate::error::shown(name.as_str(), 32));
        out.push_str(": ");
        show(&mut out, types, *ty, 0);
    }
    out.push(')');
    if let Some(result) = function.result {
        out.push_str(" -> ");
        show(&mut out, types, result, 0);
    }
    out
}

fn full(out: &mut String) -> bool {
    let full = out.len() >= SHOWN_BYTES_MAX;
    if full && !out.ends_with('…') {
        out.push('…');
    }
    full
}

fn show(out: &mut String, types: TypesRef<'_>, ty: ComponentValType, depth: usize) {
    if full(out) {
        return;
    }
    let defined = match ty {
        ComponentValType::Primitive(plain) => return out.push_str(&plain.to_string()),
        ComponentValType::Type(id) => &types[id],
    };
    if depth == SHOWN_DEPTH_MAX {
        return out.push('…');
    }
    match defined {
        ComponentDefinedType::Primitive(plain) => out.push_str(&plain.to_string()),
        ComponentDefinedType::List { element, .. } => wrap(out, types, "list", *element, depth),
        ComponentDefinedType::Option { ty, .. } => wrap(out, types, "option", *ty, depth),
        ComponentDefinedType::Record(record) => {
            out.push_str("record { ");
            for (at, (name, ty)) in record.fields.iter().enumerate() {
                if full(out) {
                    return;
                }
                out.push_str(if at == 0 { "" } else { ", " });
                out.push_str(&crate::error::shown(name.as_str(), 32));
                out.push_str(": ");
                show(out, types, *ty, depth + 1);
            }
            out.push_str(" }");
        }
        ComponentDefinedType::Enum(cases) => {
            out.push_str("enum { ");
            for (at, case) in cases.iter().enumerate() {
                if full(out) {
                    return;
                }
                out.push_str(if at == 0 { "" } else { ", " });
                out.push_str(&crate::error::shown(case.as_str(), 32));
            }
            out.push_str(" }");
        }
        ComponentDefinedType::Result { ok, err, .. } => {
            out.push_str("result<");
            match ok {
                Some(ok) => show(out, types, *ok, depth + 1),
                None => out.push('_'),
            }
            if let Some(err) = err {
                out.push_str(", ");
                show(out, types, *err, depth + 1);
            }
            out.push('>');
        }
        other => out.push_str(other_sort(other)),
    }
}

fn wrap(
    out: &mut String,
    types: TypesRef<'_>,
    name: &str,
    element: ComponentValType,
    depth: usize,
) {
    out.push_str(name);
    out.push('<');
    show(out, types, element, depth + 1);
    out.push('>');
}

fn other_sort(ty: &ComponentDefinedType) -> &'static str {
    match ty {
        ComponentDefinedType::Variant(_) => "variant",
        ComponentDefinedType::Tuple(_) => "tuple",
        ComponentDefinedType::Flags(_) => "flags",
        ComponentDefinedType::Own(_) | ComponentDefinedType::Borrow(_) => "resource",
        _ => "another type",
    }
}
