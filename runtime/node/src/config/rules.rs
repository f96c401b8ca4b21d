//! The rules between fields of the configuration. What one field may be is said where it is
//! declared.

use super::Config;
use super::reader::Reader;

impl Config {
    /// The rules between fields.
    pub(super) fn check(&self, reader: &mut Reader) {
        let mut refuse = |field: &str, message: String, fix: &str| {
            let origin = reader.origin(field);
            reader.problem(field, origin, message, fix.to_owned());
        };
        if self.node.dev && !self.http.listen.ip().is_loopback() {
            let message = format!(
                "{} can be reached from other machines, and with node.dev there are no tokens",
                self.http.listen
            );
            let fix = "listen on a loopback address such as \"127.0.0.1:7411\", or leave \
                       node.dev off and add tenants";
            refuse("http.listen", message, fix);
        }
        match (&self.tls.certificate, &self.tls.key) {
            (Some(_), None) => {
                let message = "there is a certificate, but not its key".to_owned();
                refuse("tls.key", message, "name the file with the certificate's private key");
            }
            (None, Some(_)) => {
                let message = "there is a key, but no certificate".to_owned();
                refuse("tls.certificate", message, "name the file with the key's certificate");
            }
            _ => {}
        }
        self.cluster.check(&mut refuse);
        if let Err(error) = self.engine.tuning().check() {
            let fix = "lower engine.instances or engine.stacks";
            refuse("engine.instances", error.to_string(), fix);
        }
        if self.http.body_bytes_max > self.limits.ingest_bytes {
            let message = "one body of http.body-bytes-max would not fit".to_owned();
            refuse("limits.ingest-bytes", message, "make it at least as large");
        }
        if self.engine.memory_bytes_max > self.engine.memory_bytes_total {
            let message = "one memory of engine.memory-bytes-max would not fit".to_owned();
            refuse("engine.memory-bytes-total", message, "make it at least as large");
        }
        if self.engine.compile_cpu_max > self.engine.compile_time_max {
            let message = "it ends before engine.compile-cpu-max is used up".to_owned();
            refuse("engine.compile-time-max", message, "make it at least as long");
        }
    }
}
