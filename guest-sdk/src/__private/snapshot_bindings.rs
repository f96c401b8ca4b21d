//! What the bindings generator makes of `wit/`: the interface of snapshots alone.
//!
//! Only the export made by `#[stream(snapshot)]` uses it, so that other stages do not have it. It
//! exists in Wasm builds only.

wit_bindgen::generate!({
    path: "../wit",
    world: "snapshots",
    pub_export_macro: true,
    export_macro_name: "export_snapshots",
    default_bindings_module: "sluicebox_guest::__private::snapshot_bindings",
});
