//! Orders of the gateway to the remotes, for one model: jobs that all servers do together, and commands that need none.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::blame::{Blame, Root, root};
use super::coordinator::Coordinator;
use crate::cluster::commands::{self, Command, Done, Order, Reply};
use crate::failure::{Broken, Failure};

/// Time for commands that need no job.
const SHORT: Duration = Duration::from_secs(10);
/// What a remote may need beyond a job's own limit.
const GRACE: Duration = Duration::from_secs(5);
/// After a job failed here, the remotes have this long to say why it failed there.
const REASONS: Duration = Duration::from_secs(1);

/// Orders on their way, and who answered what.
type Orders = JoinSet<(usize, Reply)>;

impl Coordinator {
    fn remotes(&self) -> std::ops::Range<usize> {
        1..self.node.mesh.servers()
    }

    pub(super) fn job(&self) -> u64 {
        self.node.orders.job()
    }

    /// Does a job: this server's part, and by `command` the remotes'. If anyone fails, all are told
    /// to give up. With `all`, it is done when all are.
    pub(super) async fn order<T>(
        &self,
        job: u64,
        command: Command,
        limit: Duration,
        all: bool,
        own: impl Future<Output = Result<T, Broken>>,
    ) -> Result<T, Blame> {
        let mut orders = self.ordered(&command, limit, &());
        self.done(&mut orders, job, all, own).await
    }

    /// As [`Self::order`]: done when this server's part is, but `held` is dropped only when all have answered.
    pub(super) async fn order_while<T, H: Send + Sync + 'static>(
        &self,
        job: u64,
        command: Command,
        limit: Duration,
        held: Arc<H>,
        own: impl Future<Output = Result<T, Broken>>,
    ) -> Result<T, Blame> {
        let mut orders = self.ordered(&command, limit, &held);
        let result = self.done(&mut orders, job, false, own).await;
        orders.detach_all();
        result
    }

    /// Orders that were sent to all remotes, and what they answer. Each has `held` until then.
    fn ordered<H: Clone + Send + 'static>(&self, command: &Command, limit: Duration, held: &H) -> Orders {
        let mut orders = JoinSet::new();
        for to in self.remotes() {
            let (mesh, order, held) = (self.node.mesh.clone(), self.about(command.clone()), held.clone());
            orders.spawn(async move {
                let reply = commands::send(&mesh, to, &order, limit + GRACE).await;
                drop(held);
                (to, reply)
            });
        }
        orders
    }

    async fn done<T>(
        &self,
        orders: &mut Orders,
        job: u64,
        all: bool,
        own: impl Future<Output = Result<T, Broken>>,
    ) -> Result<T, Blame> {
        let mut own = std::pin::pin!(own);
        let mut value = None;
        // Failures in the order in which they were heard of.
        let mut failed: Vec<Blame> = Vec::new();
        while failed.is_empty() && (value.is_none() || all && !orders.is_empty()) {
            tokio::select! {
                result = &mut own, if value.is_none() => match result {
                    Ok(made) => value = Some(made),
                    Err(broken) => failed.push(self.own(broken)),
                },
                Some(reply) = orders.join_next() => {
                    if let Ok((server, Err(failure))) = reply {
                        failed.push(Blame { server, failure, cause: None });
                    }
                }
            }
        }
        if failed.is_empty() {
            return value.ok_or_else(|| self.own(Failure::Internal.into()));
        }
        self.node.jobs.cancel(job);
        let cancel = Command::Cancel { job };
        let cancel = self.tell(&cancel);
        let reasons = async {
            while let Some(reply) = orders.join_next().await {
                if let Ok((server, Err(failure))) = reply {
                    failed.push(Blame { server, failure, cause: None });
                }
            }
        };
        let _ = timeout(REASONS, async { tokio::join!(cancel, reasons) }).await;
        Err(self.culprit(failed))
    }

    /// The failure to report: who gave up only because another server was gone says less than the
    /// one that did something else.
    fn culprit(&self, failed: Vec<Blame>) -> Blame {
        let at = match root(&failed) {
            Root::Failure(at) => at,
            Root::Silence(at, silent) => {
                if let Some(lacking) = self.lacking() {
                    return self.own(Failure::Unavailable(lacking).into());
                }
                // Told as that server's, whoever noticed it.
                let failure = match failed.get(at).map(|blame| blame.failure) {
                    Some(Failure::TimedOut(_)) => Failure::TimedOut(silent),
                    _ => Failure::Unavailable(silent),
                };
                return self.own(failure.into());
            }
        };
        failed.into_iter().nth(at).unwrap_or_else(|| self.own(Failure::Internal.into()))
    }

    pub(super) fn own(&self, broken: Broken) -> Blame {
        Blame { server: self.node.me(), failure: broken.failure, cause: broken.cause }
    }

    fn about(&self, command: Command) -> Order {
        Order { model: self.service.info.id, command }
    }

    /// Sends a command that needs no job to all remotes.
    pub(super) async fn tell(&self, command: &Command) -> Result<(), Blame> {
        self.tell_each(self.remotes().map(|_| command.clone())).await
    }

    /// The same; gives the answers, in any order.
    pub(super) async fn ask(&self, command: &Command) -> Result<Vec<Done>, Blame> {
        self.ask_each(self.remotes().map(|_| command.clone())).await
    }

    /// Sends every remote its command, which needs no job.
    pub(super) async fn tell_each(&self, commands: impl Iterator<Item = Command>) -> Result<(), Blame> {
        self.ask_each(commands).await.map(|_| ())
    }

    /// The same; gives the answers, in any order.
    async fn ask_each(&self, commands: impl Iterator<Item = Command>) -> Result<Vec<Done>, Blame> {
        let mut orders = JoinSet::new();
        for (to, command) in self.remotes().zip(commands) {
            let (mesh, order) = (self.node.mesh.clone(), self.about(command));
            orders.spawn(async move { (to, commands::send(&mesh, to, &order, SHORT).await) });
        }
        let mut answers = Ok(Vec::new());
        while let Some(reply) = orders.join_next().await {
            match (reply, &mut answers) {
                (Ok((_, Ok(done))), Ok(answers)) => answers.push(done),
                (Ok((server, Err(failure))), Ok(_)) => answers = Err(Blame { server, failure, cause: None }),
                _ => {}
            }
        }
        answers
    }

    /// Says what failed, and on which server.
    pub fn report(&self, what: &str, blame: &Blame) {
        let name = self.node.mesh.name(blame.server);
        let cause = blame.cause.as_ref().map_or_else(|| blame.failure.to_string(), ToString::to_string);
        let culprit = blame.failure.server().unwrap_or(blame.server);
        let told = format!("{what} failed on server {} ({name}): {cause}", blame.server);
        self.node.report_failure(what, culprit, &self.service.model(), told);
    }
}
