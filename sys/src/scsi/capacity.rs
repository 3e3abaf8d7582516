//! What READ CAPACITY(16) tells (SBC-3 5.16.2).

/// Number and size of a unit's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// How many blocks there are.
    pub blocks: u64,
    /// Bytes of one, 512 or 4096.
    pub block_bytes: u32,
    /// Blocks that the medium writes as one, as a power of two: 3 for 512 bytes on 4 KiB.
    pub physical_exponent: u8,
}

impl Capacity {
    /// `0: last block (8) | 8: bytes of a block (4) | 13: bits 3..0 physical exponent`.
    #[must_use]
    pub fn decode(data: &[u8]) -> Option<Capacity> {
        let last = u64::from_be_bytes(data.get(0..8)?.try_into().ok()?);
        let block_bytes = u32::from_be_bytes(data.get(8..12)?.try_into().ok()?);
        Some(Capacity {
            blocks: last.checked_add(1)?,
            block_bytes,
            physical_exponent: data.get(13).map_or(0, |byte| byte & 0x0f),
        })
    }
}
