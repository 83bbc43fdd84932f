//! The operator's command line: `picketctl NOUN VERB`.
//!
//! Parses what an operator typed, makes the call, prints the answer. Whatever another client of the admin API would
//! need too (what a name may look like, which host a decky may go to) is decided by the master and not here.
//!
//! One file per noun; [`run`] is the whole program, over whatever [`World`] it is handed.

mod audit;
mod ca;
mod cli;
mod clock;
mod config;
mod decky;
mod deploy;
mod desk;
mod device;
mod document;
mod event;
mod fault;
mod host;
mod kill;
mod member;
mod moon;
mod network;
mod operator;
mod print;
mod progress;
mod renew;
mod site;
mod words;

use std::{ffi::OsString, process::ExitCode};

pub use config::{Terminals, World};

use cli::{Cli, Command};
use desk::Desk;
use fault::Fault;
use print::Print;

/// How the program ended, as a script sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: refused or failed.
    Failed,
    /// 2: asked for in a way that makes no sense; a bad site file is that too.
    Usage,
    /// 3: there was no master to ask.
    Unreachable,
}

impl Exit {
    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Runs `picketctl` with these arguments, the program's name first. What needs no master, such as `--help`, is
/// answered without a runtime.
pub fn run(args: impl IntoIterator<Item = OsString>, world: World) -> Exit {
    let (cli, mut desk) = match begin(args, world) {
        Ok(begun) => begun,
        Err(exit) => return exit,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => return end(&mut desk.print, Err(Fault::Runtime(cause))),
    };
    runtime.block_on(finish(cli, desk))
}

/// As [`run`], inside a runtime that is there already.
pub async fn run_within(args: impl IntoIterator<Item = OsString>, world: World) -> Exit {
    match begin(args, world) {
        Ok((cli, desk)) => finish(cli, desk).await,
        Err(exit) => exit,
    }
}

fn begin(args: impl IntoIterator<Item = OsString>, world: World) -> Result<(Cli, Desk), Exit> {
    match cli::parse(args) {
        Ok(cli) => {
            let mut desk = Desk::new(world, &cli.globals);
            if let Command::Completions { shell } = cli.command {
                let done = desk.print.text(&cli::completions(shell));
                return Err(end(&mut desk.print, done));
            }
            Ok((cli, desk))
        }
        Err(answer) => {
            let World {
                stdout,
                stderr,
                terminals,
                no_color,
                ..
            } = world;
            let mut print = Print::new(stdout, stderr, terminals, no_color, print::Format::Table);
            let (exit, printed) = print.usage(&answer);
            match printed {
                Ok(()) => Err(exit),
                Err(_) => Err(end(&mut print, printed)),
            }
        }
    }
}

async fn finish(cli: Cli, mut desk: Desk) -> Exit {
    let done = match cli.command {
        Command::Host { verb } => host::run(verb, &mut desk).await,
        Command::Network { verb } => network::run(verb, &mut desk).await,
        Command::Member { verb } => member::run(verb, &mut desk).await,
        Command::Device { verb } => device::run(verb, &mut desk).await,
        Command::Kill { verb } => kill::run(verb, &mut desk).await,
        Command::Unkill { what } => kill::lift(what, &mut desk).await,
        Command::Moon { verb } => moon::run(verb, &mut desk).await,
        Command::Deploy { verb } => deploy::run(verb, &mut desk).await,
        Command::Decky { verb } => decky::run(verb, &mut desk).await,
        Command::Operator { verb } => operator::run(verb, &mut desk).await,
        Command::Event { verb } => event::run(verb, &mut desk).await,
        Command::Audit { verb } => audit::run(verb, &mut desk).await,
        Command::Clock { verb } => clock::run(verb, &mut desk).await,
        Command::Ca { verb } => ca::run(verb, &mut desk).await,
        Command::Completions { .. } => Ok(()),
    };
    end(&mut desk.print, done)
}

fn end(print: &mut Print, done: Result<(), Fault>) -> Exit {
    match done {
        Ok(()) => Exit::Done,
        Err(fault) => {
            print.fault(&fault);
            fault.exit()
        }
    }
}
