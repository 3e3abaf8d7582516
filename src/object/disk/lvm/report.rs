//! What `pvs --reportformat json` tells of a group: pure.

use std::path::PathBuf;

use serde::Deserialize;

use super::error::GroupError;
use super::names::is_name;

/// The columns that are asked for.
pub(super) const COLUMNS: &str =
    "pv_name,vg_name,vg_uuid,vg_systemid,vg_exported,vg_lock_type,vg_autoactivation,pv_missing";

/// A group, as its own disks tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// Its name.
    pub(super) group: String,
    /// Where its physical volumes are, in the order of their names.
    pub(super) devices: Vec<PathBuf>,
    /// How many more it has.
    pub(super) missing: usize,
    /// Which system may use it; empty if any may.
    pub(super) system: String,
    /// Taken out of use by vgexport(8).
    pub(super) exported: bool,
    /// Which lock manager it is shared under; empty if none.
    pub(super) lock: String,
    /// May be activated when its disks appear, such as at boot.
    pub(super) autoactivated: bool,
}

#[derive(Deserialize)]
struct Document {
    report: Vec<Section>,
}

#[derive(Deserialize)]
struct Section {
    #[serde(default)]
    pv: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    pv_name: String,
    vg_name: String,
    vg_uuid: String,
    vg_systemid: String,
    vg_exported: String,
    vg_lock_type: String,
    vg_autoactivation: String,
    pv_missing: String,
}

impl Report {
    /// Reads what is told of the group of this name.
    pub(super) fn read(group: &str, text: &str) -> Result<Report, GroupError> {
        let document: Document = serde_json::from_str(text).map_err(GroupError::Report)?;
        let rows = document.report.into_iter().flat_map(|section| section.pv);
        let rows: Vec<Row> = rows.filter(|row| row.vg_name == group).collect();
        let named = || group.to_owned();
        let Some(first) = rows.first() else {
            return Err(GroupError::NotFound { group: named() });
        };
        if rows.iter().any(|row| row.vg_uuid != first.vg_uuid) {
            return Err(GroupError::Twice { group: named() });
        }
        let there = rows.iter().filter(|row| row.pv_missing.is_empty());
        let mut devices: Vec<PathBuf> = there.map(|row| PathBuf::from(&row.pv_name)).collect();
        devices.sort();
        Ok(Report {
            group: named(),
            missing: rows.len() - devices.len(),
            devices,
            system: first.vg_systemid.clone(),
            exported: !first.vg_exported.is_empty(),
            lock: first.vg_lock_type.clone(),
            autoactivated: !first.vg_autoactivation.is_empty(),
        })
    }

    /// Can it be taken over by who owns its disks?
    pub(super) fn check(&self) -> Result<(), GroupError> {
        let group = self.group.clone();
        if self.missing > 0 {
            let count = self.missing;
            return Err(GroupError::Missing { group, count });
        }
        if self.exported {
            return Err(GroupError::Exported { group });
        }
        if !self.lock.is_empty() && self.lock != "none" {
            let lock = self.lock.clone();
            return Err(GroupError::Shared { group, lock });
        }
        // It goes into a command line.
        if !self.system.is_empty() && !is_name(&self.system) {
            let system = self.system.clone();
            return Err(GroupError::StrangeSystem { group, system });
        }
        Ok(())
    }
}

/// The system id that `lvm systemid` tells; none if this node has none.
pub(super) fn system_id(text: &str) -> Option<String> {
    let id = text.trim().strip_prefix("system ID:")?.trim();
    is_name(id).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What lvm2 2.03.16 prints, with a physical volume that is not there.
    const TOLD: &str = r#"
  {
      "report": [
          {
              "pv": [
                  {"pv_name":"/dev/sdc", "vg_name":"vg0", "vg_uuid":"eFgu-1", "vg_systemid":"n1",
                   "vg_exported":"", "vg_lock_type":"", "vg_autoactivation":"enabled",
                   "pv_missing":""},
                  {"pv_name":"/dev/sda", "vg_name":"", "vg_uuid":"", "vg_systemid":"",
                   "vg_exported":"", "vg_lock_type":"", "vg_autoactivation":"",
                   "pv_missing":""},
                  {"pv_name":"[unknown]", "vg_name":"vg0", "vg_uuid":"eFgu-1", "vg_systemid":"n1",
                   "vg_exported":"", "vg_lock_type":"", "vg_autoactivation":"enabled",
                   "pv_missing":"missing"},
                  {"pv_name":"/dev/sdb", "vg_name":"vg0", "vg_uuid":"eFgu-1", "vg_systemid":"n1",
                   "vg_exported":"", "vg_lock_type":"", "vg_autoactivation":"enabled",
                   "pv_missing":""}
              ]
          }
      ]
  }"#;

    #[test]
    fn a_group_is_read_from_the_rows_of_its_physical_volumes() {
        let report = Report::read("vg0", TOLD).unwrap();
        let devices = ["/dev/sdb", "/dev/sdc"].map(PathBuf::from).to_vec();
        let expected = Report {
            group: "vg0".to_owned(),
            devices,
            missing: 1,
            system: "n1".to_owned(),
            exported: false,
            lock: String::new(),
            autoactivated: true,
        };
        assert_eq!(report, expected);
    }

    #[test]
    fn what_is_no_report_of_the_group_is_named() {
        let error = |group: &str, text: &str| Report::read(group, text).unwrap_err();
        assert!(matches!(
            error("vg1", TOLD),
            GroupError::NotFound { group } if group == "vg1"
        ));
        let two = TOLD.replacen("eFgu-1", "eFgu-2", 1);
        assert!(matches!(error("vg0", &two), GroupError::Twice { .. }));
        assert!(matches!(error("vg0", ""), GroupError::Report(_)));
        assert!(matches!(error("vg0", "{}"), GroupError::Report(_)));
        let empty = r#"{"report": [{"log": []}]}"#;
        assert!(matches!(error("vg0", empty), GroupError::NotFound { .. }));
    }

    #[test]
    fn a_group_that_cannot_be_taken_over_is_refused_with_the_reason() {
        let refused = |text: &str| {
            let checked = Report::read("vg0", text).unwrap().check();
            checked.err().map(|error| error.to_string())
        };
        let whole = TOLD.replace("[unknown]", "/dev/sdd");
        let whole = whole.replace(r#""pv_missing":"missing""#, r#""pv_missing":"""#);
        assert_eq!(refused(&whole), None);
        assert!(refused(TOLD).unwrap().contains("1 of its physical volumes"));
        let with = |from: &str, to: &str| refused(&whole.replace(from, to)).unwrap();
        assert!(
            with(r#""vg_exported":"""#, r#""vg_exported":"exported""#).contains("vgimport vg0")
        );
        let shared = with(r#""vg_lock_type":"""#, r#""vg_lock_type":"sanlock""#);
        assert!(shared.contains("sanlock"), "{shared}");
        assert!(with(r#""n1""#, r#""n1\"]""#).contains("system id"));
    }

    #[test]
    fn a_node_may_have_a_system_id_or_none() {
        assert_eq!(system_id("  system ID: n1\n"), Some("n1".to_owned()));
        for none in ["  system ID: \n", "", "  system ID: a b\n"] {
            assert_eq!(system_id(none), None, "{none}");
        }
    }
}
