//! A gateway and a stranger on a wire of their own, and a pin directory of their own.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use postern::edge::filter::{Attachment, Filter, MapSizes, Mode};
use postern::edge::kernel::{AttachError, Interface, KernelFilter, KernelSettings};
use postern_tests::netns::{Netns, veth};
use relay_common::entry::{Entry, List, Reason, Scope};

pub(crate) const SIZES: MapSizes =
    MapSizes { allow: 100, deny: 100, feeds_allow: 1, feeds_deny: 1 };

/// Two namespaces; all of it goes with this.
pub(crate) struct Wire {
    pub(crate) gateway: Netns,
    pub(crate) stranger: Netns,
    pub(crate) pins: tempfile::TempDir,
}

impl Wire {
    pub(crate) fn new() -> Self {
        let wire = Self {
            gateway: Netns::new("gw").unwrap_or_else(|error| panic!("{error}")),
            stranger: Netns::new("stranger").unwrap(),
            pins: tempfile::tempdir().unwrap(),
        };
        wire.plug();
        wire
    }

    pub(crate) fn plug(&self) {
        veth(&self.gateway, "eth0", &self.stranger, "eth0").unwrap();
        for (ns, host) in [(&self.gateway, 1), (&self.stranger, 2)] {
            ns.addr("eth0", &format!("10.7.0.{host}/24")).unwrap();
            ns.addr("eth0", &format!("2001:db8:7::{host}/64")).unwrap();
        }
    }

    pub(crate) fn settings(&self) -> KernelSettings {
        let pin_dir = self.pin_dir();
        KernelSettings { pin_dir, sizes: SIZES, ..KernelSettings::on("eth0") }
    }

    pub(crate) fn settings_on(&self, interfaces: &[&str]) -> KernelSettings {
        let mut settings = self.settings();
        settings.interfaces = interfaces
            .iter()
            .map(|&name| Interface { name: name.to_owned(), generic_permitted: false })
            .collect();
        settings
    }

    pub(crate) fn pin_dir(&self) -> PathBuf {
        self.pins.path().join("bpf")
    }

    /// Opens, with no lists to write, and attaches.
    pub(crate) fn try_open(&self, settings: &KernelSettings) -> Result<KernelFilter, AttachError> {
        self.gateway.enter(|| open(settings)).unwrap()
    }

    pub(crate) fn open(&self) -> KernelFilter {
        self.try_open(&self.settings()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Whether the stranger's SYN is answered, or the second one that TCP sends after a second: a
    /// program that comes or goes makes some drivers, veth among them, lose what is under way.
    pub(crate) fn connects(&self, address: &str) -> bool {
        let address: SocketAddr = address.parse().unwrap();
        let listener = self.gateway.enter(|| TcpListener::bind(address)).unwrap().unwrap();
        let client = self
            .stranger
            .enter(|| TcpStream::connect_timeout(&address, Duration::from_millis(1500)));
        drop(listener);
        match client.unwrap() {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => false,
            Err(error) => panic!("neither answered nor dropped: {error}"),
        }
    }

    pub(crate) fn attachments(&self, filter: &KernelFilter) -> Vec<Attachment> {
        self.gateway.enter(|| filter.attachments()).unwrap()
    }

    pub(crate) fn mode(&self, filter: &KernelFilter) -> Mode {
        self.attachments(filter)[0].mode
    }

    pub(crate) fn link(&self) -> String {
        self.gateway.run("ip", &["-d", "link", "show", "eth0"]).unwrap()
    }
}

/// In the namespace of the calling thread.
pub(crate) fn open(settings: &KernelSettings) -> Result<KernelFilter, AttachError> {
    let mut filter = KernelFilter::open(settings)?;
    filter.attach()?;
    Ok(filter)
}

impl Drop for Wire {
    fn drop(&mut self) {
        // The file system goes with its last mount, and with it every pin.
        let _ = nix::mount::umount2(&self.pin_dir(), nix::mount::MntFlags::MNT_DETACH);
    }
}

pub(crate) fn deny(scope: Scope) -> Entry {
    Entry::new(scope, Reason::Manual, 3)
}

/// Denies the stranger.
pub(crate) fn shut_out(filter: &mut KernelFilter) {
    filter.put(List::Deny, "10.7.0.2/32".parse().unwrap(), deny(Scope::MX)).unwrap();
    filter.set_guarded(Scope::MX).unwrap();
}
