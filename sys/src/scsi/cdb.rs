//! Commands as bytes (SPC-4 6, SBC-3 5).

use super::reservation::{Action, OUT_BYTES, ReservationType, ServiceIn};

/// FUA: not from the cache, nor only into it.
const FUA: u8 = 1 << 3;

/// A command descriptor block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cdb {
    name: &'static str,
    bytes: [u8; 16],
    length: u8,
}

/// Blocks in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first.
    pub block: u64,
    /// How many.
    pub blocks: u32,
}

impl Cdb {
    fn new<const LENGTH: usize>(name: &'static str, bytes: [u8; LENGTH]) -> Cdb {
        let mut all = [0; 16];
        all[..LENGTH].copy_from_slice(&bytes);
        Cdb {
            name,
            bytes: all,
            length: LENGTH as u8,
        }
    }

    /// Fills in a number, most significant byte first.
    fn with<const LENGTH: usize>(mut self, offset: usize, number: [u8; LENGTH]) -> Cdb {
        self.bytes[offset..offset + LENGTH].copy_from_slice(&number);
        self
    }

    /// The same without FUA, of COMPARE AND WRITE, READ(16) and WRITE(16).
    #[must_use]
    pub fn without_fua(mut self) -> Cdb {
        self.bytes[1] &= !FUA;
        self
    }

    /// The command's name in the standard.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What is sent.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// `00h`.
    #[must_use]
    pub fn test_unit_ready() -> Cdb {
        Cdb::new("TEST UNIT READY", [0; 6])
    }

    /// `12h | EVPD | page | length (2) | control`; without a page the standard data.
    #[must_use]
    pub fn inquiry(page: Option<u8>, length: u16) -> Cdb {
        let vital = u8::from(page.is_some());
        let cdb = Cdb::new("INQUIRY", [0x12, vital, page.unwrap_or(0), 0, 0, 0]);
        cdb.with(3, length.to_be_bytes())
    }

    /// `9Eh | 10h | ... | 10: length (4) | ...`.
    #[must_use]
    pub fn read_capacity(length: u32) -> Cdb {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&[0x9e, 0x10]);
        Cdb::new("READ CAPACITY(16)", bytes).with(10, length.to_be_bytes())
    }

    /// `5Eh | service | ... | 7: length (2) | control`.
    #[must_use]
    pub fn reserve_in(service: ServiceIn, length: u16) -> Cdb {
        let bytes = [0x5e, service as u8, 0, 0, 0, 0, 0, 0, 0, 0];
        Cdb::new(service.name(), bytes).with(7, length.to_be_bytes())
    }

    /// `5Fh | action | scope 0 and type | ... | 5: length (4) | control`. Actions that have no use
    /// for the type get a valid one all the same: some targets check it.
    #[must_use]
    pub fn reserve_out(action: Action, kind: ReservationType) -> Cdb {
        let kind = if action.takes_type() {
            kind.number()
        } else {
            0
        };
        let bytes = [0x5f, action as u8, kind, 0, 0, 0, 0, 0, 0, 0];
        Cdb::new(action.name(), bytes).with(5, (OUT_BYTES as u32).to_be_bytes())
    }

    /// `89h | FUA | 2: block (8) | 13: blocks | ...`. Of FUA both the read and the write.
    #[must_use]
    pub fn compare_and_write(block: u64, blocks: u8) -> Cdb {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&[0x89, FUA]);
        bytes[13] = blocks;
        Cdb::new("COMPARE AND WRITE", bytes).with(2, block.to_be_bytes())
    }

    /// `88h | FUA | 2: block (8) | 10: blocks (4) | ...`.
    #[must_use]
    pub fn read(extent: Extent) -> Cdb {
        Cdb::wide("READ(16)", [0x88, FUA], extent)
    }

    /// `8Ah | FUA | 2: block (8) | 10: blocks (4) | ...`.
    #[must_use]
    pub fn write(extent: Extent) -> Cdb {
        Cdb::wide("WRITE(16)", [0x8a, FUA], extent)
    }

    /// `35h | ... | 2: block (4) | 7: blocks (2)`; beyond that `91h` like READ(16).
    #[must_use]
    pub fn synchronize(extent: Extent) -> Cdb {
        let narrow = (u32::try_from(extent.block), u16::try_from(extent.blocks));
        match narrow {
            (Ok(block), Ok(blocks)) => {
                let bytes = [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                let cdb = Cdb::new("SYNCHRONIZE CACHE(10)", bytes);
                cdb.with(2, block.to_be_bytes())
                    .with(7, blocks.to_be_bytes())
            }
            _ => Cdb::wide("SYNCHRONIZE CACHE(16)", [0x91, 0], extent),
        }
    }

    fn wide(name: &'static str, first: [u8; 2], extent: Extent) -> Cdb {
        Cdb::new(name, [0; 16])
            .with(0, first)
            .with(2, extent.block.to_be_bytes())
            .with(10, extent.blocks.to_be_bytes())
    }
}
