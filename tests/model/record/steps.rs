//! The rules of a disk with a record, step by step, each with the way in which it can be broken.

use super::{Acceptor, Action, Ballot, Broken, Command, Image, Net, Node, Phase, Recorded, State};
use super::{Count, Value};
use crate::path::{epoch, leads_to, parent, successor};

impl Acceptor {
    fn accept(&mut self, bal: Ballot, value: Value) {
        *self = Acceptor {
            mbal: bal.max(self.mbal),
            bal,
            value,
        };
    }
}

impl Node {
    fn promised(&self) -> Ballot {
        self.memory.mbal.max(self.held)
    }

    /// The value of the higher ballot of the image and of the own voice.
    fn newest(&self, image: Image, own_too: bool) -> Value {
        if own_too && self.memory.bal > image.bal {
            self.memory.value
        } else {
            image.value
        }
    }

    /// Nothing that this node has sent can be done any more.
    fn release(&mut self) {
        if self.open.is_none() && !matches!(self.phase, Phase::Comparing(_)) {
            self.held = 0;
        }
    }
}

impl<const N: usize, const B: usize> State<N, B> {
    pub(super) fn first() -> State<N, B> {
        let net = Net {
            prepare: false,
            promised: [None; N],
            accept: 0,
            accepted: [false; N],
        };
        // All have read the blank disk, and no earlier life has sent anything.
        let mut nodes = [Node {
            up: true,
            recovered: true,
            image: Some(Image::default()),
            ..Node::default()
        }; N];
        for (nonce, node) in (1..).zip(&mut nodes) {
            node.proposal = successor(0, nonce);
        }
        State {
            nodes,
            disk: Image::default(),
            commands: [None; B],
            closings: 0,
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

    /// Nobody looks at the promises of a ballot that has gone on.
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

    fn command(&mut self, ballot: Ballot) -> &mut Option<Command> {
        &mut self.commands[usize::from(ballot) - 1]
    }

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
        if epoch(node.proposal) <= epoch(value) {
            node.proposal = 0;
        }
        if epoch(value) > epoch(self.told) {
            self.told = value;
        }
    }
}

impl<const N: usize, const B: usize> Recorded<N, B> {
    /// With the rules kept the acceptors say what is decided, else only what nodes report counts.
    fn strict(&self) -> bool {
        self.broken == Broken::Nothing
    }

    fn next_ballot(&self, node: &Node, at: usize) -> Option<Ballot> {
        let image = node.image.map_or(0, |image| image.bal);
        let below = node.promised().max(image).max(node.highest);
        let mut own = (0..B).filter(|number| number % N == at);
        own.find(|number| *number as Ballot >= below)
            .map(|number| number as Ballot + 1)
    }

    fn votes(&self, node: &Node) -> bool {
        let closed = node.past.is_none() || self.broken == Broken::PastNotClosed;
        (node.recovered || self.broken == Broken::DiskNotRead) && closed
    }

    // ---- the disk ----

    /// The image is known to have been there. What the disk has accepted this node accepts.
    fn know(&self, state: &mut State<N, B>, at: usize, image: Image) {
        let node = &mut state.nodes[at];
        node.image = Some(image);
        node.count = image.count;
        node.open = node.open.filter(|count| *count == image.count);
        node.past = node.past.filter(|count| *count == image.count);
        node.release();
        let free = image.bal >= node.promised() || self.broken == Broken::PromiseIgnored;
        if image.bal > node.memory.bal && free {
            node.memory.accept(image.bal, image.value);
            if self.strict() {
                state.decide(image.value);
            }
        }
        let node = &mut state.nodes[at];
        let both = image.bal == node.memory.bal || self.broken == Broken::LearntFromTheDiskAlone;
        if both && epoch(image.value) > epoch(node.known) {
            state.learn(at, image.value, self.strict());
        }
    }

    fn take_in(&self, state: &mut State<N, B>, at: usize) {
        let Some((image, decided)) = state.nodes[at].read.take() else {
            return;
        };
        let node = &mut state.nodes[at];
        if !node.recovered {
            node.recovered = true;
            node.past = Some(image.count);
        }
        if image.count < node.count {
            return;
        }
        self.know(state, at, image);
        let node = &state.nodes[at];
        let newest = node.newest(image, self.broken != Broken::ProofWithoutOwn);
        if newest == node.known && epoch(decided) > epoch(node.known) {
            state.wrong_proof = true;
        }
    }

    /// What a ballot begun now would be, and its value.
    fn attempt(&self, node: &Node, at: usize) -> Option<(Ballot, Image, Value)> {
        let image = node.image?;
        let busy = node.open.is_some() || node.past.is_some() || node.phase != Phase::Idle;
        let unsettled = epoch(image.value.max(node.memory.value)) > epoch(node.known)
            || node.memory.bal > image.bal;
        if busy || !node.recovered || (node.proposal == 0 && !unsettled) {
            return None;
        }
        let found = node.newest(image, self.broken != Broken::OwnValueIgnored);
        let value = choose(node.proposal, found)?;
        self.next_ballot(node, at)
            .map(|ballot| (ballot, image, value))
    }

    fn send(&self, state: &mut State<N, B>, at: usize) {
        let Some((ballot, image, value)) = self.attempt(&state.nodes[at], at) else {
            return;
        };
        *state.command(ballot) = Some(Command {
            expected: image.count,
            value,
            done: false,
        });
        let node = &mut state.nodes[at];
        node.phase = Phase::Comparing(ballot);
        node.highest = ballot;
        if self.broken != Broken::NotHeld {
            node.held = ballot;
        }
        if self.broken == Broken::AcceptedWhenSent {
            node.memory.accept(ballot, value);
        }
    }

    fn land(&self, state: &mut State<N, B>, ballot: Ballot) {
        let disk = state.disk;
        let compares = self.broken != Broken::NotCompared;
        if let Some(command) = state.command(ballot)
            && (command.expected == disk.count || !compares && !command.done)
        {
            command.done = true;
            state.disk = Image {
                count: disk.count + 1,
                bal: ballot,
                value: command.value,
            };
        }
    }

    /// The command's answer: done, or refused because another image was there. Nothing if it has
    /// not come to that yet.
    fn answer(&self, state: &State<N, B>, at: usize) -> Option<bool> {
        match state.nodes[at].phase {
            Phase::Comparing(ballot) => {
                let command = state.commands[usize::from(ballot) - 1]?;
                let gone = state.disk.count != command.expected;
                (command.done || gone).then_some(command.done)
            }
            Phase::Closing(count) => (state.disk.count != count).then_some(true),
            Phase::Idle | Phase::NetPromise(_) | Phase::NetAccept(_) => None,
        }
    }

    fn answered(&self, state: &mut State<N, B>, at: usize) {
        let Some(done) = self.answer(state, at) else {
            return;
        };
        let phase = std::mem::take(&mut state.nodes[at].phase);
        let command = match phase {
            Phase::Comparing(ballot) => state.command(ballot).map(|command| (ballot, command)),
            _ => None,
        };
        let node = &mut state.nodes[at];
        if let (Some((bal, command)), true) = (command, done) {
            let image = Image {
                count: command.expected + 1,
                bal,
                value: command.value,
            };
            if node.count < image.count {
                return self.know(state, at, image);
            }
        } else {
            // It is another one, of which only a read says more: also whether it is an own one.
            node.image = None;
            if self.broken == Broken::ForgottenWhenRefused {
                node.open = None;
                node.past = None;
                node.release();
            }
            return;
        }
        state.nodes[at].release();
    }

    fn answer_lost(&self, state: &mut State<N, B>, at: usize) {
        let node = &mut state.nodes[at];
        let expected = match std::mem::take(&mut node.phase) {
            Phase::Comparing(ballot) => {
                let command = state.commands[usize::from(ballot) - 1];
                command.map(|command| command.expected)
            }
            Phase::Closing(_) | Phase::Idle | Phase::NetPromise(_) | Phase::NetAccept(_) => None,
        };
        let node = &mut state.nodes[at];
        if let Some(expected) = expected
            && self.broken != Broken::LostMeansRefused
        {
            let current = node.image.map(|image| image.count);
            node.open = Some(expected).filter(|count| current.is_none_or(|seen| seen == *count));
        }
        node.image = None;
    }

    fn close(state: &mut State<N, B>, at: usize) {
        let node = &mut state.nodes[at];
        if let (Some(image), Phase::Idle) = (node.image, node.phase)
            && node.open.or(node.past) == Some(image.count)
        {
            node.phase = Phase::Closing(image.count);
            state.closings |= 1 << image.count;
        }
    }

    fn renumber(state: &mut State<N, B>, count: Count) {
        if state.closings >> count & 1 == 1 && state.disk.count == count {
            state.disk.count += 1;
        }
    }

    // ---- the network ----

    fn heard(&self, state: &mut State<N, B>, at: usize) {
        if !self.volatile {
            self.sync(state, at);
        }
    }

    fn sync(&self, state: &mut State<N, B>, at: usize) {
        let memory = state.nodes[at].memory;
        state.nodes[at].file = memory;
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

    fn start_net(&self, state: &mut State<N, B>, at: usize) {
        let Some(ballot) = self.next_ballot(&state.nodes[at], at) else {
            return;
        };
        // A command under way is left to itself; it may be done at any time.
        if let Phase::Comparing(_) = state.nodes[at].phase {
            self.answer_lost(state, at);
        }
        let node = &mut state.nodes[at];
        node.memory.mbal = ballot;
        node.phase = Phase::NetPromise(ballot);
        node.highest = ballot;
        state.net(ballot).prepare = true;
        self.heard(state, at);
    }

    fn crash(state: &mut State<N, B>, at: usize) {
        state.crashes += 1;
        let node = &mut state.nodes[at];
        *node = Node {
            file: node.file,
            ..Node::default()
        };
    }

    fn restart(&self, state: &mut State<N, B>, at: usize) {
        let node = &mut state.nodes[at];
        node.up = true;
        if self.broken != Broken::FileForgotten {
            node.memory = node.file;
        }
    }
}

/// The proposal, if it stands upon what was found, else that itself; nothing if there is nothing.
fn choose(proposal: Value, found: Value) -> Option<Value> {
    let fits = proposal != 0 && parent(proposal) == found;
    let value = if fits { proposal } else { found };
    (value != 0).then_some(value)
}

impl<const N: usize, const B: usize> Recorded<N, B> {
    pub(super) fn commands_to(&self, state: &State<N, B>, actions: &mut Vec<Action>) {
        for (number, command) in state.commands.iter().enumerate() {
            let fits = command.is_some_and(|command| command.expected == state.disk.count);
            let blindly =
                self.broken == Broken::NotCompared && command.is_some_and(|command| !command.done);
            if fits || blindly {
                actions.push(Action::Land(number as Ballot + 1));
            }
        }
        if state.closings >> state.disk.count & 1 == 1 {
            actions.push(Action::Renumber(state.disk.count));
        }
    }

    pub(super) fn actions_of(&self, state: &State<N, B>, at: usize, actions: &mut Vec<Action>) {
        let node = &state.nodes[at];
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
        if node.read.is_some() {
            actions.push(Action::TakeIn(at));
        } else if node.image != Some(state.disk) || epoch(state.decided) > epoch(node.known) {
            actions.push(Action::Read(at));
        }
        if self.attempt(node, at).is_some() {
            actions.push(Action::Send(at));
        }
        if self.answer(state, at).is_some() {
            actions.push(Action::Answer(at));
        }
        if matches!(node.phase, Phase::Comparing(_) | Phase::Closing(_)) {
            actions.push(Action::AnswerLost(at));
        }
        let open = node.open.or(node.past);
        if node.phase == Phase::Idle
            && open.is_some_and(|open| node.image.map(|i| i.count) == Some(open))
        {
            actions.push(Action::Close(at));
        }
        self.messages_to(state, at, actions);
    }

    fn messages_to(&self, state: &State<N, B>, at: usize, actions: &mut Vec<Action>) {
        let node = &state.nodes[at];
        let older = std::iter::successors(Some(state.told), |value| Some(parent(*value)));
        let newer = older.take_while(|value| epoch(*value) > epoch(node.known));
        actions.extend(newer.map(|value| Action::Told(at, value)));
        if !self.votes(node) {
            return;
        }
        let unsettled = epoch(node.memory.value) > epoch(node.known);
        let free = !matches!(node.phase, Phase::Closing(_));
        if free && (node.proposal != 0 || unsettled) && self.next_ballot(node, at).is_some() {
            actions.push(Action::StartNet(at));
        }
        for (number, net) in state.nets.iter().enumerate() {
            let ballot = number as Ballot + 1;
            if net.prepare && ballot > node.promised() {
                actions.push(Action::HearPrepare(at, ballot));
            }
            if net.accept != 0 && ballot >= node.promised() && node.memory.bal < ballot {
                actions.push(Action::HearAccept(at, ballot));
            }
        }
        if self.volatile {
            actions.push(Action::Sync(at));
        }
        if self.all_promised(state, at).is_some() {
            actions.push(Action::AllPromised(at));
        }
        if self.all_accepted(state, at).is_some() {
            actions.push(Action::AllAccepted(at));
        }
    }

    pub(super) fn act(&self, state: &mut State<N, B>, action: Action) {
        match action {
            Action::Propose(at) => {
                state.nonces += 1;
                let node = &mut state.nodes[at];
                node.proposal = successor(node.known, state.nonces);
            }
            Action::Read(at) => state.nodes[at].read = Some((state.disk, state.decided)),
            Action::TakeIn(at) => self.take_in(state, at),
            Action::Send(at) => self.send(state, at),
            Action::Land(ballot) => self.land(state, ballot),
            Action::Answer(at) => self.answered(state, at),
            Action::AnswerLost(at) => self.answer_lost(state, at),
            Action::Close(at) => Self::close(state, at),
            Action::Renumber(count) => Self::renumber(state, count),
            Action::StartNet(at) => self.start_net(state, at),
            Action::HearPrepare(at, ballot) => {
                state.nodes[at].memory.mbal = ballot;
                self.heard(state, at);
            }
            Action::HearAccept(at, ballot) => {
                let value = state.net(ballot).accept;
                state.nodes[at].memory.accept(ballot, value);
                self.heard(state, at);
            }
            Action::Sync(at) => self.sync(state, at),
            Action::AllPromised(at) => {
                if let Some((ballot, value)) = self.all_promised(state, at) {
                    state.net(ballot).accept = value;
                    state.nodes[at].phase = Phase::NetAccept(ballot);
                }
            }
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
