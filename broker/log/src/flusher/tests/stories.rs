//! The stories.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use gracchus_core::Offset;
use gracchus_env::{Op, Open};
use tokio::sync::oneshot;

use super::{
    super::{
        super::{
            CleanLog, DirectoryOptions, Forget, LogDirectory, OpenError, Roll, StorageError,
            checkpoint::Checkpoints,
            directory::{Health, JournalOptions},
            journal::{GroupBuilder, replay},
        },
        logs::{Class, Item, Soiled},
        plan::PATIENCE,
        worker::{Cleaned, Worker},
    },
    model::{
        Asks::{Durable, Either, Plain},
        DIRECTORY, Story, options,
    },
};

/// All logs of `story` live for a while, then the power fails, at any step, several times. `seed` decides everything.
fn crash_and_recover(seed: u64, lives: u64) -> Story {
    let story = Story::new(seed, &[Durable, Durable, Plain, Either]);
    for _ in 0..lives {
        story.world.fail_after(1 + story.world.below(600));
        let this = story.clone();
        let survived = story.world.run(async move {
            let directory = this.open(options()).await;
            this.recover(&directory).await;
            let owners = (0..this.log_count()).map(|number| {
                let (this, directory) = (this.clone(), directory.clone());
                gracchus_env::spawn(&**directory.clone().env(), "owner", async move {
                    this.live(&directory, number, 40).await
                })
            });
            for owner in owners.collect::<Vec<_>>() {
                owner.await.expect("not aborted").expect("the disk works");
            }
        });
        if survived.is_some() {
            story.world.stop();
        }
        if story.world.below(3) > 0 {
            story.lose_power();
        }
    }
    let this = story.clone();
    story.world.run(async move {
        let directory = this.open(options()).await;
        this.recover(&directory).await;
    });
    story
}

#[test]
fn acknowledged_words_survive_and_cut_ones_do_not() {
    for seed in 0..300 {
        if std::panic::catch_unwind(|| crash_and_recover(seed, 6)).is_err() {
            panic!("seed {seed}");
        }
    }
}

/// Parts for three small groups each, and so many that none is recycled.
fn many_parts() -> DirectoryOptions {
    let journal = JournalOptions { part_bytes: 2048, min_parts: 12, max_parts: 12, alignment: 512 };
    DirectoryOptions { journal, in_place_bytes: 1400, ..options() }
}

/// A short story with everything in it: small and large rounds of three logs, rolls, cuts, bytes and a segment again
/// where the cut ones were.
async fn told(story: &Story, directory: &LogDirectory) -> Result<(), StorageError> {
    // Until the journal is there, everything is synced in place.
    directory.env().sleep(Duration::from_secs(1)).await;
    for _ in 0..3 {
        story.append(directory, 0, &[10, 20]).await?;
        story.append(directory, 1, &[30]).await?;
    }
    story.append(directory, 2, &[700]).await?;
    story.roll(directory, 0, &[]).await?;
    story.append(directory, 0, &[40, 5]).await?;
    story.cut(directory, 0, 70, &[]).await?;
    story.append(directory, 0, &[20]).await?;
    story.roll(directory, 0, &[]).await?;
    story.append(directory, 0, &[15]).await?;
    story.append(directory, 1, &[60, 60, 60]).await?;
    story.cut(directory, 1, 100, &[]).await?;
    story.append(directory, 1, &[60]).await
}

/// Tells the story up to step `at`, then crashes; opens again up to step `again`, crashes; opens and checks. Returns how
/// many steps the whole story, and opening after it, take.
fn told_until(at: u64, again: u64) -> (u64, u64) {
    let story = Story::new(at.wrapping_mul(1000).wrapping_add(again), &[Durable, Durable, Durable]);
    let begin = story.world.steps();
    story.world.fail_after(at);
    let this = story.clone();
    story.world.run(async move {
        let directory = this.open(many_parts()).await;
        told(&this, &directory).await.expect("the disk works");
    });
    story.world.stop();
    let steps = story.world.steps() - begin;
    story.lose_power();
    let begin = story.world.steps();
    story.world.fail_after(again);
    let this = story.clone();
    story.world.run(async move { drop(this.open(many_parts()).await) });
    story.world.stop();
    let opening = story.world.steps() - begin;
    story.lose_power();
    let this = story.clone();
    story.world.run(async move {
        let directory = this.open(many_parts()).await;
        this.recover(&directory).await;
    });
    (steps, opening)
}

#[test]
fn a_crash_between_any_two_steps_costs_nothing_acknowledged() {
    let (steps, _) = told_until(u64::MAX / 2, u64::MAX / 2);
    assert!(steps > 50, "the story is too short: {steps} steps");
    for at in 0..=steps {
        told_until(at, u64::MAX / 2);
    }
}

#[test]
fn a_crash_in_the_middle_of_a_replay_changes_nothing() {
    let (steps, opening) = told_until(u64::MAX / 2, u64::MAX / 2);
    for at in (0..=steps).step_by(2) {
        for again in 0..=opening + 5 {
            told_until(at, again);
        }
    }
}

/// Runs `act` on a fresh directory of `story`.
fn on_directory<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    story: &Story,
    options: DirectoryOptions,
    act: impl FnOnce(Story, Arc<LogDirectory>) -> F + Send + 'static,
) -> T {
    let this = story.clone();
    let result = story.world.run(async move {
        let directory = this.open(options).await;
        act(this, directory).await
    });
    result.expect("the power is on")
}

#[test]
fn small_rounds_are_journaled_and_large_ones_are_not() {
    for (count, journaled) in [(10, true), (900, false)] {
        let story = Story::new(1, &[Durable]);
        on_directory(&story, options(), move |story, directory| async move {
            // Until the journal is there, everything is synced in place.
            directory.env().sleep(Duration::from_secs(1)).await;
            story.world.sabotage(move |op| {
                let Op::Sync { file } = op else { return None };
                let journal = format!("{file:?}").contains("/journal/");
                assert_eq!(journal, journaled, "{count} words: {file:?} is synced");
                None
            });
            story.append(&directory, 0, &[count]).await.unwrap();
        });
    }
}

#[test]
fn a_torn_group_ends_the_replay_and_an_older_lap_is_not_replayed() {
    let story = Story::new(2, &[Durable]);
    append_groups(&story, options(), 3);
    story.world.stop();
    let (segment, part) = (story.segment_path(0, 0), first_part(&story));
    let stale = story.world.contents(&part).unwrap();
    // The third group is torn, the segment never reached the disk.
    story.world.edit(&part, |contents| contents[1536 + 100] ^= 1);
    story.world.edit(&segment, Vec::clear);
    on_directory(&story, options(), |_, directory| async move {
        // Until all is synced and the part has a new lap.
        directory.env().sleep(Duration::from_secs(1)).await;
    });
    story.world.stop();
    assert_eq!(story.world.contents(&segment).unwrap().len(), 160, "two groups of three, of ten words");
    // What is left of the old lap behind the new header means nothing.
    story.world.edit(&segment, Vec::clear);
    story.world.edit(&part, |contents| contents[512..].copy_from_slice(&stale[512..]));
    on_directory(&story, options(), |_, _| async {});
    assert_eq!(story.world.contents(&segment).unwrap().len(), 0);
}

/// Appends ten words at a time, each time a group of the journal.
fn append_groups(story: &Story, options: DirectoryOptions, groups: u32) {
    on_directory(story, options, move |story, directory| async move {
        directory.env().sleep(Duration::from_secs(1)).await;
        for _ in 0..groups {
            story.append(&directory, 0, &[10]).await.unwrap();
        }
    });
}

/// The first part with a group in it.
fn first_part(story: &Story) -> PathBuf {
    let used = |path: &PathBuf| {
        let header = story.world.contents(path).filter(|contents| contents.len() > 512);
        header.is_some_and(|contents| contents[512..].iter().any(|byte| *byte != 0))
    };
    let mut parts = story.world.paths(&Path::new(DIRECTORY).join("journal")).into_iter();
    parts.find(used).expect("something was journaled")
}

/// Every place with a group in a journal with parts for three groups each, and where that is.
fn places(story: &Story) -> Vec<(PathBuf, usize)> {
    let parts = story.world.paths(&Path::new(DIRECTORY).join("journal"));
    let places = parts.iter().flat_map(|part| [512, 1024, 1536].map(|at| (part.clone(), at)));
    places.filter(|(part, at)| story.world.contents(part).unwrap()[*at] != 0).collect()
}

/// Why the directory does not open, if it does not.
fn refusal(story: &Story, options: DirectoryOptions) -> Option<String> {
    let this = story.clone();
    let open = async move { LogDirectory::open(this.world.env(), DIRECTORY.into(), options).await.map(drop) };
    let opened = story.world.run(open).expect("the power is on");
    story.world.stop();
    opened.err().map(|error| error.to_string())
}

#[test]
fn rot_in_a_group_that_had_been_synced_stops_the_start_and_a_torn_end_does_not() {
    let mut refused = 0;
    for number in 0..8 {
        let story = Story::new(12, &[Durable]);
        append_groups(&story, many_parts(), 8);
        story.world.stop();
        story.world.edit(&story.segment_path(0, 0), Vec::clear);
        let (part, at) = places(&story)[number].clone();
        // In the header, in the table, in the payload.
        for byte in [0, 20, 50, 120] {
            let journal = story.world.paths(&Path::new(DIRECTORY).join("journal"));
            let before: Vec<_> =
                journal.iter().map(|path| (path.clone(), story.world.contents(path).unwrap())).collect();
            story.world.edit(&part, |contents| contents[at + byte] ^= 4);
            if let Some(why) = refusal(&story, many_parts()) {
                refused += 1;
                assert!(why.contains("had been synced") && why.contains("accept-damage"), "{why}");
                assert_eq!(story.world.contents(&story.segment_path(0, 0)).unwrap().len(), 0, "{why}");
                story.world.edit(&part, |contents| contents[at + byte] ^= 4);
            } else {
                let left = story.world.contents(&story.segment_path(0, 0)).unwrap().len();
                assert_eq!(left, 560, "seven groups of eight, of ten words");
                before.into_iter().for_each(|(path, bytes)| story.world.edit(&path, |now| *now = bytes));
                story.world.edit(&story.segment_path(0, 0), Vec::clear);
            }
        }
        assert_eq!(refusal(&story, many_parts()), None, "nothing is wrong any more");
        assert_eq!(story.world.contents(&story.segment_path(0, 0)).unwrap().len(), 640);
    }
    assert_eq!(refused, 28, "all but the last group are known to have been synced");
}

#[test]
fn a_part_that_is_gone_from_the_middle_stops_the_start() {
    let story = Story::new(21, &[Durable]);
    append_groups(&story, many_parts(), 8);
    story.world.stop();
    let (middle, _) = places(&story)[4].clone();
    story.world.remove(&middle);
    let why = refusal(&story, many_parts()).expect("it lacks three groups");
    assert!(why.contains("missing"), "{why}");
}

#[test]
fn whoever_accepts_the_damage_gets_what_else_there_is() {
    let story = Story::new(22, &[Durable]);
    append_groups(&story, many_parts(), 8);
    story.world.stop();
    let segment = story.segment_path(0, 0);
    story.world.edit(&segment, Vec::clear);
    let (part, at) = places(&story)[1].clone();
    story.world.edit(&part, |contents| contents[at + 100] ^= 1);
    let accept = Path::new(DIRECTORY).join("journal/accept-damage");
    let (this, path) = (story.clone(), accept.clone());
    story.world.run(async move { drop(this.world.env().disk().open(&path, Open::New).await.unwrap()) });
    on_directory(&story, many_parts(), |_, directory| async move { assert!(directory.is_damaged()) });
    story.world.stop();
    let left = story.world.contents(&segment).unwrap();
    assert_eq!(left.len(), 640);
    let missing = left.chunks(80).map(|group| group.iter().all(|byte| *byte == 0));
    assert_eq!(missing.collect::<Vec<_>>(), [false, true, false, false, false, false, false, false]);
    assert_eq!(story.world.contents(&accept), None, "it is asked again for the next damage");
    on_directory(&story, many_parts(), |_, directory| async move { assert!(!directory.is_damaged()) });
}

#[test]
fn an_old_lap_means_nothing_even_where_the_sequence_would_fit() {
    let story = Story::new(13, &[Durable]);
    on_directory(&story, options(), |story, directory| async move {
        directory.env().sleep(Duration::from_secs(1)).await;
        for _ in 0..4 {
            story.append(&directory, 0, &[10]).await.unwrap();
        }
    });
    story.world.stop();
    on_directory(&story, options(), |story, directory| async move {
        story.cut(&directory, 0, 0, &[]).await.unwrap();
    });
    // The second start finds an empty journal and counts from the beginning again.
    for _ in 0..2 {
        story.world.stop();
        on_directory(&story, options(), |_, _| async {});
    }
    story.world.stop();
    on_directory(&story, options(), |story, directory| async move {
        story.append(&directory, 0, &[10]).await.unwrap();
    });
    story.world.stop();
    on_directory(&story, options(), |story, directory| async move { story.recover(&directory).await });
    assert_eq!(story.end(0), 10);
}

#[test]
fn a_replay_touches_no_other_topic_and_makes_no_file() {
    let story = Story::new(3, &[Durable, Durable]);
    on_directory(&story, options(), |story, directory| async move {
        directory.env().sleep(Duration::from_secs(1)).await;
        story.append(&directory, 0, &[10]).await.unwrap();
        story.append(&directory, 1, &[10]).await.unwrap();
    });
    story.world.stop();
    let metadata = story.segment_path(0, 0).with_file_name("partition.metadata");
    story.world.edit(&metadata, |contents| {
        let other = gracchus_core::TopicId(uuid::Uuid::from_u128(1));
        *contents = format!("version: 0\ntopic_id: {other}\n").into_bytes();
    });
    story.world.edit(&story.segment_path(0, 0), Vec::clear);
    story.world.remove(&story.segment_path(1, 0));
    on_directory(&story, options(), |_, _| async {});
    story.world.stop();
    assert_eq!(story.world.contents(&story.segment_path(1, 0)), None);
    assert_eq!(story.world.contents(&story.segment_path(0, 0)).unwrap().len(), 0);
}

#[test]
fn the_first_error_takes_the_directory_offline_for_good() {
    for (kind, broken) in [(io::ErrorKind::Other, true), (io::ErrorKind::StorageFull, false)] {
        let story = Story::new(4, &[Durable, Durable]);
        on_directory(&story, options(), move |story, directory| async move {
            directory.env().sleep(Duration::from_secs(1)).await;
            story.append(&directory, 0, &[10]).await.unwrap();
            story.world.sabotage(move |op| match op {
                Op::Sync { .. } if broken => Some(kind),
                Op::WriteAt { .. } if !broken => Some(kind),
                _ => None,
            });
            let mut watch = directory.watch_offline();
            let failed = story.append(&directory, 0, &[10, 10]).await.unwrap_err();
            assert!(matches!(&failed, StorageError::Offline(_)), "{failed:?}");
            assert!(watch.borrow_and_update().is_some());
            // The disk works again; nobody may believe it.
            story.world.sabotage(|_| None);
            assert_eq!(story.append(&directory, 1, &[10]).await.unwrap_err(), failed);
            assert_eq!(
                story.roll(&directory, 1, &[]).await,
                Err(failed.clone()).or(story.roll(&directory, 1, &[]).await)
            );
            assert_eq!(directory.flusher().checkpoint().await.unwrap_err(), failed);
            let second = directory.fail(&io::Error::other("later"), "something else");
            assert_eq!(second, failed, "the first error stands");
            directory.close().await;
        });
        story.world.stop();
        on_directory(&story, options(), |_, directory| async move {
            assert!(!directory.was_clean(), "a directory that went offline was not left clean");
        });
    }
}

#[test]
fn an_error_from_outside_stops_the_flusher() {
    let story = Story::new(5, &[Durable]);
    on_directory(&story, options(), |story, directory| async move {
        let failed = directory.fail(&io::Error::other("a sector cannot be read"), "reading");
        assert_eq!(story.append(&directory, 0, &[10]).await.unwrap_err(), failed);
    });
}

#[test]
fn no_room_for_another_part_is_no_disaster() {
    let story = Story::new(6, &[Durable]);
    let options =
        DirectoryOptions { journal: JournalOptions { max_parts: 8, ..options().journal }, ..options() };
    on_directory(&story, options, |story, directory| async move {
        directory.env().sleep(Duration::from_secs(1)).await;
        story.world.sabotage(|op| matches!(op, Op::Allocate { .. }).then_some(io::ErrorKind::StorageFull));
        for _ in 0..100 {
            story.append(&directory, 0, &[100]).await.unwrap();
        }
        assert_eq!(directory.offline(), None);
    });
}

#[test]
fn a_clean_stop_leaves_a_summary_and_an_empty_journal() {
    let story = Story::new(7, &[Durable, Plain]);
    let clean = CleanLog {
        log_start: Offset(3),
        log_end: Offset(0),
        active_segment: Offset(0),
        active_bytes: 0,
        sealed: None,
        index_entries: None,
    };
    on_directory(&story, options(), {
        let clean = clean.clone();
        move |story, directory| async move {
            for number in 0..2 {
                story.append(&directory, number, &[10, 20, 30]).await.unwrap();
            }
            directory.closed(&story.id(0), clean);
            directory.close().await;
            assert_eq!(story.append(&directory, 0, &[1]).await, Err(StorageError::Closed));
        }
    });
    story.world.stop();
    story.lose_power();
    let (first, second) = (story.id(0), story.id(1));
    on_directory(&story, options(), move |_, directory| async move {
        assert!(directory.was_clean());
        assert_eq!(directory.log_start(&first), Some(Offset(3)));
        assert_eq!(directory.recovery_point(&second), Some(Offset(60)));
        assert_eq!(directory.take_clean(&first), Some(clean));
        assert_eq!(directory.take_clean(&first), None, "given away once");
        assert_eq!(directory.take_clean(&second), None, "it was not closed");
    });
    // That process died: the marker is believed once.
    story.world.stop();
    story.lose_power();
    on_directory(&story, options(), |_, directory| async move { assert!(!directory.was_clean()) });
}

#[test]
fn a_clean_stop_syncs_everything() {
    for seed in 0..20 {
        let story = Story::new(seed, &[Durable, Plain]);
        on_directory(&story, options(), |story, directory| async move {
            directory.env().sleep(Duration::from_secs(1)).await;
            for number in [0, 1] {
                story.append(&directory, number, &[10, 20, 30, 40, 50]).await.unwrap();
            }
            directory.close().await;
        });
        story.world.stop();
        story.lose_power();
        on_directory(&story, options(), |story, directory| async move {
            story.recover(&directory).await;
        });
        assert_eq!((story.end(0), story.end(1)), (150, 150), "seed {seed}");
    }
}

#[test]
fn a_log_that_goes_stays_gone() {
    let story = Story::new(8, &[Durable]);
    on_directory(&story, options(), |story, directory| async move {
        story.append(&directory, 0, &[10, 700]).await.unwrap();
        story.roll(&directory, 0, &[]).await.unwrap();
        directory.set_log_start(&story.id(0), Offset(2));
        assert!(directory.recovery_point(&story.id(0)).is_some());
        let path = story.segment_path(0, 0).parent().unwrap().to_owned();
        let ops = vec![Op::RemoveDir { path: path.clone() }, Op::SyncDir { path }];
        directory.flusher().forget(Forget::log(story.id(0), ops)).await.unwrap();
        assert_eq!(directory.recovery_point(&story.id(0)), None);
    });
    story.world.stop();
    story.lose_power();
    on_directory(&story, options(), |story, directory| async move {
        assert_eq!(directory.recovery_point(&story.id(0)), None);
        assert_eq!(directory.log_start(&story.id(0)), None);
        assert_eq!(story.world.contents(&story.segment_path(0, 0)), None);
    });
}

#[test]
fn one_process_one_node_one_directory() {
    let story = Story::new(9, &[Durable]);
    on_directory(&story, options(), |story, directory| async move {
        let open = |options| LogDirectory::open(story.world.env(), DIRECTORY.into(), options);
        let refused = open(options()).await.unwrap_err();
        assert_eq!(refused.to_string(), "another process uses log directory /data/logs");
        directory.close().await;
        let other = DirectoryOptions { node_id: gracchus_core::BrokerId(8), ..options() };
        assert!(matches!(open(other).await, Err(OpenError::WrongNode { .. })));
        let id = directory.directory_id();
        let again = open(options()).await.expect("closed means unlocked");
        assert_eq!(again.directory_id(), id);
    });
}

#[test]
fn old_bytes_are_synced_and_recovery_points_follow() {
    let story = Story::new(10, &[Durable, Plain]);
    on_directory(&story, options(), |story, directory| async move {
        for number in 0..2 {
            story.append(&directory, number, &[10]).await.unwrap();
            assert!(directory.recovery_point(&story.id(number)).is_none_or(|point| point <= Offset(10)));
        }
        directory.env().sleep(Duration::from_secs(200)).await;
    });
    story.world.stop();
    story.lose_power();
    on_directory(&story, options(), |story, directory| async move {
        for number in 0..2 {
            assert_eq!(directory.recovery_point(&story.id(number)), Some(Offset(10)), "checkpointed by then");
        }
    });
}

#[test]
fn handles_are_bounded_and_forgotten_by_name() {
    let story = Story::new(11, &[Durable, Durable, Durable]);
    let few = DirectoryOptions { open_files: 2, ..options() };
    on_directory(&story, few, |story, directory| async move {
        let paths: Vec<_> = (0..3).map(|number| story.segment_path(number, 0)).collect();
        for path in &paths {
            directory.files().open(path).await.unwrap();
        }
        assert!(directory.files().get(&paths[0]).is_none(), "the least recently used went");
        assert!(directory.files().get(&paths[1]).is_some());
        directory.files().forget(&paths[1]);
        assert!(directory.files().get(&paths[1]).is_none());
        directory.files().forget_directory(paths[2].parent().unwrap());
        assert!(directory.files().get(&paths[2]).is_none());
        let missing = directory.files().open(Path::new("/data/none")).await.unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    });
}

#[test]
fn a_mass_roll_is_one_submission_at_a_time() {
    let story = Story::new(14, &[Durable; 12]);
    on_directory(&story, options(), |story, directory| async move {
        directory.env().sleep(Duration::from_secs(1)).await;
        for number in 0..story.log_count() {
            story.append(&directory, number, &[10]).await.unwrap();
        }
        // A roll syncs its segment and then its directory.
        let (mut begun, mut rolled) = (None, 0);
        let paths: Vec<_> = (0..story.log_count()).map(|number| story.segment_path(number, 0)).collect();
        let all = paths.len();
        story.world.sabotage(move |op| {
            let number = |wanted: &Path| paths.iter().position(|path| path.starts_with(wanted));
            match op {
                Op::Sync { file } => {
                    let number = number(Path::new(&format!("{file:?}")))?;
                    assert!(
                        begun.is_none_or(|begun| begun == number),
                        "log {number} rolls, {begun:?} is not done"
                    );
                    begun = Some(number);
                }
                Op::SyncDir { path } => {
                    assert_eq!(begun.take(), number(path));
                    rolled += 1;
                }
                _ => {}
            }
            (rolled > all).then_some(io::ErrorKind::Other)
        });
        let rolls = (0..all).map(|number| {
            let (story, directory) = (story.clone(), directory.clone());
            gracchus_env::spawn(&**directory.clone().env(), "roll", async move {
                story.roll(&directory, number, &[]).await
            })
        });
        for roll in rolls.collect::<Vec<_>>() {
            roll.await.expect("not aborted").expect("it rolls in the end");
        }
    });
}

#[test]
fn a_cut_is_journaled_however_small_groups_are_to_be() {
    for group_bytes in [1, 36, 84, 85, 120, 121, 364] {
        let story = Story::new(15, &[Durable]);
        let tiny = DirectoryOptions { group_bytes, ..options() };
        on_directory(&story, tiny, move |story, directory| async move {
            directory.env().sleep(Duration::from_secs(1)).await;
            story.append(&directory, 0, &[10]).await.unwrap();
            let too_late = directory.env().sleep(Duration::from_secs(600));
            tokio::select! {
                biased;
                cut = story.cut(&directory, 0, 5, &[]) => cut.unwrap(),
                () = too_late => panic!("a cut hangs with groups of {group_bytes} bytes"),
            }
        });
    }
}

#[test]
fn a_round_that_just_fits_into_a_group_is_journaled() {
    for (more, journaled) in [(0, true), (8, false)] {
        let story = Story::new(16, &[Durable]);
        let id = story.id(0);
        let group_bytes = GroupBuilder::empty_length() + GroupBuilder::write_overhead(&id) + 80;
        let exact = DirectoryOptions { group_bytes, ..options() };
        on_directory(&story, exact, move |story, directory| async move {
            directory.env().sleep(Duration::from_secs(1)).await;
            story.world.sabotage(move |op| {
                let Op::Sync { file } = op else { return None };
                assert_eq!(format!("{file:?}").contains("/journal/"), journaled, "{file:?} is synced");
                None
            });
            story.append(&directory, 0, &[10 + more / 8]).await.unwrap();
        });
    }
}

/// A flusher's worker that the test drives by hand.
async fn worker(story: &Story) -> Worker {
    let (env, directory) = (story.world.env(), Path::new(DIRECTORY));
    env.disk().submit(vec![Op::CreateDir { path: directory.to_owned() }]).await.unwrap();
    let (journal, _) = replay(&*env, directory, &options().journal, false).await.unwrap();
    let checkpoints = Arc::new(Checkpoints::read(&*env, directory).await.unwrap());
    Worker::new(env, options(), Arc::new(Health::new()), checkpoints, journal, Arc::default())
}

#[test]
fn a_log_that_becomes_heavy_again_while_it_is_synced_is_not_forgotten() {
    let story = Story::new(17, &[Durable]);
    let this = story.clone();
    let told = story.world.run(async move {
        let (env, mut worker) = (this.world.env(), worker(&this).await);
        let file = env.disk().open(&this.segment_path(0, 0), Open::Existing).await.unwrap();
        let slot = worker.logs.slot(&this.id(0));
        let much = Soiled { file, segment_base: Offset(0), length: options().dirty_bytes * PATIENCE };
        worker.soil(slot, &much, None);
        assert_eq!(worker.pick(), BTreeSet::from([slot]));
        // The sync begins, and what it does not cover is written.
        let cleaned = worker.take_dirty(slot);
        worker.logs.get(slot).syncing = Some(Offset(1));
        worker.soil(slot, &much, None);
        assert_eq!(worker.pick(), BTreeSet::new(), "one sync of a log at a time");
        worker.sync_ended(vec![Cleaned { slot, ..cleaned }]);
        assert_eq!(worker.pick(), BTreeSet::from([slot]), "not only when its bytes are old");
    });
    told.expect("the power is on");
}

#[test]
fn nothing_counts_as_synced_while_an_older_segment_is_being_synced() {
    for durable in [false, true] {
        let story = Story::new(20, &[Plain]);
        let this = story.clone();
        let told = story.world.run(async move {
            let (env, mut worker) = (this.world.env(), worker(&this).await);
            let id = this.id(0);
            let round = this.round(&*env, 0, 10).await;
            let file = round.file.clone();
            let roll = |end: i64, durable| {
                let (sync, directory) = (vec![file.clone()], DIRECTORY.into());
                let roll = Roll { id: id.clone(), sync, directory, end_offset: Offset(end), durable };
                Item::Roll(roll, oneshot::channel().0)
            };
            let slot = worker.logs.slot(&id);
            // A segment is sealed as it is, its sync in the background begins, and the next one ends empty-handed.
            let write = {
                let log = worker.logs.get(slot);
                log.push(Item::Round(round, oneshot::channel().0));
                log.take_rounds(Class::Plain, 1000)
            };
            let soiled = Soiled { file: write.file, segment_base: Offset(0), length: write.length };
            worker.soil(slot, &soiled, None);
            worker.logs.get(slot).land(write.flight);
            worker.logs.get(slot).push(roll(10, false));
            worker.consider(slot);
            assert!(worker.logs.get(slot).is_idle(), "nobody waits for that segment");
            worker.tend();
            assert_eq!(worker.logs.get(slot).syncing, Some(Offset(10)));
            worker.logs.get(slot).push(roll(10, durable));
            worker.consider(slot);
            assert_eq!(worker.logs.get(slot).waiting, None, "a roll waits for the older segment");
            assert_eq!(worker.pick(), BTreeSet::new());
        });
        told.expect("the power is on");
    }
}

#[test]
fn options_that_cannot_work_are_refused() {
    let story = Story::new(18, &[Durable]);
    let this = story.clone();
    let refused = story.world.run(async move {
        let impossible = DirectoryOptions { group_bytes: 0, ..options() };
        LogDirectory::open(this.world.env(), DIRECTORY.into(), impossible).await.map(drop)
    });
    assert!(matches!(refused, Some(Err(OpenError::Options(_)))), "{refused:?}");
}

#[test]
fn a_part_with_a_damaged_header_stops_the_start_and_one_never_made_ready_does_not() {
    let story = Story::new(19, &[Durable]);
    on_directory(&story, options(), |story, directory| async move {
        directory.env().sleep(Duration::from_secs(1)).await;
        story.append(&directory, 0, &[10]).await.unwrap();
    });
    story.world.stop();
    let part = first_part(&story);
    // It holds the only copy of what was acknowledged.
    story.world.edit(&story.segment_path(0, 0), Vec::clear);
    for byte in [0, 4, 8, 16] {
        story.world.edit(&part, |contents| contents[byte] ^= 1);
        let this = story.clone();
        let refused = story.world.run(async move {
            LogDirectory::open(this.world.env(), DIRECTORY.into(), options()).await.map(drop)
        });
        let why = refused.expect("the power is on").unwrap_err().to_string();
        assert!(why.contains(&part.display().to_string()) && why.contains("damaged"), "{why}");
        story.world.stop();
        story.world.edit(&part, |contents| contents[byte] ^= 1);
    }
    // As a crash leaves the making of another part.
    let unready = part.with_file_name("part-017");
    let (this, path) = (story.clone(), unready.clone());
    story.world.run(async move {
        let env = this.world.env();
        let file = env.disk().open(&path, Open::New).await.unwrap();
        env.disk().submit(vec![Op::Allocate { file, length: 700 }]).await.unwrap();
    });
    on_directory(&story, options(), |_, _| async {});
    assert_eq!(story.world.contents(&story.segment_path(0, 0)).unwrap().len(), 80);
    assert_eq!(story.world.contents(&unready), None);
}

#[test]
fn a_start_syncs_what_it_replayed_in_the_background_and_keeps_the_parts_until_then() {
    // Less than half of the journal: no part is used again before the crash.
    const LOGS: usize = 15;
    let story = Story::new(23, &[Durable; LOGS]);
    on_directory(&story, many_parts(), move |story, directory| async move {
        directory.env().sleep(Duration::from_secs(1)).await;
        for log in 0..LOGS {
            story.append(&directory, log, &[10]).await.unwrap();
        }
    });
    story.world.stop();
    let count = Arc::new(AtomicUsize::new(0));
    let counting = count.clone();
    story.world.sabotage(move |op| {
        let segment = matches!(op, Op::Sync { file } if format!("{file:?}").contains(".log"));
        counting.fetch_add(usize::from(segment), Ordering::Relaxed);
        None
    });
    on_directory(&story, many_parts(), move |story, directory| async move {
        assert_eq!(count.load(Ordering::Relaxed), 0, "the start waits for none of them");
        // What is new goes behind what is kept.
        story.append(&directory, 0, &[10]).await.unwrap();
        directory.env().sleep(Duration::from_secs(20)).await;
        assert!(count.load(Ordering::Relaxed) >= LOGS, "{count:?}");
        let part = |path: &PathBuf| story.world.contents(path).unwrap().len() as u64;
        let parts = story.world.paths(&Path::new(DIRECTORY).join("journal"));
        assert!(parts.len() == 12 && parts.iter().all(|path| part(path) == 2048));
        let used = directory.flusher().metrics().journal_used.get();
        assert!(used <= 2048, "{used} bytes are used after all is synced");
    });
}
