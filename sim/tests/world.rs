//! The simulated world judged by small programs over Env: what its TCP, disks, clocks and processes promise.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use gracchus_env::{Connection, Env, FileRange, Op, Open, Piece, contract};
use gracchus_sim::world::{self, Machine, NodeId, Passed, World, WorldPlan};
use gracchus_workload::scenario::{Moment, Trigger};

const A: NodeId = NodeId(0);
const B: NodeId = NodeId(1);

/// Runs `story` in a world of two machines, in a thread of its own as the runner does.
fn two<T: Send + 'static>(
    seed: u64,
    change: impl FnOnce(&mut WorldPlan) + Send + 'static,
    story: impl AsyncFnOnce(Arc<World>) -> T + Send + 'static,
) -> T {
    let machine = |name: &str| Machine { name: name.to_owned(), ..Machine::default() };
    let mut plan = WorldPlan { machines: vec![machine("a"), machine("b")], ..WorldPlan::default() };
    change(&mut plan);
    #[allow(clippy::disallowed_methods, reason = "a world wants a fresh thread")]
    std::thread::spawn(move || world::run(seed, &plan, story)).join().expect("the story ends")
}

fn nothing(_: &mut WorldPlan) {}

/// The same promises that production's Env keeps.
#[test]
fn the_contract_of_env_holds() {
    for seed in 0..5 {
        let broken = two(seed, nothing, async |world| {
            let (sender, receiver) = tokio::sync::oneshot::channel();
            world.start(A, |env| async move {
                let made = env.disk().submit(vec![Op::CreateDir { path: "/contract".into() }]).await;
                made.expect("creates");
                contract::run(env.clone(), "/contract".into(), "a".to_owned(), "b:9092".to_owned()).await;
                env.disk().submit(vec![Op::CreateDir { path: "/full".into() }]).await.expect("creates");
                let _ = sender.send(env);
                std::future::pending::<()>().await;
            });
            tokio::select! {
                biased;
                () = world.violated() => {}
                env = receiver => {
                    let env = env.expect("the contract runs to its end");
                    let room = 1 << 20;
                    let used = world.disk_used(A);
                    world.disk_faults(A, |faults| faults.quota = Some(used + room));
                    contract::full_disk(env, "/full".into(), room).await;
                }
            }
            world.violations()
        });
        assert!(broken.is_empty(), "seed {seed}: {broken:?}");
    }
}

/// Runs `main` as the process of `node` and hands back what it returns.
async fn on<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    world: &Arc<World>,
    node: NodeId,
    main: impl FnOnce(Arc<dyn Env>) -> F,
) -> T {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let process = world.start(node, |env| {
        let main = main(env);
        async move {
            let _ = sender.send(main.await);
        }
    });
    let result = receiver.await.expect("the process is not killed");
    world.kill(&process);
    result
}

/// Answers every connection with what it gets until it ends.
async fn echo(env: Arc<dyn Env>) {
    let mut listener = env.listen("0.0.0.0:9092").await.expect("listens");
    loop {
        let Ok(Connection { mut reader, mut writer, .. }) = listener.accept().await else { return };
        env.spawn_boxed(
            "echo",
            Box::pin(async move {
                let mut buffer = BytesMut::new();
                while let Ok(1..) = reader.read(&mut buffer, 1 << 16).await {
                    if writer.write(vec![Piece::Bytes(buffer.split().freeze())]).await.is_err() {
                        return;
                    }
                }
            }),
        );
    }
}

async fn connect(env: &dyn Env, within: Duration) -> io::Result<Connection> {
    env.connect("a:9092", env.now() + within).await
}

async fn read_exactly(connection: &mut Connection, length: usize) -> io::Result<Bytes> {
    let mut buffer = BytesMut::new();
    while buffer.len() < length {
        let missing = length - buffer.len();
        if connection.reader.read(&mut buffer, missing).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(buffer.freeze())
}

fn pattern(length: usize) -> Bytes {
    (0..length).map(|index| (index * 7 + index / 251) as u8).collect()
}

#[test]
fn a_stream_arrives_whole_through_loss_and_small_buffers() {
    let change = |plan: &mut WorldPlan| {
        plan.network.loss = 0.1;
        plan.network.segment_bytes = 1000;
        plan.network.send_buffer = 5_000;
        plan.network.receive_buffer = 3_000;
    };
    two(1, change, async |world| {
        world.start(A, echo);
        on(&world, B, |env| async move {
            let Connection { mut reader, mut writer, .. } =
                connect(&*env, Duration::from_secs(30)).await.expect("connects");
            let sent = pattern(100_000);
            let out = sent.clone();
            gracchus_env::spawn(&*env, "writer", async move {
                writer.write(vec![Piece::Bytes(out)]).await.expect("writes");
                writer.shutdown().await.expect("shuts down");
            });
            let mut got = BytesMut::new();
            while reader.read(&mut got, 4096).await.expect("reads") > 0 {}
            assert_eq!(got, sent);
        })
        .await;
    });
}

#[test]
fn a_port_without_a_listener_refuses_and_a_dark_machine_says_nothing() {
    two(2, nothing, async |world| {
        let silent = on(&world, B, |env| async move {
            let started = env.now();
            let error = connect(&*env, Duration::from_secs(5)).await.expect_err("nobody is there");
            assert!(env.now() - started >= Duration::from_secs(5));
            error.kind()
        });
        assert_eq!(silent.await, io::ErrorKind::TimedOut);
        let idle = world.start(A, |_| std::future::pending());
        let refused = on(&world, B, |env| async move {
            connect(&*env, Duration::from_secs(5)).await.expect_err("nobody listens").kind()
        });
        assert_eq!(refused.await, io::ErrorKind::ConnectionRefused);
        world.kill(&idle);
    });
}

#[test]
fn a_killed_peer_is_seen_and_one_without_power_is_not() {
    two(3, nothing, async |world| {
        for power in [false, true] {
            let server = world.start(A, echo);
            let there = world.clone();
            on(&world, B, |env| async move {
                let mut connection = connect(&*env, Duration::from_secs(5)).await.expect("connects");
                connection.writer.write(vec![Piece::Bytes(pattern(10))]).await.expect("writes");
                read_exactly(&mut connection, 10).await.expect("echoes");
                if power {
                    there.power_loss(A);
                } else {
                    there.kill(&server);
                }
                let mut buffer = BytesMut::new();
                let end = env.timeout(Duration::from_secs(20), connection.reader.read(&mut buffer, 1)).await;
                if power {
                    assert!(end.is_none(), "a half-open connection stays silent");
                    // The rebooted machine does not know the connection.
                    there.start(A, echo);
                    connection.writer.write(vec![Piece::Bytes(pattern(10))]).await.expect("is buffered");
                    let error = connection.reader.read(&mut buffer, 1).await.expect_err("is reset");
                    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                } else {
                    assert_eq!(end.expect("is noticed").expect("as an end"), 0);
                }
            })
            .await;
        }
    });
}

#[test]
fn a_cut_delays_and_a_hold_lets_others_overtake() {
    two(4, nothing, async |world| {
        world.start(A, echo);
        let there = world.clone();
        on(&world, B, |env| async move {
            let mut first = connect(&*env, Duration::from_secs(5)).await.expect("connects");
            let mut second = connect(&*env, Duration::from_secs(5)).await.expect("connects");
            there.link_faults(B, A, |link| link.cut = true);
            first.writer.write(vec![Piece::Bytes(pattern(10))]).await.expect("writes");
            let early = env.timeout(Duration::from_secs(3), read_exactly(&mut first, 10)).await;
            assert!(early.is_none(), "the cut lets nothing through");
            there.link_faults(B, A, |link| link.cut = false);
            let late = env.timeout(Duration::from_secs(5), async {
                // Ten bytes may have been read above before the timeout dropped them: there are none.
                read_exactly(&mut first, 10).await
            });
            late.await.expect("is sent again").expect("arrives");

            let release = there.now() + 30_000_000_000;
            there.link_faults(B, A, |link| link.hold = Some((1, release)));
            first.writer.write(vec![Piece::Bytes(pattern(20))]).await.expect("writes");
            second.writer.write(vec![Piece::Bytes(pattern(30))]).await.expect("writes");
            read_exactly(&mut second, 30).await.expect("echoes");
            assert!(there.now() < release);
            assert_eq!(read_exactly(&mut first, 20).await.expect("echoes in the end"), pattern(20));
            assert!(there.now() >= release);
        })
        .await;
    });
}

#[test]
fn a_receiver_that_does_not_read_stops_the_sender() {
    two(5, nothing, async |world| {
        world.start(A, |env| async move {
            let mut listener = env.listen(":9092").await.expect("listens");
            let connection = listener.accept().await.expect("accepts");
            env.sleep(Duration::from_secs(60)).await;
            drop(connection);
        });
        on(&world, B, |env| async move {
            let mut connection = connect(&*env, Duration::from_secs(5)).await.expect("connects");
            let mut sent = 0;
            while let Some(written) = env
                .timeout(Duration::from_secs(1), connection.writer.write(vec![Piece::Bytes(pattern(10_000))]))
                .await
            {
                written.expect("writes");
                sent += 10_000;
            }
            assert!((256 << 10..1 << 20).contains(&sent), "{sent}");
        })
        .await;
    });
}

#[test]
fn file_ranges_go_out_as_they_are() {
    two(6, nothing, async |world| {
        world.start(A, echo);
        on(&world, B, |env| async move {
            let file = env.disk().open(Path::new("/x"), Open::New).await.expect("opens");
            let whole = pattern(200_000);
            let write = Op::WriteAt { file: file.clone(), offset: 0, buffers: vec![whole.clone()] };
            env.disk().submit(vec![write]).await.expect("writes");
            let mut connection = connect(&*env, Duration::from_secs(5)).await.expect("connects");
            let range = FileRange { file, offset: 100, length: 150_000 };
            connection.writer.write(vec![Piece::File(range)]).await.expect("writes");
            assert_eq!(read_exactly(&mut connection, 150_000).await.expect("echoes"), whole[100..150_100]);
        })
        .await;
    });
}

/// Writes and syncs one file, writes another without, and loses power.
#[test]
fn power_loss_keeps_what_was_synced() {
    let mut lost = 0;
    for seed in 0..40 {
        lost += two(seed, nothing, async |world| {
            on(&world, A, |env| async move {
                let disk = env.disk();
                disk.submit(vec![Op::CreateDir { path: "/data".into() }, Op::SyncDir { path: "/".into() }])
                    .await
                    .expect("creates");
                disk.replace(Path::new("/data/kept"), pattern(3_000)).await.expect("replaces");
                let file = disk.open(Path::new("/data/kept"), Open::Existing).await.expect("opens");
                let write = Op::WriteAt { file, offset: 3_000, buffers: vec![pattern(5_000)] };
                disk.submit(vec![write]).await.expect("writes");
                disk.open(Path::new("/data/new"), Open::New).await.expect("creates");
            })
            .await;
            world.power_loss(A);
            on(&world, A, |env| async move {
                let kept =
                    env.disk().read_all(Path::new("/data/kept")).await.expect("reads").expect("is there");
                assert_eq!(kept[..3_000], pattern(3_000));
                let names = env.disk().list(Path::new("/data")).await.expect("lists");
                assert!(names.windows(2).all(|pair| pair[0].name < pair[1].name));
                usize::from(kept.len() < 8_000) + usize::from(names.len() < 2)
            })
            .await
        });
    }
    assert!((20..80).contains(&lost), "{lost}");
}

#[test]
fn a_dead_process_cannot_touch_its_disk_and_its_lock_is_free() {
    two(7, nothing, async |world| {
        let stale = Arc::new(Mutex::new(None));
        let slot = stale.clone();
        let process = world.start(A, |env| async move {
            let guard = env.disk().lock(Path::new("/lock")).await.expect("locks");
            let again = env.disk().lock(Path::new("/lock")).await.expect_err("is held");
            assert_eq!(again.kind(), io::ErrorKind::WouldBlock);
            *slot.lock().expect("is not poisoned") = Some((env.clone(), guard));
            std::future::pending::<()>().await;
        });
        world.pass(Duration::from_secs(1)).await;
        world.kill(&process);
        let (old, guard) = stale.lock().expect("is not poisoned").take().expect("was filled");
        assert!(old.disk().open(Path::new("/y"), Open::OrCreate).await.is_err());
        let second = world.start(A, |env| async move {
            let _guard = env.disk().lock(Path::new("/lock")).await.expect("is free");
            std::future::pending::<()>().await;
        });
        world.pass(Duration::from_secs(1)).await;
        drop(guard);
        assert!(second.alive() && world.violations().is_empty());
    });
}

#[test]
fn a_removed_file_that_is_still_open_is_seen() {
    two(9, nothing, async |world| {
        let process = world.start(A, |env| async move {
            let open = |path: &'static str| env.disk().open(Path::new(path), Open::OrCreate);
            let removed = open("/removed").await.expect("opens");
            let renamed = open("/renamed").await.expect("opens");
            let ops = vec![
                Op::RemoveFile { path: "/removed".into() },
                Op::Rename { from: "/renamed".into(), to: "/elsewhere".into() },
            ];
            env.disk().submit(ops).await.expect("changes names");
            env.sleep(Duration::from_secs(2)).await;
            drop((removed, renamed));
            std::future::pending::<()>().await;
        });
        world.pass(Duration::from_secs(1)).await;
        assert_eq!(world.held_without_a_name(A), ["/removed".into()]);
        world.pass(Duration::from_secs(2)).await;
        assert!(process.alive() && world.held_without_a_name(A).is_empty());
    });
}

#[test]
fn a_stopped_process_stands_still_and_goes_on() {
    two(8, nothing, async |world| {
        let count = Arc::new(Mutex::new(0));
        let counter = count.clone();
        let process = world.start(A, |env| async move {
            loop {
                env.sleep(Duration::from_millis(100)).await;
                *counter.lock().expect("is not poisoned") += 1;
            }
        });
        let now = || *count.lock().expect("is not poisoned");
        world.pass(Duration::from_millis(1_050)).await;
        assert_eq!(now(), 10);
        world.pause(&process);
        world.pass(Duration::from_secs(5)).await;
        assert_eq!(now(), 10);
        world.resume(&process);
        world.pass(Duration::from_millis(350)).await;
        assert_eq!(now(), 14);
    });
}

#[test]
fn what_is_computed_takes_time_in_which_others_run() {
    const MOST: u64 = 3_000;
    let taken = |seed| {
        two(
            seed,
            |plan| plan.scheduling.compute_us = MOST,
            async |world| {
                on(&world, A, |env| async move {
                    let ticks = Arc::new(Mutex::new(0));
                    let (clock, counted) = (env.clone(), ticks.clone());
                    env.spawn_boxed(
                        "ticks",
                        Box::pin(async move {
                            loop {
                                clock.sleep(Duration::from_micros(1)).await;
                                *counted.lock().unwrap() += 1;
                            }
                        }),
                    );
                    let (mut taken, mut ticked) = (Vec::new(), 0);
                    for _ in 0..50 {
                        let (begun, before) = (env.now(), *ticks.lock().unwrap());
                        let (sender, mut done) = tokio::sync::oneshot::channel();
                        env.compute(Box::new(move || _ = sender.send(()))).await;
                        done.try_recv().expect("it is done by then");
                        taken.push((env.now() - begun).as_micros() as u64);
                        ticked += *ticks.lock().unwrap() - before;
                    }
                    assert!(ticked > 1_000, "{ticked}");
                    taken
                })
                .await
            },
        )
    };
    let first = taken(1);
    assert!(first.iter().all(|micros| (1..=2 * MOST).contains(micros)), "{first:?}");
    assert!(first.iter().any(|micros| *micros > MOST / 2) && first.iter().any(|micros| *micros < 50));
    assert_eq!(first, taken(1), "a seed decides");
    assert_ne!(first, taken(2));
}

#[test]
fn a_panic_kills_the_process_and_breaks_a_law() {
    std::panic::set_hook(Box::new(|_| {}));
    two(9, nothing, async |world| {
        let process = world.start(A, |env| async move {
            env.sleep(Duration::from_secs(1)).await;
            panic!("the log end went back");
        });
        world.violated().await;
        assert!(!process.alive());
        assert_eq!(world.violations()[0].law, "no panic");
        assert!(world.violations()[0].what.contains("the log end went back"));
    });
}

/// A bit of everything, as `meta` would see it.
fn hash_of(seed: u64) -> u64 {
    two(
        seed,
        |plan| plan.network.loss = 0.05,
        async |world| {
            world.start(A, echo);
            let there = world.clone();
            on(&world, B, |env| async move {
                for round in 0..20 {
                    let mut connection = connect(&*env, Duration::from_secs(30)).await.expect("connects");
                    connection.writer.write(vec![Piece::Bytes(pattern(5_000))]).await.expect("writes");
                    read_exactly(&mut connection, 5_000).await.expect("echoes");
                    let path = format!("/{round}");
                    env.disk().replace(Path::new(&path), pattern(round * 100)).await.expect("replaces");
                    if round == 10 {
                        there.power_loss(A);
                        there.start(A, echo);
                    }
                }
            })
            .await;
            world.hash()
        },
    )
}

#[test]
fn a_seed_is_one_history() {
    let hashes: Vec<u64> = (0..5).map(hash_of).collect();
    assert_eq!(hashes, (0..5).map(hash_of).collect::<Vec<_>>());
    let different: std::collections::BTreeSet<_> = hashes.iter().collect();
    assert_eq!(different.len(), 5);
}

/// A file that a process has written in so many submissions of two writes and two syncs, when the armed fault struck.
async fn written_until_struck(world: &Arc<World>, trigger: Trigger) -> Option<u64> {
    let mut struck = world.struck();
    world.arm(A, 7, trigger);
    let process = world.start(A, |env| async move {
        env.disk().submit(vec![Op::CreateDir { path: "/data/t-0".into() }]).await.expect("creates");
        let file = env.disk().open(Path::new("/data/t-0/x.log"), Open::New).await.expect("opens");
        for round in 0..10 {
            let step = |at: u64| {
                let write =
                    Op::WriteAt { file: file.clone(), offset: at, buffers: vec![Bytes::from_static(b"x")] };
                [write, Op::Sync { file: file.clone() }]
            };
            let ops = [step(2 * round), step(2 * round + 1)].concat();
            env.disk().submit(ops).await.expect("writes");
        }
        std::future::pending::<()>().await;
    });
    let number = tokio::select! {
        biased;
        number = struck.recv() => number,
        () = world.pass(Duration::from_secs(1)) => None,
    };
    let written = world.file(A, "/data/t-0/x.log").unwrap_or_default().len() as u64;
    world.kill(&process);
    number.map(|number| {
        assert_eq!(number, 7);
        written
    })
}

#[test]
fn a_fault_strikes_at_the_moment_it_is_aimed_at() {
    let written = |moment, nth| {
        let trigger = Trigger { moment, nth, after_us: 0 };
        two(3, nothing, async move |world| written_until_struck(&world, trigger).await)
    };
    // Three steps of each submission are followed by another: the first write, its sync, the second write.
    assert_eq!(written(Moment::BetweenSteps, 1), Some(1));
    assert_eq!(written(Moment::BetweenSteps, 3), Some(2));
    assert_eq!(written(Moment::BetweenSteps, 4), Some(3));
    assert_eq!(written(Moment::Roll, 1), Some(0), "when the segment is created");
    assert_eq!(written(Moment::TwoSyncs, 1), None, "there is one at a time");
    assert_eq!(written(Moment::Truncation, 1), None);
}

#[test]
fn what_passes_on_a_watched_machine_is_seen_before_it_leaves() {
    let (sent, seen) = two(4, nothing, async |world| {
        let seen = Arc::new(Mutex::new((Vec::new(), Vec::new(), 0)));
        let kept = seen.clone();
        world.watch_wires(1, move |node, _, passed| {
            assert_eq!(node, A);
            let mut kept = kept.lock().expect("one thread");
            match passed {
                Passed::Read(bytes) => kept.0.extend_from_slice(bytes),
                Passed::Written(bytes) => kept.1.extend_from_slice(bytes),
                Passed::Closed => kept.2 += 1,
            }
        });
        world.start(A, echo);
        let sent = on(&world, B, async |env| {
            let mut connection = connect(&*env, Duration::from_secs(5)).await.expect("connects");
            let sent = Bytes::from(vec![7; 100_000]);
            connection.writer.write(vec![Piece::Bytes(sent.clone())]).await.expect("writes");
            assert_eq!(read_exactly(&mut connection, sent.len()).await.expect("is echoed"), sent);
            sent
        })
        .await;
        world.pass(Duration::from_secs(1)).await;
        let seen = seen.lock().expect("one thread").clone();
        (sent, seen)
    });
    assert_eq!((seen.0, seen.1, seen.2), (sent.to_vec(), sent.to_vec(), 1));
}
