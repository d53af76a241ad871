//! The limit on connections that one source may open in a second. It drops what is above the rate
//! and remembers nothing else about a source, whose address may be forged.

use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use relay_common::layout::{self, Settings};
use relay_common::limit::Bucket;
use relay_common::parse::Source;

use crate::control::Said;
use crate::cpu::{Cpu, boot_ns};

#[map]
static BUCKETS_V4: LruHashMap<u32, Bucket> = LruHashMap::with_max_entries(layout::BUCKETS, 0);
#[map]
static BUCKETS_V6: LruHashMap<u64, Bucket> = LruHashMap::with_max_entries(layout::BUCKETS, 0);

const NS_PER_MS: u64 = 1_000_000;
const MS_PER_S: u64 = 1_000;

/// Whether a packet that opens a connection is one too many from its source.
#[inline(always)]
pub(crate) fn exceeds(source: &Source, said: Said, cpu: Cpu) -> bool {
    match *source {
        Source::V4(address) => exceeds_v4(address, said, cpu),
        Source::V6 { network, .. } => exceeds_v6(network, said, cpu),
    }
}

/// Apart from the program of most packets: a limit is an option.
#[inline(never)]
fn exceeds_v4(address: u32, said: Said, cpu: Cpu) -> bool {
    over(&BUCKETS_V4, &address, said.settings(), cpu)
}

/// As [`exceeds_v4`].
#[inline(never)]
fn exceeds_v6(network: u64, said: Said, cpu: Cpu) -> bool {
    over(&BUCKETS_V6, &network, said.settings(), cpu)
}

#[inline(always)]
fn over<K>(buckets: &LruHashMap<K, Bucket>, source: &K, settings: Settings, cpu: Cpu) -> bool {
    let now_ms = boot_ns() / NS_PER_MS;
    if cpu.is_quiet(settings, (now_ms / MS_PER_S) as u32) {
        return false;
    }
    let now_ms = now_ms as u32;
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
