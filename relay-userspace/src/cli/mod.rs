//! The command line. It speaks to the control sockets alone: it never opens a map, a database or a
//! queue file.

mod account;
pub mod args;
mod events;
mod feed;
mod lists;
mod never_route;
mod output;
mod password;
mod progress;
mod queue;
pub mod session;
mod stop;
mod top;
mod watch;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use args::{
    Cli, ClientCommand, Command, ConfigCommand, EdgeArgs, EdgeCommand, Global, RelayArgs, RunArgs,
};
use relay_common::entry::List;
use session::{Exit, Failure, Session};

/// The commands that are not the CLI's own.
pub trait Bodies {
    fn run(&self, global: &Global, args: &RunArgs) -> ExitCode;
    fn edge(&self, global: &Global, args: &EdgeArgs) -> ExitCode;
    fn relay(&self, global: &Global, args: &RelayArgs) -> ExitCode;
    fn config(&self, global: &Global, command: ConfigCommand) -> ExitCode;
    /// Takes off what an edge left that does not run any more.
    fn detach_left_behind(&self, global: &Global) -> ExitCode;
}

/// Reads the process's arguments and does what they say.
pub fn main(bodies: &dyn Bodies) -> ExitCode {
    dispatch(Cli::parse(), bodies)
}

/// Does what a parsed command line says.
pub fn dispatch(cli: Cli, bodies: &dyn Bodies) -> ExitCode {
    let asks = match &cli.command {
        Command::Client(_) => true,
        Command::Edge(args) => args.command.is_some(),
        _ => false,
    };
    if !asks && cli.global.socket_dir.is_some() {
        let message = "--socket-dir is for commands that ask a running Postern; where it makes \
                       its sockets, server.run_dir of the configuration says";
        Cli::command().error(ErrorKind::ArgumentConflict, message).exit();
    }
    match cli.command {
        Command::Run(args) => bodies.run(&cli.global, &args),
        Command::Edge(EdgeArgs { command: Some(EdgeCommand::Stop { detach }), .. }) => {
            match session::with_terminal(&cli.global, ClientCommand::StopEdge { detach }) {
                Exit::NotReachable if detach => bodies.detach_left_behind(&cli.global),
                exit => ExitCode::from(exit as u8),
            }
        }
        Command::Edge(args) => bodies.edge(&cli.global, &args),
        Command::Relay(args) => bodies.relay(&cli.global, &args),
        Command::Config(command) => bodies.config(&cli.global, command),
        Command::Client(command) => {
            ExitCode::from(session::with_terminal(&cli.global, command) as u8)
        }
    }
}

/// Carries out one client command.
pub async fn execute(command: ClientCommand, on: &mut Session<'_>) -> Result<Exit, Failure> {
    match command {
        ClientCommand::Deny(command) => lists::deny(command, on).await,
        ClientCommand::Allow(command) => lists::allow(command, on).await,
        ClientCommand::Feed(command) => feed::feed(command, on).await,
        ClientCommand::NeverRoute(command) => never_route::execute(command, on).await,
        ClientCommand::Queue(command) => queue::execute(command, on).await,
        ClientCommand::Account(command) => account::execute(command, on).await,
        ClientCommand::Status => watch::status(on).await,
        ClientCommand::Stats => watch::stats(on).await,
        ClientCommand::StopEdge { detach } => stop::execute(detach, on).await,
        ClientCommand::Events(args) => events::execute(args, on).await,
        ClientCommand::Top(args) => top::execute(args, on).await,
        ClientCommand::Explain { address, port } => watch::explain(address, port, on).await,
    }
}

/// How messages call a list.
const fn called(list: List) -> &'static str {
    match list {
        List::Allow => "allow list",
        List::Deny => "deny list",
    }
}

#[cfg(test)]
mod tests;
