//! Fetch sessions (KIP-227) as a pure state machine.
//!
//! A session remembers what a client fetches and what it was told last, so that an incremental fetch names only what
//! changed, both ways. A fetch takes two steps: [`FetchSessions::resolve`] turns the request into the full list of
//! partitions, and once these were read, [`FetchSessions::answer`] says which of them the response holds. Between
//! the two anything may happen to the session; the epoch tells. Never: grow beyond the slots and partitions that it
//! was given, remember a name that no topic can have, or leave out a partition that has news.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{TopicId, error::ResponseError, topic::validate_name};

/// Partitions that all sessions together may remember: a bound on memory that hostile clients cannot move.
pub const PARTITIONS_MOST: usize = 250_000;
/// A session that was not used, or not replaceable by its age, for so long may give way to another, unless another time is
/// given.
pub const EVICTION_MS: i64 = 120_000;
/// `session_epoch` of a full fetch that asks for a session.
pub const INITIAL_EPOCH: i32 = 0;
/// `session_epoch` of a fetch without a session, which also closes the session that it names.
pub const FINAL_EPOCH: i32 = -1;
/// "No session" as an id.
pub const NO_SESSION: i32 = 0;

/// A topic as fetch requests name it: by id from version 13 on, by name before.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicKey {
    Name(Arc<str>),
    Id(TopicId),
}

/// A partition as the request names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionKey {
    pub topic: TopicKey,
    pub partition: i32,
}

/// What a request asks of one partition; wire fields, −1 for "none".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionRequest {
    pub current_leader_epoch: i32,
    pub fetch_offset: i64,
    pub last_fetched_epoch: i32,
    pub log_start_offset: i64,
    pub max_bytes: i32,
}

/// The parts of a fetch request that sessions are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRequest {
    pub session_id: i32,
    /// 0: full, asks for a session. −1: full, without one. Else the session's next epoch.
    pub session_epoch: i32,
    /// Version 13 and up.
    pub by_id: bool,
    /// Followers' sessions are privileged: consumers' give way to them.
    pub follower: bool,
    pub partitions: Vec<(PartitionKey, PartitionRequest)>,
    pub forgotten: Vec<PartitionKey>,
}

/// A resolved fetch: read these partitions in this order, then ask [`FetchSessions::answer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    pub partitions: Vec<(PartitionKey, PartitionRequest)>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sessionless,
    /// Wants a session.
    Full {
        by_id: bool,
        follower: bool,
    },
    /// `next_epoch`: what the session's epoch is after this fetch, unless another one came between.
    Incremental {
        id: i32,
        next_epoch: i32,
    },
}

/// What was read of one partition, as far as it decides whether the response holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionAnswer {
    pub failed: bool,
    pub has_records: bool,
    pub high_watermark: i64,
    pub log_start_offset: i64,
    /// A diverging epoch or a preferred read replica must be told.
    pub urgent: bool,
}

/// How to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// A top-level error: the response holds no partitions.
    pub error: Option<ResponseError>,
    /// 0 without a session.
    pub session_id: i32,
    /// Whether the response holds the partition, in the order of [`Context::partitions`].
    pub included: Vec<bool>,
}

/// A partition in a session.
#[derive(Debug, Clone)]
struct Cached {
    /// Its place in the session's order.
    place: u64,
    request: PartitionRequest,
    /// As told last; −1 if never, or after an error.
    high_watermark: i64,
    log_start_offset: i64,
}

#[derive(Debug, Clone)]
struct Session {
    /// The epoch that the next request must carry.
    epoch: i32,
    by_id: bool,
    follower: bool,
    created_ms: i64,
    used_ms: i64,
    next_place: u64,
    order: BTreeMap<u64, PartitionKey>,
    partitions: BTreeMap<PartitionKey, Cached>,
}

/// All sessions of a broker.
#[derive(Debug)]
pub struct FetchSessions {
    slots: usize,
    eviction_ms: i64,
    sessions: BTreeMap<i32, Session>,
    /// Over all sessions.
    partitions: usize,
    evicted: u64,
}

/// After the greatest epoch comes 1: 0 and −1 have meanings of their own.
fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

impl FetchSessions {
    /// At most `slots` sessions (`max.incremental.fetch.session.cache.slots`).
    pub fn new(slots: usize) -> Self {
        Self { slots, eviction_ms: EVICTION_MS, sessions: BTreeMap::new(), partitions: 0, evicted: 0 }
    }

    /// The same, where sessions give way after another time than [`EVICTION_MS`].
    #[must_use]
    pub fn evicting_after(self, eviction_ms: i64) -> Self {
        Self { eviction_ms, ..self }
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// How many sessions had to make room for others so far.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Whether there is no session.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// The full list of partitions that the request is about. An error is top-level.
    pub fn resolve(&mut self, request: SessionRequest, now_ms: i64) -> Result<Context, ResponseError> {
        match request.session_epoch {
            INITIAL_EPOCH | FINAL_EPOCH => Ok(self.resolve_full(request)),
            _ => self.resolve_incremental(request, now_ms),
        }
    }

    fn resolve_full(&mut self, request: SessionRequest) -> Context {
        self.remove(request.session_id);
        let kind = match request.session_epoch {
            FINAL_EPOCH => Kind::Sessionless,
            _ => Kind::Full { by_id: request.by_id, follower: request.follower },
        };
        Context { partitions: without_repetitions(request.partitions), kind }
    }

    fn resolve_incremental(
        &mut self,
        request: SessionRequest,
        now_ms: i64,
    ) -> Result<Context, ResponseError> {
        let id = request.session_id;
        let room = PARTITIONS_MOST - self.partitions;
        let session = self.sessions.get_mut(&id).ok_or(ResponseError::FetchSessionIdNotFound)?;
        if session.epoch != request.session_epoch {
            return Err(ResponseError::InvalidFetchSessionEpoch);
        }
        if session.by_id != request.by_id {
            return Err(ResponseError::FetchSessionTopicIdError);
        }
        if request.partitions.len() > room {
            // The client comes back with a full fetch, and goes on without a session.
            self.remove(id);
            return Err(ResponseError::FetchSessionIdNotFound);
        }
        let before = session.partitions.len();
        let mut passing = Vec::new();
        for (key, partition) in request.partitions {
            if !session.put(&key, partition) {
                passing.push((key, partition));
            }
        }
        for key in &request.forgotten {
            session.forget(key);
        }
        let after = session.partitions.len();
        if after == 0 {
            self.partitions -= before;
            self.sessions.remove(&id);
            return Ok(Context { partitions: without_repetitions(passing), kind: Kind::Sessionless });
        }
        session.used_ms = now_ms;
        session.epoch = next_epoch(session.epoch);
        let mut partitions = session.list();
        partitions.extend(without_repetitions(passing));
        let context = Context { partitions, kind: Kind::Incremental { id, next_epoch: session.epoch } };
        self.partitions = self.partitions - before + after;
        Ok(context)
    }

    /// What the response holds. `answers` are those of [`Context::partitions`], in their order; `random` chooses the
    /// id of a new session.
    pub fn answer(
        &mut self,
        context: &Context,
        answers: &[PartitionAnswer],
        now_ms: i64,
        random: u64,
    ) -> Answer {
        assert_eq!(answers.len(), context.partitions.len(), "one answer for each partition");
        let all = |session_id| Answer { error: None, session_id, included: vec![true; answers.len()] };
        match context.kind {
            Kind::Sessionless => all(NO_SESSION),
            Kind::Full { by_id, follower } => {
                let mut session = Session::new(by_id, follower, now_ms);
                for ((key, request), answer) in context.partitions.iter().zip(answers) {
                    session.put(key, *request);
                    session.news(key, answer);
                }
                all(self.open(session, now_ms, random))
            }
            Kind::Incremental { id, next_epoch } => match self.sessions.get_mut(&id) {
                // Closed or evicted meanwhile: tell all, the next fetch will learn that the session is gone.
                None => all(id),
                Some(session) if session.epoch != next_epoch => Answer {
                    error: Some(ResponseError::InvalidFetchSessionEpoch),
                    session_id: NO_SESSION,
                    included: vec![false; answers.len()],
                },
                Some(session) => {
                    let keys = context.partitions.iter().map(|(key, _)| key);
                    let included = keys.zip(answers).map(|(key, answer)| session.news(key, answer)).collect();
                    Answer { error: None, session_id: id, included }
                }
            },
        }
    }

    /// Gives the session an id if there is room for it, or room can be made.
    fn open(&mut self, session: Session, now_ms: i64, random: u64) -> i32 {
        let size = session.partitions.len();
        if size == 0
            || self.slots == 0
            || (self.sessions.len() >= self.slots && !self.evict_for(&session, now_ms))
        {
            return NO_SESSION;
        }
        if size > PARTITIONS_MOST - self.partitions {
            return NO_SESSION;
        }
        let mut id = ((random >> 33) as i32).max(1);
        while self.sessions.contains_key(&id) {
            id = next_epoch(id);
        }
        self.partitions += size;
        self.sessions.insert(id, session);
        id
    }

    /// Makes room for `new`: by the session that was idle longest if that is long, else by the least of those that
    /// have had their time, if `new` is not less. Followers count more than consumers, then size does; for a
    /// follower, a consumer's session has had its time at once.
    fn evict_for(&mut self, new: &Session, now_ms: i64) -> bool {
        let idle = self.sessions.iter().min_by_key(|(id, session)| (session.used_ms, **id));
        let idle = idle.filter(|(_, session)| now_ms - session.used_ms > self.eviction_ms).map(|(id, _)| *id);
        let rank = |session: &Session| (session.follower, session.partitions.len());
        let had_its_time = |session: &Session| {
            now_ms - session.created_ms > self.eviction_ms || (new.follower && !session.follower)
        };
        let least = || {
            let old = self.sessions.iter().filter(|(_, session)| had_its_time(session));
            let least = old.min_by_key(|(id, session)| (rank(session), **id));
            least.filter(|(_, session)| rank(session) <= rank(new)).map(|(id, _)| *id)
        };
        match idle.or_else(least) {
            Some(id) => {
                self.remove(id);
                self.evicted += 1;
                true
            }
            None => false,
        }
    }

    fn remove(&mut self, id: i32) {
        if let Some(session) = self.sessions.remove(&id) {
            self.partitions -= session.partitions.len();
        }
    }
}

impl Session {
    fn new(by_id: bool, follower: bool, now_ms: i64) -> Session {
        Session {
            epoch: next_epoch(INITIAL_EPOCH),
            by_id,
            follower,
            created_ms: now_ms,
            used_ms: now_ms,
            next_place: 0,
            order: BTreeMap::new(),
            partitions: BTreeMap::new(),
        }
    }

    /// Adds a partition at the end, or changes what is asked of it. `false` when it is not to be remembered: it is
    /// answered this once.
    fn put(&mut self, key: &PartitionKey, request: PartitionRequest) -> bool {
        if let Some(cached) = self.partitions.get_mut(key) {
            cached.request = request;
            return true;
        }
        if matches!(&key.topic, TopicKey::Name(name) if validate_name(name).is_err()) {
            return false;
        }
        let cached = Cached { place: self.next_place, request, high_watermark: -1, log_start_offset: -1 };
        self.order.insert(self.next_place, key.clone());
        self.partitions.insert(key.clone(), cached);
        self.next_place += 1;
        true
    }

    fn forget(&mut self, key: &PartitionKey) {
        if let Some(cached) = self.partitions.remove(key) {
            self.order.remove(&cached.place);
        }
    }

    fn list(&self) -> Vec<(PartitionKey, PartitionRequest)> {
        self.order.values().map(|key| (key.clone(), self.partitions[key].request)).collect()
    }

    /// Whether the client must be told, and notes that it was. A partition that gave records goes to the end of the
    /// order, so that the others come first next time.
    fn news(&mut self, key: &PartitionKey, answer: &PartitionAnswer) -> bool {
        // What is not remembered was asked for just now.
        let Some(cached) = self.partitions.get_mut(key) else { return true };
        let changed = cached.high_watermark != answer.high_watermark
            || cached.log_start_offset != answer.log_start_offset;
        // After an error the high watermark is told again, whatever it is.
        cached.high_watermark = if answer.failed { -1 } else { answer.high_watermark };
        cached.log_start_offset = answer.log_start_offset;
        if answer.has_records {
            self.order.remove(&cached.place);
            cached.place = self.next_place;
            self.order.insert(self.next_place, key.clone());
            self.next_place += 1;
        }
        changed || answer.has_records || answer.failed || answer.urgent
    }
}

/// A partition that a request names twice counts once, at its first place, with what was asked last.
fn without_repetitions(
    named: Vec<(PartitionKey, PartitionRequest)>,
) -> Vec<(PartitionKey, PartitionRequest)> {
    let mut places: BTreeMap<PartitionKey, usize> = BTreeMap::new();
    let mut out: Vec<(PartitionKey, PartitionRequest)> = Vec::with_capacity(named.len());
    for (key, request) in named {
        match places.get(&key) {
            Some(&place) => out[place].1 = request,
            None => {
                places.insert(key.clone(), out.len());
                out.push((key, request));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(partition: i32) -> PartitionKey {
        PartitionKey { topic: TopicKey::Name("t".into()), partition }
    }

    fn at(partition: i32, fetch_offset: i64) -> (PartitionKey, PartitionRequest) {
        let request = PartitionRequest {
            current_leader_epoch: -1,
            fetch_offset,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            max_bytes: 1000,
        };
        (key(partition), request)
    }

    fn request(id: i32, epoch: i32, partitions: &[(i32, i64)], forgotten: &[i32]) -> SessionRequest {
        SessionRequest {
            session_id: id,
            session_epoch: epoch,
            by_id: false,
            follower: false,
            partitions: partitions.iter().map(|(partition, offset)| at(*partition, *offset)).collect(),
            forgotten: forgotten.iter().map(|partition| key(*partition)).collect(),
        }
    }

    fn quiet(high_watermark: i64) -> PartitionAnswer {
        PartitionAnswer {
            failed: false,
            has_records: false,
            high_watermark,
            log_start_offset: 0,
            urgent: false,
        }
    }

    fn records(high_watermark: i64) -> PartitionAnswer {
        PartitionAnswer { has_records: true, ..quiet(high_watermark) }
    }

    fn order(context: &Context) -> Vec<i32> {
        context.partitions.iter().map(|(key, _)| key.partition).collect()
    }

    /// Opens a session over the partitions, all with high watermark 10.
    fn open(sessions: &mut FetchSessions, request: SessionRequest, now_ms: i64) -> i32 {
        let context = sessions.resolve(request, now_ms).unwrap();
        let answers = vec![quiet(10); context.partitions.len()];
        let answer = sessions.answer(&context, &answers, now_ms, 7 << 40);
        assert!(answer.included.iter().all(|included| *included), "a full fetch tells all");
        answer.session_id
    }

    #[test]
    fn an_incremental_fetch_tells_only_news() {
        let mut sessions = FetchSessions::new(10);
        let id = open(&mut sessions, request(0, 0, &[(0, 10), (1, 10), (2, 10)], &[]), 0);
        assert_ne!(id, NO_SESSION);
        let context = sessions.resolve(request(id, 1, &[], &[]), 1).unwrap();
        assert_eq!(order(&context), [0, 1, 2]);
        let answer = sessions.answer(&context, &[quiet(10), records(12), quiet(10)], 1, 0);
        assert_eq!((answer.session_id, answer.included), (id, vec![false, true, false]));
        let context = sessions.resolve(request(id, 2, &[(1, 12)], &[]), 2).unwrap();
        assert_eq!(order(&context), [0, 2, 1], "who had records waits behind the others");
        assert_eq!(context.partitions[2].1.fetch_offset, 12);
        let moved = PartitionAnswer { log_start_offset: 3, ..quiet(10) };
        let urgent = PartitionAnswer { urgent: true, ..quiet(10) };
        let answer = sessions.answer(&context, &[moved, urgent, quiet(13)], 2, 0);
        assert_eq!(answer.included, [true, true, true]);
    }

    #[test]
    fn after_an_error_the_high_watermark_is_told_again() {
        let mut sessions = FetchSessions::new(10);
        let id = open(&mut sessions, request(0, 0, &[(0, 10)], &[]), 0);
        for (epoch, answer, told) in [
            (1, quiet(10), false),
            (2, PartitionAnswer { failed: true, ..quiet(-1) }, true),
            (3, quiet(10), true),
            (4, quiet(10), false),
        ] {
            let context = sessions.resolve(request(id, epoch, &[], &[]), 0).unwrap();
            assert_eq!(sessions.answer(&context, &[answer], 0, 0).included, [told], "epoch {epoch}");
        }
    }

    #[test]
    fn a_wrong_id_epoch_or_way_of_naming_is_a_top_level_error() {
        let mut sessions = FetchSessions::new(10);
        let id = open(&mut sessions, request(0, 0, &[(0, 1)], &[]), 0);
        let error = |sessions: &mut FetchSessions, request| sessions.resolve(request, 0).unwrap_err();
        assert_eq!(error(&mut sessions, request(id + 1, 1, &[], &[])), ResponseError::FetchSessionIdNotFound);
        assert_eq!(error(&mut sessions, request(id, 2, &[], &[])), ResponseError::InvalidFetchSessionEpoch);
        let by_id = SessionRequest { by_id: true, ..request(id, 1, &[], &[]) };
        assert_eq!(error(&mut sessions, by_id), ResponseError::FetchSessionTopicIdError);
        assert!(sessions.resolve(request(id, 1, &[], &[]), 0).is_ok(), "the errors did no harm");
    }

    #[test]
    fn of_two_fetches_in_one_session_the_overtaken_one_fails() {
        let mut sessions = FetchSessions::new(10);
        let id = open(&mut sessions, request(0, 0, &[(0, 1)], &[]), 0);
        let first = sessions.resolve(request(id, 1, &[], &[]), 0).unwrap();
        let second = sessions.resolve(request(id, 2, &[], &[]), 0).unwrap();
        let late = sessions.answer(&first, &[records(20)], 0, 0);
        assert_eq!(late.error, Some(ResponseError::InvalidFetchSessionEpoch));
        assert_eq!(sessions.answer(&second, &[records(20)], 0, 0).included, [true]);
    }

    #[test]
    fn forgetting_the_last_partition_ends_the_session() {
        let mut sessions = FetchSessions::new(10);
        let id = open(&mut sessions, request(0, 0, &[(0, 1), (1, 1)], &[]), 0);
        let context = sessions.resolve(request(id, 1, &[], &[0]), 0).unwrap();
        assert_eq!(order(&context), [1]);
        let context = sessions.resolve(request(id, 2, &[], &[1]), 0).unwrap();
        assert_eq!((order(&context), sessions.answer(&context, &[], 0, 0).session_id), (vec![], NO_SESSION));
        assert!(sessions.is_empty());
        assert_eq!(sessions.partitions, 0);
    }

    #[test]
    fn a_full_fetch_closes_the_session_that_it_names() {
        let mut sessions = FetchSessions::new(10);
        let id = open(&mut sessions, request(0, 0, &[(0, 1)], &[]), 0);
        let context = sessions.resolve(request(id, FINAL_EPOCH, &[(0, 1), (1, 5), (0, 2)], &[]), 0).unwrap();
        assert!(sessions.is_empty());
        assert_eq!(context.partitions, [at(0, 2), at(1, 5)]);
        let answer = sessions.answer(&context, &[quiet(1), quiet(1)], 0, 0);
        assert_eq!((answer.session_id, answer.included), (NO_SESSION, vec![true, true]));
    }

    #[test]
    fn when_all_slots_are_taken_only_the_idle_or_the_lesser_give_way() {
        let mut sessions = FetchSessions::new(1);
        let first = open(&mut sessions, request(0, 0, &[(0, 1), (1, 1)], &[]), 0);
        let two = || request(0, 0, &[(0, 1), (1, 1)], &[]);
        assert_eq!(open(&mut sessions, two(), 1000), NO_SESSION, "the first has not had its time");
        assert!(sessions.resolve(request(first, 1, &[], &[]), EVICTION_MS).is_ok());
        let smaller = request(0, 0, &[(0, 1)], &[]);
        assert_eq!(
            open(&mut sessions, smaller.clone(), EVICTION_MS + 1),
            NO_SESSION,
            "it is in use and larger"
        );
        let equal = open(&mut sessions, two(), EVICTION_MS + 1);
        assert_ne!(equal, NO_SESSION);
        assert_ne!(open(&mut sessions, smaller, 2 * EVICTION_MS + 2), NO_SESSION, "idle for too long");
        let follower = SessionRequest { follower: true, ..request(0, 0, &[(0, 1)], &[]) };
        assert_ne!(
            open(&mut sessions, follower, 2 * EVICTION_MS + 3),
            NO_SESSION,
            "consumers give way to followers"
        );
        assert_eq!(
            open(&mut sessions, two(), 4 * EVICTION_MS),
            sessions.sessions.keys().copied().next().unwrap()
        );
        assert_eq!((sessions.len(), sessions.partitions), (1, 2));
    }

    #[test]
    fn a_name_that_no_topic_can_have_is_answered_and_not_remembered() {
        let bad =
            |name: String| (PartitionKey { topic: TopicKey::Name(name.into()), partition: 0 }, at(0, 0).1);
        let failed = PartitionAnswer { failed: true, ..quiet(-1) };
        for name in [String::new(), "a b".to_owned(), "x".repeat(250), "x".repeat(0x8000)] {
            let mut sessions = FetchSessions::new(10);
            let alone = SessionRequest { partitions: vec![bad(name.clone())], ..request(0, 0, &[], &[]) };
            let context = sessions.resolve(alone, 0).unwrap();
            let answer = sessions.answer(&context, &[failed], 0, 7 << 40);
            assert_eq!((answer.session_id, answer.included), (NO_SESSION, vec![true]));
            let beside =
                SessionRequest { partitions: vec![bad(name.clone()), at(0, 1)], ..request(0, 0, &[], &[]) };
            let context = sessions.resolve(beside, 0).unwrap();
            let answer = sessions.answer(&context, &[failed, quiet(10)], 0, 7 << 40);
            let id = answer.session_id;
            assert_eq!((id != NO_SESSION, answer.included), (true, vec![true, true]));
            let again = SessionRequest { partitions: vec![bad(name.clone())], ..request(id, 1, &[], &[]) };
            let context = sessions.resolve(again, 0).unwrap();
            assert_eq!(sessions.answer(&context, &[quiet(10), failed], 0, 0).included, [false, true]);
            let context = sessions.resolve(request(id, 2, &[], &[]), 0).unwrap();
            assert_eq!((order(&context), sessions.partitions), (vec![0], 1));
            let last = SessionRequest { partitions: vec![bad(name)], ..request(id, 3, &[], &[0]) };
            let context = sessions.resolve(last, 0).unwrap();
            assert_eq!(sessions.answer(&context, &[failed], 0, 0).included, [true]);
            assert_eq!((sessions.len(), sessions.partitions), (0, 0));
        }
    }

    #[test]
    fn epochs_wrap_to_one_and_ids_are_unique() {
        assert_eq!(next_epoch(i32::MAX), 1);
        let mut sessions = FetchSessions::new(10);
        let ids: Vec<i32> = (0..3).map(|_| open(&mut sessions, request(0, 0, &[(0, 1)], &[]), 0)).collect();
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] > 0);
    }

    #[test]
    fn memory_is_bounded_over_all_sessions() {
        let mut sessions = FetchSessions::new(10);
        let huge: Vec<(i32, i64)> = (0..PARTITIONS_MOST as i32).map(|partition| (partition, 0)).collect();
        let id = open(&mut sessions, request(0, 0, &huge, &[]), 0);
        assert_ne!(id, NO_SESSION);
        assert_eq!(open(&mut sessions, request(0, 0, &[(0, 0)], &[]), 0), NO_SESSION);
        let more = sessions.resolve(request(id, 1, &[(-1, 0)], &[]), 0);
        assert_eq!(more, Err(ResponseError::FetchSessionIdNotFound));
        assert_eq!(sessions.partitions, 0);
    }
}
