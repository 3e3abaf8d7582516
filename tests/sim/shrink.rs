//! From a failing seed to few strikes that fail too: delta debugging (Zeller, Hildebrandt 2002)
//! over the planned strikes, in a bounded number of reruns.
//!
//! Leaving out one strike changes what chance does after it, so the shortest list found is not the
//! shortest there is; it is only one that breaks the same rule.

use crate::swarm::Run;

/// Reruns at most.
const RERUNS_MAX: usize = 400;

/// The shortest list found of which `fails` still says yes. `all` must.
pub(crate) fn shortest(all: Vec<usize>, mut fails: impl FnMut(&[usize]) -> bool) -> Vec<usize> {
    let mut kept = all;
    let mut parts = 2;
    let mut left = RERUNS_MAX;
    while kept.len() > 1 {
        let size = kept.len().div_ceil(parts);
        let mut begin = 0;
        let mut shorter = None;
        while begin < kept.len() && left > 0 {
            let end = (begin + size).min(kept.len());
            let without = [&kept[..begin], &kept[end..]].concat();
            left -= 1;
            if fails(&without) {
                shorter = Some(without);
                break;
            }
            begin = end;
        }
        match shorter {
            Some(without) => {
                kept = without;
                parts = (parts - 1).max(2);
            }
            None if size == 1 || left == 0 => break,
            None => parts = (parts * 2).min(kept.len()),
        }
    }
    if left > 0 && kept.len() == 1 && fails(&[]) {
        kept.clear();
    }
    kept
}

/// Prints the shortest list of strikes that breaks the same rule.
pub(crate) fn tell(seed: u64, text: &str) {
    let (plan, _) = Run::of(seed).plan();
    let rule = |text: &str| text.split(':').next().unwrap_or_default().to_owned();
    let broken = rule(text);
    let all: Vec<usize> = (0..plan.strikes.len()).collect();
    let kept = shortest(all, |only| {
        let run = Run {
            seed,
            only: Some(only.to_vec()),
            ..Run::default()
        };
        run.attempt().is_err_and(|text| rule(&text) == broken)
    });
    println!(
        "{} of {} strikes break {broken} too:",
        kept.len(),
        plan.strikes.len()
    );
    for index in &kept {
        let (at, strike) = &plan.strikes[*index];
        println!("  at {}us {}", at / 1_000, strike.words(&plan.names));
    }
    let list: Vec<String> = kept.iter().map(usize::to_string).collect();
    let list = list.join(",");
    println!(
        "SIM_SEED={seed} SIM_ONLY={list} cargo test --release --test sim -- one_seed --nocapture"
    );
}

#[test]
fn two_that_matter_are_found_among_many() {
    let mut reruns = 0;
    let kept = shortest((0..100).collect(), |only| {
        reruns += 1;
        only.contains(&17) && only.contains(&80)
    });
    assert_eq!(kept, [17, 80]);
    assert!(reruns <= RERUNS_MAX, "{reruns}");
}

#[test]
fn nothing_is_left_when_nothing_matters() {
    assert!(shortest((0..10).collect(), |_| true).is_empty());
}

#[test]
fn everything_is_kept_when_everything_matters() {
    assert_eq!(shortest((0..9).collect(), |only| only.len() == 9).len(), 9);
}
