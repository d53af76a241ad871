//! Why the kernel filter cannot be had, each as one sentence that an administrator can act on.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::edge::filter::FilterError;

#[derive(Debug, Error)]
pub enum AttachError {
    #[error("there is no network interface named {interface}")]
    NoInterface { interface: String },

    #[error(
        "the kernel filter needs root, or the capabilities CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON: \
         {doing} was refused"
    )]
    NoPrivilege { doing: &'static str },

    #[error(
        "{interface} already runs another XDP program, {name} (id {id}): remove it, or choose \
         another interface"
    )]
    Occupied { interface: String, id: u32, name: String },

    #[error(
        "the driver of {interface} runs no XDP programs: permit the generic mode with \
         filter.allow_generic, or choose another interface"
    )]
    NoNative { interface: String, source: io::Error },

    #[error(
        "{interface} carries packets without Ethernet headers, as tunnels do, which the filter does \
         not read: name the interface that they arrive by"
    )]
    NoEthernet { interface: String },

    #[error("attaching the kernel filter to {interface} failed: {source}")]
    Attach { interface: String, source: io::Error },

    #[error("{} cannot be used to keep the kernel filter's maps: {source}", path.display())]
    Bpffs { path: PathBuf, source: io::Error },

    #[error(
        "filter.pin_dir {} is no BPF file system and holds files, which a mount there would hide: \
         name a folder under /sys/fs/bpf, or an empty one",
        path.display()
    )]
    NotEmpty { path: PathBuf },

    #[error("another process owns the kernel filter kept in {}", path.display())]
    InUse { path: PathBuf },

    #[error("{} is not what this version of Postern keeps there ({what}): remove it", path.display())]
    ForeignPin { path: PathBuf, what: &'static str },

    #[error(
        "{} holds a filter that is attached in another network namespace (to the interface with index \
         {ifindex}): detach it there first, or use another pin directory",
        path.display()
    )]
    PinnedElsewhere { path: PathBuf, ifindex: u32 },

    #[error("the filter was made for the interfaces of another network namespace than this one")]
    OtherNamespace,

    #[error("the kernel does not accept the filter program: {source}")]
    Load { source: Box<dyn std::error::Error + Send + Sync> },

    #[error(
        "{} entries of the {map} map do not fit the {room} that the configuration now gives it",
        entries
    )]
    Shrunk { map: &'static str, entries: u64, room: u32 },

    #[error("asking the kernel about {interface} failed: {source}")]
    Query { interface: String, source: io::Error },
}

impl AttachError {
    /// Tells a refusal for want of privilege from every other failure to load.
    pub(super) fn load(
        doing: &'static str,
        error: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        if is_refusal(&error) {
            return Self::NoPrivilege { doing };
        }
        Self::Load { source: Box::new(Chain(Box::new(error))) }
    }
}

/// Whether EPERM or EACCES is at the root of an error. The verifier answers EACCES too, to a
/// program it finds unsafe, but then it also writes a log.
fn is_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error() == Some(libc::EPERM);
        }
        cause = error.source();
    }
    false
}

/// An error that prints its causes behind it: aya's own leave the errno to `source`.
#[derive(Debug)]
struct Chain(Box<dyn std::error::Error + Send + Sync>);

impl std::fmt::Display for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl std::error::Error for Chain {}

pub(super) fn not_attached(error: AttachError) -> FilterError {
    FilterError::NotAttached { source: Box::new(error) }
}
