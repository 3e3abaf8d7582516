//! What a raw socket lets through, compiled to the classic BPF program that the kernel runs per
//! frame.
//!
//! Pure: values in, instructions out (linux/filter.h, Documentation/networking/filter.rst). A load
//! beyond the end of a frame makes the kernel drop it, so a short frame never passes by accident.

use std::net::Ipv4Addr;

use libc::sock_filter;

use super::HEADER_BYTES;

/// The frames that one link wants. Offsets count from the first byte after the Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameFilter {
    /// The EtherType to receive and to send.
    pub ethertype: u16,
    /// Shortest payload in bytes; shorter frames are dropped.
    pub min_len: u32,
    /// Offset and bytes of the format's magic, as on the wire.
    pub magic: Option<(u32, [u8; 4])>,
    /// Offset and bytes of the cluster id, as on the wire.
    pub cluster: (u32, [u8; 8]),
    /// Offset of the sender's node id and the one value that is *not* wanted: this node's own.
    pub not_sender: Option<(u32, u8)>,
}

const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const LOAD_LENGTH: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_LEN;
const JUMP_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const JUMP_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// Where the EtherType stands in a frame.
const ETHERTYPE_OFFSET: u32 = 12;

impl FrameFilter {
    /// The program for `SO_ATTACH_FILTER`.
    pub(crate) fn compile(&self) -> Vec<sock_filter> {
        let mut program = Program::default();
        program.require_half(ETHERTYPE_OFFSET, self.ethertype);
        program.require_length(self.min_len + HEADER_BYTES as u32);
        if let Some((offset, magic)) = self.magic {
            program.require_word(offset + HEADER_BYTES as u32, u32::from_be_bytes(magic));
        }
        let (offset, cluster) = self.cluster;
        let [a, b, c, d, e, f, g, h] = cluster;
        program.require_word(
            offset + HEADER_BYTES as u32,
            u32::from_be_bytes([a, b, c, d]),
        );
        program.require_word(
            offset + HEADER_BYTES as u32 + 4,
            u32::from_be_bytes([e, f, g, h]),
        );
        if let Some((offset, own)) = self.not_sender {
            program.refuse_byte(offset + HEADER_BYTES as u32, own);
        }
        program.finish()
    }
}

/// Most sender addresses a program looks for: its jumps are 8 bits wide.
const SENDERS_MAX: usize = 200;

/// The program that keeps well-formed Ethernet/IPv4 ARP (RFC 826) of others. With `senders`, only
/// what claims to come from one of these addresses; with more than [`SENDERS_MAX`], as with none.
pub(crate) fn arp_of_others(own_mac: [u8; 6], senders: &[Ipv4Addr]) -> Vec<sock_filter> {
    let [a, b, c, d, e, f] = own_mac;
    let mut program = Program::default();
    program.require_half(ETHERTYPE_OFFSET, libc::ETH_P_ARP as u16);
    program.require_length(super::arp::FRAME_BYTES as u32);
    // Hardware type 1 (Ethernet), protocol 0x0800 (IPv4), address lengths 6 and 4.
    program.require_word(HEADER_BYTES as u32, 0x0001_0800);
    program.require_half(HEADER_BYTES as u32 + 4, 0x0604);
    // The sender's hardware address: when the last half differs, the rest need not be looked at.
    program.push(LOAD_HALF, HEADER_BYTES as u32 + 12);
    program.jump(u32::from(u16::from_be_bytes([e, f])), 0, 2);
    program.push(LOAD_WORD, HEADER_BYTES as u32 + 8);
    program.refuse_equal(u32::from_be_bytes([a, b, c, d]));
    if !senders.is_empty() && senders.len() <= SENDERS_MAX {
        program.push(LOAD_WORD, HEADER_BYTES as u32 + 14);
        for (at, sender) in senders.iter().enumerate() {
            let left = (senders.len() - 1 - at) as u8;
            let otherwise = if left == 0 { TO_DROP } else { 0 };
            program.jump(sender.to_bits(), left, otherwise);
        }
    }
    program.finish()
}

/// Jumps to the final "drop" are written with this distance and resolved at the end.
const TO_DROP: u8 = u8::MAX;

#[derive(Default)]
struct Program {
    instructions: Vec<sock_filter>,
}

impl Program {
    fn push(&mut self, code: u32, k: u32) {
        self.instructions.push(instruction(code, 0, 0, k));
    }

    fn jump(&mut self, k: u32, when_equal: u8, otherwise: u8) {
        self.instructions
            .push(instruction(JUMP_EQUAL, when_equal, otherwise, k));
    }

    fn require_word(&mut self, offset: u32, value: u32) {
        self.push(LOAD_WORD, offset);
        self.jump(value, 0, TO_DROP);
    }

    fn require_half(&mut self, offset: u32, value: u16) {
        self.push(LOAD_HALF, offset);
        self.jump(u32::from(value), 0, TO_DROP);
    }

    fn require_length(&mut self, bytes: u32) {
        self.push(LOAD_LENGTH, 0);
        self.instructions
            .push(instruction(JUMP_AT_LEAST, 0, TO_DROP, bytes));
    }

    fn refuse_byte(&mut self, offset: u32, value: u8) {
        self.push(LOAD_BYTE, offset);
        self.refuse_equal(u32::from(value));
    }

    fn refuse_equal(&mut self, value: u32) {
        self.jump(value, TO_DROP, 0);
    }

    fn finish(mut self) -> Vec<sock_filter> {
        self.push(RETURN, u32::MAX);
        self.push(RETURN, 0);
        let drop_at = self.instructions.len() - 1;
        for (at, instruction) in self.instructions.iter_mut().enumerate() {
            for jump in [&mut instruction.jt, &mut instruction.jf] {
                if *jump == TO_DROP {
                    *jump = u8::try_from(drop_at - at - 1).expect("the program is short");
                }
            }
        }
        self.instructions
    }
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter {
        code: u16::try_from(code).expect("codes have 16 bits"),
        jt,
        jf,
        k,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The few instructions used here, executed as the kernel does: `true` lets the frame pass.
    fn passes(program: &[sock_filter], frame: &[u8]) -> bool {
        let load = |offset: u32, bytes: usize| -> Option<u32> {
            let part = frame.get(offset as usize..)?.get(..bytes)?;
            Some(
                part.iter()
                    .fold(0, |value, byte| value << 8 | u32::from(*byte)),
            )
        };
        let (mut at, mut register) = (0, 0);
        loop {
            let step = &program[at];
            at += 1;
            let jump = |taken: bool| usize::from(if taken { step.jt } else { step.jf });
            match u32::from(step.code) {
                LOAD_LENGTH => register = frame.len() as u32,
                JUMP_EQUAL => at += jump(register == step.k),
                JUMP_AT_LEAST => at += jump(register >= step.k),
                RETURN => return step.k > 0,
                code => {
                    let bytes = [(LOAD_WORD, 4), (LOAD_HALF, 2), (LOAD_BYTE, 1)]
                        .iter()
                        .find(|(known, _)| *known == code)
                        .expect("a known instruction")
                        .1;
                    let Some(value) = load(step.k, bytes) else {
                        return false;
                    };
                    register = value;
                }
            }
        }
    }

    const FILTER: FrameFilter = FrameFilter {
        ethertype: 0x88B5,
        min_len: 24,
        magic: Some((0, *b"SFST")),
        cluster: (8, [1, 2, 3, 4, 5, 6, 7, 8]),
        not_sender: Some((16, 3)),
    };

    fn frame() -> Vec<u8> {
        let mut frame = super::super::header([0xFF; 6], [2; 6], 0x88B5).to_vec();
        frame.extend(b"SFST\0\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08");
        frame.extend([4, 0, 0, 0, 0, 0, 0, 0]);
        frame
    }

    #[test]
    fn a_wanted_frame_passes() {
        assert!(passes(&FILTER.compile(), &frame()));
    }

    #[test]
    fn a_change_in_any_checked_byte_drops_the_frame() {
        let program = FILTER.compile();
        for at in (12..18).chain(22..30) {
            for bit in 0..8 {
                let mut changed = frame();
                changed[at] ^= 1 << bit;
                assert!(!passes(&program, &changed), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn own_and_short_frames_are_dropped() {
        let mut own = frame();
        own[HEADER_BYTES + 16] = 3;
        assert!(!passes(&FILTER.compile(), &own));
        for length in 0..frame().len() {
            assert!(
                !passes(&FILTER.compile(), &frame()[..length]),
                "{length} bytes"
            );
        }
    }

    #[test]
    fn without_the_optional_checks_only_type_length_and_cluster_count() {
        let program = FrameFilter {
            magic: None,
            not_sender: None,
            ..FILTER
        }
        .compile();
        let mut other = frame();
        other[HEADER_BYTES] = b'X';
        other[HEADER_BYTES + 16] = 3;
        assert!(passes(&program, &other));
    }

    #[test]
    fn arp_of_others_passes_and_own_does_not() {
        let program = arp_of_others([2, 0, 0, 0, 0, 9], &[]);
        let arp = |mac| super::super::arp::frame(1, mac, [0; 4].into(), [0; 6], [0; 4].into());
        assert!(!passes(&program, &arp([2, 0, 0, 0, 0, 9])));
        for mac in [[2, 0, 0, 0, 0, 8], [2, 0, 0, 1, 0, 9], [3, 0, 0, 0, 0, 9]] {
            assert!(passes(&program, &arp(mac)), "{mac:?}");
            for at in 12..20 {
                let mut other = arp(mac);
                other[at] ^= 1;
                assert!(!passes(&program, &other), "byte {at}");
            }
        }
    }

    #[test]
    fn only_arp_of_the_wanted_senders_passes() {
        let arp = |from: [u8; 4]| {
            let (own, ip) = ([2, 0, 0, 0, 0, 1], Ipv4Addr::from(from));
            super::super::arp::frame(1, own, ip, [0; 6], Ipv4Addr::new(10, 0, 0, 9))
        };
        let other_mac = [2, 0, 0, 0, 0, 9];
        let wanted = [[10, 0, 0, 5], [10, 0, 0, 6], [10, 0, 0, 7]].map(Ipv4Addr::from);
        let program = arp_of_others(other_mac, &wanted);
        for last in 0..=10 {
            let passed = passes(&program, &arp([10, 0, 0, last]));
            assert_eq!(passed, (5..=7).contains(&last), "10.0.0.{last}");
        }
        let all = arp_of_others(other_mac, &[]);
        assert!(passes(&all, &arp([10, 0, 0, 1])));
        assert!(!passes(
            &arp_of_others([2, 0, 0, 0, 0, 1], &wanted),
            &arp([10, 0, 0, 5])
        ));
    }
}
