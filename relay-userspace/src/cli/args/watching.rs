//! Arguments of the commands that watch the filter at work.

use std::time::Duration;

use clap::Args;

#[derive(Clone, Copy, Debug, Args)]
pub struct EventsArgs {
    /// Go on as they come, until Ctrl-C
    #[arg(long, short)]
    pub follow: bool,
    /// Begin with so many of the latest; all that are kept (1000) without it, or 10 with --follow
    #[arg(long, short = 'n', value_name = "N")]
    pub last: Option<usize>,
}

#[derive(Clone, Copy, Debug, Args)]
pub struct TopArgs {
    /// How often the figures are asked for
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
    /// Print one snapshot, as text or with --json; needs no terminal
    #[arg(long)]
    pub once: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let sensible = Duration::from_millis(100)..=Duration::from_secs(3600);
    if sensible.contains(&interval) { Ok(interval) } else { Err("write 100ms to 1h".to_owned()) }
}
