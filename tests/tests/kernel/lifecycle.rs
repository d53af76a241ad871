//! What becomes of the filter when interfaces, programs and layouts change under it. Where packets
//! flow on, a prober of 1,000 SYNs a second from a denied source watches that none is answered.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Stdio;

use postern::edge::filter::{Filter, Mode, State};
use postern::edge::kernel::{AttachError, KernelFilter, KernelSettings};
use postern_tests::netns::veth;
use postern_tests::prober::{Prober, send_syn};
use relay_common::layout::{self, LAYOUT_VERSION};
use relay_common::parse::Family;

use crate::wire::{self, Wire, shut_out};

const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 2);
const MX: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 7, 0, 1), 25);

impl Wire {
    fn prober(&self) -> Prober {
        Prober::start(&self.stranger, STRANGER, MX).unwrap()
    }

    /// A second wire between the two; its ends bear this name on both sides.
    fn plug_another(&self, name: &str) {
        veth(&self.gateway, name, &self.stranger, name).unwrap();
    }

    fn ip(&self, words: &str) {
        let words: Vec<&str> = words.split(' ').collect();
        self.gateway.run("ip", &words).unwrap();
    }

    fn keep(&self, filter: &mut KernelFilter) -> Vec<String> {
        let kept = self.gateway.enter(|| filter.keep_attached()).unwrap();
        assert!(kept.failures.is_empty(), "{:?}", kept.failures);
        kept.again
    }

    /// Opens under these settings, writes the lists and attaches, with the prober at work. Nothing
    /// may be answered before, during or after.
    fn take_over_unanswered(&self, settings: &KernelSettings) -> KernelFilter {
        let prober = self.prober();
        prober.after(200).unwrap();
        let mut filter = self.gateway.enter(|| KernelFilter::open(settings)).unwrap().unwrap();
        assert!(filter.adopts());
        shut_out(&mut filter);
        self.gateway.enter(|| filter.attach()).unwrap().unwrap();
        prober.after(300).unwrap();
        let seen = prober.finish().unwrap();
        assert_eq!(seen.answered, 0, "of {} SYNs", seen.sent);
        filter
    }

    fn is_attached(&self, interface: &str) -> bool {
        let link = self.gateway.run("ip", &["-d", "link", "show", interface]).unwrap();
        link.contains("prog/xdp")
    }
}

#[test]
fn the_prober_hears_the_answers_of_an_open_gate() {
    let wire = Wire::new();
    let prober = wire.prober();
    prober.after(100).unwrap();
    assert!(prober.finish().unwrap().answered > 50, "no listener: each SYN gets a RST");
}

#[test]
fn a_new_program_takes_over_without_a_packet_slipping_through() {
    let wire = Wire::new();
    let mut filter = wire.open();
    shut_out(&mut filter);
    let first = filter.program_id();
    drop(filter);
    let filter = wire.take_over_unanswered(&wire.settings());
    assert_ne!(filter.program_id(), first);
    assert_eq!(wire.mode(&filter), Mode::Native);
}

#[test]
fn another_layout_is_built_beside_switched_to_and_removed_both_ways() {
    let wire = Wire::new();
    let other = KernelSettings { layout: LAYOUT_VERSION + 40, ..wire.settings() };
    let mut filter = wire.try_open(&other).unwrap();
    shut_out(&mut filter);
    drop(filter);
    // An upgrade or a downgrade: which is which makes no difference.
    for (settings, before) in [(wire.settings(), &other), (other.clone(), &wire.settings())] {
        let filter = wire.take_over_unanswered(&settings);
        assert_eq!(wire.mode(&filter), Mode::Native);
        assert!(!wire.pin_dir().join(format!("v{}", before.layout)).exists(), "old pins stay");
        let pinned = wire.pin_dir().join(format!("v{}", settings.layout));
        assert!(pinned.join("link_eth0").exists() && pinned.join("DENY_V4").exists());
        drop(filter);
        assert!(!wire.connects("10.7.0.1:25"), "the new pins hold it");
    }
}

#[test]
fn the_pins_of_the_first_layout_are_taken_over() {
    let wire = Wire::new();
    let first = KernelSettings { layout: 1, ..wire.settings() };
    let mut filter = wire.try_open(&first).unwrap();
    shut_out(&mut filter);
    drop(filter);
    // It kept everything of an interface in a folder of its own.
    let (dir, folder) = (wire.pin_dir().join("v1"), wire.pin_dir().join("v1/eth0"));
    fs::create_dir(&folder).unwrap();
    fs::rename(dir.join("link_eth0"), folder.join("link")).unwrap();
    for map in layout::maps() {
        fs::rename(dir.join(map), folder.join(map)).unwrap();
    }
    drop(wire.take_over_unanswered(&wire.settings()));
    assert!(!dir.exists());
}

#[test]
fn several_interfaces_share_lists_and_one_that_is_no_longer_named_is_let_go() {
    let wire = Wire::new();
    wire.plug_another("eth1");
    let mut filter = wire.try_open(&wire.settings_on(&["eth0", "eth1"])).unwrap();
    shut_out(&mut filter);
    let attachments = wire.attachments(&filter);
    assert_eq!(attachments.len(), 2);
    for attachment in &attachments {
        assert_eq!((attachment.mode, attachment.state), (Mode::Native, State::Up));
        assert_eq!(attachment.program_id, Some(filter.program_id()));
    }
    drop(filter);
    let filter = wire.take_over_unanswered(&wire.settings_on(&["eth0"]));
    assert!(wire.is_attached("eth0") && !wire.is_attached("eth1"));
    filter.detach().unwrap();
    assert!(!wire.is_attached("eth0"));
    assert!(!wire.pin_dir().join(format!("v{LAYOUT_VERSION}")).exists());
}

#[test]
fn one_that_is_missing_is_attached_to_when_it_comes_and_one_that_is_taken_stops_the_start() {
    let wire = Wire::new();
    let both = wire.settings_on(&["eth0", "wan7"]);
    let mut filter = wire.try_open(&both).unwrap();
    assert_eq!(wire.attachments(&filter)[1].state, State::Missing);
    assert!(wire.keep(&mut filter).is_empty());
    wire.plug_another("wan7");
    assert_eq!(wire.attachments(&filter)[1].state, State::Lost);
    assert_eq!(wire.keep(&mut filter), ["wan7"]);
    assert_eq!(wire.attachments(&filter)[1].state, State::Up);
    filter.detach().unwrap();

    let elsewhere =
        KernelSettings { pin_dir: wire.pins.path().join("bpf2"), ..wire.settings_on(&["wan7"]) };
    let other = wire.try_open(&elsewhere).unwrap();
    let refused = wire.try_open(&both);
    assert!(matches!(refused, Err(AttachError::Occupied { .. })), "{refused:?}");
    assert!(!wire.is_attached("eth0"), "nothing new stays attached");
    other.detach().unwrap();
    nix::mount::umount2(&elsewhere.pin_dir, nix::mount::MntFlags::MNT_DETACH).unwrap();
}

#[test]
fn down_and_up_again_changes_nothing_but_what_is_told() {
    let wire = Wire::new();
    let mut filter = wire.open();
    shut_out(&mut filter);
    wire.ip("link set eth0 down");
    let down = &wire.attachments(&filter)[0];
    assert_eq!((down.state, down.mode), (State::Down, Mode::Native));
    assert!(wire.keep(&mut filter).is_empty());
    wire.ip("link set eth0 up");
    assert_eq!(wire.attachments(&filter)[0].state, State::Up);
    assert!(!wire.connects("10.7.0.1:25"));
}

#[test]
fn a_renamed_interface_stays_guarded_until_another_one_bears_its_name() {
    let wire = Wire::new();
    let mut filter = wire.open();
    shut_out(&mut filter);
    wire.ip("link set eth0 down");
    wire.ip("link set eth0 name wan0");
    wire.ip("link set wan0 up");
    let renamed = &wire.attachments(&filter)[0];
    assert_eq!((renamed.called.as_deref(), renamed.state), (Some("wan0"), State::Up));
    assert!(wire.keep(&mut filter).is_empty());
    assert!(!wire.connects("10.7.0.1:25"));
    // The next start, with nothing else or with another interface beside.
    drop(filter);
    drop(wire.take_over_unanswered(&wire.settings()));
    wire.plug_another("eth1");
    let mut filter = wire.take_over_unanswered(&wire.settings_on(&["eth0", "eth1"]));
    assert_eq!(wire.attachments(&filter)[0].called.as_deref(), Some("wan0"));

    veth(&wire.gateway, "eth0", &wire.stranger, "eth5").unwrap();
    assert_eq!(wire.keep(&mut filter), ["eth0"]);
    assert!(wire.is_attached("eth0") && !wire.is_attached("wan0"));
    assert_eq!(wire.attachments(&filter)[0].called, None);
    drop(filter);
    assert!(wire.is_attached("eth0"), "the new link is pinned");
}

#[test]
fn names_that_were_exchanged_are_followed_with_no_gap_also_by_the_next_start() {
    let wire = Wire::new();
    wire.plug_another("eth1");
    let settings = wire.settings_on(&["eth0", "eth1"]);
    let mut filter = wire.try_open(&settings).unwrap();
    shut_out(&mut filter);
    let exchange = || {
        for words in ["eth0 down", "eth1 down", "eth0 name x", "eth1 name eth0", "x name eth1"] {
            wire.ip(&format!("link set {words}"));
        }
        wire.ip("link set eth0 up");
        wire.ip("link set eth1 up");
    };
    let all_in_place = |filter: &KernelFilter| {
        for attachment in wire.attachments(filter) {
            assert_eq!((attachment.called, attachment.state), (None, State::Up));
        }
    };
    exchange();
    let prober = wire.prober();
    assert!(wire.keep(&mut filter).is_empty(), "both are guarded, whatever they are called");
    prober.after(50).unwrap();
    assert_eq!(prober.finish().unwrap().answered, 0);
    all_in_place(&filter);
    drop(filter);
    exchange();
    let filter = wire.take_over_unanswered(&settings);
    all_in_place(&filter);
    drop(filter);
    assert!(wire.is_attached("eth0") && wire.is_attached("eth1"), "each link is pinned");
}

#[test]
fn an_interface_that_is_deleted_and_made_anew_is_attached_to_again() {
    let wire = Wire::new();
    let mut filter = wire.open();
    shut_out(&mut filter);
    wire.ip("link del eth0");
    assert_eq!(wire.attachments(&filter)[0].state, State::Missing);
    assert!(wire.keep(&mut filter).is_empty());
    wire.plug();
    assert_eq!(wire.keep(&mut filter), ["eth0"]);
    assert!(!wire.connects("10.7.0.1:25"));
}

/// What `bpftool link detach pinned` does to the path in its first argument.
const DETACH: &str = r#"
import ctypes, platform, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
path = ctypes.create_string_buffer(sys.argv[1].encode())
for command in (7, 34):
    attr = struct.pack("<QII", ctypes.addressof(path), 0, 0) if command == 7 else struct.pack("<I", fd)
    fd = libc.syscall(number, command, ctypes.create_string_buffer(attr, len(attr)), len(attr))
    if fd < 0:
        sys.exit(f"bpf({command}): errno {ctypes.get_errno()}")
"#;

#[test]
fn what_somebody_detached_by_hand_is_attached_again() {
    let wire = Wire::new();
    let mut filter = wire.open();
    shut_out(&mut filter);
    let pinned = wire.pin_dir().join(format!("v{LAYOUT_VERSION}/link_eth0"));
    wire.gateway.run("python3", &["-c", DETACH, &pinned.display().to_string()]).unwrap();
    assert!(!wire.is_attached("eth0"));
    assert_eq!(wire.attachments(&filter)[0].state, State::Lost);
    assert_eq!(wire.keep(&mut filter), ["eth0"]);
    drop(filter);
    assert!(!wire.connects("10.7.0.1:25"), "the new link is pinned in place of the old");
}

#[test]
fn a_tunnel_without_ethernet_headers_is_refused() {
    let wire = Wire::new();
    wire.ip("tuntap add dev tun7 mode tun");
    let mut settings = wire.settings_on(&["eth0", "tun7"]);
    settings.interfaces[1].generic_permitted = true;
    let refused = wire.try_open(&settings);
    assert!(matches!(refused, Err(AttachError::NoEthernet { .. })), "{refused:?}");
    assert!(!wire.is_attached("eth0"));
}

#[test]
fn a_raised_mtu_and_jumbo_frames_are_judged_all_the_same() {
    let wire = Wire::new();
    let mut filter = wire.open();
    for mtu in [3_520, 3_600, 9_000] {
        for ns in [&wire.gateway, &wire.stranger] {
            ns.run("ip", &["link", "set", "eth0", "mtu", &mtu.to_string()]).unwrap();
        }
        assert_eq!(wire.attachments(&filter)[0].state, State::Up);
        let passes = || filter.totals().unwrap().passed(Family::V4);
        let before = passes();
        send_syn(&wire.stranger, STRANGER, MX, mtu - 100).unwrap();
        assert!(passes() > before, "a frame of {mtu} bytes was not seen");
    }
    shut_out(&mut filter);
    let drops = || filter.totals().unwrap().dropped(Family::V4);
    let before = drops();
    for number in 1..=5 {
        send_syn(&wire.stranger, STRANGER, MX, 8_900).unwrap();
        assert_eq!(drops(), before + number, "a jumbo frame got through");
    }
    // Attached while the MTU is large already.
    filter.detach().unwrap();
    let mut filter = wire.open();
    shut_out(&mut filter);
    assert_eq!(wire.mode(&filter), Mode::Native);
    send_syn(&wire.stranger, STRANGER, MX, 8_900).unwrap();
    assert!(filter.totals().unwrap().dropped(Family::V4) > 0);
}

/// Attaches a program that passes everything under the name that libxdp gives its dispatcher, and
/// holds it until its standard input ends. (xdp-loader makes none where the kernel cannot replace
/// functions of programs.)
const DISPATCHER: &str = r#"
import ctypes, platform, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
def bpf(command, attr):
    buffer = ctypes.create_string_buffer(attr, len(attr))
    result = libc.syscall(number, command, buffer, len(attr))
    if result < 0:
        sys.exit(f"bpf({command}): errno {ctypes.get_errno()}")
    return result
# r0 = XDP_PASS; exit
code = ctypes.create_string_buffer(struct.pack("<BBhi", 0xb7, 0, 0, 2) + struct.pack("<BBhi", 0x95, 0, 0, 0))
licence = ctypes.create_string_buffer(b"GPL")
load = struct.pack("<IIQQIIQII16s", 6, 2, ctypes.addressof(code), ctypes.addressof(licence), 0, 0, 0, 0, 0, b"xdp_dispatcher")
link = bpf(28, struct.pack("<IIII", bpf(5, load), socket.if_nametoindex("eth0"), 37, 4))
print("attached", flush=True)
sys.stdin.read()
"#;

#[test]
fn a_dispatcher_of_libxdp_is_named_and_left_alone() {
    use std::io::{BufRead, BufReader};
    let wire = Wire::new();
    let mut dispatcher = wire.gateway.command("python3");
    let dispatcher = dispatcher.args(["-c", DISPATCHER]);
    let mut dispatcher = dispatcher.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(dispatcher.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "attached\n");
    let refused = wire.try_open(&wire.settings()).unwrap_err().to_string();
    assert!(refused.contains("xdp_dispatcher") && refused.contains("(id "), "{refused}");
    assert!(wire.is_attached("eth0"), "it was taken off");
    drop(dispatcher.stdin.take());
    assert!(dispatcher.wait().unwrap().success());
    wire.open().detach().unwrap();
}

#[test]
fn the_bpf_file_system_is_mounted_where_it_is_missing() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    use nix::sched::{CloneFlags, unshare};
    let wire = Wire::new();
    let settings = KernelSettings {
        pin_dir: format!("/sys/fs/bpf/postern-test-{}", std::process::id()).into(),
        ..wire.settings()
    };
    let mounted = wire.gateway.enter(|| {
        // A view of the file systems for this thread alone, in which it is not mounted.
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        while umount2("/sys/fs/bpf", MntFlags::MNT_DETACH).is_ok() {}
        let is_there =
            || fs::read_to_string("/proc/thread-self/mounts").unwrap().contains(" /sys/fs/bpf ");
        assert!(!is_there());
        let filter = wire::open(&settings)?;
        let mode = filter.attachments()[0].mode;
        filter.detach()?;
        Ok::<_, AttachError>((is_there(), mode))
    });
    assert_eq!(mounted.unwrap().unwrap(), (true, Mode::Native));
}
