//! The maps as the rest of the edge wants them: entries in, entries out, counters summed.

use std::cell::RefCell;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aya::Ebpf;
use aya::Pod;
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, LpmTrie, Map, MapData, MapError, PerCpuArray, PerCpuValues};
use ipnet::IpNet;
use relay_common::entry::{Entry, List, Scope};
use relay_common::layout::{self, RuleHits};
use relay_common::parse::{Family, Source};
use relay_common::totals::{COUNTERS, Totals};
use relay_common::verdict::Lists;

use super::AttachError;
use crate::edge::filter::{FilterError, MapSizes, family_of};

const COPYING: &str = "copying a list";

/// The bytes of [`RuleHits`]: hits, then the second of the latest.
type Hits = [u64; 2];
type Value = [u8; Entry::SIZE];
type Trie<A> = LpmTrie<MapData, A, Value>;

/// All maps of one layout, open.
pub(super) struct Maps {
    allow: Pair,
    deny: Pair,
    totals: PerCpuArray<MapData, u64>,
    hits: PerCpuArray<MapData, Hits>,
    guarded: Array<MapData, u32>,
    sizes: MapSizes,
}

/// The tries of one list.
struct Pair {
    v4: Trie<[u8; 4]>,
    v6: Trie<[u8; 16]>,
}

impl Maps {
    /// Takes the maps out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf, sizes: MapSizes) -> Result<Self, AttachError> {
        let allow = Pair { v4: take(ebpf, layout::ALLOW_V4)?, v6: take(ebpf, layout::ALLOW_V6)? };
        let deny = Pair { v4: take(ebpf, layout::DENY_V4)?, v6: take(ebpf, layout::DENY_V6)? };
        Ok(Self {
            allow,
            deny,
            totals: take(ebpf, layout::TOTALS)?,
            hits: take(ebpf, layout::RULE_HITS)?,
            guarded: take(ebpf, layout::GUARDED)?,
            sizes,
        })
    }

    pub(super) fn sizes(&self) -> MapSizes {
        self.sizes
    }

    fn pair(&self, list: List) -> &Pair {
        match list {
            List::Allow => &self.allow,
            List::Deny => &self.deny,
        }
    }

    fn pair_mut(&mut self, list: List) -> &mut Pair {
        match list {
            List::Allow => &mut self.allow,
            List::Deny => &mut self.deny,
        }
    }

    pub(super) fn put(
        &mut self,
        list: List,
        prefix: IpNet,
        entry: Entry,
    ) -> Result<(), FilterError> {
        let prefix = prefix.trunc();
        let value = Entry { prefix_len: prefix.prefix_len(), ..entry }.to_bytes();
        let pair = self.pair_mut(list);
        let result = match prefix {
            IpNet::V4(net) => {
                upsert(&mut pair.v4, &key(net.prefix_len(), net.addr().octets()), value)
            }
            IpNet::V6(net) => {
                upsert(&mut pair.v6, &key(net.prefix_len(), net.addr().octets()), value)
            }
        };
        match result {
            Err(error) if errno(&error) == Some(libc::ENOSPC) => Err(FilterError::Full {
                list,
                family: family_of(&prefix),
                capacity: self.sizes.of(list),
            }),
            other => other.map_err(|error| kernel("to put an entry into a list", error)),
        }
    }

    pub(super) fn remove(&mut self, list: List, prefix: IpNet) -> Result<bool, FilterError> {
        let pair = self.pair_mut(list);
        let result = match prefix.trunc() {
            IpNet::V4(net) => pair.v4.remove(&key(net.prefix_len(), net.addr().octets())),
            IpNet::V6(net) => pair.v6.remove(&key(net.prefix_len(), net.addr().octets())),
        };
        match result {
            Ok(()) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(kernel("to take an entry out of a list", error)),
        }
    }

    pub(super) fn get(&self, list: List, prefix: IpNet) -> Result<Option<Entry>, FilterError> {
        let source = Source::from(prefix.trunc().addr());
        let longest = self.longest(list, &source, prefix.prefix_len());
        let longest = longest.map_err(|error| kernel("to read an entry", error))?;
        // A trie answers with the longest match: a wider prefix than was asked for is another's.
        Ok(longest.filter(|entry| entry.prefix_len == prefix.prefix_len()))
    }

    pub(super) fn entries(&self, list: List) -> Result<Vec<(IpNet, Entry)>, FilterError> {
        let pair = self.pair(list);
        let capacity = self.sizes.of(list) as usize;
        let mut all = Vec::new();
        collect(&pair.v4, capacity, &mut all, v4)?;
        collect(&pair.v6, capacity, &mut all, v6)?;
        Ok(all)
    }

    /// What a trie answers to a key of this length.
    fn longest(
        &self,
        list: List,
        source: &Source,
        prefix_len: u8,
    ) -> Result<Option<Entry>, MapError> {
        let pair = self.pair(list);
        let value = match *source {
            Source::V4(octets) => pair.v4.get(&key(prefix_len, octets), 0),
            Source::V6(octets) => pair.v6.get(&key(prefix_len, octets), 0),
        };
        match value {
            Ok(bytes) => Ok(Some(Entry::from_bytes(bytes))),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Copies every entry of an older map of the same list and family, which had another size.
    pub(super) fn copy_from(
        &mut self,
        name: &'static str,
        old: MapData,
        sizes: MapSizes,
    ) -> Result<(), AttachError> {
        let (list, family) = layout::list_of(name).expect("only lists are ever resized");
        let all = everything(old, family).map_err(|error| AttachError::load(COPYING, error))?;
        let (entries, room) = (all.len(), sizes.of(list));
        for (prefix, entry) in all {
            match self.put(list, prefix, entry) {
                Err(FilterError::Full { .. }) => {
                    return Err(AttachError::Shrunk { map: name, entries, room });
                }
                other => other.map_err(|error| AttachError::load(COPYING, error))?,
            }
        }
        Ok(())
    }

    pub(super) fn set_guarded(&mut self, scope: Scope) -> Result<(), FilterError> {
        let word = layout::guarded_word(scope);
        self.guarded
            .set(0, word, 0)
            .map_err(|error| kernel("to set which traffic is guarded", error))
    }

    pub(super) fn guarded(&self) -> Result<Scope, FilterError> {
        let word = self.guarded.get(&0, 0);
        word.map(layout::guarded_scope)
            .map_err(|error| kernel("to read which traffic is guarded", error))
    }

    pub(super) fn totals(&self) -> Result<Totals, FilterError> {
        let mut totals = Totals::default();
        for index in 0..COUNTERS {
            let values =
                self.totals.get(&index, 0).map_err(|error| kernel("to read the totals", error))?;
            values.iter().for_each(|&count| totals.add_at(index, count));
        }
        Ok(totals)
    }

    pub(super) fn rule_hits(&self, rule: u32) -> Result<RuleHits, FilterError> {
        if rule >= layout::RULES {
            return Err(FilterError::NoSuchRule { rule });
        }
        let values =
            self.hits.get(&rule, 0).map_err(|error| kernel("to read a rule's hits", error))?;
        let of_cpus = values.iter().map(|&[hits, last_s]| RuleHits { hits, last_s });
        Ok(of_cpus.fold(RuleHits::default(), RuleHits::merge))
    }

    pub(super) fn reset_rule(&mut self, rule: u32) -> Result<(), FilterError> {
        if rule >= layout::RULES {
            return Err(FilterError::NoSuchRule { rule });
        }
        let doing = "to reset a rule's hits";
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| kernel(doing, error))?;
        let zeros =
            PerCpuValues::try_from(vec![[0; 2]; cpus]).map_err(|error| kernel(doing, error))?;
        self.hits.set(rule, zeros, 0).map_err(|error| kernel(doing, error))
    }
}

impl fmt::Debug for Maps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maps").field("sizes", &self.sizes).finish_non_exhaustive()
    }
}

/// The maps at one moment, for the verdict's own walk. The first error ends it, and is kept.
pub(super) struct At<'a> {
    pub(super) maps: &'a Maps,
    pub(super) now_s: u32,
    pub(super) error: RefCell<Option<MapError>>,
}

impl Lists for At<'_> {
    fn longest(&self, list: List, source: &Source, prefix_len: u8) -> Option<Entry> {
        self.maps.longest(list, source, prefix_len).unwrap_or_else(|error| {
            self.error.borrow_mut().get_or_insert(error);
            None
        })
    }

    fn now_s(&self) -> u32 {
        self.now_s
    }
}

pub(super) fn kernel(
    doing: &'static str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> FilterError {
    FilterError::Kernel { doing, source: Box::new(error) }
}

fn take<M: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<M, AttachError> {
    let map = ebpf.take_map(name).expect("the object is built with every map of the layout");
    M::try_from(map).map_err(|error| AttachError::load("opening a map", error))
}

fn key<A: Pod>(prefix_len: u8, address: A) -> Key<A> {
    Key::new(u32::from(prefix_len), address)
}

/// Inserts or replaces. A full trie of an older kernel refuses even to replace what it has (it
/// makes the new node before it lets go of the old one), so there the old one goes first.
fn upsert<A: Pod>(trie: &mut Trie<A>, key: &Key<A>, value: Value) -> Result<(), MapError> {
    match trie.insert(key, value, 0) {
        Err(error) if errno(&error) == Some(libc::ENOSPC) && trie.remove(key).is_ok() => {
            trie.insert(key, value, 0)
        }
        result => result,
    }
}

/// The entries of a list's map of any size.
fn everything(map: MapData, family: Family) -> Result<Vec<(IpNet, Entry)>, FilterError> {
    let reading = |error| kernel("to list the entries", error);
    let capacity = map.info().map_err(reading)?.max_entries() as usize;
    let map = Map::from_map_data(map).map_err(reading)?;
    let mut all = Vec::new();
    match family {
        Family::V4 => {
            collect(&Trie::<[u8; 4]>::try_from(map).map_err(reading)?, capacity, &mut all, v4)?;
        }
        Family::V6 => {
            collect(&Trie::<[u8; 16]>::try_from(map).map_err(reading)?, capacity, &mut all, v6)?;
        }
    }
    Ok(all)
}

/// Every key with its own value. Should another process delete a key meanwhile, the kernel
/// answers with its parent's value, or starts again from the first key: the lengths and the
/// capacity catch both.
fn collect<A: Pod>(
    trie: &Trie<A>,
    capacity: usize,
    all: &mut Vec<(IpNet, Entry)>,
    address: impl Fn(A) -> IpAddr,
) -> Result<(), FilterError> {
    for item in trie.iter().take(capacity) {
        let (key, value) = match item {
            Ok(item) => item,
            Err(error) if is_absent(&error) => continue,
            Err(error) => return Err(kernel("to list the entries", error)),
        };
        let (entry, data, prefix_len) = (Entry::from_bytes(value), key.data(), key.prefix_len());
        if u32::from(entry.prefix_len) != prefix_len {
            continue;
        }
        if let Ok(prefix) = IpNet::new(address(data), entry.prefix_len) {
            all.push((prefix, entry));
        }
    }
    Ok(())
}

fn v4(octets: [u8; 4]) -> IpAddr {
    Ipv4Addr::from(octets).into()
}

fn v6(octets: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(octets).into()
}

fn is_absent(error: &MapError) -> bool {
    matches!(error, MapError::KeyNotFound | MapError::ElementNotFound)
        || errno(error) == Some(libc::ENOENT)
}

fn errno(error: &MapError) -> Option<i32> {
    match error {
        MapError::SyscallError(error) => error.io_error.raw_os_error(),
        MapError::IoError(error) => error.raw_os_error(),
        _ => None,
    }
}
