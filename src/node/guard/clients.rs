//! Who asks the guard to hold addresses: connections to guard.sock, normally the runner's only one.
//!
//! Nobody can hold the guard up: it reads a bounded number of requests in a turn, and whoever does
//! not read its answers is disconnected (the runner then connects anew and asks what is held).

use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use standfast_sys::socket::{Received, SeqListener, SeqSocket};

use crate::node::messages::{FromGuard, ToGuard};

/// Connections at a time: the runner, the one that replaces it, and one to spare. Further ones are
/// closed at once.
const CLIENTS_MAX: usize = 3;

/// Requests of one client that are answered in one turn; the rest waits for the next.
const REQUESTS_PER_TURN: usize = 16;

/// Largest request in bytes; one has at most four.
const REQUEST_MAX: usize = 16;

/// Largest answer in bytes; a longer sentence is cut.
const ANSWER_MAX: usize = 1_024;

/// Longest sentence in an answer.
const TEXT_MAX: usize = ANSWER_MAX - 64;

/// Token of the listener.
pub(super) const LISTENER: Token = Token(100);

/// Token of the first client; the others follow.
const FIRST_TOKEN: usize = 101;

/// The listener and its connections.
pub(super) struct Clients {
    listener: SeqListener,
    list: [Option<SeqSocket>; CLIENTS_MAX],
    registry: Registry,
}

impl Clients {
    /// Registers the listener.
    pub(super) fn new(listener: SeqListener, registry: Registry) -> std::io::Result<Clients> {
        let mut source = SourceFd(&listener.as_raw_fd());
        registry.register(&mut source, LISTENER, Interest::READABLE)?;
        Ok(Clients {
            listener,
            list: [const { None }; CLIENTS_MAX],
            registry,
        })
    }

    /// Takes in everybody who waits.
    pub(super) fn accept(&mut self) {
        while let Ok(Some(socket)) = self.listener.accept() {
            // Without a free place the newcomer is dropped, and thereby disconnected.
            let Some(place) = self.list.iter().position(Option::is_none) else {
                continue;
            };
            let token = Token(FIRST_TOKEN + place);
            let mut source = SourceFd(&socket.as_raw_fd());
            if self
                .registry
                .register(&mut source, token, Interest::READABLE)
                .is_ok()
            {
                self.list[place] = Some(socket);
            }
        }
    }

    /// Answers what a client asks. True: more may be waiting, come back without waiting for an
    /// event.
    pub(super) fn serve(
        &mut self,
        token: Token,
        answer: &mut dyn FnMut(ToGuard) -> FromGuard,
    ) -> bool {
        let place = token.0.wrapping_sub(FIRST_TOKEN);
        let Some(socket) = self.list.get_mut(place).and_then(Option::take) else {
            return false;
        };
        let mut buffer = [0; REQUEST_MAX];
        for _ in 0..REQUESTS_PER_TURN {
            match socket.recv(&mut buffer) {
                Ok(Received::Message(length)) => {
                    let Ok(request) = postcard::from_bytes(&buffer[..length]) else {
                        return false;
                    };
                    if !send(&socket, answer(request)) {
                        return false;
                    }
                }
                Ok(Received::Nothing) => {
                    self.list[place] = Some(socket);
                    return false;
                }
                Ok(Received::Closed) | Err(_) => return false,
            }
        }
        self.list[place] = Some(socket);
        true
    }

    /// The tokens of all clients.
    pub(super) fn tokens() -> impl Iterator<Item = Token> {
        (0..CLIENTS_MAX).map(|place| Token(FIRST_TOKEN + place))
    }

    /// Tells everybody.
    pub(super) fn notice(&mut self, notice: &FromGuard) {
        for place in &mut self.list {
            if let Some(socket) = place.take_if(|socket| !send(socket, notice.clone())) {
                drop(socket);
            }
        }
    }
}

fn send(socket: &SeqSocket, mut message: FromGuard) -> bool {
    if let FromGuard::Refused { reason: text } | FromGuard::Notice { text, .. } = &mut message {
        let cut = (0..=TEXT_MAX).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(cut.unwrap_or(0));
    }
    let mut buffer = [0; ANSWER_MAX];
    let encoded = postcard::to_slice(&message, &mut buffer).expect("the text was cut to fit");
    socket.send(encoded).unwrap_or(false)
}
