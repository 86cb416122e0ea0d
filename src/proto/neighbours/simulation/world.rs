//! What happens to forty nodes, and what they do.

use super::*;

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut world = Self {
            rng: fastrand::Rng::with_seed(seed),
            now: 0,
            seq: 0,
            events: BTreeMap::new(),
            nodes: Vec::new(),
            side: vec![false; NODES],
            next_link: 0,
            signed: BTreeMap::new(),
            up: vec![0; NODES],
            calm: false,
            reached: BTreeSet::new(),
            seen: Seen::default(),
        };
        for n in 0..NODES {
            let swarms = match n {
                0..HUBS => vec![swarm(1), swarm(2)],
                _ if n % 4 == 0 => vec![swarm(2)],
                _ if n % 4 == 1 => vec![swarm(1), swarm(2)],
                _ => vec![swarm(1)],
            };
            world.nodes.push(Node {
                alive: false,
                life: 0,
                natted: n >= HUBS && n % 5 == 0,
                swarms,
                dialer: Dialer::new(id_of(n), 0),
                machine: Neighbours::new(key(n), part(n), 0, 0),
                remembered: BTreeMap::new(),
                links: BTreeMap::new(),
                parked: BTreeMap::new(),
                work: false,
                ended: 0,
                busy: BTreeSet::new(),
                dials: BTreeMap::new(),
                asks: 0,
                wake: None,
            });
        }
        (0..NODES).for_each(|n| world.start(n));
        world
    }

    pub(super) fn at(&self) -> Timestamp {
        Timestamp::from_ms(self.now)
    }

    pub(super) fn put(&mut self, after: u64, node: usize, what: What) {
        self.seq += 1;
        let life = self.nodes[node].life;
        self.events.insert((self.now + after, self.seq), (node, life, what));
    }

    pub(super) fn start(&mut self, n: usize) {
        let (seed, now) = (self.rng.u64(..), self.at());
        let node = &mut self.nodes[n];
        node.life += 1;
        node.alive = true;
        node.dialer = Dialer::new(id_of(n), seed);
        node.machine = Neighbours::new(key(n), part(n), node.life, seed);
        let shown = [1, 2].map(|n| (swarm(n), credential(n)));
        node.machine.joined(shown.into_iter().filter(|(swarm, _)| node.swarms.contains(swarm)));
        (node.work, node.wake, node.asks) = (false, None, 0);
        node.busy.clear();
        node.dials.clear();
        for hub in (0..HUBS).filter(|hub| *hub != n) {
            node.dialer.learn(now, place(hub), Some(id_of(hub)), Origin::Bootstrap);
        }
        for (peer, address) in &node.remembered {
            node.dialer.learn(now, *address, Some(*peer), Origin::Remembered);
        }
        self.settle(n);
    }

    /// Ends a node; `leaves`: with a goodbye.
    pub(super) fn stop(&mut self, n: usize, leaves: bool) {
        self.nodes[n].alive = false;
        self.nodes[n].life += 1;
        self.nodes[n].work = false;
        for (other, ends) in std::mem::take(&mut self.nodes[n].links) {
            if leaves {
                self.lose(other, n, ends.link, true);
            } else {
                let silent = self.rng.u64(0..60_000);
                self.put(silent, other, What::LinkEnds(ends.link));
            }
        }
        self.nodes[n].parked.clear();
    }

    /// A node's link ends.
    pub(super) fn lose(&mut self, n: usize, other: usize, link: u64, left: bool) {
        let now = self.at();
        let node = &mut self.nodes[n];
        if node.links.get(&other).is_none_or(|ends| ends.link != link) {
            return;
        }
        let Some(ends) = node.links.remove(&other) else { return };
        node.asks -= usize::from(ends.asked);
        node.parked.remove(&other);
        node.busy.remove(&id_of(other));
        node.machine.lost(now, &id_of(other), left);
        node.dialer.lost(now, &id_of(other));
        self.settle(n);
    }

    pub(super) fn reach(&self, from: usize, to: usize) -> bool {
        self.nodes[to].alive && self.side[from] == self.side[to]
    }

    pub(super) fn dialled(&mut self, n: usize, address: SocketAddr) {
        let (to, now) = (number(address), self.at());
        let lost = !self.calm && self.rng.u8(..) < 25;
        let works = self.reach(n, to) && !self.nodes[to].natted && !lost;
        if !works || self.nodes[to].links.len() >= LINKS_MAX {
            self.seen.refused += 1;
            self.nodes[n].dialer.ended(now, &address, Dialled::Failed);
            if !self.nodes[n].dialer.is_trying(&id_of(to)) {
                self.nodes[n].machine.unreached(now, &id_of(to));
                self.nodes[n].dials.remove(&id_of(to));
            }
            return self.settle(n);
        }
        let shared: Vec<SwarmId> =
            self.nodes[n].swarms.iter().filter(|s| self.nodes[to].swarms.contains(s)).copied().collect();
        if shared.is_empty() {
            self.nodes[n].dialer.ended(now, &address, Dialled::Stranger(id_of(to)));
            return self.settle(n);
        }
        self.nodes[n].dialer.ended(now, &address, Dialled::Member(id_of(to)));
        self.nodes[n].remembered.insert(id_of(to), address);
        if self.nodes[n].links.contains_key(&to) || self.nodes[to].links.contains_key(&n) {
            // One end may not have seen that the former one is dead: the new one takes its place.
            self.cut_link(n, to);
        }
        self.seen.links += 1;
        self.next_link += 1;
        for (one, other) in [(n, to), (to, n)] {
            let ends =
                Ends { link: self.next_link, idle: self.now, demand: false, closing: false, asked: false };
            let node = &mut self.nodes[one];
            node.links.insert(other, ends);
            node.dialer.connected(id_of(other));
            let named = node.dialer.is_named(&id_of(other));
            node.machine.connected(now, id_of(other), place(other), shared.clone(), named);
            node.dials.remove(&id_of(other));
            self.up[other] = self.now;
        }
        for (one, other) in [(n, to), (to, n)] {
            self.say(one, other, Said::PeersAsked);
            self.settle(one);
        }
    }

    pub(super) fn cut_link(&mut self, n: usize, to: usize) {
        self.note_up();
        for (one, other) in [(n, to), (to, n)] {
            if let Some(ends) = self.nodes[one].links.get(&other).copied() {
                self.lose(one, other, ends.link, false);
            }
        }
    }

    /// What goes over a link arrives, or the link ends.
    pub(super) fn say(&mut self, from: usize, to: usize, said: Said) {
        let Some(ends) = self.nodes[from].links.get(&to) else { return };
        let (link, wait) = (ends.link, self.rng.u64(1..80));
        if self.reach(from, to) {
            self.put(wait, to, What::Message(link, from, Box::new(said)));
        }
    }

    pub(super) fn settle(&mut self, n: usize) {
        let now = self.at();
        let mut effects = Vec::new();
        let node = &mut self.nodes[n];
        if !node.alive {
            return;
        }
        node.machine.busy_with(now, &node.busy);
        node.machine.settle(now, node.dialer.known(), &mut effects);
        for effect in effects {
            self.carry_out(n, effect);
        }
        let parked: Vec<(usize, u64)> =
            self.nodes[n].parked.iter().map(|(other, (after, _))| (*other, *after)).collect();
        for (other, after) in parked {
            if let Some(told) = self.nodes[n].machine.tell(now, &id_of(other), after) {
                self.nodes[n].parked.remove(&other);
                self.say(n, other, Said::Answer(told));
            }
        }
        let node = &mut self.nodes[n];
        let wanted = node.machine.wanted();
        let due = node.dialer.due(now, wanted);
        for (address, _) in due {
            let wait = if self.nodes[number(address)].alive { 50 } else { 10_000 };
            self.put(wait, n, What::Dialled(address));
        }
        let node = &mut self.nodes[n];
        let machine = node.machine.next_deadline();
        assert!(machine.is_none_or(|at| at > now), "a deadline that has passed: {machine:?} at {now:?}");
        let deadline = machine.into_iter().chain(node.dialer.next_deadline(wanted)).min();
        if let Some(at) = deadline.map(|at| at.as_ms().max(self.now + 1))
            && node.wake.is_none_or(|wake| wake <= self.now || at < wake)
        {
            node.wake = Some(at);
            self.put(at - self.now, n, What::Wake);
        }
        self.check(n);
    }

    pub(super) fn carry_out(&mut self, n: usize, effect: Effect) {
        let now = self.now;
        match effect {
            Effect::Ask { peer, after } => {
                let other = self.of(&peer);
                let node = &mut self.nodes[n];
                node.links.get_mut(&other).unwrap().asked = true;
                node.asks += 1;
                self.say(n, other, Said::Ask(after));
            }
            Effect::Tell { peer, told } => {
                for advert in &told.adverts {
                    assert_eq!(advert.peer, id_of(n), "what is told unasked is one's own");
                    let signed = (id_of(n), advert.paper.body().to_vec());
                    let open = || (now, advert.paper.open(&id_of(n)).unwrap());
                    self.signed.entry(signed).or_insert_with(open);
                }
                let other = self.of(&peer);
                self.say(n, other, Said::Push(told));
            }
            Effect::Demand { peer, demand } => {
                let other = self.of(&peer);
                let ends = self.nodes[n].links.get_mut(&other).unwrap();
                (ends.demand, ends.idle) = (demand, now);
                if demand {
                    self.reached.insert((n, other));
                }
                if demand && self.nodes[other].work && part(n).lends && self.rng.u8(..) < 200 {
                    self.nodes[n].busy.insert(peer);
                    let wait = self.rng.u64(1000..40_000);
                    self.put(wait, n, What::WorkEnds(peer));
                }
            }
            Effect::Dial { peer, addresses } => {
                assert!(!addresses.is_empty());
                self.seen.dials_for_work += 1;
                let node = &mut self.nodes[n];
                node.dials.insert(peer, now);
                node.dialer.wish(Timestamp::from_ms(now), peer, &addresses);
            }
            Effect::Close { peer } => {
                self.seen.closed += 1;
                let other = self.of(&peer);
                self.nodes[n].links.get_mut(&other).unwrap().closing = true;
                let link = self.nodes[n].links[&other].link;
                for one in [n, other] {
                    self.put(1, one, What::LinkEnds(link));
                }
            }
        }
    }

    pub(super) fn of(&self, peer: &PeerId) -> usize {
        IDS.with(|ids| ids.iter().position(|id| id == peer)).unwrap()
    }

    pub(super) fn happened(&mut self, n: usize, what: What) {
        let now = self.at();
        match what {
            What::Wake => self.nodes[n].wake = None,
            What::Dialled(address) => return self.dialled(n, address),
            What::LinkEnds(link) => {
                self.note_up();
                let found = self.nodes[n].links.iter().find(|(_, ends)| ends.link == link);
                let Some((&other, ends)) = found else { return };
                let closing =
                    ends.closing || self.nodes[other].links.get(&n).is_some_and(|ends| ends.closing);
                self.lose(n, other, link, false);
                if closing {
                    self.nodes[n].dialer.rest(now, &id_of(other));
                }
            }
            What::WorkEnds(peer) => {
                let other = self.of(&peer);
                self.nodes[n].busy.remove(&peer);
                if let Some(ends) = self.nodes[n].links.get_mut(&other) {
                    ends.idle = self.now;
                }
            }
            What::AskEnds(other, until) => {
                if self.nodes[n].parked.get(&other).is_some_and(|(_, at)| *at == until) {
                    let (after, _) = self.nodes[n].parked.remove(&other).unwrap();
                    self.say(n, other, Said::Answer(DemandTold { upto: after, adverts: Vec::new() }));
                }
            }
            What::Message(link, from, said) => {
                if self.nodes[n].links.get(&from).is_none_or(|ends| ends.link != link) {
                    return;
                }
                self.up[from] = self.now;
                self.heard(n, from, *said);
            }
        }
        self.settle(n);
    }

    pub(super) fn heard(&mut self, n: usize, from: usize, said: Said) {
        let now = self.at();
        match said {
            Said::Ask(after) => {
                let until = self.now + ASKED_WAIT;
                self.nodes[n].parked.insert(from, (after, until));
                self.put(ASKED_WAIT, n, What::AskEnds(from, until));
            }
            Said::Answer(told) => {
                self.judge(n, from, &told);
                let node = &mut self.nodes[n];
                node.asks -= 1;
                node.links.get_mut(&from).unwrap().asked = false;
                node.machine.answered(now, &id_of(from), Some(&told), |_, _| true);
            }
            Said::Push(told) => {
                self.judge(n, from, &told);
                self.nodes[n].machine.told(now, &id_of(from), &told, |_, _| true);
            }
            Said::PeersAsked => {
                let peers = self.nodes[n].machine.peers_for(now, &id_of(from));
                for peer in &peers {
                    let other = self.of(&peer.peer);
                    let shares = self.nodes[other].swarms.iter().any(|s| self.nodes[from].swarms.contains(s));
                    assert!(shares, "a member of another swarm is told of");
                    let silent = self.silent(other);
                    assert!(u64::from(peer.age_s) * 1000 + 60_000 >= silent && peer.age_s <= 600);
                }
                self.say(n, from, Said::Peers(peers));
            }
            Said::Peers(peers) => {
                for told in peers {
                    self.nodes[n].dialer.learn(now, told.address, Some(told.peer), Origin::Told);
                }
            }
        }
    }

    /// All links that are up are so now, before something changes that.
    pub(super) fn note_up(&mut self) {
        for n in 0..NODES {
            if self.silent(n) == 0 {
                self.up[n] = self.now;
            }
        }
    }

    pub(super) fn wants(&mut self, n: usize, work: bool) {
        let now = self.at();
        let node = &mut self.nodes[n];
        if node.alive && node.work != work {
            node.work = work;
            if !work {
                node.ended = self.now;
            }
            let swarm = node.swarms[0];
            node.machine.wants(now, swarm, if work { 12 } else { 0 });
            self.settle(n);
        }
    }

    /// Something goes wrong, or begins.
    pub(super) fn disturb(&mut self) {
        self.note_up();
        let n = self.rng.usize(0..NODES);
        match self.rng.u8(0..20) {
            0..3 => self.wants(n, true),
            3..6 => {
                for n in 0..NODES {
                    if self.rng.bool() {
                        self.wants(n, false);
                    }
                }
            }
            6..9 => {
                let leaves = self.rng.bool();
                self.stop(n, leaves);
            }
            9..14 => {
                for n in 0..NODES {
                    if !self.nodes[n].alive && self.rng.bool() {
                        self.start(n);
                    }
                }
            }
            14 => self.side = (0..NODES).map(|_| self.rng.u8(..) < 80).collect(),
            15..17 => self.side = vec![false; NODES],
            _ => {
                let others: Vec<(usize, u64)> =
                    self.nodes[n].links.iter().map(|(other, ends)| (*other, ends.link)).collect();
                if let Some(&(other, link)) = self.rng.choice(&others) {
                    self.put(0, n, What::LinkEnds(link));
                    let late = self.rng.u64(0..60_000);
                    self.put(late, other, What::LinkEnds(link));
                }
            }
        }
        // Who is cut off falls silent.
        let across: Vec<(usize, u64)> = (0..NODES)
            .flat_map(|n| self.nodes[n].links.iter().map(move |(other, ends)| (n, *other, ends.link)))
            .filter(|(n, other, _)| self.side[*n] != self.side[*other])
            .map(|(n, _, link)| (n, link))
            .collect();
        for (n, link) in across {
            let silent = self.rng.u64(0..60_000);
            self.put(silent, n, What::LinkEnds(link));
        }
    }

    pub(super) fn run_until(&mut self, end: u64) {
        while let Some(entry) = self.events.first_entry()
            && entry.key().0 <= end
        {
            let ((at, _), (node, life, what)) = entry.remove_entry();
            self.now = at;
            if self.nodes[node].life == life && self.nodes[node].alive {
                self.happened(node, what);
            }
        }
        self.now = end;
    }
}
