//! Golden bytes, round trips, and everything that must be refused.

use proptest::array::{uniform8, uniform16, uniform32};
use proptest::prelude::*;

use super::*;

const CLUSTER: ClusterId = *b"cluster-for-test";

fn ring() -> Keyring {
    Keyring::new(&[7; 32], &CLUSTER)
}

fn sample() -> Frame {
    let sender = NodeId::new(3).unwrap();
    let incarnation = Incarnation {
        boot: *b"boot-id-16-bytes",
        start: 0x0102_0304,
    };
    let mut frame = Frame::blank(CLUSTER, sender, incarnation);
    frame.link = 2;
    frame.flags = Flags::HOLDS_LEASE.with(Flags::ACTIVE).with(Flags(1 << 15));
    frame.fitness = 200;
    frame.sequence = 0x1112_1314_1516_1718;
    frame.epoch = 0x2122_2324_2526_2728;
    frame.config_hash = *b"cfg-hash";
    frame.config_revision = 0x3132_3334;
    for i in 0..NODES_MAX as u32 {
        frame.heard[i as usize] = 0xA000_0000 + i;
    }
    for i in 0..TASKS_MAX as u64 {
        let state = TaskState::from_number((i % 8) as u8).unwrap();
        frame.tasks[i as usize] = TaskReport::new(state, 4096 + 63 * i);
    }
    frame
}

fn encoded(frame: &Frame) -> [u8; FRAME_LEN] {
    let mut bytes = [0xFF; FRAME_LEN];
    frame.encode(&ring(), &mut bytes);
    bytes
}

fn decoded(bytes: &[u8]) -> Result<Frame, FrameError> {
    Frame::decode(bytes, &ring(), &CLUSTER)
}

/// Signs whatever `bytes` are, as the sender and incarnation in them.
fn resealed(mut bytes: [u8; FRAME_LEN], change: impl FnOnce(&mut [u8; FRAME_LEN])) -> Vec<u8> {
    change(&mut bytes);
    let link = bytes[6];
    relink(&mut bytes, link, &ring());
    bytes.to_vec()
}

#[test]
fn the_bytes_are_these_for_ever() {
    let bytes = encoded(&sample());
    let head = b"STF1\x01\x03\x02\x00cluster-for-testboot-id-16-bytes\
        \x04\x03\x02\x01\x18\x80\xC8\x00\
        \x18\x17\x16\x15\x14\x13\x12\x11\x28\x27\x26\x25\x24\x23\x22\x21\
        cfg-hash\x34\x33\x32\x31\x00\x00\x00\x00\
        \x00\x00\x00\xA0\x01\x00\x00\xA0";
    assert_eq!(&bytes[..88], head);
    assert_eq!(&bytes[332..336], b"\x3F\x00\x00\xA0", "last of heard");
    assert_eq!(
        &bytes[336..344],
        b"\x00\x00\xF1\x03\xE2\x07\xD3\x0B",
        "first of tasks"
    );
    assert_eq!(&bytes[462..464], b"\x17\xF8", "last of tasks");
    assert_eq!(&bytes[464..496], [0; 32]);
    let hash = blake3::hash(&bytes);
    assert_eq!(hash.to_hex().as_str(), GOLDEN);
}

/// BLAKE3 of all 512 bytes, the tag among them.
const GOLDEN: &str = "2b6e7677d83e8b2605196b26da3ebe6243b010205c81600ba8eae94b66101244";

#[test]
fn every_single_bit_flip_is_refused() {
    let good = encoded(&sample());
    assert_eq!(decoded(&good).unwrap(), sample());
    for bit in 0..FRAME_LEN * 8 {
        let mut bytes = good;
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(decoded(&bytes).is_err(), "bit {bit}");
    }
}

#[test]
fn each_reason_to_refuse_has_its_name() {
    let good = encoded(&sample());
    let changed = |at: usize, value: u8| {
        let mut bytes = good;
        bytes[at] = value;
        decoded(&bytes).unwrap_err()
    };
    let bad_state = resealed(good, |bytes| bytes[336 + 2 * 5] |= 0x0F);
    let mut other = [0; FRAME_LEN];
    sample().encode(&Keyring::new(&[8; 32], &CLUSTER), &mut other);
    let mut foreign = CLUSTER;
    foreign[15] = 0;
    let errors = [
        (
            decoded(&good[..511]).unwrap_err(),
            HeadError::TooShort { len: 511 },
        ),
        (changed(0, 0), HeadError::NotOurs),
        (changed(4, 2), HeadError::Version { found: 2 }),
        (changed(7, 1), HeadError::Kind { found: 1 }),
        (changed(23, 0), HeadError::Foreign { cluster: foreign }),
        (changed(5, 65), HeadError::BadSender { found: 65 }),
        (decoded(&other).unwrap_err(), HeadError::BadTag),
    ];
    let errors = errors.map(|(found, expected)| (found, FrameError::Head(expected)));
    let newer = FrameError::BadTaskState { task: 5, found: 15 };
    let last = (decoded(&bad_state).unwrap_err(), newer);
    for (kind, (found, expected)) in errors.into_iter().chain([last]).enumerate() {
        assert_eq!(found, expected);
        assert_eq!(found.kind(), kind, "{}", FrameError::KINDS[kind]);
    }
}

#[test]
fn a_refused_frame_leaves_the_old_one_alone() {
    let mut frame = sample();
    let bad_state = resealed(encoded(&sample()), |bytes| {
        bytes[48] ^= 1;
        bytes[463] |= 0x0F;
        bytes[462] |= 0x0F;
    });
    assert!(frame.decode_into(&bad_state, &ring(), &CLUSTER).is_err());
    assert_eq!(frame, sample());
}

#[test]
fn a_relinked_frame_differs_in_its_link_only() {
    let mut bytes = encoded(&sample());
    relink(&mut bytes, 5, &ring());
    assert_eq!(
        decoded(&bytes).unwrap(),
        Frame {
            link: 5,
            ..sample()
        }
    );
    relink(&mut bytes, 2, &ring());
    assert_eq!(bytes, encoded(&sample()));
}

#[test]
fn padding_behind_a_frame_does_not_matter() {
    let mut bytes = encoded(&sample()).to_vec();
    bytes.extend_from_slice(&[0xAA; 100]);
    assert_eq!(decoded(&bytes).unwrap(), sample());
}

#[test]
fn what_a_later_sender_adds_in_zero_bytes_is_no_mistake() {
    let bytes = resealed(encoded(&sample()), |bytes| bytes[464..496].fill(9));
    assert_eq!(decoded(&bytes).unwrap(), sample());
}

#[test]
fn a_task_epoch_is_told_modulo_4096() {
    let report = TaskReport::new(TaskState::Released, 3 * 4096 + 17);
    assert_eq!(report.epoch, 17);
    assert!(report.is_for(3 * 4096 + 17));
    assert!(!report.is_for(3 * 4096 + 18));
}

#[test]
fn each_flag_is_this_bit_for_ever() {
    let named = [
        Flags::WANTS_IN,
        Flags::LEAVING,
        Flags::STANDBY,
        Flags::HOLDS_LEASE,
        Flags::ACTIVE,
        Flags::WATCHDOG,
        Flags::SERVICE_NETWORK_OK,
        Flags::STORAGE_OK,
        Flags::VOTES,
    ];
    assert_eq!(named.len(), Flags::NAMES.len());
    for (bit, (flag, name)) in named.into_iter().zip(Flags::NAMES).enumerate() {
        assert_eq!((flag.0, &*flag.to_string()), (1 << bit, name));
    }
}

#[test]
fn flags_print_their_names() {
    let flags = Flags::LEAVING.with(Flags::STORAGE_OK).with(Flags(1 << 12));
    assert_eq!(flags.to_string(), "leaving storage-ok bit-12");
    assert!(flags.contains(Flags::LEAVING) && !flags.contains(Flags::ACTIVE));
    assert_eq!(flags.with(Flags::LEAVING), flags);
    assert_eq!(
        flags.set(Flags::LEAVING, false),
        flags.without(Flags::LEAVING)
    );
}

fn any_task() -> impl Strategy<Value = TaskReport> {
    (0..8u8, 0..TaskReport::EPOCHS).prop_map(|(state, epoch)| TaskReport {
        state: TaskState::from_number(state).unwrap(),
        epoch,
    })
}

prop_compose! {
    fn any_frame()(
        (sender, link) in (1..=64u8, any::<u8>()),
        (boot, start) in (uniform16(any::<u8>()), any::<u32>()),
        (flags, fitness, sequence, epoch) in any::<(u16, u8, u64, u64)>(),
        (config_hash, config_revision) in (uniform8(any::<u8>()), any::<u32>()),
        heard in [uniform32(any::<u32>()), uniform32(any::<u32>())],
        tasks in [uniform32(any_task()), uniform32(any_task())],
    ) -> Frame {
        Frame {
            cluster: CLUSTER,
            sender: NodeId::new(sender).unwrap(),
            link,
            incarnation: Incarnation { boot, start },
            flags: Flags(flags),
            fitness,
            sequence,
            epoch,
            config_hash,
            config_revision,
            heard: heard.concat().try_into().unwrap(),
            tasks: tasks.concat().try_into().unwrap(),
        }
    }
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded(frame in any_frame()) {
        let bytes = encoded(&frame);
        prop_assert_eq!(&decoded(&bytes).unwrap(), &frame);
        let mut into = sample();
        into.decode_into(&bytes, &ring(), &CLUSTER).unwrap();
        prop_assert_eq!(into, frame);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1024)) {
        prop_assert!(decoded(&bytes).is_err());
    }

    #[test]
    fn arbitrary_bytes_with_a_true_tag_never_panic(
        body in proptest::collection::vec(any::<u8>(), FRAME_LEN),
    ) {
        let mut bytes: [u8; FRAME_LEN] = body.try_into().unwrap();
        bytes[..24].copy_from_slice(&encoded(&sample())[..24]);
        if let Ok(frame) = decoded(&resealed(bytes, |_| ())) {
            prop_assert_eq!(frame.sender, sample().sender);
        }
    }
}
