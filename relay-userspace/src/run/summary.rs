//! What `postern run` prints once both daemons serve: what an administrator wants to know first.

use std::{fmt::Write as _, path::Path};

use crate::{
    config::{Config, DomainRoute, LogFormat},
    control::{
        api::{EdgeStatus, RelayStatus},
        client::Client,
    },
};

/// Asks both daemons and prints. A daemon that does not answer by now is said to, and no more:
/// the supervisor looks after it.
pub async fn print(config: &Config, file: Option<&Path>) {
    let sockets = &config.server.run_dir;
    let edge = Client::edge(sockets).get::<EdgeStatus>("/v1/status").await;
    let relay = Client::relay(sockets).get::<RelayStatus>("/v1/status").await;
    let mut lines = Vec::new();
    let mut say = |name: &'static str, text: String| lines.push((name, text));
    match edge {
        Ok(edge) => filter(&edge).into_iter().for_each(|text| say("filter", text)),
        Err(error) => say("filter", error.to_string()),
    }
    match relay {
        Ok(relay) => {
            for listener in &relay.listeners {
                say(
                    "listener",
                    format!(
                        "{} on {}, relays {}",
                        listener.name, listener.address, listener.relays
                    ),
                );
            }
            say("inbound", inbound(config));
            for notice in &relay.notices {
                say("notice", notice.clone());
            }
        }
        Err(error) => say("relay", error.to_string()),
    }
    let file = file.map_or_else(
        || "embedded; `postern config default` prints it".to_owned(),
        |file| file.display().to_string(),
    );
    say("configuration", file);
    say("state", config.server.state_dir.display().to_string());
    say("sockets", sockets.display().to_string());
    say("log", "here, on standard output".to_owned());
    let socket_dir = if sockets == Path::new("/run/postern") {
        String::new()
    } else {
        format!("--socket-dir {} ", sockets.display())
    };
    let postern = std::env::current_exe()
        .map_or_else(|_| "postern".to_owned(), |program| program.display().to_string());
    say("next", format!("{postern} {socket_dir}status"));
    say("", format!("{postern} {socket_dir}deny add 192.0.2.0/24 --ttl 1h --reason \"a test\""));
    say("", format!("{postern} {socket_dir}explain 192.0.2.1"));
    say("end", "Ctrl-C".to_owned());
    let up = format!("Postern {} is up.", env!("CARGO_PKG_VERSION"));
    match config.log.format {
        LogFormat::Text => print!("{up}\n{}", table(&lines)),
        // Standard output is the log, and each of its lines is an object.
        LogFormat::Json => {
            tracing::info!("{up}");
            // What to type next is for people.
            for (what, text) in lines.iter().take_while(|(what, _)| *what != "log") {
                tracing::info!(what, text, "summary");
            }
        }
    }
}

/// Two columns; a line without a name goes on with the one before it.
fn table(lines: &[(&str, String)]) -> String {
    let mut out = String::new();
    for (name, text) in lines {
        let _ = writeln!(out, "{name:<14} {text}");
    }
    out
}

fn filter(edge: &EdgeStatus) -> Vec<String> {
    if edge.interfaces.is_empty() {
        return vec![format!(
            "{}: denied sources are refused at accept, not in the kernel",
            edge.mode
        )];
    }
    edge.interfaces.iter().map(|interface| format!("XDP on {interface}")).collect()
}

fn inbound(config: &Config) -> String {
    let ours = config.domains.iter().filter(|domain| domain.route == DomainRoute::Inbound);
    let domains: Vec<String> = ours
        .map(|domain| {
            let hosts: Vec<String> = domain.hosts.iter().map(ToString::to_string).collect();
            format!("{} to {}", domain.pattern, hosts.join(", "))
        })
        .collect();
    if domains.is_empty() {
        "no domain: all mail is refused".to_owned()
    } else {
        domains.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_a_name_stands_below_the_text_before_it() {
        let lines = [("next", "one".to_owned()), ("", "two".to_owned())];
        assert_eq!(table(&lines), "next           one\n               two\n");
    }
}
