//! kill -9 in the middle of commits: whatever was acknowledged is there.

use super::*;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

const CHILD: &str = "POSTERN_TEST_SPOOL_OF_CHILD";

/// The content says how it must look: its length and a repeated octet.
fn content(n: usize) -> Vec<u8> {
    vec![b'a' + (n % 26) as u8; n * 977 % 5000]
}

/// What the child does until it is killed: store from several tasks, print each acknowledged id.
async fn store_for_ever(folder: &Path) {
    let spool = open(folder);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8 {
        let spool = spool.clone();
        tasks.spawn(async move {
            for n in (task..).step_by(8) {
                let to = format!("{n}@x.example");
                let id = store(&spool, "s@y.example", &[&to], &content(n)).await;
                println!("\nacknowledged {id} {n}");
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

/// Runs itself again as the child that is killed.
#[test]
fn every_acknowledged_message_survives_kill_9() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(folder) = std::env::var_os(CHILD) {
        runtime.block_on(store_for_ever(Path::new(&folder)));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 1..=4usize {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("queue::tests::crash::every_acknowledged_message_survives_kill_9")
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut wanted = round * 60;
        for line in lines {
            let line = line.unwrap();
            let Some(rest) = line.strip_prefix("acknowledged ") else { continue };
            let (id, n) = rest.split_once(' ').unwrap();
            acknowledged.push((id.parse::<QueueId>().unwrap(), n.parse::<usize>().unwrap()));
            wanted = wanted.saturating_sub(1);
            if wanted == 0 {
                // SIGKILL; what the child still prints is read until the pipe ends.
                let _ = child.kill();
            }
        }
        child.wait().unwrap();
        runtime.block_on(check(folder.path(), &acknowledged));
    }
    assert!(acknowledged.len() >= 600);
}

async fn check(folder: &Path, acknowledged: &[(QueueId, usize)]) {
    let spool = open(folder);
    for (id, n) in acknowledged {
        let loaded = spool.load(*id).await.unwrap().expect("an acknowledged message");
        assert_eq!(bytes_of(loaded.content), content(*n));
    }
    let stats = spool.stats().await.unwrap();
    assert!(stats.messages >= acknowledged.len() as u64);
    assert_eq!(stats.quarantined, 0);
    // No file without its row, no row without its file.
    let all = spool.list(Filter::default(), None, usize::MAX).await.unwrap();
    assert_eq!(files(folder), all.iter().filter(|message| message.size > 1000).count());
    for message in all {
        assert!(spool.load(message.id).await.unwrap().is_some());
    }
}
