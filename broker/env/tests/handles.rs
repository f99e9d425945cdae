//! What happens when the process has no file handle left. Alone in its process, which it starves.
#![allow(clippy::disallowed_methods, reason = "a test of the real thing")]

use std::{fs::File, time::Duration};

use gracchus_env::{
    Op, Open, is_out_of_handles,
    production::{IoThreads, TokioEnv},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lack_of_handles_is_told_apart_and_submissions_do_without() {
    let env = TokioEnv::new(tokio::runtime::Handle::current(), IoThreads::default());
    let directory = std::env::temp_dir().join(format!("gracchus-handles-{}", std::process::id()));
    let create = vec![Op::CreateDir { path: directory.clone() }];
    env.disk().submit(create).await.unwrap();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(128), ..limit }).unwrap();
    let mut hoard = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        hoard.push(file);
    }

    let path = directory.join("file");
    let refused = env.disk().open(&path, Open::OrCreate).await.unwrap_err();
    assert!(is_out_of_handles(&refused), "{refused}");
    let refused = env.disk().list(&directory).await.unwrap_err();
    assert!(is_out_of_handles(&refused), "{refused}");
    // A directory is synced all the same, by any number of threads and again and again.
    for _ in 0..3 {
        let sync = || env.disk().submit(vec![Op::SyncDir { path: directory.clone() }]);
        let all = async { (sync().await, sync().await, tokio::join!(sync(), sync(), sync())) };
        let (one, other, (a, b, c)) =
            tokio::time::timeout(Duration::from_secs(5), all).await.expect("nobody waits for a handle");
        [one, other, a, b, c].into_iter().for_each(|synced| synced.expect("there is one in reserve"));
        assert!(File::open("/dev/null").is_err(), "and that is in reserve again");
    }
    hoard.truncate(hoard.len() / 2);
    let file = env.disk().open(&path, Open::OrCreate).await.expect("nothing was done before");
    env.disk().submit(vec![Op::Sync { file }, Op::RemoveDir { path: directory }]).await.unwrap();

    setrlimit(Resource::Nofile, limit).unwrap();
    assert!(!is_out_of_handles(&std::io::ErrorKind::NotFound.into()));
    let most = gracchus_env::production::open_file_limit();
    assert_eq!(most, getrlimit(Resource::Nofile).current, "it asks for all it may have");
}
