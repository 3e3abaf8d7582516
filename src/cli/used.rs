//! What a disk holds before it is formatted, and whether that may go.

use std::path::Path;
use std::thread;
use std::time::Duration;

use standfast_sys::disk::{Finding, looks_used};

use super::context::{Loaded, device_failure};
use super::disk::content;
use super::exit::Failure;
use crate::link::AreaDisk;
use crate::storage::area::{AreaError, Blocks, Found, Geometry, survey};

/// How long a formatted disk is watched for somebody who writes to it, at least.
const WATCH_MIN: Duration = Duration::from_millis(500);

/// What a format would destroy.
pub(super) struct Used {
    /// Of the kernel: mounted, claimed, data.
    findings: Vec<Finding>,
    /// Where the area would be.
    found: Found,
    /// The area is this cluster's.
    own: bool,
}

impl Used {
    pub(super) fn look(
        disk: &AreaDisk,
        device: &Path,
        geometry: Geometry,
        loaded: &Loaded,
    ) -> Result<Used, Failure> {
        let failed = |error: &dyn std::error::Error| device_failure(error, device);
        let findings = looks_used(device).map_err(|error| failed(&error))?;
        let found = survey(disk, geometry.total()).map_err(|error| failed(&error))?;
        let id = hex(&loaded.config.cluster().id);
        let own = matches!(&found, Found::Area { cluster: Some(cluster) } if *cluster == id);
        Ok(Used {
            findings,
            found,
            own,
        })
    }

    /// In use by the kernel: no wish can make that right.
    fn busy(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| match finding {
            Finding::Mounted { .. } | Finding::Claimed | Finding::Held { .. } => true,
            Finding::Signature { .. } | Finding::Data { .. } => false,
        })
    }

    pub(super) fn refuse(
        &self,
        disk: &AreaDisk,
        device: &Path,
        geometry: Geometry,
        force: bool,
        loaded: &Loaded,
    ) -> Result<(), Failure> {
        let name = device.display();
        if let Some(finding) = self.busy() {
            return Err(Failure::refused(
                format!("{name} is in use on this machine: {finding}"),
                "check the device; if it is the right one, unmount or release it first. --force \
                 does not help against this",
            ));
        }
        if self.is_blank() {
            return Ok(());
        }
        if !force {
            let remedy = if self.own {
                "it is formatted already: nothing needs to be done. --force makes a new one; stop \
                 Standfast on all nodes first"
            } else {
                "check the device: its content would be lost. If it can go, add --force"
            };
            return Err(Failure::refused(
                format!("{name} is not empty: {}", self.words()),
                remedy,
            ));
        }
        let area = matches!(self.found, Found::Area { .. });
        let written =
            |area: &(&AreaDisk, Geometry)| are_written(std::slice::from_ref(area), loaded);
        if area && written(&(disk, geometry)).map_err(|e| device_failure(&e, device))? == [true] {
            return Err(Failure::refused(
                format!("{name} is the disk of a running cluster: somebody writes to it right now"),
                "stop Standfast on all nodes first. --force does not help against this",
            ));
        }
        Ok(())
    }

    fn is_blank(&self) -> bool {
        self.findings.is_empty() && self.found == Found::Blank
    }

    /// All that is known about it, for a person.
    pub(super) fn words(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        match &self.found {
            Found::Area { .. } if self.own => words.push("the disk area of this cluster".into()),
            Found::Area {
                cluster: Some(cluster),
            } => {
                words.push(format!("the disk area of another cluster, {cluster}"));
            }
            Found::Area { cluster: None } => {
                words.push("a disk area of Standfast with a damaged header".into());
            }
            Found::Blank | Found::Known { .. } | Found::Data { .. } => {}
        }
        let area = !words.is_empty();
        // Beside an area, data that nobody knows is the area itself.
        let told = |finding: &&Finding| !(area && matches!(finding, Finding::Data { .. }));
        words.extend(self.findings.iter().filter(told).map(ToString::to_string));
        if words.is_empty() {
            match content(&self.found) {
                Some(content) => words.push(content),
                None => return "empty".to_owned(),
            }
        }
        words.join("; ")
    }
}

/// Does an area change while one looks? Compares two reads of each some heartbeats apart.
pub(super) fn are_written(
    disks: &[(&AreaDisk, Geometry)],
    loaded: &Loaded,
) -> Result<Vec<bool>, AreaError> {
    let read = |&(disk, geometry): &(&AreaDisk, Geometry)| {
        let mut bytes = vec![0; geometry.total() as usize];
        let len = bytes.len();
        let read = disk.read_at(0, &mut bytes);
        read.map_err(|source| AreaError::Read {
            offset: 0,
            len,
            source,
        })?;
        Ok(bytes)
    };
    let before = disks
        .iter()
        .map(read)
        .collect::<Result<Vec<_>, AreaError>>()?;
    thread::sleep(WATCH_MIN.max(loaded.config.timing().suspect.to_std()));
    let after = disks.iter().map(read);
    let changed = before
        .iter()
        .zip(after)
        .map(|(before, after)| Ok(*before != after?));
    changed.collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
