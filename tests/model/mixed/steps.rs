//! The rules of the two kinds of quorum, step by step, each with the way in which it can be broken.

use super::{Acceptor, Action, Ballot, Broken, Mixed, Net, Node, Phase, Read, State, Value};
use crate::path::{epoch, leads_to, parent, successor};

impl<const N: usize, const B: usize> State<N, B> {
    pub(super) fn first() -> State<N, B> {
        let node = Node {
            up: true,
            memory: Acceptor::default(),
            file: Acceptor::default(),
            known: 0,
            proposal: 0,
            phase: Phase::Idle,
            write: None,
            newer: 0,
            read: None,
        };
        let net = Net {
            prepare: false,
            promised: [None; N],
            accept: 0,
            accepted: [false; N],
        };
        let mut nodes = [node; N];
        for (nonce, node) in (1..).zip(&mut nodes) {
            node.proposal = successor(0, nonce);
        }
        State {
            nodes,
            disk: [Acceptor::default(); N],
            nets: [net; B],
            nonces: N as u8,
            crashes: 0,
            told: 0,
            decided: 0,
            forked: false,
            misled: false,
            wrong_proof: false,
        }
    }

    /// Nobody looks at the promises of a ballot that has gone on; no ballot is begun twice unless
    /// its own promise may be lost.
    pub(super) fn forget_promises(&mut self) {
        for (number, net) in self.nets.iter_mut().enumerate() {
            let ballot = number as Ballot + 1;
            if self.nodes[number % N].phase != Phase::NetPromise(ballot) {
                net.promised = [None; N];
            }
        }
    }

    fn net(&mut self, ballot: Ballot) -> &mut Net<N> {
        &mut self.nets[usize::from(ballot) - 1]
    }

    /// A quorum has accepted the value, or (with a rule broken) a node says so.
    fn decide(&mut self, value: Value) {
        if leads_to(self.decided, value) {
            self.decided = value;
        } else if !leads_to(value, self.decided) {
            self.forked = true;
        }
    }

    /// A node holds the value for decided.
    fn learn(&mut self, node: usize, value: Value, strict: bool) {
        if !strict {
            self.decide(value);
        }
        self.misled |= !leads_to(value, self.decided);
        let node = &mut self.nodes[node];
        if epoch(value) <= epoch(node.known) {
            self.misled |= !leads_to(value, node.known);
            return;
        }
        node.known = value;
        node.newer = 0;
        if epoch(node.proposal) <= epoch(value) {
            node.proposal = 0;
        }
        if epoch(value) > epoch(self.told) {
            self.told = value;
        }
    }
}

impl<const N: usize> Read<N> {
    /// All blocks together.
    fn disk(&self) -> Acceptor {
        let blocks = self.seen.into_iter().flatten();
        blocks.fold(Acceptor::default(), Acceptor::joined)
    }
}

impl<const N: usize, const B: usize> Mixed<N, B> {
    /// With the rules kept the acceptors say what is decided, else only what nodes report counts.
    fn strict(&self) -> bool {
        self.broken == Broken::Nothing
    }

    fn next_ballot(&self, state: &State<N, B>, node: usize) -> Option<Ballot> {
        let below = state.nodes[node].memory.mbal.max(state.disk[node].mbal);
        let mut own = (0..B).filter(|number| number % N == node);
        own.find(|number| *number as Ballot >= below)
            .map(|number| number as Ballot + 1)
    }

    fn start_disk(&self, state: &mut State<N, B>, node: usize, ballot: Ballot) {
        let block = Acceptor {
            mbal: ballot,
            ..state.disk[node]
        };
        let node = &mut state.nodes[node];
        node.write = Some(block);
        node.phase = Phase::WritePromise(ballot);
        if self.broken != Broken::DiskBallotNotPromised {
            node.memory.mbal = node.memory.mbal.max(ballot);
        }
    }

    /// The write lands. That it is reported later is the same as that what follows comes later.
    fn land(&self, state: &mut State<N, B>, at: usize) {
        let Some(block) = state.nodes[at].write.take() else {
            return;
        };
        state.disk[at] = block;
        let beyond = |other: &Acceptor| other.mbal > block.bal;
        if self.strict() && block.bal == block.mbal && !state.disk.iter().any(beyond) {
            state.decide(block.value);
        }
        let node = &mut state.nodes[at];
        if !node.up {
            return;
        }
        if self.broken == Broken::AcceptedWhenReported && block.bal > node.memory.bal {
            node.memory.accept(block.bal, block.value);
        }
        node.phase = match node.phase {
            Phase::WritePromise(ballot) if ballot == block.mbal => Phase::ReadPromise(ballot),
            Phase::WriteAccept(ballot) if ballot == block.bal => Phase::ReadAccept(ballot),
            other => other,
        };
    }

    fn begin_read(state: &mut State<N, B>, node: usize) {
        let mut seen = [None; N];
        seen[node] = Some(state.disk[node]);
        if N == 2 {
            // With one block left to look at, beginning later than at that look proves less.
            seen[1 - node] = Some(state.disk[1 - node]);
        }
        let (decided, told) = (state.decided, epoch(state.told));
        let node = &mut state.nodes[node];
        let heard = if told > epoch(node.known) { told } else { 0 };
        let serves = match node.phase {
            phase @ (Phase::ReadPromise(_) | Phase::ReadAccept(_)) => phase,
            _ => Phase::Idle,
        };
        node.read = Some(Read {
            serves,
            newer: node.newer,
            decided,
            heard,
            seen,
        });
    }

    /// The value that a read has found, if others are known to know one of its epoch.
    fn heard_of(&self, state: &State<N, B>, at: usize) -> Option<Value> {
        let node = &state.nodes[at];
        let read = node.read.as_ref()?;
        let found = match self.broken {
            Broken::HeardOwnIgnored => read.disk(),
            _ => read.disk().joined(node.memory),
        };
        let heard = match self.broken {
            Broken::HeardTooLate => epoch(state.told),
            _ => read.heard,
        };
        let found = found.value;
        (epoch(found) > epoch(node.known) && epoch(found) <= heard).then_some(found)
    }

    fn end_read(&self, state: &mut State<N, B>, at: usize, heard: bool) {
        let heard = heard.then(|| self.heard_of(state, at)).flatten();
        let Some(read) = state.nodes[at].read.take() else {
            return;
        };
        let disk = read.disk();
        match heard {
            Some(value) => state.learn(at, value, self.strict()),
            None => self.learn_from(state, at, &read, disk),
        }
        if read.serves == state.nodes[at].phase {
            self.step_ballot(state, at, disk);
        }
        let own = state.nodes[at].memory;
        let newest = if self.broken == Broken::ProofWithoutOwn {
            disk
        } else {
            disk.joined(own)
        };
        let known = state.nodes[at].known;
        if newest.value == known && epoch(read.decided) > epoch(known) {
            state.wrong_proof = true;
        }
    }

    fn learn_from(&self, state: &mut State<N, B>, at: usize, read: &Read<N>, disk: Acceptor) {
        let node = &mut state.nodes[at];
        let disk = if self.broken == Broken::OwnValueLearnt {
            disk.joined(node.memory)
        } else {
            disk
        };
        if epoch(disk.value) <= epoch(node.known) {
            node.newer = 0;
            return;
        }
        if node.newer > disk.bal {
            return;
        }
        let alone = disk.mbal == disk.bal || self.broken == Broken::HigherBesideIt;
        let own = node.memory.mbal <= disk.bal || self.broken == Broken::OwnIgnoredInLearning;
        let twice = read.newer == disk.bal || self.broken == Broken::SeenOnce;
        node.newer = disk.bal;
        if alone && own && twice {
            state.learn(at, disk.value, self.strict());
        }
    }

    fn step_ballot(&self, state: &mut State<N, B>, at: usize, disk: Acceptor) {
        let node = &mut state.nodes[at];
        let own = node.memory;
        let ignored = match (self.broken, node.phase) {
            (Broken::OwnPromiseIgnored, _) => true,
            (Broken::OwnPromiseIgnoredInPhaseTwo, Phase::ReadAccept(_)) => true,
            (_, _) => false,
        };
        let highest = if ignored {
            disk.mbal
        } else {
            disk.mbal.max(own.mbal)
        };
        match node.phase {
            Phase::ReadPromise(ballot) if highest <= ballot => {
                let found = match self.broken {
                    Broken::OwnValueIgnored => disk,
                    _ => disk.joined(own),
                };
                let Some(value) = choose(node.proposal, found.value) else {
                    node.phase = Phase::Idle;
                    return;
                };
                let at_once = !matches!(
                    self.broken,
                    Broken::DiskBallotNotPromised | Broken::AcceptedWhenReported
                );
                if at_once && own.mbal <= ballot {
                    node.memory.accept(ballot, value);
                }
                let block = Acceptor {
                    mbal: ballot,
                    bal: ballot,
                    value,
                };
                node.write = Some(block);
                node.phase = Phase::WriteAccept(ballot);
            }
            Phase::ReadAccept(ballot) if highest <= ballot => {
                node.phase = Phase::Idle;
                let value = state.disk[at].value;
                state.learn(at, value, self.strict());
            }
            _ => node.phase = Phase::Idle,
        }
    }

    fn heard(&self, state: &mut State<N, B>, at: usize) {
        if !self.volatile {
            self.sync_and_answer(state, at);
        }
    }

    fn sync_and_answer(&self, state: &mut State<N, B>, at: usize) {
        let memory = state.nodes[at].memory;
        if self.broken != Broken::NotDurable {
            state.nodes[at].file = memory;
        }
        if memory.mbal > 0 && state.net(memory.mbal).prepare && memory.bal < memory.mbal {
            state.net(memory.mbal).promised[at] = Some((memory.bal, memory.value));
        }
        if memory.bal > 0 && state.net(memory.bal).accept == memory.value {
            let net = state.net(memory.bal);
            net.accepted[at] = true;
            if self.strict() && net.accepted == [true; N] {
                state.decide(memory.value);
            }
        }
    }

    /// The value that the promises demand; none while one is missing or there is nothing to do.
    fn all_promised(&self, state: &State<N, B>, at: usize) -> Option<(Ballot, Value)> {
        let Phase::NetPromise(ballot) = state.nodes[at].phase else {
            return None;
        };
        let promised = state.nets[usize::from(ballot) - 1].promised;
        let missing = promised.iter().filter(|one| one.is_none()).count();
        if missing > usize::from(self.broken == Broken::OnePromiseMissing) {
            return None;
        }
        let newest = promised.into_iter().flatten().max_by_key(|(bal, _)| *bal);
        let found = newest.map_or(0, |(_, value)| value);
        choose(state.nodes[at].proposal, found).map(|value| (ballot, value))
    }

    fn all_accepted(&self, state: &State<N, B>, at: usize) -> Option<Value> {
        let Phase::NetAccept(ballot) = state.nodes[at].phase else {
            return None;
        };
        let net = &state.nets[usize::from(ballot) - 1];
        let missing = net.accepted.iter().filter(|one| !**one).count();
        let enough = missing <= usize::from(self.broken == Broken::OneAcceptanceMissing);
        enough.then_some(net.accept)
    }

    fn restart(&self, state: &mut State<N, B>, at: usize) {
        let block = state.disk[at];
        let node = &mut state.nodes[at];
        if self.broken != Broken::LandsAfterRestart {
            node.write = None;
        }
        node.up = true;
        node.memory = if self.broken == Broken::OwnBlockForgotten {
            node.file
        } else {
            node.file.joined(block)
        };
    }
}

/// The proposal, if it stands upon what was found, else that itself; nothing if there is nothing.
fn choose(proposal: Value, found: Value) -> Option<Value> {
    let fits = proposal != 0 && parent(proposal) == found;
    let value = if fits { proposal } else { found };
    (value != 0).then_some(value)
}

impl<const N: usize, const B: usize> Mixed<N, B> {
    pub(super) fn actions_of(&self, state: &State<N, B>, at: usize, actions: &mut Vec<Action>) {
        let node = &state.nodes[at];
        if node.write.is_some() {
            actions.push(Action::Land(at));
        }
        if !node.up {
            actions.push(Action::Restart(at));
            return;
        }
        if state.crashes < self.crashes {
            actions.push(Action::Crash(at));
        }
        if state.nonces < self.nonces && node.proposal == 0 {
            actions.push(Action::Propose(at));
        }
        let unsettled = node.newer != 0 || epoch(node.memory.value) > epoch(node.known);
        if (node.proposal != 0 || unsettled) && self.next_ballot(state, at).is_some() {
            actions.push(Action::StartNet(at));
            if node.write.is_none() {
                actions.push(Action::StartDisk(at));
            }
        }
        if node.write.is_some() {
            actions.push(Action::WriteFailed(at));
        }
        match &node.read {
            None if Self::read_matters(state, at) => actions.push(Action::BeginRead(at)),
            None => {}
            Some(read) => {
                let open = (0..N).filter(|other| read.seen[*other].is_none());
                actions.extend(open.map(|other| Action::Sample(at, other)));
                if read.seen.iter().all(Option::is_some) {
                    actions.push(Action::EndRead(at, false));
                    if self.heard_of(state, at).is_some() {
                        actions.push(Action::EndRead(at, true));
                    }
                }
            }
        }
        self.messages_to(state, at, actions);
    }

    /// Could a read begun now show anything that changes something?
    fn read_matters(state: &State<N, B>, at: usize) -> bool {
        let node = &state.nodes[at];
        let newer = |value: Value| epoch(value) > epoch(node.known);
        matches!(node.phase, Phase::ReadPromise(_) | Phase::ReadAccept(_))
            || newer(state.decided)
            || state.disk.iter().any(|block| newer(block.value))
    }

    fn messages_to(&self, state: &State<N, B>, at: usize, actions: &mut Vec<Action>) {
        let node = &state.nodes[at];
        for (number, net) in state.nets.iter().enumerate() {
            let ballot = number as Ballot + 1;
            if net.prepare && ballot > node.memory.mbal {
                actions.push(Action::HearPrepare(at, ballot));
            }
            if net.accept != 0 && ballot >= node.memory.mbal && node.memory.bal < ballot {
                actions.push(Action::HearAccept(at, ballot));
            }
        }
        if self.volatile {
            actions.push(Action::SyncAndAnswer(at));
        }
        if self.all_promised(state, at).is_some() {
            actions.push(Action::AllPromised(at));
        }
        if self.all_accepted(state, at).is_some() {
            actions.push(Action::AllAccepted(at));
        }
        let older = std::iter::successors(Some(state.told), |value| Some(parent(*value)));
        let newer = older.take_while(|value| epoch(*value) > epoch(node.known));
        actions.extend(newer.map(|value| Action::Told(at, value)));
    }

    fn crash(state: &mut State<N, B>, at: usize) {
        state.crashes += 1;
        let node = &mut state.nodes[at];
        *node = Node {
            up: false,
            memory: Acceptor::default(),
            file: node.file,
            known: 0,
            proposal: 0,
            phase: Phase::Idle,
            write: node.write,
            newer: 0,
            read: None,
        };
    }

    fn ask_to_accept(&self, state: &mut State<N, B>, at: usize) {
        if let Some((ballot, value)) = self.all_promised(state, at) {
            state.net(ballot).accept = value;
            state.nodes[at].phase = Phase::NetAccept(ballot);
        }
    }

    pub(super) fn act(&self, state: &mut State<N, B>, action: Action) {
        match action {
            Action::Propose(at) => {
                state.nonces += 1;
                let node = &mut state.nodes[at];
                node.proposal = successor(node.known, state.nonces);
            }
            Action::StartDisk(at) => {
                if let Some(ballot) = self.next_ballot(state, at) {
                    self.start_disk(state, at, ballot);
                }
            }
            Action::StartNet(at) => {
                if let Some(ballot) = self.next_ballot(state, at) {
                    let node = &mut state.nodes[at];
                    node.memory.mbal = ballot;
                    node.phase = Phase::NetPromise(ballot);
                    state.net(ballot).prepare = true;
                    self.heard(state, at);
                }
            }
            Action::Land(at) => self.land(state, at),
            Action::WriteFailed(at) => {
                let node = &mut state.nodes[at];
                node.write = None;
                if let Phase::WritePromise(_) | Phase::WriteAccept(_) = node.phase {
                    node.phase = Phase::Idle;
                }
            }
            Action::BeginRead(at) => Self::begin_read(state, at),
            Action::Sample(at, other) => {
                let block = state.disk[other];
                if let Some(read) = &mut state.nodes[at].read {
                    read.seen[other] = Some(block);
                }
            }
            Action::EndRead(at, heard) => self.end_read(state, at, heard),
            Action::HearPrepare(at, ballot) => {
                state.nodes[at].memory.mbal = ballot;
                self.heard(state, at);
            }
            Action::HearAccept(at, ballot) => {
                let value = state.net(ballot).accept;
                state.nodes[at].memory.accept(ballot, value);
                self.heard(state, at);
            }
            Action::SyncAndAnswer(at) => self.sync_and_answer(state, at),
            Action::AllPromised(at) => self.ask_to_accept(state, at),
            Action::AllAccepted(at) => {
                if let Some(value) = self.all_accepted(state, at) {
                    state.nodes[at].phase = Phase::Idle;
                    state.learn(at, value, self.strict());
                }
            }
            Action::Told(at, value) => state.learn(at, value, self.strict()),
            Action::Crash(at) => Self::crash(state, at),
            Action::Restart(at) => self.restart(state, at),
        }
    }
}
