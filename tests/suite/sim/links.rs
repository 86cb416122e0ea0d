//! A worker's connections: which aggregators it reaches, and what it asks of them.

use edge::proto::{Delivery, ItemId, QueueEvent};

use super::{
    network::{Alarm, Ms, Up},
    worker::aggregator_id,
    world::{AGGREGATORS, World},
};

const PULL_TIMEOUT: Ms = 40_000;

impl World {
    pub(super) fn look(&mut self, w: usize) {
        let wait = self.rng.u64(500..4000);
        self.alarm(wait, w, Alarm::Look);
        for a in 0..AGGREGATORS {
            let life = self.is_reachable(w, a).then_some(self.aggregators[a].life);
            if self.workers[w].queue.is_none() || self.workers[w].links[a] == life {
                continue;
            }
            if self.workers[w].links[a].is_some() {
                self.workers[w].links[a] = None;
                self.workers[w].pulls[a] = None;
                let lost: Vec<ItemId> = self.workers[w]
                    .deliveries
                    .iter()
                    .filter(|(_, to)| to.0 == a)
                    .map(|(id, _)| *id)
                    .collect();
                self.tell_queue(w, QueueEvent::Disconnected { aggregator: aggregator_id(a) }, &[]);
                lost.into_iter().for_each(|id| self.delivered(w, id, Delivery::Missed));
            } else {
                self.workers[w].links[a] = life;
                self.tell_queue(w, QueueEvent::Connected { aggregator: aggregator_id(a) }, &[]);
            }
        }
    }

    pub(super) fn pull(&mut self, w: usize) {
        for a in 0..AGGREGATORS {
            let here = &mut self.workers[w];
            let Some(queue) = &here.queue else { return };
            let (tokens, jobs) = queue.wanted();
            if jobs == 0 || here.links[a].is_none() || here.pulls[a].is_some() {
                continue;
            }
            here.next_serial += 1;
            let serial = here.next_serial;
            here.pulls[a] = Some(serial);
            let tokens_per_s = here.tokens_per_s as u32;
            self.alarm(PULL_TIMEOUT, w, Alarm::PullTimeout { aggregator: a, serial });
            self.send_up(w, a, Up::Pull { serial, tokens, jobs, tokens_per_s });
        }
    }
}
