//! What is said about each way the compile process can end.

use std::os::unix::process::ExitStatusExt as _;

use super::*;
use crate::tuning::compile_engine;

fn compiler() -> Compiler {
    let config = CompilerConfig {
        program: PathBuf::from("/nonexistent"),
        args: Vec::new(),
        limits: CompileLimits { cpu_seconds: 7, memory_bytes: 99, ..CompileLimits::default() },
        parallel: 1,
        waiting: 0,
    };
    Compiler::new(config, &compile_engine(1).unwrap())
}

fn end(raw: i32, err: &str) -> Error {
    let said =
        Said { status: Some(ExitStatus::from_raw(raw)), out: Vec::new(), err: err.to_owned() };
    compiler().judge(said).unwrap_err()
}

#[test]
fn every_end_of_the_process_has_its_meaning() {
    assert!(matches!(end(24, ""), Error::CompileCpu { seconds: 7 }));
    assert!(matches!(end(9, ""), Error::CompileKilled));
    let text = "memory allocation of 512 bytes failed";
    assert!(matches!(end(6, text), Error::CompileMemory { max: 99 }));
    assert!(matches!(end(101 << 8, "failed to spawn thread"), Error::CompileMemory { .. }));
    assert!(matches!(end(6, "assertion failed"), Error::CompileCrash { .. }));
    let error = end(11, "sorry\n\u{1b}[2J").to_string();
    assert!(error.contains("signal 11") && error.contains("sorry \\u{1b}[2J"), "{error}");
    assert!(end(1 << 8, "no request").to_string().contains("no request"));
}

#[test]
fn heads_survive_the_way_there_and_others_are_refused() {
    let request = Request {
        memory_bytes: 1,
        cpu_seconds: 2,
        output_bytes_max: 3,
        threads: 4,
        wasm_bytes: u64::MAX,
    };
    let bytes = request.encode();
    assert_eq!(Request::decode(&bytes), Some(request));
    for at in 0..12 {
        let mut changed = bytes;
        changed[at] ^= 1;
        assert_eq!(Request::decode(&changed), None);
    }
    for status in [Status::Compiled, Status::Refused, Status::OutputTooLarge, Status::OutOfMemory] {
        let reply = Reply { status, fingerprint: Fingerprint([7; 32]), body_bytes: 5 };
        let bytes = reply.encode();
        assert_eq!(Reply::decode(&bytes), Some(reply));
        assert_eq!(Reply::decode(&bytes[..REPLY_LAST]), None);
        let mut changed = bytes;
        changed[12] = 9;
        assert_eq!(Reply::decode(&changed), None);
    }
}

const REPLY_LAST: usize = wire::REPLY_BYTES - 1;

#[test]
fn code_of_another_build_is_not_accepted() {
    let compiler = compiler();
    let answer = |fingerprint, body: &[u8], announced| {
        let reply = Reply { status: Status::Compiled, fingerprint, body_bytes: announced };
        let mut out = reply.encode().to_vec();
        out.extend_from_slice(body);
        compiler.judge(Said { status: Some(ExitStatus::from_raw(0)), out, err: String::new() })
    };
    assert_eq!(answer(compiler.fingerprint, b"code", 4).unwrap().bytes(), b"code");
    let error = answer(Fingerprint([0; 32]), b"code", 4).unwrap_err();
    assert!(matches!(error, Error::CompileMismatch));
    let error = answer(compiler.fingerprint, b"cod", 4).unwrap_err();
    assert!(matches!(error, Error::CompileCrash { .. }));
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let error = compiler().compile(Bytes::new()).await.unwrap_err();
    assert!(matches!(error, Error::CompileStart(_)));
    assert!(error.to_string().contains("/nonexistent"), "{error}");
}
