//! What the bindings generator makes of `wit/`: the framed world, and what it may have besides.
//!
//! Only `host/wasm.rs` and the exports made by the attribute macros use it. It exists in Wasm
//! builds only.

wit_bindgen::generate!({
    path: "../wit",
    world: "stage",
    pub_export_macro: true,
    export_macro_name: "export_stage",
    default_bindings_module: "sluicebox_guest::__private::bindings",
});

/// The interface of snapshots alone: only `#[stream(snapshot)]` uses it, so that no other stage has
/// it.
pub mod snapshots {
    wit_bindgen::generate!({
        path: "../wit",
        world: "snapshots",
        pub_export_macro: true,
        export_macro_name: "export_snapshots",
        default_bindings_module: "sluicebox_guest::__private::bindings::snapshots",
    });
}

/// The interface of GPUs alone: a stage that calls nothing of it does not import it.
pub mod gpu {
    wit_bindgen::generate!({
        path: "../wit",
        world: "gpu",
        generate_all,
    });
}
