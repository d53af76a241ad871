//! Arguments of `deny` and `allow`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use relay_common::entry::Scope;

use crate::edge::lines::parse_ttl;

#[derive(Debug, Subcommand)]
pub enum DenyCommand {
    /// Drop packets from prefixes
    Add {
        #[command(flatten)]
        what: AddArgs,
        #[command(flatten)]
        how: DenyArgs,
    },
    /// Read a file: PREFIX [scope=NAME] [ttl=DURATION] [observe] [# comment] on each line
    Import {
        #[command(flatten)]
        what: ImportArgs,
        #[command(flatten)]
        how: DenyArgs,
    },
    /// Remove prefixes, at once
    Del(DelArgs),
    /// Remove everything, or all that one source listed
    Flush(FlushArgs),
    /// Keep what was denied with --confirm-within
    Confirm {
        /// Which change, as `pending` shows it; without any, the only one
        #[arg(value_name = "ID")]
        ids: Vec<u64>,
        /// Every change that waits
        #[arg(long, conflicts_with = "ids")]
        all: bool,
    },
    /// Show what waits to be confirmed
    Pending,
    #[command(flatten)]
    Other(ListCommand),
}

/// How sources are denied.
#[derive(Clone, Copy, Debug, Args)]
pub struct DenyArgs {
    /// Ports that are closed: mx, submission, smtp, tcp or all
    #[arg(long, default_value = "smtp", value_parser = scope)]
    pub scope: Scope,
    /// Only count what would be dropped
    #[arg(long)]
    pub observe: bool,
    /// Undo it by itself after this long (1s to 1h), unless `deny confirm` comes first
    #[arg(long, value_name = "DURATION", value_parser = parse_ttl)]
    pub confirm_within: Option<Duration>,
    /// Go past the guardrails
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Subcommand)]
pub enum AllowCommand {
    /// Never drop packets from prefixes
    Add {
        #[command(flatten)]
        what: AddArgs,
        #[command(flatten)]
        args: AllowArgs,
    },
    /// Read a file: PREFIX [scope=NAME] [ttl=DURATION] [# comment] on each line
    Import {
        #[command(flatten)]
        what: ImportArgs,
        #[command(flatten)]
        args: AllowArgs,
    },
    /// Remove prefixes, at once
    Del {
        #[command(flatten)]
        what: DelArgs,
        #[command(flatten)]
        force: Force,
    },
    /// Remove everything, or all that one source listed
    Flush {
        #[command(flatten)]
        what: FlushArgs,
        #[command(flatten)]
        force: Force,
    },
    #[command(flatten)]
    Other(ListCommand),
}

/// How sources are allowed.
#[derive(Clone, Copy, Debug, Args)]
pub struct AllowArgs {
    /// Ports that are kept open, where a line of a file says nothing else: mx, submission, smtp,
    /// tcp or all
    #[arg(long, default_value = "all", value_parser = scope)]
    pub scope: Scope,
    #[command(flatten)]
    pub force: Force,
}

#[derive(Clone, Copy, Debug, Args)]
pub struct Force {
    /// Go past the guardrails: even where an entry that goes, or is narrowed, alone keeps an
    /// address that must stay reachable out of a denial
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct AddArgs {
    /// 192.0.2.1, 192.0.2.0/24, 192.0.2.0/255.255.255.0, 2001:db8::/32
    #[arg(required = true, value_name = "PREFIX")]
    pub prefixes: Vec<String>,
    /// Lifetime, such as 10min or 1h; for ever without it
    #[arg(long, value_name = "DURATION", value_parser = parse_ttl)]
    pub ttl: Option<Duration>,
    /// Why, for whoever asks later
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub reason: String,
}

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The file, or - for standard input
    pub file: PathBuf,
    /// What the source is called, as import:NAME; the file's name without it
    #[arg(long)]
    pub name: Option<String>,
    /// Remove what the same source had and the file has not
    #[arg(long)]
    pub replace: bool,
}

#[derive(Debug, Args)]
pub struct DelArgs {
    #[arg(required = true, value_name = "PREFIX")]
    pub prefixes: Vec<String>,
    /// Only what this source listed: cli, ban, config or import:NAME
    #[arg(long)]
    pub source: Option<String>,
}

#[derive(Debug, Args)]
pub struct FlushArgs {
    /// Only what this source listed
    #[arg(long)]
    pub source: Option<String>,
    /// Yes, the whole list
    #[arg(long, required_unless_present = "source")]
    pub yes: bool,
}

/// What both lists can do alike.
#[derive(Debug, Subcommand)]
pub enum ListCommand {
    /// Show the list
    List {
        /// Only what this source listed
        #[arg(long)]
        source: Option<String>,
    },
    /// Print the list in the form that import reads
    Export {
        /// Only what this source listed
        #[arg(long)]
        source: Option<String>,
    },
}

fn scope(name: &str) -> Result<Scope, String> {
    Scope::from_name(name)
        .ok_or_else(|| "a scope is one of mx, submission, smtp, tcp, all".to_owned())
}
