//! Reads `[[link]]`: what a link is made of on each node, and whether the links together give the
//! redundancy and the register that a cluster needs.

use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::names::{absolute, doubled, read_name};
use super::parse::Nodes;
use super::problem::{Problem, Problems, TextSpan};
use super::reader::{At, Section, integer};
use super::schema::{self, nearest};
use super::types::{LinkConfig, LinkKind, PerNode, Place};
use crate::model::LINKS_MAX;

/// Longest name of a network interface (IFNAMSIZ less its closing zero).
const INTERFACE_NAME_MAX: usize = 15;

/// IEEE 802 local experimental EtherType 1.
const ETHERTYPE_DEFAULT: u16 = 0x88B5;

/// All EtherTypes: below them the field is a length (IEEE 802.3, 3.2.6).
const ETHERTYPES: RangeInclusive<i64> = 0x0600..=0xFFFF;

/// What stands for a text that could not be read; never seen outside.
const PLACEHOLDER: &str = "?";

/// Reads all links.
pub(super) fn read(top: &Section<'_>, nodes: &Nodes, problems: &mut Problems) -> Vec<LinkConfig> {
    let tables = top.tables("link", problems);
    let mut names: Vec<At<&str>> = Vec::new();
    let mut links: Vec<(LinkConfig, TextSpan)> = Vec::new();
    if let Some(extra) = tables.get(LINKS_MAX) {
        let problem = format!("there are {} links", tables.len());
        let remedy = format!("a node has at most {LINKS_MAX} links: remove some");
        problems.error(extra.span.clone(), problem, remedy);
    }
    let mut all_kinds_known = true;
    for (index, table) in tables.iter().enumerate().take(LINKS_MAX) {
        let link = read_one(index as u8, table, nodes, &mut names, problems);
        all_kinds_known &= link.is_some();
        links.extend(link.map(|link| (link, table.span.clone())));
    }
    one_card_each(&links, problems);
    if all_kinds_known && (top.lacks("link") || !tables.is_empty()) {
        enough(&links, nodes, problems);
    }
    links.into_iter().map(|(link, _)| link).collect()
}

/// One link; `None` if its kind could not be told.
fn read_one<'t>(
    index: u8,
    table: &At<&'t DeTable<'t>>,
    nodes: &Nodes,
    names: &mut Vec<At<&'t str>>,
    problems: &mut Problems,
) -> Option<LinkConfig> {
    let kind = table.value.get("kind");
    let schema = match kind.and_then(|kind| kind.get_ref().as_str()) {
        Some("ethernet") => &schema::LINK_ETHERNET,
        Some("disk") => &schema::LINK_DISK,
        _ => &schema::LINK,
    };
    let section = Section::open(schema, Some(table.span.clone()), table.value, problems);
    let name = read_name(&section, "link", problems);
    let text = name.as_ref().map_or(PLACEHOLDER, |name| name.value);
    let link = read_kind(&section, nodes, problems).map(|kind| LinkConfig {
        name: text.to_owned(),
        index,
        kind,
    });
    if let Some(name) = name
        && !doubled("links", &name, names, problems)
    {
        names.push(name);
    }
    link
}

fn read_kind(section: &Section<'_>, nodes: &Nodes, problems: &mut Problems) -> Option<LinkKind> {
    if section.lacks("kind") {
        let disk = section.value("device").is_some();
        let remedy = format!(
            "add `kind = \"{}\"`",
            if disk { "disk" } else { "ethernet" }
        );
        problems.error(section.span(), "the link has no `kind`", remedy);
    }
    let kind = section.string("kind", problems)?;
    match kind.value {
        "ethernet" => Some(LinkKind::Ethernet {
            interfaces: per_node(section, "interface", nodes, check_interface, problems),
            ethertype: read_ethertype(section, problems),
        }),
        "disk" => Some(LinkKind::Disk {
            devices: per_node(section, "device", nodes, check_device, problems),
        }),
        other => {
            let remedy = match nearest(other, ["ethernet", "disk"]) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "write `ethernet` for a network card, `disk` for a shared disk".to_owned(),
            };
            let problem = format!("there is no kind of link `{other}`");
            problems.error(kind.span, problem, remedy);
            None
        }
    }
}

fn read_ethertype(section: &Section<'_>, problems: &mut Problems) -> u16 {
    if let Some(value) = section.value("ethertype")
        && let DeValue::Integer(number) = value.get_ref()
        && integer(value.get_ref()).is_none_or(|number| !ETHERTYPES.contains(&number))
    {
        let problem = format!("{number} is not an EtherType");
        let remedy = "write 0x88B5 or 0x88B6, which are free for private use, \
                      or another number from 0x0600 to 0xFFFF";
        problems.error(value.span(), problem, remedy);
        return ETHERTYPE_DEFAULT;
    }
    let Some(written) = section.integer("ethertype", ETHERTYPES, problems) else {
        return ETHERTYPE_DEFAULT;
    };
    let taken = match written.value {
        0x0800 => "IPv4",
        0x0806 => "ARP",
        0x86DD => "IPv6",
        0x8100 | 0x88A8 => "VLAN tags",
        0x8809 => "link aggregation",
        0x88CC => "LLDP",
        _ => return written.value as u16,
    };
    let problem = format!("this EtherType belongs to {taken}");
    let remedy = "write 0x88B5 or 0x88B6, which are free for private use";
    problems.push(Problem::warning(written.span, problem, remedy));
    written.value as u16
}

/// A text for all nodes, or a table with one for each.
fn per_node(
    section: &Section<'_>,
    key: &'static str,
    nodes: &Nodes,
    check: fn(&str, &At<&str>, &mut Problems),
    problems: &mut Problems,
) -> PerNode {
    let mut found = PerNode::default();
    let Some(value) = section.value(key) else {
        section.missing(key, problems);
        return found;
    };
    match value.get_ref() {
        DeValue::String(text) => {
            let text = At {
                value: text.as_ref(),
                span: value.span(),
            };
            check(key, &text, problems);
            for node in &nodes.list {
                let place = Place(text.span.clone());
                found.entries.push((node.id, text.value.to_owned(), place));
            }
        }
        DeValue::Table(table) => each_node(key, table, value, nodes, check, problems, &mut found),
        _ => {
            let wanted = "text in quotes, or a table with one for each node";
            section.wrong_type::<()>(key, value, wanted, problems);
        }
    }
    found
}

fn each_node(
    key: &'static str,
    table: &DeTable<'_>,
    whole: &Spanned<DeValue<'_>>,
    nodes: &Nodes,
    check: fn(&str, &At<&str>, &mut Problems),
    problems: &mut Problems,
    found: &mut PerNode,
) {
    let mut all_known = true;
    for (name, value) in table.iter() {
        let name = At {
            value: name.get_ref().as_ref(),
            span: name.span(),
        };
        all_known &= nodes.find(&name, problems).is_some();
        let DeValue::String(text) = value.get_ref() else {
            let problem = format!("`{key}` of node `{}` must be text in quotes", name.value);
            let remedy = format!("write it like `{key} = {{ {} = \"...\" }}`", name.value);
            problems.error(value.span(), problem, remedy);
            continue;
        };
        check(
            key,
            &At {
                value: text.as_ref(),
                span: value.span(),
            },
            problems,
        );
    }
    for node in &nodes.list {
        if let Some(value) = table.get(node.name.as_str()) {
            let text = value.get_ref().as_str().unwrap_or(PLACEHOLDER);
            found
                .entries
                .push((node.id, text.to_owned(), Place(value.span())));
        } else if all_known {
            let problem = format!("`{key}` says nothing about node `{}`", node.name);
            let remedy = format!("add `{} = \"...\"` here: a link joins all nodes", node.name);
            problems.error(whole.span(), problem, remedy);
        }
    }
}

/// The kernel's own rule for interface names (`dev_valid_name`).
fn check_interface(_: &str, name: &At<&str>, problems: &mut Problems) {
    let forbidden = |letter: char| letter == '/' || letter == ':' || letter.is_whitespace();
    let problem = match name.value {
        "" => "the name of an interface is empty".to_owned(),
        "lo" => "the loopback interface reaches nobody else".to_owned(),
        "." | ".." => format!("`{}` is not the name of an interface", name.value),
        long if long.len() > INTERFACE_NAME_MAX => {
            format!("`{long}` is longer than the {INTERFACE_NAME_MAX} bytes of an interface name")
        }
        bad if bad.contains(forbidden) => format!("`{bad}` is not the name of an interface"),
        _ => return,
    };
    problems.error(
        name.span.clone(),
        problem,
        "write a name that `ip link` shows, such as `eth1`",
    );
}

fn check_device(key: &str, path: &At<&str>, problems: &mut Problems) {
    absolute(key, path, problems);
    let shuffled = ["/dev/sd", "/dev/vd", "/dev/xvd", "/dev/nvme"];
    if shuffled.iter().any(|prefix| path.value.starts_with(prefix)) {
        let problem = format!("`{}` may name another disk after the next boot", path.value);
        let remedy = "write its lasting name: see `ls -l /dev/disk/by-id`";
        problems.push(Problem::warning(path.span.clone(), problem, remedy));
    }
}

/// Two links over one interface of a node fail together.
fn one_card_each(links: &[(LinkConfig, TextSpan)], problems: &mut Problems) {
    for (at, (link, _)) in links.iter().enumerate() {
        let shared = links[..at].iter().find_map(|(earlier, _)| {
            let mut nodes = link.kind.paths().entries.iter();
            nodes.find_map(|(node, path, place)| {
                let same = earlier.kind.paths().on(*node) == Some(path) && path != PLACEHOLDER;
                same.then(|| Some((path, place, earlier.kind.paths().place_on(*node)?)))
                    .flatten()
            })
        });
        let Some((path, place, earlier)) = shared else {
            continue;
        };
        let problem = format!("two links over `{path}` on the same node");
        let remedy = "give each link its own: two over one fail together";
        problems
            .push(Problem::error(place.0.clone(), problem, remedy).and_at(earlier, "used here"));
    }
}

/// A cluster of several nodes needs the register's disk, and should have two networks.
fn enough(links: &[(LinkConfig, TextSpan)], nodes: &Nodes, problems: &mut Problems) {
    let (disks, networks): (Vec<_>, Vec<_>) = links
        .iter()
        .partition(|(link, _)| matches!(link.kind, LinkKind::Disk { .. }));
    let surplus = match disks.as_slice() {
        [(_, first), (_, surplus)] => Some((
            first,
            surplus,
            "add a third or keep 1: the register goes on while most of its disks work, and most of \
             2 are both",
        )),
        [(_, first), _, _, (_, surplus), ..] => Some((
            first,
            surplus,
            "keep 3 of them, or 1: with 3 the register goes on while any 2 of them work",
        )),
        [] | [_] | [_, _, _] => None,
    };
    if let Some((first, surplus, remedy)) = surplus {
        let problem = format!("there are {} links of kind disk", disks.len());
        let problem = Problem::error(surplus.clone(), problem, remedy);
        problems.push(problem.and_at(first.clone(), "the first"));
    }
    if nodes.list.len() < 2 {
        return;
    }
    let disk = "add a [[link]] with `kind = \"disk\"` and a `device` that all nodes reach";
    if links.is_empty() {
        let problem = "the file has no [[link]]: the nodes cannot hear each other";
        let cards = "and one of kind ethernet for each network between the nodes";
        problems.error(None, problem, format!("{disk}, {cards}"));
        return;
    }
    if disks.is_empty() {
        let problem = "no link of kind disk: automatic takeover needs a register on a shared disk";
        problems.error(None, problem, disk);
    }
    let network = "add a [[link]] of kind ethernet over another card and cable";
    match networks.as_slice() {
        [] => {
            let problem = "no link of kind ethernet: everything goes through the disk, slowly";
            problems.push(Problem::warning(None, problem, network));
        }
        [(only, span)] => {
            let problem = format!("`{}` is the only network link", only.name);
            problems.push(Problem::warning(span.clone(), problem, network));
        }
        _ => {}
    }
}
