//! The dialogues of `tests/dialogues` again, over a real socket: the loop of a connection with the
//! rules of the script in the relay's place, once in plain text and once with TLS from the start.

#[path = "../../../../../tests/dialogues/rules.rs"]
mod rules;
#[path = "../../../../../tests/dialogues/script.rs"]
mod script;

mod client;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use rules::Rules;
use rustls::ServerConfig;
use script::{Script, Step};
use tokio::{net::TcpListener, task::JoinHandle};

use self::client::Client;
use super::*;

/// Whatever is waited for comes within this time, or never.
const PATIENCE: Duration = Duration::from_secs(20);

/// After so many the others are not tried.
const FAILED_MAX: usize = 3;

/// What a socket cannot show, as a script says when the time passes or the banner comes; the pure
/// run has them all.
const PURE_ALONE: [(&str, &str); 10] = [
    ("banner_after_wait", "the banner is held back: relay/tests/pregreet.rs"),
    ("bdat_slow", "minutes pass"),
    ("bdat_slow_chunks", "minutes pass"),
    ("bdat_slow_refused", "seconds pass"),
    ("pregreet", "the banner is held back: relay/tests/pregreet.rs"),
    ("slow_command", "minutes pass"),
    ("slow_data", "minutes pass"),
    ("slow_session", "hours pass"),
    ("starttls_injection_late", "a handshake that fails, with an alert behind the 220"),
    ("tls_before_banner", "the banner is held back: relay/tests/pregreet.rs"),
];

/// The rules of a script in the place of the relay.
#[derive(Debug, Clone)]
struct Scripted {
    rules: Arc<Mutex<Rules>>,
    tls: Arc<ServerConfig>,
}

impl Scripted {
    fn rules(&self) -> std::sync::MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answers for Scripted {
    async fn answer(&mut self, effect: Effect, _: &Session) -> Option<Answer> {
        self.rules().answer(effect)
    }

    fn tls(&self) -> &Arc<ServerConfig> {
        &self.tls
    }

    fn handshake_ended(&self, _: bool) {}
}

/// One run of one script.
struct Run {
    client: Client,
    scripted: Scripted,
    /// TLS came before the banner, and the script does not know of it.
    wrapped: bool,
    stop: CancellationToken,
    server: JoinHandle<io::Result<()>>,
}

impl Run {
    async fn start(script: &Script, tls: &Arc<ServerConfig>, inside_tls: bool) -> Self {
        let rules = Rules::new(&script.directives);
        let settings = Arc::new(rules.settings());
        let scripted = Scripted { rules: Arc::new(Mutex::new(rules)), tls: Arc::clone(tls) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let (questions, stopped) = (scripted.clone(), stop.clone());
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let stream = Socket::Left(stream);
            let (stream, tls) = if inside_tls {
                let (stream, info) = handshake(&questions, stream).await?;
                (Either::Right(stream), Some(info))
            } else {
                (Either::Left(stream), None)
            };
            let mut session = Session::new(settings, tls, Instant::now());
            session.greet(Instant::now());
            let mut connection = Connection {
                stream: Some(stream),
                session,
                replies: Vec::new(),
                questions,
                ends_at: None,
                moved: tokio::time::Instant::now(),
            };
            connection.converse(&stopped).await
        });
        let mut client = Client::connect(address).await.unwrap();
        if inside_tls {
            client.start_tls().await.unwrap();
        }
        let wrapped = inside_tls && script.directive("implicit-tls").next().is_none();
        Self { client, scripted, wrapped, stop, server }
    }

    async fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Greet | Step::Wait(_) => return Err("cannot be done over a socket".to_owned()),
            Step::Send(bytes) => self.client.send(&bytes).await,
            Step::Expect(expected) => {
                let line = self.client.line().await?;
                let fits = match expected.strip_suffix("...") {
                    Some(start) => line.starts_with(start),
                    None => line == expected,
                };
                return fits.then_some(()).ok_or(format!("expected {expected:?}, got {line:?}"));
            }
            Step::Closed => return self.client.closed().await,
            Step::Tls => self.client.start_tls().await.map_err(|error| error.to_string())?,
            Step::Eof => self.client.close().await,
            Step::ShutDown => self.stop.cancel(),
            Step::Stored(content) => {
                let stored = self.scripted.rules().take_stored().ok_or("nothing was stored")?;
                if stored != content {
                    return Err(format!("stored: {}", stored.escape_ascii()));
                }
            }
            Step::NothingStored => {
                if let Some(stored) = self.scripted.rules().take_stored() {
                    return Err(format!("stored: {}", stored.escape_ascii()));
                }
            }
            Step::Event(name) => {
                let mut rules = self.scripted.rules();
                if !rules.take_event(&self.event(&name)) {
                    return Err(format!("no {name}, but {:?}", rules.events()));
                }
            }
        }
        Ok(())
    }

    /// The name of an event; the protocol of an envelope says that it came in TLS (RFC 3848).
    fn event(&self, name: &str) -> String {
        match name.strip_prefix("Envelope ").and_then(|rest| rest.split_once(' ')) {
            Some((protocol, rest)) if self.wrapped => format!("Envelope {protocol}S {rest}"),
            _ => name.to_owned(),
        }
    }

    async fn end(mut self) -> Result<(), String> {
        self.client.close().await;
        self.client.closed().await?;
        match timeout(PATIENCE, self.server).await {
            Err(_) => return Err("the server does not end".to_owned()),
            Ok(Err(panic)) => return Err(format!("the server: {panic}")),
            // Whoever closes while the other still writes may hear of that as an error.
            Ok(Ok(_closed_or_reset)) => {}
        }
        let stored = self.scripted.rules().take_stored();
        stored.map_or(Ok(()), |_| Err("stored, but nobody looked".to_owned()))
    }
}

/// Runs a script; `Err` says at which line it goes otherwise than written.
async fn run(path: &Path, tls: &Arc<ServerConfig>, inside_tls: bool) -> Result<(), String> {
    let mut script = Script::read(path);
    let mut run = Run::start(&script, tls, inside_tls).await;
    if run.wrapped {
        without_starttls(&mut script);
    }
    while let Some((number, step)) = script.steps.pop_front() {
        let what = format!("{step:?}");
        let said = |wrong: String| format!("line {number}, {what:.200}: {wrong}");
        run.step(step).await.map_err(said)?;
    }
    run.end().await
}

/// Inside TLS, STARTTLS is not offered: the line before it is the last then.
fn without_starttls(script: &mut Script) {
    let offers = |step: &Step| matches!(step, Step::Expect(line) if line.ends_with(" STARTTLS"));
    while let Some(at) = script.steps.iter().position(|(_, step)| offers(step)) {
        script.steps.remove(at);
        if let Some((_, Step::Expect(before))) = script.steps.get_mut(at - 1) {
            before.replace_range(3..4, " ");
        }
    }
}

fn dialogues() -> Vec<(String, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/dialogues");
    let paths = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "smtp"))
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), path))
        .collect();
    found.sort();
    assert!(found.len() >= 90, "only {} dialogues in {}", found.len(), folder.display());
    found
}

/// Runs all dialogues that `chosen` chooses, and returns their number.
async fn run_all(inside_tls: bool, chosen: impl Fn(&Script) -> bool) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let tls = tls::load_or_make(folder.path(), "mx.example", SystemTime::now()).unwrap();
    let (mut failed, mut ran) = (Vec::new(), 0);
    for (name, path) in dialogues() {
        let pure_alone = PURE_ALONE.iter().any(|(pure, _)| *pure == name);
        if pure_alone || !chosen(&Script::read(&path)) {
            continue;
        }
        ran += 1;
        if let Err(wrong) = run(&path, &tls.config, inside_tls).await {
            failed.push(format!("{name}: {wrong}"));
            // Each may wait as long as the patience lasts.
            if failed.len() == FAILED_MAX {
                break;
            }
        }
    }
    assert!(failed.is_empty(), "failed:\n{}", failed.join("\n"));
    ran
}

#[tokio::test]
async fn every_dialogue_goes_as_written_over_a_socket() {
    let plain = |script: &Script| script.directive("implicit-tls").next().is_none();
    assert!(run_all(false, plain).await >= 80);
}

/// All but those that are about getting into TLS.
#[tokio::test]
async fn every_dialogue_goes_as_written_inside_tls() {
    let starttls =
        |step: &Step| matches!(step, Step::Send(bytes) if bytes.starts_with(b"STARTTLS"));
    let inside = |script: &Script| !script.steps.iter().any(|(_, step)| starttls(step));
    assert!(run_all(true, inside).await >= 80);
}

#[test]
fn what_is_left_to_the_pure_run_has_to_be() {
    let held_back = |script: &Script| script.directive("silent").next().is_some();
    let waits =
        |script: &Script| script.steps.iter().any(|(_, step)| matches!(step, Step::Wait(_)));
    for (name, path) in dialogues() {
        let script = Script::read(&path);
        let listed = PURE_ALONE.iter().any(|(pure, _)| *pure == name);
        let alert = name == "starttls_injection_late";
        assert_eq!(listed, held_back(&script) || waits(&script) || alert, "{name}");
    }
}
