//! Drives any Kafka broker with a drawn workload and judges what the clients saw:
//!
//!     cargo run -p gracchus-workload --example drive -- HOST:PORT [SECONDS] [SEED]
//!
//! Proves the workload itself: against an honest broker (Apache Kafka's) nobody may complain.

#![allow(clippy::print_stdout, reason = "a command line tool")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gracchus_checker::{Checker, CheckerConfig, Event, EventKind, Outcome, Violation};
use gracchus_env::{Env, production};
use gracchus_workload::{History, Workload, WorkloadPlan, plan::DrawLimits};
use rand::{SeedableRng, rngs::SmallRng};

struct Judge {
    env: Arc<dyn Env>,
    checker: Mutex<Option<Checker>>,
    violations: Mutex<Vec<Violation>>,
    acknowledged: AtomicU64,
    failed: AtomicU64,
    unknown: AtomicU64,
    records_read: AtomicU64,
}

impl History for Judge {
    fn now_ns(&self) -> u64 {
        self.env.now().as_nanos()
    }

    fn observe(&self, mut event: Event) {
        let (counter, count) = match &event.kind {
            EventKind::ProduceReturned { outcome: Outcome::Acked { .. }, .. } => (&self.acknowledged, 1),
            EventKind::ProduceReturned { outcome: Outcome::Failed { .. }, .. } => (&self.failed, 1),
            EventKind::ProduceReturned { outcome: Outcome::Unknown, .. } => (&self.unknown, 1),
            EventKind::Fetched { records, .. } => (&self.records_read, records.len()),
            _ => (&self.unknown, 0),
        };
        counter.fetch_add(count as u64, Ordering::Relaxed);
        let mut checker = self.checker.lock().unwrap();
        event.time_ns = self.now_ns();
        if let Some(Err(violation)) = checker.as_mut().map(|checker| checker.observe(&event)) {
            *checker = None;
            self.complain(violation);
        }
    }

    fn complain(&self, violation: Violation) {
        println!("{violation}");
        self.violations.lock().unwrap().push(violation);
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let address = arguments.get(1).expect("host:port of a broker").clone();
    let seconds: u64 = arguments.get(2).map_or(20, |text| text.parse().expect("seconds"));
    let seed: u64 = arguments.get(3).map_or(1, |text| text.parse().expect("a seed"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let env = production::TokioEnv::new(runtime.handle().clone(), production::IoThreads::default());
    let mut plan = WorkloadPlan::draw(&mut SmallRng::seed_from_u64(seed), DrawLimits::default());
    // So that several runs can share a broker.
    plan.seed ^= u64::from(std::process::id());
    for topic in &mut plan.topics {
        topic.name = format!("{}-{seed}-{}", topic.name, std::process::id());
        // Apache Kafka refuses smaller ones since 4.0.
        if let Some(bytes) = topic.configs.get_mut("segment.bytes") {
            *bytes = "1048576".into();
        }
    }
    println!("{}", toml::to_string(&plan).unwrap());
    let judge = Arc::new(Judge {
        env: Arc::clone(&env),
        checker: Mutex::new(Some(Checker::new(CheckerConfig::default()))),
        violations: Mutex::default(),
        acknowledged: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        unknown: AtomicU64::new(0),
        records_read: AtomicU64::new(0),
    });
    let history: Arc<dyn History> = Arc::clone(&judge) as Arc<dyn History>;
    let mut workload = Workload::start(Arc::new(plan), vec![Arc::clone(&env)], vec![address], history);
    let read = runtime.block_on(async {
        workload.ready().await;
        env.sleep(Duration::from_secs(seconds)).await;
        workload.drain().await;
        workload.final_read().await
    });
    for beacon in workload.beacons() {
        println!("{}: {} steps", beacon.name, beacon.steps.load(Ordering::Relaxed));
    }
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let checker = judge.checker.lock().unwrap().take();
    let summary = checker.map(Checker::finish);
    println!(
        "acknowledged={} failed={} unknown={} read={} {read:?}\n{summary:?}",
        count(&judge.acknowledged),
        count(&judge.failed),
        count(&judge.unknown),
        count(&judge.records_read)
    );
    let broken = judge.violations.lock().unwrap().len() + usize::from(matches!(summary, Some(Err(_)) | None));
    std::process::exit(i32::from(broken > 0));
}
