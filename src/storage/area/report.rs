//! What `standfast disk show` tells about an area: for people and, as JSON, for programs.
//!
//! A report is made of whatever can be read; what cannot is named among its problems.

use serde::Serialize;

use crate::frame::tag::Keyring;
use crate::frame::{Frame, FrameError};
use crate::model::{ClusterId, Incarnation, NodeId, TaskIndex, TaskState};

use super::device::read;
use super::{
    AreaError, Blocks, Header, Medium, NewestBlock, REGION_LEN, Repair, SECTOR_LEN, SLOT_LEN, Side,
    StoredWords, decode_words, hex, newest_block, read_broken, read_header, read_record,
    split_region,
};

/// An area at the moment of reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AreaReport {
    /// Bytes of the disk.
    pub size_bytes: u64,
    /// The header, if there is a good one.
    pub header: Option<HeaderReport>,
    /// The record, where the register is changed by compare-and-write and ever was.
    pub record: Option<RecordReport>,
    /// Each node that has written anything, or whose slots are damaged, by rising id.
    pub nodes: Vec<NodeReport>,
    /// All that is wrong, in words. Empty on a sound area.
    pub problems: Vec<String>,
}

/// The header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeaderReport {
    /// Cluster id, in hexadecimal.
    pub cluster: String,
    /// Nonce of the format, in hexadecimal.
    pub nonce: String,
    /// Logical block size when the area was formatted, in bytes.
    pub block_size: u32,
    /// Highest node id that has a place.
    pub nodes_max: u8,
    /// Bytes of the area.
    pub area_bytes: u64,
    /// How the register is changed.
    pub register: Medium,
    /// Which of the register's disks this is, from 1.
    pub disk: usize,
    /// How many the register has.
    pub disks: usize,
}

/// The record that is changed by compare-and-write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecordReport {
    /// Number of the image.
    pub count: u64,
    /// Ballot in which the disk has accepted the value.
    pub bal: u64,
    /// Epoch of the value.
    pub value_epoch: u64,
    /// The node whose block holds the value.
    pub held_by: Option<NodeId>,
    /// The node that wrote the image.
    pub writer: NodeId,
}

/// What one node has written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeReport {
    /// The node.
    pub node: NodeId,
    /// Its latest frame.
    pub heartbeat: Option<HeartbeatReport>,
    /// Its register block.
    pub block: Option<BlockReport>,
    /// Why it reset itself, if it has, and was not heard on this disk since.
    pub last_words: Option<WordsReport>,
}

/// A node's latest frame on the disk. It is authentic; whether it is recent only two looks tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeartbeatReport {
    /// Boot id, in hexadecimal.
    pub boot: String,
    /// Start of the daemon within the boot.
    pub start: u32,
    /// Number of the frame.
    pub sequence: u64,
    /// Epoch of the view the node knew.
    pub epoch: u64,
    /// Flags, by name.
    pub flags: String,
    /// Fitness.
    pub fitness: u8,
    /// Revision of the configuration.
    pub config_revision: u32,
    /// Hash of the configuration, in hexadecimal.
    pub config_hash: String,
    /// Tasks that are not simply stopped, by index.
    pub tasks: Vec<(TaskIndex, TaskState)>,
}

/// A node's register block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BlockReport {
    /// Boot id of the writer, in hexadecimal.
    pub boot: String,
    /// Start of the daemon within the boot.
    pub start: u32,
    /// Writes counted.
    pub writes: u64,
    /// Highest ballot begun.
    pub mbal: u64,
    /// Highest ballot accepted.
    pub bal: u64,
    /// Epoch of the accepted value.
    pub value_epoch: u64,
    /// Bytes of the accepted value.
    pub value_bytes: usize,
    /// The copy that counts.
    pub copy: Side,
}

/// Why a node has reset itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WordsReport {
    /// Boot id of the boot that they ended, in hexadecimal.
    pub boot: String,
    /// Start of the daemon within the boot.
    pub start: u32,
    /// Why, in words.
    pub reason: &'static str,
    /// Epoch of the view the node knew.
    pub epoch: u64,
    /// Tasks that it could not let go of, by index.
    pub tasks: Vec<TaskIndex>,
    /// When, in milliseconds since 1970 on that node's wall clock, if it had one.
    pub wall_ms: Option<u64>,
}

/// Reads all of `dev` that says something. Fails only where the disk cannot be read.
pub fn show(
    dev: &impl Blocks,
    keyring: &Keyring,
    cluster: &ClusterId,
) -> Result<AreaReport, AreaError> {
    let mut report = AreaReport {
        size_bytes: dev.size(),
        header: None,
        record: None,
        nodes: Vec::new(),
        problems: Vec::new(),
    };
    let header = match read_header(dev, keyring, cluster) {
        Ok((header, repair)) => {
            report.problems.extend(repair_problem(repair));
            header
        }
        Err(AreaError::Header(error)) => {
            report.problems.push(format!("{error}; {}", error.help()));
            return Ok(report);
        }
        Err(error @ AreaError::TooSmall { .. }) => {
            report.problems.push(error.to_string());
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    report.header = Some(header_report(&header));
    if header.medium == Medium::CompareAndWrite {
        report.record = record_report(dev, &header, keyring, &mut report.problems)?;
        let broken = read_broken(dev, &header, keyring)?;
        report.problems.extend(broken.map(|broken| broken.words()));
    }
    let mut region = vec![0; REGION_LEN];
    for node in header.geometry.nodes() {
        let Some(offset) = header.geometry.region(node) else {
            continue;
        };
        read(dev, offset, &mut region)?;
        if region.iter().any(|byte| *byte != 0) {
            let node = node_report(&header, node, &region, keyring, &mut report.problems);
            report.nodes.push(node);
        }
    }
    Ok(report)
}

/// The record; what is wrong goes to `problems`.
fn record_report(
    dev: &impl Blocks,
    header: &Header,
    keyring: &Keyring,
    problems: &mut Vec<String>,
) -> Result<Option<RecordReport>, AreaError> {
    let (stored, value) = match read_record(dev, header, keyring)? {
        Ok(found) => found,
        Err(error) => {
            problems.push(format!("the register's record: {error}"));
            return Ok(None);
        }
    };
    let record = stored.record;
    let held_by = record.place.map(|place| place.node);
    if let (None, Some(node)) = (value, held_by) {
        problems.push(format!(
            "the register's record names a value of node {node} that is not there; a node that \
             knows it stores it anew"
        ));
    }
    Ok(stored.writer.map(|(writer, _)| RecordReport {
        count: record.count,
        bal: record.bal.0,
        value_epoch: record.epoch,
        held_by,
        writer,
    }))
}

/// One node's region, which is not blank; what is wrong goes to `problems`.
fn node_report(
    header: &Header,
    node: NodeId,
    region: &[u8],
    keyring: &Keyring,
    problems: &mut Vec<String>,
) -> NodeReport {
    let mut report = NodeReport {
        node,
        heartbeat: None,
        block: None,
        last_words: None,
    };
    let Some((heartbeat, copy_a, copy_b)) = split_region(region) else {
        return report;
    };
    let (frame, rest) = heartbeat.split_at(SECTOR_LEN);
    let (words, rest) = rest.split_at(SECTOR_LEN);
    match decode_words(&header.nonce, node, words, keyring) {
        Ok(words) => report.last_words = words.map(|words| words_report(&words)),
        Err(error) => problems.push(format!("last words of node {node}: {error}")),
    }
    // Last words may stand here without a frame: a node may fall before its first heartbeat.
    if frame.iter().chain(rest).any(|byte| *byte != 0) {
        match heartbeat_of(node, heartbeat, keyring, &header.cluster) {
            Ok(frame) => report.heartbeat = Some(heartbeat_report(&frame)),
            Err(problem) => problems.push(format!("heartbeat of node {node}: {problem}")),
        }
    }
    match newest_block(&header.nonce, node, copy_a, copy_b, keyring) {
        Ok(newest) => {
            if let Some(error) = newest.damaged {
                let side = newest.next;
                problems.push(format!(
                    "register block of node {node}, copy {side:?}: {error}"
                ));
            }
            report.block = newest
                .stored
                .writer
                .map(|writer| block_report(&newest, writer));
        }
        Err(lost) => problems.push(lost.to_string()),
    }
    report
}

/// The frame in a node's heartbeat slot, if it is that node's.
fn heartbeat_of(
    node: NodeId,
    slot: &[u8; SLOT_LEN],
    keyring: &Keyring,
    cluster: &ClusterId,
) -> Result<Frame, String> {
    let frame =
        Frame::decode(slot, keyring, cluster).map_err(|error: FrameError| error.to_string())?;
    if frame.sender != node {
        return Err(format!(
            "written by node {}: two nodes use one slot",
            frame.sender
        ));
    }
    Ok(frame)
}

fn repair_problem(repair: Repair) -> Option<String> {
    match repair {
        Repair::None => None,
        Repair::Rewrite(side, error) => Some(format!(
            "header copy {side:?}: {error}; the other copy is good and is used"
        )),
    }
}

fn header_report(header: &Header) -> HeaderReport {
    HeaderReport {
        cluster: hex(&header.cluster),
        nonce: hex(&header.nonce),
        block_size: header.block_size,
        nodes_max: header.geometry.nodes_max(),
        area_bytes: header.geometry.total(),
        register: header.medium,
        disk: header.position() + 1,
        disks: header.disks(),
    }
}

fn heartbeat_report(frame: &Frame) -> HeartbeatReport {
    let tasks = frame.tasks.iter().enumerate().filter_map(|(index, task)| {
        let told = task.state != TaskState::Stopped;
        TaskIndex::new(index)
            .filter(|_| told)
            .map(|index| (index, task.state))
    });
    HeartbeatReport {
        boot: hex(&frame.incarnation.boot),
        start: frame.incarnation.start,
        sequence: frame.sequence,
        epoch: frame.epoch,
        flags: frame.flags.to_string(),
        fitness: frame.fitness,
        config_revision: frame.config_revision,
        config_hash: hex(&frame.config_hash),
        tasks: tasks.collect(),
    }
}

fn words_report(stored: &StoredWords) -> WordsReport {
    let words = &stored.words;
    let tasks = (0..u64::BITS as usize).filter(|task| words.tasks >> task & 1 != 0);
    WordsReport {
        boot: hex(&words.boot),
        start: stored.start,
        reason: words.reason.words(),
        epoch: words.epoch,
        tasks: tasks.filter_map(TaskIndex::new).collect(),
        wall_ms: (stored.wall_ms > 0).then_some(stored.wall_ms),
    }
}

fn block_report(newest: &NewestBlock, writer: Incarnation) -> BlockReport {
    let block = &newest.stored.block;
    BlockReport {
        boot: hex(&writer.boot),
        start: writer.start,
        writes: block.writes,
        mbal: block.mbal.0,
        bal: block.bal.0,
        value_epoch: block.value.epoch,
        value_bytes: block.value.bytes.len(),
        copy: newest.next.other(),
    }
}
