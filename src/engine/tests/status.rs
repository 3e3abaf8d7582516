//! What `status` shows, and the words in it.

use super::*;
use crate::engine::snapshot::trouble_words;
use crate::register::Trouble;

fn now_shown(engine: &Engine) -> Snapshot {
    engine.snapshot(engine.now)
}

fn states(engine: &Engine) -> Vec<String> {
    let nodes = now_shown(engine).nodes.into_iter();
    nodes.map(|node| node.state).collect()
}

fn link_up(engine: &mut Engine) {
    let event = Event::LinkState {
        link: 0,
        up: true,
        reason: String::new(),
    };
    engine.handle(engine.now, event);
}

/// Why the only task does not run.
fn blocked(engine: &Engine) -> Option<String> {
    now_shown(engine).tasks.remove(0).blocked
}

#[test]
fn it_tells_who_is_in_and_what_proves_it() {
    let mut engine = engine(None);
    let shown = now_shown(&engine);
    assert_eq!((&*shown.standing, &*shown.proof), ("outside", "none"));
    assert!(shown.waiting_for.is_some());
    assert_eq!(states(&engine), ["outside", "silent", "silent"]);
    learn(&mut engine, &view(3, &[(1, Standing::Joining), BOTH[1]]));
    assert_eq!(now_shown(&engine).standing, "joining");
    assert_eq!(states(&engine), ["joining", "silent", "silent"]);
    learn(&mut engine, &view(4, &BOTH));
    let sent = beat(&mut engine);
    for id in [2, 3] {
        engine.handle(engine.now, frame(life(id, 1), id, 10, 4, &sent));
    }
    let shown = now_shown(&engine);
    assert_eq!((&*shown.standing, &*shown.proof), ("member", "frames"));
    assert_eq!((shown.waiting_for, shown.lease_ms), (None, 200.0));
    assert_eq!(states(&engine), ["member", "member", "outside"]);
    let (begun, epoch) = (engine.now, 4);
    engine.on_news(News::Proof { begun, epoch });
    assert_eq!(now_shown(&engine).proof, "both");
    engine.now += H.times(4);
    assert_eq!(now_shown(&engine).proof, "none");
    engine.now += H;
    assert_eq!(states(&engine), ["member", "silent", "silent"]);
}

#[test]
fn it_tells_why_a_task_does_not_run() {
    let mut engine = engine(None);
    let mut known = view(3, &BOTH);
    learn(&mut engine, &known);
    assert!(blocked(&engine).is_some_and(|why| why.starts_with("nobody owns it: n1 ")));
    (known.epoch, known.tasks[0].owner) = (4, Some(node(2)));
    learn(&mut engine, &known);
    let why = "its owner n2 does not run it yet";
    assert_eq!(blocked(&engine).as_deref(), Some(why));
    let sent = beat(&mut engine);
    let Event::Frame { link, mut frame } = frame(life(2, 1), 2, 10, 4, &sent) else {
        unreachable!()
    };
    frame.tasks[0] = TaskReport::new(TaskState::Started, 3);
    engine.handle(engine.now, Event::Frame { link, frame });
    assert_eq!(blocked(&engine), None, "it runs");
    (known.epoch, known.tasks[0].owner) = (5, None);
    known.tasks[0].wanted = false;
    learn(&mut engine, &known);
    engine.now += H.times(5);
    assert_eq!(blocked(&engine), None, "it is not wanted");
}

#[test]
fn it_tells_of_links_that_are_down_or_swapped_and_of_no_others() {
    let mut engine = engine(None);
    assert_eq!(now_shown(&engine).alarms, ["link 0 is down: "]);
    link_up(&mut engine);
    assert_eq!(now_shown(&engine).alarms, [""; 0]);
    let sent = beat(&mut engine);
    let Event::Frame { link, mut frame } = frame(life(2, 1), 2, 10, 0, &sent) else {
        unreachable!()
    };
    frame.link = 1;
    engine.handle(engine.now, Event::Frame { link, frame });
    let swapped = "link 0 hears another link's frames: swapped cables?";
    assert_eq!(now_shown(&engine).alarms, [swapped]);
}

#[test]
fn each_trouble_and_each_failure_has_words_of_its_own() {
    let troubles = [
        Trouble::ReadFailed,
        Trouble::Damaged(NodeSet::only(node(2))),
        Trouble::Mixed,
        Trouble::RecordDamaged,
        Trouble::ValueLost,
        Trouble::WriteFailed,
        Trouble::Foreign,
        Trouble::WentBack,
        Trouble::MemoryLost,
    ];
    for (index, trouble) in troubles.into_iter().enumerate() {
        let words = trouble_words(trouble);
        assert!(words.contains(' '), "{words}");
        let others = troubles[..index].iter();
        assert!(
            others
                .copied()
                .map(trouble_words)
                .all(|other| other != words)
        );
    }
    let words = |object: &str| {
        let (object, reason) = (object.into(), "no such file".into());
        let stopped = true;
        let failure = Failure {
            object,
            reason,
            stopped,
        };
        failure.words()
    };
    assert_eq!(words(""), "no such file");
    assert_eq!(words("server"), "server: no such file");
}
