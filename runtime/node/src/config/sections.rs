//! The sections of the configuration's file, for those who explain it: the reference has a heading
//! for each. What is in a section is said where it is declared, in [`super`].

use super::{
    ClusterConfig, EngineConfig, GpuConfig, HttpConfig, IsolationConfig, LimitsConfig, LogConfig,
    NodeConfig, QuotaConfig, TlsConfig,
};

/// Every section: its name in the file, and what it is about.
pub const SECTIONS: [(&str, &str); 10] = [
    NodeConfig::SECTION,
    HttpConfig::SECTION,
    TlsConfig::SECTION,
    EngineConfig::SECTION,
    LogConfig::SECTION,
    LimitsConfig::SECTION,
    IsolationConfig::SECTION,
    GpuConfig::SECTION,
    ClusterConfig::SECTION,
    QuotaConfig::SECTION,
];
