//! The rules of the engine: when a node starts and stops the task, and which change of the view it
//! may ask for.

use super::{Action, Broken, Frame, HandOver, Listed, Local, Node, State, View, is_member};

impl HandOver {
    fn is_out(&self, node: &Node, me: usize, of: usize) -> bool {
        if of == me {
            return !node.local.may_run();
        }
        let view = &node.known;
        let says = node.heard.filter(|frame| !frame.may_run);
        let any_view = self.broken == Broken::WordUnderAnyView;
        match view.listed[of].life() {
            Some(life) => {
                let said = says.is_some_and(|frame| {
                    frame.life == life && (frame.epoch == view.epoch || any_view)
                });
                said || (node.timed && self.broken == Broken::TimeCountsForListed)
            }
            None => {
                let knows = |frame: Frame| frame.epoch >= view.epoch || any_view;
                node.timed || says.is_some_and(knows)
            }
        }
    }

    fn earlier_owner_is_out(&self, node: &Node, me: usize) -> bool {
        (0..2).all(|of| node.known.after & 1 << of == 0 || self.is_out(node, me, of))
    }

    fn released_to_me(&self, node: &Node, me: usize) -> bool {
        let view = &node.known;
        if view.heir != Some(me) || view.owner == me {
            return false;
        }
        let life = view.listed[view.owner].life();
        let said = node.heard.is_some_and(|frame| {
            Some(frame.life) == life
                && frame.epoch == view.epoch
                && frame.released == Some(view.task)
        });
        said || self.broken == Broken::HeirStartsAtOnce
    }

    fn may_start(&self, node: &Node, me: usize) -> bool {
        let view = &node.known;
        let owns = view.owner == me && view.heir.is_none_or(|heir| heir == me);
        is_member(node, me)
            && node.lease.is_some()
            && (owns || self.released_to_me(node, me))
            && self.earlier_owner_is_out(node, me)
    }

    fn heir_is_ready(node: &Node, me: usize) -> bool {
        let view = &node.known;
        view.heir.filter(|heir| *heir != me).is_some_and(|heir| {
            let life = view.listed[heir].life();
            let ready = |frame: Frame| Some(frame.life) == life && frame.epoch >= view.epoch;
            node.heard.is_some_and(ready)
        })
    }

    pub(super) fn step(&self, node: &Node, me: usize) -> Local {
        let view = &node.known;
        let owner = view.epoch > 0 && view.owner == me;
        match node.local {
            Local::Stopped if owner && view.heir.is_some_and(|heir| heir != me) => {
                Local::Released(view.task)
            }
            Local::Stopped if self.may_start(node, me) => Local::Running(view.task),
            Local::Released(epoch) if !owner || view.task > epoch => Local::Stopped,
            Local::Running(epoch) => {
                let mine = owner || (view.heir == Some(me) && view.task == epoch);
                if view.epoch == 0 && node.lease.is_some() {
                    node.local
                } else if node.lease.is_none() || !mine {
                    Local::Stopping(None)
                } else if owner && Self::heir_is_ready(node, me) {
                    Local::Stopping(Some(view.task))
                } else {
                    Local::Running(view.task)
                }
            }
            Local::Stopped | Local::Released(_) | Local::Stopping(_) | Local::Unknown(_) => {
                node.local
            }
        }
    }

    /// The view that the change asks for, if it may be asked for.
    pub(super) fn change(&self, state: &State, action: Action) -> Option<View> {
        let (Action::Move(me)
        | Action::CallOff(me)
        | Action::Inherit(me)
        | Action::Settle(me)
        | Action::Evict(me)
        | Action::Join(me)
        | Action::Promote(me)
        | Action::StartAlone(me)) = action
        else {
            return None;
        };
        let node = &state.nodes[me];
        let other = &state.nodes[1 - me];
        let behind = other.known.epoch > 0 && state.behind[1 - me] >= self.behind;
        if !node.up || node.known != state.register || behind {
            return None;
        }
        let mut view = node.known;
        view.epoch += 1;
        let member = is_member(node, me);
        // Both take longer than a frame of an earlier life is remembered.
        let of_earlier_life = |frame: Frame| frame.life != node.life;
        let settled = !matches!(node.local, Local::Unknown(_))
            && !state.nodes[1 - me].heard.is_some_and(of_earlier_life);
        let done = match action {
            Action::Move(_) if self.moves > 0 && state.moves >= self.moves => false,
            Action::Evict(_) | Action::StartAlone(_) if !self.evictions => false,
            Action::Move(_) => member && self.named_heir(node, me, &mut view),
            Action::CallOff(_) => member && self.called_off(node, me, &mut view),
            Action::Inherit(_) => {
                let inherits = view.heir == Some(me) && view.owner != me;
                (view.owner, view.heir) = (me, None);
                view.task += 1;
                member && inherits && matches!(node.local, Local::Running(_))
            }
            Action::Settle(_) => {
                view.after = 0;
                let owner = node.known.owner == me && node.known.heir.is_none();
                let waits = node.known.after != 0 && self.earlier_owner_is_out(node, me);
                member && owner && waits && matches!(node.local, Local::Running(_))
            }
            Action::Evict(_) => member && self.evicted(node, me, &mut view),
            Action::Join(_) => settled && Self::joined(node, me, &mut view),
            Action::Promote(_) => settled && Self::promoted(node, me, &mut view),
            // It has listened for the detect time: what ran under an old lease is gone.
            Action::StartAlone(_) => {
                !member && settled && !node.local.runs() && self.started_alone(node, me, &mut view)
            }
            _ => false,
        };
        done.then_some(view)
    }

    fn named_heir(&self, node: &Node, me: usize, view: &mut View) -> bool {
        let to = 1 - view.owner;
        let there = to == me || node.heard.is_some();
        let able = matches!(view.listed[to], Listed::Member(_)) && there;
        view.task += 1;
        able && view.heir.replace(to).is_none()
    }

    /// By the owner whose heir does not get ready, or by a person at any time.
    fn called_off(&self, node: &Node, me: usize, view: &mut View) -> bool {
        let Some(heir) = view.heir.take() else {
            return false;
        };
        if self.broken != Broken::HeirForgotten {
            view.after |= 1 << heir;
        }
        view.task += 1;
        view.owner == me || node.heard.is_some()
    }

    fn evicted(&self, node: &Node, me: usize, view: &mut View) -> bool {
        let other = 1 - me;
        let Some(life) = view.listed[other].life() else {
            return false;
        };
        let rebooted = node.heard.is_some_and(|frame| frame.life != life);
        if node.heard.is_some() && !rebooted {
            return false;
        }
        view.listed[other] = Listed::Out;
        let concerned = view.owner == other || view.heir == Some(other);
        if !concerned && view.after & 1 << other == 0 {
            return true;
        }
        if rebooted {
            view.after = view.without(other);
        } else if concerned && self.broken != Broken::OwnerForgotten {
            view.after |= 1 << other;
        }
        (view.owner, view.heir) = (me, None);
        view.task += 1;
        true
    }

    fn joined(node: &Node, me: usize, view: &mut View) -> bool {
        let other = view.listed[1 - me].life();
        let contact = node.heard.map(|frame| frame.life) == other && other.is_some();
        let out = view.listed[me] == Listed::Out;
        view.listed[me] = Listed::Joining(node.life);
        out && contact
    }

    fn promoted(node: &Node, me: usize, view: &mut View) -> bool {
        let joining = view.listed[me] == Listed::Joining(node.life);
        let confirmed = match node.known.listed[1 - me] {
            Listed::Out => false,
            Listed::Joining(_) => true,
            Listed::Member(life) => node
                .heard
                .is_some_and(|frame| frame.life == life && frame.epoch >= node.known.epoch),
        };
        view.listed[me] = Listed::Member(node.life);
        joining && confirmed
    }

    fn started_alone(&self, node: &Node, me: usize, view: &mut View) -> bool {
        let other = 1 - me;
        let listed = view.listed[other].life();
        let rebooted = listed.is_some() && node.heard.is_some();
        let rebooted = rebooted && node.heard.map(|frame| frame.life) != listed;
        if listed.is_some() && node.heard.is_some() && !rebooted {
            return false;
        }
        let named = view.owner == other || view.heir == Some(other);
        if named && !rebooted && self.broken != Broken::OwnerForgotten {
            view.after |= 1 << other;
        }
        view.listed[other] = Listed::Out;
        view.listed[me] = Listed::Member(node.life);
        (view.owner, view.heir) = (me, None);
        view.task += 1;
        true
    }
}
