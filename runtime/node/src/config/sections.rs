//! The sections of the configuration's file, for those who explain it: the reference has a heading
//! for each. What is in a section is said where it is declared, in [`super`].

use super::{
    BillConfig, ClusterConfig, ConnectorsConfig, EngineConfig, GpuConfig, HttpConfig,
    IsolationConfig, LimitsConfig, LogConfig, NodeConfig, QuotaConfig, TlsConfig, TracesConfig,
};

/// Every section: its name in the file, and what it is about.
pub const SECTIONS: [(&str, &str); 13] = [
    NodeConfig::SECTION,
    HttpConfig::SECTION,
    TlsConfig::SECTION,
    EngineConfig::SECTION,
    LogConfig::SECTION,
    LimitsConfig::SECTION,
    IsolationConfig::SECTION,
    GpuConfig::SECTION,
    ClusterConfig::SECTION,
    TracesConfig::SECTION,
    ConnectorsConfig::SECTION,
    QuotaConfig::SECTION,
    BillConfig::SECTION,
];
