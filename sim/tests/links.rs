//! Faults of the wires between two brokers, as a plan names them: what they do to the two, and that nobody else feels them.

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use gracchus_env::{Connection, Env, Piece};
use gracchus_sim::{
    links,
    world::{self, Machine, NodeId, World, WorldPlan},
};
use gracchus_workload::scenario::{Direction, Fault};

/// Two brokers and a machine of clients.
const ONE: NodeId = NodeId(0);
const TWO: NodeId = NodeId(1);
const CLIENT: NodeId = NodeId(2);
const CLIENTS: [NodeId; 1] = [CLIENT];
const SECOND: Duration = Duration::from_secs(1);

/// The machines' views of the world; both brokers answer what they are sent.
struct Machines {
    world: Arc<World>,
    envs: Vec<Arc<dyn Env>>,
}

fn three<T: Send + 'static>(story: impl AsyncFnOnce(Machines) -> T + Send + 'static) -> T {
    let machine = |name: &str| Machine { name: name.to_owned(), ..Machine::default() };
    let machines = ["one", "two", "client"].map(machine).to_vec();
    let plan = WorldPlan { machines, ..WorldPlan::default() };
    #[allow(clippy::disallowed_methods, reason = "a world wants a fresh thread")]
    let thread = std::thread::spawn(move || {
        world::run(7, &plan, async |world| {
            let mut envs = Vec::new();
            for node in [ONE, TWO, CLIENT] {
                world.start(node, |env| {
                    envs.push(env.clone());
                    echo(env)
                });
            }
            world.pass(Duration::from_millis(1)).await;
            story(Machines { world, envs }).await
        })
    });
    thread.join().expect("the story ends")
}

/// Answers every connection with what it gets until it ends.
async fn echo(env: Arc<dyn Env>) {
    let mut listener = env.listen("0.0.0.0:9092").await.expect("listens");
    while let Ok(Connection { mut reader, mut writer, .. }) = listener.accept().await {
        let answers = async move {
            let mut buffer = BytesMut::new();
            while let Ok(1..) = reader.read(&mut buffer, 1 << 16).await {
                if writer.write(vec![Piece::Bytes(buffer.split().freeze())]).await.is_err() {
                    return;
                }
            }
        };
        env.spawn_boxed("echo", Box::pin(answers));
    }
}

impl Machines {
    async fn connect(&self, from: NodeId, to: &str, within: Duration) -> io::Result<Connection> {
        let env = &self.envs[from.0];
        env.connect(&format!("{to}:9092"), env.now() + within).await
    }

    /// How long a message of `length` bytes takes there and back.
    async fn round_trip(&self, connection: &mut Connection, length: usize) -> Duration {
        let begun = self.world.now();
        let sent = Bytes::from(vec![7; length]);
        connection.writer.write(vec![Piece::Bytes(sent.clone())]).await.expect("writes");
        let mut got = BytesMut::new();
        while got.len() < length {
            connection.reader.read(&mut got, length).await.expect("reads");
        }
        assert_eq!(got, sent, "it is what was sent");
        Duration::from_nanos(self.world.now() - begun)
    }

    async fn is_well(&self, from: NodeId, to: &str) -> bool {
        let Ok(mut connection) = self.connect(from, to, SECOND).await else { return false };
        self.round_trip(&mut connection, 1_000).await < Duration::from_millis(20)
    }

    /// Both brokers and the client reach each other at once.
    async fn all_is_well(&self) -> bool {
        let pairs = [(ONE, "two"), (TWO, "one"), (CLIENT, "one"), (CLIENT, "two")];
        for (from, to) in pairs {
            if !self.is_well(from, to).await {
                return false;
            }
        }
        true
    }
}

#[test]
fn a_cut_between_two_brokers_leaves_their_clients_alone_and_may_be_of_one_way() {
    for direction in [Direction::Both, Direction::From, Direction::To] {
        three(async move |machines: Machines| {
            let mut before = machines.connect(TWO, "one", SECOND).await.expect("nothing is wrong yet");
            let fault = Fault::Cut { node: 1, direction, peer: Some(2) };
            let struck = links::strike(&machines.world, &fault, &CLIENTS).expect("it is of wires");
            for (from, to) in [(ONE, "two"), (TWO, "one")] {
                // Without both ways there is no handshake.
                let refused = machines.connect(from, to, SECOND).await.expect_err("it is cut");
                assert_eq!(refused.kind(), io::ErrorKind::TimedOut, "{direction:?}");
            }
            assert!(machines.is_well(CLIENT, "one").await && machines.is_well(CLIENT, "two").await);
            // What was sent before arrives where that way is not cut, though no confirmation comes back.
            before.writer.write(vec![Piece::Bytes(Bytes::from_static(b"before"))]).await.expect("buffered");
            machines.world.pass(SECOND).await;
            struck.mend(&machines.world);
            let begun = machines.world.now();
            let mut got = BytesMut::new();
            while got.len() < 6 {
                before.reader.read(&mut got, 100).await.expect("the connection has survived");
            }
            assert_eq!(&got[..], b"before");
            let waited = Duration::from_nanos(machines.world.now() - begun);
            assert!(waited < 4 * SECOND, "retransmission brings it: {waited:?}");
            assert!(machines.all_is_well().await);
        });
    }
}

#[test]
fn only_the_way_that_is_cut_is_silent() {
    three(async |machines: Machines| {
        let mut connection = machines.connect(TWO, "one", SECOND).await.expect("connects");
        // Broker 1 hears broker 2 and is not heard.
        let fault = Fault::Cut { node: 1, direction: Direction::From, peer: Some(2) };
        let _struck = links::strike(&machines.world, &fault, &CLIENTS).expect("it is of wires");
        let arrived = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let seen = arrived.clone();
        machines.world.watch_wires(1, move |_, _, passed| {
            if let world::Passed::Read(bytes) = passed {
                seen.fetch_add(bytes.len(), std::sync::atomic::Ordering::Relaxed);
            }
        });
        connection.writer.write(vec![Piece::Bytes(Bytes::from_static(b"hello"))]).await.expect("writes");
        machines.world.pass(SECOND).await;
        assert_eq!(arrived.load(std::sync::atomic::Ordering::Relaxed), 5, "it was heard");
        let mut got = BytesMut::new();
        tokio::select! {
            biased;
            read = connection.reader.read(&mut got, 10) => panic!("nothing comes back: {read:?}"),
            () = machines.world.pass(5 * SECOND) => {}
        }
    });
}

#[test]
fn a_delay_between_two_brokers_is_felt_on_the_way_that_it_names() {
    three(async |machines: Machines| {
        let fault = Fault::Delay { node: 2, extra_ms: 400, direction: Direction::To, peer: Some(1) };
        let struck = links::strike(&machines.world, &fault, &CLIENTS).expect("it is of wires");
        let mut between = machines.connect(ONE, "two", 9 * SECOND).await.expect("connects");
        let mut slowest = Duration::ZERO;
        for _ in 0..8 {
            slowest = slowest.max(machines.round_trip(&mut between, 1_000).await);
            assert!(machines.is_well(CLIENT, "one").await && machines.is_well(CLIENT, "two").await);
        }
        assert!(slowest > Duration::from_millis(100), "{slowest:?}");
        // There and back again: one way alone is slow.
        assert!(slowest < Duration::from_millis(500), "{slowest:?}");
        struck.mend(&machines.world);
        assert!(machines.all_is_well().await);
    });
}

#[test]
fn what_is_lost_between_two_brokers_is_sent_again() {
    three(async |machines: Machines| {
        let fault = Fault::Loss { node: 1, per_mille: 300, direction: Direction::Both, peer: Some(2) };
        let struck = links::strike(&machines.world, &fault, &CLIENTS).expect("it is of wires");
        let mut between = machines.connect(ONE, "two", 30 * SECOND).await.expect("connects");
        let mut slowest = Duration::ZERO;
        for _ in 0..10 {
            slowest = slowest.max(machines.round_trip(&mut between, 200_000).await);
            assert!(machines.is_well(CLIENT, "one").await && machines.is_well(CLIENT, "two").await);
        }
        assert!(slowest > Duration::from_millis(200), "a retransmission at least: {slowest:?}");
        struck.mend(&machines.world);
        assert!(machines.all_is_well().await);
    });
}

#[test]
fn a_message_that_is_held_between_two_brokers_is_overtaken() {
    for seed in 0..4 {
        three(async move |machines: Machines| {
            let (world, mut held) =
                (&machines.world, machines.connect(ONE, "two", SECOND).await.expect("nothing is wrong yet"));
            let until = world.now() + 5_000_000_000;
            let random = &mut <rand::rngs::SmallRng as rand::SeedableRng>::seed_from_u64(seed);
            let other = links::hold(world, random, (1, Some(2)), &CLIENTS, until);
            assert_eq!(other, TWO);
            machines.round_trip(&mut held, 1_000).await;
            assert!(world.now() >= until, "there or back it was held");
            assert!(world.now() < until + 100_000_000);
            let other = links::hold(world, random, (1, None), &CLIENTS, world.now() + 5_000_000_000);
            assert_eq!(other, CLIENT);
            // The next of the client is held, not that of the other broker.
            assert!(machines.is_well(TWO, "one").await && machines.is_well(ONE, "two").await);
            links::heal(world, ONE, &CLIENTS);
            assert!(machines.all_is_well().await);
        });
    }
}
