//! What the allocator does with memory that was freed.

/// A block of this size or more comes from the system, and goes back to it. Below stand the buffers
/// that are used again and again, above the lists of a million entries that exist for a moment.
#[cfg(target_env = "gnu")]
const LARGE_BYTES: libc::c_int = 4 << 20;

/// Has large blocks given back as soon as they are freed. By itself glibc learns from the first of
/// them to keep such blocks, and an edge would hold for good what a large import took.
pub(super) fn give_back_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) sets a number in the allocator, under the allocator's own lock.
    if unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES) } == 0 {
        tracing::debug!("the allocator keeps its own measure of large blocks");
    }
}
