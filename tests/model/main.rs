//! The small protocols, checked in every order of events: each model is searched to its end.
//!
//! Every model also has its rules broken on purpose, one at a time, and the search must then find a
//! run that violates a property: a check that passes with a rule broken checks nothing.
//!
//! Sizes are smaller in debug mode. `MODEL_LARGE=1 cargo test --release --test model` searches
//! larger ones, which takes minutes and gigabytes.

mod handover;
mod lease;
mod mixed;
mod path;
mod record;
mod register;
mod rejoin;

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;

use stateright::{Checker, HasDiscoveries, Model};

/// Threads of one search; tests run beside each other as well.
const THREADS: usize = 2;

/// How much is searched.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Size {
    Small,
    Normal,
    Large,
}

pub(crate) fn size() -> Size {
    if std::env::var_os("MODEL_LARGE").is_some() {
        Size::Large
    } else if cfg!(debug_assertions) {
        Size::Small
    } else {
        Size::Normal
    }
}

/// Searches all states; every property must hold, and every "sometimes" be found.
pub(crate) fn holds<M>(name: &str, model: M)
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Clone + Debug + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    holds_within(name, model, usize::MAX);
}

/// The same for all states that so many steps lead to.
pub(crate) fn holds_within<M>(name: &str, model: M, steps: usize)
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Clone + Debug + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let begun = std::time::Instant::now();
    let builder = model.checker().threads(THREADS);
    let checker = builder
        .finish_when(HasDiscoveries::AnyFailures)
        .target_max_depth(steps)
        .spawn_bfs()
        .join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    println!(
        "{name}: {states} states, {depth} steps deep, {:.1?}",
        begun.elapsed()
    );
    checker.assert_properties();
    assert!(checker.is_done(), "{name}: the search has stopped early");
}

/// Searches until a property is violated, which must happen; returns the number of steps to it.
pub(crate) fn breaks<M>(name: &str, model: M)
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Clone + Debug + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let begun = std::time::Instant::now();
    let builder = model.checker().threads(THREADS);
    let checker = builder
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let states = checker.unique_state_count();
    let found = checker.discoveries().into_iter();
    let mut found = found.filter(|(property, _)| {
        let property = checker.model().property(property);
        property.expectation.discovery_is_failure()
    });
    let Some((property, path)) = found.next() else {
        panic!("{name}: {states} states and no property is violated");
    };
    let steps = path.into_actions();
    println!(
        "{name}: \"{property}\" violated after {} steps, {states} states, {:.1?}",
        steps.len(),
        begun.elapsed()
    );
    if std::env::var_os("MODEL_TRACE").is_some() {
        steps.iter().for_each(|step| println!("    {step:?}"));
    }
}

/// Searches all states; from each of them some run must lead to the goal.
pub(crate) fn never_stuck<M>(name: &str, model: &M, goal: impl Fn(&M::State) -> bool)
where
    M: Model,
    M::State: Clone + Debug + Eq + Hash,
{
    let mut states: IndexMap<M> = IndexMap::default();
    let mut sources: Vec<Vec<u32>> = Vec::new();
    model.init_states().into_iter().for_each(|state| {
        states.number(state);
    });
    let mut next = 0;
    while next < states.list.len() {
        sources.resize_with(states.list.len(), Vec::new);
        let state = states.list[next].clone();
        for after in model.next_states(&state) {
            let number = states.number(after);
            sources.resize_with(states.list.len(), Vec::new);
            sources[number].push(next as u32);
        }
        next += 1;
    }
    let mut good: Vec<bool> = states.list.iter().map(goal).collect();
    let mut waiting: Vec<usize> = (0..good.len()).filter(|number| good[*number]).collect();
    assert!(!waiting.is_empty(), "{name}: no state is a goal");
    while let Some(number) = waiting.pop() {
        for source in &sources[number] {
            let source = *source as usize;
            if !std::mem::replace(&mut good[source], true) {
                waiting.push(source);
            }
        }
    }
    println!("{name}: {} states, none of them stuck", good.len());
    if let Some(stuck) = good.iter().position(|good| !good) {
        panic!("{name}: no way on from {:#?}", states.list[stuck]);
    }
}

/// States in the order in which they were found.
struct IndexMap<M: Model> {
    numbers: HashMap<M::State, usize>,
    list: Vec<M::State>,
}

impl<M: Model> Default for IndexMap<M> {
    fn default() -> IndexMap<M> {
        IndexMap {
            numbers: HashMap::new(),
            list: Vec::new(),
        }
    }
}

impl<M: Model> IndexMap<M>
where
    M::State: Clone + Eq + Hash,
{
    fn number(&mut self, state: M::State) -> usize {
        let next = self.list.len();
        *self.numbers.entry(state).or_insert_with_key(|state| {
            self.list.push(state.clone());
            next
        })
    }
}
