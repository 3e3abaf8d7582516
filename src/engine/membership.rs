//! Who is in: news of the register, suspicion, and who may put whom out.

use super::{Action, Class, Engine, EvictReason, Standing, View};
use crate::model::{NodeId, NodeSet};
use crate::register::{News, Value};
use crate::time::Instant;

impl Engine {
    pub(super) fn on_news(&mut self, news: News) {
        match news {
            News::Learned(value) => self.learn(&value),
            News::Proof { begun, epoch } => {
                if epoch == self.view.epoch && self.is_member() {
                    self.lease.by_register = self.lease.by_register.max(Some(begun));
                }
            }
            News::Won { value, at } => {
                let proposal = self.proposal.take();
                self.learn(&value);
                if let Some(proposal) = proposal {
                    self.on_won(proposal, at);
                }
            }
            News::Lost { current, unclear } => {
                let lost = self.proposal.take();
                self.learn(&current);
                if let Some(proposal) = lost {
                    let by = if unclear {
                        "an unclear try"
                    } else {
                        "another node's change"
                    };
                    self.note(Class::Info, None, format!("{} lost to {by}", proposal.what));
                }
            }
            News::GaveUp { unclear } => {
                if let Some(proposal) = self.proposal.take() {
                    if unclear {
                        self.asked_out = NodeSet(self.asked_out.0 | proposal.targets.0);
                    }
                    self.propose_after = self.now + self.timing().heartbeat;
                    self.note(
                        Class::Warning,
                        None,
                        format!("{} could not be written to the register", proposal.what),
                    );
                }
            }
        }
    }

    fn learn(&mut self, value: &Value) {
        if value.epoch <= self.view.epoch {
            return;
        }
        let view = if value.bytes.is_empty() {
            Ok(View {
                epoch: value.epoch,
                ..View::default()
            })
        } else {
            View::decode(&value.bytes)
        };
        match view {
            Ok(mut view) => {
                view.epoch = value.epoch;
                self.adopt(view);
            }
            Err(error) => self.alarm(format!(
                "the register holds a view that cannot be used: {error}"
            )),
        }
    }

    fn adopt(&mut self, view: View) {
        let now = self.now;
        let was_member = self.is_member();
        let old = std::mem::replace(&mut self.view, view);
        self.view_known_at = now;
        self.asked_out = NodeSet::EMPTY;
        for task in self.tasks() {
            if old.task(task).epoch != self.view.task(task).epoch {
                self.task_known_at[task.index()] = now;
            }
        }
        for node in NodeId::all() {
            let fresh_listing = old.member(node) != self.view.member(node);
            let peer = self.peers.of_mut(node);
            peer.confirmed = None;
            if fresh_listing {
                peer.listed_alive = now;
                peer.suspected = None;
                peer.looking = None;
            }
        }
        self.note_evictions(&old);
        let is_member = self.is_member();
        if is_member && !was_member {
            self.member_since = now;
            self.waiting_for = None;
            self.hear_out_the_present();
            self.note(
                Class::Notice,
                None,
                format!("member in epoch {}", self.view.epoch),
            );
        }
        if was_member && !is_member {
            self.lose_membership();
        }
        self.tell_changes(&old);
        self.urgent = true;
    }

    /// A daemon that was started again while nobody could take note of it is there, though its
    /// listed life is silent: from now on it can say so itself, and gets the time for that.
    fn hear_out_the_present(&mut self) {
        for node in NodeId::all() {
            if self.heard_lately(node) {
                let peer = self.peers.of_mut(node);
                (peer.listed_alive, peer.suspected, peer.looking) = (self.now, None, None);
            }
        }
    }

    fn lose_membership(&mut self) {
        self.lease.end();
        // Contact counts anew: a machine whose clock stood still does not know that it was away,
        // and must not be back before its guard has taken what it held.
        for node in NodeId::all() {
            self.peers.of_mut(node).alive_since = self.now;
        }
        let eviction = self
            .view
            .evictions
            .iter()
            .find(|eviction| eviction.node == self.me());
        let how = match eviction {
            Some(eviction) if !self.leaving => {
                format!(
                    "evicted by {}: {}",
                    self.name(eviction.by),
                    eviction.reason.words()
                )
            }
            Some(_) | None => "no member any more".to_owned(),
        };
        let class = if self.leaving {
            Class::Notice
        } else {
            Class::Major
        };
        self.note(class, Some(self.setup.me), how);
    }

    /// Since when the listed life of the node has given no sign that counts.
    fn silent_since(&self, node: NodeId) -> Instant {
        self.peers.of(node).listed_alive.max(self.trusted_at)
    }

    /// When the node has to be looked at again.
    pub(super) fn next_look(&self, node: NodeId) -> Instant {
        let peer = self.peers.of(node);
        let half = self.timing().heartbeat.over(2);
        match (peer.suspected, peer.looking) {
            (Some(at), _)
                if self.proposal.is_none() && self.now < at + self.timing().yield_race =>
            {
                at + self.timing().yield_race
            }
            (Some(_), _) => self.next_beat,
            (None, Some(at)) => at + half,
            (None, None) => self.silent_since(node) + self.timing().suspect - half,
        }
    }

    /// Suspects who was silent too long. In the last half heartbeat before that every link is
    /// emptied once more, since the frames may wait in a queue that this node was too slow to read.
    pub(super) fn judge_peers(&mut self) {
        if self.distrust.is_some() {
            return;
        }
        let (now, timing) = (self.now, *self.timing());
        let half = timing.heartbeat.over(2);
        for node in self.view.listed().without(self.me()).iter() {
            let silent = now.since(self.silent_since(node));
            if silent + half < timing.suspect {
                let peer = self.peers.of_mut(node);
                (peer.suspected, peer.looking) = (None, None);
                continue;
            }
            let Some(from) = self.peers.of(node).looking else {
                self.peers.of_mut(node).looking = Some(now);
                self.urgent = true;
                continue;
            };
            let looked = self.drained_since(from) || now.since(from) >= half;
            let due = looked && silent >= timing.suspect;
            if due && self.peers.of(node).suspected.is_none() {
                self.peers.of_mut(node).suspected = Some(now);
                let name = self.name(node).to_owned();
                self.note(
                    Class::Warning,
                    Some(node),
                    format!(
                        "node {name} suspected: silent on all links for {} ms",
                        silent.as_ms()
                    ),
                );
            }
        }
    }

    /// The node was heard of with another boot than the listed one: the listed life is over.
    pub(super) fn proved_rebooted(&self, node: NodeId) -> bool {
        let listed = self.view.member(node).map(|member| member.incarnation.boot);
        let heard = self.peers.of(node).incarnation.map(|life| life.boot);
        matches!((listed, heard), (Some(listed), Some(heard)) if listed != heard)
            && self.heard_lately(node)
    }

    /// Nodes that this member should put out now, and why.
    pub(super) fn due_for_eviction(&self) -> Vec<(NodeId, EvictReason)> {
        let others = self.view.listed().without(self.me());
        let due = others.iter().filter_map(|node| {
            if self.proved_rebooted(node) {
                return Some((node, EvictReason::Rebooted));
            }
            let suspected = self.peers.of(node).suspected?;
            let yields = self.gives_way_to(node);
            let wait = if yields {
                self.timing().yield_race
            } else {
                crate::time::Span::ZERO
            };
            (self.now.since(suspected) >= wait).then_some((node, EvictReason::Silent))
        });
        due.collect()
    }

    /// In a race of two the fitter one goes first; equally fit, the one with the lower id.
    fn gives_way_to(&self, node: NodeId) -> bool {
        let theirs = self.peers.of(node).fitness;
        let mine = self.fitness();
        mine < theirs || (mine == theirs && node < self.me())
    }

    /// May this node, which is not a member, put out all that are [`absent`](Engine::absent)?
    ///
    /// A lease by frames needs the confirmation of every listed node. It cannot exist when an
    /// earlier life of this node was a member (nobody confirms in its name any more), nor when at
    /// most one absent node is left (it has nobody who could confirm: whoever is present either
    /// knows the view and with it that this node's word is needed, or there is none). Then only the
    /// register gives leases, and they end with the eviction.
    pub(super) fn may_start_alone(&self) -> Result<(), String> {
        let me = self.view.member(self.me());
        if me.is_some_and(|m| m.standing == Standing::Member) {
            return Ok(());
        }
        let open: Vec<&str> = self
            .absent()
            .filter(|node| !self.proved_rebooted(*node) && !self.confirmed_off.contains(*node))
            .map(|node| self.name(node))
            .collect();
        if open.len() <= 1 {
            return Ok(());
        }
        let names = open.join(", ");
        Err(format!(
            "{names} were members and may still run tasks; if they are off, say so with \
             `standfast confirm-off NODE`"
        ))
    }

    /// Has this node watched every other listed node long enough to call it silent?
    pub(super) fn all_others_silent(&self) -> bool {
        let others = self.view.listed().without(self.me());
        self.has_watched() && others.iter().all(|node| self.is_absent(node))
    }

    /// Is nobody with full rights there any more, while those who are there are joining as well,
    /// and all know a view that lists this node? Then each would wait for the others for ever.
    pub(super) fn no_member_is_left(&self) -> bool {
        let others = self.view.members.iter();
        let mut others = others.filter(|member| member.node != self.me());
        self.is_listed()
            && self.has_watched()
            && others.all(|member| {
                let peer = self.peers.of(member.node);
                let knows = member.standing == Standing::Joining
                    && self.heard_lately(member.node)
                    && peer.incarnation == Some(member.incarnation)
                    && peer.epoch == self.view.epoch;
                knows || self.is_absent(member.node)
            })
    }

    /// Does nobody live any more who had the view's configuration, while all that are there were
    /// restarted with this node's? Then each would wait for the others for ever.
    pub(super) fn all_have_another_plan(&self) -> bool {
        let others = self.view.members.iter();
        let mut others = others.filter(|member| member.node != self.me());
        self.view.config_hash != self.setup.config_hash
            && self.has_watched()
            && others.all(|member| {
                let peer = self.peers.of(member.node);
                let anew = self.heard_lately(member.node)
                    && peer.incarnation != Some(member.incarnation)
                    && !peer.incompatible;
                anew || self.is_absent(member.node)
            })
    }

    /// Listed nodes, but this one, that are not there.
    pub(super) fn absent(&self) -> impl Iterator<Item = NodeId> {
        let others = self.view.members.iter().map(|member| member.node);
        others.filter(|node| *node != self.me() && self.is_absent(*node))
    }

    /// Has this node been able to hear and read for the detect time, since the view last changed?
    /// Who changed it was alive then, even if nothing else was heard of it.
    fn has_watched(&self) -> bool {
        let watched = self
            .disks
            .read_since
            .max(Some(self.started_at))
            .max(Some(self.view_known_at))
            .max(Some(self.trusted_at));
        self.disks.read_since.is_some()
            && watched.is_some_and(|since| self.now.since(since) >= self.timing().detect)
    }

    fn is_absent(&self, node: NodeId) -> bool {
        let alive = self.peers.of(node).alive_at;
        self.proved_rebooted(node)
            || alive.is_none_or(|at| self.now.since(at) >= self.timing().detect)
    }

    /// Is every other listed node in full contact, under the listed life and configuration?
    /// Otherwise says with whom contact is missing.
    pub(super) fn in_contact_with_all(&self) -> Result<(), String> {
        let needed = self
            .timing()
            .stable_after(self.view.times_evicted(self.me()));
        for member in self
            .view
            .members
            .iter()
            .filter(|member| member.node != self.me())
        {
            let peer = self.peers.of(member.node);
            let name = self.name(member.node);
            if !self.heard_lately(member.node) {
                return Err(format!("node {name}, a member, is not heard"));
            }
            if peer.incarnation != Some(member.incarnation) {
                return Err(format!("node {name} has restarted and is not settled yet"));
            }
            let contact = self.now.since(peer.alive_since);
            if contact < needed {
                return Err(format!(
                    "stable contact with node {name}: {} of {} ms",
                    contact.as_ms(),
                    needed.as_ms()
                ));
            }
        }
        Ok(())
    }

    /// Have all full members said that they know the view that lists this node?
    pub(super) fn confirmed_by_all(&self) -> bool {
        let others = self
            .view
            .members
            .iter()
            .filter(|member| member.node != self.me());
        let mut full = others.filter(|member| member.standing == Standing::Member);
        full.all(|member| {
            let peer = self.peers.of(member.node);
            self.heard_lately(member.node)
                && peer.incarnation == Some(member.incarnation)
                && peer.epoch >= self.view.epoch
        })
    }

    pub(super) fn check_left(&mut self) {
        if !self.leaving || self.left || self.proposal.is_some() {
            return;
        }
        let still = self
            .tasks()
            .any(|task| self.local[task.index()].state().may_run());
        if !still && !self.is_listed() {
            self.left = true;
            self.act(Action::Left);
        }
    }
}

impl EvictReason {
    /// For people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            EvictReason::Silent => "silent on all links",
            EvictReason::Rebooted => "rebooted",
            EvictReason::ColdStart => "not there when another node started alone",
        }
    }
}
