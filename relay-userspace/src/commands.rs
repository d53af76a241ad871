//! The commands that start something or speak of the configuration. All others are asked of a
//! running daemon.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use postern::{
    cli::{
        Bodies,
        args::{ConfigCommand, EdgeArgs, FilterKind, Global, RelayArgs, RunArgs},
        session::Exit,
    },
    config::{self, Config, Enforce},
    edge::{self, stop::Ending},
    log, relay, run,
};

/// Exit code of a command that was refused or failed; see `postern --help`.
const FAILED: u8 = 1;

pub(crate) struct Commands;

impl Bodies for Commands {
    fn run(&self, global: &Global, args: &RunArgs) -> ExitCode {
        report(run_both(global, args))
    }

    fn edge(&self, global: &Global, args: &EdgeArgs) -> ExitCode {
        let ending = (|| {
            let (mut config, _) = load(global)?;
            set_filter(&mut config, args.filter);
            set_interfaces(&mut config, &args.interface);
            log::init(&config.log);
            edge::serve::serve(&config, args.detach_on_exit)
        })();
        match ending {
            Ok(Ending::Asked { .. }) if run::is_supervised() => ExitCode::from(run::ASKED_TO_STOP),
            ending => report(ending.map(drop)),
        }
    }

    fn detach_left_behind(&self, global: &Global) -> ExitCode {
        match detach_left_behind(global) {
            Ok(exit) => ExitCode::from(exit as u8),
            Err(error) => report(Err(error)),
        }
    }

    fn relay(&self, global: &Global, args: &RelayArgs) -> ExitCode {
        report((|| {
            let (mut config, _) = load(global)?;
            set_filter(&mut config, args.filter);
            log::init(&config.log);
            relay::serve::serve(&config)
        })())
    }

    fn config(&self, global: &Global, command: ConfigCommand) -> ExitCode {
        report((|| {
            match command {
                ConfigCommand::Check => {
                    let (_, file) = load(global)?;
                    match file {
                        _ if global.json => print_json(&serde_json::json!({ "file": file }))?,
                        Some(file) => println!("{}: good", file.display()),
                        None => println!("the embedded configuration is in use, and good"),
                    }
                }
                ConfigCommand::Show => {
                    let table = config::show(&load(global)?.0);
                    if global.json {
                        print_json(&table)?;
                    } else {
                        print!("{}", toml::to_string(&table)?);
                    }
                }
                ConfigCommand::Default if global.json => {
                    print_json(&config::show(&config::embedded()))?;
                }
                ConfigCommand::Default => print!("{}", config::DEFAULT),
            }
            Ok(())
        })())
    }
}

fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// One sentence on standard error, and the exit code.
fn report(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("postern: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// The configuration, and the file it came from: the one named, or else the system's, or else
/// none.
fn load(global: &Global) -> anyhow::Result<(Config, Option<PathBuf>)> {
    let system = PathBuf::from(config::DEFAULT_PATH);
    let file = global.config.clone().or_else(|| system.exists().then_some(system));
    let config = match &file {
        Some(file) => config::load(file)?,
        None => config::embedded(),
    };
    Ok((config, file))
}

fn set_filter(config: &mut Config, filter: Option<FilterKind>) {
    match filter {
        Some(FilterKind::Kernel) => config.filter.enforce = Enforce::Kernel,
        Some(FilterKind::Userspace) => config.filter.enforce = Enforce::Userspace,
        None => {}
    }
}

fn set_interfaces(config: &mut Config, interfaces: &[String]) {
    if !interfaces.is_empty() {
        config.filter.attach_to(interfaces);
    }
}

/// `postern edge stop --detach` where no edge answers: the pins are taken off by this process.
fn detach_left_behind(global: &Global) -> anyhow::Result<Exit> {
    if global.socket_dir.is_some() && global.config.is_none() {
        eprintln!(
            "postern: no edge answers there; what it left can be taken off with its --config, \
             which says where that is"
        );
        return Ok(Exit::NotReachable);
    }
    let (config, _) = load(global)?;
    if !nix::unistd::geteuid().is_root() {
        eprintln!("postern: no edge is running, and to take off what it left one must be root");
        return Ok(Exit::NoPermission);
    }
    let ended = edge::left_behind::end_all(&config.server.edge_dir(), &config.filter.pin_dir)?;
    for error in ended.iter().filter_map(|ended| ended.lost.as_ref()) {
        eprintln!("postern: what it had counted since the last copy is lost: {error}");
    }
    if global.json {
        let places: Vec<&Path> = ended.iter().map(|ended| ended.kept_in.as_path()).collect();
        print_json(&serde_json::json!({ "detached": places }))?;
    } else if ended.is_empty() {
        println!("no edge is running, and it left no filter");
    } else {
        println!("no edge is running; the filter that it left was taken off");
    }
    Ok(if ended.is_empty() { Exit::Nothing } else { Exit::Done })
}

fn run_both(global: &Global, args: &RunArgs) -> anyhow::Result<()> {
    let (mut config, file) = load(global)?;
    set_filter(&mut config, args.filter);
    set_interfaces(&mut config, &args.interface);
    log::init(&config.log);
    let mut relay_arguments = Vec::new();
    if let Some(filter) = args.filter {
        let name = match filter {
            FilterKind::Kernel => "kernel",
            FilterKind::Userspace => "userspace",
        };
        relay_arguments.push(format!("--filter={name}"));
    }
    let mut edge_arguments = relay_arguments.clone();
    edge_arguments.extend(args.interface.iter().map(|name| format!("--interface={name}")));
    let options = run::RunOptions {
        config_file: file.clone(),
        edge_arguments,
        relay_arguments,
        keep_filter: args.keep_filter,
    };
    // One thread: the daemons end with the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(run::run(&config, &options, async || {
        run::summary::print(&config, file.as_deref()).await;
        run::notify::Starter::reach().ready();
    }))
}
