//! The commands that start something or speak of the configuration. All others are asked of a
//! running daemon.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use postern::{
    cli::{
        Bodies,
        args::{ConfigCommand, EdgeArgs, FilterKind, Global, RelayArgs, RunArgs},
    },
    config::{self, Config, Enforce},
    edge, log, relay, run,
};

/// Exit code of a command that was refused or failed; see `postern --help`.
const FAILED: u8 = 1;

pub(crate) struct Commands;

impl Bodies for Commands {
    fn run(&self, global: &Global, args: &RunArgs) -> ExitCode {
        report(run_both(global, args))
    }

    fn edge(&self, global: &Global, args: &EdgeArgs) -> ExitCode {
        report((|| {
            let (mut config, _) = load(global)?;
            set_filter(&mut config, args.filter);
            set_interface(&mut config, args.interface.as_ref());
            log::init(&config.log);
            edge::serve::serve(&config, args.detach_on_exit)
        })())
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

fn set_interface(config: &mut Config, interface: Option<&String>) {
    if let Some(interface) = interface {
        config.filter.interface = Some(interface.clone());
    }
}

fn run_both(global: &Global, args: &RunArgs) -> anyhow::Result<()> {
    let (mut config, file) = load(global)?;
    set_filter(&mut config, args.filter);
    set_interface(&mut config, args.interface.as_ref());
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
    if let Some(interface) = &args.interface {
        edge_arguments.push(format!("--interface={interface}"));
    }
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
