//! What INQUIRY tells: the device, its serial number, its names, its limits (SPC-4 6.6 and 7.8,
//! SBC-3 6.6.3).

use std::fmt;
use std::str::FromStr;

/// Standard data, as far as people care.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standard {
    /// Kind of device, 0 for a disk; `1Fh` where there is none.
    pub device_type: u8,
    /// Is a device connected at all (PERIPHERAL QUALIFIER 0)?
    pub connected: bool,
    /// Who made it.
    pub vendor: String,
    /// What it is.
    pub product: String,
    /// Which version of it.
    pub revision: String,
}

/// Text of a fixed field: ASCII, filled with blanks or zeros.
fn field(bytes: &[u8]) -> String {
    let letter = |byte: &u8| match byte {
        0x20..=0x7e => char::from(*byte),
        _ => ' ',
    };
    bytes
        .iter()
        .map(letter)
        .collect::<String>()
        .trim()
        .to_owned()
}

/// `0: bits 7..5 qualifier, 4..0 type | 8 vendor (8) | 16 product (16) | 32 revision (4)`.
#[must_use]
pub fn decode_standard(data: &[u8]) -> Option<Standard> {
    let first = *data.first()?;
    Some(Standard {
        device_type: first & 0x1f,
        connected: first >> 5 == 0,
        vendor: field(data.get(8..16)?),
        product: field(data.get(16..32)?),
        revision: field(data.get(32..36)?),
    })
}

/// The body of a vital product data page: `1 page | 2 length (2) | 4..`. A device that does not
/// know the page may send another one.
fn page(data: &[u8], number: u8) -> Option<&[u8]> {
    if *data.get(1)? != number {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([*data.get(2)?, *data.get(3)?]));
    let body = data.get(4..)?;
    // Cut off where the buffer was shorter.
    Some(&body[..length.min(body.len())])
}

/// Page 00h: the numbers of the pages there are.
#[must_use]
pub fn decode_pages(data: &[u8]) -> Option<Vec<u8>> {
    page(data, 0x00).map(<[u8]>::to_vec)
}

/// Page 80h: the serial number.
#[must_use]
pub fn decode_serial(data: &[u8]) -> Option<String> {
    page(data, 0x80).map(field)
}

/// How much one command may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockLimits {
    /// Most blocks of a COMPARE AND WRITE; 0 where there is none.
    pub compare_and_write_blocks: u8,
    /// Most blocks of a transfer; 0 where the unit does not tell.
    pub transfer_blocks: u32,
}

/// Page B0h: `5 MAXIMUM COMPARE AND WRITE LENGTH | 8 MAXIMUM TRANSFER LENGTH (4)`.
#[must_use]
pub fn decode_block_limits(data: &[u8]) -> Option<BlockLimits> {
    let body = page(data, 0xb0)?;
    Some(BlockLimits {
        compare_and_write_blocks: *body.get(1)?,
        transfer_blocks: u32::from_be_bytes(body.get(4..8)?.try_into().ok()?),
    })
}

/// A name of a logical unit, the same by every path: `naa.6001405...`, `eui.0025...`, `t10.ATA...`
/// for SCSI, and what the kernel calls an NVMe name space (`nvme.`, `uuid.`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(String);

impl Identity {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How good it is as the one name, smaller is better: NAA 6, 3 and 5 are unique in the world
    /// and lasting, EUI-64 nearly, text of the vendor's least.
    fn rank(&self) -> u8 {
        let kinds = [
            "naa.6", "naa.3", "naa.5", "eui.", "uuid.", "nvme.", "naa.", "t10.",
        ];
        let found = kinds.iter().position(|kind| self.0.starts_with(kind));
        found.map_or(u8::MAX, |at| at as u8)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A text that is no name of a logical unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no name of a disk, such as naa.600140512345678900000000000000ab")]
pub struct UnknownIdentity(String);

impl FromStr for Identity {
    type Err = UnknownIdentity;

    /// Reads what [`Display`](fmt::Display) writes; hexadecimal digits of either case.
    fn from_str(text: &str) -> Result<Identity, UnknownIdentity> {
        let hexadecimal = |digits: &str, lengths: &[usize]| {
            lengths.contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit())
        };
        let plain =
            |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
        let (lower, known) = match text.split_once('.') {
            Some(("naa", digits)) => (true, hexadecimal(digits, &[16, 32])),
            Some(("eui", digits)) => (true, hexadecimal(digits, &[16, 24, 32])),
            Some(("t10" | "nvme" | "uuid", name)) => (false, plain(name)),
            Some(_) | None => (false, false),
        };
        match (known, lower) {
            (true, true) => Ok(Identity(text.to_ascii_lowercase())),
            (true, false) => Ok(Identity(text.to_owned())),
            (false, _) => Err(UnknownIdentity(text.to_owned())),
        }
    }
}

/// Page 83h: names of the logical unit itself, not of its port or target.
///
/// ```text
/// 0: bits 3..0 code set   1: bits 5..4 association, 3..0 kind   3 length   4.. designator
/// ```
#[must_use]
pub fn decode_identities(data: &[u8]) -> Option<Vec<Identity>> {
    let mut rest = page(data, 0x83)?;
    let mut identities = Vec::new();
    while let [_, kind, _, length, ..] = *rest {
        let length = usize::from(length);
        let Some(designator) = rest.get(4..4 + length) else {
            break;
        };
        if kind & 0x30 == 0 {
            identities.extend(identity(kind & 0x0f, designator));
        }
        rest = &rest[4 + length..];
    }
    Some(identities)
}

fn identity(kind: u8, designator: &[u8]) -> Option<Identity> {
    let prefix = match (kind, designator.len()) {
        (1, 9..) => "t10",
        (2, 8 | 12 | 16) => "eui",
        (3, 8 | 16) => "naa",
        _ => return None,
    };
    let name: String = if kind == 1 {
        let blank = |letter: char| if letter == ' ' { '_' } else { letter };
        field(designator).chars().map(blank).collect()
    } else {
        designator
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    };
    Some(Identity(format!("{prefix}.{name}")))
}

/// The one to call the unit by; none if it has no name at all.
#[must_use]
pub fn preferred_identity(identities: &[Identity]) -> Option<&Identity> {
    identities.iter().min_by_key(|identity| identity.rank())
}
