//! Persistent reservations as bytes (SPC-4 6.15 and 6.16, semantics in 5.13).

/// Bytes of the parameter list of every action here; a target refuses any other length.
pub(super) const OUT_BYTES: usize = 24;

/// Services of PERSISTENT RESERVE IN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ServiceIn {
    /// Every registered key, once for each path.
    ReadKeys = 0x00,
    /// Who holds the reservation.
    ReadReservation = 0x01,
    /// What the unit can.
    ReportCapabilities = 0x02,
    /// Which path is registered with which key. Optional.
    ReadFullStatus = 0x03,
}

impl ServiceIn {
    pub(super) fn name(self) -> &'static str {
        match self {
            ServiceIn::ReadKeys => "READ KEYS",
            ServiceIn::ReadReservation => "READ RESERVATION",
            ServiceIn::ReportCapabilities => "REPORT CAPABILITIES",
            ServiceIn::ReadFullStatus => "READ FULL STATUS",
        }
    }
}

/// Actions of PERSISTENT RESERVE OUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Action {
    /// Gives, changes or (new key 0) takes the key of this path; the old one must be right.
    Register = 0x00,
    /// Reserves for this path.
    Reserve = 0x01,
    /// Ends this path's reservation.
    Release = 0x02,
    /// Removes every registration and the reservation.
    Clear = 0x03,
    /// Removes every registration of a key, and takes over its reservation.
    Preempt = 0x04,
    /// The same, and ends the commands of those paths first.
    PreemptAndAbort = 0x05,
    /// Gives this path a key, whichever it had.
    RegisterAndIgnore = 0x06,
}

impl Action {
    pub(super) fn name(self) -> &'static str {
        match self {
            Action::Register => "REGISTER",
            Action::Reserve => "RESERVE",
            Action::Release => "RELEASE",
            Action::Clear => "CLEAR",
            Action::Preempt => "PREEMPT",
            Action::PreemptAndAbort => "PREEMPT AND ABORT",
            Action::RegisterAndIgnore => "REGISTER AND IGNORE EXISTING KEY",
        }
    }

    pub(super) fn takes_type(self) -> bool {
        match self {
            Action::Reserve | Action::Release | Action::Preempt | Action::PreemptAndAbort => true,
            Action::Register | Action::RegisterAndIgnore | Action::Clear => false,
        }
    }
}

/// Who may do what under a reservation (SPC-4 table 66).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservationType {
    /// 1: only the holder's path writes.
    WriteExclusive,
    /// 3: only the holder's path reads or writes.
    ExclusiveAccess,
    /// 5: only registered paths write; one holds it.
    WriteExclusiveRegistrantsOnly,
    /// 6: only registered paths read or write; one holds it.
    ExclusiveAccessRegistrantsOnly,
    /// 7: only registered paths write; all hold it.
    WriteExclusiveAllRegistrants,
    /// 8: only registered paths read or write; all hold it.
    ExclusiveAccessAllRegistrants,
    /// A number that SPC does not give a meaning.
    Other(u8),
}

impl ReservationType {
    /// As in the low four bits of a byte.
    #[must_use]
    pub fn new(number: u8) -> ReservationType {
        match number & 0x0f {
            1 => ReservationType::WriteExclusive,
            3 => ReservationType::ExclusiveAccess,
            5 => ReservationType::WriteExclusiveRegistrantsOnly,
            6 => ReservationType::ExclusiveAccessRegistrantsOnly,
            7 => ReservationType::WriteExclusiveAllRegistrants,
            8 => ReservationType::ExclusiveAccessAllRegistrants,
            other => ReservationType::Other(other),
        }
    }

    /// As SCSI numbers it.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            ReservationType::WriteExclusive => 1,
            ReservationType::ExclusiveAccess => 3,
            ReservationType::WriteExclusiveRegistrantsOnly => 5,
            ReservationType::ExclusiveAccessRegistrantsOnly => 6,
            ReservationType::WriteExclusiveAllRegistrants => 7,
            ReservationType::ExclusiveAccessAllRegistrants => 8,
            ReservationType::Other(number) => number,
        }
    }

    /// As the standard names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ReservationType::WriteExclusive => "write exclusive",
            ReservationType::ExclusiveAccess => "exclusive access",
            ReservationType::WriteExclusiveRegistrantsOnly => "write exclusive, registrants only",
            ReservationType::ExclusiveAccessRegistrantsOnly => "exclusive access, registrants only",
            ReservationType::WriteExclusiveAllRegistrants => "write exclusive, all registrants",
            ReservationType::ExclusiveAccessAllRegistrants => "exclusive access, all registrants",
            ReservationType::Other(_) => "of an unknown type",
        }
    }
}

/// The parameter list of PERSISTENT RESERVE OUT.
///
/// ```text
/// 0..7 own key   8..15 key of the action   16..19 zero   20 bit 0 APTPL   21..23 zero
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutParameters {
    /// RESERVATION KEY: the one this path has, 0 for none.
    pub own: u64,
    /// SERVICE ACTION RESERVATION KEY: of a register the new key, of a preempt the victim's.
    pub other: u64,
    /// APTPL: registrations outlive a loss of power. The last register by anybody decides for all.
    pub outlives_power: bool,
}

impl OutParameters {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; OUT_BYTES] {
        let mut bytes = [0; OUT_BYTES];
        bytes[0..8].copy_from_slice(&self.own.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.other.to_be_bytes());
        bytes[20] = u8::from(self.outlives_power);
        bytes
    }
}

/// What READ KEYS tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// PRGENERATION: rises with every change of registrations, wraps, and is zero after power on.
    pub generation: u32,
    /// One for each registered path.
    pub keys: Vec<u64>,
}

/// A reservation and its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// PRGENERATION.
    pub generation: u32,
    /// The holder's; 0 where all registrants hold it.
    pub key: u64,
    /// Who may do what.
    pub kind: ReservationType,
}

/// What REPORT CAPABILITIES tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Registrations can outlive a loss of power (`PTPL_C`).
    pub can_outlive_power: bool,
    /// They do now (`PTPL_A`).
    pub outlives_power: bool,
    /// A register can reach all target ports (`ATP_C`).
    pub all_target_ports: bool,
    /// A register can name other initiators (`SIP_C`).
    pub other_initiators: bool,
    /// Bits by type number, where the unit tells which it knows (`TMV`).
    pub types: Option<u16>,
}

impl Capabilities {
    /// Is this type known? Where the unit does not tell, it may be.
    #[must_use]
    pub fn has(&self, kind: ReservationType) -> bool {
        self.types
            .is_none_or(|types| types & (1 << kind.number()) != 0)
    }
}

/// One registered path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registrant {
    /// Its key.
    pub key: u64,
    /// The reservation, if this path holds it.
    pub holds: Option<ReservationType>,
    /// Registered with all target ports at once.
    pub all_target_ports: bool,
    /// Relative number of the target port.
    pub target_port: u16,
    /// Name of the initiator port, as the transport has it (SPC-4 7.6.4).
    pub initiator: Vec<u8>,
}

impl Registrant {
    /// The initiator's name for people: a WWPN, a SAS address, an iSCSI name.
    #[must_use]
    pub fn initiator_words(&self) -> String {
        let hex = |from: usize, to: usize| {
            let bytes = self.initiator.get(from..to).unwrap_or_default();
            bytes.iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let name: String = match self.initiator.first().map(|byte| byte & 0x0f) {
            Some(0x0) => hex(8, 16),
            Some(0x4) => hex(8, 24),
            Some(0x5) => {
                let name = self.initiator.get(4..).unwrap_or_default();
                let end = name.iter().position(|byte| *byte == 0);
                String::from_utf8_lossy(&name[..end.unwrap_or(name.len())]).into_owned()
            }
            Some(0x6) => hex(4, 12),
            Some(_) | None => hex(0, self.initiator.len()),
        };
        name
    }
}

/// What READ FULL STATUS tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistrantList {
    /// PRGENERATION.
    pub generation: u32,
    /// One for each registered path.
    pub registrants: Vec<Registrant>,
}

fn be32(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(data.get(at..at + 4)?.try_into().ok()?))
}

fn be64(data: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(data.get(at..at + 8)?.try_into().ok()?))
}

/// Length in bytes of the list that the unit has, header included.
pub(super) fn list_bytes(data: &[u8]) -> Option<usize> {
    be32(data, 4)?
        .try_into()
        .ok()
        .map(|length: usize| length.saturating_add(8))
}

/// The list itself; none if less came than it says.
fn list(data: &[u8]) -> Option<&[u8]> {
    data.get(8..list_bytes(data)?)
}

/// `0 PRGENERATION (4) | 4 length (4) | 8.. keys (8 each)`. None unless all of it came.
#[must_use]
pub fn decode_keys(data: &[u8]) -> Option<Keys> {
    let keys = list(data)?.chunks_exact(8);
    let keys = keys.filter_map(|key| be64(key, 0)).collect();
    Some(Keys {
        generation: be32(data, 0)?,
        keys,
    })
}

/// `0 PRGENERATION (4) | 4 length (4), 0 for none | 8 key (8) | 21 scope and type`.
///
/// The outer none: not understood. The inner one: not reserved.
#[must_use]
pub fn decode_reservation(data: &[u8]) -> Option<Option<Holder>> {
    let generation = be32(data, 0)?;
    if be32(data, 4)? == 0 {
        return Some(None);
    }
    Some(Some(Holder {
        generation,
        key: be64(data, 8)?,
        kind: ReservationType::new(*data.get(21)?),
    }))
}

/// ```text
/// 0..1 length 8   2: bit 3 SIP_C, bit 2 ATP_C, bit 0 PTPL_C   3: bit 7 TMV, bit 0 PTPL_A
/// 4: bit 7 type 7, 6 type 6, 5 type 5, 3 type 3, 1 type 1     5: bit 0 type 8
/// ```
#[must_use]
pub fn decode_capabilities(data: &[u8]) -> Option<Capabilities> {
    let [_, _, can, now, low, high] = *data.get(..6)?.first_chunk()?;
    Some(Capabilities {
        can_outlive_power: can & 0x01 != 0,
        outlives_power: now & 0x01 != 0,
        all_target_ports: can & 0x04 != 0,
        other_initiators: can & 0x08 != 0,
        types: (now & 0x80 != 0).then(|| u16::from(low) | u16::from(high) << 8),
    })
}

/// `0 PRGENERATION (4) | 4 length (4) | 8.. descriptors`, each `0 key (8) | 12: bit 1 ALL_TG_PT,
/// bit 0 R_HOLDER | 13 scope and type | 18 target port (2) | 20 length (4) | 24.. TransportID`.
/// None unless all of it came.
#[must_use]
pub fn decode_full_status(data: &[u8]) -> Option<RegistrantList> {
    let mut rest = list(data)?;
    let mut registrants = Vec::new();
    while !rest.is_empty() {
        let length: usize = be32(rest, 20)?.try_into().ok()?;
        let initiator = rest.get(24..24_usize.checked_add(length)?)?;
        let flags = rest[12];
        registrants.push(Registrant {
            key: be64(rest, 0)?,
            holds: (flags & 0x01 != 0).then(|| ReservationType::new(rest[13])),
            all_target_ports: flags & 0x02 != 0,
            target_port: u16::from_be_bytes([rest[18], rest[19]]),
            initiator: initiator.to_vec(),
        });
        rest = &rest[24 + length..];
    }
    Some(RegistrantList {
        generation: be32(data, 0)?,
        registrants,
    })
}
