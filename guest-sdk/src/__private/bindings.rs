//! What the bindings generator makes of `wit/`: the framed world.
//!
//! Only `host/wasm.rs` and the export made by the attribute macros use it. It exists in Wasm builds
//! only.

wit_bindgen::generate!({
    path: "../wit",
    world: "stage",
    pub_export_macro: true,
    export_macro_name: "export_stage",
    default_bindings_module: "sluicebox_guest::__private::bindings",
});
