//! What [`crate::Disk`] and [`crate::File`] promise, as far as it shows without a power loss.

use std::{io::ErrorKind, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{Case, World};
use crate::{DirEntry, Env, File, Op, Open};

pub(super) const CASES: &[Case] = &[
    Case { name: "writes_read_back", run: |world| Box::pin(writes_read_back(world)) },
    Case { name: "a_gap_reads_as_zeros", run: |world| Box::pin(a_gap_reads_as_zeros(world)) },
    Case {
        name: "reads_are_short_only_at_the_end",
        run: |world| Box::pin(reads_are_short_only_at_the_end(world)),
    },
    Case { name: "open_modes", run: |world| Box::pin(open_modes(world)) },
    Case {
        name: "a_submission_stops_at_its_first_error",
        run: |world| Box::pin(stops_at_first_error(world)),
    },
    Case { name: "a_dropped_submission_runs_to_its_end", run: |world| Box::pin(dropped_submission(world)) },
    Case { name: "rename_replaces_and_keeps_handles", run: |world| Box::pin(rename_keeps_handles(world)) },
    Case { name: "remove_keeps_handles", run: |world| Box::pin(remove_keeps_handles(world)) },
    Case { name: "list_is_sorted", run: |world| Box::pin(list_is_sorted(world)) },
    Case { name: "directories_come_and_go", run: |world| Box::pin(directories_come_and_go(world)) },
    Case { name: "truncate_forgets_bytes", run: |world| Box::pin(truncate_forgets_bytes(world)) },
    Case { name: "allocate_gives_zeros", run: |world| Box::pin(allocate_gives_zeros(world)) },
    Case { name: "syncs_answer", run: |world| Box::pin(syncs_answer(world)) },
    Case { name: "a_lock_has_one_owner", run: |world| Box::pin(a_lock_has_one_owner(world)) },
    Case { name: "replace_is_whole", run: |world| Box::pin(replace_is_whole(world)) },
    Case { name: "submissions_do_not_mix", run: |world| Box::pin(submissions_do_not_mix(world)) },
    Case { name: "one_write_of_many_buffers", run: |world| Box::pin(one_write_of_many_buffers(world)) },
];

/// Bytes that tell where they belong.
pub(super) fn pattern(length: usize, salt: u8) -> Bytes {
    (0..length).map(|index| (index / 251) as u8 ^ (index % 251) as u8 ^ salt).collect()
}

/// A new file that holds `contents`.
pub(super) async fn file_with(env: &dyn Env, path: PathBuf, contents: Bytes) -> Arc<dyn File> {
    let file = env.disk().open(&path, Open::OrCreate).await.expect("opens");
    env.disk().submit(vec![write(&file, 0, contents)]).await.expect("writes");
    file
}

fn write(file: &Arc<dyn File>, offset: u64, contents: impl Into<Bytes>) -> Op {
    Op::WriteAt { file: file.clone(), offset, buffers: vec![contents.into()] }
}

async fn contents(file: &Arc<dyn File>) -> Bytes {
    file.read_at(0, usize::try_from(file.length().expect("length")).expect("fits")).await.expect("reads")
}

async fn writes_read_back(world: World) {
    let disk = world.env.disk();
    let file = disk.open(&world.directory.join("file"), Open::New).await.expect("opens");
    assert_eq!(file.length().expect("length"), 0, "a new file is empty");
    let buffers =
        vec![Bytes::from_static(b"one "), Bytes::new(), Bytes::from_static(b"two "), "three".into()];
    disk.submit(vec![
        Op::WriteAt { file: file.clone(), offset: 0, buffers },
        write(&file, 4, "2nd"),
        Op::Sync { file: file.clone() },
    ])
    .await
    .expect("writes");
    assert_eq!(file.length().expect("length"), 13);
    assert_eq!(contents(&file).await, "one 2nd three", "later steps write over earlier ones");
    assert_eq!(file.read_at(4, 3).await.expect("reads"), "2nd");
    // May decline, must not lie.
    assert!(file.read_cached(4, 3).is_none_or(|bytes| bytes == "2nd"));
    let again = disk.open(&world.directory.join("file"), Open::Existing).await.expect("opens");
    assert_eq!(contents(&again).await, "one 2nd three", "every handle sees completed writes");
}

async fn a_gap_reads_as_zeros(world: World) {
    let disk = world.env.disk();
    let file = disk.open(&world.directory.join("file"), Open::New).await.expect("opens");
    disk.submit(vec![write(&file, 10_000, "end"), write(&file, 0, "start")]).await.expect("writes");
    let read = contents(&file).await;
    assert_eq!(read.len(), 10_003);
    assert_eq!((&read[..5], &read[10_000..]), (&b"start"[..], &b"end"[..]));
    assert!(read[5..10_000].iter().all(|&byte| byte == 0), "a gap reads as zeros");
}

async fn reads_are_short_only_at_the_end(world: World) {
    let file = file_with(&*world.env, world.directory.join("file"), pattern(100_000, 1)).await;
    let expected = pattern(100_000, 1);
    assert_eq!(file.read_at(0, 100_000).await.expect("reads"), expected);
    assert_eq!(file.read_at(99_990, 1_000_000_000_000).await.expect("reads"), expected[99_990..]);
    assert_eq!(file.read_at(100_000, 10).await.expect("reads"), "", "nothing is behind the end");
    assert_eq!(file.read_at(u64::MAX / 4, 10).await.expect("reads"), "", "nothing is far behind the end");
    assert_eq!(file.read_at(5, 0).await.expect("reads"), "");
    for (offset, length) in [(0, 61), (99_990, 61), (100_000, 61), (4_000, 96_000)] {
        if let Some(cached) = file.read_cached(offset, length) {
            let (from, to) = (offset as usize, (offset as usize + length).min(expected.len()));
            assert_eq!(cached, expected[from..to], "a cached read is as short as any other, and no shorter");
        }
    }
}

async fn open_modes(world: World) {
    let disk = world.env.disk();
    let path = world.directory.join("file");
    let kind = |result: std::io::Result<Arc<dyn File>>| result.map(|_| ()).map_err(|error| error.kind());
    assert_eq!(kind(disk.open(&path, Open::Existing).await), Err(ErrorKind::NotFound));
    let file = disk.open(&path, Open::New).await.expect("makes a file");
    disk.submit(vec![write(&file, 0, "kept")]).await.expect("writes");
    assert_eq!(kind(disk.open(&path, Open::New).await), Err(ErrorKind::AlreadyExists));
    let again = disk.open(&path, Open::OrCreate).await.expect("opens what is there");
    assert_eq!(contents(&again).await, "kept", "opening empties nothing");
    disk.open(&world.directory.join("other"), Open::OrCreate).await.expect("makes what is not there");
    let nowhere = world.directory.join("missing").join("file");
    assert_eq!(kind(disk.open(&nowhere, Open::OrCreate).await), Err(ErrorKind::NotFound));
}

async fn stops_at_first_error(world: World) {
    let disk = world.env.disk();
    let file = disk.open(&world.directory.join("file"), Open::New).await.expect("opens");
    let missing = Op::RemoveDir { path: world.directory.join("missing") };
    let ops = vec![write(&file, 0, "before"), missing, write(&file, 0, "AFTER!")];
    let error = disk.submit(ops).await.expect_err("the second step cannot succeed");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(
        contents(&file).await,
        "before",
        "what comes before an error is done, what comes behind is not"
    );
}

async fn dropped_submission(world: World) {
    let disk = world.env.disk();
    let file = disk.open(&world.directory.join("file"), Open::New).await.expect("opens");
    drop(disk.submit(vec![write(&file, 0, pattern(300_000, 2)), write(&file, 300_000, "end")]));
    for _ in 0..1_000 {
        if file.length().expect("length") == 300_003 {
            let read = contents(&file).await;
            assert!(read[..300_000] == pattern(300_000, 2) && read[300_000..] == b"end"[..]);
            return;
        }
        world.env.sleep(Duration::from_millis(5)).await;
    }
    panic!("a submission runs to its end even if nobody waits for it");
}

async fn rename_keeps_handles(world: World) {
    let disk = world.env.disk();
    let (from, to) = (world.directory.join("from"), world.directory.join("to"));
    let new = file_with(&*world.env, from.clone(), "new".into()).await;
    let old = file_with(&*world.env, to.clone(), "old!".into()).await;
    disk.submit(vec![Op::Rename { from: from.clone(), to: to.clone() }]).await.expect("renames");
    assert_eq!(contents(&old).await, "old!", "a handle of what was replaced keeps its bytes");
    disk.submit(vec![write(&new, 3, "er")]).await.expect("writes through the handle");
    let named = disk.open(&to, Open::Existing).await.expect("opens");
    assert_eq!(contents(&named).await, "newer", "a handle follows its file to the new name");
    let gone = disk.open(&from, Open::Existing).await.map(|_| ()).map_err(|error| error.kind());
    assert_eq!(gone, Err(ErrorKind::NotFound));
    let error = disk.submit(vec![Op::Rename { from, to }]).await.expect_err("nothing to rename");
    assert_eq!(error.kind(), ErrorKind::NotFound);

    let (old_home, new_home) = (world.directory.join("home"), world.directory.join("new-home"));
    disk.submit(vec![Op::CreateDir { path: old_home.clone() }]).await.expect("makes a directory");
    let inside = file_with(&*world.env, old_home.join("inside"), "moves".into()).await;
    disk.submit(vec![Op::Rename { from: old_home, to: new_home.clone() }])
        .await
        .expect("renames a directory");
    assert_eq!(contents(&inside).await, "moves");
    let inside = disk.open(&new_home.join("inside"), Open::Existing).await.expect("moved with its directory");
    assert_eq!(contents(&inside).await, "moves");
}

async fn remove_keeps_handles(world: World) {
    let disk = world.env.disk();
    let path = world.directory.join("file");
    let file = file_with(&*world.env, path.clone(), pattern(50_000, 3)).await;
    disk.submit(vec![Op::RemoveFile { path: path.clone() }]).await.expect("removes");
    assert_eq!(contents(&file).await, pattern(50_000, 3), "a removed file can be read by who has it open");
    disk.submit(vec![Op::RemoveFile { path: path.clone() }])
        .await
        .expect("is gone, which is what was asked for");
    let fresh = disk.open(&path, Open::New).await.expect("the name is free");
    assert_eq!(fresh.length().expect("length"), 0, "the new file is another one");
}

async fn list_is_sorted(world: World) {
    let disk = world.env.disk();
    for name in ["b", "a", "10", "9", "c.log", "Z"] {
        file_with(&*world.env, world.directory.join(name), pattern(name.len(), 0)).await;
    }
    disk.submit(vec![Op::CreateDir { path: world.directory.join("aa") }]).await.expect("makes a directory");
    file_with(&*world.env, world.directory.join("aa").join("inner"), "not listed above".into()).await;
    let entry = |name: &str, is_dir, length| DirEntry { name: name.to_owned(), is_dir, length };
    let expected = [
        entry("10", false, 2),
        entry("9", false, 1),
        entry("Z", false, 1),
        entry("a", false, 1),
        entry("aa", true, 0),
        entry("b", false, 1),
        entry("c.log", false, 5),
    ];
    assert_eq!(disk.list(&world.directory).await.expect("lists"), expected);
    let missing = disk.list(&world.directory.join("missing")).await.map_err(|error| error.kind());
    assert_eq!(missing, Err(ErrorKind::NotFound));
}

async fn directories_come_and_go(world: World) {
    let disk = world.env.disk();
    let deep = world.directory.join("one").join("two").join("three");
    let make = || vec![Op::CreateDir { path: deep.clone() }];
    disk.submit(make()).await.expect("makes a directory and its parents");
    disk.submit(make()).await.expect("one that exists is fine");
    file_with(&*world.env, deep.join("file"), "x".into()).await;
    let remove = || vec![Op::RemoveDir { path: world.directory.join("one") }];
    disk.submit(remove()).await.expect("removes all below");
    assert_eq!(disk.list(&world.directory).await.expect("lists"), []);
    let error = disk.submit(remove()).await.expect_err("is gone");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

async fn truncate_forgets_bytes(world: World) {
    let disk = world.env.disk();
    let file = file_with(&*world.env, world.directory.join("file"), pattern(9_000, 4)).await;
    let cut = |length| Op::Truncate { file: file.clone(), length };
    disk.submit(vec![cut(5_000)]).await.expect("cuts");
    assert_eq!(contents(&file).await, pattern(9_000, 4)[..5_000]);
    disk.submit(vec![cut(8_000)]).await.expect("extends");
    let read = contents(&file).await;
    assert_eq!((read.len(), &read[..5_000]), (8_000, &pattern(9_000, 4)[..5_000]));
    assert!(read[5_000..].iter().all(|&byte| byte == 0), "what was cut does not come back");
}

async fn allocate_gives_zeros(world: World) {
    let disk = world.env.disk();
    let file = file_with(&*world.env, world.directory.join("file"), pattern(700_000, 5)).await;
    disk.submit(vec![Op::Allocate { file: file.clone(), length: 600_001 }]).await.expect("allocates");
    let read = contents(&file).await;
    assert!(read[..600_001].iter().all(|&byte| byte == 0), "the first bytes are zeros");
    assert_eq!(read[600_001..], pattern(700_000, 5)[600_001..], "and the others are left alone");
    let file = disk.open(&world.directory.join("fresh"), Open::New).await.expect("opens");
    disk.submit(vec![Op::Allocate { file: file.clone(), length: 1_000_000 }]).await.expect("allocates");
    assert_eq!(file.length().expect("length"), 1_000_000, "a file grows to what was asked for");
}

async fn syncs_answer(world: World) {
    let disk = world.env.disk();
    let file = file_with(&*world.env, world.directory.join("file"), pattern(200_000, 6)).await;
    disk.submit(vec![
        Op::StartWriteback { file: file.clone(), offset: 0, length: 200_000 },
        write(&file, 200_000, "more"),
        Op::Sync { file: file.clone() },
        Op::SyncDir { path: world.directory.clone() },
        Op::StartWriteback { file: file.clone(), offset: 0, length: 200_000 },
    ])
    .await
    .expect("a healthy disk syncs");
    assert_eq!(file.length().expect("length"), 200_004);
    let missing = Op::SyncDir { path: world.directory.join("missing") };
    assert_eq!(disk.submit(vec![missing]).await.map_err(|error| error.kind()), Err(ErrorKind::NotFound));
}

async fn a_lock_has_one_owner(world: World) {
    let disk = world.env.disk();
    let path = world.directory.join(".lock");
    let held = disk.lock(&path).await.expect("a free lock is taken, its file made");
    let second = disk.lock(&path).await.map(|_| ()).map_err(|error| error.kind());
    assert_eq!(second, Err(ErrorKind::WouldBlock), "one owner at a time");
    drop(held);
    disk.lock(&path).await.expect("free again");
}

async fn replace_is_whole(world: World) {
    let disk = world.env.disk();
    let path = world.directory.join("checkpoint");
    assert_eq!(disk.read_all(&path).await.expect("reads"), None);
    disk.replace(&path, pattern(10_000, 7)).await.expect("replaces");
    disk.replace(&path, "short".into()).await.expect("replaces");
    assert_eq!(disk.read_all(&path).await.expect("reads"), Some("short".into()));
    let names: Vec<_> =
        disk.list(&world.directory).await.expect("lists").into_iter().map(|e| e.name).collect();
    assert_eq!(names, ["checkpoint"], "no temporary file stays");
}

async fn submissions_do_not_mix(world: World) {
    let disk = world.env.disk();
    let file = disk.open(&world.directory.join("file"), Open::New).await.expect("opens");
    let piece = |index: u64| pattern(777, index as u8);
    let submissions: Vec<_> =
        (0..200).map(|index| disk.submit(vec![write(&file, index * 777, piece(index))])).collect();
    for submission in submissions {
        submission.await.expect("writes");
    }
    for index in 0..200 {
        assert_eq!(file.read_at(index * 777, 777).await.expect("reads"), piece(index));
    }
}

async fn one_write_of_many_buffers(world: World) {
    let disk = world.env.disk();
    let file = disk.open(&world.directory.join("file"), Open::New).await.expect("opens");
    let all = pattern(3_000_000, 8);
    let mut buffers: Vec<_> = (0..2_500).map(|index| all.slice(index * 1_000..(index + 1) * 1_000)).collect();
    buffers.push(all.slice(2_500_000..));
    disk.submit(vec![Op::WriteAt { file: file.clone(), offset: 100, buffers }]).await.expect("writes");
    assert_eq!(file.read_at(100, all.len()).await.expect("reads"), all);
}

pub(super) async fn full_disk(env: Arc<dyn Env>, directory: PathBuf, room: u64) {
    let disk = env.disk();
    let file = disk.open(&directory.join("file"), Open::OrCreate).await.expect("opens");
    disk.submit(vec![write(&file, 0, "kept")]).await.expect("a little fits");
    let chunk = pattern(64 * 1024, 9);
    let mut offset = 4;
    let error = loop {
        assert!(offset <= room + 4, "{offset} bytes fit into {room}");
        match disk.submit(vec![write(&file, offset, chunk.clone())]).await {
            Ok(()) => offset += chunk.len() as u64,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    assert_eq!(file.read_at(0, 4).await.expect("reads"), "kept", "what was written before stays");
    let more = Op::Allocate { file: file.clone(), length: room + 4 };
    let error = disk.submit(vec![more]).await.expect_err("allocating needs room too");
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    disk.submit(vec![Op::Truncate { file: file.clone(), length: 4 }]).await.expect("cutting needs no room");
    disk.submit(vec![write(&file, 4, chunk)]).await.expect("room again");
}
