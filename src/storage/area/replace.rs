//! A new disk in the place of a dead one of three, while no node runs.
//!
//! An empty disk would be a danger: with it a majority could be one disk that holds nothing and one
//! that missed the last change, and what the dead disk and the other living one had agreed on would
//! be gone. So the new one is filled before it counts.
//!
//! ```text
//! new disk      blank, then of each node the newest block of the two living, without a header
//! living disk   header with the new roster, copy B, then copy A
//! living disk   the same
//! new disk      header
//! ```
//!
//! Why nothing that counts is lost. A node takes a ballot as begun, or a value as accepted, when
//! its block says so on two of the three disks. Of any two at least one is living, so the newer of
//! the two living blocks says so as well; and so does the new disk. From then on any two disks hold
//! one that says so: both living ones do as before, and the new one does by itself.
//!
//! Why nothing is invented. A node writes a block to a disk only when it may to all three. The new
//! disk holds ballot by ballot the highest that the node itself wrote, which is what a disk would
//! hold that got these writes and no other. A ballot that was begun on fewer than two only makes
//! others choose a higher one.
//!
//! Why the dead disk, if it comes back, harms nobody. A disk counts only together with another that
//! has the same roster. After the first living header is changed the old roster is on one living
//! disk and at most the dead one: they may go on, and hold all that counted, for the third holds
//! nothing that they do not. After the second the old roster is on no disk but the dead one, and
//! the new one on two that hold everything. What an interruption leaves is told by [`third`]: each
//! of the two living names the other, so neither was replaced, and it can all be done again.
//!
//! All this needs that no node writes meanwhile. That nobody writes to the living disks can be
//! seen, and the caller looks. A node that ran all the same, without reaching them, knows the old
//! roster and refuses the living disks when it opens them again; the dead one alone is no majority.

use crate::frame::tag::Keyring;
use crate::model::NodeId;

use super::device::{make_blank, read, write_headers, write_slot};
use super::{
    AreaError, AreaNonce, Blocks, Header, REGION_LEN, SLOT_LEN, Side, Slot, StoredBlock,
    encode_block, newest_block, split_region, third,
};

/// Makes `dev` the third disk of the register that `living`, two disks with their headers, are of.
/// `nonce` is new, `block_size` is the new disk's. Destroys what `dev` held.
///
/// # Errors
///
/// [`AreaError::Strangers`] if the two are not of one register, [`AreaError::Lost`] if one of them
/// has a block that cannot be read; then nothing was written. Otherwise a transfer has failed, and
/// it can be done again.
pub fn replace(
    dev: &impl Blocks,
    (nonce, block_size): (AreaNonce, u32),
    living: [(&impl Blocks, &Header); 2],
    keyring: &Keyring,
) -> Result<Header, AreaError> {
    let [(one, first), (two, second)] = living;
    let position = third(first, second).ok_or(AreaError::Strangers)?;
    let roster = first.roster.and_then(|roster| roster.with(position, nonce));
    let roster = Some(roster.ok_or(AreaError::Strangers)?);
    let header = Header {
        nonce,
        block_size,
        roster,
        ..*first
    };
    let mut blocks = Vec::new();
    for node in header.geometry.nodes() {
        let stored = newer(
            stored_block(one, first, node, keyring)?,
            stored_block(two, second, node, keyring)?,
        );
        blocks.push((node, stored));
    }
    make_blank(dev, &header)?;
    for (node, stored) in blocks {
        write_block(dev, &header, (node, stored), keyring)?;
    }
    write_headers(one, &Header { roster, ..*first }, keyring)?;
    write_headers(two, &Header { roster, ..*second }, keyring)?;
    write_headers(dev, &header, keyring)?;
    Ok(header)
}

/// A node's block on a living disk.
fn stored_block(
    dev: &impl Blocks,
    header: &Header,
    node: NodeId,
    keyring: &Keyring,
) -> Result<StoredBlock, AreaError> {
    let region = header.geometry.region(node).expect("a node with a place");
    let mut bytes = vec![0; REGION_LEN];
    read(dev, region, &mut bytes)?;
    let (_, a, b) = split_region(&bytes).expect("a region has three slots");
    let newest = newest_block(&header.nonce, node, a, b, keyring)?;
    Ok(newest.stored)
}

/// Ballot by ballot the highest of both, for neither need have both.
fn newer(one: StoredBlock, two: StoredBlock) -> StoredBlock {
    let (mut newer, older) = if one.block.writes >= two.block.writes {
        (one, two)
    } else {
        (two, one)
    };
    let block = &mut newer.block;
    block.mbal = block.mbal.max(older.block.mbal);
    if older.block.bal > block.bal {
        (block.bal, block.value) = (older.block.bal, older.block.value);
    }
    newer
}

fn write_block(
    dev: &impl Blocks,
    header: &Header,
    (node, stored): (NodeId, StoredBlock),
    keyring: &Keyring,
) -> Result<(), AreaError> {
    let Some(writer) = stored.writer else {
        return Ok(());
    };
    let mut slot: Slot = [0; SLOT_LEN];
    let place = (node, Side::A);
    encode_block(
        &header.nonce,
        place,
        &stored.block,
        writer,
        keyring,
        &mut slot,
    );
    let offset = header.geometry.block(node, Side::A);
    write_slot(dev, offset.expect("a node with a place"), &slot)
}
