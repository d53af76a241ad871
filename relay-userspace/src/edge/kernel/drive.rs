//! What a packet costs an XDP program when each comes from another source: measured by the kernel
//! itself (BPF_PROG_TEST_RUN), for this filter's program or any other that is loaded.
//!
//! The kernel repeats a test with one and the same frame, and a source that was seen a moment ago
//! is in every cache. So a driver of a few instructions runs first: it takes the next of many
//! sources, writes it into the frame and goes on into the program under test by a tail call. What
//! that costs by itself is what a program that only answers ([`Program::answering`]) costs so.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use relay_common::parse::Family;

use super::bpf::{self, Attr, Command, OneAttr};
use super::instructions::{
    self, EXIT, LOAD_U32, LOAD_U64, R0, R1, R2, R3, R4, R5, STORE_U32, STORE_U64, TAIL_CALL, copy,
    instruction, map, set, source_at,
};
use super::probe::Outcome;

const PROGRAM_TYPE_XDP: u32 = 6;
const MAP_TYPE_ARRAY: u32 = 2;
const MAP_TYPE_PROGRAMS: u32 = 3;
const XDP_HAS_FRAGS: u32 = 1 << 5;
const ATTACH_TYPE_XDP: u32 = 37;

const SOURCE_V4_AT: i16 = source_at(Family::V4);
const SOURCE_V6_AT: i16 = source_at(Family::V6);
/// The shortest frame that has the source of either family, whole.
const FRAME_MIN: usize = SOURCE_V6_AT as usize + 16;
/// Bytes before all sources, for the number of the next one.
const NEXT: usize = 16;
/// More than that would be no other measurement, and the verifier wants offsets below 2^29.
const SOURCES_MAX: usize = 1 << 22;

/// An XDP program in the kernel, attached or not.
#[derive(Debug)]
pub struct Program(OwnedFd);

/// What a program that does nothing else answers; the numbers are those of `enum xdp_action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Drop = 1,
    Pass = 2,
}

impl Program {
    /// The program with this id, as `bpftool prog` shows it.
    ///
    /// # Errors
    /// There is none, or no privilege.
    pub fn by_id(id: u32) -> io::Result<Self> {
        // prog_id, next_id, open_flags
        let mut attr = [id, 0, 0, 0];
        // SAFETY: the command reads and writes nothing but `attr`.
        let made = unsafe { bpf::call(Command::ProgGetFdById, &mut attr) }?;
        Ok(Self(instructions::descriptor(made)))
    }

    /// Two instructions that answer at once: an empty program, or one that drops everything.
    ///
    /// # Errors
    /// No privilege, or no BPF.
    pub fn answering(answer: Answer) -> io::Result<Self> {
        Self::load(&[set(R0, answer as i32), EXIT])
    }

    pub(super) fn load(code: &[u64]) -> io::Result<Self> {
        load(code, Form { frags: true, expected_attach_type: ATTACH_TYPE_XDP }).map(Self)
    }

    pub(super) fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        fd.try_clone_to_owned().map(Self)
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A frame, and the sources that it comes from in turn.
#[derive(Debug)]
pub struct Drive {
    frame: Vec<u8>,
    /// A program can be entered by a tail call only from one of the same form.
    drivers: Vec<Driver>,
}

#[derive(Debug)]
struct Driver {
    program: OwnedFd,
    /// The one program that it goes on into.
    target: OwnedFd,
}

#[derive(Clone, Copy)]
struct Form {
    frags: bool,
    expected_attach_type: u32,
}

impl Drive {
    /// `frame` is untagged and of the family of all `sources`, of which there are at most four
    /// million. They come in this order, over and over.
    ///
    /// # Errors
    /// The sources and the frame do not go together; no privilege, or no BPF.
    pub fn new(frame: &[u8], sources: &[IpAddr]) -> io::Result<Self> {
        let is_v4 = frame.get(12..14) == Some(&[0x08, 0x00]);
        if frame.len() < FRAME_MIN || sources.iter().any(|source| source.is_ipv4() != is_v4) {
            let what = "a frame and sources of one family are needed";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        if sources.is_empty() || sources.len() > SOURCES_MAX {
            let what = "the number of sources is out of range";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let list = source_list(sources)?;
        let mut drivers = Vec::new();
        for frags in [true, false] {
            for expected_attach_type in [ATTACH_TYPE_XDP, 0] {
                let target = create_map(MAP_TYPE_PROGRAMS, 4, 1)?;
                let code = driver(list.as_fd(), target.as_fd(), sources.len(), is_v4);
                let program = load(&code, Form { frags, expected_attach_type })?;
                drivers.push(Driver { program, target });
            }
        }
        Ok(Self { frame: frame.to_owned(), drivers })
    }

    /// Runs a program on so many frames, each from the next source. The verdict is the last one's;
    /// the duration is the mean, with the driver's own cost in it, in whole nanoseconds.
    ///
    /// # Errors
    /// The program answers neither pass nor drop, or cannot be entered by a tail call.
    pub fn run(&self, program: &Program, repeat: u32) -> io::Result<Outcome> {
        let mut refused = None;
        for driver in &self.drivers {
            let mut target = bpf::number(program.as_fd());
            match update(driver.target.as_fd(), (&raw mut target).cast()) {
                Ok(()) => return test_run(driver.program.as_fd(), &self.frame, repeat),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or_else(|| io::ErrorKind::Unsupported.into()))
    }
}

/// A map of one value: the number of the next source, and then all sources, one behind the other:
/// what the driver itself reads should take as little of the caches as can be.
fn source_list(sources: &[IpAddr]) -> io::Result<OwnedFd> {
    let mut list = vec![0; NEXT];
    for source in sources {
        match source {
            IpAddr::V4(v4) => list.extend(v4.octets()),
            IpAddr::V6(v6) => list.extend(v6.octets()),
        }
    }
    // Values of arrays are rounded up to eight bytes.
    list.resize(list.len().next_multiple_of(8), 0);
    one_value(&mut list)
}

/// An array of one value, whose bytes are a multiple of eight.
pub(super) fn one_value(value: &mut [u8]) -> io::Result<OwnedFd> {
    let map = create_map(MAP_TYPE_ARRAY, value.len() as u32, 1)?;
    update(map.as_fd(), value.as_mut_ptr())?;
    Ok(map)
}

/// Puts the value of an array's only element.
fn update(map: BorrowedFd<'_>, value: *mut u8) -> io::Result<()> {
    let key = 0u32;
    let mut attr = OneAttr {
        map: bpf::number(map),
        padding: 0,
        key: &raw const key as u64,
        value: value as u64,
        flags: 0,
    };
    // SAFETY: keys of arrays have four bytes, and both callers give a value of the map's size.
    unsafe { bpf::call(Command::MapUpdate, &mut attr) }.map(drop)
}

fn create_map(map_type: u32, value_size: u32, entries: u32) -> io::Result<OwnedFd> {
    // map_type, key_size, value_size, max_entries
    let mut attr = [map_type, 4, value_size, entries];
    // SAFETY: the command reads nothing but `attr`.
    let made = unsafe { bpf::call(Command::MapCreate, &mut attr) }?;
    Ok(instructions::descriptor(made))
}

#[repr(C)]
struct LoadAttr {
    program_type: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
}

// SAFETY: integers without padding between or behind them.
unsafe impl Attr for LoadAttr {}

fn load(code: &[u64], form: Form) -> io::Result<OwnedFd> {
    let mut attr = LoadAttr {
        program_type: PROGRAM_TYPE_XDP,
        instructions: code.len() as u32,
        code: code.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: if form.frags { XDP_HAS_FRAGS } else { 0 },
        name: *b"postern_drive\0\0\0",
        ifindex: 0,
        expected_attach_type: form.expected_attach_type,
    };
    // SAFETY: code and licence are as long as is said, and outlive the call.
    let made = unsafe { bpf::call(Command::ProgLoad, &mut attr) }?;
    Ok(instructions::descriptor(made))
}

#[repr(C)]
struct TestRunAttr {
    program: u32,
    answer: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration_ns: u32,
}

// SAFETY: integers without padding between or behind them.
unsafe impl Attr for TestRunAttr {}

/// Runs a program on a frame that nobody sent, so many times.
pub(super) fn test_run(program: BorrowedFd<'_>, frame: &[u8], repeat: u32) -> io::Result<Outcome> {
    let mut attr = TestRunAttr {
        program: bpf::number(program),
        answer: 0,
        data_size_in: frame.len() as u32,
        data_size_out: 0,
        data_in: frame.as_ptr() as u64,
        data_out: 0,
        repeat,
        duration_ns: 0,
    };
    // SAFETY: the frame is as long as is said, and no output is asked for.
    unsafe { bpf::call(Command::ProgTestRun, &mut attr) }?;
    let drops = match attr.answer {
        answer if answer == Answer::Drop as u32 => true,
        answer if answer == Answer::Pass as u32 => false,
        other => return Err(io::Error::other(format!("the program answered {other}"))),
    };
    Ok(Outcome { drops, duration: Duration::from_nanos(attr.duration_ns.into()) })
}

/// The driver: see the module.
fn driver(list: BorrowedFd<'_>, target: BorrowedFd<'_>, sources: usize, is_v4: bool) -> Vec<u64> {
    let mut code = vec![
        // The packet's beginning and end.
        instruction(LOAD_U32, R2, R1, 0, 0),
        instruction(LOAD_U32, R3, R1, 4, 0),
        map(R4, bpf::number(list) as i32, 2),
        0,
        // The number of this source, which is the first behind the last; and of the next.
        instruction(LOAD_U64, R5, R4, 0, 0),
        instruction(0xa5, R5, 0, 1, sources as i32),
        set(R5, 0),
        copy(R0, R5),
        instruction(0x07, R0, 0, 0, 1),
        instruction(STORE_U64, R4, R0, 0, 0),
        // Where it stands: 4 or 16 bytes for each.
        instruction(0x67, R5, 0, 0, if is_v4 { 2 } else { 4 }),
        instruction(0x0f, R4, R5, 0, 0),
        // Nothing is written beyond the packet's end.
        copy(R0, R2),
        instruction(0x07, R0, 0, 0, FRAME_MIN as i32),
    ];
    let writes = if is_v4 {
        vec![
            instruction(LOAD_U32, R5, R4, NEXT as i16, 0),
            instruction(STORE_U32, R2, R5, SOURCE_V4_AT, 0),
        ]
    } else {
        vec![
            instruction(LOAD_U64, R5, R4, NEXT as i16, 0),
            instruction(STORE_U64, R2, R5, SOURCE_V6_AT, 0),
            instruction(LOAD_U64, R5, R4, NEXT as i16 + 8, 0),
            instruction(STORE_U64, R2, R5, SOURCE_V6_AT + 8, 0),
        ]
    };
    code.push(instruction(0x2d, R0, R3, writes.len() as i16, 0));
    code.extend(writes);
    // The context is in R1 still.
    code.extend([
        map(R2, bpf::number(target) as i32, 1),
        0,
        set(R3, 0),
        TAIL_CALL,
        set(R0, 0),
        EXIT,
    ]);
    code
}
