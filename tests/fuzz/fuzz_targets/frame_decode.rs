//! Frames: whatever arrives is refused or decodes; what decodes encodes to a frame that says the
//! same. As no fuzzer guesses a tag, each input is tried as it is and with a true tag.
#![no_main]

use libfuzzer_sys::fuzz_target;
use standfast::frame::{FRAME_LEN, Frame, Keyring, relink};
use standfast::model::{ClusterId, NodeId};

const CLUSTER: ClusterId = *b"cluster-for-fuzz";

fuzz_target!(|data: &[u8]| {
    let keyring = Keyring::new(&[7; 32], &CLUSTER);
    let _ = Frame::decode(data, &keyring, &CLUSTER);

    let mut bytes = [0; FRAME_LEN];
    let len = data.len().min(FRAME_LEN);
    bytes[..len].copy_from_slice(&data[..len]);
    bytes[..5].copy_from_slice(b"STF1\x01");
    bytes[8..24].copy_from_slice(&CLUSTER);
    if NodeId::new(bytes[5]).is_none() {
        return;
    }
    let link = bytes[6];
    relink(&mut bytes, link, &keyring);
    if let Ok(frame) = Frame::decode(&bytes, &keyring, &CLUSTER) {
        let mut again = [0; FRAME_LEN];
        frame.encode(&keyring, &mut again);
        assert_eq!(Frame::decode(&again, &keyring, &CLUSTER), Ok(frame));
    }
});
