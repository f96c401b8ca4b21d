//! The fuzz targets as a library; what they are is in `targets.rs`.

pub mod targets;
