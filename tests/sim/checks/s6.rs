//! S6: no single fault, and no fault during the handling of another, makes a healthy owner lose its
//! task while it still reaches the register or all members.
//!
//! So every eviction, every lease that runs out and every task that changes hands needs a reason,
//! and only these are reasons:
//!
//! ```text
//! eviction, silent       for a heartbeat or longer, all at once: the node itself was off, dead,
//!  or cold start         stopped or frozen, or between it and the one that put it out one
//!                        direction was broken on every network *and* through the disk;
//!                        or its daemon had been started anew and had not yet said so;
//!                        or the one that put it out was in trouble and the node, its disk
//!                        bad, cannot know that it is back;
//!                        or the two were started with different configurations
//! eviction, rebooted     the listed life is over
//! lease ran out          for a heartbeat or longer, all at once: the node was in trouble, or
//!                        its disk was bad and it was alone until a moment ago, or some member
//!                        was in trouble, or one direction to it was broken;
//!                        or a new view was on its way until two heartbeats ago (one to tell that
//!                        it is known, one for the echo), and the disk of somebody was bad or
//!                        somebody in trouble may have left a ballot open that hid it
//! task moved             an operator, who named the heir; standby, leaving, a failure or unfitness
//!                        of that task there
//! ```
//! A heartbeat is enough: frames just before it and just behind may miss as well, and a disk is
//! back only when its link has tried it. Trouble of the one that puts out is none of these reasons:
//! after its own stall it has to look again before it judges, unless its clocks stood still too.
//! What counts as bad is in [`Place`]; networks that lose or delay many frames, and disks slower
//! than the design asks for, are bad all the time. A core that was just started is not heard for a
//! heartbeat.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use standfast::engine::{Cause, EvictReason, TaskRecord, View};
use standfast::model::{NodeId, NodeSet};

use super::Violation;
use crate::plan::Plan;
use crate::world::World;

/// Where something can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// Off, dead, stopped, frozen.
    Node { node: usize },
    /// A cut path.
    Path { link: usize, from: usize, to: usize },
    /// An interface without carrier.
    Port { node: usize, link: usize },
    /// A network that holds its frames back.
    Link { link: usize },
    /// A disk path that hangs, fails, is slow or garbles.
    Disk { node: usize, disk: usize },
}

impl Place {
    pub(crate) fn path((link, from, to): (usize, usize, usize)) -> Place {
        Place::Path { link, from, to }
    }

    fn is_disk_of(&self, node: usize) -> bool {
        matches!(self, Place::Disk { node: of, .. } if *of == node)
    }
}

/// When what was wrong.
#[derive(Debug)]
pub(crate) struct Troubles {
    nodes: usize,
    networks: usize,
    disks: usize,
    /// All networks, all disks are bad until this moment.
    networks_bad_until: u64,
    disks_bad_until: u64,
    /// Shortest trouble that counts, shortest silence that does, and how far back it may lie.
    shortest: u64,
    silence: u64,
    window: u64,
    /// Longest operation of a disk that does not hang.
    io_max: u64,
    open: BTreeMap<Place, u64>,
    over: Vec<(Place, u64, u64)>,
    /// Which node's clocks stood still from when to when.
    frozen: Vec<(usize, u64, u64)>,
}

impl Troubles {
    pub(crate) fn new(plan: &Plan) -> Troubles {
        let always = |bad: bool| if bad { u64::MAX } else { 0 };
        let timing = &plan.timing;
        Troubles {
            nodes: plan.nodes,
            networks: plan.networks,
            disks: plan.disks,
            networks_bad_until: always(plan.networks_unreliable()),
            disks_bad_until: always(plan.disks_unreliable()),
            shortest: timing.heartbeat.0,
            silence: timing.heartbeat.0,
            window: timing.detect.0 * 2,
            io_max: timing.detect.0,
            open: (0..plan.nodes)
                .map(|node| (Place::Node { node }, 0))
                .collect(),
            over: Vec::new(),
            frozen: Vec::new(),
        }
    }

    /// It is bad from now on, or well.
    pub(crate) fn set(&mut self, place: Place, bad: bool, now: u64) {
        if bad {
            self.open.entry(place).or_insert(now);
        } else if let Some(from) = self.open.remove(&place) {
            self.over.push((place, from, now));
        }
    }

    /// It is bad for this time.
    pub(crate) fn note(&mut self, place: Place, from: u64, to: u64) {
        self.over.push((place, from, to));
    }

    /// The node's clocks stood still: to it no time has passed.
    pub(crate) fn stood_still(&mut self, node: usize, from: u64, to: u64) {
        self.frozen.push((node, from, to));
    }

    /// Is the place well at this moment, and everything that was begun before?
    pub(crate) fn is_well(&self, place: Place, now: u64) -> bool {
        !self.spells().any(|(ill, _, to)| ill == place && to > now)
    }

    /// All media are well from now on.
    pub(crate) fn all_over(&mut self, now: u64) {
        let media = |place: &Place| !matches!(place, Place::Node { .. });
        let places: Vec<Place> = self.open.keys().copied().filter(media).collect();
        for place in places {
            self.set(place, false, now);
        }
        // What a disk was asked comes back when it would have: see `World::io_time`.
        let disk = |place: &Place| matches!(place, Place::Disk { .. });
        for (place, _, to) in &mut self.over {
            if media(place) && !disk(place) {
                *to = (*to).min(now);
            }
        }
        self.networks_bad_until = self.networks_bad_until.min(now);
        self.disks_bad_until = self.disks_bad_until.min(now + self.io_max);
    }

    fn spells(&self) -> impl Iterator<Item = (Place, u64, u64)> + '_ {
        let open = self
            .open
            .iter()
            .map(|(place, from)| (*place, *from, u64::MAX));
        self.over.iter().copied().chain(open)
    }

    /// Was the node itself in trouble at any time in the window before `asked`, or until `now`?
    pub(crate) fn of_node(&self, node: usize, asked: u64, now: u64) -> bool {
        let begin = asked.saturating_sub(self.window);
        let mut spells = self.spells();
        spells.any(|(place, from, to)| place == Place::Node { node } && from <= now && to >= begin)
    }

    /// Longest time between `begin` and `now` in which `bad` held without a break of a heartbeat.
    fn longest(&self, begin: u64, now: u64, about: &[usize], bad: impl Fn(&Moment) -> bool) -> u64 {
        let of = |place: &Place| match *place {
            Place::Node { node } | Place::Port { node, .. } | Place::Disk { node, .. } => {
                about.contains(&node)
            }
            Place::Path { from, to, .. } => about.contains(&from) && about.contains(&to),
            Place::Link { .. } => true,
        };
        let after = |to: u64| to.saturating_add(self.shortest);
        let spells = self
            .spells()
            .filter(|(place, from, to)| of(place) && *from < now && after(*to) > begin);
        let spells: Vec<_> = spells.collect();
        let edges = spells
            .iter()
            .flat_map(|(_, from, to)| [*from, *to, after(*to)]);
        let mut edges: Vec<u64> = edges.filter(|edge| (begin..now).contains(edge)).collect();
        edges.extend([begin, now, self.networks_bad_until, self.disks_bad_until]);
        edges.retain(|edge| (begin..=now).contains(edge));
        edges.sort_unstable();
        edges.dedup();
        let (mut longest, mut since, mut until) = (0, 0, None);
        for pair in edges.windows(2) {
            let at = pair[0];
            let in_spell = |until: fn(u64, u64) -> u64| {
                let at_work = spells
                    .iter()
                    .filter(move |(_, from, to)| *from <= at && until(*to, self.shortest) > at);
                at_work.map(|(place, ..)| *place).collect()
            };
            let moment = Moment {
                networks: self.networks,
                disks: self.disks,
                networks_bad: at < self.networks_bad_until,
                disks_bad: at < self.disks_bad_until,
                bad: in_spell(|to, _| to),
                lately: in_spell(u64::saturating_add),
            };
            if bad(&moment) {
                // Frames come once in a heartbeat: none need come in a shorter break.
                if until.is_none_or(|until| at - until >= self.shortest) {
                    since = at;
                }
                until = Some(pair[1]);
                longest = longest.max(pair[1] - since);
            }
        }
        longest
    }

    /// Does anything justify that `by` asked at `asked` to put `node` out, decided `now`? Does the
    /// node still lead the life that is listed?
    pub(crate) fn justify_eviction(
        &self,
        (node, lives): (usize, bool),
        by: usize,
        asked: u64,
        now: u64,
    ) -> bool {
        // Whose clocks stood still in the middle of a ballot cannot know that its reason is old.
        let middle = |(frozen, _, to): &&(usize, u64, u64)| {
            *frozen == by && (*to..=*to + self.shortest).contains(&asked)
        };
        let asked = self
            .frozen
            .iter()
            .rfind(middle)
            .map_or(asked, |(_, from, _)| *from);
        let begin = asked.saturating_sub(self.window);
        let silent = |moment: &Moment| moment.silent(node, by) || moment.still(node);
        if self.longest(begin, now, &[node, by], silent) >= self.silence {
            return true;
        }
        let disk = |moment: &Moment| moment.disk_bad(node);
        let unread = self.longest(begin, now, &[node], disk);
        // It has asked for a view without the other, and confirms nothing until that is settled.
        let spells = self
            .spells()
            .filter(|(place, _, to)| place.is_disk_of(node) && *to >= begin);
        let ill_since = spells.map(|(_, from, _)| from).min().unwrap_or(asked);
        let judge = self.of_node(by, ill_since.min(asked), now);
        !lives || unread >= self.shortest && judge
    }

    /// Does anything justify that the lease of `node` ran out now, with these other nodes listed?
    /// Is no ballot open, do all know the newest view, and lead the lives that it lists? While one
    /// does not, frames confirm nothing between unequals.
    pub(crate) fn justify_end(
        &self,
        node: usize,
        others: &[usize],
        (knows, lives): (bool, bool),
        now: u64,
    ) -> bool {
        let begin = now.saturating_sub(self.window);
        let unconfirmed = |moment: &Moment| {
            let unheard = |other: &usize| !moment.confirms(node, *other) || moment.still(*other);
            !knows || !lives || others.is_empty() || others.iter().any(unheard)
        };
        let unproved =
            |moment: &Moment| moment.still(node) || moment.disk_bad(node) && unconfirmed(moment);
        let about: Vec<usize> = others.iter().copied().chain([node]).collect();
        if self.longest(begin, now, &about, unproved) >= self.silence {
            return true;
        }
        let hidden = |other: usize| {
            let disk = |moment: &Moment| !moment.share_most(node, other) || moment.still(other);
            self.longest(begin, now, &[node, other], disk) > 0
        };
        !knows && (0..self.nodes).any(hidden)
    }
}

/// What is bad at one moment.
struct Moment {
    networks: usize,
    disks: usize,
    networks_bad: bool,
    disks_bad: bool,
    bad: Vec<Place>,
    /// The same, or was so a heartbeat ago at most.
    lately: Vec<Place>,
}

impl Moment {
    fn disk_bad(&self, node: usize) -> bool {
        let of = |place: &&Place| place.is_disk_of(node);
        self.disks_bad || self.bad.iter().filter(of).count() > self.disks / 2
    }

    /// Does one read a majority of the disks that the other can write?
    fn share_most(&self, one: usize, two: usize) -> bool {
        let is_good = |disk: &usize| {
            let ends = [one, two].map(|node| Place::Disk { node, disk: *disk });
            !ends.iter().any(|place| self.bad.contains(place))
        };
        !self.disks_bad && (0..self.disks).filter(is_good).count() > self.disks / 2
    }

    fn still(&self, node: usize) -> bool {
        self.bad.contains(&Place::Node { node })
    }

    /// Is one direction between the two broken on every medium?
    fn silent(&self, one: usize, two: usize) -> bool {
        !self.hears(one, two) || !self.hears(two, one)
    }

    /// Do frames of `from` reach `to` on any medium? What a disk has not taken, or shown, the next
    /// heartbeat brings.
    fn hears(&self, from: usize, to: usize) -> bool {
        let by_disk = (0..self.disks).any(|disk| {
            let ends = [from, to].map(|node| Place::Disk { node, disk });
            !self.disks_bad && !ends.iter().any(|place| self.lately.contains(place))
        });
        self.hears_by_network(from, to) || by_disk
    }

    /// Do frames between the two come to and fro well within a lease? Through one disk whose others
    /// are bad they do not: there and back they take three heartbeats, and a lease is four.
    fn confirms(&self, one: usize, two: usize) -> bool {
        let by_network = self.hears_by_network(one, two) && self.hears_by_network(two, one);
        by_network || !(self.disk_bad(one) || self.disk_bad(two))
    }

    fn hears_by_network(&self, from: usize, to: usize) -> bool {
        (0..self.networks).any(|link| {
            let broken = [
                Place::Path { link, from, to },
                Place::Port { node: from, link },
                Place::Port { node: to, link },
                Place::Link { link },
            ];
            !self.networks_bad && !broken.iter().any(|place| self.bad.contains(place))
        })
    }
}

/// What justifies that a task is taken, or is to be taken, from an owner that is a member still.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Grounds {
    /// An operator has asked for it to be moved to these nodes.
    pub(crate) asked: NodeSet,
    /// The owner is in standby or leaves.
    pub(crate) standby: bool,
    /// The task, or the runner, has failed there since the owner got it.
    pub(crate) failed: bool,
    /// The owner was unfit for it since then.
    pub(crate) unfit: bool,
}

/// A task changes hands, or an heir is named, while its owner is a member.
pub(crate) fn movement(old: &TaskRecord, new: &TaskRecord, grounds: Grounds) -> Result<(), String> {
    let named = new.heir.is_some() && new.heir != old.heir && new.heir != old.owner;
    let moved = new.owner != old.owner;
    if !named && !moved {
        return Ok(());
    }
    let justified = match new.cause {
        Cause::Operator => {
            let to = if moved { new.owner } else { new.heir };
            to.is_some_and(|to| grounds.asked.contains(to))
        }
        Cause::Standby => grounds.standby,
        Cause::Failed => grounds.failed,
        Cause::Unfit => grounds.unfit,
        Cause::HandedOver => old.heir.is_some() && new.owner == old.heir,
        Cause::Stopped => !old.wanted,
        Cause::Initial | Cause::Placed | Cause::Evicted | Cause::CalledOff | Cause::Settled => {
            false
        }
    };
    if justified {
        return Ok(());
    }
    Err(format!(
        "is taken from its owner {:?} for {:?}>{:?}, {:?}, with {grounds:?}",
        old.owner, new.owner, new.heir, new.cause
    ))
}

impl World {
    /// A view is decided: who is put out, and which task is moved, without a reason?
    pub(super) fn judge_decision(&mut self, before: &View, view: &View, id: (u64, u64)) {
        for old in &before.members {
            if view.member(old.node).is_some() {
                continue;
            }
            let machine = self.living(old.node, old.incarnation.boot);
            if let Some(machine) = machine {
                self.must_be_out(machine, view.epoch);
            }
            let lives = machine.is_some_and(|i| self.nodes[i].incarnation == old.incarnation);
            self.judge_eviction(old.node, machine.map(|i| (i, lives)), view, id);
        }
        if before.config_hash != view.config_hash {
            return; // formed anew: its tasks are other ones
        }
        for task in 0..before.tasks.len().min(view.tasks.len()) {
            self.judge_movement(task, before, view, id);
        }
    }

    fn judge_eviction(
        &mut self,
        node: NodeId,
        machine: Option<(usize, bool)>,
        view: &View,
        id: (u64, u64),
    ) {
        let mut gone = view.evictions.iter();
        let eviction = gone.find(|gone| gone.node == node && gone.epoch == view.epoch);
        let (Some(eviction), Some((machine, lives)), true) = (eviction, machine, self.checks.s6)
        else {
            return;
        };
        let justified = match eviction.reason {
            EvictReason::Rebooted => false,
            EvictReason::Silent | EvictReason::ColdStart => {
                let asked = self.checks.origin.asked_at(id).unwrap_or(self.now);
                let by = eviction.by.index();
                self.is_of_another_plan(machine, by)
                    || self
                        .troubles
                        .justify_eviction((machine, lives), by, asked, self.now)
            }
        };
        if !justified {
            let names = &self.plan.names;
            let (who, by) = (names.id(node), names.id(eviction.by));
            let what = format!("healthy {who} was put out by {by}: {:?}", eviction.reason);
            let about = vec![machine, eviction.by.index()];
            self.violated(Violation::new("S6", what, about));
        }
    }

    /// Was a daemon started with another configuration than the one that puts it out has? It is
    /// named and kept out, however healthy, and the listed life before it is over.
    fn is_of_another_plan(&self, machine: usize, by: usize) -> bool {
        self.nodes[machine].runs_drifted != self.nodes[by].runs_drifted
    }

    fn judge_movement(&mut self, task: usize, before: &View, view: &View, id: (u64, u64)) {
        let (old, new) = (&before.tasks[task], &view.tasks[task]);
        let bit = 1 << task;
        if let (Some(heir), true) = (new.heir, new.heir != old.heir) {
            self.nodes[heir.index()].held[task].trouble = false;
        }
        if let (Some(owner), true) = (new.owner, new.owner != old.owner) {
            let node = &mut self.nodes[owner.index()];
            // An heir has run it already, and it may have failed since.
            node.held[task].trouble &= new.owner == old.heir;
            node.unfit_lately = (node.unfit_lately & !bit) | (!(node.fit & node.fit_told) & bit);
        }
        let Some(owner) = old.owner else { return };
        let same = before.member(owner).map(|member| member.incarnation)
            == view.member(owner).map(|member| member.incarnation);
        if !same || before.member(owner).is_none() || !self.checks.s6 {
            return;
        }
        let node = &self.nodes[owner.index()];
        // What was asked for then may be decided when the daemon has been started anew.
        let asked = self.checks.origin.asked_at(id).unwrap_or(self.now);
        let (told, back) = node.leaving;
        let leaving = node.was_told_to_leave || (told..=back).contains(&asked);
        let grounds = Grounds {
            asked: self.checks.asked[task],
            standby: before.standby.contains(owner) || leaving,
            failed: node.held[task].trouble,
            unfit: node.unfit_lately & bit != 0,
        };
        if let Err(what) = movement(old, new, grounds) {
            let what = format!("{} {what}", self.plan.names.tasks[task]);
            self.violated(Violation::new("S6", what, vec![owner.index()]));
        }
    }

    /// Is the newest value decided, and no other one on its way?
    fn is_settled(&self) -> bool {
        let top = crate::disk::top(&self.disks);
        let nodes = self.nodes.iter();
        let votes = nodes.flat_map(|node| node.votes.iter().chain(&node.unkept));
        top.is_none_or(|id| self.checks.decided_is(id))
            && !crate::disk::ballot_open(&self.disks, votes)
    }

    /// Node `i` stops these tasks in a hurry, or its guard does.
    pub(crate) fn lost_right(&mut self, i: usize, tasks: u64) {
        let node = &self.nodes[i];
        let Some(view) = self.checks.newest() else {
            return;
        };
        let owns = |task: usize| {
            node.held[task].whole
                && view.tasks.get(task).is_some_and(|record| {
                    record.owner == Some(node.id) && record.heir.is_none() && record.wanted
                })
        };
        let lost = (0..self.plan.tasks).find(|task| tasks & 1 << task != 0 && owns(*task));
        let ended = node.clock.at(self.now) >= node.page.lease_deadline;
        let member = view.grants(node.id, node.incarnation);
        let (Some(task), true, true, true) = (lost, ended, member, self.checks.s6) else {
            return;
        };
        // Who was put out a moment ago was waited for until then.
        let window = self.plan.timing.detect.0 * 2;
        let lately = self.checks.decided.values().rev();
        let lately = lately.take_while(|known| known.at + window > self.now);
        let lately = lately.map(|known| known.before.0 | known.view.listed().0);
        // Nobody can have confirmed anything yet to one who was alone a moment ago.
        let moment = self.plan.timing.heartbeat.0 * 3;
        let latest = self.checks.decided.values().rev();
        let mut latest = latest.take_while(|known| known.at + moment > self.now);
        let was_alone = latest.any(|known| known.before.without(node.id).is_empty());
        let others = if was_alone || view.listed().without(node.id).is_empty() {
            NodeSet::EMPTY
        } else {
            NodeSet(lately.fold(view.listed().0, |all, listed| all | listed))
        };
        let others = others.without(node.id);
        let others: Vec<usize> = others.iter().map(|other| other.index()).collect();
        let listed = view.listed();
        let echoed = self.plan.timing.heartbeat.0 * 2;
        let knows_it = |other: NodeId| {
            let node = &self.nodes[other.index()];
            node.epoch == view.epoch && self.now >= node.epoch_at + echoed
        };
        let knows = self.is_settled() && listed.iter().all(knows_it);
        let mut members = view.members.iter();
        let lives = members.all(|member| {
            let machine = self.living(member.node, member.incarnation.boot);
            machine.is_some_and(|i| self.nodes[i].incarnation == member.incarnation)
        });
        if !self
            .troubles
            .justify_end(i, &others, (knows, lives), self.now)
        {
            let names = &self.plan.names;
            let what = format!(
                "healthy {} loses {}: its lease has run out",
                names.nodes[node.slot], names.tasks[task]
            );
            self.violated(Violation::new("S6", what, vec![i]));
        }
    }
}
