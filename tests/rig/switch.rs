//! The switch: one bridge for each network, one port for each cable, and the hand that pulls them.
//!
//! All cables end here and not at the other node: pulling one takes the carrier from its own end
//! only, and a dead node's interfaces leave its peer's alone. Ports are taken down over a route
//! netlink socket that is already open, all of them in one system call.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use super::machine::Machine;
use super::trouble::{Doing, Trouble};

const RTM_NEWLINK: u16 = 16;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const IFF_UP: u32 = 1;
/// Header and `struct ifinfomsg`.
const MESSAGE_BYTES: u32 = 32;

/// One cable from a machine to a network of the switch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cable<'a> {
    /// Name of the machine's interface.
    pub(crate) interface: &'a str,
    /// Its hardware address.
    pub(crate) mac: [u8; 6],
    /// The bridge.
    pub(crate) network: &'a str,
    /// Name of the switch's end, at most 15 letters.
    pub(crate) port: &'a str,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Switch {
    machine: Machine,
    route: OwnedFd,
}

impl Switch {
    /// A switch with these networks and nothing plugged in.
    pub(crate) fn start(lasting: bool, networks: &[&str]) -> Result<Switch, Trouble> {
        let machine = Machine::start("switch", lasting, None, &[])?;
        let bridge = |name: &&str| {
            format!(
                "link add {name} type bridge stp_state 0 mcast_snooping 0 forward_delay 0\n\
                 link set {name} up\n"
            )
        };
        machine.ip(&networks.iter().map(bridge).collect::<String>())?;
        let route = machine.in_network(|| {
            let raw = SockType::Raw;
            let route = SockProtocol::NetlinkRoute;
            socket(AddressFamily::Netlink, raw, SockFlag::SOCK_CLOEXEC, route)
                .doing("open route netlink")
        })?;
        Ok(Switch { machine, route })
    }

    /// The machine that it is.
    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Plugs cables in and returns the numbers of their ports, in order.
    pub(crate) fn plug(&self, into: &Machine, cables: &[Cable<'_>]) -> Result<Vec<u32>, Trouble> {
        let one = |cable: &Cable<'_>| {
            let Cable {
                interface,
                network,
                port,
                ..
            } = cable;
            let mac = cable.mac.map(|byte| format!("{byte:02x}")).join(":");
            let init = into.init();
            format!(
                "link add {port} type veth peer name {interface} address {mac} netns {init}\n\
                 link set {port} master {network} up\n"
            )
        };
        self.machine
            .ip(&cables.iter().map(one).collect::<String>())?;
        self.machine.in_network(|| {
            let number = |cable: &Cable<'_>| nix::net::if_::if_nametoindex(cable.port);
            cables
                .iter()
                .map(number)
                .collect::<Result<_, _>>()
                .doing("find the switch's port")
        })
    }

    /// Takes ports up or down, in one system call.
    pub(crate) fn set(&self, ports: &[u32], up: bool) -> Result<(), Trouble> {
        let messages: Vec<u8> = ports.iter().flat_map(|port| message(*port, up)).collect();
        send(self.route.as_raw_fd(), &messages, MsgFlags::empty()).doing("move ports")?;
        for _ in ports {
            let mut answer = [0; 256];
            let length = recv(self.route.as_raw_fd(), &mut answer, MsgFlags::empty());
            let length = length.doing("hear from the switch")?;
            // nlmsgerr: the header, then the negative error number.
            let error = answer[..length]
                .get(16..20)
                .and_then(|bytes| bytes.try_into().ok());
            match error.map(i32::from_ne_bytes) {
                Some(0) => {}
                other => return Err(Trouble::new(format!("the switch refused: {other:?}"))),
            }
        }
        Ok(())
    }
}

/// `RTM_NEWLINK` that changes one flag (rtnetlink(7)).
fn message(port: u32, up: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MESSAGE_BYTES as usize);
    bytes.extend(MESSAGE_BYTES.to_ne_bytes());
    bytes.extend(RTM_NEWLINK.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([0; 4]);
    bytes.extend(port.to_ne_bytes());
    bytes.extend(if up { IFF_UP } else { 0 }.to_ne_bytes());
    bytes.extend(IFF_UP.to_ne_bytes());
    bytes
}
