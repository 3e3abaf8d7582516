//! The hash that every frame carries, so that nodes with different configurations notice.
//!
//! It is taken over a canonical form of the parsed document, not of the text: comments, blank
//! space, the order of keys within a table, `0x10` for `16` and `[a] b = 1` for `a = { b = 1 }`
//! do not count. Every key and every value does, also a default that is written down, also the
//! order of nodes, links, tasks and objects. `500ms` and `0.5s` are two texts and hash differently.
//!
//! ```text
//! value   = tag, content
//! text    = 's', length u64, bytes   integer = 'i', i64      float = 'f', IEEE 754 bits
//! boolean = 'b', 0 or 1              date    = 'd', length u64, RFC 3339
//! array   = 'a', count u64, values   table   = 't', count u64, (text, value) by rising key
//! ```
//!
//! All numbers are little-endian. The input starts with [`CONTEXT`], so that a later form cannot be
//! mistaken for this one.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::model::ConfigHash;

/// First bytes of the hashed form.
const CONTEXT: &[u8] = b"standfast configuration 1\n";

/// The first 8 bytes of the BLAKE3 hash of the document's canonical form.
pub(super) fn hash(document: &DeTable<'_>) -> ConfigHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(CONTEXT);
    feed_table(&mut hasher, document);
    let whole: [u8; 32] = hasher.finalize().into();
    std::array::from_fn(|at| whole[at])
}

fn feed(hasher: &mut blake3::Hasher, value: &Spanned<DeValue<'_>>) {
    match value.get_ref() {
        DeValue::String(text) => feed_text(hasher, b's', text),
        DeValue::Integer(number) => {
            // No integer of a checked configuration is too large; the text keeps them apart anyway.
            match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => hasher.update(b"i").update(&number.to_le_bytes()),
                Err(_) => hasher.update(b"I").update(number.as_str().as_bytes()),
            };
        }
        DeValue::Float(number) => {
            let number: f64 = number.as_str().parse().unwrap_or(f64::NAN);
            hasher.update(b"f").update(&number.to_bits().to_le_bytes());
        }
        DeValue::Boolean(truth) => {
            hasher.update(&[b'b', u8::from(*truth)]);
        }
        DeValue::Datetime(moment) => feed_text(hasher, b'd', &moment.to_string()),
        DeValue::Array(entries) => {
            hasher
                .update(b"a")
                .update(&(entries.len() as u64).to_le_bytes());
            for entry in entries.iter() {
                feed(hasher, entry);
            }
        }
        DeValue::Table(table) => feed_table(hasher, table),
    }
}

fn feed_table(hasher: &mut blake3::Hasher, table: &DeTable<'_>) {
    hasher
        .update(b"t")
        .update(&(table.len() as u64).to_le_bytes());
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by(|(a, _), (b, _)| a.get_ref().cmp(b.get_ref()));
    for (key, value) in entries {
        feed_text(hasher, b's', key.get_ref());
        feed(hasher, value);
    }
}

fn feed_text(hasher: &mut blake3::Hasher, tag: u8, text: &str) {
    hasher
        .update(&[tag])
        .update(&(text.len() as u64).to_le_bytes())
        .update(text.as_bytes());
}
