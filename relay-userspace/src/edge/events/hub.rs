//! Where all events meet: the latest are kept, the frequent are counted, and whoever follows gets
//! each as a line. Nothing here waits for a follower.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use relay_common::event::Event;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::tops::Tops;
use crate::control::api::{
    Code, EVENTS_KEPT, EventLine, EventsQuery, FateName, PacketEvent, Problem, TimeMs, Top,
};
use crate::edge::clock::Now;
use relay_common::entry::Reason;

/// Callers that may follow at once.
pub const FOLLOWERS_MAX: usize = 16;
/// Lines that may wait for one follower; beyond it they are lost to it, and counted.
pub const LINES_MAX: usize = 1_024;

/// All events of one filter.
#[derive(Debug)]
pub struct Hub {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    told: bool,
    closed: bool,
    recent: VecDeque<PacketEvent>,
    followers: Vec<Follower>,
    tops: Tops,
}

#[derive(Debug)]
struct Follower {
    lines: Sender<Bytes>,
    lost: u64,
}

impl Hub {
    /// `told` says whether the filter tells of packets at all.
    pub fn new(told: bool) -> Self {
        Self { inner: Mutex::new(Inner { told, ..Inner::default() }) }
    }

    /// What a panic left behind is still a list of events.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what has happened, and says of each what its rule is called.
    pub fn publish(&self, events: &[Event], now: Now, rule: impl Fn(u32) -> String) {
        let mut inner = self.inner();
        inner.followers.retain(|follower| !follower.lines.is_closed());
        inner.followers.iter_mut().for_each(Follower::tell_gap);
        for event in events {
            let told = named(event, now, &rule);
            inner.tops.add(told.address, told.port, event.fate, event.at_ns / 1_000_000);
            if !inner.followers.is_empty() {
                let text = line(&EventLine::Packet(told.clone()));
                inner.followers.iter_mut().for_each(|follower| follower.give(&text));
            }
            if inner.recent.len() >= EVENTS_KEPT {
                inner.recent.pop_front();
            }
            inner.recent.push_back(told);
        }
    }

    /// The lines of a query: the latest events as one piece, and then each as it comes.
    ///
    /// # Errors
    /// Too many follow already.
    pub fn subscribe(&self, query: EventsQuery) -> Result<Receiver<Bytes>, Problem> {
        let mut inner = self.inner();
        let (sender, receiver) = channel(LINES_MAX);
        let skipped = inner.recent.len().saturating_sub(query.last);
        let mut text = Vec::new();
        for event in inner.recent.iter().skip(skipped) {
            text.extend(line(&EventLine::Packet(event.clone())));
        }
        if !text.is_empty() {
            // The queue is empty, so there is room for one.
            let _ = sender.try_send(text.into());
        }
        if query.follow && !inner.closed {
            inner.followers.retain(|follower| !follower.lines.is_closed());
            if inner.followers.len() >= FOLLOWERS_MAX {
                let message = format!("{FOLLOWERS_MAX} callers follow the events already");
                return Err(Problem::new(Code::Busy, message).remedy("end one of them"));
            }
            inner.followers.push(Follower { lines: sender, lost: 0 });
        }
        Ok(receiver)
    }

    /// The most frequent of late.
    pub fn top(&self, now: Now) -> Top {
        let inner = self.inner();
        Top { told: inner.told, ..inner.tops.now(now.boot_ms) }
    }

    /// Ends every answer that goes on, and lets none begin.
    pub fn close(&self) {
        let mut inner = self.inner();
        inner.closed = true;
        inner.followers.clear();
    }
}

impl Follower {
    /// Tells of lines that were lost, once there is room for that and the line behind it.
    fn tell_gap(&mut self) {
        if self.lost > 0 && self.lines.capacity() > 1 {
            let told = self.lines.try_send(line(&EventLine::Lost { lost: self.lost }));
            if told.is_ok() {
                self.lost = 0;
            }
        }
    }

    fn give(&mut self, text: &Bytes) {
        self.tell_gap();
        // A line behind a gap that could not be told is part of the gap.
        if self.lost > 0 || self.lines.try_send(text.clone()).is_err() {
            self.lost += 1;
        }
    }
}

fn line(line: &EventLine) -> Bytes {
    // Strings, numbers and an address: nothing that JSON has no form for.
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

fn named(event: &Event, now: Now, rule: impl Fn(u32) -> String) -> PacketEvent {
    let address = std::net::IpAddr::from(event.source);
    let ago_ms = now.boot_ms.saturating_sub(event.at_ns / 1_000_000);
    let fate = FateName::from(event.fate);
    let by_entry = !event.fate.is_of_the_limit();
    let reason = Reason::from_number(event.reason).filter(|_| by_entry);
    let prefix = ipnet::IpNet::new(address, event.prefix_len).ok().filter(|_| by_entry);
    PacketEvent {
        time: TimeMs(now.wall_ms.saturating_sub(ago_ms)),
        fate,
        address,
        port: event.port,
        rule: if by_entry { rule(event.rule) } else { "connection limit".to_owned() },
        reason: reason.map(|reason| reason.name().to_owned()),
        prefix: prefix.map(|prefix| prefix.trunc()),
    }
}
