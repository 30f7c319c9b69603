//! What a session remembers, when it ends, and who makes room for whom.

use super::*;

fn part(index: i32, fetch_offset: i64) -> FetchPart {
    FetchPart {
        topic: TopicKey::Id(Uuid(7)),
        partition: index,
        fetch_offset,
        max_bytes: 1,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
    }
}

fn ask(session_id: i32, epoch: i32, parts: Vec<FetchPart>) -> Ask {
    Ask {
        session_id,
        epoch,
        parts,
        forgotten: Vec::new(),
        uses_ids: true,
    }
}

/// Opens, with the session back at once.
fn open(
    cache: &mut SessionCache,
    ask: Ask,
    now_ms: i64,
    random: impl FnMut() -> u64,
) -> Result<Opened, ErrorCode> {
    let opening = cache.open(ask, now_ms, random)?;
    let id = opening.session_id();
    let (opened, session) = opening.run();
    if let Some(session) = session {
        cache.give_back(id, session);
    }
    Ok(opened)
}

fn indexes(opened: &Opened) -> Vec<i32> {
    opened.parts.iter().map(|part| part.partition).collect()
}

#[test]
fn a_session_remembers_changes_forgets_and_ends() {
    let mut cache = SessionCache::new(2);
    let mut numbers = (1_u64..).map(|number| number << 33);
    let mut random = || numbers.next().unwrap_or_default();
    let parts = vec![part(0, 5), part(1, 6)];
    let full = open(&mut cache, ask(0, 0, parts), 0, &mut random);
    let id = full.expect("begun").session_id;
    assert_ne!(id, NO_SESSION);
    let parts = vec![part(1, 9), part(2, 0)];
    let more = open(&mut cache, ask(id, 1, parts), 1, &mut random);
    let more = more.expect("continued");
    assert!(more.incremental);
    assert_eq!(indexes(&more), [0, 1, 2]);
    assert_eq!(more.parts[1].fetch_offset, 9);
    let mut session = cache.lend(id).expect("there");
    session.rotate(&[true, false, false]);
    assert!(cache.lend(id).is_none(), "with somebody else");
    cache.give_back(id, session);
    let mut fewer = ask(id, 2, Vec::new());
    fewer.forgotten = vec![(TopicKey::Id(Uuid(7)), 1)];
    assert_eq!(
        indexes(&open(&mut cache, fewer, 2, &mut random).expect("continued")),
        [2, 0]
    );
    let mut none = ask(id, 3, Vec::new());
    none.forgotten = vec![(TopicKey::Id(Uuid(7)), 0), (TopicKey::Id(Uuid(7)), 2)];
    assert_eq!(
        open(&mut cache, none, 3, &mut random)
            .expect("ended")
            .session_id,
        NO_SESSION
    );
    assert_eq!((cache.sessions.len(), cache.partitions), (0, 0));
}

#[test]
fn wrong_ids_epochs_and_kinds_are_told_apart() {
    let mut cache = SessionCache::new(2);
    let begun = open(&mut cache, ask(0, 0, vec![part(0, 0)]), 0, || 1 << 33);
    let opened = begun.expect("begun");
    let id = opened.session_id;
    let error = |cache: &mut SessionCache, ask: Ask| open(cache, ask, 0, || 0).err();
    assert_eq!(
        error(&mut cache, ask(id + 1, 1, vec![])),
        Some(ErrorCode::FetchSessionIdNotFound)
    );
    assert_eq!(
        error(&mut cache, ask(id, 2, vec![])),
        Some(ErrorCode::InvalidFetchSessionEpoch)
    );
    let by_name = Ask {
        uses_ids: false,
        ..ask(id, 1, vec![])
    };
    assert_eq!(
        error(&mut cache, by_name),
        Some(ErrorCode::FetchSessionTopicIdError)
    );
    assert_eq!(error(&mut cache, ask(id, 1, vec![])), None);
    let last = ask(id, EPOCH_FINAL, vec![part(3, 0)]);
    let last = open(&mut cache, last, 0, || 0).expect("full");
    assert_eq!((last.session_id, last.incremental), (NO_SESSION, false));
    assert_eq!(cache.sessions.len(), 0);
}

#[test]
fn a_full_cache_evicts_the_unused_then_the_smaller_and_never_the_young() {
    let mut cache = SessionCache::new(1);
    let begin = |cache: &mut SessionCache, size: i32, now_ms, id: u64| {
        let parts = (0..size).map(|index| part(index, 0)).collect();
        let opened = open(cache, ask(0, 0, parts), now_ms, || id << 33);
        opened.expect("answered").session_id
    };
    assert_eq!(begin(&mut cache, 2, 0, 1), 1);
    assert_eq!(
        begin(&mut cache, 9, EVICTION_MS, 2),
        NO_SESSION,
        "in use lately"
    );
    open(&mut cache, ask(1, 1, vec![]), EVICTION_MS, || 0).expect("used");
    assert_eq!(
        begin(&mut cache, 2, EVICTION_MS + 1, 3),
        NO_SESSION,
        "not larger"
    );
    assert_eq!(
        begin(&mut cache, 3, EVICTION_MS + 1, 4),
        4,
        "larger than an aged one"
    );
    assert_eq!(
        begin(&mut cache, 1, 3 * EVICTION_MS, 5),
        5,
        "unused for long"
    );
}

#[test]
fn many_partitions_are_updated_as_few_are() {
    let mut cache = SessionCache::new(1);
    let parts: Vec<_> = (0..1000).map(|index| part(index, 0)).collect();
    let opened = open(&mut cache, ask(0, 0, parts), 0, || 1 << 33).expect("begun");
    let changed: Vec<_> = (500..1500).map(|index| part(index, 7)).collect();
    let more = ask(opened.session_id, 1, changed);
    let opened = open(&mut cache, more, 0, || 0).expect("continued");
    assert_eq!(indexes(&opened), (0..1500).collect::<Vec<_>>());
    assert!(
        opened
            .parts
            .iter()
            .all(|part| (part.fetch_offset == 7) == (part.partition >= 500))
    );
}
#[test]
fn a_session_that_is_away_counts_and_is_dropped_when_it_was_ended() {
    let mut cache = SessionCache::new(2);
    let parts = (0..9).map(|index| part(index, 0)).collect();
    let opening = cache.open(ask(0, 0, parts), 0, || 1 << 33).expect("begun");
    assert_eq!((cache.sessions.len(), cache.partitions), (1, 9));
    let id = opening.session_id();
    let again = open(&mut cache, ask(id, 1, vec![]), 0, || 0);
    assert_eq!(again.err(), Some(ErrorCode::FetchSessionIdNotFound));
    let (_, session) = opening.run();
    cache.remove(id);
    assert_eq!((cache.sessions.len(), cache.partitions), (0, 0));
    cache.give_back(id, session.expect("it has one"));
    assert_eq!((cache.sessions.len(), cache.partitions), (0, 0));
}
