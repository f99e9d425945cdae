//! A run of a plan: topics first, then all clients at once, then a drain and a full read.
//!
//! The model: the conductor task on the first client's Env creates the topics and starts every client on its own Env
//! in turn. The caller moves the run on: [`Workload::drain`] lets producers finish what they have begun,
//! [`Workload::final_read`] reads every partition from log start to log end.
//! Never: waits for ever by itself; bounds are the caller's, who knows which faults are on.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use gracchus_checker::EventKind;
use gracchus_env::{Env, JoinHandle, Task, spawn};
use tokio::sync::watch;

use crate::{
    client::{Bootstrap, Calls, Link, Topic, create_topic, find_topic},
    history::{Beacon, History, Recorder},
    plan::{HoarderPlan, TopicPlan, Versions, WorkloadPlan},
    workloads::{self, Context, Part, Shared},
};

pub use crate::workloads::{Answer, FinalRead, LongSegment, Narrowed, Question};

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Everybody works.
    Load,
    /// Nothing new is begun, what was begun is finished.
    Drain,
    /// Nobody does anything any more.
    Stopped,
}

/// A plan that is being carried out. Dropping it stops every client where it stands.
pub struct Workload {
    env: Arc<dyn Env>,
    phase: watch::Sender<Phase>,
    ready: watch::Receiver<bool>,
    beacons: Vec<Arc<Beacon>>,
    conductor: Option<JoinHandle<Option<()>>>,
    reader: Option<Context>,
    hoarding: Option<Hoarding>,
    calls: Arc<Calls>,
    surveyor: Option<Context>,
    latecomer: Option<Context>,
    hasty: Option<Context>,
    shared: Arc<Shared>,
}

/// Hoarders, and the client that must be served beside them.
struct Hoarding {
    hoarders: Vec<(Context, HoarderPlan)>,
    beside: Context,
}

impl std::fmt::Debug for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Workload({} clients)", self.beacons.len())
    }
}

impl Workload {
    /// Starts `plan` on `envs` (clients take them in turn; hoarders have the last one for themselves, if there are several)
    /// against the brokers at `bootstrap` (`host:port`).
    /// Must be called where [`gracchus_env::spawn`] on these Envs works.
    ///
    /// # Panics
    /// When the plan is not sound (see [`WorkloadPlan::check`]), or `envs` or `bootstrap` are empty.
    pub fn start(
        plan: Arc<WorkloadPlan>,
        envs: Vec<Arc<dyn Env>>,
        bootstrap: Vec<String>,
        history: Arc<dyn History>,
    ) -> Workload {
        plan.check().unwrap_or_else(|error| panic!("unsound plan: {error}"));
        let bootstrap = Arc::new(Bootstrap::new(bootstrap, plan.timing.clone()));
        let calls = Arc::clone(&bootstrap.calls);
        let shared = Arc::new(Shared::default());
        let (phase, phases) = watch::channel(Phase::Load);
        let (strangers, envs) = match envs.as_slice() {
            [others @ .., last] if !plan.hoarders.is_empty() && !others.is_empty() => {
                (Arc::clone(last), others.to_vec())
            }
            all => (Arc::clone(&all[0]), all.to_vec()),
        };
        let mut next = 0;
        let mut context = |kind: &str, versions: Versions| {
            let number = next;
            next += 1;
            let machine = number as usize % envs.len();
            let env = Arc::clone(&envs[machine]);
            let recorder = Recorder::new(Arc::clone(&history), number, format!("{kind} {number}"));
            let recorder = recorder.on(machine as u32);
            let mut random = plan.stream(number);
            let link = Link::new(env, Arc::clone(&bootstrap), recorder.clone(), versions, &mut random);
            let (shared, phase) = (Arc::clone(&shared), phases.clone());
            Context { number, link, recorder, random, shared, phase, topics: Vec::new(), ops: 0, values: 0 }
        };
        let setup = context("setup", Versions::Newest);
        let reader = context("final reader", Versions::Newest);
        let mut clients: Vec<(Context, Role)> = Vec::new();
        for producer in &plan.producers {
            clients.push((context("producer", producer.versions), Role::Producer(producer.clone())));
        }
        for replayer in &plan.replayers {
            clients.push((context("replayer", replayer.versions), Role::Replayer(replayer.clone())));
        }
        for consumer in &plan.consumers {
            clients.push((context("consumer", consumer.versions), Role::Consumer(consumer.clone())));
        }
        for poller in &plan.offset_pollers {
            clients.push((context("offset poller", poller.versions), Role::OffsetPoller(poller.clone())));
        }
        for recreate in &plan.recreators {
            let generations = Arc::new(workloads::Generations::default());
            let mut play = |name: &str, part: Part| {
                let role = Role::Recreate(recreate.clone(), part, generations.clone());
                clients.push((context(name, Versions::Newest), role));
            };
            play("topic maker", Part::Maker);
            for _ in 0..recreate.writers {
                play("topic writer", Part::Writer);
            }
            for _ in 0..recreate.readers {
                play("topic reader", Part::Reader);
            }
        }
        if let Some(grow) = &plan.grow {
            clients.push((context("topic grower", Versions::Newest), Role::Grow(grow.clone())));
        }
        if let Some(deletes) = &plan.delete_records {
            clients.push((context("trimmer", deletes.versions), Role::DeleteRecords(deletes.clone())));
        }
        if let Some(configure) = &plan.configure {
            let topics = plan.topics.clone();
            clients.push((
                context("configurer", configure.versions),
                Role::Configure(configure.clone(), topics),
            ));
        }
        for bell in &plan.bells {
            clients.push((context("bell", bell.versions), Role::Bell(bell.clone())));
        }
        for forger in &plan.forgers {
            clients.push((context("forger", forger.versions), Role::Forger(forger.clone())));
        }
        if let Some(churn) = &plan.churn {
            clients.push((context("topic churn", churn.versions), Role::Churn(churn.clone())));
        }
        for sleeper in &plan.sleepers {
            clients.push((context("sleeper", sleeper.versions), Role::Sleeper(sleeper.clone())));
        }
        if let Some(auditor) = &plan.auditor {
            clients.push((context("auditor", auditor.versions), Role::Auditor(auditor.clone())));
        }
        for reader in &plan.slow_readers {
            clients.push((context("slow reader", Versions::Newest), Role::SlowReader(reader.clone())));
        }
        // Behind all others, whose numbers stay what they are without them.
        for wanderer in &plan.wanderers {
            clients.push((context("wanderer", wanderer.versions), Role::Wanderer(wanderer.clone())));
        }
        for trespasser in &plan.trespassers {
            clients.push((context("trespasser", trespasser.versions), Role::Trespasser(trespasser.clone())));
        }
        if let Some(errands) = &plan.errands {
            clients.push((context("errand runner", errands.versions), Role::Errands(errands.clone())));
        }
        if let Some(administrators) = &plan.administrators {
            let names = Arc::new(workloads::SharedNames::default());
            for _ in 0..administrators.count {
                let role = Role::Administrator(administrators.clone(), Arc::clone(&names));
                clients.push((context("administrator", Versions::Newest), role));
            }
        }
        let hoarding = (!plan.hoarders.is_empty()).then(|| {
            let beside = context("neighbour", Versions::Newest);
            let hoarders = plan.hoarders.iter().map(|hoarder| {
                let mut context = context("hoarder", Versions::Newest);
                context.link.env = Arc::clone(&strangers);
                (context, hoarder.clone())
            });
            Hoarding { hoarders: hoarders.collect(), beside }
        });
        // The last ones: the choices of all others are as they would be without them.
        let surveyor = Some(context("surveyor", Versions::Newest));
        let latecomer = Some(context("latecomer", Versions::Newest));
        let hasty = Some(context("hasty producer", Versions::Newest));
        let beacons = clients.iter().map(|(context, _)| context.recorder.beacon()).collect();
        let env = Arc::clone(&envs[0]);
        let (ready_sender, ready) = watch::channel(false);
        let conductor = until_stopped(phases, conduct(plan, setup, clients, ready_sender));
        let conductor = Some(spawn(&*env, "workload", conductor));
        Workload {
            env,
            phase,
            ready,
            beacons,
            conductor,
            reader: Some(reader),
            hoarding,
            calls,
            surveyor,
            latecomer,
            hasty,
            shared,
        }
    }

    /// Waits until the plan's topics exist and all clients have started.
    pub async fn ready(&mut self) {
        // An error means that the conductor has ended, and then all was started long ago.
        let _ = self.ready.wait_for(|ready| *ready).await;
    }

    /// The clients' progress, readable at any time.
    pub fn beacons(&self) -> &[Arc<Beacon>] {
        &self.beacons
    }

    /// Acknowledged batches so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// What was done to topics, by kind.
    pub fn actions(&self) -> std::collections::BTreeMap<&'static str, u64> {
        self.shared.actions.counts()
    }

    /// How often each API was called so far, by its key.
    pub fn calls(&self) -> std::collections::BTreeMap<i16, u64> {
        self.calls.counts()
    }

    /// Ids of the topics that were deleted.
    pub fn gone(&self) -> std::collections::BTreeSet<u128> {
        self.shared.gone()
    }

    /// Whether there are hoarders.
    pub fn has_hoarders(&self) -> bool {
        self.hoarding.is_some()
    }

    /// Lets the hoarders hoard and another client be served beside them; ends when it was, and they are gone.
    pub async fn hoard(&mut self) {
        let Some(Hoarding { hoarders, beside }) = self.hoarding.take() else { return };
        let mut hoarding = Vec::new();
        for (context, plan) in hoarders {
            let env = Arc::clone(&context.link.env);
            let hoarder = until_stopped(self.phase.subscribe(), workloads::hoard(context, plan));
            hoarding.push(spawn(&*env, "hoarders", hoarder).detach());
        }
        let env = Arc::clone(&beside.link.env);
        // They are there first.
        env.sleep(Duration::from_secs(2)).await;
        let served = until_stopped(self.phase.subscribe(), workloads::serve_beside(beside));
        let _ = spawn(&*env, "neighbour", served).await;
        hoarding.iter().for_each(Task::abort);
    }

    /// Lets producers finish what they have begun and everyone else stop; ends when all clients have.
    pub async fn drain(&mut self) {
        self.phase.send_replace(Phase::Drain);
        if let Some(conductor) = self.conductor.take() {
            let _ = conductor.await;
        }
    }

    /// Reads every partition of every topic that was created, from log start to log end. After [`Workload::drain`].
    pub async fn final_read(&mut self) -> FinalRead {
        let Some(context) = self.reader.take() else {
            return FinalRead::default();
        };
        let read = until_stopped(self.phase.subscribe(), workloads::final_read(context));
        spawn(&*self.env, "final-read", read).await.ok().flatten().unwrap_or_default()
    }

    /// Asks single questions about a partition, after [`Workload::drain`]; no law hears of it.
    pub async fn survey(
        &mut self,
        topic_id: u128,
        partition: i32,
        questions: Vec<Question>,
    ) -> Vec<(Question, Answer)> {
        let Some(context) = self.surveyor.take() else { return Vec::new() };
        let survey = workloads::survey(context, topic_id, partition, questions);
        let survey = until_stopped(self.phase.subscribe(), survey);
        let Some((context, answers)) = spawn(&*self.env, "survey", survey).await.ok().flatten() else {
            return Vec::new();
        };
        self.surveyor = Some(context);
        answers
    }

    /// Deletes a topic and takes its name again, so often, while nobody else does anything. After [`Workload::drain`].
    pub async fn take_names_again(&mut self, times: u32) {
        self.latecomer("names", |context| workloads::take_names_again(context, times)).await;
    }

    /// Makes `segment.bytes` of so many topics less while their logs are being opened, and fills them.
    pub async fn narrow(&mut self, times: u32) -> Vec<Narrowed> {
        self.latecomer_tells("narrow", |context| workloads::narrow(context, times)).await.unwrap_or_default()
    }

    /// Changes who sets the timestamps of a topic, so often, and writes a record behind each acknowledgement.
    pub async fn retype(&mut self, times: u32) {
        self.latecomer("retype", |context| workloads::retype(context, times)).await;
    }

    /// Adds partitions to so many topics twice at the same time.
    pub async fn grow_twice(&mut self, times: u32) {
        self.latecomer("grow", |context| workloads::grow_twice(context, times)).await;
    }

    /// An idempotent producer begins to write to a new topic `after` this, and does so for `lasts`; ends when all is
    /// acknowledged.
    pub async fn hurry(&mut self, after: Duration, lasts: Duration) {
        let Some(context) = self.hasty.take() else { return };
        self.late("hurry", workloads::hurry(context, after, lasts)).await;
    }

    /// Writes a segment of some length.
    pub async fn fill(&mut self) -> Option<LongSegment> {
        self.latecomer_tells("fill", workloads::fill).await
    }

    /// Fetches both partitions of its topic at once.
    pub async fn fetch_both(&mut self, long: LongSegment) {
        self.latecomer("fetch both", |context| workloads::fetch_both(context, long)).await;
    }

    /// Bytes of each of its topic's partitions, as tools are told.
    pub async fn sizes(&mut self, long: &LongSegment) -> Vec<(i32, i64)> {
        let topic = Arc::clone(&long.topic);
        self.latecomer_tells("sizes", |context| workloads::sizes(context, topic)).await.unwrap_or_default()
    }

    /// A client sends so many requests and takes no answer, until its task is aborted.
    pub fn fall_silent(&mut self, requests: u32) -> Option<Task> {
        let link = self.latecomer.as_mut()?.link.sibling();
        let silent = until_stopped(self.phase.subscribe(), workloads::take_nothing(link, requests));
        Some(spawn(&*self.env, "silent client", silent).detach())
    }

    /// Waits for records that nobody writes.
    pub async fn listen(&mut self) {
        self.latecomer("listen", workloads::listen).await;
    }

    /// The latecomer does this, and is there for more.
    async fn latecomer<C>(&mut self, name: &'static str, client: impl FnOnce(Context) -> C)
    where
        C: Future<Output = Context> + Send + 'static,
    {
        let Some(context) = self.latecomer.take() else { return };
        self.latecomer = self.late(name, client(context)).await;
    }

    /// The same, and it tells what came of it.
    async fn latecomer_tells<C, T>(
        &mut self,
        name: &'static str,
        client: impl FnOnce(Context) -> C,
    ) -> Option<T>
    where
        C: Future<Output = (Context, T)> + Send + 'static,
        T: Send + 'static,
    {
        let context = self.latecomer.take()?;
        let (context, told) = self.late(name, client(context)).await.unzip();
        self.latecomer = context;
        told
    }

    async fn late<T: Send + 'static>(
        &self,
        name: &'static str,
        client: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let client = until_stopped(self.phase.subscribe(), client);
        spawn(&*self.env, name, client).await.ok().flatten()
    }

    /// Stops every client where it stands.
    pub fn abort(&self) {
        self.phase.send_replace(Phase::Stopped);
    }
}

/// Runs `client` until it ends or the run is stopped.
async fn until_stopped<T>(mut phase: watch::Receiver<Phase>, client: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        _ = phase.wait_for(|phase| *phase == Phase::Stopped) => None,
        output = client => Some(output),
    }
}

enum Role {
    Producer(crate::plan::ProducerPlan),
    Replayer(crate::plan::ReplayerPlan),
    Consumer(crate::plan::ConsumerPlan),
    OffsetPoller(crate::plan::OffsetPollerPlan),
    Churn(crate::plan::ChurnPlan),
    Recreate(crate::plan::RecreatePlan, Part, Arc<workloads::Generations>),
    Grow(crate::plan::GrowPlan),
    DeleteRecords(crate::plan::DeleteRecordsPlan),
    Configure(crate::plan::ConfigurePlan, Vec<TopicPlan>),
    Bell(crate::plan::BellPlan),
    Forger(crate::plan::ForgerPlan),
    Sleeper(crate::plan::SleeperPlan),
    Auditor(crate::plan::AuditorPlan),
    SlowReader(crate::plan::SlowReaderPlan),
    Wanderer(crate::plan::WandererPlan),
    Trespasser(crate::plan::TrespasserPlan),
    Errands(crate::plan::ErrandsPlan),
    Administrator(crate::plan::AdministratorsPlan, Arc<workloads::SharedNames>),
}

async fn conduct(
    plan: Arc<WorkloadPlan>,
    mut setup: Context,
    clients: Vec<(Context, Role)>,
    ready: watch::Sender<bool>,
) {
    let mut topics = Vec::new();
    for topic in &plan.topics {
        topics.push(Arc::new(make_topic(&mut setup, topic).await));
    }
    let mut running = Vec::new();
    for (mut context, role) in clients {
        context.topics.clone_from(&topics);
        let env = Arc::clone(&context.link.env);
        let phase = context.phase.clone();
        running.push(match role {
            Role::Producer(plan) => {
                spawn(&*env, "producer", until_stopped(phase, workloads::produce(context, plan)))
            }
            Role::Replayer(plan) => {
                spawn(&*env, "replayer", until_stopped(phase, workloads::replay(context, plan)))
            }
            Role::Consumer(plan) => {
                spawn(&*env, "consumer", until_stopped(phase, workloads::consume(context, plan)))
            }
            Role::OffsetPoller(plan) => {
                spawn(&*env, "offset-poller", until_stopped(phase, workloads::poll_offsets(context, plan)))
            }
            Role::Churn(plan) => {
                spawn(&*env, "topic-churn", until_stopped(phase, workloads::churn(context, plan)))
            }
            Role::Recreate(plan, part, generations) => {
                let client = workloads::recreate(context, plan, part, generations);
                spawn(&*env, "topic-recreate", until_stopped(phase, client))
            }
            Role::Grow(plan) => {
                spawn(&*env, "topic-grow", until_stopped(phase, workloads::grow(context, plan)))
            }
            Role::DeleteRecords(plan) => {
                spawn(&*env, "trim", until_stopped(phase, workloads::delete_records(context, plan)))
            }
            Role::Configure(plan, topics) => {
                spawn(&*env, "configure", until_stopped(phase, workloads::configure(context, plan, topics)))
            }
            Role::Bell(plan) => spawn(&*env, "bell", until_stopped(phase, workloads::bell(context, plan))),
            Role::SlowReader(plan) => {
                spawn(&*env, "slow-reader", until_stopped(phase, workloads::read_slowly(context, plan)))
            }
            Role::Wanderer(plan) => {
                spawn(&*env, "wanderer", until_stopped(phase, workloads::wander(context, plan)))
            }
            Role::Trespasser(plan) => {
                spawn(&*env, "trespasser", until_stopped(phase, workloads::trespass(context, plan)))
            }
            Role::Errands(plan) => {
                spawn(&*env, "errands", until_stopped(phase, workloads::run_errands(context, plan)))
            }
            Role::Administrator(plan, names) => {
                let client = workloads::administer(context, plan, names);
                spawn(&*env, "administrator", until_stopped(phase, client))
            }
            Role::Forger(plan) => {
                spawn(&*env, "forger", until_stopped(phase, workloads::forge(context, plan)))
            }
            Role::Sleeper(plan) => {
                spawn(&*env, "sleeper", until_stopped(phase, workloads::sleep(context, plan)))
            }
            Role::Auditor(plan) => {
                spawn(&*env, "auditor", until_stopped(phase, workloads::audit(context, plan)))
            }
        });
    }
    ready.send_replace(true);
    for client in running {
        let _ = client.await;
    }
}

/// Creates a topic and waits until metadata shows it; repeats until it exists.
pub(crate) async fn make_topic(context: &mut Context, plan: &TopicPlan) -> Topic {
    const TOPIC_ALREADY_EXISTS: i16 = 36;
    const INVALID_REPLICATION_FACTOR: i16 = 38;
    loop {
        match create_topic(&mut context.link, plan).await {
            Ok(None | Some(TOPIC_ALREADY_EXISTS)) => break,
            // A log directory is offline, and there is no room for another partition.
            Ok(Some(INVALID_REPLICATION_FACTOR)) => context.link.back_off().await,
            Ok(Some(code)) if crate::client::is_retriable(code) => context.link.back_off().await,
            Ok(Some(code)) => {
                context.recorder.complain("create_topics", format!("{plan:?} was refused with error {code}"));
                context.link.back_off().await;
            }
            Err(error) => context.link.failed(&error).await,
        }
    }
    let topic = loop {
        match find_topic(&mut context.link, plan).await {
            Ok(Some(topic)) => break topic,
            Ok(None) => context.link.back_off().await,
            Err(error) => context.link.failed(&error).await,
        }
    };
    // Somebody may have added some already.
    if topic.partitions < plan.partitions {
        let story = format!(
            "{} was created with {} partitions, has {}",
            plan.name, plan.partitions, topic.partitions
        );
        context.recorder.complain("topic_kept", story);
    }
    context.recorder.tell(EventKind::TopicCreated {
        topic: topic.name.clone(),
        topic_id: topic.id.as_u128(),
        partitions: topic.partitions,
        replication_factor: plan.replication_factor.max(1),
        synced: topic.synced,
        dense: topic.dense,
        configs: plan.configs.clone(),
    });
    context.shared.created(&topic, plan);
    topic
}
