//! Local connections that keep messages apart and name the process at the other end (unix(7)).
//!
//! `SOCK_SEQPACKET`: one send is one receive, in order, and the end of a connection is seen. std
//! has only streams and datagrams. Nothing here blocks; a message is received whole or not at all.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, connect,
    getsockopt, listen, socket, sockopt,
};

use crate::error::{Failed, Naming};

/// Connections that wait to be accepted; further ones are refused with `EAGAIN`.
const BACKLOG: i32 = 64;

const FLAGS: SockFlag = SockFlag::SOCK_CLOEXEC.union(SockFlag::SOCK_NONBLOCK);

/// Who is at the other end, as the kernel noted when the connection was made (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process.
    pub pid: i32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

/// What a receive brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A message of so many bytes.
    Message(usize),
    /// Nothing is waiting.
    Nothing,
    /// The other end closed the connection.
    Closed,
}

/// A path where connections are accepted.
#[derive(Debug)]
pub struct SeqListener {
    descriptor: OwnedFd,
    path: PathBuf,
}

impl SeqListener {
    /// Listens at `path` with the file mode `mode`. The path appears with its mode set and already
    /// accepting, in place of what a dead process left there. The file stays when this is dropped.
    ///
    /// # Errors
    ///
    /// `EADDRINUSE` if a living process listens there; the path is too long (107 bytes, less some
    /// for a name beside it) or its directory cannot be written.
    pub fn bind(path: &Path, mode: u32) -> Result<SeqListener, Failed> {
        let listening = || -> io::Result<OwnedFd> {
            match connected(path) {
                Ok(_) | Err(Errno::EAGAIN) => return Err(Errno::EADDRINUSE.into()),
                Err(_) => {}
            }
            let beside = beside(path);
            let _ = fs::remove_file(&beside);
            let descriptor = open()?;
            bind(descriptor.as_raw_fd(), &UnixAddr::new(&beside)?)?;
            fs::set_permissions(&beside, Permissions::from_mode(mode))?;
            listen(&descriptor, Backlog::new(BACKLOG)?)?;
            fs::rename(&beside, path)?;
            Ok(descriptor)
        };
        let descriptor = listening().naming("listen at", path.display())?;
        Ok(SeqListener {
            descriptor,
            path: path.to_owned(),
        })
    }

    /// The next connection; `None` when none is waiting.
    ///
    /// # Errors
    ///
    /// Out of file descriptors or memory: the connection goes on waiting.
    pub fn accept(&self) -> Result<Option<SeqSocket>, Failed> {
        loop {
            match accept4(self.as_raw_fd(), FLAGS) {
                Ok(number) => {
                    // SAFETY: accept4 has just made this descriptor and nobody else knows it.
                    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
                    return Ok(Some(SeqSocket { descriptor }));
                }
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR | Errno::ECONNABORTED) => {}
                Err(errno) => return Err(Failed::new("accept at", self.path.display(), errno)),
            }
        }
    }
}

impl AsFd for SeqListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for SeqListener {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

/// One end of a connection.
#[derive(Debug)]
pub struct SeqSocket {
    descriptor: OwnedFd,
}

impl SeqSocket {
    /// Connects to the listener at `path`, at once or not at all.
    ///
    /// # Errors
    ///
    /// `ENOENT` or `ECONNREFUSED` if nobody listens, `EACCES`, `EAGAIN` if too many wait already.
    pub fn connect(path: &Path) -> Result<SeqSocket, Failed> {
        let descriptor = connected(path).naming("connect to", path.display())?;
        Ok(SeqSocket { descriptor })
    }

    /// Who is at the other end.
    ///
    /// # Errors
    ///
    /// None known; the kernel's answer is passed on.
    pub fn peer(&self) -> Result<Peer, Failed> {
        let peer = getsockopt(&self.descriptor, sockopt::PeerCredentials)
            .naming("identify", "the peer of a local connection")?;
        Ok(Peer {
            pid: peer.pid(),
            uid: peer.uid(),
            gid: peer.gid(),
        })
    }

    /// Sends one message. `Ok(false)` if the other end reads too slowly: nothing was sent, wait
    /// until the descriptor is writable.
    ///
    /// # Errors
    ///
    /// `EPIPE` or `ECONNRESET` if the other end is gone, `EMSGSIZE` for a message above the
    /// socket's send buffer (some 200 kB), `EINVAL` for an empty one, which would look like the
    /// end.
    pub fn send(&self, message: &[u8]) -> Result<bool, Failed> {
        if message.is_empty() {
            return Err(Failed::new("send", "an empty message", Errno::EINVAL));
        }
        loop {
            match nix::sys::socket::send(self.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL) {
                Ok(_) => return Ok(true),
                Err(Errno::EAGAIN) => return Ok(false),
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    let subject = format_args!("a message of {} bytes", message.len());
                    return Err(Failed::new("send", subject, errno));
                }
            }
        }
    }

    /// Receives one message into `buffer`.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` for a message longer than the buffer: it is gone, only its beginning is in the
    /// buffer. `ECONNRESET` if the other end died with messages unread.
    pub fn recv(&self, buffer: &mut [u8]) -> Result<Received, Failed> {
        loop {
            match nix::sys::socket::recv(self.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC) {
                Ok(0) => return Ok(Received::Closed),
                Ok(length) if length <= buffer.len() => return Ok(Received::Message(length)),
                Ok(length) => {
                    let subject = format_args!("{length} bytes in a buffer of {}", buffer.len());
                    return Err(Failed::new("receive", subject, Errno::EMSGSIZE));
                }
                Err(Errno::EAGAIN) => return Ok(Received::Nothing),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Failed::new("receive", "a local message", errno)),
            }
        }
    }
}

impl AsFd for SeqSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for SeqSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

fn open() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::SeqPacket, FLAGS, None)
}

fn connected(path: &Path) -> nix::Result<OwnedFd> {
    let descriptor = open()?;
    connect(descriptor.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(descriptor)
}

/// A name in the same directory that only this process uses.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::testing::{becomes_readable, in_child, is_readable};

    struct Pair {
        _directory: tempfile::TempDir,
        listener: SeqListener,
        client: SeqSocket,
        server: SeqSocket,
    }

    fn pair() -> Pair {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = SeqListener::bind(&path, 0o660).unwrap();
        assert!(listener.accept().unwrap().is_none());
        let client = SeqSocket::connect(&path).unwrap();
        assert!(becomes_readable(&listener));
        let server = listener.accept().unwrap().unwrap();
        Pair {
            _directory: directory,
            listener,
            client,
            server,
        }
    }

    #[test]
    fn messages_keep_their_bounds_and_the_end_is_seen() {
        let Pair {
            client,
            server,
            listener,
            _directory,
        } = pair();
        assert_eq!(listener.path.metadata().unwrap().mode() & 0o777, 0o660);
        let mut buffer = [0; 16];
        assert_eq!(server.recv(&mut buffer).unwrap(), Received::Nothing);
        assert!(client.send(b"one").unwrap() && client.send(b"three").unwrap());
        assert!(becomes_readable(&server));
        assert_eq!(server.recv(&mut buffer).unwrap(), Received::Message(3));
        assert_eq!(server.recv(&mut buffer).unwrap(), Received::Message(5));
        assert_eq!(buffer[..5], *b"three");
        assert!(!is_readable(&server));
        assert!(server.send(b"answer").unwrap());
        assert_eq!(client.recv(&mut buffer).unwrap(), Received::Message(6));
        drop(server);
        assert_eq!(client.recv(&mut buffer).unwrap(), Received::Closed);
        assert_eq!(client.send(b"late").unwrap_err().errno(), Some(libc::EPIPE));
        assert_eq!(client.send(b"").unwrap_err().errno(), Some(libc::EINVAL));
    }

    #[test]
    fn a_message_that_does_not_fit_is_an_error_and_the_next_is_whole() {
        let Pair { client, server, .. } = pair();
        assert!(client.send(&[1; 20]).unwrap() && client.send(&[2; 16]).unwrap());
        let mut buffer = [0; 16];
        let error = server.recv(&mut buffer).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot receive 20 bytes in a buffer of 16"
        );
        assert_eq!(error.errno(), Some(libc::EMSGSIZE));
        assert_eq!(server.recv(&mut buffer).unwrap(), Received::Message(16));
        assert_eq!(buffer, [2; 16]);
    }

    #[test]
    fn a_slow_reader_is_told_by_false_and_loses_nothing() {
        let Pair { client, server, .. } = pair();
        let mut sent = 0_u32;
        while client.send(&sent.to_ne_bytes()).unwrap() {
            sent += 1;
        }
        let mut buffer = [0; 4];
        for number in 0..sent {
            assert_eq!(server.recv(&mut buffer).unwrap(), Received::Message(4));
            assert_eq!(u32::from_ne_bytes(buffer), number);
        }
        assert_eq!(server.recv(&mut buffer).unwrap(), Received::Nothing);
        assert!(client.send(b"more").unwrap());
    }

    #[test]
    fn the_peer_is_known() {
        if in_child("socket::tests::the_peer_is_known", Some(65_534)) {
            let Pair { client, server, .. } = pair();
            let own = Peer {
                pid: std::process::id() as i32,
                uid: 65_534,
                gid: 65_534,
            };
            assert_eq!((client.peer().unwrap(), server.peer().unwrap()), (own, own));
        }
    }

    #[test]
    fn a_living_listener_is_respected_and_a_dead_one_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let absent = SeqSocket::connect(&path).unwrap_err();
        assert_eq!(absent.errno(), Some(libc::ENOENT));
        let listener = SeqListener::bind(&path, 0o600).unwrap();
        assert_eq!(
            SeqListener::bind(&path, 0o600).unwrap_err().errno(),
            Some(libc::EADDRINUSE)
        );
        drop(listener);
        assert_eq!(
            SeqSocket::connect(&path).unwrap_err().errno(),
            Some(libc::ECONNREFUSED)
        );
        let listener = SeqListener::bind(&path, 0o600).unwrap();
        let _client = SeqSocket::connect(&path).unwrap();
        assert!(listener.accept().unwrap().is_some());
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            1,
            "nothing else is left"
        );
    }
}
