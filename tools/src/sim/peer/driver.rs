//! One client at work.

use super::{ClientId, ClientPlan, End, Instant, IpAddr, Job, Leave, Reader, SocketAddr, Station, answers, pattern};

/// A [`ClientPlan`] in action.
pub struct Driver {
    /// The plan.
    pub plan: ClientPlan,
    server: SocketAddr,
    id: Option<ClientId>,
    /// What it sends, in the pieces that must wait for the answer before them; and how much of the first was handed over.
    script: Vec<Vec<u8>>,
    piece: usize,
    written: usize,
    closed: bool,
    vanished: bool,
    next_write: Instant,
    next_read: Instant,
    /// HTTP: complete answers, and where the next begins.
    answered: usize,
    answers_end: usize,
    /// Before so many bytes are there, there is nothing to look at.
    needed: usize,
    wrong: Option<String>,
    /// What it had achieved when something last moved, and when that was.
    achieved: (usize, u64, bool),
    moved_at: Instant,
}

impl Driver {
    /// A client of the server at `v4` and `v6`.
    pub fn new(plan: ClientPlan, v4: IpAddr, v6: IpAddr) -> Driver {
        let server = SocketAddr::new(if plan.v6 { v6 } else { v4 }, plan.port());
        Driver {
            script: script(&plan),
            server,
            id: None,
            piece: 0,
            written: 0,
            closed: false,
            vanished: false,
            next_write: Instant::from_micros(plan.start_us),
            next_read: Instant::ZERO,
            answered: 0,
            answers_end: 0,
            needed: 0,
            wrong: None,
            achieved: (0, 0, false),
            moved_at: Instant::from_micros(plan.start_us),
            plan,
        }
    }

    /// Its connection, once it has begun.
    pub fn id(&self) -> Option<ClientId> {
        self.id
    }

    /// Does what is due.
    pub fn step(&mut self, now: Instant, station: &mut Station) {
        if now.micros() < self.plan.start_us {
            return;
        }
        let id = *self.id.get_or_insert_with(|| {
            station.next_port(40_000 + 100 * self.plan.number as u16);
            station.connect(self.server, self.plan.options.clone())
        });
        let begun = Instant::from_micros(self.plan.start_us);
        match self.plan.leave {
            Leave::Abort(after_us) if !self.closed && now >= begun.plus_micros(after_us) => {
                self.closed = true;
                station.client(id).reset();
            }
            Leave::Vanish(after_us) if !self.vanished && now >= begun.plus_micros(after_us) => {
                self.vanished = true;
                station.forget(id);
            }
            _ => {}
        }
        if self.vanished || station.client(id).end().is_some() {
            self.judge(station, true);
            return;
        }
        self.read(now, begun, station, id);
        self.judge(station, false);
        self.write(now, station, id);
        let client = station.client(id);
        let achieved = (client.received().len(), client.acknowledged(), client.is_open());
        if achieved != self.achieved {
            (self.achieved, self.moved_at) = (achieved, now);
        }
    }

    fn read(&mut self, now: Instant, begun: Instant, station: &mut Station, id: ClientId) {
        let client = station.client(id);
        match self.plan.reader {
            Reader::Eager => drop(client.read(usize::MAX).len()),
            Reader::Late(after_us) if now >= begun.plus_micros(after_us) => drop(client.read(usize::MAX).len()),
            Reader::Late(after_us) => self.next_read = begun.plus_micros(after_us),
            Reader::Slow(most, every_us) if now >= self.next_read => {
                client.read(most);
                self.next_read = now.plus_micros(every_us);
                self.moved_at = now;
            }
            Reader::Slow(..) => {}
        }
    }

    fn write(&mut self, now: Instant, station: &mut Station, id: ClientId) {
        let client = station.client(id);
        if self.closed {
            return;
        }
        while now >= self.next_write && self.piece < self.script.len() && self.piece <= self.answered_pieces() {
            let piece = &self.script[self.piece];
            let (most, gap_us) = self.plan.write;
            let to = piece.len().min(self.written.saturating_add(most));
            client.send(&piece[self.written..to]);
            self.written = to;
            self.moved_at = now;
            if to == piece.len() {
                (self.piece, self.written) = (self.piece + 1, 0);
            }
            self.next_write = now.plus_micros(gap_us);
        }
        let sent = self.piece == self.script.len();
        let done = self.is_complete(station);
        let client = station.client(id);
        let close = match self.plan.leave {
            Leave::HalfClose => sent,
            Leave::Done => sent && done,
            Leave::AskToClose => sent && (done || client.finished()),
            Leave::Abort(_) | Leave::Vanish(_) => false,
        };
        // Whatever the plan: a server that has ended its stream will answer nothing more.
        if close || client.finished() {
            self.closed = true;
            self.moved_at = now;
            client.close();
        }
    }

    /// Pieces of the script whose answers are there.
    fn answered_pieces(&self) -> usize {
        match &self.plan.job {
            Job::Http { pipelined: false, .. } => self.answered,
            _ => self.script.len(),
        }
    }

    /// Looks at what has arrived; at the end also at an answer of which only a part came.
    fn judge(&mut self, station: &mut Station, at_the_end: bool) {
        let (Some(id), None) = (self.id, &self.wrong) else { return };
        let received = station.client(id).received();
        match &self.plan.job {
            Job::Echo(_) => {
                let sent = &self.script[0];
                let from = self.answers_end.min(sent.len());
                let new = &received[from.min(received.len())..];
                if received.len() > sent.len() {
                    self.wrong = Some(format!("{} bytes came back of {}", received.len(), sent.len()));
                } else if let Some(at) = new.iter().zip(&sent[from..]).position(|(got, want)| got != want) {
                    self.wrong = Some(format!("byte {} came back wrong", from + at));
                }
                self.answers_end = received.len();
            }
            Job::Http { requests, .. } => {
                if received.len() < self.needed && !at_the_end {
                    return;
                }
                while self.answered < requests.len() && self.answers_end < received.len() {
                    let stream = stream(&self.plan, self.answered);
                    match answers::check(requests[self.answered], stream, &received[self.answers_end..]) {
                        Ok(answers::Answer::Needs(len)) => {
                            self.needed = self.answers_end + len;
                            break;
                        }
                        Ok(answers::Answer::Whole(len)) => {
                            self.answered += 1;
                            self.answers_end += len;
                        }
                        // Whether it had the right to is for the verdict to say.
                        Ok(answers::Answer::TooLate) => return self.needed = usize::MAX,
                        Err(what) => return self.wrong = Some(what),
                    }
                }
                if received.len() > self.answers_end && self.answered == requests.len() {
                    self.wrong = Some(format!("{} bytes behind the last answer", received.len() - self.answers_end));
                }
            }
        }
    }

    /// Whether everything asked for is there.
    pub fn is_complete(&self, station: &mut Station) -> bool {
        let Some(id) = self.id else { return false };
        match &self.plan.job {
            Job::Echo(_) => station.client(id).received().len() == self.script[0].len(),
            Job::Http { requests, .. } => self.answered == requests.len(),
        }
    }

    /// Whether nothing more will happen.
    pub fn is_over(&self, station: &mut Station) -> bool {
        self.vanished || self.id.is_some_and(|id| station.client(id).end().is_some())
    }

    /// How it ended.
    pub fn end(&self, station: &mut Station) -> Option<End> {
        station.client(self.id?).end()
    }

    /// What was wrong with what it got, or with how the server behaved, now that it has come to its end.
    /// `several`: by a server of several shards.
    pub fn complaints(&mut self, station: &mut Station, several: bool) -> Vec<String> {
        let Some(id) = self.id else { return Vec::new() };
        self.judge(station, true);
        let violations = station.client(id).violations().iter();
        // RFC 9293 3.10.5: whoever gives up resets from SND.NXT, which the path may have kept from us.
        // And a SYN that came twice may have been answered by two shards, each with a number of its own.
        let excused = |what: &&String| what.starts_with("a reset at") || several && what.starts_with("a SYN inside");
        let violations = violations.filter(|what| !excused(what)).cloned();
        violations.chain(self.wrong.clone()).collect()
    }

    /// Microseconds since anything moved that could move: what it waits for is the server's to give.
    pub fn stalled_us(&self, now: Instant, station: &mut Station) -> u64 {
        let late = matches!(self.plan.reader, Reader::Late(_)) && now < self.next_read;
        if self.id.is_none() || self.is_over(station) || late || now < self.next_write {
            return 0;
        }
        now.micros_since(self.moved_at.max(self.next_read.min(now)))
    }

    /// When it wants its next step even if nothing arrives.
    pub fn deadline(&self, now: Instant, station: &mut Station) -> Option<Instant> {
        let begun = Instant::from_micros(self.plan.start_us);
        let Some(id) = self.id else { return Some(begun) };
        if self.is_over(station) {
            return None;
        }
        let leave = match self.plan.leave {
            Leave::Abort(after_us) | Leave::Vanish(after_us) => Some(begun.plus_micros(after_us)),
            _ => None,
        };
        let unread = station.client(id).unread() > 0;
        let read =
            (self.next_read > now && (unread || matches!(self.plan.reader, Reader::Late(_)))).then_some(self.next_read);
        let write = (self.piece < self.script.len()).then_some(self.next_write);
        leave.into_iter().chain(read).chain(write).filter(|&at| at > now).min()
    }

    /// Bytes that it handed to its TCP.
    pub fn sent(&self) -> u64 {
        let whole: usize = self.script[..self.piece].iter().map(Vec::len).sum();
        (whole + self.written) as u64
    }
}

/// What no other stream of bytes has in common with this one.
fn stream(plan: &ClientPlan, request: usize) -> u64 {
    (plan.number * 100 + request) as u64 + 1
}

fn script(plan: &ClientPlan) -> Vec<Vec<u8>> {
    match &plan.job {
        Job::Echo(len) => vec![pattern(stream(plan, 0), *len)],
        Job::Http { requests, pipelined } => {
            let last = |i| i + 1 == requests.len() && plan.leave == Leave::AskToClose;
            let each = requests.iter().enumerate();
            let pieces: Vec<_> =
                each.map(|(i, &request)| answers::request(request, stream(plan, i), last(i))).collect();
            if *pipelined { vec![pieces.concat()] } else { pieces }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::scenario::Weather;

    #[test]
    fn scripts_are_what_the_plan_says() {
        let mut seen = [0; 3];
        for seed in 0..300 {
            let plan = ClientPlan::new(seed, 0, 1500, Weather::Rough);
            let script = script(&plan);
            match &plan.job {
                Job::Echo(len) => {
                    assert_eq!(script.concat().len(), *len);
                    seen[0] += 1;
                }
                Job::Http { requests, pipelined } => {
                    assert_eq!(script.len(), if *pipelined { 1 } else { requests.len() });
                    seen[1 + usize::from(*pipelined)] += 1;
                }
            }
        }
        assert!(seen.iter().all(|&n| n > 20), "{seen:?}");
    }
}
