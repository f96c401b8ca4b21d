// Functions without a body, in memory_wasm.go, need a file of assembly in the package.
