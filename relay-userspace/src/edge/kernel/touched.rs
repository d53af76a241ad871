//! The map of touched sources: which sources a packet's lookup may leave out.

use ipnet::IpNet;
use relay_common::control::{Kind, Place, Table as Side};
use relay_common::entry::List;
use relay_common::parse::Family;
use relay_common::touch::{self, Marks};

use super::maps::{Maps, kind_of};
use crate::edge::filter::FilterError;

impl Maps {
    /// Lets every source that a prefix covers look.
    pub(super) fn touch(&self, kind: Kind, prefix: IpNet) {
        let everything = !each_word(kind, prefix, |family, word, bits| match family {
            Family::V4 => self.touched_v4.mark(word, bits),
            Family::V6 => self.touched_v6.mark(word, bits),
        });
        if everything {
            self.set_control(self.control().with_every_v6_looks(true));
        }
    }

    /// Makes the map of touched sources what these prefixes call for, and says which tables of
    /// rows hold nothing.
    pub(super) fn retouch(
        &mut self,
        prefixes: &mut dyn Iterator<Item = (List, IpNet)>,
    ) -> Result<(), FilterError> {
        let words = |family| vec![0u64; touch::words(family)];
        let (mut v4, mut v6) = (words(Family::V4), words(Family::V6));
        let mut everything = false;
        for (list, prefix) in prefixes {
            let prefix = prefix.trunc();
            everything |=
                !each_word(kind_of(list, prefix), prefix, |family, word, bits| match family {
                    Family::V4 => v4[word as usize] |= bits,
                    Family::V6 => v6[word as usize] |= bits,
                });
        }
        for (map, words) in [(&self.touched_v4, v4), (&self.touched_v6, v6)] {
            for (index, word) in (0..).zip(words) {
                if map.get(index) != word {
                    map.set(index, word);
                }
            }
        }
        let mut control = self.control().with_every_v6_looks(everything);
        for kind in Kind::ALL {
            for family in Family::ALL {
                let used = self.holds_any(Place::Rows, kind, family)?;
                control = control.with_used(Side::Rows, kind, family, used);
            }
        }
        self.set_control(control);
        Ok(())
    }
}

/// Calls `mark` with the words that a prefix marks, and the bits in them. Says whether marks are
/// enough.
fn each_word(kind: Kind, prefix: IpNet, mut mark: impl FnMut(Family, u32, u64)) -> bool {
    let (family, marks) = match prefix {
        IpNet::V4(net) => {
            (Family::V4, touch::marks_v4(net.addr().to_bits(), net.prefix_len(), kind))
        }
        IpNet::V6(net) => {
            let network = (net.addr().to_bits() >> 64) as u64;
            (Family::V6, touch::marks_v6(network, net.prefix_len(), kind))
        }
    };
    Marks::each_word(marks, |word, bits| mark(family, word, bits))
}
