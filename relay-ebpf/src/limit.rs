//! The limit on connections that one source may open in a second. It drops what is above the rate
//! and remembers nothing else about a source, whose address may be forged.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{LruHashMap, PerCpuArray};
use relay_common::layout::{self, Settings};
use relay_common::limit::Bucket;
use relay_common::parse::{Packet, Source};

use crate::{clock, settings};

#[map]
static BUCKETS_V4: LruHashMap<u32, Bucket> = LruHashMap::with_max_entries(layout::BUCKETS, 0);
#[map]
static BUCKETS_V6: LruHashMap<u64, Bucket> = LruHashMap::with_max_entries(layout::BUCKETS, 0);
/// The second that is running, and the connections that were opened in it, of this CPU.
#[map]
static OPENED: PerCpuArray<[u64; 2]> = PerCpuArray::with_max_entries(1, 0);

const NS_PER_MS: u64 = 1_000_000;
const MS_PER_S: u64 = 1_000;

/// Whether a packet that opens a connection is one too many from its source.
#[inline(always)]
pub(crate) fn exceeds(packet: &Packet) -> bool {
    let Some(settings) = settings::get() else { return false };
    let now_ms = clock::boot_ns() / NS_PER_MS;
    if is_quiet(settings, now_ms / MS_PER_S) {
        return false;
    }
    match packet.source {
        Source::V4(address) => over(&BUCKETS_V4, &address, settings, now_ms as u32),
        Source::V6 { network, .. } => over(&BUCKETS_V6, &network, settings, now_ms as u32),
    }
}

/// Whether so few connections are opened over all that nobody is limited.
#[inline(always)]
fn is_quiet(settings: &Settings, now_s: u64) -> bool {
    let Some(opened) = OPENED.get_ptr_mut(0) else { return true };
    // SAFETY: the slot is this CPU's own, and a map's value lives as long as the program.
    let [second, count] = unsafe { &mut *opened };
    if *second != now_s {
        *second = now_s;
        *count = 0;
    }
    *count += 1;
    *count <= u64::from(settings.syn_free_per_s)
}

#[inline(always)]
fn over<K>(buckets: &LruHashMap<K, Bucket>, source: &K, settings: &Settings, now_ms: u32) -> bool {
    if let Some(bucket) = buckets.get_ptr_mut(source) {
        // SAFETY: the element may be given to another source meanwhile, which then has a token
        // less or more; it is memory of the map either way.
        let bucket = unsafe { &mut *bucket };
        let (left, passes) = bucket.take(settings.syn_per_s, settings.syn_burst, now_ms);
        *bucket = left;
        return !passes;
    }
    let bucket = Bucket::full(settings.syn_burst, now_ms);
    let (left, passes) = bucket.take(settings.syn_per_s, settings.syn_burst, now_ms);
    // Without room in the map nobody is limited.
    let _ = buckets.insert(source, left, 0);
    !passes
}
