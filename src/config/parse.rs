//! From text to a [`Config`]: the file as a whole, `[cluster]` and `[[node]]`.
//!
//! Syntax errors end the walk, since half a document would only produce wrong complaints.
//! Everything else is collected: a value that is wrong is reported and replaced by a placeholder
//! that nobody sees, because a text with an error never becomes a `Config`.

use toml::de::DeTable;

use super::kind::Kind;
use super::names::{absolute, doubled, is_name, read_name};
use super::problem::{ConfigErrors, Problem, Problems};
use super::reader::{At, Section, integer};
use super::schema::{self, either, nearest};
use super::types::{ClusterConfig, Config, NodeConfig, Place};
use super::{DETECT_MAX, DETECT_MIN, Timing, canonical, fence, links, syntax, tasks, watchdog};
use crate::model::{ClusterId, NODES_MAX, NodeId};
use crate::time::Span;

/// Longest text in bytes. 64 nodes and 64 tasks of 64 objects fit; what is longer is not a
/// configuration and is refused unread.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

impl Config {
    /// Checks a configuration's text against itself and against the kinds of objects there are.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the text, as far as it can be told at once.
    pub fn parse(text: &str, kinds: &[Kind]) -> Result<Config, ConfigErrors> {
        if text.len() > TEXT_BYTES_MAX {
            let problem = format!("the file is longer than {TEXT_BYTES_MAX} bytes");
            let remedy = "check that this is the configuration; `standfast init` writes a new one";
            return Err(ConfigErrors::new(vec![Problem::error(
                None, problem, remedy,
            )]));
        }
        let (document, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            return Err(ConfigErrors::new(syntax::explain(text, &errors)));
        }
        let mut problems = Problems::default();
        let top = Section::open(&schema::TOP, None, document.get_ref(), &mut problems);
        let revision = top.integer("revision", 1..=i64::from(u32::MAX), &mut problems);
        let (cluster, detect) = read_cluster(&top, &mut problems);
        let nodes = Nodes::read(&top, &mut problems);
        let links = links::read(&top, &nodes, &mut problems);
        let watchdog = watchdog::read(&top, detect.as_ref(), &mut problems);
        let fences = fence::read(&top, &nodes, &mut problems);
        let tasks = tasks::read(&top, &nodes, &fences, kinds, &mut problems);
        let warnings = problems.finish()?;
        let detect = detect.expect("a missing detect was reported");
        Ok(Config {
            revision: revision.map_or(1, |revision| revision.value as u32),
            hash: canonical::hash(document.get_ref()),
            cluster: cluster.expect("a missing cluster was reported"),
            timing: Timing::from_detect(detect.value),
            detect: Place(detect.span),
            nodes: nodes.list,
            links,
            watchdog,
            fences,
            tasks,
            warnings,
        })
    }
}

fn read_cluster(
    top: &Section<'_>,
    problems: &mut Problems,
) -> (Option<ClusterConfig>, Option<At<Span>>) {
    if top.value("cluster").is_none() {
        if top.lacks("cluster") {
            let remedy = "add [cluster] with `name`, `id` and `detect`; \
                          `standfast init` writes a whole file";
            problems.error(None, "the file has no [cluster]", remedy);
        }
        return (None, None);
    }
    let Some(table) = top.table("cluster", problems) else {
        return (None, None);
    };
    let section = Section::open(&schema::CLUSTER, Some(table.span), table.value, problems);
    let name = read_name(&section, "cluster", problems);
    let id = section
        .required_string("id", problems)
        .and_then(|id| read_id(&id, problems));
    if section.value("detect").is_none() {
        section.missing("detect", problems);
    }
    let detect = section.duration("detect", DETECT_MIN..=DETECT_MAX, problems);
    let secret = section.string("secret", problems);
    let secret = secret.map_or("/etc/standfast/secret".to_owned(), |path| {
        absolute("secret", &path, problems);
        path.value.to_owned()
    });
    let cluster = name.zip(id).map(|(name, id)| ClusterConfig {
        name: name.value.to_owned(),
        id,
        secret,
    });
    (cluster, detect)
}

fn read_id(written: &At<&str>, problems: &mut Problems) -> Option<ClusterId> {
    let remedy = "write the 32 hex digits that `standfast init` prints, the same on all nodes";
    let digit = |at: usize| (written.value.as_bytes()[at] as char).to_digit(16);
    if written.value.len() != 32 || !written.value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let count = written.value.chars().count();
        let problem = if count == 32 {
            "the cluster's id holds something else than the hex digits 0-9 and a-f".to_owned()
        } else {
            format!("the cluster's id has {count} characters, not 32")
        };
        problems.error(written.span.clone(), problem, remedy);
        return None;
    }
    let byte = |at: usize| Some((digit(2 * at)? << 4 | digit(2 * at + 1)?) as u8);
    let id: ClusterId = std::array::from_fn(|at| byte(at).unwrap_or(0));
    if id == [0; 16] {
        let problem = "the cluster's id is a placeholder";
        problems.error(written.span.clone(), problem, remedy);
        return None;
    }
    Some(id)
}

/// The nodes as far as they could be read; others look names up here.
pub(super) struct Nodes {
    /// By rising id.
    pub(super) list: Vec<NodeConfig>,
    /// A node without a readable name was reported: do not report names that are not found.
    incomplete: bool,
}

impl Nodes {
    fn read(top: &Section<'_>, problems: &mut Problems) -> Nodes {
        let tables = top.tables("node", problems);
        if top.lacks("node") {
            let remedy = "add one [[node]] with `name` and `id` for each server, 2 to 64 of them";
            problems.error(None, "the file has no [[node]]", remedy);
        }
        if let Some(extra) = tables.get(NODES_MAX) {
            let problem = format!("there are {} nodes", tables.len());
            let remedy = format!("a cluster has at most {NODES_MAX} nodes: remove some");
            problems.error(extra.span.clone(), problem, remedy);
        }
        let mut nodes = Nodes {
            list: Vec::new(),
            incomplete: tables.is_empty(),
        };
        let mut ids = NodeIds::new(&tables);
        let mut names: Vec<At<&str>> = Vec::new();
        for table in &tables {
            let span = Some(table.span.clone());
            let section = Section::open(&schema::NODE, span, table.value, problems);
            let name = read_name(&section, "node", problems);
            let id = ids.read(&section, problems);
            let Some(name) = name.filter(|name| !doubled("nodes", name, &names, problems)) else {
                nodes.incomplete = true;
                continue;
            };
            nodes.incomplete |= !is_name(name.value);
            nodes.list.push(NodeConfig {
                name: name.value.to_owned(),
                id,
            });
            names.push(name);
        }
        if let [only] = tables.as_slice() {
            let problem = "one node alone: nothing can take over its tasks";
            let remedy = "good for a trial; add a second [[node]] before it matters";
            problems.push(Problem::warning(only.span.clone(), problem, remedy));
        }
        nodes.list.sort_by_key(|node| node.id);
        nodes
    }

    /// The node of this name, or a report.
    pub(super) fn find(&self, name: &At<&str>, problems: &mut Problems) -> Option<NodeId> {
        if let Some(node) = self.list.iter().find(|node| node.name == name.value) {
            return Some(node.id);
        }
        if !self.incomplete {
            let problem = format!("there is no node `{}`", name.value);
            let remedy = match nearest(name.value, self.names()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("write {}, or add a [[node]]", either(self.names())),
            };
            problems.error(name.span.clone(), problem, remedy);
        }
        None
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|node| node.name.as_str())
    }
}

/// The ids of the nodes read so far, and those of all nodes for suggestions.
struct NodeIds {
    read: Vec<At<i64>>,
    written: Vec<i64>,
}

impl NodeIds {
    fn new(tables: &[At<&DeTable<'_>>]) -> NodeIds {
        let id = |table: &At<&DeTable<'_>>| integer(table.value.get("id")?.get_ref());
        NodeIds {
            read: Vec::new(),
            written: tables.iter().filter_map(id).collect(),
        }
    }

    /// The node's id, or a report and a placeholder.
    fn read(&mut self, section: &Section<'_>, problems: &mut Problems) -> NodeId {
        let all = 1..=NODES_MAX as i64;
        let free = all.clone().find(|id| !self.written.contains(id));
        if section.lacks("id") {
            let problem = "[[node]] has no `id`";
            let remedy = format!("add `id = {}`, which no other node has", free.unwrap_or(1));
            problems.error(section.span(), problem, remedy);
        }
        let id = section.integer("id", all, problems);
        let earlier = id
            .as_ref()
            .and_then(|id| self.read.iter().find(|at| at.value == id.value));
        if let (Some(id), Some(earlier)) = (&id, earlier) {
            let remedy = match free {
                Some(free) => format!("give each node its own id; {free} is free"),
                None => "give each node its own id".to_owned(),
            };
            let problem = Problem::error(id.span.clone(), "two nodes with the same id", remedy);
            problems.push(problem.and_at(earlier.span.clone(), "also used here"));
        }
        let number = id.as_ref().map_or(1, |id| id.value as u8);
        self.read.extend(id);
        NodeId::new(number).expect("the range was checked, and 1 is a node id")
    }
}
