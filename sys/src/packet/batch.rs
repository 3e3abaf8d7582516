//! Receiving many frames with one call into memory that is allocated once (recvmmsg(2)).
//!
//! One batch per link thread, reused for its whole life: about 130 kB.

use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use super::raw::RawSocket;
use super::{Error, HEADER_BYTES};
use crate::error::answer;

/// Frames that one call can take.
pub const BATCH_FRAMES: usize = 64;

/// Largest frame that is received, header included; a longer one is dropped and counted.
pub const FRAME_BYTES_MAX: usize = 2048;

/// Room for one `SO_RXQ_OVFL` control message: header and counter, padded to words.
const CONTROL_WORDS: usize = 4;

/// Where the fields of a `cmsghdr` with a `u32` behind it lie (cmsg(3), 64-bit Linux).
const CONTROL_LEVEL: usize = size_of::<usize>();
const CONTROL_TYPE: usize = CONTROL_LEVEL + 4;
const CONTROL_DATA: usize = CONTROL_TYPE + 4;

/// One received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// To whom: this host, the group or everybody.
    pub destination_mac: [u8; 6],
    /// Who claims to have sent it.
    pub source_mac: [u8; 6],
    /// Everything after the Ethernet header, padding included.
    pub payload: &'a [u8],
}

/// The frames of one [`recv`](super::PacketSocket::recv) and counters over all of them.
#[derive(Debug)]
pub struct RecvBatch {
    buffers: Box<[[u8; FRAME_BYTES_MAX]]>,
    lengths: [usize; BATCH_FRAMES],
    count: usize,
    drops: u64,
    last_overflow: u32,
    oversized: u64,
}

impl RecvBatch {
    /// Allocates the buffers; nothing is allocated later.
    #[must_use]
    pub fn new() -> RecvBatch {
        RecvBatch {
            buffers: vec![[0; FRAME_BYTES_MAX]; BATCH_FRAMES].into_boxed_slice(),
            lengths: [0; BATCH_FRAMES],
            count: 0,
            drops: 0,
            last_overflow: 0,
            oversized: 0,
        }
    }

    /// The frames of the last receive, in order of arrival.
    pub fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        let used = self.buffers.iter().zip(self.lengths).take(self.count);
        used.filter_map(|(buffer, length)| split(&buffer[..length]))
    }

    /// Frames that the kernel dropped because the socket's buffer was full, as known with the last
    /// received frame (`SO_RXQ_OVFL`, socket(7)). Use one batch per socket, or the sum means
    /// nothing.
    #[must_use]
    pub fn drops(&self) -> u64 {
        self.drops
    }

    /// Frames that were dropped here because they were longer than [`FRAME_BYTES_MAX`].
    #[must_use]
    pub fn oversized(&self) -> u64 {
        self.oversized
    }

    pub(super) fn fill(&mut self, socket: &RawSocket) -> Result<usize, Error> {
        self.count = 0;
        let mut control = [[0_u64; CONTROL_WORDS]; BATCH_FRAMES];
        let mut vectors = self.buffers.each_vector();
        let mut headers = [EMPTY_HEADER; BATCH_FRAMES];
        for ((header, vector), control) in headers.iter_mut().zip(&mut vectors).zip(&mut control) {
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = size_of::<[u64; CONTROL_WORDS]>() as _;
        }
        let descriptor = socket.as_fd().as_raw_fd();
        let room = BATCH_FRAMES as libc::c_uint;
        let first = headers.as_mut_ptr();
        let flags = libc::MSG_DONTWAIT;
        // SAFETY: every header points to one vector, one buffer and one control block of its own
        // that are all alive and not otherwise borrowed until this returns; no timeout is given.
        let result =
            unsafe { libc::recvmmsg(descriptor, first, room, flags as _, std::ptr::null_mut()) };
        let received = match answer(result) {
            Ok(count) => count.unsigned_abs() as usize,
            Err(error) if error.raw_os_error() == Some(Errno::EAGAIN as i32) => return Ok(0),
            Err(error) if error.raw_os_error() == Some(Errno::EINTR as i32) => {
                return self.fill(socket);
            }
            Err(error) => return Err(socket.error("receive frames", error)),
        };
        for (index, header) in headers.iter().enumerate().take(received) {
            self.account(index, header, &control[index]);
        }
        self.count = received;
        Ok(received)
    }

    fn account(&mut self, index: usize, header: &libc::mmsghdr, control: &[u64; CONTROL_WORDS]) {
        let whole = header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
        // A length of zero is skipped by `frames`.
        self.lengths[index] = if whole { header.msg_len as usize } else { 0 };
        self.oversized += u64::from(!whole);
        if header.msg_hdr.msg_controllen >= CONTROL_DATA + 4
            && let Some(overflow) = overflow_of(control)
        {
            // The kernel counts in 32 bits and wraps.
            self.drops += u64::from(overflow.wrapping_sub(self.last_overflow));
            self.last_overflow = overflow;
        }
    }
}

impl Default for RecvBatch {
    fn default() -> RecvBatch {
        RecvBatch::new()
    }
}

trait Vectors {
    fn each_vector(&mut self) -> [libc::iovec; BATCH_FRAMES];
}

impl Vectors for Box<[[u8; FRAME_BYTES_MAX]]> {
    fn each_vector(&mut self) -> [libc::iovec; BATCH_FRAMES] {
        let mut buffers = self.iter_mut();
        std::array::from_fn(|_| libc::iovec {
            iov_base: buffers
                .next()
                .expect("one buffer per frame")
                .as_mut_ptr()
                .cast(),
            iov_len: FRAME_BYTES_MAX,
        })
    }
}

const EMPTY_HEADER: libc::mmsghdr = libc::mmsghdr {
    msg_hdr: libc::msghdr {
        msg_name: std::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: std::ptr::null_mut(),
        msg_iovlen: 0,
        msg_control: std::ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    },
    msg_len: 0,
};

fn split(frame: &[u8]) -> Option<Frame<'_>> {
    let (header, payload) = frame.split_first_chunk::<HEADER_BYTES>()?;
    let (destination, rest) = header.split_first_chunk()?;
    let (source, _) = rest.split_first_chunk()?;
    Some(Frame {
        destination_mac: *destination,
        source_mac: *source,
        payload,
    })
}

/// The counter in a control block that holds one `SO_RXQ_OVFL` message.
fn overflow_of(control: &[u64; CONTROL_WORDS]) -> Option<u32> {
    let mut bytes = [0; size_of::<[u64; CONTROL_WORDS]>()];
    for (part, word) in bytes.chunks_exact_mut(size_of::<u64>()).zip(control) {
        part.copy_from_slice(&word.to_ne_bytes());
    }
    let field = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let wanted = field(CONTROL_LEVEL) == libc::SOL_SOCKET as u32
        && field(CONTROL_TYPE) == libc::SO_RXQ_OVFL as u32;
    wanted.then(|| field(CONTROL_DATA))
}
