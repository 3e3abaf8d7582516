//! S9: what outsiders send or write (frames, sectors) can be dropped, repeated, delayed, changed:
//! it is refused and counted, it never changes the view.
//!
//! Changed and made-up bytes go through the real decoders, which must refuse them; authentic bytes
//! sent again must decode to what they were, and it is the engine that has to see through them. And
//! whatever comes into force was proposed by an engine: each value an engine writes is noted with
//! its nonce before it is on the disk. A packet of a life that was over before its hearer's core
//! began can only be sent again by a stranger: no fresh frame of that life was ever heard there.

use std::collections::BTreeMap;
use std::fmt::Debug;

use standfast::engine::Event;
use standfast::mldc::Packet;
use standfast::register::Block;

use super::Violation;
use crate::world::World;

/// Values that engines have written, by epoch and nonce, with the moment of the first write.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    asked: BTreeMap<(u64, u64), u64>,
}

impl Origin {
    /// An engine writes this value now.
    pub(crate) fn writes(&mut self, id: (u64, u64), now: u64) {
        self.asked.entry(id).or_insert(now);
    }

    pub(crate) fn asked_at(&self, id: (u64, u64)) -> Option<u64> {
        self.asked.get(&id).copied()
    }

    pub(crate) fn knows(&self, id: (u64, u64)) -> bool {
        self.asked.contains_key(&id)
    }
}

/// What became of bytes that are not what their author wrote.
pub(crate) fn refused<T, E>(what: &str, decoded: Result<T, E>) -> Result<E, String> {
    match decoded {
        Ok(_) => Err(format!("{what} was taken for true")),
        Err(error) => Ok(error),
    }
}

/// What became of true bytes that came once more.
pub(crate) fn faithful<T: PartialEq, E: Debug>(
    original: &T,
    decoded: Result<T, E>,
) -> Result<T, String> {
    match decoded {
        Ok(decoded) if decoded == *original => Ok(decoded),
        Ok(_) => Err("true bytes were read as something else".into()),
        Err(error) => Err(format!("true bytes were refused: {error:?}")),
    }
}

/// What became of true bytes of a life that is over: they are counted among what was refused.
pub(crate) fn not_listened_to(before: u64, after: u64) -> Result<(), &'static str> {
    if after > before {
        return Ok(());
    }
    Err("listens to a packet of a life that was over before it began")
}

impl World {
    /// The engine of node `i` hears a packet.
    pub(crate) fn hears_packet(&mut self, i: usize, link: u8, packet: Packet) {
        let life = packet.origin.incarnation;
        let over = self.lives_over.get(&(life.boot, life.start));
        let foreign = over.is_some_and(|at| *at < self.nodes[i].core_began);
        let before = foreign.then(|| self.refused_messages(i));
        self.turn(i, Event::Packet { link, packet });
        let Some(before) = before else { return };
        self.checks.count("packet of an earlier life");
        if let Err(what) = not_listened_to(before, self.refused_messages(i)) {
            let name = &self.plan.names.nodes[self.nodes[i].slot];
            let what = format!("{name} {what}");
            self.violated(Violation::new("S9", what, vec![i]));
        }
    }

    fn refused_messages(&self, i: usize) -> u64 {
        let node = &self.nodes[i];
        let engine = node.engine.as_ref();
        engine.map_or(0, |engine| {
            let seen = engine.snapshot(node.clock.at(self.now));
            seen.register.refused_messages
        })
    }

    /// The engine of node `i` writes its block.
    pub(crate) fn proposed(&mut self, _: usize, block: &Block) {
        self.checks.origin.writes(block.value.id(), self.now);
    }
}

#[test]
fn what_should_be_refused_and_is_not_is_found() {
    assert_eq!(refused::<u8, _>("a frame", Err("bad tag")), Ok("bad tag"));
    assert!(refused::<_, &str>("a frame", Ok(1)).is_err());
    assert_eq!(faithful::<_, &str>(&7, Ok(7)), Ok(7));
    assert!(faithful::<_, &str>(&7, Ok(8)).is_err());
    assert!(faithful(&7, Err("bad tag")).is_err());
    assert_eq!(not_listened_to(3, 4), Ok(()));
    assert!(not_listened_to(3, 3).is_err());
}

#[test]
fn a_view_that_nobody_proposed_is_found() {
    let mut origin = Origin::default();
    origin.writes((4, 77), 1_000);
    origin.writes((4, 77), 2_000);
    assert_eq!(origin.asked_at((4, 77)), Some(1_000));
    assert!(origin.knows((4, 77)) && !origin.knows((4, 78)));
}
