//! The queue against a model of it: any sequence of changes, with restarts in between.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone)]
enum Step {
    Store { recipients: usize, size: usize },
    Record { which: usize, delivered: u8, failed: u8, bounce: bool },
    Delete { which: usize },
    Retry { which: usize },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1usize..4, 0usize..3000)
            .prop_map(|(recipients, size)| Step::Store { recipients, size }),
        4 => (any::<usize>(), any::<u8>(), any::<u8>(), any::<bool>())
            .prop_map(|(which, delivered, failed, bounce)| {
                Step::Record { which, delivered, failed: failed & !delivered, bounce }
            }),
        1 => any::<usize>().prop_map(|which| Step::Delete { which }),
        1 => any::<usize>().prop_map(|which| Step::Retry { which }),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Debug, Default)]
struct Modelled {
    content: Vec<u8>,
    waiting: BTreeSet<u32>,
    badmail: BTreeSet<u32>,
}

async fn run(steps: Vec<Step>) {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path());
    let mut model: BTreeMap<QueueId, Modelled> = BTreeMap::new();
    for step in steps {
        let pick = |which: usize| model.keys().nth(which % model.len().max(1)).copied();
        match step {
            Step::Store { recipients, size } => {
                let content: Vec<u8> = (0..size).map(|n| n as u8).collect();
                let to = &["a@x.example", "b@x.example", "c@y.example"][..recipients];
                let id = store(&spool, "s@z.example", to, &content).await;
                let waiting = (0..recipients as u32).collect();
                model.insert(id, Modelled { content, waiting, ..Modelled::default() });
            }
            Step::Record { which, delivered, failed, bounce } => {
                let Some(id) = pick(which) else { continue };
                record(&spool, &mut model, id, (delivered, failed, bounce)).await;
            }
            Step::Delete { which } => {
                let Some(id) = pick(which) else { continue };
                assert_eq!(spool.delete(vec![id]).await.unwrap(), 1);
                model.remove(&id);
            }
            Step::Retry { which } => {
                let Some(id) = pick(which) else { continue };
                let waits = u64::from(!model[&id].waiting.is_empty());
                assert_eq!(spool.retry(vec![id]).await.unwrap(), waits);
            }
            Step::Reopen => {
                drop(spool);
                spool = open(folder.path());
            }
        }
        model.retain(|_, message| !message.waiting.is_empty() || !message.badmail.is_empty());
        compare(&spool, &model).await;
    }
    let large = model.values().filter(|message| message.content.len() > 1000).count();
    assert_eq!(files(folder.path()), large);
}

async fn record(
    spool: &Spool,
    model: &mut BTreeMap<QueueId, Modelled>,
    id: QueueId,
    (delivered, failed, bounce): (u8, u8, bool),
) {
    let of = |mask: u8| (0..3u32).filter(move |n| mask >> n & 1 == 1);
    let content = b"Subject: failed\r\n\r\n".to_vec();
    let bounce_id = spool.allocate();
    let report = if bounce {
        let message = envelope("", &["s@z.example"]);
        let (about, content) = (of(failed).collect(), content.clone());
        SenderReport::Bounce(Box::new(Bounce { id: bounce_id, about, message, content }))
    } else {
        SenderReport::Badmail
    };
    let failures = of(failed).map(|ordinal| Failure { ordinal, reason: "no".into() });
    let outcome = Attempt {
        delivered: of(delivered).collect(),
        failed: failures.collect(),
        report,
        ..attempt(id)
    };
    spool.record(outcome).await.unwrap();
    let message = model.get_mut(&id).unwrap();
    message.waiting.retain(|n| delivered >> n & 1 == 0);
    let gone: Vec<u32> = of(failed).filter(|n| message.waiting.remove(n)).collect();
    if bounce && !gone.is_empty() {
        let waiting = BTreeSet::from([0]);
        model.insert(bounce_id, Modelled { content, waiting, ..Modelled::default() });
    } else if !bounce {
        message.badmail.extend(gone);
    }
}

async fn compare(spool: &Spool, model: &BTreeMap<QueueId, Modelled>) {
    let listed = spool.list(Filter::default(), None, usize::MAX).await.unwrap();
    let ids: Vec<QueueId> = listed.iter().map(|message| message.id).collect();
    assert_eq!(ids, model.keys().copied().collect::<Vec<_>>());
    for (listed, (id, modelled)) in listed.iter().zip(model) {
        assert_eq!(listed.recipients as usize, modelled.waiting.len());
        assert_eq!(listed.badmail as usize, modelled.badmail.len());
        let loaded = spool.load(*id).await.unwrap().unwrap();
        assert_eq!(bytes_of(loaded.content), modelled.content);
    }
    let stats = spool.stats().await.unwrap();
    let waiting: usize = model.values().map(|message| message.waiting.len()).sum();
    assert_eq!(stats.due + stats.deferred, waiting as u64);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_of_changes_leaves_what_the_model_says(
        steps in proptest::collection::vec(step(), 1..25)
    ) {
        tokio::runtime::Runtime::new().unwrap().block_on(run(steps));
    }
}
