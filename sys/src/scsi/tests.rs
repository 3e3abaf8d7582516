//! Commands as sg3_utils 1.47 sends them (what its programs print with `-vvv`), answers as SPC lays
//! them out, and every kind of trouble told apart.

use std::path::Path;
use std::time::Duration;

use super::sgio::{Answer, judge};
use super::*;

const OWN: u64 = 0x4843_beef_0500_0007;
const VICTIM: u64 = 0x4843_beef_0200_0006;
const WERO: ReservationType = ReservationType::WriteExclusiveRegistrantsOnly;

/// `5f 05 05 ...` as bytes.
fn hex(text: &str) -> Vec<u8> {
    let byte = |word: &str| u8::from_str_radix(word, 16).expect("two digits");
    text.split_whitespace().map(byte).collect()
}

fn assert_sent(cdb: Cdb, golden: &str) {
    assert_eq!(cdb.bytes(), hex(golden), "{}", cdb.name());
}

#[test]
fn commands_are_those_of_sg3_utils() {
    // sg_turs; sg_inq, sg_inq --page=0x83
    assert_sent(Cdb::test_unit_ready(), "00 00 00 00 00 00");
    assert_sent(Cdb::inquiry(None, 0x24), "12 00 00 00 24 00");
    assert_sent(Cdb::inquiry(Some(0x00), 0xfc), "12 01 00 00 fc 00");
    assert_sent(Cdb::inquiry(Some(0x80), 0xfc), "12 01 80 00 fc 00");
    assert_sent(Cdb::inquiry(Some(0x83), 0xfc), "12 01 83 00 fc 00");
    assert_sent(Cdb::inquiry(Some(0xb0), 0xfc), "12 01 b0 00 fc 00");
    // sg_readcap --16
    let capacity = "9e 10 00 00 00 00 00 00 00 00 00 00 00 20 00 00";
    assert_sent(Cdb::read_capacity(32), capacity);
    // sg_sync --lba=0x123 --count=8; --16 --lba=0x123456789 --count=8
    let near = Extent {
        block: 0x123,
        blocks: 8,
    };
    let far = Extent {
        block: 0x1_2345_6789,
        blocks: 8,
    };
    assert_sent(Cdb::synchronize(near), "35 00 00 00 01 23 00 00 08 00");
    let synchronize = "91 00 00 00 00 01 23 45 67 89 00 00 00 08 00 00";
    assert_sent(Cdb::synchronize(far), synchronize);
    // sg_compare_and_write --fua --lba=0x1122 --num=1
    let compare = "89 08 00 00 00 00 00 00 11 22 00 00 00 01 00 00";
    assert_sent(Cdb::compare_and_write(0x1122, 1), compare);
    // sg_write_x --16 --normal --fua --lba=0x123456789 --num=8
    let write = "8a 08 00 00 00 01 23 45 67 89 00 00 00 08 00 00";
    assert_sent(Cdb::write(far), write);
    let plain = "8a 00 00 00 00 01 23 45 67 89 00 00 00 08 00 00";
    assert_sent(Cdb::write(far).without_fua(), plain);
    let read = "88 08 00 00 00 01 23 45 67 89 00 00 00 08 00 00";
    assert_sent(Cdb::read(far), read);
}

#[test]
fn reservation_commands_are_those_of_sg_persist() {
    for (service, golden) in [
        (ServiceIn::ReadKeys, "5e 00 00 00 00 00 00 20 00 00"),
        (ServiceIn::ReadReservation, "5e 01 00 00 00 00 00 20 00 00"),
        (
            ServiceIn::ReportCapabilities,
            "5e 02 00 00 00 00 00 20 00 00",
        ),
        (ServiceIn::ReadFullStatus, "5e 03 00 00 00 00 00 20 00 00"),
    ] {
        assert_sent(Cdb::reserve_in(service, 0x2000), golden);
    }
    for (action, golden) in [
        (Action::Register, "5f 00 00 00 00 00 00 00 18 00"),
        (Action::Reserve, "5f 01 05 00 00 00 00 00 18 00"),
        (Action::Release, "5f 02 05 00 00 00 00 00 18 00"),
        (Action::Clear, "5f 03 00 00 00 00 00 00 18 00"),
        (Action::Preempt, "5f 04 05 00 00 00 00 00 18 00"),
        (Action::PreemptAndAbort, "5f 05 05 00 00 00 00 00 18 00"),
        (Action::RegisterAndIgnore, "5f 06 00 00 00 00 00 00 18 00"),
    ] {
        assert_sent(Cdb::reserve_out(action, WERO), golden);
    }
}

#[test]
fn reservation_parameters_are_those_of_sg_persist() {
    let sent = |own, other, outlives_power| {
        let parameters = OutParameters {
            own,
            other,
            outlives_power,
        };
        parameters.encode().to_vec()
    };
    // --register-ignore --param-sark=... --param-aptpl
    let golden = "00 00 00 00 00 00 00 00 48 43 be ef 05 00 00 07 00 00 00 00 01 00 00 00";
    assert_eq!(sent(0, OWN, true), hex(golden));
    // --preempt-abort --param-rk=... --param-sark=...
    let golden = "48 43 be ef 05 00 00 07 48 43 be ef 02 00 00 06 00 00 00 00 00 00 00 00";
    assert_eq!(sent(OWN, VICTIM, false), hex(golden));
    // --reserve --param-rk=...
    let golden = "48 43 be ef 05 00 00 07 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00";
    assert_eq!(sent(OWN, 0, false), hex(golden));
}

#[test]
fn keys_are_read_one_for_each_path() {
    let two = "00 00 00 09 00 00 00 10 48 43 be ef 05 00 00 07 48 43 be ef 05 00 00 07";
    let keys = decode_keys(&hex(two)).unwrap();
    assert_eq!((keys.generation, keys.keys), (9, vec![OWN, OWN]));
    let none = decode_keys(&hex("00 00 00 00 00 00 00 00")).unwrap();
    assert_eq!((none.generation, none.keys), (0, vec![]));
    for length in 0..hex(two).len() {
        let cut = &hex(two)[..length];
        assert_eq!(decode_keys(cut), None, "a list cut at {length} is no list");
    }
}

#[test]
fn the_reservation_is_read_with_its_type() {
    let held = "00 00 00 09 00 00 00 10 48 43 be ef 05 00 00 07 00 00 00 00 00 05 00 00";
    let holder = decode_reservation(&hex(held)).unwrap().unwrap();
    assert_eq!((holder.generation, holder.key, holder.kind), (9, OWN, WERO));
    assert_eq!(
        decode_reservation(&hex("00 00 00 09 00 00 00 00")),
        Some(None)
    );
    assert_eq!(decode_reservation(&hex(held)[..21]), None);
    for number in [1, 3, 5, 6, 7, 8, 2, 15] {
        assert_eq!(ReservationType::new(number).number(), number);
    }
}

#[test]
fn capabilities_are_read() {
    // LIO: CRH, SIP_C, ATP_C, PTPL_C; TMV; all six types.
    let told = decode_capabilities(&hex("00 08 1d 80 ea 01 00 00")).unwrap();
    assert!(told.can_outlive_power && !told.outlives_power);
    assert!(told.all_target_ports && told.other_initiators);
    for number in [1, 3, 5, 6, 7, 8] {
        assert!(told.has(ReservationType::new(number)), "{number}");
    }
    let active = decode_capabilities(&hex("00 08 01 81 02 00 00 00")).unwrap();
    assert!(active.outlives_power && !active.has(WERO));
    let untold = decode_capabilities(&hex("00 08 01 00 00 00 00 00")).unwrap();
    assert!(untold.has(WERO), "a unit that does not tell may know it");
    assert_eq!(decode_capabilities(&hex("00 08 01 00 00")), None);
}

#[test]
fn the_full_status_names_every_path() {
    let mut data = hex("00 00 00 0a 00 00 00 00");
    // A Fibre Channel initiator that holds it, and an iSCSI one that does not.
    data.extend(hex(
        "48 43 be ef 05 00 00 07 00 00 00 00 01 05 00 00 00 00 00 01",
    ));
    data.extend(hex(
        "00 00 00 18 00 00 00 00 00 00 00 00 21 00 00 24 ff 3a 0b 11",
    ));
    data.extend(hex("00 00 00 00 00 00 00 00"));
    data.extend(hex(
        "48 43 be ef 02 00 00 06 00 00 00 00 00 00 00 00 00 00 00 02",
    ));
    data.extend(hex("00 00 00 0c 05 00 00 08"));
    data.extend(b"iqn.a:b\0");
    let length = (data.len() - 8) as u8;
    data[7] = length;
    let list = decode_full_status(&data).unwrap();
    let [first, second] = &list.registrants[..] else {
        panic!("{list:?}");
    };
    assert_eq!(list.generation, 10);
    assert_eq!(
        (first.key, first.holds, first.target_port),
        (OWN, Some(WERO), 1)
    );
    assert_eq!(first.initiator_words(), "21000024ff3a0b11");
    assert_eq!(
        (second.key, second.holds, second.target_port),
        (VICTIM, None, 2)
    );
    assert_eq!(second.initiator_words(), "iqn.a:b");
    for length in 0..data.len() {
        assert_eq!(decode_full_status(&data[..length]), None, "cut at {length}");
    }
    data[31] = 0xff;
    assert_eq!(decode_full_status(&data), None, "longer than the list");
}

#[test]
fn names_are_read_and_the_lasting_one_is_preferred() {
    let naa6 = "01 03 00 10 60 01 40 5a bc de f0 12 34 56 78 9a bc de f0 12";
    let naa5 = "01 03 00 08 50 01 43 80 01 23 45 67";
    let port = "61 93 00 08 50 01 43 80 99 99 99 99";
    let eui = "01 02 00 08 00 25 38 5a 81 b0 01 02";
    let t10 = "02 01 00 0c 4c 49 4f 2d 4f 52 47 20 64 61 74 61";
    let read = |designators: &[&str]| {
        let body: Vec<u8> = designators.iter().flat_map(|one| hex(one)).collect();
        let mut data = vec![0, 0x83, 0, body.len() as u8];
        data.extend(body);
        decode_identities(&data).unwrap()
    };
    let all = read(&[t10, eui, port, naa5, naa6]);
    let texts: Vec<&str> = all.iter().map(Identity::as_str).collect();
    assert_eq!(
        texts,
        [
            "t10.LIO-ORG_data",
            "eui.0025385a81b00102",
            "naa.5001438001234567",
            "naa.6001405abcdef0123456789abcdef012",
        ],
        "the port's name is not the unit's"
    );
    let preferred =
        |designators: &[&str]| preferred_identity(&read(designators)).unwrap().to_string();
    assert_eq!(preferred(&[t10, naa5, naa6, eui]), texts[3]);
    assert_eq!(preferred(&[t10, eui, naa5]), texts[2]);
    assert_eq!(preferred(&[t10, eui]), texts[1]);
    assert_eq!(preferred(&[t10]), texts[0]);
    assert_eq!(preferred_identity(&read(&[port])), None);
    assert_eq!(decode_identities(&hex("00 80 00 00")), None, "another page");
    for identity in &all {
        assert_eq!(identity.as_str().parse().as_ref(), Ok(identity));
    }
}

#[test]
fn an_identity_is_read_in_either_case_and_nonsense_is_refused() {
    let read = |text: &str| text.parse::<Identity>().ok().map(|known| known.to_string());
    assert_eq!(
        read("naa.6001405ABCDEF0123456789ABCDEF012").as_deref(),
        Some("naa.6001405abcdef0123456789abcdef012")
    );
    for wrong in [
        "",
        "naa.",
        "naa.60014",
        "naa.xyz",
        "6001405abcdef012",
        "t10.a b",
        "wwn.12",
    ] {
        assert_eq!(read(wrong), None, "{wrong}");
    }
}

#[test]
fn devices_and_sizes_are_read() {
    let mut data = vec![0; 96];
    data[8..36].copy_from_slice(b"LIO-ORG data            4.0 ");
    let standard = decode_standard(&data).unwrap();
    let Standard {
        device_type,
        connected,
        vendor,
        product,
        revision,
    } = standard;
    assert!(connected && device_type == 0);
    assert_eq!([vendor, product, revision], ["LIO-ORG", "data", "4.0"]);
    assert_eq!(
        decode_pages(&hex("00 00 00 03 00 80 83")),
        Some(hex("00 80 83"))
    );
    let serial = decode_serial(&hex("00 80 00 04 61 62 63 20"));
    assert_eq!(serial.as_deref(), Some("abc"));
    let mut limits = hex("00 b0 00 3c 00 01 00 00 00 00 20 00");
    let told = decode_block_limits(&limits).unwrap();
    assert_eq!(
        (told.compare_and_write_blocks, told.transfer_blocks),
        (1, 0x2000)
    );
    limits.truncate(5);
    assert_eq!(decode_block_limits(&limits), None);
    let capacity = Capacity::decode(&hex("00 00 00 00 00 01 ff ff 00 00 02 00 00 03")).unwrap();
    assert_eq!(capacity.blocks, 131_072);
    assert_eq!((capacity.block_bytes, capacity.physical_exponent), (512, 3));
    assert_eq!(Capacity::decode(&[0xff; 12]), None, "no number of blocks");
}

/// Fixed and descriptor format, both with an information field.
const MISCOMPARE_FIXED: &str = "f0 00 0e 00 00 00 05 0a 00 00 00 00 1d 00 00 00 00 00";
const MISCOMPARE_DESCRIBED: &str = "72 0e 1d 00 00 00 00 0c 00 0a 80 00 00 00 00 00 00 00 00 05";

#[test]
fn sense_is_read_in_both_formats() {
    for text in [MISCOMPARE_FIXED, MISCOMPARE_DESCRIBED] {
        let sense = Sense::decode(&hex(text)).unwrap();
        assert_eq!(sense.key, SenseKey::Miscompare);
        assert_eq!((sense.asc, sense.ascq), (0x1d, 0));
        assert_eq!(sense.information, Some(5));
        assert_eq!(
            sense.to_string(),
            "miscompare e/1d/00, miscompare during verify operation"
        );
    }
    let preempted = Sense::decode(&hex("70 00 06 00 00 00 00 0a 00 00 00 00 2a 05")).unwrap();
    assert!(preempted.was_not_begun());
    assert_eq!(preempted.information, None);
    let words = "unit attention 6/2a/05, registrations preempted";
    assert_eq!(preempted.to_string(), words);
    let deferred = Sense::decode(&hex("71 00 01 00 00 00 00 00")).unwrap();
    assert!(deferred.was_not_begun() && !deferred.is_success());
    let unknown = Sense::decode(&hex("72 05 20 00 00 00 00 00")).unwrap();
    assert!(unknown.is_unknown_command());
    assert_eq!(Sense::decode(&[]), None);
    assert_eq!(Sense::decode(&hex("7f 00 00 00")), None);
    for length in 0..hex(MISCOMPARE_DESCRIBED).len() {
        let _ = Sense::decode(&hex(MISCOMPARE_DESCRIBED)[..length]);
    }
}

#[test]
fn every_kind_of_trouble_is_told_apart() {
    let said = |status, host, driver| Answer {
        status,
        host,
        driver,
        duration_ms: 7,
    };
    let told = |answer| judge(answer, &[], 1_000);
    assert!(told(said(0, 0, 0)).is_none());
    // Kernels before 6.1 set DID_NEXUS_FAILURE beside the status.
    assert!(matches!(told(said(0x18, 0x11, 0)), Some(Fault::Conflict)));
    assert!(matches!(told(said(0x18, 0, 0)), Some(Fault::Conflict)));
    assert!(matches!(told(said(0x08, 0, 0)), Some(Fault::Busy)));
    assert!(matches!(told(said(0x28, 0, 0)), Some(Fault::QueueFull)));
    assert!(matches!(told(said(0x40, 0, 0)), Some(Fault::Aborted)));
    assert!(matches!(told(said(0x30, 0, 0)), Some(Fault::Status(0x30))));
    assert!(matches!(
        told(said(0, 3, 0)),
        Some(Fault::TimedOut { ms: 7 })
    ));
    assert!(matches!(told(said(0, 0, 6)), Some(Fault::TimedOut { .. })));
    let gone = Fault::Transport { host: 1, driver: 0 };
    assert_eq!(gone.to_string(), "the path failed (DID_NO_CONNECT)");
    let failed = told(said(0, 1, 0));
    assert!(
        matches!(failed, Some(Fault::Transport { host: 1, .. })),
        "{failed:?}"
    );
    let ended = told(said(0, 5, 0));
    assert!(
        matches!(ended, Some(Fault::Transport { host: 5, .. })),
        "{ended:?}"
    );
    let late = judge(said(0, 5, 0), &[], 5);
    assert!(
        matches!(late, Some(Fault::TimedOut { .. })),
        "aborted at its time: {late:?}"
    );
    let check = |text| judge(said(2, 0, 8), &hex(text), 1_000);
    assert!(matches!(
        check(MISCOMPARE_FIXED),
        Some(Fault::Check(Sense {
            key: SenseKey::Miscompare,
            ..
        }))
    ));
    let recovered = check("70 00 01 00 00 00 00 0a 00 00 00 00 17 00");
    assert!(
        recovered.is_none(),
        "done, after a correction: {recovered:?}"
    );
    assert!(
        matches!(check(""), Some(Fault::Status(2))),
        "no sense at all"
    );
}

#[test]
fn attentions_are_heard_out_and_never_taken_for_an_answer() {
    let sense = |text: &str| Fault::Check(Sense::decode(&hex(text)).unwrap());
    let preempted = "72 06 2a 05 00 00 00 00";
    let answer = |attentions: usize, last: fn() -> Result<u8, Fault>| {
        let mut sent = 0;
        let answer = attended(|| {
            sent += 1;
            if sent > attentions {
                last()
            } else {
                Err(sense(preempted))
            }
        });
        (sent, answer)
    };
    let (sent, done) = answer(5, || Ok(7));
    assert_eq!((sent, done.ok()), (6, Some(7)));
    let (sent, refused) = answer(2, || Err(Fault::Conflict));
    assert!(matches!((sent, refused), (3, Err(Fault::Conflict))));
    let (sent, failed) = answer(0, || Err(Fault::Busy));
    assert!(matches!((sent, failed), (1, Err(Fault::Busy))));
    let (sent, endless) = answer(usize::MAX, || Ok(0));
    assert_eq!(sent, ATTENTIONS_MAX + 1);
    assert!(matches!(endless, Err(Fault::Check(_))));
}

#[test]
fn what_speaks_no_scsi_says_so() {
    let device = ScsiPath::open(Path::new("/dev/null")).unwrap();
    let error = device.test_unit_ready(Duration::from_secs(1)).unwrap_err();
    let Fault::Kernel(source) = error.fault() else {
        panic!("{error:?}");
    };
    assert_eq!(source.raw_os_error(), Some(libc::ENOTTY));
    assert_eq!(error.to_string(), "TEST UNIT READY by /dev/null");
    let absent = ScsiPath::open(Path::new("/dev/absent")).unwrap_err();
    assert_eq!(absent.errno(), Some(libc::ENOENT));
}
