//! The thread that asks container runtimes, so that nobody else waits for them. One tokio runtime, one task
//! for each daemon: a hung socket delays only its own questions. Queues are bounded; a daemon that is away is
//! tried again with back-off, and every failure is reported and counted.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, Weak, mpsc as std_mpsc},
    thread,
    time::Duration,
};

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::mpsc;

use super::{
    Container, ContainersConfig, Error, Image,
    containerd::{self, Daemon},
    docker,
    locate::Engine,
    storage::Storages,
};

/// Questions that wait for the thread, and again for each daemon.
const QUEUE: usize = 4096;
/// First and longest wait after a failure.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// Times one container's question may fail while its daemon answers others.
const MAX_FAILURES: u32 = 5;

/// What is asked.
#[derive(Debug)]
pub(crate) struct Question {
    /// The container's cgroup, as the answer's address.
    pub(crate) cgroup_id: u64,
    /// The container as far as it is known.
    pub(crate) container: Arc<Container>,
    /// Whom to ask.
    pub(crate) engine: Engine,
    /// Gone when nobody waits for the answer any more.
    pub(crate) alive: Weak<()>,
    /// How often it failed while its engine answered others.
    pub(crate) failures: u32,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) cgroup_id: u64,
    pub(crate) outcome: Outcome,
}

/// The kinds of answers. All but the first two are followed by another.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The engine's description.
    Found(Box<Details>),
    /// The engine does not know the container.
    Gone,
    /// No answer in time.
    Timeout,
    /// No connection.
    Unreachable,
    /// Any other error.
    Failed,
    /// Too many questions wait for this daemon; the question was dropped.
    Overflow,
}

/// What only the engine knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Details {
    /// Name, where the engine has another than the bundle.
    pub(crate) name: Option<String>,
    /// Labels.
    pub(crate) labels: Vec<(String, String)>,
    /// Created, ns since the epoch; 0 = unknown.
    pub(crate) created_ns: i64,
    /// Its image.
    pub(crate) image: Option<Image>,
}

/// The asking thread's handle. The thread ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Asker {
    questions: mpsc::Sender<Question>,
    answers: std_mpsc::Receiver<Answer>,
    wake: Arc<OwnedFd>,
}

impl Asker {
    /// Starts the thread.
    pub(crate) fn start(config: &ContainersConfig) -> io::Result<Self> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (questions, inbox) = mpsc::channel(QUEUE);
        // Unbounded, but never more than one answer per question and back-off period.
        let (outbox, answers) = std_mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let reply = Reply { outbox, wake: Arc::clone(&wake) };
        let settings = Settings { timeout: config.api_timeout, host_root: config.host_root.clone() };
        thread::Builder::new().name("purser-ask".to_owned()).spawn(move || {
            runtime.block_on(dispatch(inbox, &reply, &settings));
        })?;
        Ok(Self { questions, answers, wake })
    }

    /// Queues a question; `false` if the queue is full.
    pub(crate) fn ask(&self, question: Question) -> bool {
        self.questions.try_send(question).is_ok()
    }

    /// The next answer that is there.
    pub(crate) fn next_answer(&self) -> Option<Answer> {
        if let Ok(answer) = self.answers.try_recv() {
            return Some(answer);
        }
        // Empty: lower the flag, then look once more for what came in between.
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        self.answers.try_recv().ok()
    }
}

impl AsFd for Asker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[derive(Debug, Clone)]
struct Reply {
    outbox: std_mpsc::Sender<Answer>,
    wake: Arc<OwnedFd>,
}

impl Reply {
    fn send(&self, cgroup_id: u64, outcome: Outcome) {
        // A closed channel or a full eventfd needs no further word: nobody listens, or somebody is awake.
        if self.outbox.send(Answer { cgroup_id, outcome }).is_ok() {
            let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
        }
    }
}

#[derive(Debug, Clone)]
struct Settings {
    timeout: Duration,
    host_root: PathBuf,
}

/// Hands each question to its engine's task.
async fn dispatch(mut inbox: mpsc::Receiver<Question>, reply: &Reply, settings: &Settings) {
    let mut daemons: HashMap<PathBuf, mpsc::Sender<Question>> = HashMap::new();
    let (files, files_inbox) = mpsc::channel(QUEUE);
    tokio::spawn(ask_files(files_inbox, files.downgrade(), reply.clone()));
    while let Some(question) = inbox.recv().await {
        let queue = match &question.engine {
            Engine::Containerd { socket, .. } => daemons.entry(socket.clone()).or_insert_with(|| {
                let (queue, inbox) = mpsc::channel(QUEUE);
                let daemon = Daemon::new(socket.clone(), settings.host_root.clone(), settings.timeout);
                tokio::spawn(ask_daemon(daemon, inbox, queue.downgrade(), reply.clone()));
                queue
            }),
            Engine::Storage { .. } | Engine::Docker { .. } => &files,
            Engine::None => continue,
        };
        if let Err(error) = queue.try_send(question) {
            reply.send(error.into_inner().cgroup_id, Outcome::Overflow);
        }
    }
}

/// Asks one containerd.
async fn ask_daemon(
    mut daemon: Daemon,
    mut inbox: mpsc::Receiver<Question>,
    queue: mpsc::WeakSender<Question>,
    reply: Reply,
) {
    let mut back_off = BACK_OFF.0;
    while let Some(question) = inbox.recv().await {
        let Engine::Containerd { namespace, .. } = &question.engine else { continue };
        while question.alive.strong_count() > 0 {
            let reused = daemon.is_connected();
            let error = match daemon.details(namespace, &question.container.id).await {
                Err(error @ Error::Unreachable { .. }) => error,
                answered => {
                    back_off = BACK_OFF.0;
                    settle(question, answered, &queue, &reply);
                    break;
                }
            };
            let timeout = matches!(&error, Error::Unreachable { reason, .. } if reason == containerd::TIMEOUT);
            tracing::debug!(container = question.container.id, %error, "a container runtime is away");
            reply.send(question.cgroup_id, if timeout { Outcome::Timeout } else { Outcome::Unreachable });
            daemon.disconnect();
            if reused && !timeout {
                // It was restarted, maybe long ago: the new one is asked at once.
                continue;
            }
            tokio::time::sleep(back_off).await;
            back_off = (back_off * 2).min(BACK_OFF.1);
        }
    }
}

/// Answers from files: containers/storage and docker need no daemon. Local reads, so done in place.
async fn ask_files(mut inbox: mpsc::Receiver<Question>, queue: mpsc::WeakSender<Question>, reply: Reply) {
    let mut storages = Storages::default();
    while let Some(question) = inbox.recv().await {
        let id = &question.container.id;
        let found = match &question.engine {
            Engine::Storage { graph_root } => storages.details(graph_root, id),
            Engine::Docker { root } => docker::details(root, id),
            Engine::Containerd { .. } | Engine::None => continue,
        };
        settle(question, found, &queue, &reply);
    }
}

/// Reports an engine's answer; a failed question is put back into the queue a little later.
fn settle(mut question: Question, answer: Result<Details, Error>, queue: &mpsc::WeakSender<Question>, reply: &Reply) {
    let error = match answer {
        Ok(details) => return reply.send(question.cgroup_id, Outcome::Found(Box::new(details))),
        Err(Error::NotFound(_)) => return reply.send(question.cgroup_id, Outcome::Gone),
        Err(error) => error,
    };
    let id = &question.container.id;
    tracing::debug!(container = id, error = &error as &dyn std::error::Error, "a container is not described");
    reply.send(question.cgroup_id, Outcome::Failed);
    question.failures += 1;
    if question.failures == MAX_FAILURES {
        return reply.send(question.cgroup_id, Outcome::Gone);
    }
    let (queue, reply) = (queue.clone(), reply.clone());
    tokio::spawn(async move {
        tokio::time::sleep(BACK_OFF.0 * question.failures).await;
        if let Some(queue) = queue.upgrade()
            && let Err(error) = queue.try_send(question)
        {
            reply.send(error.into_inner().cgroup_id, Outcome::Overflow);
        }
    });
}
