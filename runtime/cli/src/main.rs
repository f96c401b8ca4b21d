//! The command `sluicebox`: parse, dispatch, print one error, exit with a code that means
//! something.
//!
//! The table from causes to exit codes is here and nowhere else; the help text shows the same. Each
//! command is a file of its own; what they share is `client` (the HTTP API), `screen` and `render`
//! (what people see) and `failure`.

#![allow(rustdoc::invalid_html_tags, reason = "the comments on arguments are their help texts")]

mod args;
mod certs;
mod client;
mod config;
mod demo;
mod deploy;
mod doctor;
mod failure;
mod gpu;
mod host_metrics;
mod log;
mod logging;
mod oci;
mod plan;
mod project;
mod render;
mod replay;
mod sample;
mod screen;
mod send;
mod serve;
mod status;
mod stream;
mod tail;
mod tenant;
mod top;
mod usage;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::args::{Cli, Command, Globals};
use crate::failure::{Cause, Failure};
use crate::screen::{Screen, complain};
use crate::serve::Ended;

/// Pages and small blocks come and go with every frame; this allocator returns them fastest.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What commands log unless the variable says otherwise.
const LOG_USUAL: &str = "warn";

/// As shells number the end by SIGINT.
const EXIT_AT_ONCE: u8 = 130;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if matches!(cli.command, Command::Compile) {
        return sluicebox_node::compile_main();
    }
    let screen = Screen::new(&cli.globals);
    if matches!(cli.command, Command::TenantProcess) {
        return tenant_process(&cli.globals);
    }
    match &cli.command {
        Command::GpuHost { orders } => return gpu_process(&cli.globals, orders),
        Command::GpuStarter { orders } => return sluicebox_node::gpu_starter_main(orders),
        Command::GpuTrial { orders, entry } => {
            return sluicebox_node::gpu_trial_main(orders, entry);
        }
        _ => {}
    }
    match run(screen, &cli.globals, cli.command) {
        Ok(code) => code,
        // Whoever read our output has gone; there is nobody to tell.
        Err(failure) if failure.broken_pipe => ExitCode::SUCCESS,
        Err(failure) => {
            let code = exit_code(failure.cause);
            let text = match screen.json() {
                true => failure.json(code).to_string(),
                false => failure.text(),
            };
            complain(&text);
            ExitCode::from(code)
        }
    }
}

/// Is a tenant's process to its end. Nothing is started, not even logging, before it is held in.
fn tenant_process(globals: &Globals) -> ExitCode {
    let begun = sluicebox_node::TenantProcess::begin();
    let logging = begun.map_err(|error| Failure::node(&error)).and_then(|process| {
        let logging = logging::start(globals, serve::LOG_USUAL)?;
        Ok((process, logging))
    });
    match logging {
        Ok((process, _logging)) => process.run(),
        Err(failure) => {
            let code = exit_code(failure.cause);
            complain(&failure.text());
            ExitCode::from(code)
        }
    }
}

/// Is the process that has the GPU, to its end. Nothing is started, not even logging, before it is
/// held in.
fn gpu_process(globals: &Globals, orders: &str) -> ExitCode {
    let begun = sluicebox_node::GpuProcess::begin(orders);
    let logging = begun.map_err(|error| Failure::node(&error)).and_then(|process| {
        let logging = logging::start(globals, serve::LOG_USUAL)?;
        Ok((process, logging))
    });
    match logging {
        Ok((process, _logging)) => sluicebox_node::gpu_main(process),
        Err(failure) => {
            complain(&failure.text());
            ExitCode::from(exit_code(failure.cause))
        }
    }
}

/// The one table from causes to exit codes, after sysexits where it has a fitting one.
const fn exit_code(cause: Cause) -> u8 {
    match cause {
        Cause::Internal => 1,
        Cause::Usage => 2,
        Cause::Invalid => 64,
        Cause::Partial => 65,
        Cause::NotFound => 66,
        Cause::Unavailable => 69,
        Cause::Guest => 70,
        Cause::Conflict => 73,
        Cause::Local => 74,
        Cause::Exhausted => 75,
        Cause::Denied => 77,
        Cause::Config => 78,
    }
}

fn run(screen: Screen, globals: &Globals, command: Command) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::local("start the input and output loop", &error))?;
    let ended = runtime.block_on(Box::pin(dispatch(screen, globals, command)));
    // A read of standard input that never ends must not hold up the exit.
    runtime.shutdown_background();
    Ok(match ended? {
        Ended::Done => ExitCode::SUCCESS,
        Ended::AtOnce => ExitCode::from(EXIT_AT_ONCE),
    })
}

/// Each command is a function of its own file.
async fn dispatch(screen: Screen, globals: &Globals, command: Command) -> Result<Ended, Failure> {
    if let Command::Serve(args) = command {
        return serve::run(screen, globals, args).await;
    }
    let usual = match command {
        Command::Up(_) | Command::Dev(_) => project::up::LOG_USUAL,
        _ => LOG_USUAL,
    };
    let _logging = logging::start(globals, usual)?;
    match command {
        Command::Up(args) => return project::up::up(screen, args).await,
        Command::Dev(args) => return project::up::dev(screen, args).await,
        Command::Demo(args) => return demo::run(screen, args).await,
        Command::Stream(args) => return stream::run(screen, args).await,
        Command::New(args) => project::new(screen, args)?,
        Command::Build(args) => project::build(screen, args).await?,
        Command::Test(args) => project::trial::run(screen, args).await?,
        Command::Push(args) => deploy::push(screen, args).await?,
        Command::Apply(args) => deploy::apply(screen, args).await?,
        Command::List(args) => status::list(screen, args).await?,
        Command::Nodes(args) => status::nodes(screen, args).await?,
        Command::Describe(args) => status::describe(screen, args).await?,
        Command::Delete(args) => deploy::delete(screen, args).await?,
        Command::Rollback(args) => deploy::roll_back(screen, args).await?,
        Command::Move(args) => deploy::move_to(screen, args).await?,
        Command::Gpu(args) => gpu::gpu(screen, args).await?,
        Command::Usage(args) => usage::usage(screen, args).await?,
        Command::Plan(args) => plan::plan(screen, args).await?,
        Command::Resume(args) => deploy::resume(screen, args).await?,
        Command::Send(args) => send::run(screen, args).await?,
        Command::Tail(args) => tail::run(screen, args).await?,
        Command::Top(args) => top::run(screen, args).await?,
        Command::Logs(args) => tail::logs(screen, args).await?,
        Command::DeadLetters(args) => tail::dead_letters(screen, args).await?,
        Command::Sample(command) => sample::run(screen, command).await?,
        Command::Doctor(args) => doctor::run(screen, args).await?,
        Command::Tenant(args) => tenant::run(screen, args)?,
        Command::Certs(args) => certs::run(screen, args)?,
        Command::Config(command) => config::run(screen, command)?,
        Command::Log(command) => log::run(screen, command)?,
        Command::Completion(args) => completion(screen, args.shell)?,
        // They are begun before this: they do not share what is set up for the others.
        Command::Serve(_)
        | Command::Compile
        | Command::TenantProcess
        | Command::GpuHost { .. }
        | Command::GpuStarter { .. }
        | Command::GpuTrial { .. } => {}
    }
    Ok(Ended::Done)
}

fn completion(screen: Screen, shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sluicebox", &mut script);
    screen.bytes(&script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_is_explained_in_the_help() {
        let help = Cli::command().render_long_help().to_string();
        let table = help.split("Exit codes:").nth(1).unwrap();
        let explained: Vec<u8> =
            table.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
        let all = [
            Cause::Internal,
            Cause::Usage,
            Cause::Invalid,
            Cause::Partial,
            Cause::NotFound,
            Cause::Unavailable,
            Cause::Guest,
            Cause::Conflict,
            Cause::Local,
            Cause::Exhausted,
            Cause::Denied,
            Cause::Config,
        ];
        let codes = all.map(exit_code);
        let expected: Vec<u8> = [0].into_iter().chain(codes).chain([EXIT_AT_ONCE]).collect();
        assert_eq!(explained, expected);
    }
}
