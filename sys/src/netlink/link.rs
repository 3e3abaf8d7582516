//! A network interface as the kernel describes it.
//!
//! Only the attributes that matter are decoded: one that a newer kernel has changed, deep inside
//! the statistics of some driver, must not hide that a cable was pulled.

use netlink_packet_core::{DecodeError, NlasIterator, parse_string, parse_u32};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{LinkFlags, LinkHeader};

/// Bytes of `struct ifinfomsg`, before the attributes.
const HEADER_BYTES: usize = 16;

// Attribute types of linux/if_link.h.
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;

/// The carrier alone is not enough: for a moment after it has come the kernel still throws away
/// what is sent, without an error, until it has attached the queue and set `IFF_RUNNING`.
const RUNNING: LinkFlags = LinkFlags::Up
    .union(LinkFlags::LowerUp)
    .union(LinkFlags::Running);

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number; a re-plugged card gets a new one.
    pub index: u32,
    /// Its name; can change.
    pub name: String,
    /// Hardware address, if it has one of six bytes.
    pub mac: Option<[u8; 6]>,
    /// Largest payload in bytes.
    pub mtu: u32,
    /// The administrator switched it on (`IFF_UP`).
    pub up: bool,
    /// It is on, has a carrier (`IFF_LOWER_UP`) and its queue takes frames (`IFF_RUNNING`).
    pub running: bool,
    /// The bridge or bond that owns it. A bridge takes all frames away from its ports: raw sockets
    /// belong on the bridge itself.
    pub master: Option<u32>,
}

impl Link {
    /// Decodes the payload of an `RTM_NEWLINK` or `RTM_DELLINK`. `None` for the notices that a
    /// bridge sends about its ports under its own family: there "deleted" means only "left the
    /// bridge".
    pub(super) fn parse(payload: &[u8]) -> Result<Option<Link>, DecodeError> {
        let header = LinkHeader::parse(payload)?;
        if header.interface_family != AddressFamily::Unspec {
            return Ok(None);
        }
        let mut link = Link {
            index: header.index,
            name: String::new(),
            mac: None,
            mtu: 0,
            up: header.flags.contains(LinkFlags::Up),
            running: header.flags.contains(RUNNING),
            master: None,
        };
        for attribute in NlasIterator::new(payload.get(HEADER_BYTES..).unwrap_or_default()) {
            let attribute = attribute?;
            match attribute.kind() {
                IFLA_ADDRESS => link.mac = attribute.value().try_into().ok(),
                IFLA_IFNAME => link.name = parse_string(attribute.value())?,
                IFLA_MTU => link.mtu = parse_u32(attribute.value())?,
                IFLA_MASTER => link.master = Some(parse_u32(attribute.value())?),
                _ => {}
            }
        }
        Ok(Some(link))
    }
}
