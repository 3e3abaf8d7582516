//! Every key the file may hold, with an example: what is unknown, misplaced or missing is told
//! from here.

/// The keys of one table.
pub(super) struct Schema {
    /// How messages call the table.
    pub(super) title: &'static str,
    /// Name of each key and a line that shows its use.
    pub(super) keys: &'static [Key],
}

/// One key of a table.
#[derive(Clone, Copy)]
pub(super) struct Key {
    /// Left of the equals sign.
    pub(super) name: &'static str,
    /// A line that could stand in the file.
    pub(super) example: &'static str,
}

const fn key(name: &'static str, example: &'static str) -> Key {
    Key { name, example }
}

/// What stands above and outside all tables.
pub(super) const TOP: Schema = Schema {
    title: "the file",
    keys: &[
        key("revision", "revision = 1"),
        key("cluster", "[cluster]"),
        key("node", "[[node]]"),
        key("link", "[[link]]"),
        key("watchdog", "[watchdog]"),
        key("fence", "[[fence]]"),
        key("task", "[[task]]"),
    ],
};

/// `[cluster]`
pub(super) const CLUSTER: Schema = Schema {
    title: "[cluster]",
    keys: &[
        key("name", "name = \"pair\""),
        key("id", "id = \"(32 hex digits from standfast init)\""),
        key("detect", "detect = \"500ms\""),
        key("secret", "secret = \"/etc/standfast/secret\""),
    ],
};

/// `[[node]]`
pub(super) const NODE: Schema = Schema {
    title: "[[node]]",
    keys: &[key("name", "name = \"a\""), key("id", "id = 1")],
};

/// `[[link]]` whose kind is missing or unknown
pub(super) const LINK: Schema = Schema {
    title: "[[link]]",
    keys: &[
        LINK_ETHERNET.keys[0],
        LINK_ETHERNET.keys[1],
        LINK_ETHERNET.keys[2],
        LINK_ETHERNET.keys[3],
        LINK_DISK.keys[2],
    ],
};

/// `[[link]]` over a network card
pub(super) const LINK_ETHERNET: Schema = Schema {
    title: "a [[link]] of kind ethernet",
    keys: &[
        key("name", "name = \"cable-1\""),
        key("kind", "kind = \"ethernet\""),
        key("interface", "interface = \"eth1\""),
        key("ethertype", "ethertype = 0x88B5"),
    ],
};

/// `[[link]]` over a shared disk
pub(super) const LINK_DISK: Schema = Schema {
    title: "a [[link]] of kind disk",
    keys: &[
        key("name", "name = \"disk-1\""),
        key("kind", "kind = \"disk\""),
        key("device", "device = \"/dev/disk/by-id/...\""),
    ],
};

/// `[watchdog]`
pub(super) const WATCHDOG: Schema = Schema {
    title: "[watchdog]",
    keys: &[
        key("device", "device = \"/dev/watchdog\""),
        key("stand-in", "stand-in = \"/run/standfast/watchdog\""),
        key("timeout", "timeout = \"10s\""),
        key("self-fence", "self-fence = true"),
    ],
};

/// `[[fence]]`
pub(super) const FENCE: Schema = Schema {
    title: "[[fence]]",
    keys: &[
        key("name", "name = \"bmc-a\""),
        key("agent", "agent = \"fence_ipmilan\""),
        key("nodes", "nodes = [\"a\"]"),
        key("plug", "plug = { a = \"1\", b = \"2\" }"),
        key("level", "level = 1"),
        key("timeout", "timeout = \"60s\""),
        key("test-every", "test-every = \"1h\""),
        key("action", "action = \"off\""),
        key(
            "options",
            "options = { ip = \"10.1.0.1\", username = \"standfast\" }",
        ),
    ],
};

/// `[[task]]`
pub(super) const TASK: Schema = Schema {
    title: "[[task]]",
    keys: &[
        key("name", "name = \"web\""),
        key("nodes", "nodes = [\"a\", \"b\"]"),
        key("enabled", "enabled = true"),
        key("fence-required", "fence-required = true"),
        key("restart", "[task.restart]"),
        key("object", "[[task.object]]"),
    ],
};

/// `[task.restart]`
pub(super) const RESTART: Schema = Schema {
    title: "[task.restart]",
    keys: &[
        key("attempts", "attempts = 3"),
        key("window", "window = \"10m\""),
    ],
};

/// `[[task.object]]`, without the parameters of its kind
pub(super) const OBJECT: Schema = Schema {
    title: "[[task.object]]",
    keys: &[
        key("name", "name = \"address\""),
        key("kind", "kind = \"ip\""),
        key("step", "step = 1"),
    ],
};

/// All of them, for keys that stand in the wrong table.
pub(super) const ALL: [&Schema; 10] = [
    &TOP,
    &CLUSTER,
    &NODE,
    &LINK_ETHERNET,
    &LINK_DISK,
    &WATCHDOG,
    &FENCE,
    &TASK,
    &RESTART,
    &OBJECT,
];

/// The known word that was probably meant, if one is near enough to be worth asking.
pub(crate) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let plain = |word: &str| word.to_lowercase().replace('_', "-");
    let word = plain(word);
    let allowed = match word.chars().count() {
        0 => return None,
        1..=2 => 0,
        3..=5 => 1,
        6..=9 => 2,
        _ => 3,
    };
    known
        .into_iter()
        .map(|name| (strsim::osa_distance(&word, &plain(name)), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Words for a sentence, each in backquotes: all of them.
pub(crate) fn listed<'k>(words: impl IntoIterator<Item = &'k str>) -> String {
    joined(words, "and")
}

/// Words for a sentence, each in backquotes: one of them.
pub(super) fn either<'k>(words: impl IntoIterator<Item = &'k str>) -> String {
    joined(words, "or")
}

fn joined<'k>(words: impl IntoIterator<Item = &'k str>, with: &str) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match quoted.as_slice() {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} {with} {last}", most.join(", ")),
    }
}
