//! `picket-decoy`: one decoy service, or the process that holds a decky's namespace open.

use std::{io, net::SocketAddr, process::ExitCode, sync::Arc, thread};

use clap::{Args, Parser, Subcommand};
use picket_clock::Clock;
use picket_decoy::{
    Persona, base, bounds,
    record::{Recorder, write_lines},
    serve::{self, Service},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Low-interaction decoy services: they answer, ask for a login, refuse it, and write one JSON line per interaction.
#[derive(Parser)]
#[command(version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// An SSH server up to the key exchange (port 22).
    Ssh(Options),
    /// A web server with a login page (port 80).
    Http(Options),
    /// A telnet login (port 23).
    Telnet(Options),
    /// An FTP server before the login (port 21).
    Ftp(Options),
    /// Holds a network namespace open until SIGTERM.
    Base,
}

#[derive(Args)]
struct Options {
    /// Where to listen; all IPv4 addresses and the service's own port when left out.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// The version line, greeting text or Server header; printable ASCII, at most 200 characters.
    #[arg(long, value_parser = printable)]
    banner: Option<String>,
    /// The name shown at prompts and on pages; the machine's own when left out.
    #[arg(long, value_parser = printable)]
    hostname: Option<String>,
}

/// A banner with a line break would be two lines of protocol.
fn printable(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 200 || !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err("want 1 to 200 printable ASCII characters".to_owned());
    }
    Ok(text.to_owned())
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let ended = match cli.role {
        Role::Ssh(options) => runtime.block_on(decoy(Service::Ssh, options)),
        Role::Http(options) => runtime.block_on(decoy(Service::Http, options)),
        Role::Telnet(options) => runtime.block_on(decoy(Service::Telnet, options)),
        Role::Ftp(options) => runtime.block_on(decoy(Service::Ftp, options)),
        Role::Base => runtime.block_on(hold()),
    };
    ended.map_or_else(|error| fail(&*error), |()| ExitCode::SUCCESS)
}

type Ended = Result<(), Box<dyn std::error::Error>>;

async fn hold() -> Ended {
    base::hold(&stop_on_signal()?).await;
    Ok(())
}

async fn decoy(service: Service, options: Options) -> Ended {
    let stop = stop_on_signal()?;
    let address = options
        .listen
        .unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], service.port())));
    let persona = Persona {
        banner: options.banner.unwrap_or_else(|| service.banner().to_owned()),
        hostname: options.hostname.unwrap_or_else(own_hostname),
    };
    let (recorder, lines) = Recorder::new(service.name(), Clock::system());
    let (written, all_written) = tokio::sync::oneshot::channel();
    // A thread of its own: a reader that stalls blocks the writer, and must block nothing else.
    let output = stop.clone();
    thread::spawn(move || {
        let result = write_lines(lines, io::stdout());
        // Without a reader there is no use in going on; whoever runs this starts it again.
        output.cancel();
        drop(written.send(result));
    });
    let listener = serve::listen(address).await?;
    serve::serve(listener, service, Arc::new(persona), recorder, stop).await;
    match tokio::time::timeout(bounds::STOP_TIME, all_written).await {
        Ok(Ok(result)) => Ok(result?),
        // Stdout is stuck; the last lines are lost, and the signal is obeyed.
        Ok(Err(_)) | Err(_) => Ok(()),
    }
}

/// A token that a SIGTERM or SIGINT cancels. As PID 1 the process has no default for either.
fn stop_on_signal() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    #[allow(
        clippy::disallowed_methods,
        reason = "it lives as long as the process and ends with it"
    )]
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        token.cancel();
    });
    Ok(stop)
}

fn own_hostname() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    printable(&name).unwrap_or_else(|_| "localhost".to_owned())
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message.push_str(": ");
        message.push_str(&error.to_string());
        cause = error.source();
    }
    eprintln!("picket-decoy: {message}");
    ExitCode::FAILURE
}
