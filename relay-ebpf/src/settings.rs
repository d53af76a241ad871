//! What the configuration says beyond the control word.

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use relay_common::layout::Settings;

#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

#[inline(always)]
pub(crate) fn get() -> Option<&'static Settings> {
    SETTINGS.get(0)
}
