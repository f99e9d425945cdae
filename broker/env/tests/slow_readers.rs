//! Many peers ask for much that is not in the page cache, and read nothing: what is held for them must stay small, and
//! all must arrive when they read at last.
#![allow(clippy::disallowed_methods, clippy::print_stderr, reason = "a test prepares the machine by hand")]

use std::{path::PathBuf, time::Duration};

use bytes::BytesMut;
use gracchus_env::{
    FileRange, Open, Piece, in_scope,
    production::{IoThreads, SocketBuffers, TokioEnv},
    spawn,
};

const PEERS: usize = 64;
const BYTES: usize = 2 << 20;
/// What all of them may cost together; half a megabyte each would be more than twice as much.
const MOST: u64 = 14 << 20;

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number") * 4096
}

fn contents(peer: usize) -> Vec<u8> {
    (0..BYTES).map(|index| (index / 7 + peer) as u8).collect()
}

#[test]
fn who_reads_slowly_holds_no_memory() {
    let folder =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("slow-readers-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a directory for the test");
    let path = |peer: usize| folder.join(format!("{peer}.log"));
    for peer in 0..PEERS {
        std::fs::write(path(peer), contents(peer)).expect("writes");
        let file = std::fs::File::open(path(peer)).expect("opens");
        file.sync_all().expect("syncs");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("advises");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let buffers = SocketBuffers { send: Some(64 << 10), receive: Some(64 << 10) };
    let env = TokioEnv::with_buffers(runtime.handle().clone(), IoThreads::default(), buffers);
    runtime.block_on(in_scope(env.clone(), async {
        let mut listener = env.listen("127.0.0.1:0").await.expect("listens");
        let address = listener.local_address().to_string();
        let mut peers = Vec::new();
        let mut writing = Vec::new();
        let before = resident();
        for peer in 0..PEERS {
            let deadline = env.now() + Duration::from_secs(10);
            peers.push(env.connect(&address, deadline).await.expect("connects"));
            let mut connection = listener.accept().await.expect("accepts");
            let file = env.disk().open(&path(peer), Open::Existing).await.expect("opens");
            writing.push(spawn(&*env, "writer", async move {
                let range = FileRange { file, offset: 0, length: BYTES as u64 };
                connection.writer.write(vec![Piece::File(range)]).await
            }));
        }
        env.sleep(Duration::from_millis(1500)).await;
        let grown = resident().saturating_sub(before);
        eprintln!("{PEERS} peers that read nothing: {} KiB more resident", grown >> 10);
        assert!(grown < MOST, "{grown} bytes are held for peers that do not read");
        for (peer, mut connection) in peers.into_iter().enumerate() {
            let expected = contents(peer);
            let mut all = BytesMut::with_capacity(BYTES);
            while all.len() < BYTES {
                let read = connection.reader.read(&mut all, 1 << 20).await.expect("reads");
                assert!(read > 0, "all of it is sent");
            }
            assert!(all[..] == expected[..], "peer {peer}");
        }
        for written in writing {
            written.await.expect("runs").expect("writes");
        }
    }));
    let _ = std::fs::remove_dir_all(&folder);
}
