//! What is added to a component, and what stops it.

use wasmparser::{Parser, Payload};

use super::*;
use crate::tuning::compile_engine;

/// A component around these core definitions and whatever follows them.
fn component(core: &str, rest: &str) -> Vec<u8> {
    let text =
        format!("(component (core module $m {core}) (core instance $i (instantiate $m)) {rest})");
    wat::parse_str(&text).unwrap()
}

/// The reserved name a component ends up with.
fn said(wasm: &[u8]) -> Said {
    let out = instrument(wasm).unwrap();
    compile_engine(1).unwrap().precompile_component(&out).unwrap();
    let mut names = Vec::new();
    for payload in Parser::new(0).parse_all(&out) {
        if let Payload::ComponentExportSection(section) = payload.unwrap() {
            names.extend(section.into_iter().map(|export| export.unwrap().name.name.to_owned()));
        }
    }
    let own: Vec<_> = names.iter().filter(|name| name.starts_with(RESERVED)).collect();
    assert_eq!(own.len(), 1, "{names:?}");
    read_name(own[0]).unwrap()
}

#[track_caller]
fn stops(core: &str, rest: &str, reason: Reason) {
    assert_eq!(said(&component(core, rest)), Said::No(reason), "{core} {rest}");
}

#[test]
fn a_component_of_memories_and_globals_has_an_accessor_of_its_digest() {
    let wasm = component("(memory 1) (global (mut i32) i32.const 0)", "");
    assert_eq!(said(&wasm), Said::Accessor(Sha256::digest(&wasm).into()));
    assert_eq!(instrument(&wasm), instrument(&wasm));
}

#[test]
fn whatever_a_module_has_its_exports_are_found_room() {
    for core in [
        "(memory 1)",
        "(memory 1) (func) (start 0)",
        "(memory 1) (table 1 funcref) (elem (i32.const 0) func 0) (func)",
        "(memory 1) (data (i32.const 0) \"x\")",
        "(memory 1) (memory 1) (export \"x\" (memory 1))",
        "(memory 1) (func (export \"f\")) (@custom \"c\" \"x\") (@custom \"d\" (after last) \"y\")",
        "(memory 1) (data \"x\") (func (memory.init 0 (i32.const 0) (i32.const 0) (i32.const 1)))",
    ] {
        assert!(matches!(said(&component(core, "")), Said::Accessor(_)), "{core}");
    }
}

#[test]
fn a_module_in_two_instances_has_two_memories() {
    let wasm =
        component("(memory 1) (global (mut i64) i64.const 0)", "(core instance (instantiate $m))");
    let found = survey::survey(&wasm).unwrap();
    assert_eq!(found.instances, [Some(0), Some(0)]);
    assert!(matches!(said(&wasm), Said::Accessor(_)));
}

#[test]
fn as_many_globals_as_an_accessor_has() {
    let globals = |count| format!("(memory 1) {}", "(global (mut i32) i32.const 0)".repeat(count));
    assert!(matches!(said(&component(&globals(4096), "")), Said::Accessor(_)));
    stops(&globals(4097), "", Reason::Globals);
    let halves = format!("(memory 1) {}", "(global (mut v128) v128.const i64x2 0 0)".repeat(2049));
    stops(&halves, "", Reason::Globals);
}

#[test]
fn more_than_memories_and_globals_stops_it() {
    let table = "(memory 1) (table $t 1 funcref) (func $f)";
    for operator in [
        "(table.set $t (i32.const 0) (ref.null func))",
        "(drop (table.grow $t (ref.null func) (i32.const 1)))",
        "(table.fill $t (i32.const 0) (ref.null func) (i32.const 1))",
        "(table.copy $t $t (i32.const 0) (i32.const 0) (i32.const 1))",
        "(table.init $t $e (i32.const 0) (i32.const 0) (i32.const 1))",
    ] {
        stops(&format!("{table} (elem $e func $f) (func {operator})"), "", Reason::Tables);
    }
    stops(&format!("{table} (elem $e func $f) (func (elem.drop $e))"), "", Reason::Segments);
    stops("(memory 1) (data $d \"x\") (func (data.drop $d))", "", Reason::Segments);
    stops("(memory 1) (global (mut funcref) ref.null func)", "", Reason::Globals);
    stops("(func)", "", Reason::Memories);
    let memories = "(memory 1)".repeat(8);
    let twice = "(core instance (instantiate $m))";
    assert!(matches!(said(&component(&memories, twice)), Said::Accessor(_)));
    stops(&memories, &format!("{twice} {twice}"), Reason::Memories);
    let own = "(type $r (resource (rep i32))) (core func (canon resource.new $r))";
    stops("(memory 1)", own, Reason::Resources);
    let code = "(component (core module (func)))";
    stops("(memory 1)", code, Reason::Nested);
    let many = "(core instance (instantiate $m))".repeat(255);
    stops(
        "(func)",
        &format!("(core module $n (memory 1)) (core instance (instantiate $n)) {many}"),
        Reason::Size,
    );
}

#[test]
fn components_that_only_name_types_do_not_stop_it() {
    let types =
        r#"(component $c (type $n u32) (import "t" (type $t (eq $n))) (export "u" (type $t)))"#;
    assert!(matches!(said(&component("(memory 1)", types)), Said::Accessor(_)));
}

#[test]
fn what_is_no_component_is_an_error() {
    let wasm = component("(memory 1)", "");
    // Cut between two sections it is a component still, of less.
    let whole = (0..wasm.len()).filter(|cut| instrument(&wasm[..*cut]).is_ok()).count();
    assert_eq!(whole, 3, "the head, the module too, the instance too");
    assert!(instrument(b"\0asm\x01\0\0\0").is_err());
}

#[test]
fn names_read_back_and_others_are_nothing() {
    let code = [0xa5; 32];
    assert_eq!(read_name(&accessor_name(&code)), Some(Said::Accessor(code)));
    for reason in Reason::ALL {
        assert_eq!(read_name(&mark_name(reason)), Some(Said::No(reason)));
    }
    for name in ["sluicebox:image/xa5@0.1.0", "sluicebox:image/no-such@0.1.0", "sluicebox:image/x"]
    {
        assert_eq!(read_name(name), None, "{name}");
    }
}
