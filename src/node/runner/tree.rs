//! A task's objects and the order between them: the execute tree.
//!
//! ```text
//! start   step 1 -> step 2 -> step 3      a failure stops everything again
//! stop    step 3 -> step 2 -> step 1      a failure is remembered, the rest is stopped all the
//! same
//! ```
//! The objects of one step go together, each on a thread of its own.

use std::time::{Duration, Instant};

use crate::config::{ObjectConfig, TaskConfig};
use crate::engine::{Failure, Found};
use crate::model::TaskIndex;
use crate::object::{Context, Object, ObjectError, Probe, Urgency, Watched, sentence};

/// How long an object took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Took {
    /// Its name.
    pub object: String,
    /// From its call to its return.
    pub time: Duration,
}

/// One object in its place.
pub(super) struct Leaf {
    pub(super) name: String,
    step: u8,
    start_max: Duration,
    stop_max: Duration,
    pub(super) object: Box<dyn Object>,
}

/// The objects of a task, steps rising.
pub struct Tree {
    task: TaskIndex,
    leaves: Vec<Leaf>,
}

impl Tree {
    /// The tree of a task; `build` makes the object at a position.
    pub fn new(
        config: &TaskConfig,
        mut build: impl FnMut(u8, &ObjectConfig) -> Box<dyn Object>,
    ) -> Tree {
        let leaf = |(position, object): (usize, &ObjectConfig)| Leaf {
            name: object.name.clone(),
            step: object.step,
            start_max: Duration::from_millis(object.claims.start_ms_max),
            stop_max: Duration::from_millis(object.claims.stop_ms_max),
            object: build(position as u8, object),
        };
        let mut leaves: Vec<Leaf> = config.objects.iter().enumerate().map(leaf).collect();
        leaves.sort_by_key(|leaf| leaf.step);
        Tree {
            task: config.index,
            leaves,
        }
    }

    pub(super) fn leaves(&mut self) -> &mut [Leaf] {
        &mut self.leaves
    }

    /// Looks at every object, and adopts what runs. The sentences tell what is not as it should be.
    pub fn probe(&mut self, context: &Context<'_>) -> (Found, Vec<String>) {
        let probes = together(&mut self.leaves, |leaf| leaf.object.probe(context));
        let mut troubles = Vec::new();
        for (leaf, probe) in self.leaves.iter().zip(&probes) {
            match probe {
                Probe::Running | Probe::Stopped => {}
                Probe::Failed { reason } => troubles.push(format!("{}: {reason}", leaf.name)),
                Probe::Late => troubles.push(format!("{}: no answer in time", leaf.name)),
            }
        }
        let found = if probes.iter().all(|probe| *probe == Probe::Running) {
            Found::Running
        } else if probes.iter().all(|probe| *probe == Probe::Stopped) {
            Found::Stopped
        } else {
            Found::Partly
        };
        (found, troubles)
    }

    /// Starts every object. On failure, and when cancelled, everything was stopped again, unless
    /// the failure says otherwise.
    ///
    /// # Errors
    ///
    /// The first object that failed.
    pub fn start(&mut self, context: &Context<'_>) -> Result<Vec<Took>, Failure> {
        let mut took = Vec::new();
        let mut failed = None;
        for group in self
            .leaves
            .chunk_by_mut(|left, right| left.step == right.step)
        {
            let task = self.task;
            let results = together(group, |leaf| leaf.start(task, context));
            for (leaf, (result, time)) in group.iter().zip(results) {
                took.push(Took {
                    object: leaf.name.clone(),
                    time,
                });
                let Err(error) = result else { continue };
                // Another's failure cancels the rest of a step: keep the cause, not the effect.
                let effect = matches!(error, ObjectError::Cancelled);
                if failed
                    .as_ref()
                    .is_none_or(|(_, _, was_effect)| *was_effect && !effect)
                {
                    failed = Some((leaf.name.clone(), sentence(&error), effect));
                }
            }
            if failed.is_some() {
                break;
            }
        }
        let Some((object, reason, _)) = failed else {
            return Ok(took);
        };
        let (_, left) = self.stop(context, false);
        let reason = match &left {
            None => reason,
            Some(left) => format!("{reason}; then {}: {}", left.object, left.reason),
        };
        Err(Failure {
            object,
            reason,
            stopped: left.is_none(),
        })
    }

    /// What is wrong with those that the object at this position stands upon: the first that is not
    /// fine, and its name.
    pub(super) fn footing(
        &mut self,
        position: usize,
        context: &Context<'_>,
    ) -> Option<(String, Watched)> {
        let step = self.leaves[position].step;
        let below = self.leaves.iter_mut().filter(|leaf| leaf.step < step);
        let mut asked = below.map(|leaf| {
            let deadline = Instant::now() + leaf.start_max;
            (leaf.name.clone(), leaf.object.footing(context, deadline))
        });
        asked.find(|(_, watched)| *watched != Watched::Fine)
    }

    /// Stops every object, the last step first. An object that cannot be stopped keeps nothing
    /// else from being stopped.
    pub fn stop(&mut self, context: &Context<'_>, forced: bool) -> (Vec<Took>, Option<Failure>) {
        let mut took = Vec::new();
        let mut failure: Option<Failure> = None;
        let groups = self
            .leaves
            .chunk_by_mut(|left, right| left.step == right.step);
        for group in groups.rev() {
            let results = together(group, |leaf| leaf.stop(context, forced));
            for (leaf, (result, time)) in group.iter().zip(results) {
                took.push(Took {
                    object: leaf.name.clone(),
                    time,
                });
                if let Err(error) = result {
                    failure.get_or_insert(Failure {
                        object: leaf.name.clone(),
                        reason: sentence(&error),
                        stopped: false,
                    });
                }
            }
        }
        (took, failure)
    }
}

impl Leaf {
    /// Starts the object under the lease. Asked before and after: what was started while the lease
    /// ran out unnoticed is reported as failed, and so stopped again.
    pub(super) fn start(
        &mut self,
        task: TaskIndex,
        context: &Context<'_>,
    ) -> (Result<(), ObjectError>, Duration) {
        let begun = Instant::now();
        let permitted = || {
            let may = context.permit.may_run(task);
            if may {
                Ok(())
            } else {
                Err(ObjectError::NotPermitted)
            }
        };
        let result = if context.cancel.is_raised(Urgency::Stop) {
            Err(ObjectError::Cancelled)
        } else {
            permitted()
                .and_then(|()| self.object.start(context, begun + self.start_max))
                .and_then(|()| permitted())
        };
        if result.is_err() {
            context.cancel.raise(Urgency::Stop);
        }
        (result, begun.elapsed())
    }

    pub(super) fn stop(
        &mut self,
        context: &Context<'_>,
        forced: bool,
    ) -> (Result<(), ObjectError>, Duration) {
        let begun = Instant::now();
        let forced = forced || context.cancel.is_raised(Urgency::Forced);
        (
            self.object.stop(context, begun + self.stop_max, forced),
            begun.elapsed(),
        )
    }
}

/// Does the same with each leaf at once. One leaf costs no thread.
fn together<T: Send>(leaves: &mut [Leaf], act: impl Fn(&mut Leaf) -> T + Sync) -> Vec<T> {
    if let [only] = leaves {
        return vec![act(only)];
    }
    let act = &act;
    std::thread::scope(|scope| {
        let spawned: Vec<_> = leaves
            .iter_mut()
            .map(|leaf| scope.spawn(move || act(leaf)))
            .collect();
        spawned
            .into_iter()
            .map(|thread| thread.join().expect("objects do not panic"))
            .collect()
    })
}
