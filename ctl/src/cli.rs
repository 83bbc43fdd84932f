//! The arguments: what may be typed, and the help that says so.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    audit, ca, clock, decky, deploy, device, event, host, kill, member, moon, network, operator,
    print::Format,
};

/// The port of the admin API.
const ADMIN_PORT: u16 = 7444;

const EXAMPLES: &str = "\
Examples:
  picketctl host enroll edge-07 --label site=oslo --out edge-07.bundle
  picketctl host list --watch
  picketctl network adopt 8056c2e21c000001
  picketctl member admit edge-07 --network 8056c2e21c000001 --reason 'new outpost'
  picketctl kill host edge-07 --reason 'somebody got out of the decoy'
  picketctl deploy plan -f site.yaml
  picketctl deploy apply -f site.yaml
  picketctl event watch

Exit codes:
  0 done   1 refused or failed   2 not understood (a bad file too)   3 no master to ask

JSON and YAML (-o json, -o yaml) are for scripts: a list is an array, `show` an object, keys are
snake_case, times RFC 3339, and what is not known is null.";

/// Govern hosts, ZeroTier networks and decoy machines through a Picket master.
///
/// Commands are a noun, then a verb. `picketctl NOUN --help` tells what can be done with it.
#[derive(Debug, Parser)]
#[command(
    name = "picketctl",
    version,
    after_help = EXAMPLES,
    disable_help_subcommand = true,
    term_width = 100,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What holds for every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// The operator's bundle [default: ~/.config/picket/admin.bundle]
    #[arg(
        long,
        global = true,
        env = "PICKET_BUNDLE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) bundle: Option<PathBuf>,

    /// Dial this master instead of those in the bundle; the port is 7444 unless given
    #[arg(long, global = true, value_name = "HOST[:PORT]", value_parser = address)]
    pub(crate) master: Option<String>,

    /// How long connecting, and each call, may take
    #[arg(long, global = true, value_name = "SPAN", default_value = "10s", value_parser = span)]
    pub(crate) timeout: Duration,

    /// How results are printed
    #[arg(short, long, global = true, value_name = "FORMAT", value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Worker machines: enroll, look at, cut off
    #[command(
        arg_required_else_help = true,
        subcommand_value_name = "VERB",
        subcommand_help_heading = "Verbs"
    )]
    Host {
        #[command(subcommand)]
        verb: host::Verb,
    },
    /// ZeroTier networks that Picket watches over
    #[command(
        arg_required_else_help = true,
        subcommand_value_name = "VERB",
        subcommand_help_heading = "Verbs"
    )]
    Network {
        #[command(subcommand)]
        verb: network::Verb,
    },
    /// Who may be on a network
    #[command(
        arg_required_else_help = true,
        subcommand_value_name = "VERB",
        subcommand_help_heading = "Verbs"
    )]
    Member {
        #[command(subcommand)]
        verb: member::Verb,
    },
    /// ZeroTier nodes of persons: register, list, remove
    #[command(
        arg_required_else_help = true,
        subcommand_value_name = "VERB",
        subcommand_help_heading = "Verbs"
    )]
    Device {
        #[command(subcommand)]
        verb: device::Verb,
    },
    /// Cut off a node, host, network or owner at once, and prove it
    #[command(
        arg_required_else_help = true,
        subcommand_value_name = "VERB",
        subcommand_help_heading = "Verbs"
    )]
    Kill {
        #[command(subcommand)]
        verb: kill::Verb,
    },
    /// Lift a kill: what the grants say holds again, and no more
    #[command(
        arg_required_else_help = true,
        subcommand_value_name = "WHAT",
        subcommand_help_heading = "What",
        after_help = kill::UNKILL_EXAMPLES
    )]
    Unkill {
        #[command(subcommand)]
        what: kill::Lift,
    },
    /// Roots of our own, so that nodes find each other without the public ones
    #[command(
        arg_required_else_help = true,
        subcommand_value_name = "VERB",
        subcommand_help_heading = "Verbs"
    )]
    Moon {
        #[command(subcommand)]
        verb: moon::Verb,
    },
    /// Sets of decoy machines, from a site file
    #[command(
        arg_required_else_help = true,
        subcommand_value_name = "VERB",
        subcommand_help_heading = "Verbs"
    )]
    Deploy {
        #[command(subcommand)]
        verb: deploy::Verb,
    },
    /// Decoy machines, as they are
    #[command(
        arg_required_else_help = true,
        subcommand_value_name = "VERB",
        subcommand_help_heading = "Verbs"
    )]
    Decky {
        #[command(subcommand)]
        verb: decky::Verb,
    },
    /// Those who may use picketctl: their roles and devices
    #[command(
        arg_required_else_help = true,
        subcommand_value_name = "VERB",
        subcommand_help_heading = "Verbs"
    )]
    Operator {
        #[command(subcommand)]
        verb: operator::Verb,
    },
    /// What happened
    #[command(
        arg_required_else_help = true,
        subcommand_value_name = "VERB",
        subcommand_help_heading = "Verbs"
    )]
    Event {
        #[command(subcommand)]
        verb: event::Verb,
    },
    /// Who changed what, and what was refused
    #[command(
        arg_required_else_help = true,
        subcommand_value_name = "VERB",
        subcommand_help_heading = "Verbs"
    )]
    Audit {
        #[command(subcommand)]
        verb: audit::Verb,
    },
    /// The time the master goes by
    #[command(
        arg_required_else_help = true,
        subcommand_value_name = "VERB",
        subcommand_help_heading = "Verbs"
    )]
    Clock {
        #[command(subcommand)]
        verb: clock::Verb,
    },
    /// The CA, and how another takes its place
    #[command(
        arg_required_else_help = true,
        subcommand_value_name = "VERB",
        subcommand_help_heading = "Verbs"
    )]
    Ca {
        #[command(subcommand)]
        verb: ca::Verb,
    },
    /// Print the completions for a shell
    #[command(
        after_help = "Example:\n  picketctl completions bash > ~/.local/share/bash-completion/completions/picketctl"
    )]
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// How a list is asked for.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Watch {
    /// List again every 2 s, until interrupted
    #[arg(short, long)]
    pub(crate) watch: bool,
}

/// How long to wait until a change has come true.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Wait {
    /// Do not wait until it is true; the master goes on by itself
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// Reads the arguments.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(args)
}

/// The completion script of a shell.
pub(crate) fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "picketctl", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Reads a span such as `10s`, `5m`, `1h30m` or `7d`.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let wanted = "want a positive span such as `10s` or `5m`";
    let span: jiff::Span = text.parse().map_err(|_| wanted.to_owned())?;
    let span = span
        .to_duration(jiff::SpanRelativeTo::days_are_24_hours())
        .map_err(|_| wanted.to_owned())?;
    Duration::try_from(span)
        .ok()
        .filter(|span| !span.is_zero())
        .ok_or_else(|| wanted.to_owned())
}

/// Reads `key=value`; what keys and values may look like is the master's to say.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("want KEY=VALUE".to_owned()),
    }
}

/// Completes an address with the admin port. An IPv6 address with a port stands in brackets.
fn address(text: &str) -> Result<String, String> {
    let bare_v6 = text.parse::<std::net::Ipv6Addr>().is_ok();
    if bare_v6 {
        return Ok(format!("[{text}]:{ADMIN_PORT}"));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !port.ends_with(']') => match port.parse::<u16>() {
            Ok(port) if port != 0 => Ok(text.to_owned()),
            Ok(_) | Err(_) => Err(format!("{port:?} is no port; want HOST or HOST:PORT")),
        },
        Some(("", _)) => Err("want HOST or HOST:PORT".to_owned()),
        Some(_) | None if text.is_empty() => Err("want HOST or HOST:PORT".to_owned()),
        Some(_) | None => Ok(format!("{text}:{ADMIN_PORT}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_address_without_a_port_gets_the_admin_port() {
        for (typed, dialled) in [
            ("master.example.org", "master.example.org:7444"),
            ("master.example.org:9000", "master.example.org:9000"),
            ("10.0.0.1", "10.0.0.1:7444"),
            ("::1", "[::1]:7444"),
            ("[::1]", "[::1]:7444"),
            ("[::1]:9000", "[::1]:9000"),
        ] {
            assert_eq!(address(typed).as_deref(), Ok(dialled));
        }
        for wrong in ["", ":7444", "master:", "master:port", "master:70000", "master:0"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_span_has_a_unit_and_is_positive() {
        assert_eq!(span("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(span("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(span("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for wrong in ["", "10", "0s", "-5s", "soon", "1mo"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }
}
