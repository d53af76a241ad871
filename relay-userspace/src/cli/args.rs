//! The command line as typed.

mod watching;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use relay_common::entry::Scope;

use crate::edge::lines::parse_ttl;
pub use watching::{EventsArgs, TopArgs};

const EXIT_CODES: &str = "Exit codes:
  0  done
  1  refused or failed; the reason is on standard error
  2  the command line is wrong
  3  not found, or nothing to do
  4  a daemon is not reachable
  5  no permission to use the control socket";

/// Postern, an SMTP gateway with a gate in the kernel.
#[derive(Debug, Parser)]
#[command(name = "postern", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Configuration file; without one /etc/postern/postern.toml, or else the embedded default
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of the control sockets of a running Postern; without it server.run_dir of --config,
    /// or else /run/postern
    #[arg(long, global = true, value_name = "DIR")]
    pub socket_dir: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the edge and the relay, and keep both going
    Run(RunArgs),
    /// Start the edge alone: the filter, its lists, its control socket; or stop it
    Edge(EdgeArgs),
    /// Start the relay alone: SMTP, queue, delivery
    Relay(RelayArgs),
    /// Check, show or print the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    #[command(flatten)]
    Client(ClientCommand),
}

/// Commands that speak to a running daemon.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Sources that are dropped
    #[command(subcommand)]
    Deny(DenyCommand),
    /// Sources that are never dropped
    #[command(subcommand)]
    Allow(AllowCommand),
    /// Lists that others publish, replaced whole
    #[command(subcommand)]
    Feed(FeedCommand),
    /// Sources that may never relay
    #[command(subcommand)]
    NeverRoute(NeverRouteCommand),
    /// Messages on their way
    #[command(subcommand)]
    Queue(QueueCommand),
    /// Accounts that may submit mail
    #[command(subcommand)]
    Account(AccountCommand),
    /// What runs, where, and whether it is well
    Status,
    /// Packets and mail counted
    Stats,
    /// Packets that were dropped, limited or observed, one a line
    Events(EventsArgs),
    /// A live view of the filter: rates, top sources, rules by hits
    Top(TopArgs),
    /// What becomes of a client, and by which rule
    Explain {
        address: IpAddr,
        /// Destination port
        #[arg(long, default_value_t = 25)]
        port: u16,
    },
    /// `postern edge stop`
    #[command(skip)]
    StopEdge { detach: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FilterKind {
    /// XDP, before TCP
    Kernel,
    /// At accept(), where there is no XDP to be had
    Userspace,
}

#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct EdgeArgs {
    #[command(subcommand)]
    pub command: Option<EdgeCommand>,
    /// Where the lists are enforced
    #[arg(long, value_enum)]
    pub filter: Option<FilterKind>,
    /// Interface to attach to, as often as there are; the one of the default route without it
    #[arg(long, value_name = "IF")]
    pub interface: Vec<String>,
    /// Take the filter off the interface at the end
    #[arg(long)]
    pub detach_on_exit: bool,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub enum EdgeCommand {
    /// End the edge, and `postern run` with it; the filter goes on by itself, its entries in force
    Stop {
        /// Take the filter off first: program, maps and pins; also what an edge left that is gone
        #[arg(long)]
        detach: bool,
    },
}

#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Where the lists are enforced
    #[arg(long, value_enum)]
    pub filter: Option<FilterKind>,
    /// Interface to attach to, as often as there are; the one of the default route without it
    #[arg(long, value_name = "IF")]
    pub interface: Vec<String>,
    /// Leave the filter on the interface at the end, its entries in force
    #[arg(long)]
    pub keep_filter: bool,
}

#[derive(Clone, Debug, Args)]
pub struct RelayArgs {
    /// Where the lists are enforced
    #[arg(long, value_enum)]
    pub filter: Option<FilterKind>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say what is wrong with the configuration
    Check,
    /// Print the configuration as it is understood
    Show,
    /// Print the embedded default configuration
    Default,
}

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
        /// Ports that are kept open: mx, submission, smtp, tcp or all
        #[arg(long, default_value = "all", value_parser = scope)]
        scope: Scope,
    },
    /// Read a file: PREFIX [scope=NAME] [ttl=DURATION] [# comment] on each line
    Import {
        #[command(flatten)]
        what: ImportArgs,
        /// Scope of lines that give none
        #[arg(long, default_value = "all", value_parser = scope)]
        scope: Scope,
    },
    #[command(flatten)]
    Other(ListCommand),
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

/// What both lists can do.
#[derive(Debug, Subcommand)]
pub enum ListCommand {
    /// Remove prefixes, at once
    Del {
        #[arg(required = true, value_name = "PREFIX")]
        prefixes: Vec<String>,
        /// Only what this source listed: cli, ban, config or import:NAME
        #[arg(long)]
        source: Option<String>,
    },
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
    /// Remove everything, or all that one source listed
    Flush {
        /// Only what this source listed
        #[arg(long)]
        source: Option<String>,
        /// Yes, the whole list
        #[arg(long, required_unless_present = "source")]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum FeedCommand {
    /// Show the feeds, and how each is
    List,
    /// Show all that is known of one feed
    Show { name: String },
    /// Read or fetch a feed now
    Refresh {
        name: String,
        /// Take it this once even if it has shrunk by more than it may
        #[arg(long)]
        force: bool,
        /// Wait until it is in force, or refused
        #[arg(long)]
        wait: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum NeverRouteCommand {
    /// Forbid sources to relay, whatever else holds
    Add {
        #[arg(required = true, value_name = "PREFIX")]
        prefixes: Vec<String>,
        /// Why, for whoever asks later
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Lift the prohibition
    Del {
        #[arg(required = true, value_name = "PREFIX")]
        prefixes: Vec<String>,
    },
    /// Show the sources
    List,
}

#[derive(Debug, Subcommand)]
pub enum QueueCommand {
    /// Show the messages, oldest first
    List {
        /// Only from this sender; @example.org for all of a domain
        #[arg(long, value_name = "ADDRESS")]
        sender: Option<String>,
        /// Only to this recipient; @example.org for all of a domain
        #[arg(long, value_name = "ADDRESS")]
        recipient: Option<String>,
    },
    /// Show one message's envelope and recipients
    Show { id: String },
    /// Try delivery now
    Retry(QueueSelectArgs),
    /// Delete messages; nobody is told
    Delete(QueueSelectArgs),
}

#[derive(Debug, Args)]
pub struct QueueSelectArgs {
    #[arg(value_name = "ID", required_unless_present = "all")]
    pub ids: Vec<String>,
    /// Every message in the queue
    #[arg(long, conflicts_with = "ids")]
    pub all: bool,
}

#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Make an account; the password is read from standard input, or asked for
    Add { name: String },
    /// Set a password; it is read from standard input, or asked for
    Passwd { name: String },
    /// Show the accounts
    List,
    /// Let an account authenticate no more
    Disable { name: String },
    /// Let an account authenticate again
    Enable { name: String },
    /// Remove an account
    Delete { name: String },
}

fn scope(name: &str) -> Result<Scope, String> {
    Scope::from_name(name)
        .ok_or_else(|| "a scope is one of mx, submission, smtp, tcp, all".to_owned())
}
