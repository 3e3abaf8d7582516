//! Real paths, as far as a machine without a SCSI disk has any.

use std::path::PathBuf;
use std::time::Instant;

use super::{PATIENCE, key};
use crate::storage::reservation::{
    Ask, Bounds, Disk, Fault, PathUnit, TakeError, Transport, Unit, take,
};

fn unit(paths: &[&str]) -> PathUnit {
    let disk = Disk {
        identity: None,
        paths: paths.iter().map(PathBuf::from).collect(),
        transport: Transport::Scsi,
    };
    PathUnit::open(&disk, PATIENCE)
}

#[test]
fn each_path_answers_for_itself_in_the_order_of_the_questions() {
    let mut unit = unit(&["/dev/null", "/dev/no-such-path"]);
    assert_eq!(
        (unit.paths(), unit.path_name(1)),
        (2, "no-such-path".to_owned())
    );
    let asks = [(1, Ask::Keys), (0, Ask::Keys), (0, Ask::Holder)];
    let answers = unit.round(&asks, PATIENCE);
    let [Err(absent), Err(keys), Err(holder)] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert!(matches!(absent, Fault::Path(_)), "{absent:?}");
    assert!(absent.to_string().contains("No such file"), "{absent}");
    for fault in [keys, holder] {
        assert!(matches!(fault, Fault::Unknown(_)), "{fault:?}");
    }
}

#[test]
fn what_speaks_no_scsi_is_refused_at_once() {
    let mut unit = unit(&["/dev/null"]);
    let asked = std::cell::Cell::new(0);
    let count = || {
        asked.set(asked.get() + 1);
        false
    };
    let bounds = Bounds {
        patience: PATIENCE,
        deadline: Instant::now() + 20 * PATIENCE,
        cancelled: &count,
    };
    let error = take(&mut unit, key(1, 7), None, bounds).unwrap_err();
    assert!(matches!(error, TakeError::Refused { .. }), "{error}");
    assert_eq!(asked.get(), 1, "after one look");
}
