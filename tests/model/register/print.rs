//! Registers by what they print.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::Node;

/// What tells the states of a node apart: all it holds, with instants by their order only.
pub(super) fn print<const N: usize>(node: &Node<N>) -> u64 {
    const MARK: &str = "Instant(";
    let io = (&node.read, node.read_ordered, &node.write, &node.late);
    let text = format!("{:?}{io:?}{}{}", node.register, node.proposal, node.known);
    let instants = |piece: &str| {
        let digits = piece.split(')').next().unwrap_or_default();
        digits
            .parse::<u64>()
            .expect("an instant prints as a number")
    };
    let mut order: Vec<u64> = text.split(MARK).skip(1).map(instants).collect();
    order.push(node.clock);
    order.sort_unstable();
    order.dedup();
    let mut hasher = DefaultHasher::new();
    order.binary_search(&node.clock).hash(&mut hasher);
    for (number, piece) in text.split(MARK).enumerate() {
        if number == 0 {
            piece.hash(&mut hasher);
        } else {
            let after = piece.find(')').unwrap_or(0);
            order.binary_search(&instants(piece)).hash(&mut hasher);
            piece[after..].hash(&mut hasher);
        }
    }
    hasher.finish()
}
