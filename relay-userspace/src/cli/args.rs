//! The command line as typed.

mod lists;
mod watching;

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use lists::{
    AddArgs, AllowArgs, AllowCommand, DelArgs, DenyArgs, DenyCommand, FlushArgs, ImportArgs,
    ListCommand,
};
pub use watching::{EventsArgs, TopArgs};

const EXIT_CODES: &str = "Exit codes:
  0  done
  1  refused or failed; the reason is on standard error
  2  the command line is wrong
  3  what was named is not there
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
