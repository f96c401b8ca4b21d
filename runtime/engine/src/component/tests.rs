//! What is taken as a component, and what every other upload is told.

use std::fmt::Write as _;

use sluicebox_core::error::{Classify, Kind};

use super::*;

/// A core module that fits both worlds' lifting, and the interface both take their types from.
const CORE: &str = r#"
    (core module $m
        (memory (export "memory") 2)
        (table 3 funcref)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
        (func (export "handle") (param i32 i32) (result i32) i32.const 0))
    (core instance $i (instantiate $m))
"#;

fn types(version: &str) -> String {
    format!(
        r#"(import "sluicebox:stage/types@{version}" (instance $types
            (type $kind (enum "data" "timer" "open" "end"))
            (export "kind" (type $k (eq $kind)))
            (type $class (enum "retry" "reject"))
            (export "failure-class" (type $c (eq $class)))
            (type $field (record (field "id" u16) (field "value" (list u8))))
            (export "field" (type $f (eq $field)))
            (type $event (record (field "kind" $k) (field "input" u16) (field "port" u16)
                (field "cause" u32) (field "time" u64) (field "key" string)
                (field "payload" (list u8)) (field "fields" (list $f))
                (field "attachments" (list u64))))
            (export "event" (type $e (eq $event)))
            (type $failure (record (field "event" u32) (field "class" $c)
                (field "message" string)))
            (export "failure" (type $fa (eq $failure)))
            (type $outcome (record (field "outputs" (list $e)) (field "failures" (list $fa))))
            (export "outcome" (type (eq $outcome)))))
        (alias export $types "failure" (type $failure))
        (alias export $types "event" (type $event))
        (alias export $types "outcome" (type $outcome))"#
    )
}

fn component(imports: &str, handle: &str) -> Vec<u8> {
    let types = types("0.1.0");
    let lift = r#"(canon lift (core func $i "handle") (memory $i "memory")
        (realloc (func $i "realloc")))"#;
    let text =
        format!("(component {types} {imports} {CORE} (func (export \"handle\") {handle} {lift}))");
    wat::parse_str(&text).unwrap()
}

const FRAMED: &str = r#"(param "frame" (list u8)) (result (list $failure))"#;
const TYPED: &str = r#"(param "events" (list $event)) (result $outcome)"#;

fn check(bytes: &[u8]) -> Result<Inspection, Error> {
    inspect(bytes, &Limits::default())
}

fn refusal(bytes: &[u8]) -> (&'static str, String) {
    let error = check(bytes).unwrap_err();
    (error.code(), error.to_string())
}

#[test]
fn a_framed_component_passes_with_what_it_declares() {
    let bytes = component("", FRAMED);
    let inspection = check(&bytes).unwrap();
    assert_eq!(inspection.world, World::Framed);
    assert_eq!(inspection.digest, digest(&bytes));
    assert_eq!(inspection.bytes, bytes.len() as u64);
    assert_eq!(inspection.imports.iter().collect::<Vec<_>>(), ["sluicebox:stage/types@0.1.0"]);
    assert_eq!(
        inspection.declared,
        Declared {
            core_modules: 1,
            functions: 2,
            memories: 1,
            memory_bytes_min: 128 << 10,
            tables: 1,
            table_elements_min: 3,
        }
    );
}

#[test]
fn a_typed_component_is_told_from_a_framed_one() {
    assert_eq!(check(&component("", TYPED)).unwrap().world, World::Typed);
}

#[test]
fn the_digest_is_sha_256() {
    assert_eq!(
        digest(b"abc").to_string(),
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}

#[test]
fn a_core_module_is_refused_with_how_to_make_a_component_of_it() {
    let (code, text) = refusal(&wat::parse_str("(module)").unwrap());
    assert_eq!(code, "component.core-module");
    assert!(text.contains("wasm32-wasip2") && text.contains("component new"), "{text}");
}

#[test]
fn what_is_no_webassembly_is_refused_with_what_it_looks_like() {
    for (bytes, hint) in [
        (&b""[..], "empty"),
        (b"\0asm", "cut off"),
        (b"\0asm\x77\0\x01\0", "version"),
        (b"\x7fELF\x02\x01\x01\0", "native code"),
        (b"  (component)", "text format"),
        (b"PK\x03\x04", "archive"),
        (b"hello world", "does not begin"),
    ] {
        let (code, text) = refusal(bytes);
        assert_eq!(code, "component.not-wasm", "{text}");
        assert!(text.contains(hint), "{text}");
    }
}

#[test]
fn a_truncated_component_is_refused_wherever_it_is_cut() {
    let bytes = component("", FRAMED);
    for end in 8..bytes.len() {
        let Err(error) = check(&bytes[..end]) else {
            // Only what the debug names take at the end can be done without.
            assert!(bytes[end + 3..].starts_with(b"component-name"), "{end}");
            continue;
        };
        // Cut between two sections it is well-formed, and only the export is missing.
        let code = error.code();
        assert!(matches!(code, "component.malformed" | "component.export"), "{end}: {error}");
    }
}

#[test]
fn no_changed_byte_makes_the_inspection_panic() {
    let bytes = component("", FRAMED);
    for at in 0..bytes.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] = value;
            // Either answer may be right; what counts is that there is one.
            if let Err(error) = check(&changed) {
                assert!(error.code().starts_with("component."), "{error}");
            }
        }
    }
}

#[test]
fn an_oversized_upload_is_refused_before_it_is_read() {
    let limits = Limits { bytes_max: 100, ..Limits::default() };
    let error = inspect(&[0xff; 101], &limits).unwrap_err();
    assert_eq!((error.code(), error.kind()), ("component.too-large", Kind::Invalid));
    assert!(error.to_string().contains("101") && error.to_string().contains("100"));
}

#[test]
fn a_missing_handle_is_refused_with_what_is_there_and_what_should_be() {
    let text = r#"(component (import "sluicebox:stage/log@0.1.0" (instance $log
            (type (enum "debug" "info" "warn" "error")) (export "level" (type (eq 0)))
            (export "write" (func (param "level" 1) (param "message" string)))))
        (export "run-it" (instance $log)))"#;
    let (code, text) = refusal(&wat::parse_str(text).unwrap());
    assert_eq!(code, "component.export");
    assert!(text.contains("`run-it`") && text.contains("sluicebox:stage/stage"), "{text}");
}

#[test]
fn a_wrong_signature_is_refused_and_shown() {
    for (handle, shown) in [
        (r#"(param "frame" string) (result (list $failure))"#, "func(frame: string) -> list<rec"),
        (r#"(param "frame" (list u8)) (result (list u8))"#, "func(frame: list<u8>) -> list<u8>"),
        (r#"(param "events" (list $event)) (result (list $failure))"#, "kind: enum { data, timer"),
    ] {
        let (code, text) = refusal(&component("", handle));
        assert_eq!(code, "component.export");
        assert!(text.contains(shown), "{text}");
        assert!(text.len() < 1000, "{text}");
    }
}

#[test]
fn a_handle_that_is_no_function_is_refused() {
    let text = format!(r#"(component {} (export "handle" (instance $types)))"#, types("0.1.0"));
    let (code, text) = refusal(&wat::parse_str(&text).unwrap());
    assert_eq!(code, "component.export");
    assert!(text.contains("is an interface"), "{text}");
}

#[test]
fn a_failure_with_its_cases_in_another_order_is_not_the_contract_s() {
    let text = |cases: &str| {
        format!(
            r#"(component {CORE}
                (type $class (enum {cases}))
                (export $c "class" (type $class))
                (type $failure (record (field "event" u32) (field "class" $c)
                    (field "message" string)))
                (export $f "failure" (type $failure))
                (func (export "handle") (param "frame" (list u8)) (result (list $f))
                    (canon lift (core func $i "handle") (memory $i "memory")
                        (realloc (func $i "realloc")))))"#
        )
    };
    check(&wat::parse_str(text(r#""retry" "reject""#)).unwrap()).unwrap();
    let (code, shown) = refusal(&wat::parse_str(text(r#""reject" "retry""#)).unwrap());
    assert_eq!(code, "component.export");
    assert!(shown.contains("class: enum { reject, retry }"), "{shown}");
}

fn empty_import(name: &str) -> String {
    format!("(import \"{name}\" (instance))")
}

#[test]
fn unused_wasi_imports_of_any_0_2_are_fine() {
    let imports: String = [
        "wasi:cli/environment@0.2.0",
        "wasi:cli/exit@0.2.6",
        "wasi:cli/stdout@0.2.12",
        "wasi:io/streams@0.2.9",
        "wasi:clocks/wall-clock@0.2.3",
        "wasi:filesystem/preopens@0.2.6",
        "wasi:sockets/tcp@0.2.6",
        "wasi:random/insecure-seed@0.2.12",
    ]
    .map(empty_import)
    .concat();
    let inspection = check(&component(&imports, FRAMED)).unwrap();
    assert_eq!(inspection.imports.len(), 9);
}

#[test]
fn two_versions_of_one_wasi_interface_are_fine() {
    let imports = ["wasi:cli/environment@0.2.6", "wasi:cli/environment@0.2.12"].map(empty_import);
    check(&component(&imports.concat(), FRAMED)).unwrap();
}

#[test]
fn a_later_patch_of_the_contract_is_fine() {
    let imports = empty_import("sluicebox:stage/config@0.1.7");
    check(&component(&imports, FRAMED)).unwrap();
}

#[test]
fn every_refused_import_is_named_with_its_reason_at_once() {
    let imports: String = [
        "acme:database/client@1.0.0",
        "wasi:http/incoming-handler@0.2.6",
        "wasi:nn/graph@0.2.0",
        "wasi:cli/environment@0.3.0",
        "wasi:cli/exit@0.2.0-rc-2023-11-10",
        "wasi:cli/stdin",
        "wasi:keyvalue/store@0.2.0",
        "wasi:config/store@0.2.0-rc.2",
        "sluicebox:stage/teleport@0.1.0",
        "sluicebox:stage/state@0.2.0",
    ]
    .map(empty_import)
    .concat();
    let imports = format!(
        "{imports} {} (import \"bare\" (func)) (import \"part\" (core module))",
        empty_import("wasi:cli/stdout@0.2.6")
    );
    let error = check(&component(&imports, FRAMED)).unwrap_err();
    assert_eq!((error.code(), error.kind()), ("component.import", Kind::Denied));
    let Error::Import(lines) = error else { panic!("another error") };
    let expected = [
        ("acme:database/client@1.0.0", "not known here"),
        ("wasi:http/incoming-handler@0.2.6", "is not called by any"),
        ("wasi:nn/graph@0.2.0", "not part of WASI 0.2 `cli`"),
        ("wasi:cli/environment@0.3.0", "has WASI 0.2"),
        ("wasi:cli/exit@0.2.0-rc-2023-11-10", "has WASI 0.2"),
        ("wasi:cli/stdin", "has WASI 0.2"),
        ("wasi:keyvalue/store@0.2.0", "this node has 0.2.0-draft and 0.2.0-draft2"),
        ("wasi:config/store@0.2.0-rc.2", "this node has 0.2.0-rc.1"),
        ("sluicebox:stage/teleport@0.1.0", "no such interface"),
        ("sluicebox:stage/state@0.2.0", "version 0.1"),
        ("bare", "a function outside of any interface"),
        ("part", "a core module outside of any interface"),
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, (name, reason)) in lines.iter().zip(expected) {
        assert!(line.starts_with(&format!("`{name}`")) && line.contains(reason), "{line}");
    }
}

#[test]
fn a_function_the_contract_does_not_have_is_named() {
    let imports = r#"(import "sluicebox:stage/config@0.1.9" (instance
        (export "get" (func (param "name" string) (result (option string))))
        (export "watch" (func (param "name" string)))))"#;
    let (code, text) = refusal(&component(imports, FRAMED));
    assert_eq!(code, "component.import");
    assert!(text.contains("no `watch` (a function)") && !text.contains("`get`"), "{text}");
}

#[test]
fn a_world_may_name_types_but_no_resources() {
    let types = r#"(import "failure" (type (eq $failure))) (import "event" (type (eq $event)))"#;
    check(&component(types, FRAMED)).unwrap();
    let resource = r#"(import "handle-of-mine" (type (sub resource)))"#;
    let (code, text) = refusal(&component(resource, FRAMED));
    assert_eq!(code, "component.import");
    assert!(text.contains("`handle-of-mine`: a resource outside"), "{text}");
    let inside = r#"(import "sluicebox:stage/state@0.1.0" (instance
        (export "bucket" (type (sub resource)))))"#;
    let (_, text) = refusal(&component(inside, FRAMED));
    assert!(text.contains("no `bucket` (a resource)"), "{text}");
}

#[test]
fn drafts_of_wasi_pass_with_what_they_have() {
    let store = |item: &str| {
        format!(
            r#"(import "wasi:keyvalue/store@0.2.0-draft2" (instance
                (export "bucket" (type $b (sub resource)))
                (export "{item}" (func (param "self" (borrow $b))))))"#
        )
    };
    check(&component(&store("[method]bucket.exists"), FRAMED)).unwrap();
    let (code, text) = refusal(&component(&store("[method]bucket.watch"), FRAMED));
    assert_eq!(code, "component.import");
    assert!(text.contains("no `[method]bucket.watch` (a function)"), "{text}");
    check(&component(&empty_import("wasi:config/store@0.2.0-rc.1"), FRAMED)).unwrap();
}

#[test]
fn the_typed_world_has_no_emit() {
    let imports = r#"(import "sluicebox:stage/output@0.1.0" (instance
        (export "emit" (func (param "frame" (list u8))))))"#;
    check(&component(imports, FRAMED)).unwrap();
    let (code, text) = refusal(&component(imports, TYPED));
    assert_eq!(code, "component.import");
    assert!(text.contains("stage-typed"), "{text}");
}

#[test]
fn a_long_list_of_refused_imports_is_cut() {
    let mut imports = String::new();
    for at in 0..100 {
        imports.push_str(&empty_import(&format!("acme:db/part{at}@1.0.0")));
    }
    let Err(Error::Import(lines)) = check(&component(&imports, FRAMED)) else { panic!("passed") };
    assert_eq!(lines.len(), 33);
}

#[test]
fn extra_exports_are_ignored() {
    let text = format!(
        r#"(component {} {CORE}
            (func $h (export "handle") {FRAMED}
                (canon lift (core func $i "handle") (memory $i "memory")
                    (realloc (func $i "realloc"))))
            (export "exports" (instance $types)))"#,
        types("0.1.0")
    );
    check(&wat::parse_str(&text).unwrap()).unwrap();
}

#[test]
fn proposals_that_are_off_are_refused() {
    for core in [
        "(core module (memory 1 1 shared))",
        "(core module (memory i64 1))",
        "(core module (type (struct)))",
        "(core module (tag))",
        "(core module (func (param externref)))",
        "(core module (func (param v128) local.get 0 i32x4.relaxed_trunc_f32x4_s drop))",
        "(type (func async))",
        "(type (stream u8))",
    ] {
        let bytes = wat::parse_str(format!("(component {core})")).unwrap();
        let (code, text) = refusal(&bytes);
        assert_eq!(code, "component.malformed", "{core}: {text}");
    }
}

#[test]
fn a_build_with_threads_is_told_what_it_is() {
    let core = r#"(core module (import "env" "memory" (memory 1 2 shared)))"#;
    let (code, text) = refusal(&wat::parse_str(format!("(component {core})")).unwrap());
    assert_eq!(code, "component.malformed");
    assert!(text.contains("built for threads"), "{text}");
}

#[test]
fn a_body_that_does_not_validate_is_refused() {
    let text = "(component (core module (func (result i32) i64.const 1)))";
    let (code, text) = refusal(&wat::parse_str(text).unwrap());
    assert_eq!(code, "component.malformed");
    assert!(text.contains("type mismatch") && text.contains("at byte 0x"), "{text}");
}

#[test]
fn more_memory_or_tables_than_any_instance_gets_are_refused_with_the_numbers() {
    for (core, number) in [
        ("(core module (memory 20000))".to_owned(), "1310720000 bytes"),
        ("(core module (table 300000 funcref))".to_owned(), "300000 elements"),
        (format!("(core module {})", "(memory 0)".repeat(65)), "65 linear memories"),
        ("(core module (table 0 funcref) (table 0 funcref))".repeat(65), "130 tables"),
    ] {
        let bytes = wat::parse_str(format!("(component {core})")).unwrap();
        let (code, text) = refusal(&bytes);
        assert_eq!(code, "component.demand", "{text}");
        assert!(text.contains(number), "{text}");
    }
}

#[test]
fn deep_nesting_is_refused() {
    let text = format!("{}{}", "(component ".repeat(40), ")".repeat(40));
    let (code, text) = refusal(&wat::parse_str(&text).unwrap());
    assert_eq!(code, "component.malformed");
    assert!(text.contains("nested more than 16"), "{text}");
}

#[test]
fn too_many_parts_are_refused() {
    let text = format!("(component {})", "(core module)".repeat(600));
    let (code, text) = refusal(&wat::parse_str(&text).unwrap());
    assert_eq!(code, "component.malformed");
    assert!(text.contains("more than 512"), "{text}");
}

#[test]
fn more_declarations_than_any_guest_needs_are_refused() {
    let mut text = String::from("(component (core module ");
    for at in 0..200_000 {
        write!(text, "(func (export \"function-with-a-long-name-{at}\"))").unwrap();
    }
    text.push_str("))");
    let (code, text) = refusal(&wat::parse_str(&text).unwrap());
    assert_eq!(code, "component.malformed");
    assert!(text.contains("types, imports, exports"), "{text}");
}

#[test]
fn a_giant_function_is_refused() {
    let body = "i32.const 100000000 drop ".repeat(400_000);
    let bytes = wat::parse_str(format!("(component (core module (func {body})))")).unwrap();
    let (code, text) = refusal(&bytes);
    assert_eq!(code, "component.malformed");
    assert!(text.contains("bytes of code"), "{text}");
}

#[test]
fn names_from_the_component_are_escaped_and_cut() {
    let long = "x".repeat(5000);
    let imports = format!("(import \"{long}\" (func))");
    let (_, text) = refusal(&component(&imports, FRAMED));
    assert!(text.len() < 400, "{}", text.len());
}

#[test]
fn names_of_the_engine_are_its_own() {
    let exported = "(instance $own) (export \"sluicebox:image/no-tables@0.1.0\" (instance $own))";
    let reserved = |rest: &str| {
        let bytes = component(rest, FRAMED);
        let (code, text) = refusal(&bytes);
        assert_eq!(code, "component.malformed");
        assert!(text.contains("`sluicebox:image/"), "{text}");
        bytes
    };
    let bytes = reserved(exported);
    assert!(check_instrumented(&bytes).is_ok(), "it is refused for its name alone");
    reserved("(core module (memory (export \"sluicebox:image/m0\") 1))");
    let compiled = crate::image::instrument(&component("", FRAMED)).unwrap();
    assert_eq!(refusal(&compiled).0, "component.malformed");
}

/// A component with an interface of snapshots, called `name`, whose functions have these types.
fn with_snapshots(name: &str, take: &str, restore: &str) -> Vec<u8> {
    let types = types("0.1.0");
    let lift = |function: &str| {
        format!(
            r#"(canon lift (core func $i "{function}") (memory $i "memory")
                (realloc (func $i "realloc")))"#
        )
    };
    let core = CORE.replace(
        "(func (export \"handle\")",
        "(func (export \"take\") (result i32) i32.const 0)
        (func (export \"restore\") (param i32 i32) (result i32) i32.const 0)
        (func (export \"handle\")",
    );
    let (handle, took, restored) = (lift("handle"), lift("take"), lift("restore"));
    let text = format!(
        "(component {types} {core} (func (export \"handle\") {FRAMED} {handle})
            (func $take {take} {took}) (func $restore {restore} {restored})
            (instance $s (export \"take\" (func $take)) (export \"restore\" (func $restore)))
            (export \"{name}\" (instance $s)))"
    );
    wat::parse_str(&text).unwrap()
}

#[test]
fn an_interface_of_snapshots_is_found_and_has_to_be_the_contract_s() {
    const TAKE: &str = "(result (result (list u8) (error string)))";
    const RESTORE: &str = r#"(param "snapshot" (list u8)) (result (result (error string)))"#;
    let name = "sluicebox:stage/snapshot@0.1.0";
    assert!(check(&with_snapshots(name, TAKE, RESTORE)).unwrap().snapshots);
    assert!(
        check(&with_snapshots("sluicebox:stage/snapshot@0.1.7", TAKE, RESTORE)).unwrap().snapshots
    );
    // Of another series it is nobody's here.
    let other = check(&with_snapshots("sluicebox:stage/snapshot@0.2.0", TAKE, RESTORE)).unwrap();
    assert!(!other.snapshots && !check(&component("", FRAMED)).unwrap().snapshots);
    for (take, restore, shown) in [
        ("(result (result (list u16) (error string)))", RESTORE, "result<list<u16>, string>"),
        ("(result (result (list u8)))", RESTORE, "`take` with the type"),
        ("(result (list u8))", RESTORE, "func() -> list<u8>"),
        (TAKE, "(param \"s\" string) (result (result (error string)))", "restore"),
        (
            TAKE,
            "(param \"s\" (list u8)) (result (result u32 (error string)))",
            "result<u32, string>",
        ),
    ] {
        let (code, text) = refusal(&with_snapshots(name, take, restore));
        assert_eq!(code, "component.export");
        assert!(text.contains(shown) && text.contains("stage-snapshots"), "{text}");
    }
    let alone = format!(
        "(component {} {CORE} (func $h (export \"handle\") {FRAMED} (canon lift
            (core func $i \"handle\") (memory $i \"memory\") (realloc (func $i \"realloc\"))))
            (instance $s (export \"take\" (func $h))) (export \"{name}\" (instance $s)))",
        types("0.1.0")
    );
    let (_, text) = refusal(&wat::parse_str(&alone).unwrap());
    assert!(text.contains("`take` with the type"), "{text}");
    let empty = format!(
        "(component {} {CORE} (func (export \"handle\") {FRAMED} (canon lift
            (core func $i \"handle\") (memory $i \"memory\") (realloc (func $i \"realloc\"))))
            (instance $s) (export \"{name}\" (instance $s)))",
        types("0.1.0")
    );
    let (_, text) = refusal(&wat::parse_str(&empty).unwrap());
    assert!(text.contains("has no function `take`"), "{text}");
}
